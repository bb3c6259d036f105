"""The loops of the Numba backend over feature maps, (B, C, H, W): BatchNorm, convolution, pooling.

The rules are those of numba_kernels: C-ordered arrays of one dtype, results into arrays that the
caller made, no bounds checked, serial and without the GIL. P is a map's number of pixels, H * W.
"""

from __future__ import annotations

from miniclip.backends.numba_kernels import Real, entry_kernel, row_kernel
from miniclip.ops.array import Array

# --- BatchNorm ------------------------------------------------------------------------------------
#
# A channel's values lie in B pieces of P. Their sums are float64 in every dtype: a channel has
# B * P values, often a million, and a running sum in float32 would lose digits.


@row_kernel
def channel_moments(x: Array, total: Array, squares: Array) -> None:
    """Adds sum (x - first) and sum (x - first)^2 of every channel. x: (B, C, P); the others (C,).

    `first` is the channel's first value: numbers near the mean, so that little is lost when
    the variance is taken from these two sums in a single pass through memory.
    """
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            first = float(x[0, c, 0])
            here, here_squared = 0.0, 0.0
            for p in range(x.shape[2]):
                d = x[b, c, p] - first
                here += d
                here_squared += d * d
            total[c] += here
            squares[c] += here_squared


@entry_kernel
def scale_and_shift(x: Array, centre: Array, scale: Array, shift: Array, y: Array) -> None:
    """y = (x - centre) scale + shift. x, y: (B, C, P). The others: (C,)."""
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            m, a, s = centre[c], scale[c], shift[c]
            for p in range(x.shape[2]):
                y[b, c, p] = (x[b, c, p] - m) * a + s


@row_kernel
def channel_gradients(dy: Array, x: Array, centre: Array, dshift: Array, dscale: Array) -> None:
    """Adds sum dy and sum dy (x - centre) of every channel. dy, x: (B, C, P); the others (C,)."""
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            m = float(centre[c])
            along_one, along_x = 0.0, 0.0
            for p in range(x.shape[2]):
                along_one += dy[b, c, p]
                along_x += dy[b, c, p] * (x[b, c, p] - m)
            dshift[c] += along_one
            dscale[c] += along_x


@entry_kernel
def batch_norm_backward(
    dy: Array, x: Array, centre: Array, scale: Array, along_one: Array, along_x: Array, dx: Array
) -> None:
    """dx = scale (dy - along_one - (x - centre) along_x). dy, x, dx: (B, C, P); the others (C,)."""
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            m, a, k_one, k_x = centre[c], scale[c], along_one[c], along_x[c]
            for p in range(x.shape[2]):
                dx[b, c, p] = a * ((dy[b, c, p] - k_one) - (x[b, c, p] - m) * k_x)


# --- Convolution ----------------------------------------------------------------------------------
#
# A tile is a part of the output that one matrix product makes: some lines of one image or, where
# maps are small, all lines of some images. Its columns are (C, kh, kw, G, L, Wo): what every kernel
# element sees at each position of the tile's L lines in G images. Every loop stands twice, because
# LLVM copies a line at once only if it knows that its pixels are neighbours.


@entry_kernel
def im2col(padded: Array, stride: int, columns: Array) -> None:
    """padded: (n, C, Hp, Wp). columns: (n / G, Ho / L, C, kh, kw, G, L, Wo)."""
    groups, parts, channels, kh, kw, images, lines, wo = columns.shape
    for g in range(groups):
        for t in range(parts):
            for c in range(channels):
                for i in range(kh):
                    for j in range(kw):
                        for b in range(images):
                            source = padded[g * images + b, c]
                            top = t * lines * stride + i
                            target = columns[g, t, c, i, j, b]
                            if stride == 1:
                                for u in range(lines):
                                    for v in range(wo):
                                        target[u, v] = source[top + u, j + v]
                            else:
                                for u in range(lines):
                                    for v in range(wo):
                                        target[u, v] = source[top + u * stride, j + v * stride]


@entry_kernel
def col2im(dcolumns: Array, stride: int, dpadded: Array) -> None:
    """The transpose of im2col: adds every column to where it came from."""
    groups, parts, channels, kh, kw, images, lines, wo = dcolumns.shape
    for g in range(groups):
        for t in range(parts):
            for c in range(channels):
                for b in range(images):
                    target = dpadded[g * images + b, c]
                    for i in range(kh):
                        for j in range(kw):
                            source = dcolumns[g, t, c, i, j, b]
                            top = t * lines * stride + i
                            if stride == 1:
                                for u in range(lines):
                                    for v in range(wo):
                                        target[top + u, j + v] += source[u, v]
                            else:
                                for u in range(lines):
                                    for v in range(wo):
                                        target[top + u * stride, j + v * stride] += source[u, v]


# --- Pooling --------------------------------------------------------------------------------------
#
# Squares of 2 x 2, the only ones in CLIP, stand on their own: their loops vectorise.


@entry_kernel
def avg_pool2d(x: Array, kernel: int, share: Real, y: Array) -> None:
    """y = share times the sum of every kernel x kernel square. x: (R, H, W). y: (R, Ho, Wo)."""
    zero = x.dtype.type(0)
    for r in range(y.shape[0]):
        for u in range(y.shape[1]):
            if kernel == 2:
                upper, lower = x[r, 2 * u], x[r, 2 * u + 1]
                for v in range(y.shape[2]):
                    left, right = upper[2 * v] + lower[2 * v], upper[2 * v + 1] + lower[2 * v + 1]
                    y[r, u, v] = (left + right) * share
                continue
            for v in range(y.shape[2]):
                total = zero
                for i in range(kernel):
                    for j in range(kernel):
                        total += x[r, u * kernel + i, v * kernel + j]
                y[r, u, v] = total * share


@entry_kernel
def avg_pool2d_backward(dy: Array, kernel: int, share: Real, dx: Array) -> None:
    """dx = share dy all over its square. dy: (R, Ho, Wo). dx: (R, H, W), zeros outside squares."""
    for r in range(dy.shape[0]):
        for u in range(dy.shape[1]):
            for i in range(kernel):
                line = dx[r, u * kernel + i]
                if kernel == 2:
                    for v in range(dy.shape[2]):
                        part = dy[r, u, v] * share
                        line[2 * v] = part
                        line[2 * v + 1] = part
                    continue
                for v in range(dy.shape[2]):
                    for j in range(kernel):
                        line[v * kernel + j] = dy[r, u, v] * share


@row_kernel
def global_avg_pool(x: Array, share: Real, y: Array) -> None:
    """y = share times the sum over P, in float64. x: (R, P). y: (R,)."""
    for r in range(x.shape[0]):
        total = 0.0
        for p in range(x.shape[1]):
            total += x[r, p]
        y[r] = total * share


@entry_kernel
def global_avg_pool_backward(dy: Array, share: Real, dx: Array) -> None:
    """dx = share dy all over the map. dy: (R,). dx: (R, P)."""
    for r in range(dx.shape[0]):
        part = dy[r] * share
        for p in range(dx.shape[1]):
            dx[r, p] = part
