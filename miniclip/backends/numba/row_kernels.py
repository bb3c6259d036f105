"""The loops behind the Numba backend's ops on rows: into arrays that the caller made.

Every kernel takes C-ordered arrays of one dtype, float32 or float64, and writes to those that its
first line names as results. R is a number of rows, N or D their length.

Scalars in the kernels carry the arrays' dtype (`real = x.dtype.type`), because a Python float is a
float64 to Numba and would pull float32 loops up to it.
"""

from __future__ import annotations

import numpy as np

from miniclip.cpu import scalars
from miniclip.cpu.jit import entry_kernel, kernel
from miniclip.cpu.rows import largest_of, layer_norm_row, softmax_row, softmax_row_backward
from miniclip.cpu.scalars import Real, exp_of_negative, order, unorder
from miniclip.ops.array import Array

# --- Activations, entry by entry ------------------------------------------------------------------


@entry_kernel
def relu(x: Array, y: Array) -> None:
    """y = max(x, 0); NaN stays NaN. x, y: (N,)."""
    zero = x.dtype.type(0)
    for i in range(x.shape[0]):
        y[i] = zero if x[i] <= zero else x[i]


@entry_kernel
def relu_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy where x > 0, else 0. All (N,)."""
    zero = x.dtype.type(0)
    for i in range(x.shape[0]):
        dx[i] = dy[i] if x[i] > zero else zero


@entry_kernel
def quick_gelu(x: Array, y: Array) -> None:
    """y = x sigmoid(1.702 x). x, y: (N,)."""
    for i in range(x.shape[0]):
        y[i] = scalars.quick_gelu_of(x[i])


@entry_kernel
def quick_gelu_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy (s + 1.702 x s (1 - s)), s = sigmoid(1.702 x). All (N,)."""
    for i in range(x.shape[0]):
        dx[i] = dy[i] * scalars.quick_gelu_slope(x[i])


@entry_kernel
def gelu(x: Array, y: Array) -> None:
    """y = x Phi(x). x, y: (N,)."""
    for i in range(x.shape[0]):
        y[i] = scalars.gelu_of(x[i])


