"""The emoji set as questions: pictures of 1,652 things in twelve styles, and what they are called.

Input: a folder that `miniclip data emoji` made. The questions are fixed, so that figures of
different people are figures of the same task: of every style the first picture of each concept, cut
out, its longer side 60 of 64 pixels, on white; the names are Unicode's, alone or in templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniclip.emoji.making import TABLE
from miniclip.files import as_path
from miniclip.inputs.augment import PLAIN
from miniclip.inputs.opening import open_picture, pillow_errors
from miniclip.inputs.pictures import Picture
from miniclip.inputs.square import on_ground, visible_square
from miniclip.ops import l2_normalize
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tasks.evaluate import check_finite

UNSEEN = "openmoji"  # the style that is never trained on
SPLITS = ("train", "held-out")
# Ensembles: the name in each of these, averaged.
TEMPLATES = {
    "en": ("{}", "a {}", "a picture of a {}", "an emoji of a {}"),
    "zh": ("{}", "{}的图片"),
}
CHUNK = 256  # pictures in memory at a time


@dataclass(frozen=True)
class Thing:
    """A concept that is asked about."""

    character: str
    names: dict[str, str]
    keywords: dict[str, list[str]]
    group: str
    split: str


@dataclass(frozen=True)
class EmojiQuestions:
    """things: N concepts. pictures: style -> number of a thing -> its picture, if there is one."""

    folder: Path
    things: tuple[Thing, ...]
    pictures: dict[str, dict[int, Path]]

    @property
    def languages(self) -> list[str]:
        return list(dict.fromkeys(lang for thing in self.things for lang in thing.names))

    def numbers(self, style: str, split: str | None = None) -> list[int]:
        """The things that a style has a picture of."""
        wanted = self.pictures[style]
        return [n for n in wanted if split is None or self.things[n].split == split]

    def names(self, language: str) -> list[str | None]:
        """What the things are called; None where a language has no name for one."""
        return [thing.names.get(language) for thing in self.things]


def read_questions(folder: str | Path) -> EmojiQuestions:
    """The questions of a folder. ValueError naming the file and line where it is no such set."""
    folder = as_path(folder)
    file = folder / TABLE
    if not file.is_file():
        raise ValueError(
            f"data: {file} is missing; make the set by: miniclip data emoji --out {folder}"
        )
    places: dict[str, int] = {}
    things: list[Thing] = []
    pictures: dict[str, dict[int, Path]] = {}
    for line, row in read_lines(file):
        try:
            if row["number"] != 0:
                continue
            thing = Thing(*(row[k] for k in ("character", "names", "keywords", "group", "split")))
            style, picture = row["style"], folder / row["file_name"]
        except KeyError as error:
            raise ValueError(f"{file}: line {line}: no {error.args[0]}, expected one") from error
        if thing.character not in places:
            places[thing.character] = len(things)
            things.append(thing)
        pictures.setdefault(style, {})[places[thing.character]] = picture
    if not things:
        raise ValueError(f"{file}: no rows, expected pictures")
    return EmojiQuestions(folder, tuple(things), pictures)


def is_emoji_set(data: str | Path) -> bool:
    """Whether a folder was made by `miniclip data emoji`."""
    file = as_path(data) / TABLE
    if not file.is_file():
        return False
    with open(file, "rb") as lines:
        first = lines.readline()
    return b'"code_point"' in first and b'"style"' in first


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}: line {number}: got {type(row).__name__}, expected an object")
        yield number, row


# ------------------------------------------------------------------------ embeddings


def picture_of(path: Path, size: int) -> Image.Image:
    """A picture as questions show it: on white, its longer side 60 / 64 of the page's; RGB."""
    name = repr(str(path))
    with pillow_errors(name):
        square = visible_square(open_picture(Picture(name, path), False), round(PLAIN * size))
    return on_ground(square, size)


def embed_pictures(pipeline: Pipeline, pictures: Sequence[Image.Image]) -> Array:
    """Unit embeddings (N, E)."""
    parts = [
        pipeline.encode_image(pictures[i : i + CHUNK], normalize=True, progress=False)
        for i in range(0, len(pictures), CHUNK)
    ]
    embeddings = np.concatenate(parts)
    check_finite("pictures", embeddings)
    return embeddings


def embed_style(pipeline: Pipeline, questions: EmojiQuestions, style: str) -> Array:
    """Unit embeddings of a style's pictures, in the order of `questions.numbers(style)`."""
    size = pipeline.transform.size
    return embed_pictures(
        pipeline, [picture_of(path, size) for path in questions.pictures[style].values()]
    )


def embed_names(
    pipeline: Pipeline, names: Sequence[str | None], templates: Sequence[str] = ("{}",)
) -> Array:
    """Unit embeddings (N, E) of names; of several templates the mean of the unit vectors.

    NaN where there is no name: nothing is nearer to a picture than such a row is.
    """
    given = [name for name in names if name is not None]
    texts = [template.replace("{}", name) for template in templates for name in given]
    features = pipeline.encode_text(texts, normalize=True, truncate=True, progress=False)
    check_finite("names", features)
    mean = features.reshape(len(templates), len(given), -1).mean(axis=0)
    unit = np.full((len(names), features.shape[1]), np.nan, features.dtype)
    unit[[name is not None for name in names]] = l2_normalize(mean)[0]
    return unit


# ------------------------------------------------------------------------ words


def words_heard(questions: EmojiQuestions, language: str = "en") -> set[str]:
    """The words of the names that training has read."""
    trained = [thing for thing in questions.things if thing.split == "train"]
    return {word for thing in trained for word in words_in(thing.names.get(language, ""))}


def words_in(text: str) -> list[str]:
    """A name's words: runs of letters, in small ones. "money-mouth face" has three."""
    return re.findall(r"[^\W\d_]+", text.lower())


def is_composed(thing: Thing, heard: set[str], language: str = "en") -> bool:
    """Whether a name has two words or more and all of them were read in other names."""
    words = words_in(thing.names.get(language, ""))
    return len(words) >= 2 and set(words) <= heard
