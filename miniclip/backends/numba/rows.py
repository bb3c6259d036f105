"""The Numba backend's ops on rows: activations, softmax, LayerNorm, unit length, word embeddings,
the mean of all tokens, and the optimiser's step."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from miniclip import ops
from miniclip.backends.numba import row_kernels as kernels
from miniclip.backends.numba.maps import image_by_image
from miniclip.cpu.arrays import as_numbers, as_rows, own_copy, ready
from miniclip.cpu.share import ENTRIES, entry_by_entry, in_pieces, row_sums, rows_at_once
from miniclip.ops.array import Array, Cache, check_floats

OWN = (
    "relu",
    "quick_gelu",
    "gelu",
    "gelu_tanh",
    "softmax",
    "layer_norm",
    "l2_normalize",
    "embedding",
    "mean_token",
)
__all__ = [*OWN, *(f"{name}_backward" for name in OWN), "adamw"]


def each(kernel: Any, cost: int, x: Array) -> Array:
    """A kernel's y for every entry of x. cost: how many simple operations an entry is."""
    y = np.empty(x.shape, x.dtype)
    entry_by_entry(kernel, cost, as_numbers(x), y.reshape(-1))
    return y


def each_backward(kernel: Any, cost: int, dy: Array, x: Array) -> Array:
    """A kernel's dx for every entry of dy and x."""
    dx = np.empty(x.shape, x.dtype)
    entries = ready(dy, x.shape, x.dtype).reshape(-1)
    entry_by_entry(kernel, cost, entries, as_numbers(x), dx.reshape(-1))
    return dx


def relu(x: Array) -> tuple[Array, Cache]:
    """y = max(x, 0). Any shape; float32 or float64. Returns y and the cache."""
    check_floats("relu", x=x)
    return each(kernels.relu, 1, x), x


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy; at the kink, x = 0, the gradient is 0 as in PyTorch."""
    return each_backward(kernels.relu_backward, 1, dy, cache)


def quick_gelu(x: Array) -> tuple[Array, Cache]:
    """y = x sigmoid(1.702 x), the activation of OpenAI's CLIP.

    Any shape; float32 or float64. Returns y and the cache.
    """
    check_floats("quick_gelu", x=x)
    return each(kernels.quick_gelu, 2, x), x


def quick_gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    return each_backward(kernels.quick_gelu_backward, 2, dy, cache)


def gelu(x: Array) -> tuple[Array, Cache]:
    """y = x Phi(x), Phi the normal distribution function: GELU in its exact form.

    Any shape; float32 or float64. Returns y and the cache.
    """
    check_floats("gelu", x=x)
    return each(kernels.gelu, 3, x), x


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    return each_backward(kernels.gelu_backward, 3, dy, cache)


def gelu_tanh(x: Array) -> tuple[Array, Cache]:
    """y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the approximation of GELU by tanh.

    Any shape; float32 or float64. Returns y and the cache.
    """
    check_floats("gelu_tanh", x=x)
    return each(kernels.gelu_tanh, 2, x), x


def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    return each_backward(kernels.gelu_tanh_backward, 2, dy, cache)


def softmax(x: Array) -> tuple[Array, Cache]:
    """y = e^x / sum e^x over the last axis; the row's maximum is subtracted first.

    x: (..., N); -inf is allowed (it gives 0), but not a whole row of it.
    Returns y (..., N) and the cache. float32 or float64.
    """
    check_floats("softmax", x=x)
    y = own_copy(x, x.shape, x.dtype)
    rows = as_rows(y)
    in_pieces(
        len(rows),
        rows_at_once(x.shape[-1]),
        2 * x.size,
        lambda _, piece: kernels.softmax(rows[piece]),  # in place
    )
    return y, y


def softmax_backward(dy: Array, cache: Cache) -> Array:
    """dy: (..., N). Returns dx (..., N)."""
    y = cache
    dx = own_copy(dy, y.shape, y.dtype)
    drows, rows = as_rows(dx), as_rows(ready(y, y.shape, y.dtype))
    in_pieces(
        len(rows),
        rows_at_once(y.shape[-1]),
        y.size,
        lambda _, piece: kernels.softmax_backward(drows[piece], rows[piece]),  # in place
    )
    return dx


def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Give every row mean 0 and variance 1, then scale and shift: y = x̂ w + b.

    x: (..., D). weight, bias: (D,). eps is added to the (biased) variance.
    Returns y (..., D) and the cache. float32 or float64, the same for all.
    """
    check_floats("layer_norm", x=x, weight=weight, bias=bias)
    rows = as_rows(ready(x, x.shape, x.dtype))  # (R, D)
    y = np.empty(rows.shape, x.dtype)
    mean, inv_std = np.empty((2, rows.shape[0]), x.dtype)
    w, b = (ready(a, x.shape[-1:], x.dtype) for a in (weight, bias))

    def run(_: int, at: slice) -> None:
        kernels.layer_norm(rows[at], w, b, x.dtype.type(eps), y[at], mean[at], inv_std[at])

    in_pieces(len(rows), rows_at_once(x.shape[-1]), x.size, run)
    return y.reshape(x.shape), (x, weight, mean, inv_std)


