"""Attention of the Numba backend, one head at a time: scores, softmax and products in the cache.

Arrays come flat. `where` has a row for each of them: where it begins, and its strides from sequence
to sequence, from head to head and from token to token; the numbers of a token lie next to each
other. T tokens are padded to Tp, head widths d to dp, multiples of the vectors' length, with zeros.
Queries are taken `block` at a time, so that their scores stay in the second cache.
"""

from __future__ import annotations

from miniclip.cpu.jit import kernel
from miniclip.cpu.matmul import tiles
from miniclip.cpu.rows import scale_and_mask, softmax_row, softmax_row_backward
from miniclip.cpu.scalars import Real
from miniclip.cpu.transpose import transpose_padded
from miniclip.ops.array import Array


@kernel
def load_rows(
    x: Array, at: int, row: int, rows: int, width: int, to: Array, at_to: int, padded: int
) -> None:
    """to = x, rows of `width` numbers, padded with zeros."""
    for t in range(rows):
        target = to[at_to + t * padded : at_to + (t + 1) * padded]
        source = x[at + t * row : at + t * row + width]
        for j in range(width):
            target[j] = source[j]
        for j in range(width, padded):
            target[j] = 0


@kernel
def store_rows(
    source: Array, at: int, padded: int, rows: int, width: int, y: Array, at_y: int, row: int
) -> None:
    """The inverse of load_rows."""
    for t in range(rows):
        target = y[at_y + t * row : at_y + t * row + width]
        begin = at + t * padded
        for j in range(width):
            target[j] = source[begin + j]


@kernel
def place(where: Array, which: int, heads: int, head: int) -> int:
    """Where a head of one of the arrays begins; heads are counted through all sequences."""
    begin, sequence, apart = where[which, 0], head // heads, head % heads
    return begin + sequence * where[which, 1] + apart * where[which, 2]


@kernel
def weigh(
    q: Array,
    at_q: int,
    row_q: int,
    first: int,
    rows: int,
    width: int,
    kt: Array,
    tokens: int,
    padded: int,
    scale: Real,
    mask: Array,
    nothing: Array,
    weights: Array,
) -> None:
    """weights = softmax(q kᵀ scale + mask) for `rows` queries from the first on."""
    tiles(
        q, at_q + first * row_q, row_q, 1, rows, width,
        kt, 0, padded, padded, False, nothing, 0, weights, 0, padded,
    )  # fmt: skip
    for r in range(rows):
        row = weights[r * padded : r * padded + tokens]
        scale_and_mask(row, scale, mask[first + r])
        softmax_row(row)


@kernel
def attention(
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    where: Array,
    heads: int,
    sizes: Array,
    scale: Real,
    mask: Array,
    scratch: Array,
    first: int,
    last: int,
) -> None:
    """y = softmax(q kᵀ scale + mask) v for the heads from first to last.

    sizes: Tq, T, Tp, d, dp, of values d and dp, block. mask: (Tq, T).
    """
    queries, tokens, padded, width, _, width_v, padded_v, block = sizes
    kt = scratch
    rows_v = kt[width * padded :]
    weights = rows_v[tokens * padded_v :]
    out = weights[block * padded :]
    nothing = scratch[:0]
    for head in range(first, last):
        at_q, at_k = place(where, 0, heads, head), place(where, 1, heads, head)
        at_v, at_y = place(where, 2, heads, head), place(where, 3, heads, head)
        transpose_padded(k, at_k, where[1, 3], tokens, width, kt, 0, padded)
        load_rows(v, at_v, where[2, 3], tokens, width_v, rows_v, 0, padded_v)
        for r in range(0, queries, block):
            some = min(block, queries - r)
            weigh(
                q, at_q, where[0, 3], r, some, width, kt, tokens, padded, scale, mask,
                nothing, weights,
            )  # fmt: skip
            tiles(
                weights, 0, padded, 1, some, tokens,
                rows_v, 0, padded_v, padded_v, False, nothing, 0, out, 0, padded_v,
            )  # fmt: skip
            store_rows(out, 0, padded_v, some, width_v, y, at_y + r * where[3, 3], where[3, 3])


@kernel
def attention_backward(
    q: Array,
    k: Array,
    v: Array,
    dy: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    where: Array,
    heads: int,
    sizes: Array,
    scale: Real,
    mask: Array,
    scratch: Array,
    first: int,
    last: int,
) -> None:
    """The three gradients for the heads from first to last; arguments as above."""
    queries, tokens, padded, width, padded_d, width_v, padded_v, block = sizes
    kt = scratch
    vt = kt[width * padded :]
    rows_k = vt[width_v * padded :]
    sum_k = rows_k[tokens * padded_d :]
    sum_v = sum_k[tokens * padded_d :]
    weights = sum_v[tokens * padded_v :]
    dscores = weights[block * padded :]
    rows_q = dscores[block * padded :]
    out = rows_q[block * padded_d :]
    rows_dy = out[block * padded_d :]
    nothing = scratch[:0]
    for head in range(first, last):
        at_q, at_k = place(where, 0, heads, head), place(where, 1, heads, head)
        at_v, at_dy = place(where, 2, heads, head), place(where, 3, heads, head)
        at_dq, at_dk = place(where, 4, heads, head), place(where, 5, heads, head)
        at_dv = place(where, 6, heads, head)
        transpose_padded(k, at_k, where[1, 3], tokens, width, kt, 0, padded)
        transpose_padded(v, at_v, where[2, 3], tokens, width_v, vt, 0, padded)
        load_rows(k, at_k, where[1, 3], tokens, width, rows_k, 0, padded_d)
        for r in range(0, queries, block):
            some = min(block, queries - r)
            here_q, here_dy = at_q + r * where[0, 3], at_dy + r * where[3, 3]
            load_rows(q, here_q, where[0, 3], some, width, rows_q, 0, padded_d)
            load_rows(dy, here_dy, where[3, 3], some, width_v, rows_dy, 0, padded_v)
            weigh(
                q, at_q, where[0, 3], r, some, width, kt, tokens, padded, scale, mask,
                nothing, weights,
            )  # fmt: skip
            # y = weights @ v
            tiles(
                weights, 0, 1, padded, tokens, some,
                rows_dy, 0, padded_v, padded_v, r > 0, nothing, 0, sum_v, 0, padded_v,
            )  # fmt: skip
            tiles(
                rows_dy, 0, padded_v, 1, some, width_v,
                vt, 0, padded, padded, False, nothing, 0, dscores, 0, padded,
            )  # fmt: skip
            # weights = softmax(scores + mask); scores = q @ k.T * scale
            for i in range(some):
                begin = i * padded
                softmax_row_backward(
                    dscores[begin : begin + tokens], weights[begin : begin + tokens], scale
                )
            tiles(
                dscores, 0, padded, 1, some, tokens,
                rows_k, 0, padded_d, padded_d, False, nothing, 0, out, 0, padded_d,
            )  # fmt: skip
            store_rows(out, 0, padded_d, some, width, dq, at_dq + r * where[4, 3], where[4, 3])
            tiles(
                dscores, 0, 1, padded, tokens, some,
                rows_q, 0, padded_d, padded_d, r > 0, nothing, 0, sum_k, 0, padded_d,
            )  # fmt: skip
        store_rows(sum_k, 0, padded_d, tokens, width, dk, at_dk, where[5, 3])
        store_rows(sum_v, 0, padded_v, tokens, width_v, dv, at_dv, where[6, 3])
