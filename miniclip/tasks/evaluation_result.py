"""What `evaluate` returns: scores with intervals and chance levels, as tables and plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from miniclip.tables import markdown_table, text_table
from miniclip.world.captions import NUMBERS
from miniclip.world.scenes import COLOUR_SHAPE_PAIRS, COLOURS, RELATIONS, SHAPES

CHANCE = {
    "pair": 1 / len(COLOUR_SHAPE_PAIRS),
    "colour": 1 / len(COLOURS),
    "shape": 1 / len(SHAPES),
    "count": 1 / len(NUMBERS),
    "relation": 1 / len(RELATIONS),
    "binding": 1 / 2,
}
ALL = "all"

Table = tuple[list[str], list[list[str]]]  # headings, lines


class Counted:
    """What follows from two counts, of right answers and of all."""

    right: int
    total: int

    @property
    def share(self) -> float:
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, see `wilson_interval`."""
        return wilson_interval(self.right, self.total)

    def shares(self) -> dict[str, float]:
        """The share and its interval for JSON."""
        low, high = self.interval
        return {"share": self.share, "low": low, "high": high}


@dataclass(frozen=True)
class Score(Counted):
    """How many of `total` answers to a question are right.

    question: one of CHANCE. language: of the statements. pairs: "seen" or "held-out".
    group: "all", or a part of the scenes such as "texture striped".
    """

    question: str
    language: str
    pairs: str
    group: str
    right: int
    total: int

    @property
    def chance(self) -> float:
        """The share that guessing would get right."""
        return CHANCE[self.question]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | self.shares() | {"chance": self.chance}


@dataclass(frozen=True)
class Evaluation:
    """Every score of a model. count: scenes for each kind of picture. seed: of the scenes."""

    model: str
    count: int
    seed: int
    scores: tuple[Score, ...]

    def find(
        self, question: str, language: str = "en", pairs: str = "seen", group: str = ALL
    ) -> Score:
        """One score. KeyError naming what was asked for if there is none."""
        wanted = (question, language, pairs, group)
        for score in self.scores:
            if (score.question, score.language, score.pairs, score.group) == wanted:
                return score
        raise KeyError(f"no score for {', '.join(wanted)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        scores = [score.as_dict() for score in self.scores]
        return {"model": self.model, "count": self.count, "seed": self.seed, "scores": scores}

    def as_text(self) -> str:
        """Tables for a terminal."""
        return "\n\n".join(text_table(*table) for table in self.tables())

    def as_markdown(self) -> str:
        """Tables for a model card."""
        return "\n\n".join(markdown_table(*table) for table in self.tables())

    def tables(self) -> list[Table]:
        """All scores; then pairs by texture, size, colour, shape; then the others by the truth."""
        by_pairs = [s for s in self.scores if s.question == "pair" and s.group != ALL]
        by_truth = [s for s in self.scores if s.question != "pair" and s.group != ALL]
        tables = [summary([s for s in self.scores if s.group == ALL])]
        if by_pairs:
            tables.append(crossed("pair (en), by", by_pairs, lambda s: s.group, lambda s: s.pairs))
        if by_truth:
            tables.append(
                crossed("by the truth", by_truth, lambda s: s.group, lambda s: s.language)
            )
        return tables


def summary(scores: Sequence[Score]) -> Table:
    """A line for each score."""
    headings = ["question", "language", "pairs", "right", "95 %", "chance", "scenes"]
    lines = []
    for s in scores:
        low, high = s.interval
        numbers = [percent(s.share), f"{percent(low)} to {percent(high)}", percent(s.chance)]
        lines.append([s.question, s.language, s.pairs, *numbers, str(s.total)])
    return headings, lines


def crossed(
    title: str,
    scores: Sequence[Score],
    row: Callable[[Score], str],
    column: Callable[[Score], str],
) -> Table:
    """Shares as a table with a line for each `row` and a column for each `column` of the scores."""
    cells = {(row(s), column(s)): f"{percent(s.share)} of {s.total}" for s in scores}
    rows, columns = list(dict.fromkeys(map(row, scores))), list(dict.fromkeys(map(column, scores)))
    return [title, *columns], [[r, *(cells.get((r, c), "") for c in columns)] for r in rows]


def percent(share: float) -> str:
    return f"{share:.1%}"


def wilson_interval(right: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The rates that fit `right` of `total` well: 95 % for this z, the normal's 97.5 % quantile.

    Those p from which the share lies at most z standard deviations sqrt(p (1 - p) / total) away;
    unlike share +- z deviations it stays within [0, 1] and is no point at 0 and at 1.
    Raises ValueError unless 0 <= right <= total and total > 0. Source: Wilson 1927.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"right: got {right} of {total}, expected 0 to total, and some in total")
    share, weight = right / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)  # rounding may lead out of [0, 1]