def layer_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (..., D). Returns dx (..., D), dweight (D,), dbias (D,)."""
    x, weight, mean, inv_std = cache
    rows = as_rows(ready(x, x.shape, x.dtype))  # (R, D)
    drows = as_rows(ready(dy, x.shape, x.dtype))
    dx = np.empty(rows.shape, x.dtype)
    w = ready(weight, x.shape[-1:], x.dtype)

    def kernel(dy: Array, x: Array, mean: Array, inv_std: Array, dx: Array, *sums: Array) -> None:
        kernels.layer_norm_backward(dy, x, w, mean, inv_std, dx, *sums)

    dweight, dbias = row_sums(kernel, drows, 2, rows, mean, inv_std, dx)
    return dx.reshape(x.shape), dweight.astype(x.dtype), dbias.astype(x.dtype)


def l2_normalize(x: Array, eps: float = 1e-12) -> tuple[Array, Cache]:
    """Scale every row to unit length: y = x / |x|. A row with no entry above eps becomes zero.

    x: (..., D). Returns y (..., D) and the cache. float32 or float64. The row is first divided by
    its largest entry, so that squares neither overflow nor vanish.
    """
    check_floats("l2_normalize", x=x)
    rows = as_rows(ready(x, x.shape, x.dtype))  # (R, D)
    y = np.empty(rows.shape, x.dtype)
    inv_norm = np.empty(rows.shape[0], x.dtype)
    kernels.l2_normalize(rows, x.dtype.type(eps), y, inv_norm)
    y = y.reshape(x.shape)
    return y, (y, inv_norm)


def l2_normalize_backward(dy: Array, cache: Cache) -> Array:
    """dy: (..., D). Returns dx (..., D), zero for rows that became zero."""
    y, inv_norm = cache
    rows = as_rows(ready(y, y.shape, y.dtype))  # (R, D)
    dx = np.empty(rows.shape, y.dtype)
    kernels.l2_normalize_backward(as_rows(ready(dy, y.shape, y.dtype)), rows, inv_norm, dx)
    return dx.reshape(y.shape)


def embedding(ids: Array, table: Array) -> tuple[Array, Cache]:
    """Look every id up in the table: (B, T) integers, (V, D) -> (B, T, D).

    ids must lie in [0, V): the caller sees to it. Returns y and the cache. table: float32 or
    float64.
    """
    check_floats("embedding", table=table)
    return table[ids], (ids, table.shape)


def embedding_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, T, D). Returns dtable (V, D); the ids have no gradient."""
    ids, shape = cache
    rows = as_rows(ready(dy, (*ids.shape, shape[1]), dy.dtype))  # (R, D), R = B * T
    places = ready(ids, ids.shape, np.int64).reshape(-1)  # (R,)
    order = np.argsort(places, kind="stable")  # equal words one after the other
    dtable = np.zeros(shape, dy.dtype)
    kernels.embedding_backward(rows, places, order, np.zeros(shape[1]), dtable)
    return dtable


def mean_token(x: Array) -> tuple[Array, Cache]:
    """Put the mean of all tokens first in every image: (B, T, D) -> (B, 1 + T, D).

    In a ResNet the tokens are a view of the map, where a channel's values are neighbours: NumPy
    adds those up as fast, so the textbook takes all arrays that are not C-ordered.
    float32 or float64. Source: `AttentionPool2d` in the original model.py.
    """
    check_floats("mean_token", x=x)
    if not x.flags.c_contiguous or not x.size:
        return ops.mean_token(x)
    batch, count, width = x.shape
    y = np.empty((batch, 1 + count, width), x.dtype)
    image_by_image(kernels.mean_token, (x,), (), y)
    return y, None


def mean_token_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, 1 + T, D). Returns dx (B, T, D)."""
    batch, count, width = dy.shape
    dx = np.empty((batch, count - 1, width), dy.dtype)
    image_by_image(kernels.mean_token_backward, (ready(dy, dy.shape, dy.dtype),), (), dx)
    return dx


def adamw(
    x: Array,
    grad: Array,
    mean: Array,
    square: Array,
    step: int,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """One step of AdamW: along the gradient's running mean, measured by its running size.

    x: the parameter. grad: its gradient. mean, square: what this function returned last, zeros at
    first. All of one shape, float32 or float64. step: 1 for the first. rate: the learning rate.
    weight_decay: the share of x, times rate, that is taken away: decoupled from the gradient.
    Returns the new x, mean and square; the inputs are not written to.
    """
    check_floats("adamw", x=x, grad=grad, mean=mean, square=square)
    factors = adamw_factors(step, rate, betas, eps, weight_decay, x.dtype)
    results = [np.empty(x.shape, x.dtype) for _ in range(3)]
    arrays = [ready(a, x.shape, x.dtype) for a in (x, grad, mean, square)]
    flat = [a.reshape(-1) for a in (*arrays, *results)]

    def run(_: int, piece: slice) -> None:
        parts = flat if x.size <= ENTRIES else [a[piece] for a in flat]
        kernels.adamw(factors, *parts)

    in_pieces(x.size, ENTRIES, 2 * x.size, run)
    new_x, new_mean, new_square = results
    return new_x, new_mean, new_square


@functools.lru_cache(maxsize=16)  # the same for all parameters of a step, but for the decay
def adamw_factors(
    step: int, rate: float, betas: tuple[float, float], eps: float, weight_decay: float, dtype: Any
) -> Array:
    """What kernels.adamw multiplies with, in its order."""
    b1, b2 = betas
    kept = 1 - rate * weight_decay
    unbias = 1 / (1 - b1**step), 1 / (1 - b2**step)
    # 1 - b in float64: float32 would leave four digits of 1 - 0.999
    return np.array([kept, rate, b1, 1 - b1, b2, 1 - b2, *unbias, eps], dtype)
