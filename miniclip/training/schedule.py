"""The learning rate over a run: warm-up, then half a cosine down to zero."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """The rate of step `step` (0 for the first) of `steps`.

    It climbs in a straight line for `warm_up` steps (Adam's running sizes are unreliable at
    first) and then falls along half a cosine, to zero after the last step.
    Source: CLIP section 2.5; Loshchilov & Hutter 2016 (arXiv 1608.03983).
    """
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
