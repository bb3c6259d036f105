"""Linear probes: what frozen embeddings know about a picture, as far as a plane can tell it.

A probe is logistic regression on embeddings that stay as they are. It is asked for what no caption
of the drawn world names, so that words cannot have taught it:

    place        in which of 3 x 3 cells the centre of the one thing is     chance 1/9
    size         small, middle or large, a third of the sizes each          chance 1/3
    background   plain, gradient or noisy                                   chance 1/3

The same probe on raw pixels (64 x 64 x 3 numbers) and on pixels averaged down to 16 x 16 x 3 says
how much of it any linear reader sees without a model. All of it on few examples of each class, and
on many.

Source: CLIP section 3.2 and appendix A.3 (L-BFGS, at most 1,000 steps, the strength of L2 chosen on
a validation split); figure 6 for few examples. Unlike there, the features are the embeddings behind
the last projection, they are standardised, and validation pictures are not trained on in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tables import markdown_table, text_table
from miniclip.tasks.evaluate import SIZES, check_count, embed_scenes, size_of
from miniclip.tasks.evaluation_result import Table
from miniclip.tasks.linear_probe import LinearProbe, Standardised
from miniclip.world.drawing import draw_array
from miniclip.world.scenes import BACKGROUNDS, SEEN, Scene, World, make_scene, single_world

PROBE_SEED = 2_000_003  # neither of training nor of evaluation
SHOTS = (1, 2, 4, 8, 16)  # examples of each class
RAREST = 200  # a class is looked for in this many times the scenes that equal shares would take
DRAWS = 5  # of few examples: which they are matters
L2_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def probe(
    features_train: Array,
    labels_train: Any,
    features_validation: Array,
    labels_validation: Any,
    l2s: Sequence[float] = L2_GRID,
) -> LinearProbe:
    """The probe whose strength of L2 is best on the validation examples; of equals the strongest.

    features_*: (N, D) numbers. labels_*: N integers or strings. Raises ValueError naming the
    argument.
    """
    if not len(l2s):
        raise ValueError("l2s: got none, expected at least one strength")
    examples = Standardised.of(features_train, labels_train)
    probes = [LinearProbe(l2).fit_to(examples) for l2 in sorted(l2s, reverse=True)]
    scores = [p.score(features_validation, labels_validation) for p in probes]
    return probes[int(np.argmax(scores))]  # the first of equals


# ------------------------------------------------------------------------ the report


@dataclass(frozen=True)
class Attribute:
    """Something that a scene of one thing has: the world to draw, how to read it, its classes."""

    name: str
    world: World
    read: Callable[[Scene], int]
    classes: int

    @property
    def chance(self) -> float:
        return 1 / self.classes


def cell_of(scene: Scene) -> int:
    """0 to 8: which of 3 x 3 cells holds the centre of the thing, row by row."""
    thing = scene.things[0]
    return 3 * int(3 * thing.y) + int(3 * thing.x)


def third_of(scene: Scene) -> int:
    return SIZES.index(size_of(scene.things[0]))


def background_of(scene: Scene) -> int:
    return BACKGROUNDS.index(scene.background)


ATTRIBUTES = (
    # All of one size: large things never lie in the corners, so that size would tell the place.
    Attribute("place", single_world(SEEN, radius=(0.2, 0.2)), cell_of, 9),
    Attribute("size", single_world(SEEN), third_of, len(SIZES)),
    Attribute("background", single_world(SEEN), background_of, len(BACKGROUNDS)),
)


@dataclass(frozen=True)
class ProbeRow:
    """accuracy: the mean over `draws` draws of `shots` examples a class; deviation: over draws.

    features: "embedding", "pixels" or "small pixels". With one draw the deviation is 0.
    """

    attribute: str
    features: str
    shots: int
    accuracy: float
    deviation: float
    draws: int
    chance: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Examples:
    """labels: (N,). features: name -> (N, D)."""

    labels: Array
    features: dict[str, Array]


def probe_report(pipeline: Pipeline, count: int = 100, seed: int = PROBE_SEED) -> list[ProbeRow]:
    """Probe embeddings and pixels for each of ATTRIBUTES.

    count: examples of each class to train on at most, and as many to test; half as many to
    validate. Fewer are drawn from them: SHOTS below count, DRAWS times each. seed: of the scenes.
    Raises ValueError naming the argument.
    """
    check_count(count, 2)
    rows = []
    for attribute in ATTRIBUTES:
        train, test, validation = (
            make_examples(pipeline, attribute, n, seed + split_number)
            for split_number, n in enumerate((count, count, max(1, count // 2)))
        )
        for features in train.features:
            for shots in [n for n in SHOTS if n < count] + [count]:
                scores = [
                    score_draw(train, validation, test, features, shots, [seed, shots, draw])
                    for draw in range(DRAWS if shots < count else 1)
                ]
                rows.append(make_row(attribute, features, shots, scores))
    return rows


def make_row(attribute: Attribute, features: str, shots: int, scores: list[float]) -> ProbeRow:
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    mean = float(np.mean(scores))
    return ProbeRow(attribute.name, features, shots, mean, deviation, len(scores), attribute.chance)


def make_examples(pipeline: Pipeline, attribute: Attribute, count: int, seed: int) -> Examples:
    """`count` examples of each class, with all kinds of features."""
    scenes = balanced_scenes(attribute, count, seed)
    pixels = np.stack([draw_array(scene) for scene in scenes])  # (N, H, W, 3), uint8
    features = {
        "embedding": embed_scenes(pipeline, scenes),  # (N, E)
        "pixels": pixels.reshape(len(scenes), -1),  # (N, 12288)
        "small pixels": averaged_down(pixels, 16).reshape(len(scenes), -1),  # (N, 768)
    }
    return Examples(np.array([attribute.read(scene) for scene in scenes]), features)


def balanced_scenes(attribute: Attribute, count: int, seed: int) -> list[Scene]:
    """The first `count` scenes of each class of a seed, in their order.

    Raises ValueError naming the classes that hardly ever come.
    """
    missing = dict.fromkeys(range(attribute.classes), count)
    scenes: list[Scene] = []
    for number in range(RAREST * attribute.classes * count):
        scene = make_scene(attribute.world, seed, number)
        label = attribute.read(scene)
        if missing[label]:
            missing[label] -= 1
            scenes.append(scene)
            if not any(missing.values()):
                return scenes
    rare = [label for label, wanted in missing.items() if wanted]
    raise ValueError(f"attribute: {attribute.name} is hardly ever one of {rare}, expected all")


def averaged_down(pixels: Array, side: int) -> Array:
    """(N, H, H, 3) -> (N, side, side, 3), each number the mean of a block."""
    n, height, width, channels = pixels.shape
    blocks = pixels.reshape(n, side, height // side, side, width // side, channels)
    return blocks.mean(axis=(2, 4))


def score_draw(
    train: Examples,
    validation: Examples,
    test: Examples,
    features: str,
    shots: int,
    seed: Sequence[int],
) -> float:
    """Fit on `shots` examples of each class, chosen by the seed, and score on the test examples."""
    chosen = choose_examples(train.labels, shots, np.random.default_rng(seed))
    fitted = probe(
        train.features[features][chosen],
        train.labels[chosen],
        validation.features[features],
        validation.labels,
    )
    return fitted.score(test.features[features], test.labels)


def choose_examples(labels: Array, shots: int, rng: np.random.Generator) -> Array:
    """The places of `shots` examples of each class, different ones: (classes * shots,)."""
    own = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.permutation(places)[:shots] for places in own])


def as_text(rows: Sequence[ProbeRow]) -> str:
    """The rows as a table for a terminal."""
    return text_table(*table_of(rows))


def as_markdown(rows: Sequence[ProbeRow]) -> str:
    """The rows as a table for a model card."""
    return markdown_table(*table_of(rows))


def table_of(rows: Sequence[ProbeRow]) -> Table:
    """A line for each attribute and kind of features, a column for each number of examples."""
    shots = list(dict.fromkeys(row.shots for row in rows))
    lines: dict[tuple[str, str], dict[int, str]] = {}
    chance = {row.attribute: row.chance for row in rows}
    for row in rows:
        text = f"{row.accuracy:.1%}" + (f" ± {row.deviation:.1%}" if row.draws > 1 else "")
        lines.setdefault((row.attribute, row.features), {})[row.shots] = text
    headings = ["probed for", "from", *(str(n) for n in shots), "chance"]
    return headings, [
        [attribute, features, *(cells.get(n, "") for n in shots), f"{chance[attribute]:.1%}"]
        for (attribute, features), cells in lines.items()
    ]
