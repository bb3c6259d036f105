"""Activations, softmax and the error function. Derivations: docs/ops/activation.md."""

from __future__ import annotations

import math

import numpy as np

from miniclip.ops.array import Array, Cache, check_floats

QUICK_GELU_SLOPE = 1.702
ERF_PERIOD = 12.0  # erf is 1 to within 1e-16 from x = 6 on, half of this period
ERF_TERMS = 23  # the next Fourier coefficient is exp(-(24 pi / 12)^2) = 7e-18


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow: exp is only taken of numbers <= 0. Shape and dtype of x."""
    small = np.exp(-np.abs(x))  # in (0, 1]
    positive = x >= 0
    return (positive + small * ~positive) / (1.0 + small)  # 1/(1+e^-x), or e^x/(1+e^x)


def erf(x: Array) -> Array:
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    Shape and dtype of x; absolute error below 1e-14 in float64. NumPy has no erf, so this one is
    arithmetic: the Gaussian repeated every P = 12 units has the Fourier series
    sqrt(pi)/P sum_n exp(-(pi n / P)^2) cos(2 pi n t / P), whose integral from 0 to x is
    erf(x) for |x| <= 6, as the neighbouring copies are too far away to matter:

        erf(x) = 2x/P + 2/pi sum_{n>=1} exp(-(pi n / P)^2) / n sin(2 pi n x / P).

    The sum is Clenshaw's, by sin((n+1)a) = 2 cos(a) sin(n a) - sin((n-1)a). Backends override it.
    """
    x = np.clip(x, -ERF_PERIOD / 2, ERF_PERIOD / 2)
    angle = x * (2 * math.pi / ERF_PERIOD)
    two_cos = 2.0 * np.cos(angle)
    ahead, later = 0.0 * x, 0.0 * x
    for n in range(ERF_TERMS, 0, -1):
        coefficient = 2 / math.pi * math.exp(-((math.pi * n / ERF_PERIOD) ** 2)) / n
        ahead, later = coefficient + two_cos * ahead - later, ahead
    return x * (2 / ERF_PERIOD) + ahead * np.sin(angle)


def relu(x: Array) -> tuple[Array, Cache]:
    """y = max(x, 0). Any shape; float32 or float64. Returns y and the cache."""
    check_floats("relu", x=x)
    return np.maximum(x, 0.0), x


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy; at the kink, x = 0, the gradient is 0 as in PyTorch."""
    x = cache
    # y = max(x, 0): its slope is 1 where x > 0, else 0
    return dy * (x > 0)


def quick_gelu(x: Array) -> tuple[Array, Cache]:
    """y = x sigmoid(1.702 x), the activation of OpenAI's CLIP. It is not GELU: they differ by 0.02.

    Any shape; float32 or float64. Returns y and the cache.
    Source: `QuickGELU` in the original model.py; Hendrycks & Gimpel 2016 (arXiv 1606.08415).
    """
    check_floats("quick_gelu", x=x)
    return x * sigmoid(QUICK_GELU_SLOPE * x), x


def quick_gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    x = cache
    # y = x s(a x), and s' = s (1 - s)
    s = sigmoid(QUICK_GELU_SLOPE * x)
    return dy * (s + x * (QUICK_GELU_SLOPE * s * (1.0 - s)))


def gelu(x: Array) -> tuple[Array, Cache]:
    """y = x Phi(x), Phi the normal distribution function: GELU in its exact form, by erf.

    Any shape; float32 or float64. Returns y and the cache.
    Source: Hendrycks & Gimpel 2016 (arXiv 1606.08415); `torch.nn.GELU()`.
    """
    check_floats("gelu", x=x)
    return x * (0.5 + 0.5 * erf(x * 2**-0.5)), x


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    x = cache
    # y = x Phi(x), and Phi' is the normal density
    phi = 0.5 + 0.5 * erf(x * 2**-0.5)
    density = np.exp(-0.5 * x * x) * (2 * math.pi) ** -0.5
    return dy * (phi + x * density)


def gelu_tanh(x: Array) -> tuple[Array, Cache]:
    """y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the approximation of GELU by tanh.

    Any shape; float32 or float64. Returns y and the cache.
    Source: Hendrycks & Gimpel 2016; `torch.nn.GELU(approximate="tanh")`.
    """
    check_floats("gelu_tanh", x=x)
    inner = (2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1.0 + np.tanh(inner)), x


def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    x = cache
    # y = x/2 (1 + t), t = tanh(inner), t' = (1 - t^2) inner'
    t = np.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x))
    dinner = (2 / math.pi) ** 0.5 * (1.0 + 3 * 0.044715 * x * x)
    return dy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * dinner)


def softmax(x: Array) -> tuple[Array, Cache]:
    """y = e^x / sum e^x over the last axis; the row's maximum is subtracted first.

    x: (..., N); -inf is allowed (it gives 0), but not a whole row of it.
    Returns y (..., N) and the cache. float32 or float64.
    """
    check_floats("softmax", x=x)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))  # every exponent <= 0
    y = powers / powers.sum(axis=-1, keepdims=True)
    return y, y


def softmax_backward(dy: Array, cache: Cache) -> Array:
    """dy: (..., N). Returns dx (..., N)."""
    y = cache
    # dy_i/dx_j = y_i (1[i = j] - y_j)
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
