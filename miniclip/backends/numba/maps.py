"""The Numba backend's ops on feature maps, (B, C, H, W): convolution, BatchNorm and pooling."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from miniclip.backends.numba import conv_kernels
from miniclip.backends.numba import map_kernels as kernels
from miniclip.cpu.arrays import as_rows, ready
from miniclip.cpu.products import product
from miniclip.cpu.share import in_pieces
from miniclip.cpu.simd import VECTOR_BYTES
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

# Positions of a few images that are staged together: many enough for whole tiles, few enough for
# the second cache.
POSITIONS = 512
PIECES = 16  # of a batch of images, at most
LEAST = 1 << 18  # numbers of a piece: members take turns at the interpreter's lock to begin one


def pieces_of(n: int, numbers: int) -> int:
    """How many of n images, or maps, with so many numbers in all, are a piece."""
    return max(1, -(-n // PIECES), -(-n * LEAST // max(1, numbers)))


# --- Convolution ----------------------------------------------------------------------------------


class Plan(NamedTuple):
    """How a convolution is carried out; the numbers are explained in numba_map_kernels."""

    out: tuple[int, int]  # Ho, Wo
    shape_x: Array  # C, H, W, stride, padding, lines, pitch, plane, channel
    shape_y: Array  # of y, staged as x is
    taps: Array  # kh, kw, stride
    at_once: int  # images
    direct: bool  # without staging


def plan(x: Array, weight: Array, stride: int, padding: int) -> Plan:
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
    return Plan(size, np.array(shape_x), np.array(shape_y), taps, at_once, direct)


def images_at_once(batch: int, work: int, plan: Plan) -> int:
    """Images of a piece: a multiple of those staged together."""
    return -(-pieces_of(batch, work) // plan.at_once) * plan.at_once


def work_of(x: Array, weight: Array, plan: Plan) -> int:
    return len(x) * plan.out[0] * plan.out[1] * weight.size // 32 + x.size


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0
) -> tuple[Array, Cache]:
    """Cross-correlate images with kernels, as every deep-learning "convolution" does.

    x: (B, C, H, W). weight: (O, C, kh, kw). bias: (O,) or None. stride, padding: pixels.
    Returns y (B, O, Ho, Wo) and the cache, which keeps x and not its columns. float32 or float64,
    the same for all.
    """
    check_floats("conv2d", x=x, weight=weight, bias=bias)
    how = plan(x, weight, stride, padding)
    y = np.empty((len(x), len(weight), *how.out), x.dtype)
    if not weight.size:
        y[...] = 0
    elif y.size:
        images, kernels_ = flat(x), flat(weight)
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
    how = plan(x, weight, stride, padding)
    (out, channels, kh, kw), lanes = weight.shape, VECTOR_BYTES // x.itemsize
    padded = -(-out // lanes) * lanes
    something = dy.size > 0 and weight.size > 0
    dx = (np.empty if something else np.zeros)(x.shape, x.dtype)
    work = 2 * work_of(x, weight, how)
    size = images_at_once(len(x), work, how)
    dweights = np.zeros((-(-len(x) // size), kh * kw, channels, padded), x.dtype)
    if something:
        dimages, images, kernels_ = flat(dy), flat(x), flat(weight)
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


def flat(x: Array) -> Array:
    return ready(x, x.shape, x.dtype).reshape(-1)


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
        pieces_of(len(x), dpatches.size),
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
        pieces_of(batch, rows.size),
        rows.size,
        lambda _, at: kernels.image2row(images, patch, stride, rows, at.start, at.stop),
    )
    return rows


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
    near = maps[0, :, 0].copy()  # of every channel its first value
    total, squares = channel_sums(kernels.channel_moments, maps, near)
    mean = total / n + near
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
    image_by_image(
        kernels.batch_norm_backward,
        (dmaps, maps),
        (mean, scale, along_one.astype(x.dtype), along_x.astype(x.dtype)),
        dx,
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
    image_by_image(kernels.scale_and_shift, (maps,), (centre, scale, shift), y)
    return y


def channel_gradients(dy: Array, x: Array, mean: Array, inv_std: Array) -> tuple[Array, Array]:
    """The sums of dy x_hat and of dy over every channel, in float64. dy, x: (B, C, P)."""
    centre = ready(mean, x.shape[1:2], x.dtype)
    dbias, dweight = channel_sums(kernels.channel_gradients, dy, x, centre)
    return dweight * inv_std, dbias


def image_by_image(
    kernel: Any, maps: tuple[Array, ...], values: tuple[Array, ...], y: Array
) -> None:
    """A kernel over maps (B, C, P) and values of the channels (C,), with the result y (B, C, P)."""
    in_pieces(
        len(y),
        pieces_of(len(y), y.size),
        y.size,
        lambda _, at: kernel(*(x[at] for x in maps), *values, y[at]),
    )


def channel_sums(kernel: Any, *arguments: Array) -> Array:
    """A kernel that adds to two sums for every channel: (2, C), in float64.

    Those of the arguments that are maps (B, C, P) are cut into pieces.
    """
    batch, channels = arguments[0].shape[:2]
    size = pieces_of(batch, arguments[0].size)
    sums = np.zeros((-(-batch // size), 2, channels))

    def run(number: int, at: slice) -> None:
        kernel(*(x[at] if x.ndim == 3 else x for x in arguments), *sums[number])

    in_pieces(batch, size, arguments[0].size, run)
    return sums.sum(axis=0)


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
    map_by_map(kernels.avg_pool2d, stacked(maps), kernel, x.dtype.type(kernel**-2), stacked(y))
    return y, (x.shape, kernel)


def avg_pool2d_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, C, H // k, W // k). Returns dx (B, C, H, W)."""
    shape, kernel = cache
    batch, channels, height, width = shape
    dy = ready(dy, (batch, channels, height // kernel, width // kernel), dy.dtype)
    dx = np.zeros(shape, dy.dtype)
    share = dy.dtype.type(kernel**-2)
    map_by_map(kernels.avg_pool2d_backward, stacked(dy), kernel, share, stacked(dx))
    return dx


def global_avg_pool(x: Array) -> tuple[Array, Cache]:
    """The mean over all pixels: (B, C, H, W) -> (B, C). float32 or float64."""
    check_floats("global_avg_pool", x=x)
    batch, channels, height, width = x.shape
    y = np.empty((batch, channels), x.dtype)
    maps = ready(x, x.shape, x.dtype).reshape(batch * channels, height * width)
    map_by_map(kernels.global_avg_pool, maps, 1 / (height * width), y.reshape(-1))
    return y, x.shape


def global_avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, C). Returns dx (B, C, H, W)."""
    batch, channels, height, width = cache
    dx = np.empty((batch * channels, height * width), dy.dtype)
    shares = ready(dy, (batch, channels), dy.dtype).reshape(-1)
    share = dy.dtype.type(1 / (height * width))
    map_by_map(kernels.global_avg_pool_backward, shares, share, dx)
    return dx.reshape(cache)


def map_by_map(kernel: Any, *arguments: Any) -> None:
    """A kernel over maps (R, ...); all arrays are cut, the rest goes to all pieces as it is."""
    arrays = [x for x in arguments if isinstance(x, np.ndarray)]

    def run(_: int, at: slice) -> None:
        kernel(*(x[at] if isinstance(x, np.ndarray) else x for x in arguments))

    count = len(arrays[0])
    numbers = max(x.size for x in arrays)
    in_pieces(count, pieces_of(count, numbers), numbers, run)


def stacked(maps: Array) -> Array:
    """(B, C, H, W) -> (B * C, H, W), a view of a C-ordered array."""
    batch, channels, height, width = maps.shape
    return maps.reshape(batch * channels, height, width)
