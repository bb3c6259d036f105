"""Attention of the Numba backend: heads are shared out over the team; no (T, T) array outlives one.

The results lie in memory as their users read them: those of a forward as (B, T, H, d), so that
`merge_heads` is free, the three gradients side by side as (B, T, 3, H, d), so that `join_qkv` is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.backends.numba import attention_kernels as kernels
from miniclip.backends.numba.linear import linear, linear_backward
from miniclip.cpu.arrays import ready
from miniclip.cpu.share import in_pieces
from miniclip.cpu.simd import VECTOR_BYTES
from miniclip.ops.array import Array, Cache, check_floats
from miniclip.ops.attention import merge_heads, split_heads

__all__ = [
    "attention_pool",
    "attention_pool_backward",
    "join_qkv",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
]

SCORES_AT_ONCE = 1 << 16  # of one head: 256 KiB in float32, which stay in the second cache
PIECES = 16  # of all heads, at most
LEAST = 1 << 17  # numbers of a piece: members take turns at the interpreter's lock to begin one


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
    if not q.shape[:2] == k.shape[:2] == v.shape[:2] or k.shape[2] != v.shape[2]:
        # the loops below would read elsewhere without a word
        raise ValueError(
            f"scaled_dot_product_attention: q, k, v have shapes {q.shape}, {k.shape}, {v.shape}, "
            "expected the same (B, H), and as many keys as values"
        )
    batch, heads, queries, _ = q.shape
    y = np.empty((batch, queries, heads, v.shape[-1]), q.dtype).transpose(0, 2, 1, 3)
    run(kernels.attention, [q, k, v], [y], mask)
    return y, (q, k, v, mask)


def scaled_dot_product_attention_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (B, H, Tq, d). Returns dq (B, H, Tq, d), dk and dv (B, H, T, d)."""
    q, k, v, mask = cache
    dq, dk, dv = side_by_side(q, k, v)
    run(kernels.attention_backward, [q, k, v, dy], [dq, dk, dv], mask)
    return dq, dk, dv


def attention_pool(
    x: Array,
    positions: Array,
    q_weight: Array,
    q_bias: Array,
    k_weight: Array,
    k_bias: Array,
    v_weight: Array,
    v_bias: Array,
    c_weight: Array,
    c_bias: Array,
    heads: int,
) -> tuple[Array, Cache]:
    """Pool a feature map by one query: the mean of its pixels asks the mean and all pixels.

    x: (B, C, H, W). positions: (1 + H * W, C). q, k, v weights (C, C), biases (C,).
    c_weight: (E, C), c_bias: (E,), the projection of what the query brought back.
    Returns y (B, E) and the cache. float32 or float64, the same for all.
    The textbook's lines, with the products and the attention of this backend.
    """
    check_floats("attention_pool", x=x, positions=positions)
    batch, channels, height, width = x.shape
    pixels = x.reshape(batch, channels, height * width).transpose(0, 2, 1)  # (B, HW, C)
    tokens = np.empty((batch, 1 + height * width, channels), x.dtype)
    tokens[:, 0], tokens[:, 1:] = pixels.mean(axis=1), pixels
    tokens += positions  # (B, 1 + HW, C)
    q, q_cache = linear(tokens[:, :1], q_weight, q_bias)  # (B, 1, C): the mean token alone
    k, k_cache = linear(tokens, k_weight, k_bias)  # (B, 1 + HW, C)
    v, v_cache = linear(tokens, v_weight, v_bias)
    mixed, attention_cache = scaled_dot_product_attention(
        split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    )  # (B, heads, 1, C/heads)
    y, c_cache = linear(merge_heads(mixed), c_weight, c_bias)  # (B, 1, E)
    cache = (x.shape, heads, q_cache, k_cache, v_cache, attention_cache, c_cache)
    return y[:, 0], cache


def attention_pool_backward(dy: Array, cache: Cache) -> tuple[Array | None, ...]:
    """dy: (B, E). Returns ten gradients: dx, dpositions, then weight and bias of q, k, v, c."""
    shape, heads, q_cache, k_cache, v_cache, attention_cache, c_cache = cache
    batch, channels, height, width = shape
    # y = linear(merge_heads(mixed), c)
    dmerged, dc_weight, dc_bias = linear_backward(dy[:, None], c_cache)
    dq, dk, dv = scaled_dot_product_attention_backward(split_heads(dmerged, heads), attention_cache)
    # q = linear(tokens[:, :1]); k, v = linear(tokens)
    dquery, dq_weight, dq_bias = linear_backward(merge_heads(dq), q_cache)  # (B, 1, C)
    dtokens, dk_weight, dk_bias = linear_backward(merge_heads(dk), k_cache)
    dvalues, dv_weight, dv_bias = linear_backward(merge_heads(dv), v_cache)
    dtokens += dvalues  # (B, 1 + HW, C)
    dtokens[:, :1] += dquery  # the mean token is query, key and value
    # tokens = [mean; pixels] + positions
    dpositions = dtokens.sum(axis=0)
    # mean = pixels.mean(): each pixel has a share of 1 / HW in it
    dpixels = dtokens[:, 1:]  # (B, HW, C)
    dpixels += dtokens[:, :1] / (height * width)
    dx = dpixels.transpose(0, 2, 1).reshape(batch, channels, height, width)
    dq_dk = (dq_weight, dq_bias, dk_weight, dk_bias)
    return dx, dpositions, *dq_dk, dv_weight, dv_bias, dc_weight, dc_bias


