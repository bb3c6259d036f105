"""The loops behind the Numba backend: rows in, rows out, into arrays that the caller made.

Every kernel takes C-ordered arrays of one dtype, float32 or float64, and writes to those that its
first line names as results. R is a number of rows, N or D their length. Kernels neither allocate
nor check bounds: the shapes are numba_backend's care. They are serial and release the GIL, so that
the team's threads can each take their own rows; Numba's own threads would fight with them.

A NumPy expression walks through memory once per operator. A kernel does all operators on a row
while the row is in the first cache. The rest of the gain is vectorisation: LLVM turns a loop into
SIMD instructions only if it sees through every call in it, and a call of the C library's exp is
opaque. So exp and erf are written here in arithmetic, and maxima are taken of integers.

Scalars in the kernels carry the arrays' dtype (`real = x.dtype.type`), because a Python float is a
float64 to Numba and would pull float32 loops up to it.

Kernels stand in one file with what they call: Numba's cache on disk sees changes of a kernel's own
file only. Those on feature maps call nothing and have backends/numba/map_kernels.py to themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from miniclip.ops.array import Array

try:
    from numba import njit, types
    from numba.extending import overload
except ImportError as error:
    raise ImportError("the numba backend needs Numba (pip install numba)") from error

Real: TypeAlias = Any  # a scalar in the dtype of the arrays around it

# Freedoms for the compiler. Never nnan or ninf: masks hold -inf, and a NaN must stay visible.
# reassoc lets it keep one partial sum per SIMD lane, which is also the more accurate way to add.
SUMS = {"reassoc", "contract", "nsz"}
# Without reassoc, where the order matters: for roundings, or for x * (0 * a) with a huge x.
AS_WRITTEN = {"contract", "nsz"}

# error_model: a division by zero gives inf as in NumPy; a check would end vectorisation.
row_kernel = njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
entry_kernel = njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")


def scalar(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates `f(x_type) -> the Python function to compile for it`, to be called in kernels."""
    stub = _stub(function.__name__)
    overload(stub, jit_options={"fastmath": AS_WRITTEN, "error_model": "numpy"})(function)
    return stub


def _stub(name: str) -> Callable[..., Any]:
    """A function that exists to be named in kernels; outside of them it has no meaning."""

    def stub(x: Real) -> Real:
        raise NotImplementedError(f"{name} is for use inside Numba kernels")

    stub.__name__ = stub.__qualname__ = name
    return stub


# --- e^x for x <= 0 -------------------------------------------------------------------------------
#
# With n = round(x / ln 2) and r = x - n ln 2, |r| <= ln(2) / 2, e^x = 2^n e^r.
# ln 2 = HIGH + LOW: n * HIGH is exact (the last bits of HIGH are zeros), so the large parts cancel
#   without rounding, and LOW brings the missing digits. That is why reassoc is off here.
# round: x <= 0 and a conversion to integer cuts towards zero, so n = int(x / ln 2 - 1/2).
# e^r: Taylor's polynomial; its first missing term is 5e-9 (float32) and 4e-18 (float64).
# 2^n: a shift puts n + bias into the exponent field of a float with mantissa 0.
# Below LOWEST, where 2^n leaves the normal numbers, the result is 0; NaN stays NaN.

LOG2_E_32 = np.float32(1 / math.log(2))
HIGH_32, LOW_32 = np.float32(355 / 512), np.float32(-2.1219444005469057e-4)
LOWEST_32 = np.float32(-87.0)  # the least normal number is 2^-126 = e^-87.3
TAYLOR_32 = tuple(np.float32(1 / math.factorial(k)) for k in range(7, -1, -1))

LOG2_E_64 = 1 / math.log(2)
HIGH_64, LOW_64 = float.fromhex("0x1.62e42feep-1"), 1.9082149292705877e-10
LOWEST_64 = -708.0  # the least normal number is 2^-1022 = e^-708.4
TAYLOR_64 = tuple(1 / math.factorial(k) for k in range(13, -1, -1))


