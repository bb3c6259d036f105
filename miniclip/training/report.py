"""What a run tells: a progress bar, a log that can be read by machines, a plot, warnings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.files import write_bytes
from miniclip.ops.array import Array

LOG, PLOT = "log.jsonl", "loss.png"
STUCK_AFTER = 300  # steps at the level of guessing that are too many
ALIKE = 0.99  # mean cosine between a batch's embeddings from which on they say nothing
SMOOTHING = 0.95  # of the loss in the bar and in the plot


@dataclass(frozen=True)
class Record:
    """One step, as the log keeps it.

    loss beside what guessing gives (`chance`, ln N) and what is reachable (`floor`). scale: the
    temperature's inverse, exp(logit_scale). gradient: its length before clipping. image_cosine,
    text_cosine: the mean cosine between different samples' embeddings. rate: the learning rate.
    samples: pairs used so far. seconds: since this process began to train.
    """

    step: int
    epoch: int
    loss: float
    chance: float
    floor: float
    scale: float
    gradient: float
    rate: float
    image_cosine: float
    text_cosine: float
    pairs: int
    samples: int
    seconds: float

    def line(self) -> str:
        """For people."""
        return (
            f"loss {self.loss:.3f} (guessing {self.chance:.3f}, floor {self.floor:.3f})  "
            f"scale {self.scale:.1f}  gradient {self.gradient:.2f}"
        )


def mean_cosine(unit: Array) -> float:
    """The mean cosine between different rows of unit length, (N, E): 1 if all are alike.

    The sum over all pairs is the squared length of the rows' sum; N of it are each row with itself.
    """
    n = unit.shape[0]
    total = unit.sum(axis=0)
    return (float((total * total).sum()) - n) / (n * (n - 1))


class Watcher:
    """Looks at the records as they come and warns, once for each, of what ruins runs quietly."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.warned: set[str] = set()
        self.guessing = self.pinned = 0

    def look(self, record: Record, warm_up: int, largest_scale: float) -> None:
        near_chance = record.loss > record.floor + 0.97 * (record.chance - record.floor)
        self.guessing = self.guessing + 1 if near_chance and record.step >= warm_up else 0
        if self.guessing == STUCK_AFTER:
            self.warn(
                "guessing",
                f"the loss has stayed at ln N = {record.chance:.3f} for {STUCK_AFTER} steps: "
                "nothing is learned (too high a rate, captions that do not belong to their "
                "pictures, or an unshuffled file?)",
            )
        for name, cosine in (("image", record.image_cosine), ("text", record.text_cosine)):
            if cosine > ALIKE and record.step >= warm_up:
                self.warn(
                    f"{name} collapse",
                    f"step {record.step}: all {name} embeddings are alike (mean cosine "
                    f"{cosine:.4f}): the {name} tower has collapsed; try a lower learning rate",
                )
        self.pinned = self.pinned + 1 if record.scale > 0.999 * largest_scale else 0
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
    """A JSON object a line. A full disk costs lines, not the run: it is told and counted."""

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
                file.write(json.dumps(asdict(record)) + "\n")
        except OSError as error:
            if not self.lost:
                self.report(
                    f"warning: {self.path} could not be written ({error}); training goes on"
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
    """Running mean that forgets: the share of what was, the rest of what came."""
    out: list[float] = []
    for value in values:
        out.append(value if not out else share * out[-1] + (1 - share) * value)
    return out


def plot_log(log: Path, picture: Path) -> None:
    """Loss over steps, with guessing and floor; temperature and rate below. Writes a PNG."""
    from matplotlib.figure import Figure

    rows = read_log(log)
    if not rows:
        return
    column = {name: np.array([row[name] for row in rows], float) for name in rows[0]}
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, middle, bottom = figure.subplots(3, sharex=True, height_ratios=(3, 1, 1))
    steps = column["step"]
    top.plot(steps, column["loss"], color="0.8", linewidth=0.7)
    top.plot(steps, smoothed(column["loss"]), label="loss (smoothed)")
    top.plot(steps, column["chance"], "k--", linewidth=0.8, label="guessing, ln N")
    top.plot(steps, smoothed(column["floor"]), "g:", label="floor of these targets")
    top.set_ylabel("loss")
    top.legend()
    middle.plot(steps, column["scale"])
    middle.set_ylabel("exp(logit_scale)")
    bottom.plot(steps, column["rate"])
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("step")
    figure.savefig(picture, dpi=110)
