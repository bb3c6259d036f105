"""The innermost loop of every fast matrix product: one tile of C, kept in registers.

A matrix product reads each number many times, so its speed is decided by how rarely it goes to
memory. The classic answer (Goto & van de Geijn 2008, "Anatomy of high-performance matrix
multiplication") has one part that no compiler finds alone: a tile of C of a few rows and a few SIMD
vectors is held in registers while the loop walks along the inner axis. Each turn loads VECTORS
vectors of B, and multiplies each of them by one number from each row of A:

    C[0:rows, 0:vectors] += A[0:rows, k] B[k, 0:vectors]        for k = 0, 1, 2, ...

With 6 rows and 4 vectors that is 24 multiply-adds for 10 loads, so the multipliers never wait.
Numba's own loops cannot say "keep these 24 vectors in registers"; LLVM's intermediate
representation can, so the tile is written in it. Everything around the tile is ordinary Numba.

A is read where it lies, by a stride for rows and one for k: either can be 1, so A may be
transposed. B must have its vectors next to each other; weights are packed into such panels once.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import extending, types

intrinsic: Any = extending.intrinsic  # calls leave out the first argument, which mypy would miss

ROWS = 6  # of a tile, at most


def simd() -> tuple[int, int]:
    """Bytes of a SIMD register, and vectors of a tile: rows x vectors must fit the registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 4  # 32 registers: 24 for C, 4 for B, one for a number of A
    if features.get("avx2"):
        return 32, 2  # 16 registers: 12, 2, 1
    if llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return 16, 4  # NEON: 32 registers
    return 16, 2


VECTOR_BYTES, VECTORS = simd()
LANES = VECTOR_BYTES // 4  # float32 numbers in a vector
PANEL = LANES * VECTORS  # columns of a tile in float32

INT = ir.IntType(64)


def number(n: int) -> Any:
    return ir.Constant(INT, n)


def vector_type(element: Any) -> Any:
    """The SIMD vector of float32 or float64 numbers."""
    size = 4 if isinstance(element, ir.FloatType) else 8
    return ir.VectorType(element, VECTOR_BYTES // size)


def pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """The address of entry `at` of a one-dimensional array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def load_vector(builder: Any, address: Any) -> Any:
    vector = vector_type(address.type.pointee)
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=4)


def store_vector(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=4)


def spread(builder: Any, value: Any) -> Any:
    """A vector with one number in every lane."""
    vector = vector_type(value.type)
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, nothing, lanes)


def multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z on vectors, in one instruction where the processor has it."""
    element = "f32" if isinstance(x.type.element, ir.FloatType) else "f64"
    name = f"llvm.fmuladd.v{x.type.count}{element}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(x.type, [x.type] * 3), name)
    return builder.call(function, [x, y, z])


def at_least(builder: Any, x: Any, lowest: Any) -> Any:
    """max(x, lowest) lane by lane; NaN stays NaN."""
    return builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)


