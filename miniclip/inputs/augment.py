"""Augmentation: the same picture, a little different every time, so that a model learns the thing
and not its one drawing. For training alone.

A change is drawn for every picture (`Augment.draw`) and then made (`apply`), in this order:

1. geometry    one affine map: size, aspect, shear, rotation, place   `sample`
2. colour      one 3 x 4 matrix: hue, saturation, contrast, brightness   `recolour`
3. ground      what is transparent shows a colour   `over`
4. blur, and a patch that covers a part: for those that draw them   `blur`, `cover`

Nothing is mirrored: left and right carry meaning (an arrow, "left of", a clock). This is the
version to read; cpu/augment.py does the same in one loop.

Source: the kinds of changes as in Cubuk et al. 2020 (RandAugment, arXiv 1909.13719), but in one
affine map and one colour matrix; the patch as in Zhong et al. 2017 (Random Erasing, arXiv
1708.04896).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

PLAIN = 60 / 64  # of the picture's side: how large a thing is drawn where nothing changes
LUMA = np.array([0.299, 0.587, 0.114])  # how bright red, green and blue are
RADIUS = 3  # pixels that a blur reaches
STREAM = 6  # of the random numbers: 1 to 5 belong to scenes, captions and orders


@dataclass(frozen=True)
class Augment:
    """How far a change may go at strength 1. At strength 0 nothing changes.

    smallest, largest: the side of the picture's content, as a share of the result's. aspect: 0.2
    is up to 1.2 times as wide as high, or the other way. rotation: degrees to each side. shear:
    how far the upper edge moves, in halves of the side. shift: share of the side. brightness:
    added. contrast, saturation: 0.3 is a factor of 0.7 to 1.3. hue: turns of the colour wheel.
    grey, ground, blurred, covered: shares of pictures that lose their colours, stand on a coloured
    ground, are blurred, and have a part covered.
    Raises ValueError naming the field.
    """

    smallest: float = 0.55
    largest: float = 1.1
    aspect: float = 0.25
    rotation: float = 15.0
    shear: float = 0.15
    shift: float = 0.12
    brightness: float = 0.2
    contrast: float = 0.35
    saturation: float = 0.6
    hue: float = 0.06
    grey: float = 0.1
    ground: float = 0.5
    blurred: float = 0.2
    covered: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise ValueError(f"{field.name}: got {value!r}, expected a number from 0 on")
        for name in ("grey", "ground", "blurred", "covered"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected a share up to 1")
        if not 0 < self.smallest <= self.largest:
            raise ValueError(f"smallest: got {self.smallest!r}, expected above 0, up to `largest`")

    def draw(self, strength: float, seed: Sequence[int], plain: float = PLAIN) -> Change:
        """The change of one picture; the same strength and seed give the same one.

        strength: 0 to 1, times every range and share. seed: such as [seed, step, place in batch].
        plain: the size of the picture's content where nothing changes.
        """
        rng = np.random.default_rng([*seed, STREAM])
        u = rng.uniform(-1, 1, 10)  # always as many numbers, whatever they are used for
        chance = rng.uniform(0, 1, 4)
        ground, patch, box = rng.uniform(0, 1, (3, 3))
        s = strength
        drawn = plain + s * (self._size(u[0], plain) - plain)
        stretch = (1 + s * self.aspect) ** (u[1] / 2)
        matrix = affine(
            (drawn * stretch, drawn / stretch),
            s * self.shear * u[2],
            math.radians(s * self.rotation * u[3]),
            (s * self.shift * 2 * u[4], s * self.shift * 2 * u[5]),
        )
        colour = colour_matrix(
            s * self.hue * u[6],
            0.0 if chance[0] < s * self.grey else 1 + s * self.saturation * u[7],
            1 + s * self.contrast * u[8],
            s * self.brightness * u[9],
        )
        is_coloured = chance[1] < s * self.ground
        sigma = 0.4 + 0.8 * abs(u[2]) if chance[2] < s * self.blurred else 0.0
        covers = chance[3] < s * self.covered
        return Change(
            matrix.astype(np.float32),
            colour.astype(np.float32),
            (0.4 + 0.6 * ground if is_coloured else np.ones(3)).astype(np.float32),
            np.float32(sigma),
            (box_of(box) if covers else np.zeros(4)).astype(np.float32),
            patch.astype(np.float32),
        )

    def _size(self, u: float, plain: float) -> float:
        """From the smallest to the largest size; the plain one, or the nearest to it, for u = 0."""
        middle = min(max(plain, self.smallest), self.largest)
        end = self.largest if u > 0 else self.smallest
        return middle + abs(u) * (end - middle)


@dataclass(frozen=True)
class Change:
    """What happens to one picture; all float32.

    matrix: (2, 3), from a place in the result to the place in the picture that is seen there, both
    from -1 to 1. colour: (3, 4), on red, green, blue and 1, from 0 to 1. ground: (3,). sigma: of
    the blur in pixels, 0 for none. box: (4,) left, top, right, bottom of the patch, as shares.
    patch: (3,), its colour.
    """

    matrix: np.ndarray
    colour: np.ndarray
    ground: np.ndarray
    sigma: np.float32
    box: np.ndarray
    patch: np.ndarray


# ------------------------------------------------------------------------ drawing a change


def affine(
    scale: tuple[float, float], shear: float, angle: float, shift: tuple[float, float]
) -> np.ndarray:
    """(2, 3): from the result back to the picture, where the picture is scaled, sheared, turned and
    moved, in this order."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag(scale)  # (2, 2)
    back = np.linalg.inv(forward)
    return np.column_stack([back, -back @ np.array(shift)])


