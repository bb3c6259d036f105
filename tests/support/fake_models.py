"""Models that know what they are shown, for the graders' tests.

A picture's embedding is the sum of the vectors of the statements that the fake holds true of it.
"""

import math
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np

from miniclip.world.captions import LANGUAGES, name_count, name_pair, name_relation
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import make_scene

WIDTH = 1024  # of embeddings: wide enough for unrelated vectors to be nearly orthogonal
COUNT, SEED = 60, 1_000_003


@cache
def vector(text):
    """A unit vector of its own for each text."""
    v = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(WIDTH)
    return v / np.linalg.norm(v)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Fake:
    """Answers by what `says(scene)` holds true of a picture: a list of statements, or a vector.

    known: the scenes that it knows by their pixels; of others it knows nothing, and guesses.
    """

    name = "fake"

    def __init__(self, known, says, draw=draw_scene, text_vector=vector):
        self.scenes = {draw(scene).tobytes(): scene for scene in known}
        self.says, self.text_vector = says, text_vector
        self.shown = []

    def encode_image(self, images, normalize=False, progress=None):
        assert normalize
        assert not progress
        assert isinstance(images, Iterator)  # pictures are drawn one by one, never all at once
        return unit(np.stack([self.embed(picture.tobytes()) for picture in images]))

    def embed(self, pixels):
        scene = self.scenes.get(pixels)
        self.shown.append(scene)
        guess = np.random.default_rng(zlib.crc32(pixels)).standard_normal(WIDTH) / WIDTH**0.5
        said = [] if scene is None else self.says(scene)
        return 0.1 * guess + sum((self.text_vector(text) for text in said), np.zeros(WIDTH))

    def encode_text(self, texts, normalize=False, truncate=False, progress=None):
        assert normalize
        return unit(np.stack([self.text_vector(text) for text in texts]))


def truth(scene):
    """All that is true of a scene and may be asked, in words that this file chooses."""
    things, said = scene.things, []
    for language in LANGUAGES:
        if scene.kind == "single":
            said.append(name_pair(*things[0].pair, language))
        if scene.kind in ("single", "count"):
            said.append(name_count(things[0], len(things), language))
        if scene.kind == "relation":
            a, b = things
            said.append(name_relation(a, seen_from(a, b), b, language))
    return said


def seen_from(a, b):
    """The relation, read from the places in another way than in the package."""
    angle = math.degrees(math.atan2(a.y - b.y, a.x - b.x))  # y points down
    return ["right", "below", "left", "above"][round(angle / 90) % 4]


def scenes_of(world, count=COUNT, seed=SEED):
    return [make_scene(world, seed, number) for number in range(count)]
