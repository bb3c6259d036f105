"""The Numba backend: the textbook, with compiled loops on one CPU core where they are faster.

Redefined here are the ops on rows: LayerNorm, softmax, activations, attention, unit length, word
embeddings and the optimiser's step. Those on feature maps (convolution, BatchNorm, pooling) are in
numba_maps.py, the loops in numba_kernels.py and numba_map_kernels.py. The rest is inherited:
products belong to BLAS, and rearrangements cost the same in either language. The first call of an
op compiles its loop for that dtype (a second or less) and keeps it in Numba's cache on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from miniclip.backends import numba_kernels as kernels
from miniclip.backends.numba_arrays import as_rows, own_copy, ready
from miniclip.backends.numpy_backend import *  # noqa: F403 (a backend is the textbook's names)
from miniclip.ops.activation import QUICK_GELU_SLOPE
from miniclip.ops.array import Array, Cache, check_floats

# isort: split
# after the textbook, because these take the places of the textbook's
from miniclip.backends.numba_maps import *  # noqa: F403

name = "numba"

# Attention works on as many heads at once as fit into this many scores: 256 KiB in float32, which
# stays in the second cache between the two products.
SCORES_AT_ONCE = 1 << 16


def check_device() -> None:  # type: ignore[no-redef]
    """Numba runs everywhere NumPy does; where it is missing, importing this module says so."""


def relu(x: Array) -> tuple[Array, Cache]:
    """y = max(x, 0). Any shape; float32 or float64. Returns y and the cache."""
    check_floats("relu", x=x)
    y = np.empty(x.shape, x.dtype)
    kernels.relu(ready(x, x.shape, x.dtype).reshape(-1), y.reshape(-1))
    return y, x


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy; at the kink, x = 0, the gradient is 0 as in PyTorch."""
    x = cache
    dx = np.empty(x.shape, x.dtype)
    kernels.relu_backward(
        ready(dy, x.shape, x.dtype).reshape(-1),
        ready(x, x.shape, x.dtype).reshape(-1),
        dx.reshape(-1),
    )
    return dx


def quick_gelu(x: Array) -> tuple[Array, Cache]:
    """y = x sigmoid(1.702 x), the activation of OpenAI's CLIP.

    Any shape; float32 or float64. Returns y and the cache.
    """
    check_floats("quick_gelu", x=x)
    y = np.empty(x.shape, x.dtype)
    entries = ready(x, x.shape, x.dtype).reshape(-1)
    kernels.quick_gelu(entries, x.dtype.type(QUICK_GELU_SLOPE), y.reshape(-1))
    return y, x


def quick_gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    x = cache
    dx = np.empty(x.shape, x.dtype)
    kernels.quick_gelu_backward(
        ready(dy, x.shape, x.dtype).reshape(-1),
        ready(x, x.shape, x.dtype).reshape(-1),
        x.dtype.type(QUICK_GELU_SLOPE),
        dx.reshape(-1),
    )
    return dx


def gelu(x: Array) -> tuple[Array, Cache]:
    """y = x Phi(x), Phi the normal distribution function: GELU in its exact form.

    Any shape; float32 or float64. Returns y and the cache.
    """
    check_floats("gelu", x=x)
    y = np.empty(x.shape, x.dtype)
    kernels.gelu(ready(x, x.shape, x.dtype).reshape(-1), y.reshape(-1))
    return y, x


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    x = cache
    dx = np.empty(x.shape, x.dtype)
    kernels.gelu_backward(
        ready(dy, x.shape, x.dtype).reshape(-1),
        ready(x, x.shape, x.dtype).reshape(-1),
        dx.reshape(-1),
    )
    return dx


def softmax(x: Array) -> tuple[Array, Cache]:
    """y = e^x / sum e^x over the last axis; the row's maximum is subtracted first.

    x: (..., N); -inf is allowed (it gives 0), but not a whole row of it.
    Returns y (..., N) and the cache. float32 or float64.
    """
    check_floats("softmax", x=x)
    y = own_copy(x, x.shape, x.dtype)
    no_mask = np.zeros((1, x.shape[-1]), x.dtype)
    kernels.softmax(as_rows(y)[:, None], x.dtype.type(1), no_mask)  # in place
    return y, y


def softmax_backward(dy: Array, cache: Cache) -> Array:
    """dy: (..., N). Returns dx (..., N)."""
    y = cache
    dx = own_copy(dy, y.shape, y.dtype)
    rows = as_rows(ready(y, y.shape, y.dtype))
    kernels.softmax_backward(as_rows(dx)[None], rows[None], y.dtype.type(1))  # in place
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
    kernels.layer_norm(
        rows,
        ready(weight, x.shape[-1:], x.dtype),
        ready(bias, x.shape[-1:], x.dtype),
        x.dtype.type(eps),
        y,
        mean,
        inv_std,
    )
    return y.reshape(x.shape), (x, weight, mean, inv_std)


