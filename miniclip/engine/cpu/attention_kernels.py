"""The compiled steps of attention: all queries of every head, or one query a sequence.

See kernels.py for what all kernels have in common.
"""

from __future__ import annotations

import numpy as np

from miniclip.cpu.jit import kernel
from miniclip.cpu.matmul import tiles
from miniclip.cpu.rows import softmax_row
from miniclip.cpu.scalars import exp_of_negative
from miniclip.cpu.simd import LANES
from miniclip.cpu.team import claim, meet
from miniclip.cpu.transpose import transpose_padded
from miniclip.ops.array import Array


@kernel
def attend_all(
    qkv: Array,
    row: int,
    starts: Array,
    heads: int,
    width: int,
    causal: bool,
    y: Array,
    row_y: int,
    queries: int,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """Self-attention of every head in every sequence: a head is a piece.

    qkv: rows of q, k and v, of `heads` heads of `width` numbers each (a multiple of LANES); q is
    scaled already. starts: (sequences + 1,), where each sequence's rows begin. y: rows of heads.
    `queries` rows of scores are in work at once; scratch has room for them and for the keys.
    """
    nothing = scratch[:0]
    while True:
        piece = claim(sync, step)
        if piece >= heads * (starts.shape[0] - 1):
            break
        sequence, head = piece // heads, piece % heads
        start = starts[sequence]
        tokens = starts[sequence + 1] - start
        padded = (tokens + LANES - 1) // LANES * LANES
        at_q = start * row + head * width
        at_k, at_v = at_q + heads * width, at_q + 2 * heads * width
        at_scores = at + width * padded
        transpose_padded(qkv, at_k, row, tokens, width, scratch, at, padded)
        for first in range(0, tokens, queries):
            some = min(queries, tokens - first)
            seen = first + some if causal else tokens  # the keys that these queries look at
            columns = (seen + LANES - 1) // LANES * LANES
            tiles(
                qkv, at_q + first * row, row, 1, some, width,
                scratch, at, padded, columns,
                False, nothing, 0, scratch, at_scores, padded,
            )  # fmt: skip
            for q in range(some):
                own = first + q + 1 if causal else tokens
                begin = at_scores + q * padded
                softmax_row(scratch[begin : begin + own])
                scratch[begin + own : begin + columns] = 0
            tiles(
                scratch, at_scores, padded, 1, some, seen,
                qkv, at_v, row, width,
                False, nothing, 0, y, (start + first) * row_y + head * width, row_y,
            )  # fmt: skip
    meet(sync, step, members)


@kernel
def attend_once(
    r: Array,
    x: Array,
    row: int,
    width: int,
    starts: Array,
    heads: int,
    z: Array,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """One query a sequence: each head's weighted mean of the tokens themselves.

    r: (sequences, heads, row), what each head's query looks for in a token. x: the tokens, of
    `width` numbers. z: (sequences, heads, row). A sequence is a piece. scratch holds r transposed,
    (width, padded heads), and the scores, (tokens, padded heads).
    """
    padded = (heads + LANES - 1) // LANES * LANES
    nothing = scratch[:0]
    while True:
        sequence = claim(sync, step)
        if sequence >= starts.shape[0] - 1:
            break
        start = starts[sequence]
        tokens = starts[sequence + 1] - start
        at_r = sequence * heads * row
        at_scores = at + width * padded
        transpose_padded(r, at_r, row, heads, width, scratch, at, padded)
        tiles(
            x, start * row, row, 1, tokens, width,
            scratch, at, padded, padded,
            False, nothing, 0, scratch, at_scores, padded,
        )  # fmt: skip
        softmax_columns(scratch[at_scores : at_scores + tokens * padded], tokens, padded)
        tiles(
            scratch, at_scores, 1, padded, heads, tokens,  # transposed: a head is a column
            x, start * row, row, row,
            False, nothing, 0, z, at_r, row,
        )  # fmt: skip
    meet(sync, step, members)


@kernel
def softmax_columns(scores: Array, tokens: int, heads: int) -> None:
    """Softmax along the tokens, for all heads at once; (tokens, heads), in place."""
    largest = scores[:heads].copy()
    for t in range(1, tokens):
        row = scores[t * heads : (t + 1) * heads]
        for h in range(heads):
            largest[h] = row[h] if not row[h] <= largest[h] else largest[h]  # NaN stays
    total = np.zeros(heads, np.float32)
    for t in range(tokens):
        row = scores[t * heads : (t + 1) * heads]
        for h in range(heads):
            row[h] = exp_of_negative(row[h] - largest[h])
            total[h] += row[h]
    for t in range(tokens):
        row = scores[t * heads : (t + 1) * heads]
        for h in range(heads):
            row[h] /= total[h]
