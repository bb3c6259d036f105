"""How well a CLIP reads a user's own pictures: `miniclip evaluate MODEL --data PATH`.

Class folders: which of all classes fits a picture? Pictures with captions: which of all captions
belongs to a picture (image to text), and which picture to a caption (text to image)? R@k is the
share whose right partner is among the first k. A caption that several pictures have is one text
with several right pictures.

What fits as well as the right one stands before it: a model that says the same of everything is
never right where there are more than k.

Source: zero-shot as in CLIP section 3.1; R@k as in its section 3.1.5 and in Karpathy & Fei-Fei 2015
(arXiv 1412.2306).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.files import as_path
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tables import markdown_table, text_table
from miniclip.tasks.evaluate import check_finite
from miniclip.tasks.evaluation_result import Counted, Table, percent
from miniclip.training.held_out import HeldOut, classes_of, read_held_out, unique
from miniclip.training.listing import Listing, read_listing, table_in
from miniclip.training.pictures import PictureData
from miniclip.training.table_rows import Row

AMONG = (1, 5, 10)  # the k of R@k
CHUNK = 64  # pictures that are held in memory at a time
TEMPLATE = "a photo of a {}"  # as in training
Report = Callable[[str], Any]


@dataclass(frozen=True)
class OwnScore(Counted):
    """How many of `total` questions have a right answer among the first `among`.

    question: "class", "image to text" or "text to image". choices: how many answers there are.
    chance: the share that guessing gets right.
    """

    question: str
    among: int
    right: int
    total: int
    choices: int
    chance: float

    @property
    def title(self) -> str:
        if self.question == "class":
            return "accuracy" if self.among == 1 else f"accuracy, first {self.among}"
        return f"{self.question}, R@{self.among}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | self.shares()


@dataclass(frozen=True)
class OwnEvaluation:
    """Every score of a model. source: the data. pictures: those asked about. broken: left out.

    held_out: whether these are the pictures that the model's own training has held out.
    """

    model: str
    source: str
    held_out: bool
    pictures: int
    broken: int
    scores: tuple[OwnScore, ...]

    def find(self, question: str, among: int = 1) -> OwnScore:
        """One score. KeyError naming what was asked for if there is none."""
        for score in self.scores:
            if (score.question, score.among) == (question, among):
                return score
        raise KeyError(f"no score for {question}, {among}")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"scores": [score.as_dict() for score in self.scores]}

    def as_text(self) -> str:
        """What was asked about, and a table for a terminal."""
        return f"{self.about()}\n\n{text_table(*self.table())}"

    def as_markdown(self) -> str:
        """The same for a model card."""
        return f"{self.about()}\n\n{markdown_table(*self.table())}"

    def about(self) -> str:
        which = "held out of" if self.held_out else "of"
        broken = f", {self.broken} broken ones left out" if self.broken else ""
        return f"{self.pictures:,} pictures {which} {self.source}{broken}"

    def table(self) -> Table:
        headings = ["question", "right", "95 %", "chance", "choices", "asked"]
        lines = []
        for s in self.scores:
            low, high = s.interval
            between = f"{percent(low)} to {percent(high)}"
            numbers = [percent(s.share), between, percent(s.chance), str(s.choices), str(s.total)]
            lines.append([s.title, *numbers])
        return headings, lines


# ------------------------------------------------------------------------ the questions


def evaluate_pictures(
    pipeline: Pipeline,
    data: str | Path | HeldOut,
    template: str = TEMPLATE,
    workers: int = 2,
    report: Report = print,
) -> OwnEvaluation:
    """Ask a loaded model about a user's own pictures.

    data: what `train` takes (a .csv, a .jsonl, a folder that holds one, class folders), or what a
    run has held out. template: the caption of a class folder's pictures. workers: threads that
    decode. report: told of each picture that is broken and left out.
    Raises ValueError naming what cannot be used, and for embeddings that are no numbers.
    """
    if isinstance(data, HeldOut):
        listing, classes, source = Listing(list(data.rows)), data.classes, data.source
    else:
        if "{}" not in template:
            raise ValueError(f"template: got {template!r}, expected a sentence with {{}}")
        listing = read_listing(as_path(data), template)
        classes, source = classes_of(listing), str(data)
    rows = merged(listing.rows)
    if not rows:
        raise ValueError(f"{source}: no picture was held out, so there is none to ask about")
    pictures = PictureData(Listing(rows), pipeline.transform, workers, 0, report)
    images, kept = embed_pictures(pipeline, pictures)  # (N, E), N rows
    texts = classes or unique(row.captions for row in kept)
    features = pipeline.encode_text(list(texts), normalize=True, truncate=True, progress=False)
    check_finite("captions", features)
    place = {text: number for number, text in enumerate(texts)}
    fits = np.zeros((len(kept), len(texts)), bool)  # (N, T): text j belongs to picture i
    for i, row in enumerate(kept):
        fits[i, [place[caption] for caption in row.captions]] = True
    cosine = images @ features.T  # (N, T)
    if classes:
        scores = recall("class", cosine, fits)
    else:
        scores = recall("image to text", cosine, fits) + recall("text to image", cosine.T, fits.T)
    held = isinstance(data, HeldOut)
    return OwnEvaluation(
        pipeline.name, source, held, len(kept), len(pictures.broken), tuple(scores)
    )


def recall(question: str, cosine: Array, fits: Array) -> list[OwnScore]:
    """The scores of N questions with K answers each; cosine, fits: (N, K). k < K, or 1."""
    n, choices = cosine.shape
    places = rank(cosine, fits)  # (N,)
    right = fits.sum(axis=1)  # (N,)
    scores = []
    for k in [k for k in AMONG if k == 1 or k < choices]:
        chance = float(np.mean([chance_of(int(r), choices, k) for r in right]))
        scores.append(OwnScore(question, k, int((places <= k).sum()), n, choices, chance))
    return scores


def rank(cosine: Array, fits: Array) -> Array:
    """(N, K) -> (N,): the place of the best right answer, from 1 on; ties count against it."""
    best = np.where(fits, cosine, -np.inf).max(axis=1, keepdims=True)  # (N, 1)
    places: Array = 1 + ((cosine >= best) & ~fits).sum(axis=1)
    return places


def chance_of(right: int, choices: int, k: int) -> float:
    """That one of `right` answers is among k of `choices`, drawn blindly without putting back."""
    return 1 - math.comb(choices - right, k) / math.comb(choices, k)


# ------------------------------------------------------------------------ asking


def merged(rows: Sequence[Row]) -> list[Row]:
    """One row for each picture, with all its captions."""
    captions: dict[Path, list[str]] = {}
    for row in rows:
        captions.setdefault(row.path, []).extend(row.captions)
    return [Row(path, tuple(dict.fromkeys(several))) for path, several in captions.items()]


def embed_pictures(pipeline: Pipeline, data: PictureData) -> tuple[Array, list[Row]]:
    """Unit embeddings (N, E) of the pictures that can be read, and their rows."""
    parts = list(embedded_chunks(pipeline, data))
    if not parts:
        raise ValueError(f"data: none of {len(data):,} pictures can be read")
    images = np.concatenate(parts)
    check_finite("pictures", images)
    return images, [row for row in data.rows if row.path not in data.broken]


def embedded_chunks(pipeline: Pipeline, data: PictureData) -> Iterator[Array]:
    for start in range(0, len(data), CHUNK):
        pixels, _ = data.load(range(start, min(start + CHUNK, len(data))), 0)
        if len(pixels):
            yield pipeline.encode_image(pixels, normalize=True, progress=False)


def names_of(data: Path) -> set[Path]:
    """The data itself and, of a folder that holds its table, the table."""
    table = table_in(data) if data.is_dir() else None
    return {path.resolve() for path in (data, table) if path is not None}


def own_data(model: str | Path, data: str | Path | None) -> str | Path | HeldOut | None:
    """What to ask a model about: the pictures that its run has held out, where these are asked for.

    model: as handed to `load`. data: what --data named; None: what the run held out; None where
    the model comes from no run on a user's pictures.
    """
    record = read_held_out(model)
    if record is None:
        return data
    if data is None or names_of(as_path(data)) & names_of(Path(record.source)):
        if record.rows:
            return record
        if data is None:
            raise ValueError(
                f"{model}: was trained on {record.source}, of which no picture was held out "
                "(--held-out): name pictures to ask about by --data"
            )
    return data
