"""Part 2: the backward pass of the linear layer. Derivation: docs/ops/linear.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from miniclip.course.diagnosis import Output, Slip
from miniclip.course.exercise import Exercise, Forward, Values
from miniclip.course.exercises.common import TermsOf, normal, rows, some
from miniclip.ops.array import Array
from miniclip.ops.linear import linear, linear_backward


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
                Slip("without the first row", dweight_of(lambda a: rows(a)[1:])),
                Slip("without the last row", dweight_of(lambda a: rows(a)[:-1])),
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
                Slip(
                    "the sum of all of dy, in every place",
                    lambda dy, x, weight: {"": np.full(len(weight), dy.sum())},
                ),
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
