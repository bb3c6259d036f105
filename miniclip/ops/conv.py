"""Convolution in two dimensions, as one matrix product over columns. Derivation: docs/ops/conv.md.

`im2col` copies the patch under every kernel position into a column; then a convolution is
weight @ columns. `col2im` is its transpose: it adds every column back to where it came from.
"""

from __future__ import annotations

import numpy as np

from miniclip.ops.array import Array, Cache, check_floats


def conv_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """How many kernel positions fit along one side of `size` pixels."""
    return (size + 2 * padding - kernel) // stride + 1


def im2col(x: Array, kernel: tuple[int, int], stride: int, padding: int) -> Array:
    """(B, C, H, W) -> (B, C, kh, kw, Ho, Wo): [.., i, j, u, v] is padded[.., u*s + i, v*s + j]."""
    batch, channels, height, width = x.shape
    kh, kw = kernel
    ho = conv_output_size(height, kh, stride, padding)
    wo = conv_output_size(width, kw, stride, padding)
    padded = pad_image(x, padding)
    columns = np.zeros((batch, channels, kh, kw, ho, wo), x.dtype, like=x)
    for i in range(kh):
        for j in range(kw):
            window = padded[:, :, i : i + stride * ho : stride, j : j + stride * wo : stride]
            columns[:, :, i, j] = window  # what kernel element (i, j) sees at every position
    return columns


def col2im(dcolumns: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """The transpose of `im2col`: (B, C, kh, kw, Ho, Wo) -> (B, C, H, W), overlaps added up."""
    batch, channels, height, width = shape
    _, _, kh, kw, ho, wo = dcolumns.shape
    padded_shape = (batch, channels, height + 2 * padding, width + 2 * padding)
    dpadded = np.zeros(padded_shape, dcolumns.dtype, like=dcolumns)
    for i in range(kh):
        for j in range(kw):
            # columns[:, :, i, j] = padded[window (i, j)]
            rows = slice(i, i + stride * ho, stride)
            cols = slice(j, j + stride * wo, stride)
            dpadded[:, :, rows, cols] += dcolumns[:, :, i, j]
    return dpadded[:, :, padding : padding + height, padding : padding + width]


def pad_image(x: Array, padding: int) -> Array:
    """(B, C, H, W) -> (B, C, H + 2p, W + 2p) with zeros around; x itself when p is 0."""
    if padding == 0:
        return x
    batch, channels, height, width = x.shape
    shape = (batch, channels, height + 2 * padding, width + 2 * padding)
    padded = np.zeros(shape, x.dtype, like=x)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    return padded


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0
) -> tuple[Array, Cache]:
    """Cross-correlate images with kernels, as every deep-learning "convolution" does.

    x: (B, C, H, W). weight: (O, C, kh, kw). bias: (O,) or None. stride, padding: pixels.
    Returns y (B, O, Ho, Wo) and the cache, which keeps x and not its columns: those are kh * kw
    times as large and are made again in backward. float32 or float64, the same for all.
    Source: `torch.nn.Conv2d`.
    """
    check_floats("conv2d", x=x, weight=weight, bias=bias)
    out_channels, _, kh, kw = weight.shape
    columns = im2col(x, (kh, kw), stride, padding)  # (B, C, kh, kw, Ho, Wo)
    batch, *_, ho, wo = columns.shape
    columns = columns.reshape(batch, -1, ho * wo)  # (B, C*kh*kw, Ho*Wo)
    kernels = weight.reshape(out_channels, -1)  # (O, C*kh*kw)
    y = np.matmul(kernels, columns)  # (B, O, Ho*Wo)
    if bias is not None:
        y = y + bias[:, None]
    y = y.reshape(batch, out_channels, ho, wo)
    return y, (x, weight, bias is not None, stride, padding)


def conv2d_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array | None]:
    """dy: (B, O, Ho, Wo). Returns dx (B, C, H, W), dweight (O, C, kh, kw), dbias (O,) or None."""
    x, weight, has_bias, stride, padding = cache
    out_channels, channels, kh, kw = weight.shape
    batch, _, ho, wo = dy.shape
    columns = im2col(x, (kh, kw), stride, padding).reshape(batch, -1, ho * wo)
    kernels = weight.reshape(out_channels, -1)  # (O, C*kh*kw)
    dy = dy.reshape(batch, out_channels, ho * wo)  # (B, O, Ho*Wo)
    # y = kernels @ columns + bias
    dkernels = np.matmul(dy, columns.transpose(0, 2, 1)).sum(axis=0)  # (O, C*kh*kw)
    dcolumns = np.matmul(kernels.T, dy)  # (B, C*kh*kw, Ho*Wo)
    dbias = dy.sum(axis=(0, 2)) if has_bias else None
    # columns = im2col(x)
    dx = col2im(dcolumns.reshape(batch, channels, kh, kw, ho, wo), x.shape, stride, padding)
    return dx, dkernels.reshape(weight.shape), dbias
