"""The Numba backend's BatchNorm and pooling, on feature maps (B, C, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.backends.numba import map_kernels as kernels
from miniclip.cpu.arrays import ready
from miniclip.cpu.share import in_pieces, maps_at_once
from miniclip.ops.array import Array, Cache, check_floats

OWN = ("batch_norm", "batch_norm_inference", "avg_pool2d", "global_avg_pool")
__all__ = [*OWN, *(f"{name}_backward" for name in OWN)]


def pixels(maps: Array) -> Array:
    """(B, C, H, W) -> (B, C, P), a view if C-ordered."""
    return maps.reshape(*maps.shape[:2], maps.shape[2] * maps.shape[3])


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
    """A kernel over maps (B, C, P), or tokens (B, T, D), and values (C,) that all images share.

    It writes y (B, ...), image by image.
    """
    in_pieces(
        len(y),
        maps_at_once(len(y), y.size),
        y.size,
        lambda _, at: kernel(*(x[at] for x in maps), *values, y[at]),
    )


def channel_sums(kernel: Any, *arguments: Array) -> Array:
    """A kernel that adds to two sums for every channel: (2, C), in float64.

    Those of the arguments that are maps (B, C, P) are cut into pieces.
    """
    batch, channels = arguments[0].shape[:2]
    size = maps_at_once(batch, arguments[0].size)
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
    in_pieces(count, maps_at_once(count, numbers), numbers, run)


def stacked(maps: Array) -> Array:
    """(B, C, H, W) -> (B * C, H, W), a view of a C-ordered array."""
    batch, channels, height, width = maps.shape
    return maps.reshape(batch * channels, height, width)
