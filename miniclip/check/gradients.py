"""Gradient checks: a backward pass against slopes measured on its own forward pass.

The loss is sum(dy * y) with a random dy (ones would hide every error of a normalisation). Along a
random direction v of one input it changes by sum(gradient * v): that is compared with the slope
that central differences measure, for each input by itself, so that a wrong gradient is found with
the input that it belongs to. Everything is float64: in float32 the differences would be rounding.

How exact this is: docs/check.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from miniclip.check import answers
from miniclip.check.answers import Unusable
from miniclip.check.diagnosis import diagnose
from miniclip.check.result import GradientCheck, InputCheck
from miniclip.check.slopes import Point, Slope
from miniclip.ops.array import Array

TOLERANCE = 1e-7
DIRECTIONS = 2  # one finds nearly every error; the second is for an error nearly orthogonal to it
DIAGNOSED = 3  # wrong gradients that are looked at entry by entry, which takes many forward passes
NOT_MEASURABLE = (
    "cannot be measured at these inputs, as steps of different size disagree: a kink "
    "(a ReLU at 0), or values at the edge of what float64 resolves; try other inputs"
)


def op_gradients(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *inputs: Any,
    constants: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    directions: int = DIRECTIONS,
    tolerance: float = TOLERANCE,
) -> GradientCheck:
    """Check a pair `forward(*inputs, **options) -> (y, ..., cache)`, `backward(dy, cache)`.

    inputs: float64 arrays, which have gradients; integer and bool arrays, which have none; None,
    whose gradient is None. constants: names of float64 inputs (or None) without a gradient, such
    as a mask. names: of the inputs; by default those of forward's parameters. dy is the gradient
    of the first output. backward returns the gradients in the order of the inputs that have one.

    A wrong forward or backward gives a result that says so; what it raises itself is not caught.
    Raises TypeError for a float input that is not float64, ValueError for float64 inputs that are
    not finite or of which there is none, for unknown names, and for a number of directions or a
    tolerance that is not positive.
    """
    answers.check_settings(directions, tolerance)
    given = answers.named_inputs(forward, inputs, names)
    constant = set(constants)
    unknown = sorted(constant - set(given))
    if unknown:
        raise ValueError(f"constants: got {unknown}, expected names out of {list(given)}")
    wanted = {n: x for n, x in given.items() if n not in constant and answers.has_gradient(x)}
    values = answers.check_values(wanted)

    def first_output(replaced: Mapping[str, Array]) -> tuple[Any, Any]:
        return answers.split_outputs(forward(*{**given, **replaced}.values(), **(options or {})))

    copies = {name: x.copy() for name, x in given.items() if x is not None}
    try:
        y, cache = first_output(copies)
        answers.check_output("y", y)
        rng = np.random.default_rng([seed, 1])  # not the stream that draws inputs of the same seed
        dy = np.asarray(rng.standard_normal(np.shape(y)))
        copies["dy"] = dy.copy()
        got = answers.in_order(backward(copies["dy"], cache), list(wanted))
        answers.check_untouched(given | {"dy": dy}, copies)
    except Unusable as reason:
        return GradientCheck((), tolerance, str(reason))

    def loss(replaced: Mapping[str, Array]) -> float:
        return float((dy * first_output(replaced)[0]).sum())

    point = Point(values, loss, float(np.abs(dy * y).sum()), answers.only_number(dy))
    return examine(point, wanted, got, rng, directions, tolerance)


def function_gradients(
    function: Callable[..., Any],
    backward: Callable[..., Any],
    *inputs: Any,
    names: Sequence[str] | None = None,
    **settings: Any,
) -> GradientCheck:
    """Check a plain function `function(*inputs) -> y` and `backward(dy, *inputs) -> gradients`.

    Where y is one number, so is dy: for a loss and a function that returns its gradient,
    `function_gradients(loss, lambda dy, x: dy * gradient(x), x)`. The settings, and what is
    raised, are those of `op_gradients`.
    """
    return op_gradients(
        lambda *values: (function(*values), values),
        lambda dy, values: backward(dy, *values),
        *inputs,
        names=list(answers.named_inputs(function, inputs, names)),
        **settings,
    )


def examine(
    point: Point,
    wanted: Mapping[str, Array | None],
    got: Mapping[str, Any],
    rng: np.random.Generator,
    directions: int,
    tolerance: float,
) -> GradientCheck:
    """Compare each gradient with slopes at the point; wanted: the inputs, None for a None."""
    checks = [
        examine_one(point, name, got[name], x, rng, directions, tolerance)
        for name, x in wanted.items()
    ]
    wrong = [check.name for check in checks if check.problem == UNEXPLAINED]
    for i, check in enumerate(checks):
        if check.name in wrong[:DIAGNOSED]:
            problem = diagnose(point, check.name, got)
            checks[i] = InputCheck(check.name, check.error, problem)
    return GradientCheck(tuple(checks), tolerance)


UNEXPLAINED = "differs from the measured slopes"


def examine_one(
    point: Point,
    name: str,
    gradient: Any,
    x: Array | None,
    rng: np.random.Generator,
    directions: int,
    tolerance: float,
) -> InputCheck:
    """One gradient along a few directions, or what is wrong with it at first sight."""
    problem = answers.problem_of(gradient, x)
    if problem or x is None:
        return InputCheck(name, float("inf") if problem else 0.0, problem)
    if np.shape(gradient) != x.shape:
        return InputCheck(name, float("inf"), UNEXPLAINED)
    worst = 0.0
    for _ in range(directions):
        direction = np.asarray(rng.standard_normal(x.shape))
        error, measurable = relative_error(point, name, gradient, direction, tolerance)
        worst = max(worst, error)
        if error > tolerance:
            return InputCheck(name, worst, UNEXPLAINED if measurable else NOT_MEASURABLE)
    return InputCheck(name, worst)


def relative_error(
    point: Point, name: str, gradient: Array, direction: Array, tolerance: float
) -> tuple[float, bool]:
    """How far sum(gradient * direction) is from the slope, and whether the slope is to be trusted.

    Relative to the sum's absolute terms, to the slope, or to what rounding may add over the
    tolerance, whichever is largest.
    """
    terms = gradient * direction
    size = float(np.abs(terms).sum())

    def certain(slope: Slope) -> bool:
        return slope.doubt + slope.noise <= tolerance * max(size, abs(slope.value))

    slope = point.slope(name, direction, certain)
    # the loss may depend so little on the input that every step is lost in rounding
    trusted = slope.doubt <= tolerance * max(size, abs(slope.value)) + slope.noise < np.inf
    difference = abs(slope.value - float(terms.sum()))
    scale = max(size, abs(slope.value), slope.noise / tolerance)
    error = difference / scale if scale > 0 else difference
    error = error if np.isfinite(error) else float("inf")
    measurable = error <= tolerance or (trusted and not point.is_kink(name, direction))
    return error, measurable
