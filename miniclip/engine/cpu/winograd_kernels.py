"""The two steps of a 3x3 convolution by Winograd: to the points, and products at the points.

winograd.py says why; kernels.py has what all kernels have in common.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.cpu.jit import kernel
from miniclip.cpu.simd import LANES
from miniclip.cpu.team import claim, meet
from miniclip.engine.cpu.kernels import NOTHING, multiply
from miniclip.engine.cpu.winograd import transform_input, transform_output
from miniclip.ops.array import Array

TILES = 24  # of a block: the rows of the products


@kernel
def winograd_input(
    x: Array,
    images: int,
    height: int,
    width: int,
    channels: int,
    m: int,
    v: Array,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """Bᵀ d B of every tile: x, a map, -> v, (blocks, n^2, TILES, channels).

    A tile is a piece. Those that reach over the border are copied to scratch first, with zeros
    around them.
    """
    n = m + 2
    down, across = (height + m - 1) // m, (width + m - 1) // m
    while True:
        tile = claim(sync, step)
        if tile >= images * down * across:
            break
        image, place = tile // (down * across), tile % (down * across)
        top, left = place // across * m - 1, place % across * m - 1
        at_v = (tile // TILES * n * n * TILES + tile % TILES) * channels
        if top >= 0 and left >= 0 and top + n <= height and left + n <= width:
            at_x = ((image * height + top) * width + left) * channels
            for c in range(0, channels, LANES):
                transform_input(
                    m, x, at_x + c, width * channels, channels, v, at_v + c, TILES * channels
                )
        else:
            copy_with_border(x, image, height, width, channels, top, left, n, scratch, at)
            for c in range(0, channels, LANES):
                transform_input(
                    m, scratch, at + c, n * channels, channels, v, at_v + c, TILES * channels
                )
    meet(sync, step, members)


@kernel
def copy_with_border(
    x: Array,
    image: int,
    height: int,
    width: int,
    channels: int,
    top: int,
    left: int,
    n: int,
    scratch: Array,
    at: int,
) -> None:
    """n x n pixels from (top, left) on, zero outside of the image."""
    for i in range(n):
        for j in range(n):
            begin = at + (i * n + j) * channels
            to = scratch[begin : begin + channels]
            if 0 <= top + i < height and 0 <= left + j < width:
                where = ((image * height + top + i) * width + left + j) * channels
                to[:] = x[where : where + channels]
            else:
                to[:] = 0


@kernel
def winograd_output(
    v: Array,
    images: int,
    height: int,
    width: int,
    channels: int,
    m: int,
    w: Array,
    panel: int,
    columns: int,
    bias: Array,
    none: Array,
    lowest: Any,
    y: Array,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """The products at every point, and Aᵀ M A: y = max(convolution + bias, lowest).

    A block of tiles and a panel of output channels are a piece. none: zeros, the products' bias.
    scratch holds the products of a piece, (n^2, TILES, panel), and a tile of pixels.
    """
    n = m + 2
    down, across = (height + m - 1) // m, (width + m - 1) // m
    tiles = images * down * across
    blocks = (tiles + TILES - 1) // TILES
    panels = (columns + panel - 1) // panel
    at_pixels = at + n * n * TILES * panel
    while True:
        piece = claim(sync, step)
        if piece >= blocks * panels:
            break
        block, column = piece // panels, piece % panels * panel
        some = min(panel, columns - column)
        count = min(TILES, tiles - block * TILES)
        for p in range(n * n):
            multiply(
                v, (block * n * n + p) * TILES * channels, channels, count, channels,
                w, channels * (p * columns + column), some,
                none, 0, np.float32(-np.inf), NOTHING,
                scratch, at + p * TILES * some, some, False,
            )  # fmt: skip
        for t in range(count):
            tile = block * TILES + t
            image, place = tile // (down * across), tile % (down * across)
            top, left = place // across * m, place % across * m
            whole = top + m <= height and left + m <= width
            at_y = ((image * height + top) * width + left) * columns + column
            for c in range(0, some, LANES):
                if whole:
                    transform_output(
                        m, scratch, at + t * some + c, TILES * some, bias, column + c, lowest,
                        y, at_y + c, width * columns, columns,
                    )  # fmt: skip
                else:
                    transform_output(
                        m, scratch, at + t * some + c, TILES * some, bias, column + c, lowest,
                        scratch, at_pixels + c, m * some, some,
                    )  # fmt: skip
            if not whole:
                for i in range(min(m, height - top)):
                    for j in range(min(m, width - left)):
                        to = at_y + (i * width + j) * columns
                        begin = at_pixels + (i * m + j) * some
                        y[to : to + some] = scratch[begin : begin + some]
    meet(sync, step, members)
