"""Part 2: a gradient by central differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from miniclip.course.diagnosis import Output, Slip
from miniclip.course.exercise import Exercise, Values
from miniclip.course.exercises.common import TermsOf, normal
from miniclip.ops.array import Array


def right_measured_gradient(loss: Callable[[Array], float], x: Array, step: float) -> Array:
    """Central differences, one entry after the other."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        gradient[place] = shifted(loss, x, place, step) - shifted(loss, x, place, -step)
    return gradient / (2 * step)


def shifted(loss: Callable[[Array], float], x: Array, place: tuple[int, ...], step: float) -> float:
    moved = x.copy()
    moved[place] += step
    return loss(moved)


def difference_terms(ahead: float, behind: float, over: float) -> Callable[..., TermsOf]:
    """(loss(x + ahead step) - loss(x + behind step)) / (over step), for each entry."""

    def terms(loss: Callable[[Array], float], x: Array, step: float) -> TermsOf:
        places = list(np.ndindex(x.shape))
        change = [
            shifted(loss, x, p, ahead * step) - shifted(loss, x, p, behind * step) for p in places
        ]
        return {"": np.array(change).reshape(x.shape) / (over * step if over else 1)}

    return terms


def draw_losses(rng: np.random.Generator) -> list[Values]:
    """Losses with a second and a third derivative, in arrays of other shapes."""
    cases: list[Values] = []
    for shape in ((5,), (3, 4), (2, 3, 2)):
        a, b = normal(rng, *shape), normal(rng, *shape)

        def loss(x: Array, a: Array = a, b: Array = b) -> float:
            return float((a * x + b * x**2 + 0.5 * x**3).sum() + (a * x).sum() ** 2)

        cases.append({"loss": loss, "x": normal(rng, *shape), "step": 1e-4})
    return cases


MEASURED_GRADIENT = Exercise(
    "measured_gradient",
    (
        Output(
            "gradient",
            difference_terms(1, -1, 2),
            (
                Slip("one-sided, loss(x + step) - loss(x): its error shrinks with step, not with "
                     "its square", difference_terms(1, 0, 1)),
                Slip("one-sided, loss(x) - loss(x - step): its error shrinks with step, not with "
                     "its square", difference_terms(0, -1, 1)),
                Slip("divided by step: between the two points lie 2 step",
                     difference_terms(1, -1, 1)),
                Slip("a difference that is not divided by 2 step", difference_terms(1, -1, 0)),
                Slip("divided by 2 and multiplied by step: brackets around 2 * step are missing",
                     lambda loss, x, step: {
                         "": difference_terms(1, -1, 2)(loss, x, step)[""] * step**2}),
                Slip("loss(x - step) - loss(x + step): the sign is wrong",
                     difference_terms(-1, 1, 2)),
                Slip("one-sided and divided by 2 step", difference_terms(1, 0, 2)),
                Slip("one slope, along all entries together", lambda loss, x, step: {
                    "": np.full(x.shape, (loss(x + step) - loss(x - step)) / (2 * step))}),
            ),
        ),
    ),
    right_measured_gradient,
    draw_losses,
    float32=False,
    tolerance=1e-6,
)  # fmt: skip
