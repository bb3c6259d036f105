"""Scenes as pictures: drawn by Pillow three times too large, then averaged down (anti-aliasing)."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from miniclip.ops.array import Array
from miniclip.world.scenes import COLOURS, Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image

RESOLUTION = 64
LARGER = 3  # pixels of the drawing for one of the picture, along a side
JITTER = 14  # how far a shade may be from its colour's RGB

Colour: TypeAlias = tuple[int, int, int]


def draw_scene(scene: Scene, size: int = RESOLUTION) -> Image:
    """The picture of a scene: RGB, size x size pixels. The same scene gives the same pixels."""
    rng = np.random.default_rng([*scene.seed, 1])  # details without a name
    canvas = draw_background(scene.background, size, rng)
    for thing in scene.things:
        (draw_sketched if scene.style == "sketch" else draw_flat)(canvas, thing, rng)
    return canvas.reduce(LARGER)


def draw_array(scene: Scene, size: int = RESOLUTION) -> Array:
    """The same picture as an array of uint8, (size, size, 3)."""
    return np.asarray(draw_scene(scene, size))


# ------------------------------------------------------------------------ backgrounds


def draw_background(kind: str, size: int, rng: np.random.Generator) -> Image:
    """RGB, LARGER * size pixels along a side."""
    from PIL import Image

    pixels = BACKGROUND_PIXELS[kind](size, rng)  # (size, size, 3) or (1, 1, 3)
    small = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")
    return small.resize((LARGER * size, LARGER * size), Image.Resampling.NEAREST)


def pastel(rng: np.random.Generator) -> Array:
    """A light colour, far from all that things have."""
    return rng.uniform(185, 255, (1, 1, 3))


def gradient(size: int, rng: np.random.Generator) -> Array:
    """From one light colour to another, along a slope."""
    slope = rng.uniform(0, 2 * math.pi)
    line = np.linspace(-1, 1, size)
    along = math.cos(slope) * line[None, :] + math.sin(slope) * line[:, None]
    share = ((along + math.sqrt(2)) / (2 * math.sqrt(2)))[:, :, None]
    return share * pastel(rng) + (1 - share) * pastel(rng)


def noisy(size: int, rng: np.random.Generator) -> Array:
    return pastel(rng) + rng.standard_normal((size, size, 3), np.float32) * rng.uniform(6, 20)


def dark(size: int, rng: np.random.Generator) -> Array:
    """Never drawn in training: darker than any background there."""
    return np.broadcast_to(rng.uniform(70, 125, (1, 1, 3)), (size, size, 3))


def checkered(size: int, rng: np.random.Generator) -> Array:
    """Never drawn in training: a chessboard of two light colours."""
    field = int(rng.integers(5, 10))
    at = np.arange(size) // field
    board = ((at[:, None] + at[None, :]) % 2)[:, :, None]
    return board * pastel(rng) + (1 - board) * rng.uniform(140, 255, (1, 1, 3))


BACKGROUND_PIXELS = {
    "plain": lambda size, rng: pastel(rng),
    "gradient": gradient,
    "noisy": noisy,
    "dark": dark,
    "checkered": checkered,
}

# ------------------------------------------------------------------------ things


def shade_of(colour: str, rng: np.random.Generator) -> Colour:
    return as_colour(np.array(COLOURS[colour]) + rng.integers(-JITTER, JITTER + 1, 3))


def as_colour(values: Array) -> Colour:
    r, g, b = (int(v) for v in np.clip(values, 0, 255))
    return r, g, b


def lighter(colour: Colour, share: float = 0.65) -> Colour:
    """Mixed with white: the stripes and dots."""
    return as_colour(np.array(colour) * (1 - share) + 255 * share)


def draw_flat(canvas: Image, thing: Thing, rng: np.random.Generator) -> None:
    """The style of training: one even shade, no outline."""
    from PIL import Image, ImageChops, ImageDraw

    shade = shade_of(thing.colour, rng)
    corners = place(outline_of(thing.shape), thing, canvas.width)
    if thing.texture == "outlined":
        width = max(LARGER, round(0.28 * thing.radius * canvas.width))
        draw_line(canvas, corners, shade, width)
        return
    # only the square around the thing is painted: shapes are small, and masks cost by the pixel
    left, top, side = box_around(thing, canvas.width)
    inside = Image.new("L", (side, side))
    ImageDraw.Draw(inside).polygon([(x - left, y - top) for x, y in corners], 255)
    canvas.paste(shade, (left, top), inside)
    if thing.texture != "solid":
        pattern = draw_pattern(thing.texture, side, rng)
        canvas.paste(lighter(shade), (left, top), ImageChops.darker(inside, pattern))


def box_around(thing: Thing, width: int) -> tuple[int, int, int]:
    """Left, top and side of the square that holds a thing, in pixels of the drawing."""
    left, top, _, _ = thing.box(width)
    return math.floor(left), math.floor(top), math.ceil(2 * thing.radius * width) + 2


def draw_line(canvas: Image, corners: list[tuple[float, float]], shade: Colour, width: int) -> None:
    """A closed line with round joints; its first piece is drawn again for the last joint."""
    from PIL import ImageDraw

    ImageDraw.Draw(canvas).line([*corners, *corners[:2]], shade, width, joint="curve")


def draw_sketched(canvas: Image, thing: Thing, rng: np.random.Generator) -> None:
    """The style kept for tests: a trembling dark line around a filling that it does not follow."""
    draw_flat(canvas, thing, rng)
    outline = outline_of(thing.shape)
    shaken = outline + rng.normal(0, 0.03, outline.shape)
    line = as_colour(np.array(COLOURS[thing.colour]) * 0.45)
    draw_line(canvas, place(shaken, thing, canvas.width), line, 2 * LARGER)


def draw_pattern(texture: str, side: int, rng: np.random.Generator) -> Image:
    """White where a striped or dotted thing is lighter: "L", side x side pixels."""
    from PIL import Image, ImageDraw

    pattern = Image.new("L", (side, side))
    pen = ImageDraw.Draw(pattern)
    step = 0.21 * side
    shift = float(rng.uniform(0, step))
    if texture == "striped":
        for at in np.arange(shift - side, side, step):  # slanted, unlike the sides of a square
            pen.line((at, side, at + side, 0), 255, max(2, round(0.4 * step)))
        return pattern
    dot = 0.26 * step
    for row, y in enumerate(np.arange(shift, side, step)):
        for x in np.arange(shift, side, step) - (step / 2 if row % 2 else 0.0):
            pen.ellipse((x - dot, y - dot, x + dot, y + dot), 255)
    return pattern


def place(outline: Array, thing: Thing, width: int) -> list[tuple[float, float]]:
    """Corners in pixels, turned and scaled: (N, 2) in [-1, 1] -> N pairs."""
    turn = math.radians(-thing.angle)  # y points down
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    turned = outline @ rotation.T
    turned = turned / max(1.0, float(np.abs(turned).max()))  # stays inside its box
    corners = (turned * thing.radius + [thing.x, thing.y]) * width
    return [(float(x), float(y)) for x, y in corners]


# ------------------------------------------------------------------------ outlines


@cache
def outline_of(shape: str) -> Array:
    """The corners of a shape, (N, 2): x to the right, y down, within [-1, 1]."""
    return np.array(OUTLINES[shape](), dtype=float)


def arc(start: float, stop: float, radius: float = 1.0, points: int = 40) -> Array:
    """Points on a circle around 0, (points, 2); degrees, clockwise from the right."""
    angle = np.radians(np.linspace(start, stop, points))
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def star() -> Array:
    angles = np.radians(-90 + 36 * np.arange(10))
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1) + [0, 0.05]


def heart() -> Array:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return np.stack([x, y], axis=1)


def crescent() -> Array:
    """A disc without the part that a second disc to its right covers."""
    outer = arc(50, 310)
    inner = arc(285, 75, 0.86) + np.array([0.42, 0.0])
    return np.concatenate([outer, inner])


def flower() -> Array:
    """Five petals: the radius swings five times around."""
    t = np.linspace(0, 2 * math.pi, 90, endpoint=False) - math.pi / 2
    radius = 0.68 + 0.32 * np.cos(5 * (t + math.pi / 2))
    return radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)


def drop() -> Array:
    """A round foot and a point above it."""
    return np.concatenate([[[0.0, -1.0]], arc(-25, 205, 0.62) + np.array([0.0, 0.38])])


OUTLINES = {
    "circle": lambda: arc(0, 360, 0.95, 48)[:-1],
    "square": lambda: [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": lambda: [(0, -0.95), (0.98, 0.8), (-0.98, 0.8)],
    "diamond": lambda: [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],
    "star": star,
    "heart": heart,
    "cross": lambda: [
        *[(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)],
        *[(0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    ],
    "crescent": crescent,
    "arrow": lambda: [
        *[(-1, -0.25), (0.1, -0.25), (0.1, -0.8), (1, 0)],
        *[(0.1, 0.8), (0.1, 0.25), (-1, 0.25)],
    ],
    "drop": drop,
    "house": lambda: [
        *[(0, -1), (1, -0.15), (0.72, -0.15), (0.72, 0.9)],
        *[(-0.72, 0.9), (-0.72, -0.15), (-1, -0.15)],
    ],
    "flower": flower,
}