def _exp_32(x: Real) -> Real:
    kept = x if x > LOWEST_32 else LOWEST_32
    n = np.int32(kept * LOG2_E_32 - np.float32(0.5))
    r = (kept - np.float32(n) * HIGH_32) - np.float32(n) * LOW_32
    e_r = np.float32(0)
    for coefficient in TAYLOR_32:  # LLVM unrolls this; of more than about 16 it would not
        e_r = e_r * r + coefficient
    two_n = np.int32((n + 127) << 23).view(np.float32)
    return e_r * two_n if x > LOWEST_32 else (np.float32(0) if x <= LOWEST_32 else x)


def _exp_64(x: Real) -> Real:
    kept = x if x > LOWEST_64 else LOWEST_64
    n = np.int32(kept * LOG2_E_64 - 0.5)  # SIMD converts to 32 bits everywhere, to 64 not
    r = (kept - n * HIGH_64) - n * LOW_64
    e_r = 0.0
    for coefficient in TAYLOR_64:
        e_r = e_r * r + coefficient
    two_n = np.int64((np.int64(n) + 1023) << 52).view(np.float64)
    return e_r * two_n if x > LOWEST_64 else (0.0 if x <= LOWEST_64 else x)


@scalar
def exp_of_negative(x: Real) -> Callable[[Real], Real]:
    """e^x for x <= 0, -inf and NaN included, to 2 ulp; 0 where the result would be subnormal."""
    return _exp_32 if x == types.float32 else _exp_64


# --- erf ------------------------------------------------------------------------------------------
#
# GELU needs Phi(-|x|) = erfc(z) / 2 with z = |x| / sqrt(2), and e^(-z^2) for its derivative. Both
# come from one exponential through the scaled function erfcx(z) = e^(z^2) erfc(z), which falls
# from 1 to 1 / (z sqrt(pi)) without a kink. In u = ERFCX_K / (ERFCX_K + z), in (0, 1], erfcx / u
# is so smooth that a polynomial of degree 9 gives it to 4e-9, of degree 20 to double precision.
# It is Chebyshev's, through values of the C library's erfc. Source of the idea: Shepherd &
# Laframboise 1981, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc(x) in 0 <= x < inf".

ERFCX_K = 3.0


def erfcx_polynomial(degree: int, z_max: float) -> list[float]:
    """Coefficients of a polynomial in 2u - 1, the highest first, that is erfcx / u for z <= z_max.

    z_max is where e^(-z^2) leaves the normal numbers. For larger z the exponential is 0, and the
    polynomial only has to be finite.
    """

    def ratio(u: Array) -> Array:
        z = ERFCX_K / u - ERFCX_K
        return np.array([math.exp(t * t) * math.erfc(t) for t in z]) / u

    fit = Chebyshev.interpolate(ratio, degree, domain=[ERFCX_K / (ERFCX_K + z_max), 1.0])
    in_powers = fit.convert(kind=Polynomial, domain=[0.0, 1.0])  # of 2u - 1, in [-1, 1]
    return [float(c) for c in in_powers.coef[::-1]]


ERFCX_32 = tuple(np.float32(c) for c in erfcx_polynomial(9, z_max=9.4))
ERFCX_64 = tuple(erfcx_polynomial(20, z_max=26.4))  # even degree: see _erfcx_64


def _erfcx_32(x: Real) -> Real:
    u = np.float32(ERFCX_K) / (np.float32(ERFCX_K) + x)
    ratio = np.float32(0)
    for coefficient in ERFCX_32:
        ratio = ratio * (u + u - np.float32(1)) + coefficient
    return ratio * u


def _erfcx_64(x: Real) -> Real:
    u = ERFCX_K / (ERFCX_K + x)
    t = u + u - 1.0
    even, odd = 0.0, 0.0  # p(t) = even(t^2) + t odd(t^2): two loops that are short enough to unroll
    for coefficient in ERFCX_64[0::2]:
        even = even * (t * t) + coefficient
    for coefficient in ERFCX_64[1::2]:
        odd = odd * (t * t) + coefficient
    return (even + t * odd) * u


@scalar
def erfcx(x: Real) -> Callable[[Real], Real]:
    """e^(x^2) erfc(x) for x >= 0, to 1e-13 in float64 and 4e-7 in float32, relative."""
    return _erfcx_32 if x == types.float32 else _erfcx_64


# --- The largest entry of a row -------------------------------------------------------------------
#
# A maximum of floats does not vectorise: LLVM would have to promise something about NaN. Integers
# have no NaN, and the bits of positive floats, read as integers, are ordered as the floats are. Of
# negative ones the order is reversed, until all bits but the sign's are flipped. Flipping twice
# gives the bits back. A positive NaN comes out largest; a negative one is met again by the exp.


