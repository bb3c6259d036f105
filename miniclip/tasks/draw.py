"""`miniclip draw`: pictures to try models on, and a small data set to try training on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from miniclip.files import write_bytes
from miniclip.world.captions import caption
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import (
    COLOURS,
    SHAPES,
    TRAINING_WORLD,
    Pair,
    make_scene,
    single_world,
)

SEED = 3_000_003  # of pictures for trying out: other drawings than those of training and tests
SIZE = 256  # pixels; models take 64, but people look at these


def parse_thing(text: str) -> Pair:
    """ "a red circle" or "red circle" -> ("red", "circle"). ValueError lists the known ones."""
    words = [word for word in text.lower().split() if word not in ("a", "an", "the")]
    if len(words) != 2 or words[0] not in COLOURS or words[1] not in SHAPES:
        raise ValueError(
            f"thing: got {text!r}, expected a colour ({', '.join(COLOURS)}) and a shape "
            f"({', '.join(SHAPES)}), such as 'red circle'"
        )
    return words[0], words[1]


def draw_things(things: Sequence[str], folder: Path, seed: int = SEED) -> list[Path]:
    """A picture of each thing, named after it (red-circle.png), place and texture by chance.

    The second picture of the same thing is red-circle-2.png, and so on.
    """
    pairs = [parse_thing(thing) for thing in things]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, pair in enumerate(pairs):
        picture = draw_scene(make_scene(single_world((pair,)), seed, number), SIZE)
        earlier = pairs[:number].count(pair)
        paths.append(folder / ("-".join(pair) + (f"-{earlier + 1}" if earlier else "") + ".png"))
        picture.save(paths[-1])
    return paths


def draw_scenes(count: int, folder: Path, seed: int = SEED) -> Path:
    """Scenes as in training, and captions.csv that names them: a data set for `train --data`.

    Returns the path of captions.csv. ValueError if count is no positive number.
    """
    if count < 1:
        raise ValueError(f"scenes: got {count}, expected at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "caption"])
    for number in range(count):
        scene = make_scene(TRAINING_WORLD, seed, number)
        name = f"scene-{number:04d}.png"
        draw_scene(scene, SIZE).save(folder / name)
        rows.writerow([name, caption(scene, np.random.default_rng([seed, number, 3]))])
    path = folder / "captions.csv"
    write_bytes({path: table.getvalue().encode()})
    return path
