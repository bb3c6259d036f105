"""How the Numba backend hands arrays to its kernels, which neither allocate nor check bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from miniclip.ops.array import Array


def ready(x: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """x as the kernels read it, in this shape and dtype; x itself where it is so already.

    C-ordered and aligned, because the kernels walk through memory; writeable, although they do not
    write to it, because Numba would compile every loop again for read-only arrays. Raises
    ValueError if x does not broadcast to shape: the kernels check no bounds.
    """
    if x.shape == shape and x.dtype == dtype and x.flags.carray:
        return x  # nearly always, and np.require takes longer to find out
    if x.shape != shape:
        x = np.broadcast_to(x, shape)
    return np.require(x, dtype, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


def as_numbers(x: Array) -> Array:
    """All numbers of x in C order: (N,), a view where x is C-ordered."""
    return ready(x, x.shape, x.dtype).reshape(-1)


def own_copy(x: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A C-ordered copy of x, broadcast to this shape, for a kernel that works in place."""
    y = np.empty(shape, dtype)
    y[...] = x
    return y


def as_rows(x: Array) -> Array:
    """(..., D) -> (R, D), a view of a C-ordered array."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
