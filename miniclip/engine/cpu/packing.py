"""Weights in the order in which the products read them, made once when a plan is built.

A product walks down `panel` neighbouring columns of a weight matrix at a time (cpu/simd.py). In
a panel those columns lie next to each other for every k, so that memory is read straight ahead; a
BLAS library has to copy them so in every call. Sizes are padded with zeros to whole SIMD vectors:
`padded(80)` channels are 80 or 96, and the last 16 are always 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miniclip.cpu.simd import LANES, VECTORS
from miniclip.cpu.team import make_sync, team
from miniclip.engine.cpu import kernels
from miniclip.ops.array import Array

CACHE_LINE = 64  # bytes


def padded(n: int) -> int:
    """n numbers as whole SIMD vectors."""
    return -(-n // LANES) * LANES


def aligned(numbers: int) -> Array:
    """Room for float32 numbers that begins with a cache line. Not initialised."""
    spare = CACHE_LINE // 4
    room = np.empty(numbers + spare, np.float32)
    first = -room.ctypes.data % CACHE_LINE // 4
    return room[first : first + numbers]


def vector_of(x: Array | None, columns: int) -> Array:
    """x followed by zeros, up to `columns` numbers."""
    y = aligned(columns)
    y[:] = 0
    if x is not None:
        y[: x.shape[0]] = x
    return y


def panel_width(columns: int) -> int:
    """Columns of a panel. Thin tiles are slow: 5 vectors are better taken as 3 + 2 than 4 + 1."""
    vectors = columns // LANES
    cost = {1: 1.8, 2: 2.3, 3: 3.05, 4: 4.0}  # of a tile, measured; 1 is the cost of a vector

    def total(width: int) -> float:
        rest = vectors % width
        return vectors // width * cost[width] + (cost[rest] if rest else 0.0)

    return min(range(VECTORS, 0, -1), key=total) * LANES


@dataclass(frozen=True, eq=False)
class Weights:
    """Panels of one matrix, or of `groups` of the same shape, and the bias of its columns."""

    data: Array  # flat
    depth: int  # of the sum
    columns: int  # padded
    panel: int
    bias: Array  # (groups * columns,)
    groups: int = 1


def pack(w: Array, bias: Array | None = None, panel: int | None = None) -> Weights:
    """w: (N, K), as in y = x wᵀ + bias."""
    columns, depth = padded(w.shape[0]), w.shape[1]
    panel = panel or panel_width(columns)
    data = aligned(columns * depth)
    pack_into(w, panel, data)
    return Weights(data, depth, columns, panel, vector_of(bias, columns))


def pack_groups(w: Array, bias: Array | None = None) -> Weights:
    """w: (groups, N, K): matrices one after the other. bias: (groups, N)."""
    groups, columns, depth = w.shape[0], padded(w.shape[1]), w.shape[2]
    panel = panel_width(columns)
    data = aligned(groups * columns * depth)
    biases = aligned(groups * columns)
    for g in range(groups):
        pack_into(w[g], panel, data[g * columns * depth : (g + 1) * columns * depth])
        biases[g * columns : (g + 1) * columns] = vector_of(
            None if bias is None else bias[g], columns
        )
    return Weights(data, depth, columns, panel, biases, groups)


def pack_into(w: Array, panel: int, data: Array) -> None:
    """The panels of w, (N, K), by all threads."""
    source = np.require(w, np.float32, ["C"]).reshape(-1)  # read-only, too: weights may be a file's
    sync = make_sync(1)

    def job(member: int, members: int) -> None:
        kernels.pack_panels(source, *w.shape, panel, data, sync, 0, members)

    team().run(job, sync)
