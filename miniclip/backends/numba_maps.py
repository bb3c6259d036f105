"""The Numba backend's ops on feature maps, (B, C, H, W): convolution, BatchNorm and pooling.

A convolution is the textbook's, im2col and a matrix product, but tile by tile, so that the columns
are used while they lie in the cache. A tile is the part of the output that one product makes: some
lines of one image or, where maps are small, all lines of some images. There are n images at a time
in the buffer, G in a tile; L lines and N = G * L * Wo positions, each with a column of K numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from miniclip.backends import numba_map_kernels as kernels
from miniclip.backends.numba_arrays import ready
from miniclip.ops.array import Array, Cache, check_floats
from miniclip.ops.conv import conv_output_size

PAIRS = (
    "conv2d",
    "patch_embedding",
    "batch_norm",
    "batch_norm_inference",
    "avg_pool2d",
    "global_avg_pool",
)
__all__ = [*PAIRS, *(f"{name}_backward" for name in PAIRS)]

# N lies between these. OpenBLAS multiplies small matrices where they lie and copies large ones
# first, which costs thin ones half of their time.
FEWEST_POSITIONS, MOST_POSITIONS = 256, 512
COLUMNS_AT_ONCE = 1 << 20  # bytes of columns, made before they are used: a core's second cache


# --- Convolution ----------------------------------------------------------------------------------


class Tiling(NamedTuple):
    """How a convolution is cut into tiles."""

    kernel: tuple[int, int]
    stride: int
    padding: int
    out: tuple[int, int]  # Ho, Wo
    lines: int  # L
    at_once: int  # n
    merged: bool  # whether the n images are one tile (G = n); else G = 1

    def column_shape(self, images: int, channels: int) -> tuple[int, ...]:
        """(n/G, Ho/L, C, kh, kw, G, L, Wo)."""
        in_tile = images if self.merged else 1
        cut = (images // in_tile, self.out[0] // self.lines)
        return (*cut, channels, *self.kernel, in_tile, self.lines, self.out[1])


def plan(x: Array, weight: Array, stride: int, padding: int) -> Tiling:
    """Cut so that a tile has a good number of positions, and a buffer of columns fits the cache."""
    kernel = weight.shape[2], weight.shape[3]
    ho = conv_output_size(x.shape[2], kernel[0], stride, padding)
    wo = conv_output_size(x.shape[3], kernel[1], stride, padding)
    most_lines = min(ho, MOST_POSITIONS // max(wo, 1))
    lines = next((n for n in range(most_lines, 1, -1) if ho % n == 0), 1)
    positions = max(ho * wo, 1)
    merged = 2 * positions <= FEWEST_POSITIONS
    column_bytes = max(math.prod(weight.shape[1:]), 1) * x.itemsize
    at_once = (FEWEST_POSITIONS if merged else COLUMNS_AT_ONCE // column_bytes) // positions
    at_once = max(1, min(at_once, len(x)))
    return Tiling(kernel, stride, padding, (ho, wo), lines, at_once, merged)


def columns_of(x: Array, tiling: Tiling) -> Iterator[tuple[slice, Array]]:
    """Slices of the batch, each with its columns (n/G, Ho/L, C, kh, kw, G, L, Wo).

    The memory of the columns is used again for the next slice.
    """
    padded = padded_images(x, tiling.at_once, tiling.padding)
    columns = np.empty(tiling.column_shape(tiling.at_once, x.shape[1]), x.dtype)
    for first in range(0, len(x), tiling.at_once):
        images = slice(first, min(first + tiling.at_once, len(x)))
        n = images.stop - images.start
        if n < len(padded):  # the last images may be fewer
            padded = padded[:n]
            columns = np.empty(tiling.column_shape(n, x.shape[1]), x.dtype)
        within(padded, tiling.padding)[...] = x[images]
        kernels.im2col(padded, tiling.stride, columns)
        yield images, columns


def padded_images(x: Array, n: int, padding: int) -> Array:
    """(B, C, H, W) -> zeros (n, C, H + 2p, W + 2p)."""
    _, channels, height, width = x.shape
    return np.zeros((n, channels, height + 2 * padding, width + 2 * padding), x.dtype)


def within(padded: Array, padding: int) -> Array:
    """(n, C, H + 2p, W + 2p) -> (n, C, H, W), a view: the image without its margin."""
    _, _, height, width = padded.shape
    return padded[:, :, padding : height - padding, padding : width - padding]


def tiles(maps: Array, tiling: Tiling) -> Array:
    """(n, O, Ho, Wo) -> (n/G, Ho/L, O, G, L, Wo), a view."""
    n, channels, ho, wo = maps.shape
    in_tile = n if tiling.merged else 1
    cut = (n // in_tile, in_tile, channels, ho // tiling.lines, tiling.lines, wo)
    return maps.reshape(cut).transpose(0, 3, 2, 1, 4, 5)


def matrices(tiles: Array, rows: int) -> Array:
    """Tiles (n/G, Ho/L, ..., G, L, Wo) -> (n/G, Ho/L, rows, N), a view where memory allows it."""
    groups, parts, *_, in_tile, lines, wo = tiles.shape
    return tiles.reshape(groups, parts, rows, in_tile * lines * wo)


def convolve(x: Array, weights: Array, tiling: Tiling, y: Array) -> None:
    """y = weights @ columns of x, in tiles. weights: (O, K). y: (B, O, Ho, Wo), in any layout."""
    for images, columns in columns_of(x, tiling):
        target = tiles(y[images], tiling)
        out = matrices(target, len(weights))
        np.matmul(weights, matrices(columns, weights.shape[1]), out=out)
        if not np.may_share_memory(out, target):  # several images in one matrix: a copy
            target[...] = out.reshape(target.shape)


def convolve_backward(dy: Array, x: Array, weights: Array, tiling: Tiling) -> tuple[Array, Array]:
    """dy: (B, O, Ho, Wo), in any layout. Returns dx (B, C, H, W) and dweights (O, K)."""
    dweights = np.zeros(weights.shape[::-1], x.dtype)  # (K, O), which BLAS fills faster
    dx = np.empty(x.shape, x.dtype)
    dpadded = padded_images(x, tiling.at_once, tiling.padding)
    for images, columns in columns_of(x, tiling):
        used = matrices(columns, weights.shape[1])  # (n/G, Ho/L, K, N), a view
        dtiles = matrices(tiles(dy[images], tiling), len(weights))  # (n/G, Ho/L, O, N)
        # y = weights @ columns
        dweights += np.matmul(used, dtiles.swapaxes(-1, -2)).sum(axis=(0, 1))
        np.matmul(weights.T, dtiles, out=used)  # the columns' gradient, in their own place
        # columns = im2col(padded)
        dpadded[...] = 0
        kernels.col2im(columns, tiling.stride, dpadded)
        dx[images] = within(dpadded[: len(dx[images])], tiling.padding)
    return dx, dweights.T


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0
) -> tuple[Array, Cache]:
    """Cross-correlate images with kernels, as every deep-learning "convolution" does.

    x: (B, C, H, W). weight: (O, C, kh, kw). bias: (O,) or None. stride, padding: pixels.
    Returns y (B, O, Ho, Wo) and the cache, which keeps x and not its columns. float32 or float64,
    the same for all.
    """
    check_floats("conv2d", x=x, weight=weight, bias=bias)
    tiling = plan(x, weight, stride, padding)
    weights = weight.reshape(len(weight), -1)  # (O, K)
    y = np.empty((len(x), len(weight), *tiling.out), x.dtype)
    if is_pointwise(tiling):  # x is its own columns
        np.matmul(weights, pixels(x), out=pixels(y))
    else:
        convolve(x, weights, tiling, y)
    if bias is not None:
        y += bias[:, None, None]
    return y, (x, weight, bias is not None, stride, padding)


def conv2d_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array | None]:
    """dy: (B, O, Ho, Wo). Returns dx (B, C, H, W), dweight (O, C, kh, kw), dbias (O,) or None."""
    x, weight, has_bias, stride, padding = cache
    tiling = plan(x, weight, stride, padding)
    weights = weight.reshape(len(weight), -1)  # (O, K)
    if is_pointwise(tiling):
        dx, dweights = pointwise_backward(dy, x, weights, tiling)
    else:
        dx, dweights = convolve_backward(dy, x, weights, tiling)
    dbias = dy.sum(axis=(0, 2, 3)) if has_bias else None
    return dx, dweights.reshape(weight.shape), dbias


def is_pointwise(tiling: Tiling) -> bool:
    """Whether every column is one pixel of x."""
    return tiling.kernel == (1, 1) and tiling.stride == 1 and tiling.padding == 0


def pointwise_backward(dy: Array, x: Array, weights: Array, tiling: Tiling) -> tuple[Array, Array]:
    """As convolve_backward."""
    dx = np.matmul(weights.T, pixels(dy)).reshape(x.shape)
    dweights = np.zeros(weights.shape[::-1], x.dtype)  # (C, O)
    for first in range(0, len(x), tiling.at_once):
        images = slice(first, first + tiling.at_once)
        columns = matrices(tiles(x[images], tiling), x.shape[1])  # (n/G, Ho/L, C, N)
        dtiles = matrices(tiles(dy[images], tiling), len(weights))  # (n/G, Ho/L, O, N)
        dweights += np.matmul(columns, dtiles.swapaxes(-1, -2)).sum(axis=(0, 1))
    return dx, dweights.T


def pixels(maps: Array) -> Array:
    """(B, C, H, W) -> (B, C, P), a view if C-ordered."""
    return maps.reshape(*maps.shape[:2], maps.shape[2] * maps.shape[3])


def patch_embedding(x: Array, weight: Array, stride: int) -> tuple[Array, Cache]:
    """Cut images into patches and project each to a vector, row by row from the top left.

    x: (B, C, H, W). weight: (D, C, P, P). stride: pixels from one patch to the next; P for
    patches that do not overlap, less for patches that do.
    Returns y (B, Gh * Gw, D) with Gh = (H - P) // stride + 1, and the cache. float32 or float64.
    """
    check_floats("patch_embedding", x=x, weight=weight)
    tiling = plan(x, weight, stride, padding=0)
    y = np.empty((len(x), tiling.out[0] * tiling.out[1], len(weight)), x.dtype)
    convolve(x, weight.reshape(len(weight), -1), tiling, as_maps(y, tiling))
    return y, (x, weight, stride)


def patch_embedding_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dy: (B, Gh * Gw, D). Returns dx (B, C, H, W), dweight (D, C, P, P)."""
    x, weight, stride = cache
    tiling = plan(x, weight, stride, padding=0)
    weights = weight.reshape(len(weight), -1)
    dx, dweights = convolve_backward(as_maps(dy, tiling), x, weights, tiling)
    return dx, dweights.reshape(weight.shape)


