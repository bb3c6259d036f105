"""What every op shares: the array type and the one check an op makes of its inputs.

An op is a pair of functions on plain arrays, `op(...) -> (y, cache)` and `op_backward(dy, cache)`.
The arrays may be NumPy's or anything that answers NumPy's calls (CuPy does): nothing in this room
asks which.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Cache: TypeAlias = Any  # opaque to everyone but the pair of functions that made it

FLOAT_DTYPES = ("float32", "float64")
NAMES = {np.dtype(name): name for name in FLOAT_DTYPES}  # asking a dtype for its name takes 10 us


def check_floats(op: str, **arrays: Array | None) -> None:
    """Refuse any array that is not float32 or float64, or that differs in dtype from the first.

    Half precision would overflow in exp() and lose whole digits in sums; two dtypes in one call
    would silently give the wider one back. Raises TypeError naming op, argument and dtype.
    """
    first: tuple[str, str] | None = None
    for name, array in arrays.items():
        if array is None:
            continue
        dtype = NAMES.get(array.dtype) if hasattr(array, "dtype") else None
        dtype = dtype or _dtype_name(array)
        if dtype not in FLOAT_DTYPES:
            raise TypeError(
                f"{op}: {name} is {dtype}, expected a float32 or float64 array "
                f"(widen half precision first: {name}.astype('float32'))"
            )
        if first is None:
            first = (name, dtype)
        elif dtype != first[1]:
            raise TypeError(f"{op}: {name} is {dtype}, expected {first[1]} like {first[0]}")


def _dtype_name(array: Any) -> str:
    return getattr(getattr(array, "dtype", None), "name", type(array).__name__)


def sum_to_last(x: Array) -> Array:
    """Sum over all axes but the last: (..., D) -> (D,). The gradient of a broadcast over rows."""
    return x.reshape(-1, x.shape[-1]).sum(axis=0)


def one_hot_rows(index: Array, n: int, dtype: Any) -> Array:
    """Integers (R,) -> matrix (R, n) with a one at each row's index."""
    columns = np.arange(n, like=index)
    return (index[:, None] == columns[None, :]).astype(dtype)
