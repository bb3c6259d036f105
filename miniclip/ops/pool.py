"""Average pooling. Derivations: docs/ops/pool.md. Pooling by attention is in attention.py."""

from __future__ import annotations

import numpy as np

from miniclip.ops.array import Array, Cache, check_floats


def avg_pool2d(x: Array, kernel: int) -> tuple[Array, Cache]:
    """Average over squares of kernel x kernel pixels that do not overlap.

    x: (B, C, H, W); rows and columns that do not fill a square are left out, as in PyTorch.
    Returns y (B, C, H // kernel, W // kernel) and the cache. float32 or float64.
    Source: `torch.nn.AvgPool2d(kernel)`, which strided blocks of CLIP's ResNet use.
    """
    check_floats("avg_pool2d", x=x)
    batch, channels, height, width = x.shape
    ho, wo = height // kernel, width // kernel
    whole = x[:, :, : ho * kernel, : wo * kernel]
    squares = whole.reshape(batch, channels, ho, kernel, wo, kernel)
    return squares.mean(axis=(3, 5)), (x.shape, kernel)


def avg_pool2d_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, C, H // k, W // k). Returns dx (B, C, H, W)."""
    shape, kernel = cache
    batch, channels, ho, wo = dy.shape
    # every pixel of a square has the same share, 1 / k^2, in its mean
    share = (dy / kernel**2)[:, :, :, None, :, None]  # (B, C, Ho, 1, Wo, 1)
    squares = np.broadcast_to(share, (batch, channels, ho, kernel, wo, kernel))
    dx = np.zeros(shape, dy.dtype, like=dy)
    dx[:, :, : ho * kernel, : wo * kernel] = squares.reshape(
        batch, channels, ho * kernel, wo * kernel
    )
    return dx


def global_avg_pool(x: Array) -> tuple[Array, Cache]:
    """The mean over all pixels: (B, C, H, W) -> (B, C). float32 or float64."""
    check_floats("global_avg_pool", x=x)
    return x.mean(axis=(2, 3)), x.shape


def global_avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, C). Returns dx (B, C, H, W)."""
    _, _, height, width = cache
    # y = mean over the pixels: each has a share of 1 / (H W) in it
    share = (dy / (height * width))[:, :, None, None]  # (B, C, 1, 1)
    return np.broadcast_to(share, cache) + 0.0  # a copy of its own, not a read-only view
