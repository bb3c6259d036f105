"""What an answer returns, before its numbers are looked at; and the stored examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.course.diagnosis import arrangement
from miniclip.course.failures import WrongAnswer
from miniclip.ops.array import Array

STORED = Path(__file__).with_name("stored.json")


def check_form(
    exercise: str,
    names: Sequence[str],
    answer: Callable[..., Any],
    arguments: Mapping[str, Any],
    right: Sequence[Array],
) -> tuple[Array, ...]:
    """Call an answer and return its outputs, one for each name, as arrays that can be compared.

    right: arrays with the expected shapes and dtypes. Raises `WrongAnswer` for no output, a wrong
    number of them, a wrong kind, shape or dtype, numbers that are not finite, and for an argument
    that was written into.
    """
    copies = {name: x.copy() if isinstance(x, np.ndarray) else x for name, x in arguments.items()}
    returned = answer(*copies.values())
    outputs = unpacked(exercise, names, returned)
    written = [n for n, x in copies.items() if not same(x, arguments[n])]
    for name, got, expected in zip(names, outputs, right, strict=True):
        check_array(name, got, expected)
    if written:
        raise WrongAnswer(
            f"{exercise} has written into {written[0]}: an argument is left as it is; "
            "make a new array, or a copy"
        )
    return tuple(np.asarray(x) for x in outputs)


def unpacked(exercise: str, names: Sequence[str], returned: Any) -> tuple[Any, ...]:
    """The outputs, if there are as many as there have to be."""
    expected = ", ".join(names)
    if returned is None or returned is Ellipsis:
        raise WrongAnswer(f"{exercise} returned nothing, expected {expected}")
    if len(names) == 1:
        if isinstance(returned, tuple):
            count = len(returned)
            raise WrongAnswer(f"{exercise} returned a tuple of {count}, expected {expected} alone")
        return (returned,)
    if not isinstance(returned, tuple | list) or len(returned) != len(names):
        got = f"{len(returned)} values" if isinstance(returned, tuple | list) else "one value"
        raise WrongAnswer(f"{exercise} returned {got}, expected {len(names)}: {expected}")
    return tuple(returned)


def check_array(name: str, got: Any, expected: Array) -> None:
    """An array of the expected shape and dtype, with finite numbers."""
    if got is None or got is Ellipsis:
        raise WrongAnswer(f"{name} is nothing, expected an array of shape {expected.shape}")
    if not isinstance(got, np.ndarray | np.generic | float):
        kind = type(got).__name__
        raise WrongAnswer(f"{name} is a {kind}, expected an array of shape {expected.shape}")
    if np.shape(got) != expected.shape:
        found = arrangement(np.asarray(got), expected)
        words = f": it {found}" if found else ""
        raise WrongAnswer(f"{name} has shape {np.shape(got)}, expected {expected.shape}{words}")
    dtype = np.asarray(got).dtype
    if dtype != expected.dtype:
        wide = dtype == np.float64 and expected.dtype == np.float32
        why = ": a NumPy number in float64 widens, a Python float does not" if wide else ""
        raise WrongAnswer(f"{name} is {dtype} for {expected.dtype} arguments{why}")
    if not np.isfinite(got).all():
        raise WrongAnswer(f"{name} has numbers that are not finite (nan or inf)")


def same(x: Any, before: Any) -> bool:
    """Whether an argument is as it was."""
    return not isinstance(x, np.ndarray) or np.array_equal(x, before, equal_nan=True)


def as_float32(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with their arrays in float32."""
    return {
        name: x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
        for name, x in arguments.items()
    }


# ------------------------------------------------------------------------ stored examples


@cache
def stored() -> dict[str, Any]:
    """What stored.json has: exercise -> arguments and outputs, computed by PyTorch."""
    loaded: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return loaded


def example_of(exercise: str) -> tuple[dict[str, Any], tuple[Array, ...]] | None:
    """The example of an exercise: arguments and PyTorch's outputs; None if none is stored."""
    example = stored().get(exercise)
    if example is None:
        return None
    arguments = {name: from_json(x) for name, x in example["arguments"].items()}
    return arguments, tuple(np.asarray(x, np.float64) for x in example["outputs"])


def from_json(x: Any) -> Any:
    """A list under "array" is an array, any other a tuple; numbers are themselves."""
    if isinstance(x, dict):
        return np.asarray(x["array"], np.float64)
    return tuple(x) if isinstance(x, list) else x
