"""3x3 convolutions with a quarter of the multiplications: Winograd's F(m x m, 3 x 3).

A 3x3 convolution of one line, y = (d0 g0 + d1 g1 + d2 g2, d1 g0 + d2 g1 + d3 g2, ...), is a product
of polynomials, and a product of polynomials of degree n - 1 is known from its values at n points,
where it is one multiplication each. So with n = m + 2 points, m outputs need n multiplications
instead of 3 m; in two dimensions n^2 instead of 9 m^2, 36 instead of 144 for m = 4:

    Y = Aᵀ [(G g Gᵀ) * (Bᵀ d B)] A

d is a tile of n x n pixels, g the kernel, Y a tile of m x m pixels. `*` is by entry, and summed
over the channels: for each of the n^2 points it is a matrix product over tiles and channels. G g Gᵀ
is computed once, in float64. The matrices follow from the points (Toom and Cook); large points make
rounding errors large, so they are 0, 1, -1, 2, -2 and infinity.

Source: Lavin & Gray 2016, "Fast algorithms for convolutional neural networks" (arXiv 1509.09308).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types

from miniclip.cpu.simd import (
    at_least,
    intrinsic,
    load_vector,
    multiply_add,
    number,
    pointer,
    spread,
    store_vector,
)
from miniclip.ops.array import Array

Matrix: TypeAlias = list[list[Fraction]]

POINTS = {2: (0, 1, -1), 4: (0, 1, -1, 2, -2)}  # and infinity


def matrices(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """Aᵀ (m, n), G (n, 3), Bᵀ (n, n) of F(m, 3), exactly."""
    points = [Fraction(p) for p in POINTS[m]]
    at = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    g, bt = [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        g.append([p**k / scale for k in range(3)])
        bt.append([*with_roots(others), Fraction(0)])
    g.append([Fraction(0), Fraction(0), Fraction(1)])
    bt.append(with_roots(points))
    return at, g, bt


def with_roots(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of the product of all (x - root), the lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [-root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def transform_weights(weight: Array, m: int) -> Array:
    """G g Gᵀ: (N, C, 3, 3) float64 -> (n^2, N, C) float32. As one product: both sides of g at once
    are the Kronecker product of G with itself.
    """
    g = np.array([[float(x) for x in row] for row in matrices(m)[1]])  # (n, 3)
    n, c = weight.shape[:2]
    with np.errstate(invalid="ignore"):  # inf - inf, of a damaged checkpoint
        points = np.kron(g, g) @ weight.reshape(n * c, 9).astype(np.float64).T  # (n^2, N C)
    return points.astype(np.float32).reshape(-1, n, c)


# --- The transforms, written for SIMD vectors of channels -----------------------------------------


def times(builder: Any, c: Fraction, x: Any, total: Any | None) -> Any:
    """total + c x; total None for 0."""
    if total is None:
        return x if c == 1 else builder.fmul(constant(x.type, c), x)
    if abs(c) == 1:
        return (builder.fadd if c == 1 else builder.fsub)(total, x)
    return multiply_add(builder, constant(x.type, c), x, total)


def constant(vector: Any, c: Fraction) -> Any:
    return ir.Constant(vector, [float(c)] * vector.count)


def combine(builder: Any, coefficients: list[Fraction], vectors: list[Any]) -> Any | None:
    """The sum of the vectors times their coefficients; None if all of those are 0."""
    pairs = [(c, x) for c, x in zip(coefficients, vectors, strict=True) if c]
    total = None
    for c, x in sorted(pairs, key=lambda pair: pair[0] != 1):  # the ones first
        total = times(builder, c, x, total)
    return total


def plus(builder: Any, x: Any | None, y: Any | None, sign: int) -> Any:
    """x + sign y, where None is 0."""
    if y is None:
        return x
    if x is None:
        return y if sign > 0 else builder.fneg(y)
    return (builder.fadd if sign > 0 else builder.fsub)(x, y)


def signed(row: list[Fraction]) -> list[Fraction]:
    """The row for -p of a row for the point p: odd powers change sign."""
    return [c if k % 2 == 0 else -c for k, c in enumerate(row)]


def transform_rows(builder: Any, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """matrix @ vectors. The rows for p and -p share their sums over even and over odd powers."""
    results: dict[int, Any] = {}
    for i, row in enumerate(matrix):
        if i in results:
            continue
        even = combine(builder, row[0::2], vectors[0::2])
        odd = combine(builder, row[1::2], vectors[1::2])
        results[i] = plus(builder, even, odd, 1)
        for j in range(i + 1, len(matrix)):
            if matrix[j] == signed(row):
                results[j] = plus(builder, even, odd, -1)
            elif matrix[j] == [-c for c in signed(row)]:
                results[j] = plus(builder, odd, even, -1)
    return [results[i] for i in range(len(matrix))]


def transform_columns(builder: Any, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """matrix @ vectors, where the columns for p and -p differ in odd rows: m(p) + m(-p) serves the
    even rows, m(p) - m(-p) the odd ones.
    """
    columns = [list(column) for column in zip(*matrix, strict=True)]
    terms: list[tuple[list[Fraction], Any, Any]] = []  # column, what even rows take, what odd ones
    taken: set[int] = set()
    for i, column in enumerate(columns):
        if i in taken:
            continue
        x = vectors[i]
        pairs = [j for j in range(i + 1, len(columns)) if columns[j] == signed(column)]
        if pairs and columns[pairs[0]] != column:
            y = vectors[pairs[0]]
            taken.add(pairs[0])
            terms.append((column, builder.fadd(x, y), builder.fsub(x, y)))
        else:
            terms.append((column, x, x))
    results = []
    for k in range(len(matrix)):
        chosen = [(column[k], even if k % 2 == 0 else odd) for column, even, odd in terms]
        results.append(combine(builder, [c for c, _ in chosen], [x for _, x in chosen]))
    return results


def both_ways(builder: Any, transform: Any, matrix: Matrix, tile: list[list[Any]]) -> Any:
    """matrix @ tile @ matrix.T, for a tile of vectors."""
    columns = [transform(builder, matrix, list(column)) for column in zip(*tile, strict=True)]
    return [transform(builder, matrix, list(row)) for row in zip(*columns, strict=True)]


def for_each_size(builder: Any, m: Any, write: Any) -> None:
    """Write the code for every m that we know, and choose among them when it runs."""
    done = builder.append_basic_block("done")
    switch = builder.switch(m, done)
    for size in POINTS:
        block = builder.append_basic_block(f"m{size}")
        switch.add_case(number(size), block)
        builder.position_at_end(block)
        write(size)
        builder.branch(done)
    builder.position_at_end(done)


@intrinsic
def transform_input(
    typing_context: Any,
    m: Any,
    x: Any,
    at_x: Any,
    line: Any,
    pixel: Any,
    v: Any,
    at_v: Any,
    point: Any,
) -> Any:
    """Bᵀ d B for LANES channels. Pixel (i, j) of the tile begins at x[at_x + i line + j pixel],
    value (i, j) goes to v[at_v + (i n + j) point].
    """
    i = types.int64
    signature = types.void(i, x, i, i, i, v, i, i)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        m, x, at_x, line, pixel, v, at_v, point = arguments
        source = pointer(context, builder, signature.args[1], x, at_x)
        target = pointer(context, builder, signature.args[5], v, at_v)

        def write(size: int) -> None:
            n = size + 2
            tile = load_tile(builder, n, source, line, pixel)
            values = both_ways(builder, transform_rows, matrices(size)[2], tile)
            for k, value in enumerate(x for row in values for x in row):
                address = builder.gep(target, [builder.mul(point, number(k))])
                store_vector(builder, value, address)

        for_each_size(builder, m, write)
        return context.get_dummy_value()

    return signature, codegen


def load_tile(builder: Any, n: int, source: Any, line: Any, pixel: Any) -> list[list[Any]]:
    tile = []
    for i in range(n):
        start = builder.gep(source, [builder.mul(line, number(i))])
        addresses = [builder.gep(start, [builder.mul(pixel, number(j))]) for j in range(n)]
        tile.append([load_vector(builder, address) for address in addresses])
    return tile


@intrinsic
def transform_output(
    typing_context: Any,
    m: Any,
    values: Any,
    at_values: Any,
    point: Any,
    bias: Any,
    at_bias: Any,
    lowest: Any,
    y: Any,
    at_y: Any,
    line: Any,
    pixel: Any,
) -> Any:
    """max(Aᵀ values A + bias, lowest) for LANES channels; offsets as in `transform_input`."""
    i = types.int64
    signature = types.void(i, values, i, i, bias, i, bias.dtype, y, i, i, i)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        m, values, at_values, point, bias, at_bias, lowest, y, at_y, line, pixel = arguments
        kinds = signature.args
        source = pointer(context, builder, kinds[1], values, at_values)
        target = pointer(context, builder, kinds[7], y, at_y)
        shift = load_vector(builder, pointer(context, builder, kinds[4], bias, at_bias))
        limit = spread(builder, lowest)

        def write(size: int) -> None:
            n = size + 2
            tile = load_tile(builder, n, source, builder.mul(point, number(n)), point)
            pixels = both_ways(builder, transform_columns, matrices(size)[0], tile)
            for i, row in enumerate(pixels):
                start = builder.gep(target, [builder.mul(line, number(i))])
                for j, value in enumerate(row):
                    value = at_least(builder, builder.fadd(value, shift), limit)
                    store_vector(
                        builder, value, builder.gep(start, [builder.mul(pixel, number(j))])
                    )

        for_each_size(builder, m, write)
        return context.get_dummy_value()

    return signature, codegen