def _order_32(x: Real) -> Real:
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))  # bits >> 31 is -1 if negative, else 0


def _order_64(x: Real) -> Real:
    bits = np.float64(x).view(np.int64)
    return np.int64(bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF))


def _unorder_32(x: Real) -> Real:
    return np.int32(x ^ ((x >> 31) & 0x7FFFFFFF)).view(np.float32)


def _unorder_64(x: Real) -> Real:
    return np.int64(x ^ ((x >> 63) & 0x7FFFFFFFFFFFFFFF)).view(np.float64)


@scalar
def order(x: Real) -> Callable[[Real], Real]:
    """A float's place among the floats: int32 of float32, int64 of float64."""
    return _order_32 if x == types.float32 else _order_64


@scalar
def unorder(x: Real) -> Callable[[Real], Real]:
    """The float at this place, the inverse of `order`."""
    return _unorder_32 if x == types.int32 else _unorder_64


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
def quick_gelu(x: Array, slope: Real, y: Array) -> None:
    """y = x sigmoid(slope x). x, y: (N,)."""
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        small = exp_of_negative(-abs(slope * x[i]))
        y[i] = x[i] * (one if x[i] >= 0 else small) / (one + small)


@entry_kernel
def quick_gelu_backward(dy: Array, x: Array, slope: Real, dx: Array) -> None:
    """dx = dy (s + slope x s (1 - s)), s = sigmoid(slope x). All (N,)."""
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        small = exp_of_negative(-abs(slope * x[i]))
        share = one / (one + small)
        s = share if x[i] >= 0 else small * share
        # s (1 - s) is the same on both sides of 0; this form of it has no cancellation
        dx[i] = dy[i] * (s + x[i] * (slope * small * share * share))


@entry_kernel
def gelu(x: Array, y: Array) -> None:
    """y = x Phi(x). x, y: (N,)."""
    real = x.dtype.type
    one, half, root_half = real(1), real(0.5), real(2**-0.5)
    for i in range(x.shape[0]):
        gauss = exp_of_negative(-half * x[i] * x[i])
        tail = half * gauss * erfcx(abs(x[i]) * root_half)  # Phi(-|x|)
        y[i] = x[i] * (tail if x[i] < 0 else one - tail)


