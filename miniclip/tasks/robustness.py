"""What changes of the picture do to zero-shot: noise, blur, JPEG, occlusion, a new background.

Every row asks the same question of the same scenes: which of 120 names fits the one thing that is
drawn? Only the picture differs. A change draws its noise or its place from the scene's own seed, so
that its strengths are comparable: the same noise, only stronger.

Source: CLIP section 3.3 (robustness to natural shifts); Hendrycks and Dietterich 2019 (ImageNet-C,
arXiv 1903.12261) for corruptions in growing strengths.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tables import markdown_table, text_table
from miniclip.tasks.evaluate import (
    EVALUATION_SEED,
    SINGLE_WORLDS,
    answer_pairs,
    check_count,
    embed_pairs,
    embed_scenes,
    make_scenes,
)
from miniclip.tasks.evaluation_result import CHANCE, Table, percent
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import UNSEEN_BACKGROUNDS, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

Strength = float | str
GREY = (128, 128, 128)  # of the square that covers a part
STREAM = 5  # of a scene's random numbers: 1 to 4 belong to drawing and training

# What is changed, and how much:
STRENGTHS: dict[str, tuple[Strength, ...]] = {
    "none": ("",),
    "noise": (0.05, 0.1, 0.2),  # standard deviation, of pixels from 0 to 1
    "blur": (1, 2, 3),  # standard deviation, in pixels
    "jpeg": (50, 20, 10),  # quality
    "occlusion": (0.1, 0.2, 0.3),  # share of the picture
    "background": UNSEEN_BACKGROUNDS,
    "style": ("sketch",),
}


@dataclass(frozen=True)
class RobustnessRow:
    """Top-1 under one change. seen, held_out: share of `count` scenes each."""

    change: str
    strength: Strength
    seen: float
    held_out: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def robustness(
    pipeline: Pipeline, count: int = 600, seed: int = EVALUATION_SEED
) -> list[RobustnessRow]:
    """Zero-shot in English on `count` scenes of seen and of held-out pairs, under every change.

    The scenes are the first of those that `evaluate` draws from the same seed.
    Raises ValueError naming the argument.
    """
    check_count(count)
    names = embed_pairs(pipeline)  # (120, E)
    scenes = {pairs: make_scenes(world, count, seed) for pairs, world in SINGLE_WORLDS.items()}
    rows = []
    for change, strengths in STRENGTHS.items():
        for strength in strengths:
            draw = partial(draw_changed, change=change, strength=strength)
            seen, held_out = (
                top1(pipeline, scenes[pairs], names, draw) for pairs in ("seen", "held-out")
            )
            rows.append(RobustnessRow(change, strength, seen, held_out, count))
    return rows


def top1(
    pipeline: Pipeline, scenes: Sequence[Scene], names: Array, draw: Callable[[Scene], Image]
) -> float:
    """The share of scenes whose pair is named rightly; names: embeddings (120, E)."""
    answers = answer_pairs(embed_scenes(pipeline, scenes, draw), names)
    right = [a == scene.things[0].pair for a, scene in zip(answers, scenes, strict=True)]
    return float(np.mean(right))


# ------------------------------------------------------------------------ the changes


def draw_changed(scene: Scene, change: str, strength: Strength) -> Image:
    """The picture of a scene under a change: RGB, of the usual size. The same scene, change and
    strength give the same pixels. Raises ValueError for an unknown change."""
    if change == "background":
        return draw_scene(replace(scene, background=str(strength)))
    if change == "style":
        return draw_scene(replace(scene, style=str(strength)))
    if change not in PICTURE_CHANGES:
        raise ValueError(f"change: got {change!r}, expected one of {', '.join(STRENGTHS)}")
    rng = np.random.default_rng([*scene.seed, STREAM])
    return PICTURE_CHANGES[change](draw_scene(scene), strength, rng)


def unchanged(picture: Image, strength: Strength, rng: np.random.Generator) -> Image:
    return picture


def add_noise(picture: Image, strength: Strength, rng: np.random.Generator) -> Image:
    """Gaussian noise on every pixel and channel; strength: its deviation, pixels in [0, 1]."""
    from PIL import Image

    pixels = np.asarray(picture, np.float32)  # (H, W, 3), 0 to 255
    noisy = pixels + 255 * float(strength) * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def blur(picture: Image, strength: Strength, rng: np.random.Generator) -> Image:
    """Gaussian blur; strength: its deviation in pixels."""
    from PIL import ImageFilter

    return picture.filter(ImageFilter.GaussianBlur(float(strength)))


def compress(picture: Image, strength: Strength, rng: np.random.Generator) -> Image:
    """Written as a JPEG and read again; strength: its quality, 1 to 95."""
    from PIL import Image

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(strength))
    return Image.open(buffer).convert("RGB")


def occlude(picture: Image, strength: Strength, rng: np.random.Generator) -> Image:
    """A grey square somewhere; strength: the share of the picture that it covers."""
    covered = picture.copy()
    side = round(picture.width * float(strength) ** 0.5)
    left, top = (int(v) for v in rng.integers(0, picture.width - side + 1, 2))
    covered.paste(GREY, (left, top, left + side, top + side))
    return covered


PICTURE_CHANGES: dict[str, Callable[[Image, Strength, np.random.Generator], Image]] = {
    "none": unchanged,
    "noise": add_noise,
    "blur": blur,
    "jpeg": compress,
    "occlusion": occlude,
}


# ------------------------------------------------------------------------ showing


def as_text(rows: Sequence[RobustnessRow]) -> str:
    """The rows as a table for a terminal."""
    return text_table(*table_of(rows))


def as_markdown(rows: Sequence[RobustnessRow]) -> str:
    """The rows as a table for a model card."""
    return markdown_table(*table_of(rows))


def table_of(rows: Sequence[RobustnessRow]) -> Table:
    """Headings and lines."""
    lines = [[r.change, str(r.strength), percent(r.seen), percent(r.held_out)] for r in rows]
    return ["change", "strength", "seen", "held-out"], lines


def plot_robustness(models: Mapping[str, Sequence[RobustnessRow]], path: str | Path) -> None:
    """Draw the rows of some models into a picture file; models: name -> what `robustness` gave.

    Raises ValueError for no models, or for rows that are not those of STRENGTHS.
    """
    figure_of(models).savefig(path, dpi=110)


def figure_of(models: Mapping[str, Sequence[RobustnessRow]]) -> Figure:
    """A panel for each change: top-1 over strength, a colour for each model.

    Strengths that are numbers have an order, and a line through them; backgrounds and styles have
    none, and stand as points side by side.
    """
    from matplotlib.figure import Figure

    check_models(models)
    changes = [change for change in STRENGTHS if change != "none"]
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(2, (len(changes) + 1) // 2, sharey=True)
    for axes, change in zip(panels.flat, changes, strict=True):
        for number, (model, rows) in enumerate(models.items()):
            plot_change(axes, change, rows, model, f"C{number % 10}")
        axes.axhline(CHANCE["pair"], color="0.6", linewidth=0.8, linestyle=":")
        axes.set_title(change)
        axes.margins(x=0.1)
    for axes in panels[:, 0]:
        axes.set_ylabel("zero-shot top-1")
    panels[0, 0].set_ylim(0, 1.04)  # whole markers at 1
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def plot_change(
    axes: Axes, change: str, rows: Sequence[RobustnessRow], model: str, colour: str
) -> None:
    """Seen pairs, and held-out ones dashed or hollow. Both start at the unchanged picture."""
    shown = [row for wanted in ("none", change) for row in rows if row.change == wanted]
    ticks = [str(row.strength) or "none" for row in shown]
    in_order = not any(isinstance(strength, str) for strength in STRENGTHS[change])
    solid, dashed = ("-", "--") if in_order else ("none", "none")
    seen, held_out = [row.seen for row in shown], [row.held_out for row in shown]
    style: dict[str, Any] = {"color": colour, "marker": "o"}
    axes.plot(ticks, seen, linestyle=solid, label=f"{model}, seen", **style)
    style["markerfacecolor"] = "white"
    axes.plot(ticks, held_out, linestyle=dashed, label=f"{model}, held out", **style)


def check_models(models: Mapping[str, Sequence[RobustnessRow]]) -> None:
    """Raise ValueError unless there are models, each with all rows."""
    if not models:
        raise ValueError("models: got none, expected at least one")
    wanted = [(change, strength) for change, all_of in STRENGTHS.items() for strength in all_of]
    for model, rows in models.items():
        if [(row.change, row.strength) for row in rows] != wanted:
            raise ValueError(
                f"models[{model!r}]: got {len(rows)} rows, expected the {len(wanted)} of robustness"
            )
