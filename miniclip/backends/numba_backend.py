"""The Numba backend: the textbook, with its row-by-row ops as compiled loops on one CPU core.

Redefined here are LayerNorm, softmax, QuickGELU, GELU, attention and unit length, forward and
backward; the loops themselves are in numba_kernels.py. The rest is inherited: products belong to
BLAS, and rearrangements cost the same in either language. The first call of an op compiles its
loop for that dtype (a second or less) and keeps it in Numba's cache on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from miniclip.backends import numba_kernels as kernels
from miniclip.backends.numpy_backend import *  # noqa: F403 (a backend is the textbook's names)
from miniclip.ops.activation import QUICK_GELU_SLOPE
from miniclip.ops.array import Array, Cache, check_floats

name = "numba"

# Attention works on as many heads at once as fit into this many scores: 256 KiB in float32, which
# stays in the second cache between the two products.
SCORES_AT_ONCE = 1 << 16


def check_device() -> None:  # type: ignore[no-redef]
    """Numba runs everywhere NumPy does; where it is missing, importing this module says so."""


def ready(x: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """x as the kernels read it, in this shape and dtype; x itself where it is so already.

    C-ordered and aligned, because the kernels walk through memory; writeable, although they do not
    write to it, because Numba would compile every loop again for read-only arrays. Raises
    ValueError if x does not broadcast to shape: the kernels check no bounds.
    """
    if x.shape != shape:
        x = np.broadcast_to(x, shape)
    return np.require(x, dtype, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


def own_copy(x: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A C-ordered copy of x, broadcast to this shape, for a kernel that works in place."""
    y = np.empty(shape, dtype)
    y[...] = x
    return y


def as_rows(x: Array) -> Array:
    """(..., D) -> (R, D), a view of a C-ordered array."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


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
        weights = fill_weights(q[at], k[at], full_mask, buffer)  # (h, Tq, T)
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
        weights = fill_weights(q[at], k[at], full_mask, buffer)  # (h, Tq, T)
        # y = weights @ v
        np.matmul(weights.swapaxes(-1, -2), dy[at], out=dv[at])
        dscores = dbuffer[: len(weights)]
        np.matmul(dy[at], v[at].swapaxes(-1, -2), out=dscores)  # dweights, until the next line
        # weights = softmax(scores + mask); scores = q @ k.T / sqrt(d)
        kernels.softmax_backward(dscores, weights, scale)  # in place
        np.matmul(dscores, k[at], out=dq[at])
        np.matmul(dscores.swapaxes(-1, -2), q[at], out=dk[at])
    return dq, dk, dv


def by_tokens(shape: tuple[int, ...], dtype: Any) -> Array:
    """An empty (B, H, T, d) that lies in memory as (B, T, H, d), so that merging heads is free."""
    batch, heads, tokens, width = shape
    return np.empty((batch, tokens, heads, width), dtype).transpose(0, 2, 1, 3)


def heads_at_once(q: Array, k: Array) -> int:
    """How many heads of one sequence are worked on together, at least one."""
    scores = q.shape[-2] * k.shape[-2]
    return max(1, min(q.shape[1], SCORES_AT_ONCE // max(1, scores)))


def scores_buffer(q: Array, k: Array) -> Array:
    """Room for the scores of one group of heads, (h, Tq, T); every group uses it again."""
    return np.empty((heads_at_once(q, k), q.shape[-2], k.shape[-2]), q.dtype)


def head_groups(q: Array, k: Array) -> Iterator[tuple[int, slice]]:
    """Indices (b, heads) that cut (B, H, T, d) into (h, T, d), sequence by sequence."""
    step = heads_at_once(q, k)
    for b in range(q.shape[0]):
        for first in range(0, q.shape[1], step):
            yield b, slice(first, first + step)


def usable_mask(q: Array, k: Array, mask: Array | None) -> Array:
    """The mask as the kernel reads it, (Tq, T); zeros if there is none."""
    shape = (q.shape[-2], k.shape[-2])
    return np.zeros(shape, q.dtype) if mask is None else ready(mask, shape, q.dtype)


def fill_weights(q: Array, k: Array, mask: Array, buffer: Array) -> Array:
    """softmax(q kᵀ / sqrt(d) + mask) for (h, Tq, d), (h, T, d), in the first h of the buffer."""
    weights = buffer[: len(q)]  # (h, Tq, T)
    np.matmul(q, k.swapaxes(-1, -2), out=weights)
    kernels.softmax(weights, q.dtype.type(q.shape[-1] ** -0.5), mask)  # in place
    return weights