@entry_kernel
def gelu_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy (Phi(x) + x Phi'(x)). All (N,)."""
    real = x.dtype.type
    one, half, root_half = real(1), real(0.5), real(2**-0.5)
    density_at_0 = real((2 * math.pi) ** -0.5)
    for i in range(x.shape[0]):
        gauss = exp_of_negative(-half * x[i] * x[i])
        tail = half * gauss * erfcx(abs(x[i]) * root_half)
        phi = tail if x[i] < 0 else one - tail
        dx[i] = dy[i] * (phi + x[i] * (density_at_0 * gauss))


@entry_kernel
def gelu_tanh(x: Array, y: Array) -> None:
    """y = x (1 + tanh u) / 2 = x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3). x, y: (N,)."""
    real = x.dtype.type
    one, scale, cube = real(1), real(2 * (2 / math.pi) ** 0.5), real(0.044715)
    for i in range(x.shape[0]):
        u2 = scale * (x[i] + cube * x[i] * x[i] * x[i])
        small = exp_of_negative(-abs(u2))
        y[i] = x[i] * (one if x[i] >= 0 else small) / (one + small)


@entry_kernel
def gelu_tanh_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy (s + x s (1 - s) 2 u'), s = sigmoid(2 u). All (N,)."""
    real = x.dtype.type
    one, scale, cube = real(1), real(2 * (2 / math.pi) ** 0.5), real(0.044715)
    for i in range(x.shape[0]):
        u2 = scale * (x[i] + cube * x[i] * x[i] * x[i])
        small = exp_of_negative(-abs(u2))
        share = one / (one + small)
        s = share if x[i] >= 0 else small * share
        slope = scale * (one + real(3) * cube * x[i] * x[i])
        dx[i] = dy[i] * (s + x[i] * slope * (small * share * share))


# --- Softmax and attention weights ----------------------------------------------------------------
#
# They work in place, under one name: a loop over two arrays that may overlap is checked for overlap
# each time it starts, and one that does overlap takes the slow road.


@row_kernel
def softmax_row(row: Array, scale: Real, mask: Array) -> None:
    """row = softmax(scale row + mask). Both (N,)."""
    real = row.dtype.type
    place = order(real(-np.inf))
    for j in range(row.shape[0]):
        masked = row[j] * scale + mask[j]
        place = max(place, order(masked))
        row[j] = masked
    largest = unorder(place)
    total = real(0)
    for j in range(row.shape[0]):
        row[j] = exp_of_negative(row[j] - largest)
        total += row[j]
    share = real(1) / total
    for j in range(row.shape[0]):
        row[j] *= share


@row_kernel
def softmax_row_backward(dy: Array, y: Array, scale: Real) -> None:
    """dy = scale y (dy - sum dy y), in place of dy. Both (N,)."""
    along_y = y.dtype.type(0)
    for j in range(y.shape[0]):
        along_y += dy[j] * y[j]
    for j in range(y.shape[0]):
        dy[j] = scale * y[j] * (dy[j] - along_y)


@row_kernel
def softmax(x: Array, mask: Array) -> None:
    """x = softmax(x + mask) over the last axis, in place. x: (R, N). mask: (N,), zeros for none."""
    for r in range(x.shape[0]):
        softmax_row(x[r], x.dtype.type(1), mask)


@row_kernel
def softmax_backward(dy: Array, y: Array) -> None:
    """dy = y (dy - sum dy y) over the last axis, in place of dy. Both (R, N)."""
    for r in range(y.shape[0]):
        softmax_row_backward(dy[r], y[r], y.dtype.type(1))


@row_kernel
def log_sum_exp(x: Array, lse: Array) -> None:
    """lse = ln sum e^x over the last axis. x: (R, N). lse: (R,)."""
    real = x.dtype.type
    for r in range(x.shape[0]):
        place = order(real(-np.inf))
        for j in range(x.shape[1]):
            place = max(place, order(x[r, j]))
        largest = unorder(place)
        total = real(0)
        for j in range(x.shape[1]):
            total += exp_of_negative(x[r, j] - largest)
        lse[r] = np.log(total) + largest


@row_kernel
def softmax_from(x: Array, lse: Array, y: Array) -> None:
    """y = e^(x - lse), at most 1 up to rounding. x, y: (R, N). lse: (R,)."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[r, j] = exp_of_negative(x[r, j] - lse[r])


# --- Normalisation --------------------------------------------------------------------------------


@row_kernel
def layer_norm(
    x: Array, weight: Array, bias: Array, eps: Real, y: Array, mean: Array, inv_std: Array
) -> None:
    """y = (x - mean) inv_std weight + bias. x, y: (R, D); weight, bias: (D,); the others (R,)."""
    real = x.dtype.type
    width = real(x.shape[1])
    for r in range(x.shape[0]):
        total = real(0)
        for j in range(x.shape[1]):
            total += x[r, j]
        m = total / width
        squares = real(0)
        for j in range(x.shape[1]):
            squares += (x[r, j] - m) * (x[r, j] - m)
        s = real(1) / np.sqrt(squares / width + eps)
        for j in range(x.shape[1]):
            y[r, j] = (x[r, j] - m) * s * weight[j] + bias[j]
        mean[r], inv_std[r] = m, s


@row_kernel
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


@row_kernel
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


@row_kernel
def l2_normalize_backward(dy: Array, y: Array, inv_norm: Array, dx: Array) -> None:
    """dx = inv_norm (dy - y sum dy y). dy, y, dx: (R, D). inv_norm: (R,)."""
    for r in range(y.shape[0]):
        along_y = y.dtype.type(0)
        for j in range(y.shape[1]):
            along_y += dy[r, j] * y[r, j]
        for j in range(y.shape[1]):
            dx[r, j] = inv_norm[r] * (dy[r, j] - y[r, j] * along_y)


# --- Sums -----------------------------------------------------------------------------------------


@row_kernel
def column_sums(x: Array, total: Array) -> None:
    """Adds every row to total, in float64. x: (R, D). total: (D,)."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            total[j] += x[r, j]


# --- Word embeddings ------------------------------------------------------------------------------


@row_kernel
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
