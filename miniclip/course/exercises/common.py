"""What exercises share: drawn numbers, rows, sums and means along the last axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from miniclip.ops.array import Array

TermsOf = dict[str, Array]  # the terms of an output, by name
How = Callable[..., Array]


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return np.asarray(rng.standard_normal(shape))


def some(rng: np.random.Generator, low: int, high: int, count: int) -> list[int]:
    """Sizes of axes, all different, so that no two axes can be exchanged unseen."""
    return [int(n) for n in low + rng.permutation(high - low + 1)[:count]]


def rows(x: Array) -> Array:
    """(..., D) -> (R, D)."""
    return x.reshape(-1, x.shape[-1])


def along(how: How, axis: int | None = -1) -> Callable[[Array], Array]:
    """A sum or a mean along one axis (None: all of them), which stays with length 1."""
    return lambda a: how(a, axis=axis, keepdims=True)


total, mean = along(np.sum), along(np.mean)
