"""Part 2: the backward pass of LayerNorm. Derivation: docs/ops/norm.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from miniclip.course.diagnosis import Output, Slip
from miniclip.course.exercise import Exercise, Forward
from miniclip.course.exercises.common import How, TermsOf, along, mean, normal, rows, some
from miniclip.ops.array import Array, sum_to_last
from miniclip.ops.norm import layer_norm, layer_norm_backward


def right_layer_norm_backward(dy: Array, x: Array, weight: Array, eps: float) -> tuple[Any, ...]:
    cache = layer_norm(x, weight, np.zeros_like(weight), eps)[1]
    return layer_norm_backward(dy, cache)


Statistics = Callable[[Array, float], tuple[Array, Array]]  # (x, eps) -> x_hat, 1 / std


def normalised(x: Array, eps: float) -> tuple[Array, Array]:
    """x_hat and 1 / std."""
    inv_std = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return centred(x) * inv_std, inv_std


def centred(x: Array) -> Array:
    return np.asarray(x - mean(x))


def averaged(mean_of: How, variance_of: How, own: bool = True) -> Statistics:
    """Mean and variance over other axes. own: the variance is about the mean over its own axes,
    not the mean square of what the mean was subtracted from.
    """

    def statistics(x: Array, eps: float) -> tuple[Array, Array]:
        difference = x - mean_of(x)
        about = x - variance_of(x) if own else difference
        inv_std = 1 / np.sqrt(variance_of(about * about) + eps)
        return difference * inv_std, inv_std + 0 * mean(x)

    return statistics


def scaled(scale: Callable[[Array, float], Array]) -> Statistics:
    """Something else than 1 / std, a function of the variance and eps."""

    def statistics(x: Array, eps: float) -> tuple[Array, Array]:
        factor = scale(x.var(axis=-1, keepdims=True), eps)
        return centred(x) * factor, factor

    return statistics


PLACES = {
    "each row": mean,
    "the whole array": along(np.mean, None),
    "the first axis": along(np.mean, 0),
    "the last axis but one": along(np.mean, -2),
}


def elsewhere() -> Iterator[tuple[str, Statistics]]:
    """Mean and variance over other axes, together or one of them."""
    (_, row), *others = PLACES.items()
    for place, how in others:
        yield f"with mean and variance over {place}, not over each row", averaged(how, how)
        for own in (True, False):
            yield f"with the mean over {place}, not over each row", averaged(how, row, own)
            yield f"with the variance over {place}, not over each row", averaged(row, how, own)


def unbiased(x: Array, eps: float) -> tuple[Array, Array]:
    inv_std = 1 / np.sqrt(x.var(axis=-1, keepdims=True, ddof=1) + eps)
    return centred(x) * inv_std, inv_std


def added(x: Array, eps: float) -> tuple[Array, Array]:
    """x + mean in the place of x - mean, in the variance too."""
    wrong = x + mean(x)
    inv_std = 1 / np.sqrt(mean(wrong * wrong) + eps)
    return wrong * inv_std, inv_std


STATISTICS: tuple[tuple[str, Statistics], ...] = (
    ("without eps", scaled(lambda var, eps: var**-0.5)),
    ("with eps subtracted", scaled(lambda var, eps: np.abs(var - eps) ** -0.5)),
    ("with eps added to the deviation, not to the variance",
     scaled(lambda var, eps: 1 / (var**0.5 + eps))),
    ("with the variance in the place of the standard deviation",
     scaled(lambda var, eps: 1 / (var + eps))),
    ("multiplied by the standard deviation, not divided",
     scaled(lambda var, eps: (var + eps) ** 0.5)),
    ("with the variance divided by D - 1", unbiased),
    *elsewhere(),
    ("with the mean added, not subtracted",
     lambda x, eps: ((x + mean(x)) * normalised(x, eps)[1], normalised(x, eps)[1])),
    ("with the mean added, not subtracted", added),
    ("with x for x_hat", lambda x, eps: (x, normalised(x, eps)[1])),
    ("with x - mean for x_hat", lambda x, eps: (centred(x), normalised(x, eps)[1])),
    ("with x / std for x_hat: the mean is not subtracted",
     lambda x, eps: (x * normalised(x, eps)[1], normalised(x, eps)[1])),
)  # fmt: skip


def norm_terms(
    statistics: Callable[[Array, float], tuple[Array, Array]] = normalised,
    average: Callable[[Array], Array] = mean,
    of_product: Callable[[Array], Array] | None = None,
    weighted: bool = True,
    power: float = 1,
    after: bool = False,
    twice: bool = False,
    projected: bool = True,
) -> Callable[..., TermsOf]:
    """The three paths of dx, or what a slip makes of them.

    of_product: the mean of dx_hat x_hat; None: as of dx_hat. weighted: dx_hat is dy * weight.
    power: of 1 / std before the whole. after: weight stands before the whole instead; twice: there
    too. projected: the last mean is multiplied by x_hat.
    """

    def terms(dy: Array, x: Array, weight: Array, eps: float) -> TermsOf:
        x_hat, inv_std = statistics(x, eps)
        dx_hat = dy * weight if weighted and not after else dy
        scale = inv_std**power * (weight if after or twice else 1)
        return {
            "the direct path (dx_hat)": scale * dx_hat,
            "the path through the mean (- mean(dx_hat))": -scale * average(dx_hat) + 0 * dx_hat,
            "the path through the variance (- x_hat mean(dx_hat x_hat))": -scale
            * (x_hat if projected else 1)
            * (of_product or average)(dx_hat * x_hat),
        }

    return terms


def in_means(one: bool, product: bool) -> Callable[..., TermsOf]:
    """The terms with dy for dx_hat in one of the means, or in both."""

    def terms(dy: Array, x: Array, weight: Array, eps: float) -> TermsOf:
        x_hat, inv_std = normalised(x, eps)
        dx_hat = dy * weight
        return {
            "dx_hat": inv_std * dx_hat,
            "- mean(dx_hat)": -inv_std * mean(dy if one else dx_hat) + 0 * dy,
            "- x_hat mean(dx_hat x_hat)": -inv_std
            * x_hat
            * mean((dy if product else dx_hat) * x_hat),
        }

    return terms


def sum_of(what: Callable[..., Array]) -> Callable[..., TermsOf]:
    """dweight with something else in the place of x_hat."""
    return lambda dy, x, weight, eps: {"": sum_to_last(dy * what(x, weight, eps))}


ELSEWHERE = {
    "the whole array, not over each row": along(np.mean, None),
    "the first axis, not over the last": along(np.mean, 0),
}
DX_SLIPS = (
    Slip("without weight: dx_hat is dy * weight", norm_terms(weighted=False)),
    Slip("with weight multiplied last: it belongs into the means", norm_terms(after=True)),
    *(Slip(words, norm_terms(statistics)) for words, statistics in STATISTICS),
    *(Slip(f"with mean(dx_hat) taken over {where}", norm_terms(average=how, of_product=mean))
      for where, how in ELSEWHERE.items()),
    *(Slip(f"with mean(dx_hat x_hat) taken over {where}", norm_terms(of_product=how))
      for where, how in ELSEWHERE.items()),
    *(Slip(f"with both means taken over {where}", norm_terms(average=how))
      for where, how in ELSEWHERE.items()),
    Slip("with dy for dx_hat in both means: weight belongs into them", in_means(True, True)),
    Slip("with dy for dx_hat in mean(dx_hat): weight belongs into it", in_means(True, False)),
    Slip("with dy for dx_hat in mean(dx_hat x_hat): weight belongs into it", in_means(False, True)),
    Slip("with weight multiplied twice", norm_terms(weighted=True, twice=True)),
    Slip("without x_hat before mean(dx_hat x_hat)", norm_terms(projected=False)),
    Slip("not divided by the standard deviation", norm_terms(power=0)),
    Slip("divided by the variance, not by the standard deviation", norm_terms(power=2)),
    Slip("multiplied by the standard deviation, not divided", norm_terms(power=-1)),
    Slip("with dy / weight for dy * weight", lambda dy, x, weight, eps: norm_terms()(
        dy / weight**2, x, weight, eps)),
)  # fmt: skip

LAYER_NORM_BACKWARD = Exercise(
    "layer_norm_backward",
    (
        Output("dx", norm_terms(), DX_SLIPS),
        Output(
            "dweight",
            sum_of(lambda x, weight, eps: normalised(x, eps)[0]),
            (
                *(
                    Slip(words, sum_of(lambda x, weight, eps, of=statistics: of(x, eps)[0]))
                    for words, statistics in STATISTICS
                ),
                Slip(
                    "with x_hat * weight for x_hat",
                    sum_of(lambda x, weight, eps: normalised(x, eps)[0] * weight),
                ),
            ),
        ),
        Output(
            "dbias",
            lambda dy, x, weight, eps: {"the sum of dy over all rows": sum_to_last(dy)},
            (
                Slip("with weight: bias is added after it", sum_of(lambda x, weight, eps: weight)),
                Slip("the first row of dy", lambda dy, x, weight, eps: {"": rows(dy)[0]}),
            ),
        ),
    ),
    right_layer_norm_backward,
    lambda rng: [
        {"x": 3 + 2 * normal(rng, *shape, d), "weight": 1 + 0.5 * normal(rng, d),
         "bias": normal(rng, d), "eps": eps}
        for d in some(rng, 6, 9, 1)
        for shape, eps in (((4,), 1e-2), ((2, 3), 0.1), ((2, 2, 5), 1e-5))
    ],
    Forward(
        lambda x, weight, bias, eps: layer_norm(x, weight, bias, eps)[0],
        ("x", "weight", "bias"),
        lambda dy, v: {"dy": dy, "x": v["x"], "weight": v["weight"], "eps": v["eps"]},
    ),
    refused=("layer_norm_backward",),
)  # fmt: skip
