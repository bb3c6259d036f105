"""The reference backend: the textbook as it stands, on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.ops import *  # noqa: F403 (a backend is the textbook's names)
from miniclip.ops.array import FLOAT_DTYPES, Array

name = "numpy"
ENGINE: str | None = None  # the module with this backend's inference plans, for the pipeline


def check_device() -> None:
    """NumPy runs everywhere."""


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """The model's dtype as NumPy knows it. Raises TypeError unless it is float32 or float64."""
    wanted = np.dtype(dtype)
    if wanted.name not in FLOAT_DTYPES:
        raise TypeError(f"dtype: got {wanted.name}, expected float32 or float64")
    return wanted


def asarray(x: Any, dtype: Any) -> Array:
    """x as this backend's array in the model's dtype (float32 or float64)."""
    return np.asarray(x, check_dtype(dtype))


def as_ids(x: Any) -> Array:
    """x as this backend's array of int64: token ids, targets."""
    return np.asarray(x, np.int64)


def to_numpy(x: Array) -> Array:
    """A NumPy array with the values of this backend's array x."""
    return np.asarray(x)