def as_maps(tokens: Array, tiling: Tiling) -> Array:
    """(B, Gh * Gw, D) -> (B, D, Gh, Gw), a view if C-ordered."""
    batch, _, width = tokens.shape
    return tokens.reshape(batch, *tiling.out, width).transpose(0, 3, 1, 2)


# --- BatchNorm ------------------------------------------------------------------------------------


def batch_norm(
    x: Array, weight: Array, bias: Array, eps: float = 1e-5
) -> tuple[Array, Array, Array, Cache]:
    """BatchNorm in training: every channel gets mean 0 and variance 1 over the whole batch.

    x: (B, C, H, W). weight, bias: (C,). The normalisation divides by the biased variance.
    Returns y (B, C, H, W), mean (C,), var (C,) and the cache. The returned `var` is the unbiased
    one (divided by n - 1), which is what running statistics average. float32 or float64.
    Raises ValueError for one value per channel, whose variance does not exist.
    """
    check_floats("batch_norm", x=x, weight=weight, bias=bias)
    n = x.shape[0] * x.shape[2] * x.shape[3]  # values per channel
    if n < 2:
        raise ValueError(
            f"batch_norm: x of shape {tuple(x.shape)} has {n} value per channel, expected at least "
            "2 in training (use a larger batch or batch_norm_inference)"
        )
    maps = pixels(ready(x, x.shape, x.dtype))  # (B, C, P)
    total, squares = np.zeros((2, x.shape[1]))
    kernels.channel_moments(maps, total, squares)
    mean = total / n + maps[0, :, 0]
    var = np.maximum(squares - total * total / n, 0.0) / n  # (C,), biased
    inv_std = 1.0 / np.sqrt(var + eps)  # (C,), float64 as all before
    mean, inv_std = mean.astype(x.dtype), inv_std.astype(x.dtype)
    y = normalise(maps, mean, inv_std, weight, bias).reshape(x.shape)
    return y, mean, (var * (n / (n - 1))).astype(x.dtype), (x, weight, mean, inv_std)