def layer_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (..., D). Returns dx (..., D), dweight (D,), dbias (D,)."""
    x, weight, mean, inv_std = cache
    rows = as_rows(ready(x, x.shape, x.dtype))  # (R, D)
    dx = np.empty(rows.shape, x.dtype)
    dweight, dbias = np.zeros((2, x.shape[-1]), np.float64)
    kernels.layer_norm_backward(
        as_rows(ready(dy, x.shape, x.dtype)),
        rows,
        ready(weight, x.shape[-1:], x.dtype),
        mean,
        inv_std,
        dx,
        dweight,
        dbias,
    )
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


def scaled_dot_product_attention(
    q: Array, k: Array, v: Array, mask: Array | None = None
) -> tuple[Array, Cache]:
    """Every query takes the mean of the values, weighted by softmax(q kᵀ / sqrt(d) + mask).

    q: (B, H, Tq, d). k, v: (B, H, T, d). mask: (Tq, T), added to the scores before the softmax;
    0 keeps, -inf hides; no row may be hidden whole. It is a constant and has no gradient.
    Returns y (B, H, Tq, d) and the cache, which keeps no (Tq, T) array: the weights are made again
    in backward. float32 or float64, the same for all.
    """
    check_floats("scaled_dot_product_attention", q=q, k=k, v=v, mask=mask)
    if not q.shape[:2] == k.shape[:2] == v.shape[:2]:
        # the loop below would leave the surplus out without a word
        raise ValueError(
            f"scaled_dot_product_attention: q, k, v have (B, H) = {q.shape[:2]}, {k.shape[:2]}, "
            f"{v.shape[:2]}, expected the same"
        )
    y = by_tokens((*q.shape[:3], v.shape[-1]), q.dtype)  # (B, H, Tq, d)
    full_mask, buffer = usable_mask(q, k, mask), scores_buffer(q, k)
    for at in head_groups(q, k):
        weights = fill_weights(q[at], k[at], full_mask, buffer)  # (n, h, Tq, T)
        np.matmul(weights, v[at], out=y[at])
    return y, (q, k, v, mask)


def scaled_dot_product_attention_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (B, H, Tq, d). Returns dq (B, H, Tq, d), dk and dv (B, H, T, d)."""
    q, k, v, mask = cache
    dq, dk, dv = (by_tokens(x.shape, x.dtype) for x in (q, k, v))
    full_mask = usable_mask(q, k, mask)
    buffer, dbuffer = scores_buffer(q, k), scores_buffer(q, k)
    scale = q.dtype.type(q.shape[-1] ** -0.5)
    for at in head_groups(q, k):
        weights = fill_weights(q[at], k[at], full_mask, buffer)  # (n, h, Tq, T)
        # y = weights @ v
        np.matmul(weights.swapaxes(-1, -2), dy[at], out=dv[at])
        dscores = dbuffer[: weights.shape[0], : weights.shape[1]]
        np.matmul(dy[at], v[at].swapaxes(-1, -2), out=dscores)  # dweights, until the next line
        # weights = softmax(scores + mask); scores = q @ k.T / sqrt(d)
        kernels.softmax_backward(all_heads(dscores), all_heads(weights), scale)  # in place
        np.matmul(dscores, k[at], out=dq[at])
        np.matmul(dscores.swapaxes(-1, -2), q[at], out=dk[at])
    return dq, dk, dv


def by_tokens(shape: tuple[int, ...], dtype: Any) -> Array:
    """An empty (B, H, T, d) that lies in memory as (B, T, H, d), so that merging heads is free."""
    batch, heads, tokens, width = shape
    return np.empty((batch, tokens, heads, width), dtype).transpose(0, 2, 1, 3)


def group_shape(q: Array, k: Array) -> tuple[int, int, int, int]:
    """(n, h, Tq, T): the scores worked on together are those of h heads of n sequences."""
    batch, heads, queries, _ = q.shape
    at_once = max(1, SCORES_AT_ONCE // max(1, queries * k.shape[-2]))  # heads
    n = max(1, min(batch, at_once // max(1, heads)))
    return n, min(heads, at_once), queries, k.shape[-2]


def scores_buffer(q: Array, k: Array) -> Array:
    """Room for the scores of one group of heads, (n, h, Tq, T); every group uses it again."""
    return np.empty(group_shape(q, k), q.dtype)


def head_groups(q: Array, k: Array) -> Iterator[tuple[slice, slice]]:
    """Indices that cut (B, H, T, d) into (n, h, T, d): whole sequences, or one by some heads."""
    n, h, _, _ = group_shape(q, k)
    for b in range(0, q.shape[0], n):
        for first in range(0, q.shape[1], h):
            yield slice(b, b + n), slice(first, first + h)


def usable_mask(q: Array, k: Array, mask: Array | None) -> Array:
    """The mask as the kernel reads it, (Tq, T); zeros if there is none."""
    shape = (q.shape[-2], k.shape[-2])
    return np.zeros(shape, q.dtype) if mask is None else ready(mask, shape, q.dtype)


def fill_weights(q: Array, k: Array, mask: Array, buffer: Array) -> Array:
    """softmax(q kᵀ / sqrt(d) + mask) for (n, h, Tq, d), (n, h, T, d), at the buffer's beginning."""
    weights = buffer[: q.shape[0], : q.shape[1]]  # (n, h, Tq, T)
    np.matmul(q, k.swapaxes(-1, -2), out=weights)
    kernels.softmax(all_heads(weights), q.dtype.type(q.shape[-1] ** -0.5), mask)  # in place
    return weights


def all_heads(x: Array) -> Array:
    """(n, h, Tq, T) -> (n * h, Tq, T), a view: n is 1, or h is all heads of the buffer."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


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
    b1, b2 = betas
    kept = 1 - rate * weight_decay
    unbias = 1 / (1 - b1**step), 1 / (1 - b2**step)
    # 1 - b in float64: float32 would leave four digits of 1 - 0.999
    factors = np.array([kept, rate, b1, 1 - b1, b2, 1 - b2, *unbias, eps], x.dtype)
    new_x, new_mean, new_square = (np.empty(x.shape, x.dtype) for _ in range(3))
    kernels.adamw(
        ready(x, x.shape, x.dtype).reshape(-1),
        ready(grad, x.shape, x.dtype).reshape(-1),
        ready(mean, x.shape, x.dtype).reshape(-1),
        ready(square, x.shape, x.dtype).reshape(-1),
        factors,
        new_x.reshape(-1),
        new_mean.reshape(-1),
        new_square.reshape(-1),
    )
    return new_x, new_mean, new_square
