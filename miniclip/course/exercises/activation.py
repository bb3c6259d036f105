"""Part 2: the backward passes of QuickGELU and softmax. Derivations: docs/ops/activation.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from miniclip.course.diagnosis import Output, Slip
from miniclip.course.exercise import Exercise, Forward
from miniclip.course.exercises.common import TermsOf, along, mean, normal, some, total
from miniclip.ops.activation import (
    QUICK_GELU_SLOPE,
    gelu,
    gelu_backward,
    gelu_tanh_backward,
    quick_gelu,
    quick_gelu_backward,
    sigmoid,
    softmax,
    softmax_backward,
)
from miniclip.ops.array import Array

A = QUICK_GELU_SLOPE


def right_quick_gelu_backward(dy: Array, x: Array) -> Array:
    return quick_gelu_backward(dy, x)


def gelu_terms(inner: float = A, outer: float = A) -> Callable[..., TermsOf]:
    """y = x s(inner x): its two terms, with another number before the second."""

    def terms(dy: Array, x: Array) -> TermsOf:
        s = sigmoid(inner * x)
        return {
            "the first term of the product rule, s(1.702 x),": dy * s,
            "the second term of the product rule, 1.702 x s (1 - s),": dy * outer * x * s * (1 - s),
        }

    return terms


Factor = Callable[[Array, Array], Array]  # of x and s(1.702 x)


def gelu_slip(second: Factor, first: Factor = lambda x, s: s) -> Callable[..., TermsOf]:
    """Another second term, or another first one too."""

    def terms(dy: Array, x: Array) -> TermsOf:
        s = sigmoid(A * x)
        return {"the first term": dy * first(x, s), "the second term": dy * second(x, s)}

    return terms


def gelu_total(x: Array) -> Array:
    """The slope itself."""
    return np.asarray(sum(gelu_terms()(np.ones_like(x), x).values()))


QUICK_GELU_BACKWARD = Exercise(
    "quick_gelu_backward",
    (
        Output(
            "dx",
            gelu_terms(),
            (
                Slip("without the inner slope, 1.702 before x s (1 - s)", gelu_terms(A, 1)),
                Slip("with 1.702 squared before x s (1 - s)", gelu_terms(A, A * A)),
                Slip("the slope of x s(x): 1.702 is missing inside the sigmoid", gelu_terms(1, 1)),
                Slip("with s(x) for s(1.702 x)", gelu_terms(1, A)),
                Slip("the slope of GELU, not of QuickGELU",
                     lambda dy, x: {"": gelu_backward(dy, x)}),
                Slip("the slope of the tanh form of GELU, not of QuickGELU",
                     lambda dy, x: {"": gelu_tanh_backward(dy, x)}),
                Slip("with s(-1.702 x) for s(1.702 x)", gelu_terms(-A, A)),
                Slip("with 1.702 before the whole", gelu_slip(
                    lambda x, s: A * x * s * (1 - s), lambda x, s: A * s)),
                Slip("the slope of the sigmoid alone: y is x times it", gelu_slip(
                    lambda x, s: A * s * (1 - s), lambda x, s: 0 * s)),
                Slip("with s(x) for s(1.702 x) in the first term", gelu_slip(
                    lambda x, s: A * x * s * (1 - s), lambda x, s: sigmoid(x))),
                Slip("with s(x) for s(1.702 x) in the second term", gelu_slip(
                    lambda x, s: A * x * sigmoid(x) * (1 - sigmoid(x)))),
                Slip("with 1.7 for 1.702", gelu_terms(1.7, 1.7)),
                Slip("with 2 * 1.702 inside the sigmoid", gelu_terms(2 * A, A)),
                Slip("dy divided by the slope, not multiplied", lambda dy, x: {
                    "": dy / gelu_total(x)}),
                Slip("the slope of ReLU", lambda dy, x: {"": dy * (x > 0)}),
                Slip("dy times the first term alone: brackets are missing", lambda dy, x: {
                    "": (dy - 1) * sigmoid(A * x) + gelu_total(x)}),
                Slip("with s for s (1 - s)", gelu_slip(lambda x, s: A * x * s)),
                Slip("with 1 - s for s (1 - s)", gelu_slip(lambda x, s: A * x * (1 - s))),
                Slip("with 1 - s^2 for s (1 - s)", gelu_slip(lambda x, s: A * x * (1 - s * s))),
                Slip("with s (1 + s) for s (1 - s)", gelu_slip(lambda x, s: A * x * s * (1 + s))),
                Slip("without x in the second term", gelu_slip(lambda x, s: A * s * (1 - s))),
                Slip("dy times y, not times the slope of y",
                     lambda dy, x: {"": dy * quick_gelu(x)[0]}),
                Slip("dy times GELU of x, not a slope", lambda dy, x: {"": dy * gelu(x)[0]}),
            ),
        ),
    ),
    right_quick_gelu_backward,
    lambda rng: [{"x": 2 * normal(rng, *shape)} for shape in ((12,), (3, 5), (2, 3, 4))],
    Forward(
        lambda x: quick_gelu(x)[0],
        ("x",),
        lambda dy, values: {"dy": dy, "x": values["x"]},
    ),
    refused=("quick_gelu_backward",),
)  # fmt: skip


# ------------------------------------------------------------------------ softmax


def right_softmax_backward(dy: Array, y: Array) -> Array:
    return softmax_backward(dy, y)


def softmax_terms(inner: Callable[[Array, Array], Any]) -> Callable[..., TermsOf]:
    """y (dy - inner): the two terms, for whatever is subtracted."""

    def terms(dy: Array, y: Array) -> TermsOf:
        return {
            "the direct path (y dy)": y * dy,
            "the path through the sum (- y sum(dy y))": -y * inner(dy, y),
        }

    return terms


SOFTMAX_BACKWARD = Exercise(
    "softmax_backward",
    (
        Output(
            "dx",
            softmax_terms(lambda dy, y: total(dy * y)),
            (
                Slip("with sum(dy) for sum(dy y)", softmax_terms(lambda dy, y: total(dy))),
                Slip("with mean(dy) for sum(dy y)", softmax_terms(lambda dy, y: mean(dy))),
                Slip("with sum(y) for sum(dy y)", softmax_terms(lambda dy, y: total(y))),
                Slip("with max(dy) for sum(dy y)", softmax_terms(lambda dy, y: along(np.max)(dy))),
                Slip(
                    "y (1 - y) alone: dy is not used, and the other entries are not",
                    lambda dy, y: {"": y * (1 - y)},
                ),
                Slip("the backward pass of log-softmax", lambda dy, y: {"": dy - y * total(dy)}),
                Slip(
                    "with y multiplied twice",
                    lambda dy, y: {"": y * y * (dy - total(dy * y))},
                ),
                Slip(
                    "with y sum(dy) for sum(dy y)",
                    softmax_terms(lambda dy, y: y * total(dy)),
                ),
                Slip(
                    "with sum(dy y) over the whole array, not over each row",
                    softmax_terms(lambda dy, y: (dy * y).sum()),
                ),
                Slip(
                    "with sum(dy y) over the first axis, not over the last",
                    softmax_terms(lambda dy, y: along(np.sum, 0)(dy * y)),
                ),
                Slip(
                    "the diagonal of the matrix alone, dy y (1 - y)",
                    softmax_terms(lambda dy, y: dy * y),
                ),
                Slip(
                    "dy - sum(dy y), not multiplied by y",
                    lambda dy, y: {"dy": dy, "- sum(dy y)": -total(dy * y) + 0 * dy},
                ),
                Slip(
                    "y dy - sum(y dy): the sum is not multiplied by y",
                    lambda dy, y: {"y dy": dy * y, "- sum(dy y)": -total(dy * y) + 0 * dy},
                ),
            ),
        ),
    ),
    right_softmax_backward,
    lambda rng: [
        {"x": 2 * normal(rng, *shape, n)}
        for n in some(rng, 5, 8, 1)
        for shape in ((4,), (2, 3), (2, 2, 4))
    ],
    Forward(
        lambda x: softmax(x)[0],
        ("x",),
        lambda dy, values: {"dy": dy, "y": softmax(values["x"])[0]},
    ),
    refused=("softmax_backward",),
)
