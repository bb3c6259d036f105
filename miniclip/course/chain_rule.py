"""The exercises of part 2, the chain rule on arrays. Terms have the names of docs/ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from miniclip.course.diagnosis import Output, Slip
from miniclip.course.exercise import Exercise, Forward, Values
from miniclip.ops.activation import (
    QUICK_GELU_SLOPE,
    gelu,
    gelu_backward,
    quick_gelu,
    quick_gelu_backward,
    sigmoid,
    softmax,
    softmax_backward,
)
from miniclip.ops.array import Array, sum_to_last
from miniclip.ops.linear import linear, linear_backward
from miniclip.ops.norm import layer_norm, layer_norm_backward

TermsOf = dict[str, Array]


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return np.asarray(rng.standard_normal(shape))


def some(rng: np.random.Generator, low: int, high: int, count: int) -> list[int]:
    """Sizes of axes, all different, so that no two axes can be exchanged unseen."""
    return [int(n) for n in low + rng.permutation(high - low + 1)[:count]]


# ------------------------------------------------------------------------ sum_to_shape


def right_sum_to_shape(dy: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes that broadcasting added or stretched."""
    added = tuple(range(dy.ndim - len(shape)))
    stretched = tuple(
        len(added) + i for i, n in enumerate(shape) if n == 1 and dy.shape[len(added) + i] > 1
    )
    return np.asarray(dy.sum(axis=(*added, *stretched)).reshape(shape))


def draw_sum_to_shape(rng: np.random.Generator) -> list[Values]:
    a, b, c = some(rng, 2, 6, 3)
    shapes = [(c,), (b, 1), (1, c), (a, 1, c), (), (a, b, c), (1, 1, 1)]
    return [{"x": normal(rng, *shape), "to": (a, b, c)} for shape in shapes]


How = Callable[..., Array]


def reduced(added: How, stretched: How) -> Callable[..., TermsOf]:
    """The terms of a slip that does something else than to sum over the added or stretched axes."""

    def terms(dy: Array, shape: tuple[int, ...]) -> TermsOf:
        lead, x = dy.ndim - len(shape), dy
        for axis in range(dy.ndim):
            if axis < lead:
                x = added(x, axis=axis, keepdims=True)
            elif shape[axis - lead] == 1 and dy.shape[axis] > 1:
                x = stretched(x, axis=axis, keepdims=True)
        return {"": x.reshape(shape)}

    return terms


def first(x: Array, axis: int, keepdims: bool) -> Array:
    return x.take([0], axis=axis)


def last(x: Array, axis: int, keepdims: bool) -> Array:
    return x.take([-1], axis=axis)


OTHERS = {"mean": np.mean, "largest": np.max, "first entry": first, "last entry": last}
SUM_SLIPS = tuple(
    Slip(f"the {name} along the axes that were {where}, not the sum", reduced(added, stretched))
    for name, how in OTHERS.items()
    for where, added, stretched in (
        ("added", how, np.sum),
        ("stretched", np.sum, how),
        ("broadcast", how, how),
    )
)
SUM_TO_SHAPE = Exercise(
    "sum_to_shape",
    (
        Output(
            "dx",
            lambda dy, shape: {"the sum over the broadcast axes": right_sum_to_shape(dy, shape)},
            SUM_SLIPS,
        ),
    ),
    right_sum_to_shape,
    draw_sum_to_shape,
    Forward(
        lambda x, to: np.array(np.broadcast_to(x, to)),
        ("x",),
        lambda dy, values: {"dy": dy, "shape": values["x"].shape},
    ),
    refused=("sum_to_last",),
)

# ------------------------------------------------------------------------ linear_backward


def right_linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Any, ...]:
    cache = linear(x, weight, np.zeros(len(weight), x.dtype))[1]
    return linear_backward(dy, cache)


def draw_linear(rng: np.random.Generator) -> list[Values]:
    n_in, n_out, a, b = some(rng, 3, 8, 4)
    return [
        {"x": normal(rng, *lead, n_in), "weight": normal(rng, n_out, n_in),
         "bias": normal(rng, n_out)}
        for lead in ((a,), (a, b), (1, a), (2, a, b))
    ]  # fmt: skip


def rows(x: Array) -> Array:
    """(..., D) -> (R, D)."""
    return x.reshape(-1, x.shape[-1])


def dweight_of(change: Callable[[Array], Array]) -> Callable[..., TermsOf]:
    """dweight of a part of the rows."""
    return lambda dy, x, weight: {
        "the sum over all rows": rows(change(dy)).T @ rows(change(x))  # (out, in)
    }


