"""A small world to learn from: scenes of one to three things, with everything about them known.

A `Scene` is a description, not a picture: things with shape, colour, texture, size and place, on a
background. `drawing.py` draws it, `captions.py` puts it into words. All is decided by random
generators that are made from a seed and the scene's number, so that scene 12,345 of a seed is the
same whenever and wherever it is asked for.

One fifth of the pairs of shape and colour is **held out**: never drawn or named in training. Each
shape and each colour occurs in training, but red circles, say, do not: whoever names one has put
the two words together by himself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SHAPES = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "star",
    "heart",
    "cross",
    "crescent",
    "arrow",
    "drop",
    "house",
    "flower",
)
# Colour names and the RGB that drawings scatter around.
COLOURS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (240, 215, 40),
    "green": (45, 160, 60),
    "cyan": (40, 200, 210),
    "blue": (40, 70, 210),
    "purple": (130, 50, 170),
    "pink": (245, 130, 185),
    "brown": (125, 75, 35),
    "black": (30, 30, 30),
}
TEXTURES = ("solid", "outlined", "striped", "dotted")
BACKGROUNDS = ("plain", "gradient", "noisy")  # of training; "dark" and "checkered" only in tests
UNSEEN_BACKGROUNDS = ("dark", "checkered")
STYLES = ("flat", "sketch")  # the second is kept for tests of style shift
KINDS = ("single", "count", "relation", "several")
RELATIONS = ("above", "below", "left", "right")

T = TypeVar("T")
Pair = tuple[str, str]  # (colour, shape)
COLOUR_SHAPE_PAIRS: tuple[Pair, ...] = tuple(
    (colour, shape) for colour in COLOURS for shape in SHAPES
)


def is_held_out(colour: str, shape: str) -> bool:
    """Whether this pair is never drawn or named in training: two colours of each shape are."""
    return (list(COLOURS).index(colour) + 2 * SHAPES.index(shape)) % 5 == 0


HELD_OUT = tuple(pair for pair in COLOUR_SHAPE_PAIRS if is_held_out(*pair))  # 24 of 120
SEEN = tuple(pair for pair in COLOUR_SHAPE_PAIRS if not is_held_out(*pair))


@dataclass(frozen=True)
class Thing:
    """One object. x, y: its centre; radius: half its size, all in parts of the picture's side.

    angle: in degrees, counter-clockwise from upright.
    """

    shape: str
    colour: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float = 0.0

    @property
    def pair(self) -> Pair:
        return self.colour, self.shape

    def box(self, size: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in pixels of a picture size x size: a square around the thing.

        No shape reaches out of it, whatever its angle; slender ones leave a part of it empty.
        """
        left, top = self.x - self.radius, self.y - self.radius
        right, bottom = self.x + self.radius, self.y + self.radius
        return left * size, top * size, right * size, bottom * size


@dataclass(frozen=True)
class Scene:
    """What a picture shows. kind: how many things and why (see KINDS).

    seed: the world's seed and the scene's number; details without a name follow from it too, such
    as the exact shade and the noise.
    """

    kind: str
    things: tuple[Thing, ...]
    background: str
    style: str
    seed: tuple[int, ...]

    def relations(self) -> list[tuple[int, str, int]]:
        """(i, relation, j) for all things i and j: "i above j", by the larger of both distances."""
        return [
            (i, relation_of(a, b), j)
            for i, a in enumerate(self.things)
            for j, b in enumerate(self.things)
            if i != j
        ]


