"""Functions of one number, written so that the loops around them become SIMD instructions.

LLVM turns a loop into SIMD instructions only if it sees through every call in it, and a call of the
C library's exp is opaque. So exp and erf are written here in arithmetic, maxima are taken of
integers, and the activations are built from them.

Each function is chosen by the type of its argument: constants carry the arrays' dtype, because a
Python float is a float64 to Numba and would pull float32 loops up to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba import types
from numpy.polynomial import Chebyshev, Polynomial

from miniclip.cpu.jit import scalar
from miniclip.ops.activation import QUICK_GELU_SLOPE
from miniclip.ops.array import Array

Real: TypeAlias = Any  # a scalar in the dtype of the arrays around it


def real_of(x: Any) -> type[np.floating[Any]]:
    """The NumPy type of constants for an argument of this Numba type."""
    return np.float32 if x == types.float32 else np.float64


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


# --- Activations ----------------------------------------------------------------------------------
#
# Each with its slope, which its backward multiplies the gradient with.


@scalar
def quick_gelu_of(x: Real) -> Callable[[Real], Real]:
    """x sigmoid(1.702 x)."""
    one, slope = real_of(x)(1), real_of(x)(QUICK_GELU_SLOPE)

    def compute(x: Real) -> Real:
        small = exp_of_negative(-abs(slope * x))
        return x * (one if x >= 0 else small) / (one + small)

    return compute


@scalar
def quick_gelu_slope(x: Real) -> Callable[[Real], Real]:
    """s + 1.702 x s (1 - s), s = sigmoid(1.702 x)."""
    one, slope = real_of(x)(1), real_of(x)(QUICK_GELU_SLOPE)

    def compute(x: Real) -> Real:
        small = exp_of_negative(-abs(slope * x))
        share = one / (one + small)
        s = share if x >= 0 else small * share
        # s (1 - s) is the same on both sides of 0; this form of it has no cancellation
        return s + x * (slope * small * share * share)

    return compute


@scalar
def gelu_of(x: Real) -> Callable[[Real], Real]:
    """x Phi(x)."""
    one, half, root_half = real_of(x)(1), real_of(x)(0.5), real_of(x)(0.5**0.5)

    def compute(x: Real) -> Real:
        tail = half * exp_of_negative(-half * x * x) * erfcx(abs(x) * root_half)  # Phi(-|x|)
        return x * (tail if x < 0 else one - tail)

    return compute


@scalar
def gelu_slope(x: Real) -> Callable[[Real], Real]:
    """Phi(x) + x Phi'(x)."""
    one, half, root_half = real_of(x)(1), real_of(x)(0.5), real_of(x)(0.5**0.5)
    density_at_0 = real_of(x)((2 * math.pi) ** -0.5)

    def compute(x: Real) -> Real:
        gauss = exp_of_negative(-half * x * x)
        tail = half * gauss * erfcx(abs(x) * root_half)
        phi = tail if x < 0 else one - tail
        return phi + x * (density_at_0 * gauss)

    return compute


@scalar
def gelu_tanh_of(x: Real) -> Callable[[Real], Real]:
    """x (1 + tanh u) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    one, scale, cube = real_of(x)(1), real_of(x)(2 * (2 / math.pi) ** 0.5), real_of(x)(0.044715)

    def compute(x: Real) -> Real:
        u2 = scale * (x + cube * x * x * x)
        small = exp_of_negative(-abs(u2))
        return x * (one if x >= 0 else small) / (one + small)

    return compute


@scalar
def gelu_tanh_slope(x: Real) -> Callable[[Real], Real]:
    """s + x s (1 - s) 2 u', s = sigmoid(2 u)."""
    one, three = real_of(x)(1), real_of(x)(3)
    scale, cube = real_of(x)(2 * (2 / math.pi) ** 0.5), real_of(x)(0.044715)

    def compute(x: Real) -> Real:
        u2 = scale * (x + cube * x * x * x)
        small = exp_of_negative(-abs(u2))
        share = one / (one + small)
        s = share if x >= 0 else small * share
        slope = scale * (one + three * cube * x * x)
        return s + x * slope * (small * share * share)

    return compute