LINEAR_BACKWARD = Exercise(
    "linear_backward",
    (
        Output(
            "dx",
            lambda dy, x, weight: {"dy weight": dy @ weight},
            (
                Slip(
                    "dy times the numbers of weight, reshaped where its transpose was meant",
                    lambda dy, x, weight: {"": dy @ weight.T.reshape(weight.shape)},
                ),
                Slip("weight times weight", lambda dy, x, weight: {"": x @ weight.T @ weight}),
            ),
        ),
        Output(
            "dweight",
            lambda dy, x, weight: {"the sum over all rows": rows(dy).T @ rows(x)},
            (
                Slip("the first image's part alone", dweight_of(lambda a: a[:1])),
                Slip("the last image's part alone", dweight_of(lambda a: a[-1:])),
                Slip("the first row of each image alone", dweight_of(lambda a: a[..., :1, :])),
                Slip(
                    "dy reshaped to (out, rows) where it has to be transposed",
                    lambda dy, x, weight: {"": dy.reshape(dy.shape[-1], -1) @ rows(x)},
                ),
                Slip(
                    "x reshaped to (in, rows) where it has to be transposed",
                    lambda dy, x, weight: {"": (x.reshape(x.shape[-1], -1) @ rows(dy)).T},
                ),
            ),
        ),
        Output(
            "dbias",
            lambda dy, x, weight: {"the sum of dy over all rows": rows(dy).sum(0)},
            (
                Slip("the first row of dy", lambda dy, x, weight: {"": rows(dy)[0]}),
                Slip("the last row of dy", lambda dy, x, weight: {"": rows(dy)[-1]}),
                Slip(
                    "the sum over the first image",
                    lambda dy, x, weight: {"": rows(dy[:1]).sum(0)},
                ),
                Slip(
                    "the number of rows: dy is not used",
                    lambda dy, x, weight: {"": np.full(len(weight), float(len(rows(dy))))},
                ),
            ),
        ),
    ),
    right_linear_backward,
    draw_linear,
    Forward(
        lambda x, weight, bias: linear(x, weight, bias)[0],
        ("x", "weight", "bias"),
        lambda dy, values: {"dy": dy, "x": values["x"], "weight": values["weight"]},
    ),
    refused=("linear_backward",),
)  # fmt: skip

# ------------------------------------------------------------------------ quick_gelu_backward

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


def gelu_slip(second: Callable[[Array, Array], Array]) -> Callable[..., TermsOf]:
    """The right first term, and another second one: a function of x and s."""

    def terms(dy: Array, x: Array) -> TermsOf:
        s = sigmoid(A * x)
        return {"s(1.702 x)": dy * s, "the second term": dy * second(x, s)}

    return terms


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

# ------------------------------------------------------------------------ softmax_backward


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


def along(how: Callable[..., Array], axis: int | None = -1) -> Callable[[Array], Array]:
    return lambda a: how(a, axis=axis, keepdims=True)


total, mean = along(np.sum), along(np.mean)

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

# ------------------------------------------------------------------------ layer_norm_backward


def right_layer_norm_backward(dy: Array, x: Array, weight: Array, eps: float) -> tuple[Any, ...]:
    cache = layer_norm(x, weight, np.zeros_like(weight), eps)[1]
    return layer_norm_backward(dy, cache)


def normalised(x: Array, eps: float, ddof: int = 0, axis: int | None = -1) -> tuple[Array, Array]:
    """x_hat and 1 / std."""
    centred = x - x.mean(axis=axis, keepdims=True)
    inv_std = 1 / np.sqrt(x.var(axis=axis, keepdims=True, ddof=ddof) + eps)
    return centred * inv_std, inv_std


def norm_terms(
    statistics: Callable[[Array, float], tuple[Array, Array]] = normalised,
    average: Callable[[Array], Array] = mean,
    average_of_product: Callable[[Array], Array] | None = None,
    weighted: bool = True,
    power: float = 1,
    after: bool = False,
) -> Callable[..., TermsOf]:
    """The three paths of dx, or what a slip makes of them.

    average_of_product: of dx_hat x_hat; None: as of dx_hat. weighted: dx_hat is dy * weight.
    power: of 1 / std before the whole. after: weight stands before the whole instead.
    """

    def terms(dy: Array, x: Array, weight: Array, eps: float) -> TermsOf:
        x_hat, inv_std = statistics(x, eps)
        dx_hat = dy * weight if weighted and not after else dy
        scale = inv_std**power * (weight if after else 1)
        return {
            "the direct path (dx_hat)": scale * dx_hat,
            "the path through the mean (- mean(dx_hat))": -scale * average(dx_hat) + 0 * dx_hat,
            "the path through the variance (- x_hat mean(dx_hat x_hat))": -scale
            * x_hat
            * (average_of_product or average)(dx_hat * x_hat),
        }

    return terms


