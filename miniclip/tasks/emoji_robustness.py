"""What changes of the picture, and other styles of drawing, do to naming emoji.

Every row asks the same question: which of all names fits a picture of a thing that was trained on?
A change is made on the finished picture, in a style that was trained on and in the one that never
was, both of which have all things. Other styles have fewer: their rows are about those they have.

Source: as tasks/robustness.py; the changes in growing strengths as in Hendrycks and Dietterich 2019
(ImageNet-C, arXiv 1903.12261).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from miniclip.emoji.sources import STYLES
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tables import markdown_table, text_table
from miniclip.tasks.emoji_evaluation import rank
from miniclip.tasks.emoji_set import (
    UNSEEN,
    EmojiQuestions,
    embed_names,
    embed_pictures,
    picture_of,
)
from miniclip.tasks.evaluation_result import Counted, Table, percent
from miniclip.tasks.robustness import add_noise, blur, unchanged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINED = "noto"  # the trained style that is changed, beside the unseen one
SEED = 4_000_003
Change = Callable[[Image.Image, Any, np.random.Generator], Image.Image]


def rotate(picture: Image.Image, degrees: Any, rng: np.random.Generator) -> Image.Image:
    """Turned to the left, the corners white."""
    return picture.rotate(float(degrees), Image.Resampling.BICUBIC, fillcolor="white")


def without_colour(picture: Image.Image, strength: Any, rng: np.random.Generator) -> Image.Image:
    return ImageOps.grayscale(picture).convert("RGB")


# What is changed, how, and how much.
CHANGES: dict[str, tuple[Change, tuple[Any, ...]]] = {
    "none": (unchanged, ("",)),
    "blur": (blur, (1, 2, 3)),  # standard deviation, in pixels
    "noise": (add_noise, (0.05, 0.1, 0.2)),  # standard deviation, of pixels from 0 to 1
    "rotation": (rotate, (15, 30, 60, 90)),  # degrees
    "greyscale": (without_colour, ("",)),
}


@dataclass(frozen=True)
class EmojiRobustness(Counted):
    """How many of `total` pictures of a style are named rightly under a change."""

    style: str
    change: str
    strength: Any
    right: int
    total: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | self.shares()


def emoji_robustness(pipeline: Pipeline, questions: EmojiQuestions) -> list[EmojiRobustness]:
    """Top-1 among all English names of trained things: under every change, and in every style.

    Changes draw their noise from the thing's number, so that strengths are comparable.
    """
    texts = embed_names(pipeline, questions.names("en"))
    rows = []
    for style in (TRAINED, UNSEEN):
        if style in questions.pictures:
            for change, (_, strengths) in CHANGES.items():
                rows += [score(pipeline, questions, texts, style, change, s) for s in strengths]
    others = [s for s in questions.pictures if s not in (TRAINED, UNSEEN)]
    return rows + [score(pipeline, questions, texts, style, "none", "") for style in others]


def score(
    pipeline: Pipeline,
    questions: EmojiQuestions,
    texts: Array,
    style: str,
    change: str,
    strength: Any,
) -> EmojiRobustness:
    numbers = questions.numbers(style, "train")
    make, size = CHANGES[change][0], pipeline.transform.size
    pictures = [
        make(
            picture_of(questions.pictures[style][n], size),
            strength,
            np.random.default_rng([SEED, n]),
        )
        for n in numbers
    ]
    places = rank(embed_pictures(pipeline, pictures) @ texts.T, np.array(numbers))
    return EmojiRobustness(style, change, strength, int((places == 1).sum()), len(numbers))


# ------------------------------------------------------------------------ showing


def as_text(rows: Sequence[EmojiRobustness]) -> str:
    return text_table(*table_of(rows))


def as_markdown(rows: Sequence[EmojiRobustness]) -> str:
    return markdown_table(*table_of(rows))


def table_of(rows: Sequence[EmojiRobustness]) -> Table:
    """Headings and lines."""
    lines = []
    for r in rows:
        low, high = r.interval
        between = f"{percent(low)} to {percent(high)}"
        lines.append(
            [described(r.style), r.change, str(r.strength), percent(r.share), between, str(r.total)]
        )
    return ["style", "change", "strength", "right", "95 %", "asked"], lines


def described(style: str) -> str:
    """The style's name, and what is special about it."""
    known = next((s for s in STYLES if s.name == style), None)
    if known is None:
        return style
    notes = [text for text, holds in (("one colour", known.one_colour),) if holds]
    notes += [] if known.trained else ["not trained on"]
    return f"{style} ({', '.join(notes)})" if notes else style


def plot_emoji_robustness(
    models: Mapping[str, Sequence[EmojiRobustness]], path: str | Path
) -> None:
    """Draw the rows of some models into a picture file; models: name -> rows."""
    figure_of(models).savefig(path, dpi=110)


def figure_of(models: Mapping[str, Sequence[EmojiRobustness]]) -> Figure:
    """A panel for each change with strengths, and one for the styles; a colour for each model."""
    from matplotlib.figure import Figure

    if not models:
        raise ValueError("models: got none, expected at least one")
    figure = Figure(figsize=(11, 8), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.5))
    upper, lower = parts
    changes = [change for change, (_, strengths) in CHANGES.items() if strengths != ("",)]
    panels = upper.subplots(1, len(changes), sharey=True)
    bars = lower.subplots()
    for number, (model, rows) in enumerate(models.items()):
        for axes, change in zip(panels, changes, strict=True):
            plot_change(axes, change, rows, model, f"C{number % 10}")
        plot_styles(bars, rows, model, number, len(models))
    panels[0].set(ylabel="top-1 among all names", ylim=(0, 1.04))
    panels[0].legend(fontsize="small")
    bars.set(xlim=(0, 1), xlabel="top-1 among all names, trained things")
    bars.invert_yaxis()
    if len(models) > 1:
        bars.legend()
    return figure


def plot_change(
    axes: Axes, change: str, rows: Sequence[EmojiRobustness], model: str, colour: str
) -> None:
    """The trained style, and the unseen one dashed; both start at the unchanged picture."""
    for style, dashes in ((TRAINED, "-"), (UNSEEN, "--")):
        shown = [r for r in rows if r.style == style and r.change in ("none", change)]
        ticks = [str(r.strength) or "none" for r in shown]
        shares = [r.share for r in shown]
        axes.plot(ticks, shares, dashes, color=colour, marker="o", label=f"{model}, {style}")
    axes.set_title(change)


def plot_styles(
    axes: Axes, rows: Sequence[EmojiRobustness], model: str, number: int, models: int
) -> None:
    """A bar for each style, and for the greyscale of two, with the interval."""
    shown = [r for r in rows if r.change in ("none", "greyscale")]
    names = [described(r.style) + (", greyscale" if r.change != "none" else "") for r in shown]
    height = 0.8 / models
    places = np.arange(len(shown)) + height * (number - (models - 1) / 2)
    shares = np.array([r.share for r in shown])
    ends = np.array([r.interval for r in shown]).T  # (2, bars)
    axes.barh(places, shares, height, color=f"C{number % 10}", label=model)
    axes.errorbar(shares, places, xerr=abs(ends - shares), fmt="none", color="0.3", linewidth=1)
    axes.set_yticks(np.arange(len(shown)), names)
