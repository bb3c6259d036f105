"""How fast a number changes along a direction, measured by differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from miniclip.ops.array import Array

STEP = 1e-4  # of the scale of what is moved: the error of two central differences is step^4
# Where two steps disagree, or rounding is too large, others are tried: shorter ones pass by a kink,
# longer ones show what changes the loss little, and steps in proportion to 1 help where an input's
# own scale says nothing (a bias of 1e-10).
FACTORS = (1.0, 1 / 16, 16.0, 1 / 256, 256.0, 1 / 4096)
ROUNDING = 32 * float(np.finfo(np.float64).eps)  # of one loss, relative to the sum of its terms


@dataclass(frozen=True)
class Slope:
    """A measured slope. doubt: by how much two steps disagree. noise: what rounding may add."""

    value: float
    doubt: float
    noise: float


@dataclass(frozen=True)
class Point:
    """Named arrays, and a loss that can be asked for with some of them replaced.

    size: the sum of the absolute terms of the loss at this point, to which its rounding compares.
    incoming: the incoming gradient, where the only output is one number.
    """

    values: Mapping[str, Array]
    loss: Callable[[Mapping[str, Array]], float]
    size: float
    incoming: float | None = None

    def slope(self, name: str, direction: Array, accept: Callable[[Slope], bool]) -> Slope:
        """The slope of the loss as one array moves along a direction.

        Steps are tried until one is accepted; if none is, the most certain one counts.
        """
        x = self.values[name]
        best = Slope(float("nan"), float("inf"), float("inf"))
        for h in steps(x):
            slope = self.difference(name, direction, h)
            if accept(slope):
                return slope
            if slope.doubt + slope.noise < best.doubt + best.noise:
                best = slope
        return best

    def difference(self, name: str, direction: Array, h: float) -> Slope:
        """By two central differences: what is of second order in the step cancels between them."""
        loss = partial(self.moved, name, direction)
        fine = (loss(h) - loss(-h)) / (2 * h)
        coarse = (loss(2 * h) - loss(-2 * h)) / (4 * h)
        return Slope((4 * fine - coarse) / 3, abs(fine - coarse), ROUNDING * self.size / h)

    def is_kink(self, name: str, direction: Array) -> bool:
        """Whether the slope ahead is another than the slope behind, by a thousandth at least."""
        loss, h = partial(self.moved, name, direction), min(steps(self.values[name]))
        ahead, behind = (loss(h) - loss(0)) / h, (loss(0) - loss(-h)) / h
        least = 1e-3 * max(abs(ahead), abs(behind)) + 4 * ROUNDING * self.size / h
        return abs(ahead - behind) > least

    def moved(self, name: str, direction: Array, step: float) -> float:
        return self.loss({name: np.asarray(self.values[name] + step * direction)})


def steps(x: Array) -> Iterator[float]:
    """Steps to try, in order: in proportion to the array's own spread first."""
    spread = float(np.std(x)) if x.size > 1 else 0.0
    own = spread or 1.0  # a single number, or equal ones, say nothing about a scale
    for factor in FACTORS:
        yield STEP * own * factor
        if own != 1.0:
            yield STEP * factor
