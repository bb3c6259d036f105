"""What a run reports: a progress bar, a log for machines, a plot, warnings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from miniclip.files import write_bytes

LOG, PLOT = "log.jsonl", "loss.png"
STUCK_AFTER = 300  # steps at the level of guessing that are too many
ALIKE = 0.99  # mean cosine between a batch's embeddings from which on they say nothing
SMOOTHING = 0.95  # of the loss in the plot
REFERENCES = ("chance", "floor")  # that an objective may give for a loss


@dataclass(frozen=True)
class Record:
    """One step, for the report.

    references: what the loss is compared with, as far as it is known: what guessing gives (chance)
    and the least that is possible (floor). gradient: its length before clipping. rate: the learning
    rate. measures: the objective's own numbers. The two losses over embeddings give scale, the
    temperature's inverse exp(logit_scale) that the loss was computed with, and image_cosine and
    text_cosine, the mean cosine between different samples' embeddings. samples: pairs used so far.
    seconds: since this process began to train.
    Raises ValueError for a reference or a measure by a name that it cannot have.
    """

    step: int
    epoch: int
    loss: float
    references: Mapping[str, float]
    gradient: float
    rate: float
    measures: Mapping[str, float]
    pairs: int
    samples: int
    seconds: float

    def __post_init__(self) -> None:
        for name in self.references:
            if name not in REFERENCES:
                raise ValueError(
                    f"reference_lines: got {name!r}, expected {' or '.join(REFERENCES)}"
                )
        for name in self.measures:
            if name in TAKEN:
                raise ValueError(f"measures: got {name!r}, which the log has already; rename it")

    def row(self) -> dict[str, float]:
        """All numbers by name, in the log's order."""
        row: dict[str, float] = {}
        for name in FIELDS:
            value = getattr(self, name)
            row |= value if isinstance(value, Mapping) else {name: value}
        return row

    def short(self) -> str:
        """For the bar, which has to fit a line: the loss, and what guessing gives."""
        chance = self.references.get("chance")
        return f"loss {self.loss:.3f}" + ("" if chance is None else f" (chance {chance:.3f})")

    def line(self) -> str:
        """For people."""
        beside = ", ".join(f"{name} {value:.3f}" for name, value in self.references.items())
        parts = [f"loss {self.loss:.3f}" + (f" ({beside})" if beside else "")]
        parts += [f"gradient {self.gradient:.2f}"]
        parts += [f"{name} {value:.3g}" for name, value in self.measures.items()]
        return "  ".join(parts)


FIELDS = tuple(field.name for field in fields(Record))
TAKEN = (*FIELDS, *REFERENCES)  # every other number of the log is a measure


class Watcher:
    """Looks at the records as they come and warns, once for each, of what ruins runs quietly."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.warned: set[str] = set()
        self.guessing = self.pinned = 0

    def look(self, record: Record, warm_up: int, largest_scale: float) -> None:
        """Numbers that the objective does not give are not watched."""
        self._look_at_loss(record, warm_up)
        self._look_at_embeddings(record, warm_up)
        self._look_at_scale(record, largest_scale)

    def _look_at_loss(self, record: Record, warm_up: int) -> None:
        chance, floor = record.references.get("chance"), record.references.get("floor", 0.0)
        if chance is None:
            return
        near_chance = record.loss > floor + 0.97 * (chance - floor)
        self.guessing = self.guessing + 1 if near_chance and record.step >= warm_up else 0
        if self.guessing == STUCK_AFTER:
            self.warn(
                "guessing",
                f"the loss has stayed at {chance:.3f}, which is what guessing gives, for "
                f"{STUCK_AFTER} steps: nothing is learned (too high a rate, captions that do not "
                "belong to their pictures, or an unshuffled file?)",
            )

    def _look_at_embeddings(self, record: Record, warm_up: int) -> None:
        for name in ("image", "text"):
            cosine = record.measures.get(f"{name}_cosine", 0.0)
            if cosine > ALIKE and record.step >= warm_up:
                self.warn(
                    f"{name} collapse",
                    f"step {record.step}: all {name} embeddings are alike (mean cosine "
                    f"{cosine:.4f}): the {name} tower has collapsed; try a lower learning rate",
                )

    def _look_at_scale(self, record: Record, largest_scale: float) -> None:
        at_limit = record.measures.get("scale", 0.0) > 0.999 * largest_scale
        self.pinned = self.pinned + 1 if at_limit else 0
        if self.pinned == STUCK_AFTER:
            self.warn(
                "temperature",
                f"the scale has been at its limit {largest_scale:.0f} for {STUCK_AFTER} steps: the "
                "model is as sure as it may be; more data or a larger batch would teach it more",
            )

    def warn(self, kind: str, message: str) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            self.report(f"warning: {message}")


# ------------------------------------------------------------------------ the log


class Log:
    """A JSON object a line. A full disk costs lines, not the run: it is reported and counted."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self.path, self.report = path, report
        self.lost = 0

    def keep_before(self, step: int) -> None:
        """Drop the lines of steps from `step` on, which a resumed run takes again."""
        if not self.path.exists():
            return
        kept = [row for row in read_log(self.path) if row["step"] < step]
        content = "".join(json.dumps(row) + "\n" for row in kept).encode()
        if content != self.path.read_bytes():
            write_bytes({self.path: content})

    def write(self, record: Record) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record.row()) + "\n")
        except OSError as error:
            if not self.lost:
                self.report(
                    f"warning: {self.path} could not be written ({error}); training continues"
                )
            self.lost += 1


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line that a crash cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def smoothed(values: Iterable[float], share: float = SMOOTHING) -> list[float]:
    """Running mean that forgets: the share of what was, the rest of what came.

    It starts at zero, and is divided by what the weights of the n values so far add up to,
    1 - share^n, as in Adam. A mean that starts at the first value instead counts it twenty times
    over, and lies far above a loss that falls for a hundred steps.
    """
    out: list[float] = []
    mean = 0.0
    for n, value in enumerate(values, 1):
        mean = share * mean + (1 - share) * value
        out.append(mean / (1 - share**n))
    return out


def curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """The steps whose rows have this number, and its values there."""
    there = [row for row in rows if name in row]
    return [row["step"] for row in there], [row[name] for row in there]


def plot_log(log: Path, picture: Path) -> None:
    """Loss over steps with its reference lines; measures and learning rate below. Writes a PNG."""
    from matplotlib.figure import Figure

    rows = read_log(log)
    if not rows:
        return
    measures = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in TAKEN]
    small = [*measures, "rate"]
    figure = Figure(figsize=(8, 4 + len(small)), layout="constrained")
    top, *below = figure.subplots(
        1 + len(small), sharex=True, height_ratios=(3, *(1 for _ in small))
    )
    steps, losses = curve(rows, "loss")
    top.plot(steps, losses, color="0.8", linewidth=0.7, label="loss of each step")
    top.plot(steps, smoothed(losses), label="loss (smoothed)")
    for name, style in zip(REFERENCES, ("k--", "g:"), strict=True):
        steps, values = curve(rows, name)
        if steps:
            top.plot(steps, smoothed(values), style, linewidth=0.8, label=name)
    top.set_ylabel("loss")
    top.legend()
    for axes, name in zip(below, small, strict=True):
        axes.plot(*curve(rows, name))
        axes.set_ylabel(name)
    below[-1].set_xlabel("step")
    figure.savefig(picture, dpi=110)
