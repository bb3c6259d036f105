"""The loops of the Numba backend over feature maps, (B, C, H, W): BatchNorm, convolution, pooling.

The rules are those of row_kernels.py: C-ordered arrays of one dtype, results into arrays that the
caller made, no bounds checked, serial and without the GIL. P is a map's number of pixels, H * W.
"""

from __future__ import annotations

from miniclip.cpu.jit import entry_kernel, kernel
from miniclip.cpu.scalars import Real
from miniclip.ops.array import Array

# --- BatchNorm ------------------------------------------------------------------------------------
#
# A channel's values lie in B pieces of P. Their sums are float64 in every dtype: a channel has
# B * P values, often a million, and a running sum in float32 would lose digits.


@kernel
def channel_moments(x: Array, near: Array, total: Array, squares: Array) -> None:
    """Adds sum (x - near) and sum (x - near)^2 of every channel. x: (B, C, P); the others (C,).

    `near` holds numbers near the channels' means, so that little is lost when the variance is
    taken from these two sums in a single pass through memory.
    """
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            first = float(near[c])
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


@kernel
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
# A convolution is a sum of matrix products, one for each tap (i, j) of its kernel: what a tap sees
# of every channel, times its weights. No columns are copied. Images are staged with zeros around
# them, all channels of a few images at a time, so that what a tap sees at all positions is one
# stretch of memory that begins a little later than another tap's; positions beyond the ends of
# lines are computed too, and left out (or hold zeros) at the end.
#
# With stride 1 the zeros at the end of a line are those before the next one, and so for images.
# With a stride s, pixels are staged in s * s planes, one for each remainder of line and column, so
# that neighbouring positions are neighbours in memory again.
#
# A plane has `pitch` numbers a line and `lines` lines an image; its N numbers are padded to whole
# vectors; a channel has `channel` numbers: s * s planes `plane` apart, with room for the last tap.
# A 1 x 1 convolution needs no staging where maps are whole vectors: x is what its only tap sees.


@entry_kernel
def stage(x: Array, at_x: int, images: int, shape: Array, to: Array) -> None:
    """Images of (C, H, W), the first at at_x, -> to: (C, channel), which holds zeros."""
    channels, height, width, stride, padding, lines, pitch, plane, channel = shape
    for b in range(images):
        for c in range(channels):
            for u in range(height):
                line = x[at_x + ((b * channels + c) * height + u) * width :]
                row, i = (u + padding) // stride, (u + padding) % stride
                at = c * channel + i * stride * plane + (b * lines + row) * pitch
                if stride == 1:
                    target = to[at + padding : at + padding + width]
                    for v in range(width):
                        target[v] = line[v]
                else:
                    column, j = padding // stride, padding % stride  # of pixel v, counted along
                    for v in range(width):
                        to[at + j * plane + column] = line[v]
                        j += 1
                        if j == stride:
                            column, j = column + 1, 0


@entry_kernel
def unstage(source: Array, images: int, shape: Array, x: Array, at_x: int) -> None:
    """The inverse of `stage`."""
    channels, height, width, stride, padding, lines, pitch, plane, channel = shape
    for b in range(images):
        for c in range(channels):
            for u in range(height):
                line = x[at_x + ((b * channels + c) * height + u) * width :]
                row, i = (u + padding) // stride, (u + padding) % stride
                at = c * channel + i * stride * plane + (b * lines + row) * pitch
                if stride == 1:
                    values = source[at + padding : at + padding + width]
                    for v in range(width):
                        line[v] = values[v]
                else:
                    column, j = padding // stride, padding % stride  # of pixel v, counted along
                    for v in range(width):
                        line[v] = source[at + j * plane + column]
                        j += 1
                        if j == stride:
                            column, j = column + 1, 0


@entry_kernel
def image2row(x: Array, patch: int, stride: int, rows: Array, first: int, last: int) -> None:
    """x: (B, C, H, W). rows: (B, Gh, Gw, C, P, P), the patch at every position; images from
    first to last.
    """
    for b in range(first, last):
        for u in range(rows.shape[1]):
            for v in range(rows.shape[2]):
                for c in range(rows.shape[3]):
                    for i in range(patch):
                        line = x[b, c, u * stride + i]
                        target = rows[b, u, v, c, i]
                        for j in range(patch):
                            target[j] = line[v * stride + j]


@entry_kernel
def row2image(drows: Array, patch: int, stride: int, dx: Array, first: int, last: int) -> None:
    """The transpose of image2row: adds every patch to where it came from."""
    for b in range(first, last):
        for u in range(drows.shape[1]):
            for v in range(drows.shape[2]):
                for c in range(drows.shape[3]):
                    for i in range(patch):
                        line = dx[b, c, u * stride + i]
                        source = drows[b, u, v, c, i]
                        for j in range(patch):
                            line[v * stride + j] += source[j]


# --- Pooling --------------------------------------------------------------------------------------
#
# Squares of 2 x 2, the only ones in CLIP, stand on their own: their loops vectorise.


@entry_kernel
def avg_pool2d(x: Array, side: int, share: Real, y: Array) -> None:
    """y = share times the sum of every side x side square. x: (R, H, W). y: (R, Ho, Wo)."""
    zero = x.dtype.type(0)
    for r in range(y.shape[0]):
        for u in range(y.shape[1]):
            if side == 2:
                upper, lower = x[r, 2 * u], x[r, 2 * u + 1]
                for v in range(y.shape[2]):
                    left, right = upper[2 * v] + lower[2 * v], upper[2 * v + 1] + lower[2 * v + 1]
                    y[r, u, v] = (left + right) * share
                continue
            for v in range(y.shape[2]):
                total = zero
                for i in range(side):
                    for j in range(side):
                        total += x[r, u * side + i, v * side + j]
                y[r, u, v] = total * share


@entry_kernel
def avg_pool2d_backward(dy: Array, side: int, share: Real, dx: Array) -> None:
    """dx = share dy all over its square. dy: (R, Ho, Wo). dx: (R, H, W), zeros outside squares."""
    for r in range(dy.shape[0]):
        for u in range(dy.shape[1]):
            for i in range(side):
                line = dx[r, u * side + i]
                if side == 2:
                    for v in range(dy.shape[2]):
                        part = dy[r, u, v] * share
                        line[2 * v] = part
                        line[2 * v + 1] = part
                    continue
                for v in range(dy.shape[2]):
                    for j in range(side):
                        line[v * side + j] = dy[r, u, v] * share


@kernel
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