def sum_of(what: Callable[[Array, Array, float], Array]) -> Callable[..., TermsOf]:
    """dweight with something else in the place of x_hat."""
    return lambda dy, x, weight, eps: {"": sum_to_last(dy * what(x, weight, eps))}


def centred(x: Array) -> Array:
    return np.asarray(x - mean(x))


ELSEWHERE = {
    "the whole array, not over each row": along(np.mean, None),
    "the first axis, not over the last": along(np.mean, 0),
}
DX_SLIPS = (
    Slip("without weight: dx_hat is dy * weight", norm_terms(weighted=False)),
    Slip("with weight multiplied last: it belongs into the means", norm_terms(after=True)),
    Slip("without eps", norm_terms(lambda x, eps: normalised(x, 0.0))),
    Slip("with eps added to the deviation, not to the variance", norm_terms(
        lambda x, eps: (centred(x) / (x.std(-1, keepdims=True) + eps),
                        1 / (x.std(-1, keepdims=True) + eps)))),
    Slip("with the variance divided by D - 1", norm_terms(lambda x, eps: normalised(x, eps, 1))),
    Slip("with mean and variance of the whole array, not of each row", norm_terms(
        lambda x, eps: normalised(x, eps, 0, None))),
    Slip("with mean and variance over the first axis, not over the last", norm_terms(
        lambda x, eps: normalised(x, eps, 0, 0))),
    *(Slip(f"with mean(dx_hat) taken over {where}", norm_terms(average=how, average_of_product=mean))
      for where, how in ELSEWHERE.items()),
    *(Slip(f"with mean(dx_hat x_hat) taken over {where}", norm_terms(average_of_product=how))
      for where, how in ELSEWHERE.items()),
    *(Slip(f"with the means of dx_hat and of dx_hat x_hat taken over {where}", norm_terms(average=how))
      for where, how in ELSEWHERE.items()),
    Slip("with the variance in the place of the standard deviation", norm_terms(
        lambda x, eps: (centred(x) * normalised(x, eps)[1] ** 2, normalised(x, eps)[1] ** 2))),
    Slip("not divided by the standard deviation", norm_terms(power=0)),
    Slip("divided by the variance, not by the standard deviation", norm_terms(power=2)),
    Slip("multiplied by the standard deviation, not divided", norm_terms(power=-1)),
    Slip("with x for x_hat", norm_terms(lambda x, eps: (x, normalised(x, eps)[1]))),
    Slip("with x - mean for x_hat", norm_terms(lambda x, eps: (centred(x), normalised(x, eps)[1]))),
    Slip("with x / std for x_hat: the mean is not subtracted", norm_terms(
        lambda x, eps: (x * normalised(x, eps)[1], normalised(x, eps)[1]))),
)  # fmt: skip

LAYER_NORM_BACKWARD = Exercise(
    "layer_norm_backward",
    (
        Output("dx", norm_terms(), DX_SLIPS),
        Output(
            "dweight",
            sum_of(lambda x, weight, eps: normalised(x, eps)[0]),
            (
                Slip("with x for x_hat", sum_of(lambda x, weight, eps: x)),
                Slip("with x - mean for x_hat", sum_of(lambda x, weight, eps: centred(x))),
                Slip("without eps", sum_of(lambda x, weight, eps: normalised(x, 0.0)[0])),
                Slip(
                    "with the variance divided by D - 1",
                    sum_of(lambda x, weight, eps: normalised(x, eps, 1)[0]),
                ),
                Slip(
                    "with the variance in the place of the standard deviation",
                    sum_of(lambda x, weight, eps: centred(x) * normalised(x, eps)[1] ** 2),
                ),
                Slip(
                    "with mean and variance of the whole array, not of each row",
                    sum_of(lambda x, weight, eps: normalised(x, eps, 0, None)[0]),
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

# ------------------------------------------------------------------------ measured_gradient


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

ALL = (
    SUM_TO_SHAPE,
    LINEAR_BACKWARD,
    QUICK_GELU_BACKWARD,
    SOFTMAX_BACKWARD,
    LAYER_NORM_BACKWARD,
    MEASURED_GRADIENT,
)
