"""The linear layer: y = x Wᵀ + b. Derivation: docs/ops/linear.md."""

from __future__ import annotations

from miniclip.ops.array import Array, Cache, check_floats, sum_to_last


def linear(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Cache]:
    """y = x Wᵀ + b for every row of x.

    x: (..., in). weight: (out, in), PyTorch's order. bias: (out,) or None.
    Returns y (..., out) and the cache. float32 or float64, the same for all.
    Source: `torch.nn.Linear`.
    """
    check_floats("linear", x=x, weight=weight, bias=bias)
    rows = x.reshape(-1, x.shape[-1])  # (R, in): one matrix product, not one for each image
    y = rows @ weight.T  # (R, in) @ (in, out) -> (R, out)
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], weight.shape[0]), (x, weight, bias is not None)


def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array | None]:
    """dy: (..., out). Returns dx (..., in), dweight (out, in), dbias (out,) or None."""
    x, weight, has_bias = cache
    rows = x.reshape(-1, x.shape[-1])  # (R, in)
    drows = dy.reshape(-1, dy.shape[-1])  # (R, out)
    # y = rows @ weight.T + bias
    dx = (drows @ weight).reshape(x.shape)  # (R, out) @ (out, in) -> (R, in)
    dweight = drows.T @ rows  # (out, R) @ (R, in) -> (out, in)
    dbias = sum_to_last(dy) if has_bias else None
    return dx, dweight, dbias
