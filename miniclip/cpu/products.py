"""Matrix products by the team, C = A B + bias, without BLAS: what the loops of matmul.py need."""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.cpu import matmul as kernels
from miniclip.cpu.arrays import ready
from miniclip.cpu.share import together
from miniclip.cpu.simd import VECTOR_BYTES, VECTORS
from miniclip.cpu.team import team
from miniclip.ops.array import Array

ENOUGH_PIECES = 12  # of a product, so that a core that is slow for a moment does fewer
LEAST_ROWS = 192  # of a piece: packing is then 2 % of it
LEAST_DEPTH = 512  # of a part


def flat_matrix(x: Array, dtype: Any) -> tuple[Array, int, int]:
    """A matrix as numbers in a row, and their strides from row to row and from column to column."""
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        return ready(x.T, x.shape[::-1], dtype).reshape(-1), 1, x.shape[0]
    return ready(x, x.shape, dtype).reshape(-1), x.shape[1], 1


def product(a: Array, b: Array, bias: Array | None = None) -> Array:
    """A B + bias: (M, K), (K, N), (N,) -> (M, N), C-ordered. Either may be a transposed view."""
    (rows, depth), columns, dtype = a.shape, b.shape[1], a.dtype
    c = np.empty((rows, columns), dtype)
    if depth == 0 or c.size == 0:
        c[...] = 0 if bias is None else bias
        return c
    lanes = VECTOR_BYTES // dtype.itemsize
    panel = VECTORS * lanes
    across, down = -(-columns // panel), -(-rows // LEAST_ROWS)
    down = min(down, max(1, -(-ENOUGH_PIECES // across)))
    group = -(-rows // down)
    parts = max(1, min(-(-ENOUGH_PIECES // (across * down)), depth // LEAST_DEPTH))
    parts = -(-depth // -(-depth // parts))  # none of them empty
    beside = group * panel if columns % lanes else 0
    scratch = np.empty((team().members, panel * kernels.DEPTH + beside), dtype)
    sums = np.empty(parts * c.size if parts > 1 else 0, dtype)
    shift = np.empty(0, dtype) if bias is None else ready(bias, (columns,), dtype)
    flat_a, flat_b, flat_c = flat_matrix(a, dtype), flat_matrix(b, dtype), c.reshape(-1)

    def run(sync: Array, member: int, members: int) -> None:
        kernels.product(
            *flat_a, *flat_b, shift, flat_c, rows, columns, depth, parts, group, scratch, sums,
            sync, member, members,
        )  # fmt: skip

    together(2, rows * columns * depth // 32, run)
    return c