@entry_kernel
def gelu_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy (Phi(x) + x Phi'(x)). All (N,)."""
    for i in range(x.shape[0]):
        dx[i] = dy[i] * scalars.gelu_slope(x[i])


@entry_kernel
def gelu_tanh(x: Array, y: Array) -> None:
    """y = x (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3). x, y: (N,)."""
    for i in range(x.shape[0]):
        y[i] = scalars.gelu_tanh_of(x[i])


@entry_kernel
def gelu_tanh_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy (s + x s (1 - s) 2 u'), s = sigmoid(2 u). All (N,)."""
    for i in range(x.shape[0]):
        dx[i] = dy[i] * scalars.gelu_tanh_slope(x[i])


# --- Softmax --------------------------------------------------------------------------------------


@kernel
def softmax(x: Array) -> None:
    """x = softmax(x) over the last axis, in place. x: (R, N)."""
    for r in range(x.shape[0]):
        softmax_row(x[r])


@kernel
def softmax_backward(dy: Array, y: Array) -> None:
    """dy = y (dy - sum dy y) over the last axis, in place of dy. Both (R, N)."""
    for r in range(y.shape[0]):
        softmax_row_backward(dy[r], y[r], y.dtype.type(1))


@kernel
def log_sum_exp(x: Array, lse: Array) -> None:
    """lse = ln sum e^x over the last axis. x: (R, N). lse: (R,)."""
    for r in range(x.shape[0]):
        largest = largest_of(x[r])
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            total += exp_of_negative(x[r, j] - largest)
        lse[r] = np.log(total) + largest


@kernel
def softmax_from(x: Array, lse: Array, y: Array) -> None:
    """y = e^(x - lse), at most 1 up to rounding. x, y: (R, N). lse: (R,)."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[r, j] = exp_of_negative(x[r, j] - lse[r])


# --- Normalisation --------------------------------------------------------------------------------


@kernel
def layer_norm(
    x: Array, weight: Array, bias: Array, eps: Real, y: Array, mean: Array, inv_std: Array
) -> None:
    """y = (x - mean) inv_std weight + bias. x, y: (R, D); weight, bias: (D,); the others (R,)."""
    for r in range(x.shape[0]):
        mean[r], inv_std[r] = layer_norm_row(x[r], weight, bias, eps, y[r])


@kernel
def layer_norm_backward(
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    """dy, x, dx: (R, D). weight: (D,). mean, inv_std: (R,). Adds to dweight, dbias: (D,), float64.

    A column's sum is sequential, and in float32 its error would grow with the number of rows.
    """
    real = x.dtype.type
    width = real(x.shape[1])
    for r in range(x.shape[0]):
        m, s = mean[r], inv_std[r]
        along_one, along_x_hat = real(0), real(0)
        for j in range(x.shape[1]):
            x_hat = (x[r, j] - m) * s
            dx_hat = dy[r, j] * weight[j]
            along_one += dx_hat
            along_x_hat += dx_hat * x_hat
            dweight[j] += dy[r, j] * x_hat
            dbias[j] += dy[r, j]
        along_one /= width
        along_x_hat /= width
        for j in range(x.shape[1]):
            x_hat = (x[r, j] - m) * s
            dx[r, j] = s * (dy[r, j] * weight[j] - along_one - x_hat * along_x_hat)


@kernel
def l2_normalize(x: Array, eps: Real, y: Array, inv_norm: Array) -> None:
    """y = x / |x|, inv_norm = 1 / |x|; both 0 in rows without an entry above eps.

    x, y: (R, D). inv_norm: (R,).
    """
    real = x.dtype.type
    for r in range(x.shape[0]):
        place = order(real(0))
        for j in range(x.shape[1]):
            place = max(place, order(abs(x[r, j])))
        largest = unorder(place)
        if largest <= eps:
            inv_norm[r] = 0
            for j in range(x.shape[1]):
                y[r, j] = 0
            continue
        squares = real(0)
        for j in range(x.shape[1]):
            # a division, as a product may be reordered to x * x * ..., which overflows
            scaled = x[r, j] / largest  # in [-1, 1]
            squares += scaled * scaled
            y[r, j] = scaled
        length = np.sqrt(squares)  # 1 to sqrt(D)
        inv_norm[r] = real(1) / largest / length
        for j in range(x.shape[1]):
            y[r, j] /= length


@kernel
def l2_normalize_backward(dy: Array, y: Array, inv_norm: Array, dx: Array) -> None:
    """dx = inv_norm (dy - y sum dy y). dy, y, dx: (R, D). inv_norm: (R,)."""
    for r in range(y.shape[0]):
        along_y = y.dtype.type(0)
        for j in range(y.shape[1]):
            along_y += dy[r, j] * y[r, j]
        for j in range(y.shape[1]):
            dx[r, j] = inv_norm[r] * (dy[r, j] - y[r, j] * along_y)


# --- Sums -----------------------------------------------------------------------------------------


@kernel
def column_sums(x: Array, total: Array) -> None:
    """Adds every row to total, in float64. x: (R, D). total: (D,)."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            total[j] += x[r, j]


# --- Word embeddings ------------------------------------------------------------------------------


@kernel
def embedding_backward(dy: Array, ids: Array, order: Array, total: Array, dtable: Array) -> None:
    """Adds dy[r] to dtable[ids[r]]. dy: (R, D). ids: (R,), and `order`, which sorts them.

    total: (D,) zeros in float64, the sum for one word: a padding word may stand in most places.
    dtable: (V, D).
    """
    for n in range(order.shape[0]):
        r = order[n]
        for j in range(dy.shape[1]):
            total[j] += dy[r, j]
        if n + 1 == order.shape[0] or ids[order[n + 1]] != ids[r]:
            for j in range(dy.shape[1]):
                dtable[ids[r], j] += total[j]
                total[j] = 0


# --- The mean of all tokens -----------------------------------------------------------------------


@kernel
def mean_token(x: Array, y: Array) -> None:
    """The mean of each image's tokens, and behind it the tokens. x: (B, T, D). y: (B, 1 + T, D)."""
    share = x.dtype.type(1) / x.dtype.type(x.shape[1])
    for b in range(x.shape[0]):
        mean = y[b, 0]
        mean[:] = 0
        for t in range(x.shape[1]):
            for j in range(x.shape[2]):
                mean[j] += x[b, t, j]
                y[b, t + 1, j] = x[b, t, j]
        for j in range(x.shape[2]):
            mean[j] *= share


@entry_kernel
def mean_token_backward(dy: Array, dx: Array) -> None:
    """Every token's own gradient and its share of the mean's. dy: (B, 1 + T, D). dx: (B, T, D)."""
    share = dy.dtype.type(1) / dy.dtype.type(dx.shape[1])
    for b in range(dx.shape[0]):
        for t in range(dx.shape[1]):
            for j in range(dx.shape[2]):
                dx[b, t, j] = dy[b, t + 1, j] + dy[b, 0, j] * share


# --- An optimiser's step --------------------------------------------------------------------------


@entry_kernel
def adamw(
    factors: Array,
    x: Array,
    grad: Array,
    mean: Array,
    square: Array,
    new_x: Array,
    new_mean: Array,
    new_square: Array,
) -> None:
    """All but the first (N,), the last three results. factors: what stands before the old and the
    new in x, in mean and in square, what takes the bias from the new mean and square, and eps.
    """
    x_kept, rate, b1, b1_rest, b2, b2_rest, unbias_mean, unbias_square, eps = factors
    for i in range(x.shape[0]):
        m = b1 * mean[i] + b1_rest * grad[i]
        s = b2 * square[i] + b2_rest * grad[i] * grad[i]
        step = m * unbias_mean / (np.sqrt(s * unbias_square) + eps)
        new_x[i] = x_kept * x[i] - rate * step
        new_mean[i], new_square[i] = m, s
