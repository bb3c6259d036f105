"""What goes into a check and what comes out of a forward or backward pass: is it usable at all?

Mistakes of the caller raise TypeError or ValueError. Mistakes of the passes that are checked raise
`Unusable`, whose message is the diagnosis, or are the problem of one gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from miniclip.ops.array import Array


class Unusable(Exception):
    """What a forward or backward pass gave cannot be compared with anything."""


# ---------------------------------------------------------------------- what the caller gives


def check_settings(directions: int, tolerance: float) -> None:
    """Raises ValueError for a number of directions or a tolerance that is not positive."""
    if directions < 1:
        raise ValueError(f"directions: got {directions!r}, expected at least 1")
    if not tolerance > 0:
        raise ValueError(f"tolerance: got {tolerance!r}, expected a positive number")


def named_inputs(
    forward: Callable[..., Any], inputs: Sequence[Any], names: Sequence[str] | None
) -> dict[str, Array | None]:
    """The inputs as arrays (None stays), under the names of forward's parameters or those given.

    Raises TypeError for floats that are not float64, ValueError for a wrong number of names.
    """
    names = parameter_names(forward, len(inputs)) if names is None else list(names)
    if len(names) != len(inputs) or len(set(names)) != len(names):
        raise ValueError(f"names: got {names}, expected {len(inputs)} different ones")
    given = {n: None if x is None else np.asarray(x) for n, x in zip(names, inputs, strict=True)}
    for name, x in given.items():
        if x is not None and x.dtype != np.float64 and x.dtype.kind not in "iub":
            raise TypeError(
                f"{name} is {x.dtype}, expected float64 (or integers, which have no gradient): "
                "differences in anything less exact would be rounding"
            )
    return given


def parameter_names(forward: Callable[..., Any], count: int) -> list[str]:
    """Names for inputs given by position: those in the signature, else input_0, input_1, ..."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        parameters = {}.values()
    names = [p.name for p in parameters if p.kind in positional]
    return names[:count] + [f"input_{i}" for i in range(len(names), count)]


def has_gradient(x: Array | None) -> bool:
    """Whether an input has a gradient (that of None is None)."""
    return x is None or x.dtype == np.float64


def check_values(wanted: Mapping[str, Array | None]) -> dict[str, Array]:
    """The arrays among the inputs with a gradient. Raises ValueError for none, or not finite."""
    values = {name: x for name, x in wanted.items() if x is not None}
    if not values:
        raise ValueError("inputs: got no float64 array, expected at least one to differentiate by")
    for name, x in values.items():
        if not np.isfinite(x).all():
            raise ValueError(
                f"{name} has values that are not finite, so that no slope can be measured; "
                "an input without a gradient, such as a mask, goes into constants"
            )
    return values


# ---------------------------------------------------------------------- what the passes give


def split_outputs(returned: Any) -> tuple[Any, Any]:
    """(y, ..., cache) -> y, cache."""
    if not isinstance(returned, tuple) or len(returned) < 2:
        raise Unusable(f"forward returned {kind_of(returned)}, expected (y, cache)")
    return returned[0], returned[-1]


def check_output(name: str, y: Any) -> None:
    """An output is a finite float64 array or number."""
    if not isinstance(y, np.ndarray | np.floating | float):
        raise Unusable(f"{name} is {kind_of(y)}, expected a float64 array")
    if np.asarray(y).dtype != np.float64:
        raise Unusable(f"{name} is {np.asarray(y).dtype}, expected float64 like the inputs")
    if not np.isfinite(y).all():
        raise Unusable(f"{name} has values that are not finite")


def in_order(returned: Any, names: Sequence[str]) -> dict[str, Any]:
    """What backward returned, by the names of the inputs."""
    gradients = returned if isinstance(returned, tuple | list) else (returned,)
    if len(gradients) != len(names):
        expected = ", ".join(gradient_of(name) for name in names)
        got = kind_of(returned) if len(gradients) == 1 else f"{len(gradients)} gradients"
        raise Unusable(f"backward returned {got}, expected {len(names)}: {expected}")
    return dict(zip(names, gradients, strict=True))


def problem_of(gradient: Any, x: Array | None) -> str:
    """What makes a gradient unusable (its shape aside), or "" if it can be compared."""
    if x is None:
        return "" if gradient is None else f"is {kind_of(gradient)}, expected None like its input"
    if not isinstance(gradient, np.ndarray | np.floating | float):
        return f"is {kind_of(gradient)}, expected an array of shape {x.shape}"
    if np.asarray(gradient).dtype != np.float64:
        return f"is {np.asarray(gradient).dtype}, expected float64 like its input"
    return "" if np.isfinite(gradient).all() else "has values that are not finite"


def check_untouched(before: Mapping[str, Array | None], after: Mapping[str, Array]) -> None:
    """Neither forward nor backward has written into what it was given."""
    for name, x in after.items():
        if not np.array_equal(x, np.asarray(before[name]), equal_nan=x.dtype.kind == "f"):
            raise Unusable(f"{name} was written into: a pass leaves its inputs as they are")


def only_number(dy: Array) -> float | None:
    """The incoming gradient where it is one number, else None."""
    return float(dy.reshape(())) if dy.size == 1 else None


def gradient_of(name: str) -> str:
    """In a message: dx, or the gradient of ln_post.weight."""
    return f"d{name}" if name.isidentifier() else f"the gradient of {name}"


def kind_of(value: Any) -> str:
    """In a message: what came instead of an array."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"a {type(value).__name__}"
