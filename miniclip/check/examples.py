"""Seeded inputs for every operation, in several shapes: `miniclip check OP`.

For someone who edits an operation: its backward pass is compared with slopes of its forward.
Whether the forward is right is for the tests, which compare it with PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniclip.check.gradients import op_gradients
from miniclip.check.result import GradientCheck
from miniclip.ops.array import Array

Draw = Callable[..., Array]  # (*shape) -> random numbers


@dataclass(frozen=True)
class Example:
    """Inputs of an op in their order, the names of those without a gradient, and its options."""

    inputs: tuple[Any, ...]
    constants: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> str:
        """The shapes of the arrays, in words."""
        return ", ".join(str(x.shape) for x in self.inputs if x is not None)


def check_op(
    name: str, forward: Callable[..., Any], backward: Callable[..., Any], seed: int = 0
) -> list[tuple[Example, GradientCheck]]:
    """Check a pair on all examples of the op of this name.

    Raises ValueError for an op without examples and for a negative seed.
    """
    return [
        (e, op_gradients(forward, backward, *e.inputs, constants=e.constants, options=e.options))
        for e in examples_of(name, seed)
    ]


def examples_of(name: str, seed: int = 0) -> list[Example]:
    """Three or more examples of an op, of different shapes."""
    if name not in EXAMPLES:
        raise ValueError(f"op: got {name!r}, expected one of {', '.join(EXAMPLES)}")
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected a number from 0 on")
    rng = np.random.default_rng([seed, 3])

    def draw(*shape: int) -> Array:
        return np.asarray(rng.standard_normal(shape))

    return EXAMPLES[name](draw)


# ------------------------------------------------------------------------ one function an op


def elementwise(draw: Draw) -> list[Example]:
    return [Example((2 * draw(*shape),)) for shape in ((7,), (3, 4), (2, 3, 2, 2))]


def rows(draw: Draw) -> list[Example]:
    return [Example((draw(*shape),)) for shape in ((2, 5), (3, 4, 6), (2, 2, 3, 4))]


def maps(draw: Draw) -> list[Example]:
    return [Example((draw(*shape),)) for shape in ((1, 2, 3, 4), (2, 3, 4, 4), (2, 1, 2, 3))]


def tokens(draw: Draw) -> list[Example]:
    return [Example((draw(*shape),)) for shape in ((1, 3, 4), (2, 5, 3), (3, 2, 6))]


def linear(draw: Draw) -> list[Example]:
    plain = [Example((draw(*lead, 4), draw(3, 4), draw(3))) for lead in ((5,), (2, 3), (2, 1, 4))]
    return [*plain, Example((draw(5, 4), draw(3, 4), None))]


def conv2d(draw: Draw) -> list[Example]:
    settings = (((3, 3), 1, 1), ((2, 2), 2, 0), ((1, 1), 1, 0), ((3, 1), 2, 1))
    return [
        Example((draw(2, 3, 6, 5), draw(4, 3, *kernel), draw(4) if stride == 1 else None),
                options={"stride": stride, "padding": padding})
        for kernel, stride, padding in settings
    ]  # fmt: skip


def layer_norm(draw: Draw) -> list[Example]:
    return [Example((draw(*lead, 6), draw(6), draw(6))) for lead in ((4,), (2, 3), (2, 1, 3))]


def batch_norm(draw: Draw) -> list[Example]:
    shapes = ((4, 3, 1, 1), (2, 3, 4, 5), (1, 2, 3, 3))
    return [Example((draw(*s), draw(s[1]), draw(s[1]))) for s in shapes]


def batch_norm_inference(draw: Draw) -> list[Example]:
    return [
        Example((*e.inputs, draw(e.inputs[1].size), 0.5 + draw(e.inputs[1].size) ** 2),
                ("running_mean", "running_var"))
        for e in batch_norm(draw)
    ]  # fmt: skip


def avg_pool2d(draw: Draw) -> list[Example]:
    shapes = ((1, 2, 4, 4, 2), (2, 3, 6, 3, 3), (2, 1, 4, 6, 2))
    return [Example((draw(*s),), options={"kernel": kernel}) for *s, kernel in shapes]


def embedding(draw: Draw) -> list[Example]:
    ids = ([[0, 2, 2]], [[1, 1], [4, 0]], [[3], [3], [2]])
    return [Example((np.array(row), draw(5, 3))) for row in ids]


def patch_embedding(draw: Draw) -> list[Example]:
    settings = ((4, 4, 2, 2), (6, 4, 2, 2), (5, 7, 3, 2))  # the last: patches that overlap
    return [
        Example((draw(2, 3, h, w), draw(4, 3, patch, patch)), options={"stride": stride})
        for h, w, patch, stride in settings
    ]


def prepend_class_token(draw: Draw) -> list[Example]:
    return [Example((*e.inputs, draw(e.inputs[0].shape[-1]))) for e in tokens(draw)]


def add_positions(draw: Draw) -> list[Example]:
    return [Example((*e.inputs, draw(*e.inputs[0].shape[1:]))) for e in tokens(draw)]


def gather_end_of_text(draw: Draw) -> list[Example]:
    ids = np.array([[1, 9, 0, 0], [1, 2, 3, 9], [9, 0, 0, 0]])
    return [Example((draw(n, 4, 3), ids[:n])) for n in (1, 2, 3)]


def interpolate_positions(draw: Draw) -> list[Example]:
    return [
        Example((draw(1 + side * side, 4),), options={"grid": grid, "antialias": antialias})
        for side, grid, antialias in ((3, (5, 4), True), (4, (2, 2), True), (2, (2, 5), False))
    ]


def attention(draw: Draw) -> list[Example]:
    causal = np.where(np.tri(4, dtype=bool), 0.0, -np.inf)
    shapes = (((1, 1, 3, 4), None), ((2, 2, 4, 3), causal), ((2, 1, 4, 2), None))
    return [Example((draw(*s), draw(*s), draw(*s), mask), ("mask",)) for s, mask in shapes]


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def pairs(draw: Draw, n: int, m: int) -> tuple[Array, Array, Array]:
    """Images (n, 6) and texts (m, 6) of unit length, and a log scale."""
    return unit(draw(n, 6)), unit(draw(m, 6)), np.asarray(1.0 + 0.1 * draw())


def cosine_logits(draw: Draw) -> list[Example]:
    return [Example(pairs(draw, n, m)) for n, m in ((3, 3), (2, 5), (4, 1))]


def cross_entropy(draw: Draw) -> list[Example]:
    targets = ([0, 2, 1], [4, 0], [1, 1, 1, 0])
    return [Example((draw(len(t), 5), np.array(t))) for t in targets]


SHARED = np.array([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])  # images 0 and 2 have the same caption


def contrastive_loss(draw: Draw) -> list[Example]:
    inputs = [(*pairs(draw, n, n), targets) for n, targets in ((2, None), (5, None), (3, SHARED))]
    return [Example(x, ("targets",)) for x in inputs]


def sigmoid_loss(draw: Draw) -> list[Example]:
    inputs = [
        (*pairs(draw, n, n), np.asarray(-2.0), targets)
        for n, targets in ((2, None), (5, None), (3, SHARED))
    ]
    return [Example(x, ("targets",)) for x in inputs]


EXAMPLES: dict[str, Callable[[Draw], list[Example]]] = {
    "linear": linear,
    "conv2d": conv2d,
    "batch_norm": batch_norm,
    "batch_norm_inference": batch_norm_inference,
    "layer_norm": layer_norm,
    "l2_normalize": rows,
    "relu": elementwise,
    "quick_gelu": elementwise,
    "gelu": elementwise,
    "gelu_tanh": elementwise,
    "softmax": rows,
    "avg_pool2d": avg_pool2d,
    "global_avg_pool": maps,
    "embedding": embedding,
    "patch_embedding": patch_embedding,
    "prepend_class_token": prepend_class_token,
    "mean_token": tokens,
    "take_class_token": tokens,
    "add_positions": add_positions,
    "gather_end_of_text": gather_end_of_text,
    "interpolate_positions": interpolate_positions,
    "scaled_dot_product_attention": attention,
    "cosine_logits": cosine_logits,
    "cross_entropy": cross_entropy,
    "contrastive_loss": contrastive_loss,
    "sigmoid_loss": sigmoid_loss,
}
