"""What is wrong with a gradient: a sign, a factor, axes in another order, an offset, or a term.

The right gradient is measured entry by entry (on a grid of at most 64 entries), and the wrong one,
in every arrangement that programmers produce by accident, is held against it. What is said here is
never a guess at the cause: only what was found to fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np

from miniclip.check.answers import gradient_of
from miniclip.check.slopes import Point, Slope
from miniclip.ops.array import Array

ENTRIES = 64  # of a gradient that are measured; four forward passes each
FIT = 1e-4  # the largest difference, relative to the largest entry, of what still fits
NAMED = 1e-6  # how near a factor comes to a whole number that it is said to be


def diagnose(point: Point, name: str, got: Mapping[str, Any]) -> str:
    """The rest of a sentence that begins with the gradient's name: what was found to be wrong."""
    gradient, x = np.asarray(got[name]), point.values[name]
    wrong_shape = f"has shape {gradient.shape}, expected {x.shape}"
    wrong_shape *= gradient.shape != x.shape
    if not x.size:
        return wrong_shape
    grid = grid_of(x, gradient)
    right = measured(point, name, grid)
    if not wrong_shape and not gradient.any():
        return f"is zero everywhere, though y depends on {name}"
    whole = right.size == x.size
    if not wrong_shape and whole and np.abs(right).max() <= FIT * np.abs(gradient).max():
        return f"is up to {np.abs(gradient).max():.3g}, expected 0: y does not depend on {name}"
    found = explained(point, name, got, grid, right)
    if wrong_shape:
        return f"{wrong_shape}: it {found}" if found else wrong_shape
    return found or unexplained(gradient, grid, right)


def explained(
    point: Point, name: str, got: Mapping[str, Any], grid: tuple[Array, ...], right: Array
) -> str:
    """The first arrangement of what came that fits the measured slopes, in words; "" if none."""
    gradient = np.asarray(got[name])
    shape = point.values[name].shape
    same_shape = {
        other: np.asarray(g)
        for other, g in got.items()
        if other != name and g is not None and np.shape(g) == shape
    }
    candidates = [
        *arrangements(gradient, shape),
        *((f"is exchanged with {gradient_of(other)}", g) for other, g in same_shape.items()),
    ]
    for words, candidate in candidates:
        ratio = factor(candidate[grid], right)
        plain = ratio is not None and abs(abs(ratio) - 1) < FIT
        # few numbers fit anything with a factor of its own
        if ratio is not None and (plain or not words or right.size > 3):
            phrases = [words, *factor_words(ratio, point)]
            return " and ".join(phrase for phrase in phrases if phrase)
    return offset_words(gradient[grid], right) if gradient.shape == shape else ""


# ------------------------------------------------------------------ measuring single entries


def grid_of(x: Array, gradient: Array) -> tuple[Array, ...]:
    """Indices of at most ENTRIES entries that lie on a grid, through the largest of the gradient.

    All entries of a small array. A grid, as sums and orders of axes show along whole lines.
    """
    lengths = [min(n, ENTRIES) for n in x.shape]
    while math.prod(lengths) > ENTRIES:
        lengths[lengths.index(max(lengths))] -= 1
    centre = [0] * x.ndim
    if gradient.shape == x.shape and x.size:
        centre = [int(i) for i in np.unravel_index(np.abs(gradient).argmax(), x.shape)]
    axes = []
    for n, length, c in zip(x.shape, lengths, centre, strict=True):
        spread = np.unique(np.linspace(0, n - 1, length).astype(int))
        if c not in spread:
            spread[np.abs(spread - c).argmin()] = c
        axes.append(spread)
    return np.ix_(*axes)


def measured(point: Point, name: str, grid: tuple[Array, ...]) -> Array:
    """The slopes at these entries, in the shape of the grid."""
    x = point.values[name]
    numbers = np.arange(x.size).reshape(x.shape)[grid]
    slopes = np.empty(numbers.size)
    for i, number in enumerate(numbers.reshape(-1)):
        direction = np.zeros(x.size)
        direction[number] = 1
        slopes[i] = point.slope(name, direction.reshape(x.shape), settled).value
    return slopes.reshape(numbers.shape)


def settled(slope: Slope) -> bool:
    return slope.doubt <= FIT / 10 * abs(slope.value) + slope.noise


# ------------------------------------------------------------------ what may have happened to it


