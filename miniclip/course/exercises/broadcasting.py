"""Part 2: the gradient of a broadcast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from miniclip.course.diagnosis import Output, Slip
from miniclip.course.exercise import Exercise, Forward, Values
from miniclip.course.exercises.common import How, TermsOf, normal, some
from miniclip.ops.array import Array


def right_sum_to_shape(dy: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes that broadcasting added or stretched."""
    added = tuple(range(dy.ndim - len(shape)))
    stretched = tuple(
        len(added) + i for i, n in enumerate(shape) if n == 1 and dy.shape[len(added) + i] > 1
    )
    return np.asarray(dy.sum(axis=(*added, *stretched)).reshape(shape))


def draw_sum_to_shape(rng: np.random.Generator) -> list[Values]:
    a, b, c = some(rng, 2, 6, 3)
    shapes = [(c,), (b, 1), (1, c), (a, 1, c), (), (a, b, c), (1, 1, 1)]
    return [{"x": normal(rng, *shape), "to": (a, b, c)} for shape in shapes]


def reduced(added: How, stretched: How) -> Callable[..., TermsOf]:
    """The terms of a slip that does something else than to sum over the added or stretched axes."""

    def terms(dy: Array, shape: tuple[int, ...]) -> TermsOf:
        lead, x = dy.ndim - len(shape), dy
        for axis in range(dy.ndim):
            if axis < lead:
                x = added(x, axis=axis, keepdims=True)
            elif shape[axis - lead] == 1 and dy.shape[axis] > 1:
                x = stretched(x, axis=axis, keepdims=True)
        return {"": x.reshape(shape)}

    return terms


def first(x: Array, axis: int, keepdims: bool) -> Array:
    return x.take([0], axis=axis)


def last(x: Array, axis: int, keepdims: bool) -> Array:
    return x.take([-1], axis=axis)


OTHERS: dict[str, How] = {
    "mean": np.mean,
    "largest": np.max,
    "first entry": first,
    "last entry": last,
}
SUM_SLIPS = (
    Slip(
        "the sum of all of dy, in every place",
        lambda dy, shape: {"": np.full(shape, dy.sum())},
    ),
    *(
        Slip(f"the {name} along the axes that were {where}, not the sum", reduced(added, stretched))
        for name, how in OTHERS.items()
        for where, added, stretched in (
            ("added", how, np.sum),
            ("stretched", np.sum, how),
            ("broadcast", how, how),
        )
    ),
)
SUM_TO_SHAPE = Exercise(
    "sum_to_shape",
    (
        Output(
            "dx",
            lambda dy, shape: {"the sum over the broadcast axes": right_sum_to_shape(dy, shape)},
            SUM_SLIPS,
        ),
    ),
    right_sum_to_shape,
    draw_sum_to_shape,
    Forward(
        lambda x, to: np.array(np.broadcast_to(x, to)),
        ("x",),
        lambda dy, values: {"dy": dy, "shape": values["x"].shape},
    ),
    refused=("sum_to_last",),
)
