"""The Numba backend's linear layer: three products by the team, and the bias's sums."""

from __future__ import annotations

from miniclip.backends.numba import row_kernels as kernels
from miniclip.cpu.arrays import as_rows, ready
from miniclip.cpu.products import product
from miniclip.cpu.share import row_sums
from miniclip.ops.array import Array, Cache, check_floats

__all__ = ["linear", "linear_backward"]


def linear(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Cache]:
    """y = x Wᵀ + b for every row of x.

    x: (..., in). weight: (out, in), PyTorch's order. bias: (out,) or None.
    Returns y (..., out) and the cache. float32 or float64, the same for all.
    """
    check_floats("linear", x=x, weight=weight, bias=bias)
    y = product(as_rows(x), weight.T, bias)  # (R, in) @ (in, out) -> (R, out)
    return y.reshape(*x.shape[:-1], weight.shape[0]), (x, weight, bias is not None)


def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array | None]:
    """dy: (..., out). Returns dx (..., in), dweight (out, in), dbias (out,) or None."""
    x, weight, has_bias = cache
    rows, drows = as_rows(x), as_rows(ready(dy, dy.shape, dy.dtype))  # (R, in), (R, out)
    # y = rows @ weight.T + bias
    dx = product(drows, weight).reshape(x.shape)  # (R, out) @ (out, in) -> (R, in)
    dweight = product(drows.T, rows)  # (out, R) @ (R, in) -> (out, in)
    if not has_bias:
        return dx, dweight, None
    (dbias,) = row_sums(kernels.column_sums, drows, 1)
    return dx, dweight, dbias.astype(dy.dtype)
