"""What zero-shot classification returns: numbers by name, a table, and a drawing in a notebook."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniclip.inputs.opening import open_picture
from miniclip.inputs.pictures import Picture, Pictures, pictures
from miniclip.ops.array import Array

SHOWN = 5  # labels of each picture that tables and drawings show
PICTURES_SHOWN = 12


@dataclass(frozen=True)
class Answer:
    """One label for one picture."""

    label: str
    cosine: float
    logit: float
    probability: float | None  # None: of one label alone there is none


@dataclass(frozen=True, eq=False)
class ZeroShotResult:
    """labels: L names. cosine, logit, probability: (N, L), a row for each of N pictures.

    A cosine of 0.25 is a good fit: CLIP's texts and images lie far apart, and only differences
    count, which the learned scale (about 100) turns into logits. Probabilities are over the labels
    that were given; of one label alone there is none (NaN). images: what was asked about, as it was
    handed in; None for pictures that an iterator gave and that the result does not show. notes:
    what to know before reading the numbers. skipped: why pictures were left out, which have no row.
    model: the name of the one that answered; about: what it knows, where it says so.
    """

    labels: list[str]
    cosine: Array
    logit: Array
    probability: Array
    images: list[Any] = field(default_factory=list, repr=False)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    model: str = ""
    about: str = ""

    @property
    def best(self) -> list[str]:
        """The label that fits best, for every picture."""
        return [self.labels[i] for i in self.logit.argmax(axis=1)]

    def top(self, k: int = SHOWN) -> list[list[Answer]]:
        """The k labels that fit best, for every picture, the best first."""
        if k < 1:
            raise ValueError(f"k: got {k}, expected at least 1")
        # argsort of the negative, stable: of equal labels the one given first comes first
        order = np.argsort(-self.logit, axis=1, kind="stable")[:, :k]
        return [[self.answer(n, i) for i in row] for n, row in enumerate(order)]

    def answer(self, n: int, i: int) -> Answer:
        """Label i for picture n."""
        cosine, logit = float(self.cosine[n, i]), float(self.logit[n, i])
        probability = float(self.probability[n, i])
        known = None if math.isnan(probability) else probability
        return Answer(self.labels[i], cosine, logit, known)

    def as_dicts(self, k: int | None = None) -> list[dict[str, Any]]:
        """Plain data for JSON: for every picture its name, its answers, the best first, the notes
        and the model; for every picture that was skipped, why."""
        tops = self.top(len(self.labels) if k is None else k)
        rows: list[dict[str, Any]] = [
            {
                "image": name,
                "answers": [vars(answer) for answer in answers],
                "notes": self.notes,
                "model": self.model,
            }
            for name, answers in zip(self.names(), tops, strict=True)
        ]
        return [*rows, *({"skipped": why} for why in self.skipped)]

    def names(self) -> list[str]:
        """A name for every picture: its path, its file's name, or its number."""
        named = [name_of(image) for image in self.images]
        named += [""] * (len(self.cosine) - len(named))
        return [name or f"image {n}" for n, name in enumerate(named)]

    def __repr__(self) -> str:
        return self.as_text()

    def as_text(self, k: int = SHOWN) -> str:
        """A block for every picture: its name, then a line for each of the best k labels."""
        blocks = []
        for name, answers in zip(self.names(), self.top(k), strict=True):
            width = max(len(visible(a.label)) for a in answers)
            lines = [
                f"  {visible(a.label):<{width}}  {percent(a)}cosine {a.cosine:.4f}  "
                f"logit {a.logit:.2f}"
                for a in answers
            ]
            blocks.append("\n".join([visible(name), *lines]))
        return "\n".join([*blocks, *map(visible, self.remarks())])

    def remarks(self) -> list[str]:
        """Notes, pictures that were skipped, and who answered, in words."""
        remarks = [f"note: {note}" for note in self.notes]
        remarks += [f"skipped: {reason}" for reason in self.skipped]
        knows = f", which knows {self.about}" if self.about else ""
        return [*remarks, f"answered by {self.model}{knows}"] if self.model else remarks

    def _repr_html_(self) -> str:
        """Pictures and bars."""
        answers = self.top()[:PICTURES_SHOWN]
        cells = [self._cell(n, rows) for n, rows in enumerate(answers)]
        rest = len(self.cosine) - len(cells)
        more = f"<p>and {rest} more</p>" if rest else ""
        remarks = "".join(f"<p>{html.escape(remark)}</p>" for remark in self.remarks())
        row = f'<div style="display: flex; flex-wrap: wrap">{"".join(cells)}</div>'
        return f"{row}{more}{remarks}"

    def _cell(self, n: int, answers: list[Answer]) -> str:
        picture = thumbnail(self.images[n]) if n < len(self.images) else ""
        bars = "".join(bar(answer) for answer in answers)
        whole = visible(self.names()[n])
        short = os.path.basename(whole)
        title = f' title="{html.escape(whole)}"' if short != whole else ""
        name = f"<div{title}>{html.escape(short)}</div>"
        return f'<div style="margin: 8px; width: 230px">{picture}{name}{bars}</div>'


def bar(answer: Answer) -> str:
    """One label as a bar, as long as it is probable; without a probability, its cosine."""
    label, title = html.escape(visible(answer.label)), f"cosine {answer.cosine:.4f}"
    if answer.probability is None:
        return f"<div>{label} {title}</div>"
    width = f"{100 * answer.probability:.1f}%"
    return (
        f'<div title="{title}, logit {answer.logit:.2f}">'
        f'<div style="background: #9cf; width: {width}; white-space: nowrap">{label} {width}</div>'
        "</div>"
    )


def percent(answer: Answer) -> str:
    return "" if answer.probability is None else f"{answer.probability:7.2%}  "


def visible(text: str) -> str:
    """The text with codes for what would steer a terminal, or shows as nothing."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def name_of(image: Any) -> str:
    """The path of a picture, or of the file that it was read from; "" where there is none."""
    source = image if isinstance(image, str | os.PathLike) else getattr(image, "name", "")
    return os.fsdecode(source) if isinstance(source, str | os.PathLike) else ""


def remembered(given: Array | Pictures) -> tuple[Array | Pictures, list[Any]]:
    """The same pictures, and a list of what they are, for a result to show.

    Of an iterator, the list is filled as its pictures pass, and does not keep them all: only paths,
    and as many pictures as a drawing shows; the others are None.
    """
    if not isinstance(given, Iterator):
        return given, [one.source if isinstance(one, Picture) else one for one in given]
    sources: list[Any] = []

    def passing() -> Iterator[Picture]:
        for picture in given:
            is_path = isinstance(picture.source, str | os.PathLike)
            sources.append(picture.source if is_path or len(sources) < PICTURES_SHOWN else None)
            yield picture

    return passing(), sources


def thumbnail(image: Any, size: int = 220) -> str:
    """A small picture inside the page, or nothing where the picture cannot be shown again."""
    try:
        first, *_ = pictures(image)  # refuses None and preprocessed arrays, which are no pictures
        picture = open_picture(first, False).convert("RGB")
        picture.thumbnail((size, size))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
    except (ValueError, TypeError, OSError):  # a file that was read once and is closed, say
        return ""
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" style="max-width: {size}px">'