@intrinsic
def tile_product(
    typing_context: Any,
    rows: Any,
    vectors: Any,
    a: Any,
    at_a: Any,
    row_a: Any,
    step_a: Any,
    b: Any,
    at_b: Any,
    row_b: Any,
    c: Any,
    at_c: Any,
    row_c: Any,
    depth: Any,
    add: Any,
    finish: Any,
    bias: Any,
    at_bias: Any,
    lowest: Any,
) -> Any:
    """C (+)= A B for one tile of `rows` x `vectors`, 1 to ROWS and 1 to VECTORS.

    a, b, c, bias: flat arrays of one dtype. A[i, k] is a[at_a + i row_a + k step_a], B's row k
    begins at b[at_b + k row_b], C's row i at c[at_c + i row_c]. add: to what C holds.
    finish: add the bias and take max(C, lowest) before the tile is stored. depth: at least 1.
    """
    i = types.int64
    flag = types.boolean
    signature = types.void(
        i, i, a, i, i, i, b, i, i, c, i, i, i, flag, flag, bias, i, bias.dtype
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, vectors, a, at_a, row_a, step_a, b, at_b, row_b, c, at_c, row_c = arguments[:12]
        depth, add, finish, bias, at_bias, lowest = arguments[12:]
        kinds = signature.args
        start_a = pointer(context, builder, kinds[2], a, at_a)
        start_b = pointer(context, builder, kinds[6], b, at_b)
        start_c = pointer(context, builder, kinds[9], c, at_c)
        start_bias = pointer(context, builder, kinds[15], bias, at_bias)
        done = builder.append_basic_block("tile.done")
        shape = builder.add(builder.mul(rows, number(VECTORS + 1)), vectors)
        switch = builder.switch(shape, done)
        for m in range(1, ROWS + 1):
            for n in range(1, VECTORS + 1):
                block = builder.append_basic_block(f"tile.{m}x{n}")
                switch.add_case(number(m * (VECTORS + 1) + n), block)
                builder.position_at_end(block)
                tile = Tile(builder, m, n, start_c, row_c)
                tile.begin()
                tile.accumulate(start_a, row_a, step_a, start_b, row_b, depth)
                tile.end(add, finish, start_bias, lowest)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


class Tile:
    """Writes the code of one tile: begin, accumulate, end. `values` are its rows of vectors."""

    def __init__(self, builder: Any, rows: int, vectors: int, c: Any, row_c: Any) -> None:
        self.builder, self.rows, self.vectors = builder, rows, vectors
        self.vector = vector_type(c.type.pointee)
        self.c = self.row_starts(c, row_c)
        self.values: list[list[Any]] = []

    def row_starts(self, first: Any, stride: Any) -> list[Any]:
        starts = [first]
        for _ in range(self.rows - 1):
            starts.append(self.builder.gep(starts[-1], [stride]))
        return starts

    def across(self, start: Any) -> list[Any]:
        """The addresses of the vectors of one row."""
        return [
            self.builder.gep(start, [number(j * self.vector.count)]) for j in range(self.vectors)
        ]

    def choose(self, condition: Any, make: Any, otherwise: list[list[Any]]) -> list[list[Any]]:
        """The vectors that `make` computes where the condition holds, else the others."""
        builder = self.builder
        before = builder.block
        yes, after = builder.append_basic_block("yes"), builder.append_basic_block("after")
        builder.cbranch(condition, yes, after)
        builder.position_at_end(yes)
        made = make()
        builder.branch(after)
        builder.position_at_end(after)
        return [
            [self.phi((x, before), (y, yes)) for x, y in zip(old, new, strict=True)]
            for old, new in zip(otherwise, made, strict=True)
        ]

    def phi(self, *incoming: Any) -> Any:
        """The value that depends on where the flow came from."""
        value = self.builder.phi(incoming[0][0].type)
        for source, block in incoming:
            value.add_incoming(source, block)
        return value

    def begin(self) -> None:
        """Zeros."""
        zero = ir.Constant(self.vector, [0.0] * self.vector.count)
        self.values = [[zero] * self.vectors for _ in range(self.rows)]

    def accumulate(self, a: Any, row_a: Any, step_a: Any, b: Any, row_b: Any, depth: Any) -> None:
        """The loop along the inner axis."""
        builder = self.builder
        starts = self.row_starts(a, row_a)
        before, loop = builder.block, builder.append_basic_block("loop")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = self.phi((number(0), before))
        along_a = self.phi((number(0), before))
        along_b = self.phi((b, before))
        sums = [[self.phi((x, before)) for x in row] for row in self.values]
        vectors = [load_vector(builder, p) for p in self.across(along_b)]
        self.values = []
        for start, row in zip(starts, sums, strict=True):
            x = spread(builder, builder.load(builder.gep(start, [along_a]), align=4))
            self.values.append(
                [multiply_add(builder, x, y, z) for y, z in zip(vectors, row, strict=True)]
            )
        next_k = builder.add(k, number(1))
        steps = [(k, next_k), (along_a, builder.add(along_a, step_a))]
        steps.append((along_b, builder.gep(along_b, [row_b])))
        for old, new in zip(sums, self.values, strict=True):
            steps.extend(zip(old, new, strict=True))
        for old, new in steps:
            old.add_incoming(new, loop)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", next_k, depth), loop, after)
        builder.position_at_end(after)

    def end(self, add: Any, finish: Any, bias: Any, lowest: Any) -> None:
        """What C held, bias and lowest value where asked for, then C is written.

        C is added at the end, not taken as the start of the sums: it may be much larger than the
        products, and each of their additions would be rounded at its size.
        """
        builder = self.builder

        def with_old() -> list[list[Any]]:
            return [
                [builder.fadd(x, load_vector(builder, p)) for x, p in zip(row, places, strict=True)]
                for row, places in zip(self.values, map(self.across, self.c), strict=True)
            ]

        def finished() -> list[list[Any]]:
            biases = [load_vector(builder, p) for p in self.across(bias)]
            limit = spread(builder, lowest)
            return [
                [
                    at_least(builder, builder.fadd(x, y), limit)
                    for x, y in zip(row, biases, strict=True)
                ]
                for row in self.values
            ]

        self.values = self.choose(add, with_old, self.values)
        self.values = self.choose(finish, finished, self.values)
        for start, row in zip(self.c, self.values, strict=True):
            for address, value in zip(self.across(start), row, strict=True):
                store_vector(builder, value, address)
