"""Scenes of every kind and world as they were when the shipped models learned from them.

    python tests/support/stored_world.py        # writes tests/world/stored.npz and stored.json anew

A seed promises the same scene, the same words and the same pixels for ever: models, cards and
figures rest on it. Whoever changes that on purpose trains the models again, and then runs this.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from miniclip.world.captions import LANGUAGES, caption
from miniclip.world.drawing import draw_array
from miniclip.world.scenes import (
    HELD_OUT,
    SHAPES,
    TEXTURES,
    TRAINING_WORLD,
    World,
    make_scene,
    single_world,
)

FOLDER = Path(__file__).parents[1] / "world"
WORLDS = {
    "training": TRAINING_WORLD,
    "held out": World(pairs=HELD_OUT, mix=(0.25, 0.25, 0.25, 0.25)),
    "sketch": World(style="sketch"),
    "dark": single_world(backgrounds=("dark",)),
    "checkered": single_world(backgrounds=("checkered",)),
    "large": single_world(backgrounds=("plain",), radius=(0.38, 0.4)),
}
COUNTS = {"training": 40, "held out": 16, "sketch": 12, "dark": 3, "checkered": 3, "large": 3}


def scenes():
    """(name, scene), and for each shape and texture one upright thing on a plain ground."""
    for name, world in WORLDS.items():
        for number in range(COUNTS[name]):
            yield f"{name} {number}", make_scene(world, 20, number)
    for i, shape in enumerate(SHAPES):
        textures = TEXTURES if shape == "square" else TEXTURES[i % 4 :][:1]
        for texture in textures:
            world = single_world((("blue", shape),), backgrounds=("plain",), textures=(texture,))
            yield f"{texture} {shape}", make_scene(world, 21, 0)


def words(scene):
    return {
        language or "either": [caption(scene, np.random.default_rng(i), language) for i in range(3)]
        for language in (*LANGUAGES, None)
    }


def described(scene):
    """A scene as JSON has it, places to 9 digits."""
    return json.loads(json.dumps(asdict(scene)), parse_float=lambda text: round(float(text), 9))


def thumbnail(scene, size=64):
    """Means of 4 x 4 pixels, as uint8: (size / 4, size / 4, 3)."""
    pixels = draw_array(scene, size).astype(float)
    return pixels.reshape(size // 4, 4, size // 4, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)


if __name__ == "__main__":
    stored = {name: {"scene": described(s), "words": words(s)} for name, s in scenes()}
    (FOLDER / "stored.json").write_text(
        json.dumps(stored, ensure_ascii=False, indent=0) + "\n", encoding="utf-8"
    )
    np.savez_compressed(FOLDER / "stored.npz", **{name: thumbnail(s) for name, s in scenes()})