def colour_matrix(hue: float, saturation: float, contrast: float, brightness: float) -> np.ndarray:
    """(3, 4): turned around the grey axis, then farther from or nearer to grey, then contrast
    around the middle, then brighter. hue: in turns."""
    grey = np.tile(LUMA, (3, 1))  # every channel becomes the brightness
    linear = contrast * (grey + saturation * (np.eye(3) - grey)) @ turn_of_hue(hue)
    offset = 0.5 * (1 - contrast) + brightness
    return np.column_stack([linear, np.full(3, offset)])


def turn_of_hue(turns: float) -> np.ndarray:
    """(3, 3): a rotation around the axis of the greys, which stay as they are (Rodrigues)."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    axis = np.full((3, 3), 1 / 3)  # the axis (1, 1, 1) / sqrt(3), times itself
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return cos * np.eye(3) + sin * across + (1 - cos) * axis


def box_of(numbers: np.ndarray) -> np.ndarray:
    """(3,) from 0 to 1 -> left, top, right, bottom: a square of 0.15 to 0.4 of the side."""
    side = 0.15 + 0.25 * numbers[0]
    left, top = (1 - side) * numbers[1:]
    return np.array([left, top, left + side, top + side])


# ------------------------------------------------------------------------ making it


def apply(square: np.ndarray, change: Change, size: int) -> np.ndarray:
    """A picture under a change: float32 (size, size, 3) from 0 to 1.

    square: uint8 (S, S, 4), premultiplied, from `square.visible_square`.
    """
    seen = sample(square, change.matrix, size)  # (size, size, 4)
    picture = over(recolour(seen, change.colour), seen[..., 3:], change.ground)
    if change.sigma > 0:
        picture = blur(picture, float(change.sigma))
    return cover(picture, change.box, change.patch)


def sample(square: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The picture through an affine map: float32 (size, size, 4). Between pixels, bilinear."""
    n = len(square)
    padded = np.zeros((n + 2, n + 2, 4), np.float32)  # what lies outside is transparent
    padded[1:-1, 1:-1] = square / np.float32(255)
    places = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1  # (size,), -1 to 1
    x, y = places[None, :], places[:, None]
    back_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]  # (size, size)
    back_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    column, across = whole_and_part((back_x + 1) * n / 2 - 0.5, n)
    row, down = whole_and_part((back_y + 1) * n / 2 - 0.5, n)
    upper = (1 - across) * padded[row, column] + across * padded[row, column + 1]
    lower = (1 - across) * padded[row + 1, column] + across * padded[row + 1, column + 1]
    result: np.ndarray = (1 - down) * upper + down * lower
    return result


def whole_and_part(place: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in pixels, 0 the middle of the first, -> the neighbour before, in a picture with one
    pixel more on each side, and how far beyond it, (..., 1). What is farther out is on the edge."""
    inside = np.clip(place, -1, n)
    whole = np.minimum(np.floor(inside), n - 1)
    return whole.astype(np.int64) + 1, (inside - whole)[..., None]


def recolour(seen: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Premultiplied colours (..., 4) -> (..., 3), premultiplied: the added part counts by alpha."""
    alpha = seen[..., 3:]
    changed = seen[..., :3] @ colour[:, :3].T + alpha * colour[:, 3]
    return np.clip(changed, 0, alpha)


def over(colours: np.ndarray, alpha: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """A premultiplied picture on a ground of one colour."""
    picture: np.ndarray = colours + (1 - alpha) * ground
    return picture


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian, first along rows, then along columns; the edge goes on outside."""
    weights = blur_weights(sigma)
    for axis in (1, 0):
        width = [(RADIUS, RADIUS) if a == axis else (0, 0) for a in range(3)]
        wide = np.pad(picture, width, mode="edge")
        n = picture.shape[axis]
        shifted = [np.take(wide, range(k, k + n), axis) for k in range(2 * RADIUS + 1)]
        picture = sum(w * part for w, part in zip(weights, shifted, strict=True))
    return picture


def blur_weights(sigma: float) -> np.ndarray:
    """(2 RADIUS + 1,), float32, of sum 1."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / sigma) ** 2)
    normed: np.ndarray = (weights / weights.sum()).astype(np.float32)
    return normed


def cover(picture: np.ndarray, box: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """A patch of one colour over a part; box: shares of the side, rounded to pixels."""
    n = len(picture)
    left, top, right, bottom = (int(edge * n + 0.5) for edge in box)
    covered = picture.copy()
    covered[top:bottom, left:right] = patch
    return covered


NO_CHANGE = Augment().draw(0.0, [0])
