"""Two traces side by side: where do they part?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from miniclip.inspect.culprit import Call, Culprit, Origin, find_culprit
from miniclip.ops.array import Array
from miniclip.tables import html_table, text_table

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


@dataclass(frozen=True)
class Difference:
    """One tensor in both traces. error: largest difference / largest value of the other side."""

    name: str
    shape: tuple[int, ...]
    error: float
    where: tuple[int, ...]  # the index of the largest difference
    got: float  # the numbers there
    expected: float
    tolerance: float

    @property
    def differs(self) -> bool:
        return not self.error <= self.tolerance  # NaN differs


@dataclass(frozen=True)
class Comparison:
    """All tensors that both traces have, in the order of the first one.

    culprit: the module in which the first difference arose, and whether forward or backward; None
    if there is no difference, if the tensors were handed in with it, or if nothing is known of what
    went into the module.
    """

    differences: list[Difference]
    only_here: list[str]
    only_there: list[str]
    culprit: Culprit | None = None

    @property
    def first(self) -> Difference | None:
        """The first tensor that differs, or None."""
        return next((d for d in self.differences if d.differs), None)

    @property
    def equal(self) -> bool:
        """Whether tensors were compared and none differs."""
        return bool(self.differences) and self.first is None

    def summary(self) -> str:
        """One sentence: the first tensor that differs and by how much."""
        if not self.differences:
            return "no tensor has the same name on both sides"
        if self.first is None:
            worst = max(self.differences, key=lambda d: d.error)
            return (
                f"all {len(self.differences)} tensors agree; the largest error is "
                f"{worst.error:.1e}, at {worst.name}"
            )
        d = self.first
        return (
            f"first difference: {d.name} {d.shape}, error {d.error:.2e} "
            f"(allowed {d.tolerance:.0e}); at index {d.where} "
            f"{d.got:.6g} here, {d.expected:.6g} there"
            + (f"; it arose in the {self.culprit}" if self.culprit else "")
        )

    def shown(self) -> list[Difference]:
        """The rows of the table: what went in (and its gradient) only where it differs."""
        return [d for d in self.differences if d.differs or ".input" not in d.name]

    def lines(self) -> list[list[str]]:
        return [
            [
                d.name,
                "x".join(map(str, d.shape)),
                f"{d.error:.1e}",
                "<- differs" if d.differs else "",
            ]
            for d in self.shown()
        ]

    def __repr__(self) -> str:
        table = text_table(["name", "shape", "error", ""], self.lines())
        skipped = f"\nonly here: {len(self.only_here)}, only there: {len(self.only_there)} names"
        return f"{table}\n{self.summary()}{skipped}"

    def _repr_html_(self) -> str:
        styles = ["background: #fdd" if d.differs else "" for d in self.shown()]
        table = html_table(["name", "shape", "error", ""], self.lines(), styles)
        return f"<p>{self.summary()}</p>{table}"


def compare(
    here: Mapping[str, Array],
    there: Mapping[str, Array],
    tolerance: float | None,
    origins: Mapping[str, Origin] | None = None,
) -> Comparison:
    """Compare the tensors that stand under the same name on both sides.

    origins: the calls that the tensors of this side belong to, for the culprit.
    """
    both = [name for name in here if name in there]
    sizes = sizes_of_calls(there, origins or {})
    differences = [
        difference(name, here[name], there[name], tolerance, sizes.get(name, 0)) for name in both
    ]
    first = next((d.name for d in differences if d.differs), None)
    return Comparison(
        differences,
        [name for name in here if name not in there],
        [name for name in there if name not in here],
        find_culprit(first, origins or {}, set(both)),
    )


def sizes_of_calls(there: Mapping[str, Array], origins: Mapping[str, Origin]) -> dict[str, float]:
    """For each gradient of a parameter the largest number among those of the same call.

    The gradient of a key's bias is zero, as softmax does not see it: what is there is rounding, and
    is measured by its neighbours.
    """
    calls = {name: o.call for name, o in origins.items() if o.of_parameter and name in there}
    largest: dict[Call, float] = {}
    for name, call in calls.items():
        finite = there[name][np.isfinite(there[name])]
        largest[call] = max(largest.get(call, 0.0), float(np.abs(finite).max(initial=0)))
    return {name: largest[call] for name, call in calls.items()}


def difference(
    name: str, got: Array, expected: Array, tolerance: float | None, least: float = 0
) -> Difference:
    """The difference of two tensors; one that no known layout brings together has error inf.

    least: what errors are measured by where `expected` is smaller.
    """
    if got.dtype.kind in "iu" and expected.dtype.kind in "iu":
        tolerance = 0.0  # token ids: the next word is another word
    elif tolerance is None:
        tolerance = max(TOLERANCE.get(x.dtype.name, 1e-4) for x in (got, expected))
    candidates = [x for x in layouts(expected) if x.shape == got.shape]
    if not candidates:
        inf = float("inf")
        return Difference(name, tuple(got.shape), inf, (), inf, inf, tolerance)
    measured = [measure(name, got, x, tolerance, least) for x in candidates]
    return min(measured, key=lambda d: d.error if d.error == d.error else float("inf"))


def layouts(x: Array) -> list[Array]:
    """The tensor as it is, and as the original's other layouts would be in ours.

    The original runs its transformers as (T, B, D), and its patch convolution gives (B, D, G, G)
    where ours gives tokens, (B, G * G, D).
    """
    if x.ndim == 3:
        return [x, x.transpose(1, 0, 2)]
    if x.ndim == 4:
        return [x, x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)]
    return [x]


def measure(name: str, got: Array, expected: Array, tolerance: float, least: float) -> Difference:
    with np.errstate(invalid="ignore"):  # inf - inf
        gap = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    gap = np.where(got == expected, 0.0, gap)  # two equal infinities do not differ
    finite = np.abs(expected[np.isfinite(expected)])
    size = max(finite.max() if finite.size else 0.0, least)
    flat = int(np.argmax(np.where(np.isnan(gap), np.inf, gap))) if gap.size else 0
    where = tuple(int(i) for i in np.unravel_index(flat, gap.shape)) if gap.size else ()
    largest = float(gap[where]) if gap.size else 0.0
    error = largest / float(size) if size else largest
    return Difference(
        name,
        tuple(got.shape),
        error,
        where,
        float(got[where]) if gap.size else 0.0,
        float(expected[where]) if gap.size else 0.0,
        tolerance,
    )