def run(kernel: Any, inputs: list[Array], results: list[Array], mask: Array | None) -> None:
    """Let a kernel work on all heads; inputs begin with q, k and v."""
    q, k, v = inputs[:3]
    (batch, heads, queries, width), tokens, width_v = q.shape, k.shape[2], v.shape[3]
    if 0 in (batch, heads, queries, tokens, width, width_v):
        for x in results:
            x[...] = 0
        return
    lanes = VECTOR_BYTES // q.itemsize
    padded, padded_d, padded_v = (-(-n // lanes) * lanes for n in (tokens, width, width_v))
    block = max(1, min(queries, SCORES_AT_ONCE // padded))
    sizes = np.array([queries, tokens, padded, width, padded_d, width_v, padded_v, block])
    everything = [whole_memory(x) for x in [*inputs, *results]]
    where = np.array([place for _, place in everything])
    arrays = [x for x, _ in everything]
    shape = (queries, tokens)
    full_mask = np.zeros(shape, q.dtype) if mask is None else ready(mask, shape, q.dtype)
    scale = q.dtype.type(width**-0.5)
    # of both kernels' parts of the scratch, the backward's are the more and the larger ones
    room = (padded_d + padded_v) * padded + (tokens + block) * 2 * (padded_d + padded_v)
    room += tokens * padded_d + 2 * block * padded

    def job(_: int, piece: slice) -> None:
        scratch = np.empty(room, q.dtype)
        kernel(*arrays, where, heads, sizes, scale, full_mask, scratch, piece.start, piece.stop)

    work = batch * heads * queries * tokens * (width + 16) // 16
    pieces = max(1, min(PIECES, work // LEAST))
    in_pieces(batch * heads, -(-batch * heads // pieces), work, job)


def whole_memory(x: Array) -> tuple[Array, tuple[int, ...]]:
    """All numbers of the memory that x is a view of, and where x lies in it: see the kernels.

    A view in any order will do as long as the numbers of a token are neighbours; else a copy.
    """
    root = x
    while isinstance(root.base, np.ndarray):
        root = root.base
    size = x.itemsize
    usable = (
        root.dtype == x.dtype
        and root.flags.c_contiguous
        and root.flags.writeable  # Numba would compile again for a read-only array
        and root.flags.aligned
        and x.strides[3] == size
        and all(stride % size == 0 for stride in x.strides)
    )
    if not usable:
        x = root = ready(x, x.shape, x.dtype)
    begin = (address(x) - address(root)) // size
    return root.reshape(-1), (begin, *(stride // size for stride in x.strides[:3]))


def address(x: Array) -> int:
    place: int = x.__array_interface__["data"][0]
    return place


def side_by_side(q: Array, k: Array, v: Array) -> tuple[Array, ...]:
    """Empty arrays in the shapes of q, k and v: parts of one (B, T, 3, H, d) if they are alike."""
    if q.shape == k.shape == v.shape:
        batch, heads, tokens, width = q.shape
        joined = np.empty((batch, tokens, 3, heads, width), q.dtype)
        return tuple(joined[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    shapes = [(x.shape[0], x.shape[2], x.shape[1], x.shape[3]) for x in (q, k, v)]
    return tuple(np.empty(shape, q.dtype).transpose(0, 2, 1, 3) for shape in shapes)


def join_qkv(q: Array, k: Array, v: Array) -> Array:
    """Three times (B, H, T, d) -> (B, T, 3 * H * d), side by side. Backward: `split_qkv`.

    Where they lie so already, as attention's gradients do, it is a view of them.
    """
    batch, heads, tokens, width = q.shape
    joined = q.base
    if (
        isinstance(joined, np.ndarray)
        and joined is k.base
        and joined is v.base
        and joined.shape == (batch, tokens, 3, heads, width)
        and q.dtype == joined.dtype
        and all(
            part.strides == wanted.strides and address(part) == address(wanted)
            for i, part in enumerate((q, k, v))
            for wanted in [joined[:, :, i].transpose(0, 2, 1, 3)]
        )
    ):
        return joined.reshape(batch, tokens, 3 * heads * width)
    return np.concatenate(
        [x.transpose(0, 2, 1, 3).reshape(batch, tokens, -1) for x in (q, k, v)], -1
    )