def batch_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (B, C, H, W). Returns dx (B, C, H, W), dweight (C,), dbias (C,)."""
    x, weight, mean, inv_std = cache
    n = x.shape[0] * x.shape[2] * x.shape[3]
    dmaps, maps = (pixels(ready(a, x.shape, x.dtype)) for a in (dy, x))  # (B, C, P)
    dweight, dbias = channel_gradients(dmaps, maps, mean, inv_std)  # float64
    dx = np.empty(maps.shape, x.dtype)
    # the textbook's formula with x_hat = (x - mean) * inv_std written out
    along_one, along_x = dbias / n, dweight * inv_std / n
    scale = ready(weight * inv_std, mean.shape, x.dtype)
    kernels.batch_norm_backward(
        dmaps, maps, mean, scale, along_one.astype(x.dtype), along_x.astype(x.dtype), dx
    )
    return dx.reshape(x.shape), dweight.astype(x.dtype), dbias.astype(x.dtype)


def batch_norm_inference(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    eps: float = 1e-5,
) -> tuple[Array, Cache]:
    """BatchNorm with fixed statistics: a scale and a shift for every channel.

    x: (B, C, H, W). weight, bias, running_mean, running_var: (C,).
    Returns y (B, C, H, W) and the cache. float32 or float64, the same for all.
    """
    check_floats(
        "batch_norm_inference",
        x=x,
        weight=weight,
        bias=bias,
        running_mean=running_mean,
        running_var=running_var,
    )
    inv_std = 1.0 / np.sqrt(running_var + eps)  # (C,)
    maps = pixels(ready(x, x.shape, x.dtype))  # (B, C, P)
    y = normalise(maps, running_mean, inv_std, weight, bias).reshape(x.shape)
    return y, (x, weight, running_mean, inv_std)


def batch_norm_inference_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (B, C, H, W). Returns dx (B, C, H, W), dweight (C,), dbias (C,)."""
    x, weight, running_mean, inv_std = cache
    dmaps, maps = (pixels(ready(a, x.shape, x.dtype)) for a in (dy, x))  # (B, C, P)
    dweight, dbias = channel_gradients(dmaps, maps, running_mean, inv_std)
    # y = (x - running_mean) * (inv_std * weight) + bias
    dx = dmaps * (inv_std * weight)[:, None]
    return dx.reshape(x.shape), dweight.astype(x.dtype), dbias.astype(x.dtype)


