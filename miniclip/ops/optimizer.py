"""Optimiser steps: functions without a backward. Derivation: docs/ops/optimizer.md."""

from __future__ import annotations

import numpy as np

from miniclip.ops.array import Array, check_floats


def adamw(
    x: Array,
    grad: Array,
    mean: Array,
    square: Array,
    step: int,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """One step of AdamW: along the gradient's running mean, measured by its running size.

    x: the parameter. grad: its gradient. mean, square: what this function returned last, zeros at
    first. All of one shape, float32 or float64. step: 1 for the first. rate: the learning rate.
    weight_decay: the share of x, times rate, that is taken away: decoupled from the gradient.
    Returns the new x, mean and square; the inputs are not written to.
    Source: Loshchilov & Hutter 2017 (arXiv 1711.05101), algorithm 2; `torch.optim.AdamW`.
    """
    check_floats("adamw", x=x, grad=grad, mean=mean, square=square)
    b1, b2 = betas
    mean = b1 * mean + (1 - b1) * grad
    square = b2 * square + (1 - b2) * grad * grad
    # both began at zero: of a constant gradient g they hold (1 - b^step) g after `step` steps
    unbiased_mean = mean / (1 - b1**step)
    unbiased_square = square / (1 - b2**step)
    x = x * (1 - rate * weight_decay) - rate * unbiased_mean / (np.sqrt(unbiased_square) + eps)
    return x, mean, square
