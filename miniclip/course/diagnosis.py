"""What is wrong with numbers that are wrong: the term of the derivation that is missing or off.

The right output is a sum of terms. What an answer has too much or too little is fitted on them by
least squares: a coefficient of -1 says that a term is missing, -2 that its sign is wrong, any other
that it is off by a factor. Slips that change no single term, such as another variance, are formulas
of their own. Nothing is guessed: what is said fits the numbers, and if nothing fits, that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniclip.check.diagnosis import arrangements, factor, factor_words, offset_words
from miniclip.check.slopes import Point
from miniclip.ops.array import Array

FITS = 1e-8  # what is left over, relative to the largest entry, where a sum of terms fits
ENTRIES = 3  # fewer fit another order of axes with a factor by chance
Terms = Callable[..., dict[str, Array]]


@dataclass(frozen=True)
class Slip:
    """What comes out of a common mistake: its terms, and the words for it.

    They follow "it is", or "it is what comes out" where they begin with "with" or "without".
    """

    words: str
    terms: Terms

    @property
    def sentence(self) -> str:
        through = "what comes out " if self.words.startswith("with") else ""
        return f"it is {through}{self.words}" if self.words else ""


@dataclass(frozen=True)
class Output:
    """One array that an answer returns: name -> term, whose sum it is, and common slips."""

    name: str
    terms: Terms
    slips: tuple[Slip, ...] = ()


def differs(got: Array, right: Array, tolerance: float) -> bool:
    """Whether any entry is off by more than this share of the largest entry."""
    if not right.size:
        return False
    return bool(np.abs(got - right).max() > tolerance * max(np.abs(right).max(), 1e-12))


def explain(
    output: Output,
    arguments: Mapping[str, Any],
    got: Array,
    right: Array,
    others: Mapping[str, Array],
) -> str:
    """What is wrong with an output, in words that follow a colon.

    arguments: those of the answer. others: the right outputs by name.
    """
    sizes = {name: x for name, x in arguments.items() if isinstance(x, np.ndarray) and x.ndim}
    return (
        by_terms(output, arguments, got, sizes)
        or by_order(output.name, got, right, sizes, others)
        or by_incoming(output, arguments, got)
        or by_rows(output, arguments, got)
        or by_argument(sizes, got, right)
        or by_offset(got, right)
        or unexplained(got, right)
    )


# ------------------------------------------------------------------------ terms


def by_terms(
    output: Output, arguments: Mapping[str, Any], got: Array, sizes: Mapping[str, Array]
) -> str:
    """The simplest sum of terms, of the derivation or of a slip, that is what came; "" if none."""
    found: list[tuple[int, int, str]] = []
    for i, slip in enumerate([Slip("", output.terms), *output.slips]):
        try:
            terms = slip.terms(**arguments)
        except (ValueError, IndexError):  # shapes at which this slip cannot be made
            continue
        factors = fitted(got, list(terms.values()))
        if factors is None:
            continue
        words = term_words(dict(zip(terms, factors, strict=True)), sizes)
        whole = factors[:1] if alike(factors) else factors
        changed, rough = (sum(f not in known for f in whole) for known in ([1], [1, 0, -1]))
        if slip.words and rough and "(" not in words:  # no slip, but chance
            continue
        sentence = ", and ".join(filter(None, [slip.sentence, words]))
        found.append((2 * changed + rough + 2 * bool(slip.words), i, sentence))
    return min(found)[2] if found else ""


def fitted(got: Array, terms: list[Array]) -> list[float] | None:
    """The factor of each term in what came, 1 where the term is right; None if they do not fit."""
    if not got.any():
        return [0.0] * len(terms)
    columns = np.stack([np.broadcast_to(term, got.shape).ravel() for term in terms], axis=1)
    excess = got.ravel() - columns.sum(axis=1)
    size = max(np.abs(got).max(), np.abs(columns).max())
    if np.abs(excess).max() <= FITS * size:
        return [1.0] * len(terms)
    if got.size <= len(terms):  # anything would fit
        return None
    coefficients = np.linalg.lstsq(columns, excess, rcond=None)[0]
    if np.abs(excess - columns @ coefficients).max() > FITS * size:
        return None
    return [rounded(1 + float(c)) for c in coefficients]


def rounded(factor: float) -> float:
    """1, 0 and -1 where a factor is one of them but for rounding."""
    near = round(factor)
    doubt = 10 * FITS if near else FITS / 100  # a very small factor is one, too
    return float(near) if abs(near) <= 1 and abs(factor - near) < doubt else factor


def term_words(factors: Mapping[str, float], sizes: Mapping[str, Array]) -> str:
    """Which terms are missing or off; the whole output where all are off alike."""
    values = list(factors.values())
    if alike(values):
        return phrase("it", values[0], sizes) if values[0] else "it is zero everywhere"
    return " and ".join(filter(None, (phrase(t, f, sizes) for t, f in factors.items())))


def alike(factors: list[float]) -> bool:
    """Whether the whole output is off by one factor."""
    return max(factors) - min(factors) < 10 * FITS


def phrase(term: str, ratio: float, sizes: Mapping[str, Array]) -> str:
    """What is wrong with one term: "" for nothing."""
    if ratio == 1:
        return ""
    if ratio == 0:
        return f"{term} is missing"
    words = factor_words(ratio, Point(sizes, lambda _: 0.0, 0.0))
    return f"{term} {' and '.join(words)}"


# ------------------------------------------------------------------------ no term


def arrangement(got: Array, right: Array) -> str:
    """What makes the numbers right that came in another shape; "" for nothing."""
    if got.size == right.size and not differs(got.reshape(right.shape), right, FITS):
        return "has the right numbers in another shape"
    for words, candidate in arrangements(got, right.shape):
        if words and right.any() and not differs(candidate, right, FITS):
            return "" if got.size == right.size and "summed" in words else words
    return ""


def by_order(
    name: str, got: Array, right: Array, sizes: Mapping[str, Array], others: Mapping[str, Array]
) -> str:
    """Axes or numbers in another order, perhaps with a factor; or another output's numbers."""
    point = Point(sizes, lambda _: 0.0, 0.0)
    if got.size > ENTRIES:
        for words, candidate in arrangements(got, right.shape):
            ratio = factor(candidate, right) if words else None
            if ratio is not None:
                return "it " + " and ".join([words, *factor_words(ratio, point)])
    for other, x in others.items():
        if other != name and x.shape == got.shape and not differs(got, x, FITS):
            return f"it is exchanged with {other}"
    return ""


