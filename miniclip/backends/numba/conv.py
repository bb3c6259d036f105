"""The Numba backend's convolution, and the patch embedding, which is one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from miniclip.backends.numba import conv_kernels
from miniclip.backends.numba import map_kernels as kernels
from miniclip.cpu.arrays import as_numbers, as_rows, ready
from miniclip.cpu.products import product
from miniclip.cpu.share import in_pieces, maps_at_once
from miniclip.cpu.simd import VECTOR_BYTES
from miniclip.ops.array import Array, Cache, check_floats
from miniclip.ops.conv import conv_output_size

OWN = ("conv2d", "patch_embedding")
__all__ = [*OWN, *(f"{name}_backward" for name in OWN)]

# Positions of a few images that are staged together: many enough for whole tiles, few enough for
# the second cache.
POSITIONS = 512


class Staging(NamedTuple):
    """How a convolution is carried out; the numbers are explained in map_kernels.py."""

    out: tuple[int, int]  # Ho, Wo
    shape_x: Array  # C, H, W, stride, padding, lines, pitch, plane, channel
    shape_y: Array  # of y, staged as x is
    taps: Array  # kh, kw, stride
    at_once: int  # images
    direct: bool  # without staging


def stage_for(x: Array, weight: Array, stride: int, padding: int) -> Staging:
    """How to stage x and y so that all taps see the same stretch of numbers."""
    lanes = VECTOR_BYTES // x.itemsize
    (batch, channels, height, width), (out, _, kh, kw) = x.shape, weight.shape
    ho = conv_output_size(height, kh, stride, padding)
    wo = conv_output_size(width, kw, stride, padding)
    size = (ho, wo)
    pointwise = kh == kw == stride == 1 and padding == 0
    if pointwise:  # a map is then as good as one long line
        height, width, ho, wo = 1, height * width, 1, ho * wo
    down, across = (kh - 1) // stride, (kw - 1) // stride  # how far the last tap is from the first
    # the zeros after a line are those before the next: of stride 1, and as far as lines reach
    shared = padding if stride == 1 else 0
    lines, pitch = max(ho, ho + down - shared), max(wo, wo + across - shared)
    # with unusual paddings some pixels are seen by no tap, and need their place all the same
    lines = max(lines, -(-(height + padding) // stride))
    pitch = max(pitch, -(-(width + padding) // stride))
    at_once = max(1, min(batch, POSITIONS // max(1, lines * pitch)))
    count = -(-at_once * lines * pitch // lanes) * lanes
    plane = count + down * pitch + across
    plane = max(plane, at_once * lines * pitch + shared * (pitch + 1))
    channel = plane * stride * stride
    direct = pointwise and width % lanes == 0
    if direct:
        at_once, count, channel = 1, height * width, height * width
    shape_x = [channels, height, width, stride, padding, lines, pitch, plane, channel]
    shape_y = [out, ho, wo, 1, 0, lines, pitch, count, count]
    taps = np.array([kh, kw, stride])
    return Staging(size, np.array(shape_x), np.array(shape_y), taps, at_once, direct)


def images_at_once(batch: int, work: int, how: Staging) -> int:
    """Images of a piece: a multiple of those staged together."""
    return -(-maps_at_once(batch, work) // how.at_once) * how.at_once


def work_of(x: Array, weight: Array, how: Staging) -> int:
    return len(x) * how.out[0] * how.out[1] * weight.size // 32 + x.size


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0
) -> tuple[Array, Cache]:
    """Cross-correlate images with kernels, as every deep-learning "convolution" does.

    x: (B, C, H, W). weight: (O, C, kh, kw). bias: (O,) or None. stride, padding: pixels.
    Returns y (B, O, Ho, Wo) and the cache, which keeps x and not its columns. float32 or float64,
    the same for all.
    """
    check_floats("conv2d", x=x, weight=weight, bias=bias)
    how = stage_for(x, weight, stride, padding)
    y = np.empty((len(x), len(weight), *how.out), x.dtype)
    if not weight.size:
        y[...] = 0
    elif y.size:
        images, kernels_ = as_numbers(x), as_numbers(weight)
        room = how.shape_x[0] * how.shape_x[8] + how.shape_y[0] * how.shape_y[8]

        def run(_: int, at: slice) -> None:
            scratch = np.zeros(0 if how.direct else room, x.dtype)
            conv_kernels.convolve(
                images, kernels_, y.reshape(-1), how.shape_x, how.shape_y, how.taps, how.at_once,
                how.direct, scratch, at.start, at.stop,
            )  # fmt: skip

        work = work_of(x, weight, how)
        in_pieces(len(x), images_at_once(len(x), work, how), work, run)
    if bias is not None:
        y += bias[:, None, None]
    return y, (x, weight, bias is not None, stride, padding)


def conv2d_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array | None]:
    """dy: (B, O, Ho, Wo). Returns dx (B, C, H, W), dweight (O, C, kh, kw), dbias (O,) or None."""
    x, weight, has_bias, stride, padding = cache
    how = stage_for(x, weight, stride, padding)
    (out, channels, kh, kw), lanes = weight.shape, VECTOR_BYTES // x.itemsize
    padded = -(-out // lanes) * lanes
    something = dy.size > 0 and weight.size > 0
    dx = (np.empty if something else np.zeros)(x.shape, x.dtype)
    work = 2 * work_of(x, weight, how)
    size = images_at_once(len(x), work, how)
    dweights = np.zeros((-(-len(x) // size), kh * kw, channels, padded), x.dtype)
    if something:
        dimages, images, kernels_ = as_numbers(dy), as_numbers(x), as_numbers(weight)
        room = 2 * how.shape_x[0] * how.shape_x[8] + (out + padded) * how.shape_y[8]

        def run(number: int, at: slice) -> None:
            scratch = np.zeros(padded * how.shape_y[8] if how.direct else room, x.dtype)
            conv_kernels.convolve_backward(
                dimages, images, kernels_, dx.reshape(-1), dweights[number].reshape(-1),
                how.shape_x, how.shape_y, how.taps, how.at_once, how.direct, padded, scratch,
                at.start, at.stop,
            )  # fmt: skip

        in_pieces(len(x), size, work, run)
    dweight = dweights.sum(axis=0)[:, :, :out].transpose(2, 1, 0)  # (O, C, taps)
    dbias = dy.sum(axis=(0, 2, 3)) if has_bias else None
    return dx, dweight.reshape(weight.shape), dbias


def patch_embedding(x: Array, weight: Array, stride: int) -> tuple[Array, Cache]:
    """Cut images into patches and project each to a vector, row by row from the top left.

    x: (B, C, H, W). weight: (D, C, P, P). stride: pixels from one patch to the next; P for
    patches that do not overlap, less for patches that do.
    Returns y (B, Gh * Gw, D) with Gh = (H - P) // stride + 1, and the cache. float32 or float64.
    """
    check_floats("patch_embedding", x=x, weight=weight)
    patches = cut_patches(x, weight.shape[2], stride)  # (B, Gh, Gw, C, P, P)
    batch, down, across = patches.shape[:3]
    kernels_ = weight.reshape(len(weight), -1)
    y = product(patches.reshape(batch * down * across, -1), kernels_.T)
    return y.reshape(batch, down * across, len(weight)), (x, weight, stride)


def patch_embedding_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dy: (B, Gh * Gw, D). Returns dx (B, C, H, W), dweight (D, C, P, P)."""
    x, weight, stride = cache
    patch = weight.shape[2]
    patches = cut_patches(x, patch, stride)  # (B, Gh, Gw, C, P, P)
    rows = patches.reshape(math.prod(patches.shape[:3]), -1)
    drows = as_rows(ready(dy, dy.shape, x.dtype))  # (B * Gh * Gw, D)
    # y = rows @ kernels.T
    dweight = product(drows.T, rows).reshape(weight.shape)
    dpatches = product(drows, weight.reshape(len(weight), -1)).reshape(patches.shape)
    dx = np.zeros(x.shape, x.dtype)
    in_pieces(
        len(x),
        maps_at_once(len(x), dpatches.size),
        dpatches.size,
        lambda _, at: kernels.row2image(dpatches, patch, stride, dx, at.start, at.stop),
    )
    return dx, dweight


def cut_patches(x: Array, patch: int, stride: int) -> Array:
    """(B, C, H, W) -> (B, Gh, Gw, C, P, P)."""
    batch, channels, height, width = x.shape
    down, across = (conv_output_size(n, patch, stride, 0) for n in (height, width))
    images = ready(x, x.shape, x.dtype)
    rows = np.empty((batch, down, across, channels, patch, patch), x.dtype)
    in_pieces(
        batch,
        maps_at_once(batch, rows.size),
        rows.size,
        lambda _, at: kernels.image2row(images, patch, stride, rows, at.start, at.stop),
    )
    return rows
