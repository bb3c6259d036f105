"""Convolution's products in the Numba backend: see map_kernels.py for how images are staged.

Arrays are flat and C-ordered. x: (B, C, H, W). y: (B, O, Ho, Wo). weight: (O, C, kh, kw), its taps
are read where they lie. Images from first to last are worked on, `at_once` at a time.
"""

from __future__ import annotations

from miniclip.backends.numba.map_kernels import stage, unstage
from miniclip.cpu.jit import kernel
from miniclip.cpu.matmul import tiles
from miniclip.cpu.transpose import transpose
from miniclip.ops.array import Array


@kernel
def begin_of_tap(tap: int, across: int, stride: int, pitch: int, plane: int) -> int:
    """Where in a staged channel the first position of this tap lies."""
    i, j = tap // across, tap % across
    corner = (i % stride * stride + j % stride) * plane
    return corner + i // stride * pitch + j // stride


@kernel
def convolve(
    x: Array,
    weight: Array,
    y: Array,
    shape_x: Array,
    shape_y: Array,
    taps: Array,
    at_once: int,
    direct: bool,
    scratch: Array,
    first: int,
    last: int,
) -> None:
    """y = convolution of x. shape_x, shape_y: see `stage`. taps: kh, kw, stride. direct: without
    staging. scratch: zeros, room for the images staged and for their output.
    """
    channels, out, count = shape_x[0], shape_y[0], shape_y[8]
    pitch, plane, channel = shape_x[6], shape_x[7], shape_x[8]
    size_x, size_y = channels * shape_x[1] * shape_x[2], out * shape_y[1] * shape_y[2]
    number = taps[0] * taps[1]
    staged, result = scratch[: channels * channel], scratch[channels * channel :]
    nothing = scratch[:0]
    for image in range(first, last, at_once):
        some = min(at_once, last - image)
        source, at_x, target, at_y = staged, 0, result, 0
        if direct:
            source, at_x, target, at_y = x, image * size_x, y, image * size_y
        else:
            stage(x, image * size_x, some, shape_x, staged)
        for tap in range(number):
            begin = begin_of_tap(tap, taps[1], taps[2], pitch, plane)
            tiles(
                weight, tap, channels * number, number, out, channels,
                source, at_x + begin, channel, count, tap > 0, nothing, 0, target, at_y, count,
            )  # fmt: skip
        if not direct:
            unstage(result, some, shape_y, y, image * size_y)


@kernel
def convolve_backward(
    dy: Array,
    x: Array,
    weight: Array,
    dx: Array,
    dweight: Array,
    shape_x: Array,
    shape_y: Array,
    taps: Array,
    at_once: int,
    direct: bool,
    padded: int,
    scratch: Array,
    first: int,
    last: int,
) -> None:
    """dx, and dweight as (taps, C, padded), where O is padded to whole vectors; adds to dweight."""
    channels, out, count = shape_x[0], shape_y[0], shape_y[8]
    pitch, plane, channel = shape_x[6], shape_x[7], shape_x[8]
    size_x, size_y = channels * shape_x[1] * shape_x[2], out * shape_y[1] * shape_y[2]
    number = taps[0] * taps[1]
    turned = scratch
    staged = turned[padded * count :]
    dstaged = staged[channels * channel :]
    dsource = dstaged[channels * channel :]
    nothing = scratch[:0]
    for image in range(first, last, at_once):
        some = min(at_once, last - image)
        source, at_x, target, at_dx = staged, 0, dstaged, 0
        dresult, at_dy = dsource, 0
        if direct:
            source, at_x, target, at_dx = x, image * size_x, dx, image * size_x
            dresult, at_dy = dy, image * size_y
        else:
            if some < at_once:  # what is left of the images before
                staged[: channels * channel] = 0
                dsource[: out * count] = 0
            stage(x, image * size_x, some, shape_x, staged)
            stage(dy, image * size_y, some, shape_y, dsource)
            dstaged[: channels * channel] = 0
        transpose(dresult, at_dy, count, out, count, turned, 0, padded)
        for tap in range(number):
            begin = begin_of_tap(tap, taps[1], taps[2], pitch, plane)
            # y += weight[:, :, tap] @ what the tap sees
            tiles(
                source, at_x + begin, channel, 1, channels, count,
                turned, 0, padded, padded, True, nothing, 0,
                dweight, tap * channels * padded, padded,
            )  # fmt: skip
            tiles(
                weight, tap, number, channels * number, channels, out,
                dresult, at_dy, count, count,
                not direct, nothing, 0, target, at_dx + begin, channel,
            )  # fmt: skip
        if not direct:
            unstage(dstaged, some, shape_x, dx, image * size_x)