def relation_of(a: Thing, b: Thing) -> str:
    """Where a is, seen from b: "above", "below", "left" or "right"."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dy) >= abs(dx):
        return "above" if dy < 0 else "below"
    return "left" if dx < 0 else "right"


@dataclass(frozen=True)
class World:
    """What may be drawn. mix: share of each of KINDS. pairs: the shape-colour pairs to draw.

    Evaluation draws from other worlds than training: held-out pairs, another style, other
    backgrounds.
    """

    pairs: tuple[Pair, ...] = SEEN
    mix: tuple[float, ...] = (0.65, 0.12, 0.15, 0.08)
    backgrounds: tuple[str, ...] = BACKGROUNDS
    style: str = "flat"
    radius: tuple[float, float] = (0.2, 0.38)  # of a single thing
    textures: tuple[str, ...] = TEXTURES

    def __post_init__(self) -> None:
        if not self.pairs or not set(self.pairs) <= set(COLOUR_SHAPE_PAIRS):
            raise ValueError(f"pairs: got {self.pairs!r}, expected pairs (colour, shape)")
        if len(self.mix) != len(KINDS) or min(self.mix) < 0 or abs(sum(self.mix) - 1) > 1e-9:
            raise ValueError(f"mix: got {self.mix}, expected shares of {KINDS} that sum to 1")
        if self.style not in STYLES:
            raise ValueError(f"style: got {self.style!r}, expected one of {', '.join(STYLES)}")


TRAINING_WORLD = World()


def single_world(pairs: tuple[Pair, ...] = COLOUR_SHAPE_PAIRS, **changes: object) -> World:
    """Scenes of a single thing, for zero-shot tests."""
    return World(pairs=pairs, mix=(1.0, 0.0, 0.0, 0.0), **changes)  # type: ignore[arg-type]


def make_scene(world: World, seed: int, number: int) -> Scene:
    """Scene `number` of a seed."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[int(np.searchsorted(np.cumsum(world.mix), rng.random(), side="right"))]
    things = {
        "single": single_thing,
        "count": same_things,
        "relation": two_things,
        "several": three_things,
    }[kind](world, rng)
    background = pick(world.backgrounds, rng)
    return Scene(kind, tuple(things), background, world.style, (seed, number))


def pick(choices: tuple[T, ...], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def single_thing(world: World, rng: np.random.Generator) -> list[Thing]:
    radius = float(rng.uniform(*world.radius))
    x, y = (float(v) for v in rng.uniform(radius, 1 - radius, 2))
    return [make_thing(pick(world.pairs, rng), (x, y, radius), world, rng)]


def same_things(world: World, rng: np.random.Generator) -> list[Thing]:
    """Two or three of one kind: "three green stars"."""
    pair, texture = pick(world.pairs, rng), pick(world.textures, rng)
    places = apart(int(rng.integers(2, 4)), rng)
    return [make_thing(pair, place, world, rng, texture) for place in places]


def two_things(world: World, rng: np.random.Generator) -> list[Thing]:
    """Two things of different colour and shape, clearly beside or above each other."""
    a, b = different_pairs(world, 2, rng)
    across = float(rng.uniform(0.42, 0.56))  # the distance that names the relation
    aside = float(rng.uniform(-0.16, 0.16))
    dx, dy = (across, aside) if rng.random() < 0.5 else (aside, across)
    if rng.random() < 0.5:
        dx, dy = -dx, -dy
    places = []
    for sign in (-0.5, 0.5):
        radius = float(rng.uniform(0.13, 0.2))
        x, y = (min(max(0.5 + sign * d, radius), 1 - radius) for d in (dx, dy))
        places.append((x, y, radius))
    return [make_thing(p, place, world, rng) for p, place in zip((a, b), places, strict=True)]


def three_things(world: World, rng: np.random.Generator) -> list[Thing]:
    """Three things of different colours and shapes."""
    pairs = different_pairs(world, 3, rng)
    return [make_thing(p, at, world, rng) for p, at in zip(pairs, apart(3, rng), strict=True)]


def different_pairs(world: World, count: int, rng: np.random.Generator) -> list[Pair]:
    """Pairs that share neither colour nor shape, as far as the world has them."""
    chosen: list[Pair] = []
    for i in rng.permutation(len(world.pairs)):
        colour, shape = world.pairs[int(i)]
        if all(colour != c and shape != s for c, s in chosen):
            chosen.append((colour, shape))
        if len(chosen) == count:
            return chosen
    raise ValueError(f"pairs: got {world.pairs}, expected {count} that share nothing")


def apart(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Places (x, y, radius) that do not overlap: different quarters of the picture."""
    quarters = rng.permutation(4)[:count]
    places = []
    for quarter in quarters:
        radius = float(rng.uniform(0.12, 0.19))
        slack = 0.24 - radius
        dx, dy = (float(v) for v in rng.uniform(-slack, slack, 2))
        x, y = 0.25 + 0.5 * (int(quarter) % 2), 0.25 + 0.5 * (int(quarter) // 2)
        places.append((x + dx, y + dy, radius))
    return places


def make_thing(
    pair: Pair,
    place: tuple[float, float, float],
    world: World,
    rng: np.random.Generator,
    texture: str | None = None,
) -> Thing:
    colour, shape = pair
    x, y, radius = place
    angle = float(rng.uniform(-12, 12))
    return Thing(shape, colour, texture or pick(world.textures, rng), x, y, radius, angle)
