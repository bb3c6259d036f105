"""Matrix products, C = A B, around the register tile of simd.py.

B is packed first: a tile wants its vectors next to each other for every k, and the next k's after
them. A panel is what a tile spans, PANEL numbers of a row of B, for DEPTH values of k: it stays in
the core's second cache while one tile after the other goes down the rows of A, which are read where
they lie. A piece of the product is one panel of columns times a group of rows, so many that packing
costs next to nothing.

The inner axis may be long where C is small (the gradient of a weight sums over all tokens). It is
then cut into parts, so that there are pieces for everybody; the parts' results are added in order.

All arrays are flat, with strides in numbers: A[i, k] = a[i row_a + k step_a], likewise B[k, j].
"""

from __future__ import annotations

import numpy as np

from miniclip.cpu.jit import kernel
from miniclip.cpu.scalars import Real
from miniclip.cpu.simd import ROWS, VECTOR_BYTES, VECTORS, tile_product
from miniclip.cpu.team import claim, meet
from miniclip.cpu.transpose import transpose_padded
from miniclip.ops.array import Array

# Of one pass along the inner axis: its sums begin at zero and are then added to C. Short sums round
# less (with 1024, an RN50's embeddings are 1.6 times as far from float64), and a panel, 64 KiB in
# float32, leaves room in the second cache.
DEPTH = 256


@kernel
def pack_panel(
    b: Array, at: int, row_b: int, step_b: int, width: int, padded: int, depth: int, packed: Array
) -> None:
    """B[0:depth, 0:width] row by row, each `padded` long; missing columns are 0.

    One of the two strides, row_b and step_b, is 1.
    """
    if step_b == 1:
        for k in range(depth):
            to = packed[k * padded : k * padded + width]
            row = b[at + k * row_b : at + k * row_b + width]
            for j in range(width):
                to[j] = row[j]
            packed[k * padded + width : (k + 1) * padded] = 0
    else:
        transpose_padded(b, at, step_b, width, depth, packed, 0, padded)


@kernel
def tile_column(
    a: Array,
    at_a: int,
    row_a: int,
    step_a: int,
    rows: int,
    depth: int,
    b: Array,
    at_b: int,
    row_b: int,
    vectors: int,
    add: bool,
    finish: bool,
    bias: Array,
    at_bias: int,
    lowest: Real,
    c: Array,
    at_c: int,
    row_c: int,
) -> None:
    """C (+)= A B for columns of at most VECTORS vectors, tile by tile down the rows of A.

    finish: add the bias, then take max(C, lowest). depth: at least 1.
    """
    count = (rows + ROWS - 1) // ROWS
    row = 0
    for tile in range(count):
        height = (rows - row + count - tile - 1) // (count - tile)  # all nearly alike
        tile_product(
            height, vectors,
            a, at_a + row * row_a, row_a, step_a,
            b, at_b, row_b,
            c, at_c + row * row_c, row_c,
            depth, add, finish, bias, at_bias, lowest,
        )  # fmt: skip
        row += height


@kernel
def tiles(
    a: Array,
    at_a: int,
    row_a: int,
    step_a: int,
    rows: int,
    depth: int,
    b: Array,
    at_b: int,
    row_b: int,
    columns: int,
    add: bool,
    bias: Array,
    at_bias: int,
    c: Array,
    at_c: int,
    row_c: int,
) -> None:
    """C (+)= A B + bias, tile by tile; bias may be empty.

    columns: a multiple of the vectors' length. depth: at least 1.
    """
    lanes = VECTOR_BYTES // a.itemsize
    for column in range(0, columns, lanes * VECTORS):
        tile_column(
            a, at_a, row_a, step_a, rows, depth,
            b, at_b + column, row_b, min(VECTORS, (columns - column) // lanes),
            add, bias.shape[0] > 0, bias, at_bias + column, a.dtype.type(-np.inf),
            c, at_c + column, row_c,
        )  # fmt: skip


@kernel
def make_piece(
    a: Array,
    at_a: int,
    row_a: int,
    step_a: int,
    rows: int,
    b: Array,
    at_b: int,
    row_b: int,
    step_b: int,
    width: int,
    depth: int,
    bias: Array,
    at_bias: int,
    scratch: Array,
    c: Array,
    at_c: int,
    row_c: int,
) -> None:
    """A group of rows times `width` columns. scratch: room for a panel and, after it, a piece of C.

    Tiles store whole vectors. Where C ends within one, they store into scratch, and what belongs to
    C is copied from there.
    """
    lanes = VECTOR_BYTES // a.itemsize
    padded = (width + lanes - 1) // lanes * lanes
    panel, beside = scratch[: padded * DEPTH], scratch[padded * DEPTH :]
    nothing = bias[:0]
    to, at_to, row_to = (c, at_c, row_c) if width == padded else (beside, 0, padded)
    for k in range(0, depth, DEPTH):
        deep = min(DEPTH, depth - k)
        last = k + deep == depth
        pack_panel(b, at_b + k * row_b, row_b, step_b, width, padded, deep, panel)
        tiles(
            a, at_a + k * step_a, row_a, step_a, rows, deep, panel, 0, padded, padded,
            k > 0, bias if width == padded and last else nothing, at_bias, to, at_to, row_to,
        )  # fmt: skip
    if width < padded:
        for i in range(rows):
            for j in range(width):
                c[at_c + i * row_c + j] = beside[i * padded + j]
            for j in range(min(width, bias.shape[0])):
                c[at_c + i * row_c + j] += bias[at_bias + j]


@kernel
def product(
    a: Array,
    row_a: int,
    step_a: int,
    b: Array,
    row_b: int,
    step_b: int,
    bias: Array,
    c: Array,
    rows: int,
    columns: int,
    depth: int,
    parts: int,
    group: int,
    scratch: Array,
    sums: Array,
    sync: Array,
    member: int,
    members: int,
) -> None:
    """C = A B + bias; bias may be empty. c: rows of `columns`.

    group: rows of a piece. parts: of the inner axis; sums: room for their results, if several.
    scratch: of every member, see `make_piece`.
    """
    panel = VECTOR_BYTES // a.itemsize * VECTORS
    across, down = (columns + panel - 1) // panel, (rows + group - 1) // group
    part = (depth + parts - 1) // parts
    # what a part's result is written to, and its bias: of several parts, the last step adds both
    to, shift = (c, bias) if parts == 1 else (sums, bias[:0])
    while True:
        piece = claim(sync, 0)
        if piece >= parts * down * across:
            break
        number, row = piece // (down * across), piece // across % down * group
        column, k = piece % across * panel, number * part
        make_piece(
            a, row * row_a + k * step_a, row_a, step_a, min(group, rows - row),
            b, k * row_b + column * step_b, row_b, step_b, min(panel, columns - column),
            min(part, depth - k), shift, column, scratch[member],
            to, (number * rows + row) * columns + column, columns,
        )  # fmt: skip
    meet(sync, 0, members)
    if parts == 1:
        return
    while True:
        row = claim(sync, 1)
        if row >= rows:
            break
        line = c[row * columns : (row + 1) * columns]
        for j in range(columns):
            line[j] = sums[row * columns + j]
        for p in range(1, parts):
            begin = (p * rows + row) * columns
            for j in range(columns):
                line[j] += sums[begin + j]
        for j in range(bias.shape[0]):
            line[j] += bias[j]
    meet(sync, 1, members)