INCOMING: dict[str, Callable[[Array], Array]] = {
    "right for dy = 1 only: it does not depend on dy": np.ones_like,
    "what comes out with |dy| for dy": np.abs,
    "what comes out with dy squared": np.square,
    "what comes out with the sign of dy for dy": np.sign,
}


def by_incoming(output: Output, arguments: Mapping[str, Any], got: Array) -> str:
    """What is right for another dy."""
    if "dy" not in arguments:
        return ""
    for words, change in INCOMING.items():
        terms = output.terms(**{**arguments, "dy": change(arguments["dy"])})
        right = np.asarray(sum(terms.values()))
        if right.any() and not differs(got, right, FITS):
            return f"it is {words}"
    return ""


def by_rows(output: Output, arguments: Mapping[str, Any], got: Array) -> str:
    """One term that is off by a factor of its own in each row."""
    terms = output.terms(**arguments)
    if len(terms) == 1 or got.ndim < 2 or got.shape[-1] < ENTRIES:
        return ""
    excess = got - np.asarray(sum(terms.values()))
    for name, term in terms.items():
        squares = (term * term).sum(axis=-1, keepdims=True)
        factors = (excess * term).sum(axis=-1, keepdims=True) / np.maximum(squares, 1e-300)
        if np.abs(excess - factors * term).max() <= FITS * np.abs(got).max():
            low, high = float(1 + factors.min()), float(1 + factors.max())
            return f"{name} is off by a factor for each row, from {low:.3g} to {high:.3g} times"
    return ""


def by_argument(sizes: Mapping[str, Array], got: Array, right: Array) -> str:
    """An argument that was added."""
    for name, x in sizes.items():
        ratio = factor(got - right, x) if x.shape == got.shape and x.any() else None
        if ratio is not None and not differs(got, right + ratio * x, FITS):
            return f"it has {ratio:.4g} times {name} too much"
    return ""


def by_offset(got: Array, right: Array) -> str:
    """An offset for the whole, or an offset or a factor for each line along an axis."""
    words = offset_words(got, right)
    return f"it {words}" if words else ""


def unexplained(got: Array, right: Array) -> str:
    """The largest difference, where nothing else can be said."""
    at = np.unravel_index(np.abs(got - right).argmax(), got.shape)
    place = [int(i) for i in at]
    return (
        "no single term, sign or factor explains it; "
        f"most at {place}: {float(got[at]):.5g}, expected {float(right[at]):.5g}"
    )