def arrangements(gradient: Array, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """The numbers that came, in the right shape: as they are, or as if a slip were undone."""
    if gradient.shape == shape:
        yield "", gradient
    orders = list(permutations(range(len(shape))))[1:] if 2 <= len(shape) <= 4 else []
    for order in orders:
        if gradient.ndim == len(shape) and gradient.transpose(order).shape == shape:
            yield "is transposed" + axes_words(order), gradient.transpose(order)
    for order in orders:
        if gradient.size == math.prod(shape):
            turned = gradient.reshape([shape[axis] for axis in order])
            words = "has its numbers in the order of the transpose" + axes_words(order)
            yield words + ", reshaped", turned.transpose(np.argsort(order))
    if gradient.shape == shape:
        for axis in range(gradient.ndim):
            yield f"is reversed along axis {axis}", np.flip(gradient, axis)
    for axis in range(gradient.ndim):
        if gradient.ndim > len(shape) and gradient.sum(axis).shape == shape:
            yield f"is not summed over axis {axis}", gradient.sum(axis)
    leading = gradient.ndim - len(shape)
    if leading > 1 and gradient.shape[leading:] == shape:
        yield f"is not summed over its first {leading} axes", gradient.reshape(-1, *shape).sum(0)


def axes_words(order: tuple[int, ...]) -> str:
    return "" if len(order) == 2 else f" (axes {order})"


def factor(wrong: Array, right: Array) -> float | None:
    """wrong / right where that is one number for all entries, else None."""
    squares = float((right * right).sum())
    ratio = float((wrong * right).sum()) / squares if squares else 0.0
    fits = np.abs(wrong - ratio * right).max() <= FIT * np.abs(wrong).max()
    return ratio if fits and ratio else None


def factor_words(ratio: float, point: Point) -> list[str]:
    """A factor in words, with the sizes that it may come from."""
    if point.incoming is not None and abs(ratio * point.incoming - 1) < FIT:
        return ["is right for dy = 1 only: it does not depend on dy"]
    words = ["has the opposite sign"] if ratio < 0 else []
    size = abs(ratio)
    if abs(size - 1) < FIT:
        return words
    large = max(size, 1 / size)
    whole, square = round(large), round(large**2)
    if is_near(large, whole):
        times, origin = str(whole), [sizes_of(whole, point.values)]
    elif is_near(large**2, square):
        times = f"{large:.5g}"
        origin = [f"the square root of {square}", sizes_of(square, point.values)]
    else:
        return [*words, f"is {size:.5g} times the right one"]
    share = f"{times} times" if size > 1 else f"1/{times} of"
    places = "; ".join(filter(None, origin))
    return [*words, f"is {share} the right one" + (f" ({places})" if places else "")]


def is_near(number: float, whole: int) -> bool:
    """Whether a factor is a whole number; of large ones some always is near enough."""
    return whole < 10_000 and abs(number - whole) < NAMED * number


def sizes_of(number: int, values: Mapping[str, Array]) -> str:
    """Where this number is found among the shapes of the inputs, at most three places."""
    places = []
    for name, x in values.items():
        shape = x.shape
        places += [f"{name}.shape[{i}]" for i, n in enumerate(shape) if n == number]
        for i in range(1, len(shape) - 1):
            places += [f"prod({name}.shape[:{i + 1}])"] * (math.prod(shape[: i + 1]) == number)
            places += [f"prod({name}.shape[{i}:])"] * (math.prod(shape[i:]) == number)
        places += [f"{name}.size"] * (x.ndim > 1 and x.size == number)
    return f"{number} is {' or '.join(places[:3])}" if places and number > 1 else ""


def offset_words(wrong: Array, right: Array) -> str:
    """An offset or a factor for the whole, or for each line along one axis; "" if neither."""
    difference, size = wrong - right, np.abs(right).max()
    if wrong.size > 2 and np.ptp(difference) <= FIT * size:
        return f"is off by the constant {difference.mean():.5g}"
    for axis, n in enumerate(wrong.shape):
        if n < 3 or wrong.size == n:
            continue
        if np.ptp(difference, axis=axis).max() <= FIT * size:
            return (
                f"is off by a constant along axis {axis}, as if a sum or a mean over it "
                "were missing"
            )
        ratio = (wrong * right).sum(axis, keepdims=True)
        squares = (right * right).sum(axis, keepdims=True)
        ratio = np.divide(ratio, squares, out=np.zeros_like(ratio), where=squares > 0)
        if np.abs(wrong - ratio * right).max() <= FIT * np.abs(wrong).max():
            low, high = float(ratio.min()), float(ratio.max())
            return f"is off by a factor along axis {axis}, from {low:.3g} to {high:.3g} times"
    return ""


def unexplained(gradient: Array, grid: tuple[Array, ...], right: Array) -> str:
    """The largest difference, where nothing else can be said."""
    difference = np.abs(gradient[grid] - right)
    at = np.unravel_index(difference.argmax(), difference.shape)
    full = [int(np.broadcast_to(axis, right.shape)[at]) for axis in grid]
    return (
        "differs by more than a sign, a factor, an order of axes or an offset: a term is missing "
        f"or wrong; most at {full}: {gradient[grid][at]:.5g}, where {right[at]:.5g} was measured"
    )
