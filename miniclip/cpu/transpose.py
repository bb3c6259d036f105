"""Transposing a block of numbers in registers: as many rows as a SIMD vector has lanes.

A loop that reads along rows and writes along columns touches another cache line each time. Here
whole vectors are loaded and stored, and between them the numbers change places: the one in row i
and lane j has to come to row j and lane i. That is done one binary digit of i and j after the
other: two rows whose numbers differ in that digit exchange half of their lanes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from miniclip.cpu.jit import kernel
from miniclip.cpu.simd import (
    VECTOR_BYTES,
    intrinsic,
    load_vector,
    number,
    pointer,
    store_vector,
    vector_type,
)
from miniclip.ops.array import Array


@intrinsic
def transpose_block(
    typing_context: Any, x: Any, at_x: Any, row_x: Any, y: Any, at_y: Any, row_y: Any
) -> Any:
    """y[at_y + j row_y + i] = x[at_x + i row_x + j] for i and j below the number of lanes."""
    i = types.int64
    signature = types.void(x, i, i, y, i, i)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, at_x, row_x, y, at_y, row_y = arguments
        source = pointer(context, builder, signature.args[0], x, at_x)
        target = pointer(context, builder, signature.args[3], y, at_y)
        lanes = vector_type(source.type.pointee).count
        starts = [builder.gep(source, [builder.mul(row_x, number(i))]) for i in range(lanes)]
        rows = exchange(builder, [load_vector(builder, start) for start in starts])
        for i, row in enumerate(rows):
            store_vector(builder, row, builder.gep(target, [builder.mul(row_y, number(i))]))
        return context.get_dummy_value()

    return signature, codegen


def exchange(builder: Any, rows: list[Any]) -> list[Any]:
    """The rows of the transposed block."""
    lanes = len(rows)
    digit = 1
    while digit < lanes:
        # lanes of the first row count from 0, of the second from `lanes`
        first = [j if not j & digit else lanes + (j ^ digit) for j in range(lanes)]
        second = [j | digit if not j & digit else lanes + j for j in range(lanes)]
        for i in range(lanes):
            if not i & digit:
                a, b = rows[i], rows[i | digit]
                rows[i] = builder.shuffle_vector(a, b, mask(first))
                rows[i | digit] = builder.shuffle_vector(a, b, mask(second))
        digit *= 2
    return rows


def mask(places: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)


@kernel
def transpose(
    x: Array, at_x: int, row_x: int, rows: int, width: int, y: Array, at_y: int, row_y: int
) -> None:
    """y[at_y + j row_y + i] = x[at_x + i row_x + j] for `rows` rows of `width` numbers."""
    lanes = VECTOR_BYTES // x.itemsize
    whole, across = rows // lanes * lanes, width // lanes * lanes
    for j in range(0, across, lanes):
        for i in range(0, whole, lanes):
            source, target = at_x + i * row_x + j, at_y + j * row_y + i
            transpose_block(x, source, row_x, y, target, row_y)
    for i in range(rows):
        for j in range(across if i < whole else 0, width):
            y[at_y + j * row_y + i] = x[at_x + i * row_x + j]


@kernel
def transpose_padded(
    x: Array, at_x: int, row_x: int, rows: int, width: int, y: Array, at_y: int, padded: int
) -> None:
    """The same with rows of `padded` numbers in y, zeros after the first `rows` of each."""
    transpose(x, at_x, row_x, rows, width, y, at_y, padded)
    for j in range(width):
        y[at_y + j * padded + rows : at_y + (j + 1) * padded] = 0
