"""The compiled steps on feature maps, (images, height, width, channels), and on pictures.

See kernels.py for what all kernels have in common.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.cpu.jit import kernel
from miniclip.cpu.team import claim, meet
from miniclip.engine.cpu.kernels import NOTHING, multiply
from miniclip.ops.array import Array


@kernel
def unfold_images(
    images: Array,
    size: int,
    stride: int,
    padding: int,
    height: int,
    width: int,
    y: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """The pixels under each place of a size x size kernel, as rows: (B, C, H, W) ->
    (B, height, width, C size size). A piece is a line of places.
    """
    channels = images.shape[1]
    depth = channels * size * size
    while True:
        piece = claim(sync, step)
        if piece >= images.shape[0] * height:
            break
        image, line = piece // height, piece % height
        for place in range(width):
            begin = (piece * width + place) * depth
            unfold_place(
                images[image], line * stride - padding, place * stride - padding, size,
                y[begin : begin + depth],
            )  # fmt: skip
    meet(sync, step, members)


@kernel
def unfold_place(image: Array, top: int, left: int, size: int, y: Array) -> None:
    """The values under a kernel whose corner is (top, left), zero outside: (C size size,)."""
    first, last = max(0, -left), min(size, image.shape[2] - left)
    for channel in range(image.shape[0]):
        for i in range(size):
            to = y[(channel * size + i) * size : (channel * size + i + 1) * size]
            if top + i < 0 or top + i >= image.shape[1]:
                to[:] = 0
                continue
            line = image[channel, top + i]
            to[:first] = 0
            for j in range(first, last):
                to[j] = line[left + j]
            to[last:] = 0


@kernel
def gather_places(
    x: Array,
    image: int,
    height: int,
    width: int,
    channels: int,
    size: int,
    first: int,
    count: int,
    scratch: Array,
    at: int,
) -> None:
    """Rows of a size x size convolution with stride 1: for `count` pixels from the first on, the
    pixels around each, (size, size, channels), zero outside.
    """
    around = size // 2
    depth = size * size * channels
    for n in range(count):
        line, column = (first + n) // width, (first + n) % width
        for i in range(size):
            above = line + i - around
            for j in range(size):
                beside = column + j - around
                begin = at + n * depth + (i * size + j) * channels
                to = scratch[begin : begin + channels]
                if 0 <= above < height and 0 <= beside < width:
                    where = ((image * height + above) * width + beside) * channels
                    to[:] = x[where : where + channels]
                else:
                    to[:] = 0


@kernel
def convolve_gathered(
    x: Array,
    images: int,
    height: int,
    width: int,
    channels: int,
    size: int,
    w: Array,
    panel: int,
    columns: int,
    bias: Array,
    lowest: Any,
    y: Array,
    block: int,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """A size x size convolution with stride 1 and full padding: y = max(x * w + bias, lowest).

    x: (images, height, width, channels), y: the same with `columns` channels. A piece is `block`
    pixels of one image: their surroundings are gathered in scratch, then multiplied.
    """
    depth = size * size * channels
    pixels = height * width
    blocks = (pixels + block - 1) // block
    while True:
        piece = claim(sync, step)
        if piece >= images * blocks:
            break
        image, first = piece // blocks, piece % blocks * block
        count = min(block, pixels - first)
        gather_places(x, image, height, width, channels, size, first, count, scratch, at)
        for column in range(0, columns, panel):
            multiply(
                scratch, at, depth, count, depth,
                w, depth * column, min(panel, columns - column), bias, column, lowest, NOTHING,
                y, (image * pixels + first) * columns + column, columns, False,
            )  # fmt: skip
    meet(sync, step, members)


@kernel
def average_pool(
    x: Array,
    images: int,
    height: int,
    width: int,
    channels: int,
    size: int,
    y: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """Means over size x size pixels; rows and columns beyond the last whole square are left out."""
    lines, columns = height // size, width // size
    share = np.float32(1) / np.float32(size * size)
    while True:
        piece = claim(sync, step)
        if piece >= images * lines:
            break
        image, line = piece // lines, piece % lines
        for column in range(columns):
            begin = (piece * columns + column) * channels
            to = y[begin : begin + channels]
            to[:] = 0
            for i in range(size):
                for j in range(size):
                    where = (image * height + line * size + i) * width + column * size + j
                    pixel = x[where * channels : (where + 1) * channels]
                    for c in range(channels):
                        to[c] += pixel[c]
            for c in range(channels):
                to[c] *= share
    meet(sync, step, members)


@kernel
def pool_tokens(
    x: Array,
    images: int,
    pixels: int,
    channels: int,
    positions: Array,
    tokens: Array,
    mean: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """The attention pool's tokens: the mean pixel and the pixels, plus positions.

    positions: (1 + pixels, channels). tokens: images x (1 + pixels) rows. mean: the first of each
    image, once more, (images, channels): they are the queries.
    """
    share = np.float32(1) / np.float32(pixels)
    while True:
        image = claim(sync, step)
        if image >= images:
            break
        first = mean[image * channels : (image + 1) * channels]
        first[:] = 0
        for p in range(pixels):
            begin = (image * pixels + p) * channels
            pixel = x[begin : begin + channels]
            position = positions[(1 + p) * channels : (2 + p) * channels]
            begin = (image * (1 + pixels) + 1 + p) * channels
            to = tokens[begin : begin + channels]
            for c in range(channels):
                first[c] += pixel[c]
                to[c] = pixel[c] + position[c]
        position = positions[:channels]
        for c in range(channels):
            first[c] = first[c] * share + position[c]
        begin = image * (1 + pixels) * channels
        tokens[begin : begin + channels] = first
    meet(sync, step, members)


@kernel
def mean_pixel(
    x: Array,
    images: int,
    pixels: int,
    channels: int,
    y: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """The mean of all pixels of each image: (images, channels)."""
    share = np.float32(1) / np.float32(pixels)
    while True:
        image = claim(sync, step)
        if image >= images:
            break
        to = y[image * channels : (image + 1) * channels]
        to[:] = 0
        for p in range(pixels):
            begin = (image * pixels + p) * channels
            pixel = x[begin : begin + channels]
            for c in range(channels):
                to[c] += pixel[c]
        for c in range(channels):
            to[c] *= share
    meet(sync, step, members)