def normalise(maps: Array, mean: Array, inv_std: Array, weight: Array, bias: Array) -> Array:
    """(maps - mean) * (inv_std * weight) + bias. maps: (B, C, P); the others (C,)."""
    y = np.empty(maps.shape, maps.dtype)
    centre, scale, shift = (
        ready(v, maps.shape[1:2], maps.dtype) for v in (mean, inv_std * weight, bias)
    )
    kernels.scale_and_shift(maps, centre, scale, shift, y)
    return y


def channel_gradients(dy: Array, x: Array, mean: Array, inv_std: Array) -> tuple[Array, Array]:
    """The sums of dy x_hat and of dy over every channel, in float64. dy, x: (B, C, P)."""
    dweight, dbias = np.zeros((2, x.shape[1]))
    kernels.channel_gradients(dy, x, ready(mean, x.shape[1:2], x.dtype), dbias, dweight)
    return dweight * inv_std, dbias


# --- Pooling --------------------------------------------------------------------------------------


def avg_pool2d(x: Array, kernel: int) -> tuple[Array, Cache]:
    """Average over squares of kernel x kernel pixels that do not overlap.

    x: (B, C, H, W); rows and columns that do not fill a square are left out, as in PyTorch.
    Returns y (B, C, H // kernel, W // kernel) and the cache. float32 or float64.
    """
    check_floats("avg_pool2d", x=x)
    batch, channels, height, width = x.shape
    y = np.empty((batch, channels, height // kernel, width // kernel), x.dtype)
    maps = ready(x, x.shape, x.dtype)
    kernels.avg_pool2d(stacked(maps), kernel, x.dtype.type(kernel**-2), stacked(y))
    return y, (x.shape, kernel)


def avg_pool2d_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, C, H // k, W // k). Returns dx (B, C, H, W)."""
    shape, kernel = cache
    batch, channels, height, width = shape
    dy = ready(dy, (batch, channels, height // kernel, width // kernel), dy.dtype)
    dx = np.zeros(shape, dy.dtype)
    kernels.avg_pool2d_backward(stacked(dy), kernel, dy.dtype.type(kernel**-2), stacked(dx))
    return dx


def global_avg_pool(x: Array) -> tuple[Array, Cache]:
    """The mean over all pixels: (B, C, H, W) -> (B, C). float32 or float64."""
    check_floats("global_avg_pool", x=x)
    batch, channels, height, width = x.shape
    y = np.empty((batch, channels), x.dtype)
    maps = ready(x, x.shape, x.dtype).reshape(batch * channels, height * width)
    kernels.global_avg_pool(maps, 1 / (height * width), y.reshape(-1))
    return y, x.shape


def global_avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, C). Returns dx (B, C, H, W)."""
    batch, channels, height, width = cache
    dx = np.empty((batch * channels, height * width), dy.dtype)
    shares = ready(dy, (batch, channels), dy.dtype).reshape(-1)
    kernels.global_avg_pool_backward(shares, dy.dtype.type(1 / (height * width)), dx)
    return dx.reshape(cache)


def stacked(maps: Array) -> Array:
    """(B, C, H, W) -> (B * C, H, W), a view of a C-ordered array."""
    batch, channels, height, width = maps.shape
    return maps.reshape(batch * channels, height, width)
