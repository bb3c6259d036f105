"""Attention of the Numba backend: heads are shared out over the team; no (T, T) array outlives one.

The results lie in memory as their users read them: those of a forward as (B, T, H, d), so that
`merge_heads` is free, the three gradients side by side as (B, T, 3, H, d), so that `join_qkv` is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.backends.numba import attention_kernels as kernels
from miniclip.cpu.arrays import ready
from miniclip.cpu.share import in_pieces
from miniclip.cpu.simd import VECTOR_BYTES
from miniclip.ops.array import Array, Cache, check_floats

__all__ = [
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
