"""L-BFGS: the minimum of a convex function of many numbers, from its values and gradients.

Source: Nocedal and Wright 2006, Numerical Optimization, algorithms 7.4, 7.5 and 3.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from miniclip.ops.array import Array

Objective = Callable[[Array], tuple[float, Array]]  # x (P,) -> value, gradient (P,)


def minimise(
    function: Objective,
    start: Array,
    tolerance: float = 1e-6,
    steps: int = 1000,
    memory: int = 10,
) -> Array:
    """The minimum of a convex function by L-BFGS: Newton's method, its Hessian learned on the way.

    Ends when no number of the gradient is larger than `tolerance`, after `steps` steps, or when
    rounding hides all descent. memory: how many steps the Hessian is learned from.
    Source: Nocedal and Wright 2006, algorithms 7.4, 7.5 and 3.1.
    """
    x = start
    value, gradient = function(x)
    history: deque[tuple[Array, Array]] = deque(maxlen=memory)  # (step, change of the gradient)
    for _ in range(steps):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = -inverse_hessian_times(gradient, history)
        found = line_search(function, x, value, gradient, direction)
        if found is None:
            break
        new_x, value, new_gradient = found
        step, change = new_x - x, new_gradient - gradient
        if step @ change > 0:  # always so for a convex function, but for rounding
            history.append((step, change))
        x, gradient = new_x, new_gradient
    return x


def inverse_hessian_times(gradient: Array, history: Sequence[tuple[Array, Array]]) -> Array:
    """The two loops of L-BFGS, algorithm 7.4: newest step first, then back again."""
    q = gradient
    shares = []
    for step, change in reversed(history):
        share = (step @ q) / (step @ change)
        q = q - share * change
        shares.append(share)
    if history:
        step, change = history[-1]
        q = q * ((step @ change) / (change @ change))  # the curvature of the last step, everywhere
    for (step, change), share in zip(history, reversed(shares), strict=True):
        q = q + (share - (change @ q) / (step @ change)) * step
    return q


def line_search(
    function: Objective, x: Array, value: float, gradient: Array, direction: Array
) -> tuple[Array, float, Array] | None:
    """Halve the step until it descends by a part of what the slope promises (Armijo's condition).

    Returns the new x, value and gradient, or None if no step descends.
    """
    slope = float(gradient @ direction)
    rounding = 1e-14 * abs(value)  # at the bottom the gradient still falls, the value only trembles
    size = 1.0
    for _ in range(40):
        new_x = x + size * direction
        new_value, new_gradient = function(new_x)
        if new_value <= value + 1e-4 * size * slope + rounding:
            return new_x, new_value, new_gradient
        size /= 2
    return None
