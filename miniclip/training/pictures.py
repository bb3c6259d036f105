"""A user's own pictures with captions, to train on: a .csv, a .jsonl, or a folder of class folders.

`read_pictures` reads names and captions only, so that a million rows open in seconds. Pixels come
batch by batch from `PictureData.load`, decoded in threads: Pillow lets go of Python's lock while it
works. Data that people collect has broken files and odd rows. Neither ends a run of many hours, and
neither is passed over in silence: all are left out, reported once, and counted.

What decodes a picture is handed in (`Transform` of miniclip.inputs), so nothing here knows how.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL.Image import DecompressionBombError

from miniclip.files import as_path
from miniclip.ops.array import Array
from miniclip.training.held_out import HeldOut, check_share, hold_out
from miniclip.training.listing import (
    EXPECTED,
    Listing,
    Only,
    Report,
    read_listing,
    tell_skipped,
)
from miniclip.training.shards import source_of
from miniclip.training.table_rows import counted, labels_of

# A Transform raises ValueError for every bad picture; these are Pillow's own, for any other
# callable. A TypeError, say, is no broken picture but a bug, and is not caught.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,  # how Pillow says that a header is wrong
    struct.error,
    zlib.error,
    DecompressionBombError,
)

# One path, or a picture's bytes, in a list -> float (1, 3, R, R).
Transform: TypeAlias = Callable[[list[Any]], Array]


def read_pictures(
    source: str | os.PathLike[str],
    transform: Transform,
    *,
    template: str = "a photo of a {}",
    workers: int = 2,
    seed: int = 0,
    held_out: float = 0.0,
    report: Report = print,
    only: Only | None = None,
) -> PictureData:
    """Find a user's pictures and their captions. No picture is opened yet.

    source: one of
      - a .csv file (UTF-8, commas) with a header that names a column for the path (image, path,
        file, filepath, filename or file_name) and one for the caption (caption, text or title), in
        any case; a column `label` may say what is shown, see augmented.py;
      - a .jsonl file, one JSON object a line with such keys; a caption may be a list of captions,
        and `names` and `keywords` by language may be what captions are made of, see wording.py;
      - a folder that holds such a file as captions.csv, captions.jsonl, metadata.csv or
        metadata.jsonl (as a Hugging Face image folder does);
      - a .tar file, or a folder of such, with pictures and captions as img2dataset writes them, see
        shards.py;
      - a folder of class folders: the caption of cats/1.jpg is `template` with "cats" for its {}.
        Underscores and hyphens of a class folder's name become spaces. Deeper folders, hidden
        files and files without a picture's ending are ignored, and counted.
      Paths in a file are relative to the file's own folder, or absolute; spaces around are cut.
    transform: [path] -> float array (1, 3, R, R), such as `miniclip.inputs.preprocess.Transform`.
      It is called in several threads at once, and raises ValueError or OSError for bad pictures.
    workers: threads that decode. seed: of the choice among several captions.
    held_out: share of the pictures that are left to `PictureData.held_out` (see held_out.py).
    report: called with one line for each of the first rows skipped, and for each broken picture.
    only: of a table, the rows that have one of these values in each of these columns.

    Rows without a path or caption, and rows that cannot be read, are skipped and counted. Raises
    ValueError naming the argument or file where there is nothing to use: no such file, another
    ending, not UTF-8, a header without the columns, no class folders, or no usable row.
    """
    check_arguments(source, template, workers, seed)
    check_share(held_out)
    path = as_path(source)
    listing = read_listing(path, template, only)
    training, kept = hold_out(listing, path, held_out)
    tell_skipped(path, listing, report)
    return PictureData(training, transform, workers, seed, report, kept)


class PictureData:
    """Samples (picture, caption) by number. `load` may be called from several threads at once.

    rows: the samples, in the order of the file, or of the folders' and files' names.
    broken: path -> reason, of the pictures that `load` met and could not use.
    skipped: lines of the file that gave no sample. ignored: files of the folder that are none.
    held_out: the samples that are not among these, for an evaluation.
    """

    def __init__(
        self,
        listing: Listing,
        transform: Transform,
        workers: int,
        seed: int,
        report: Report,
        held_out: HeldOut | None = None,
    ) -> None:
        self.rows = listing.rows
        self.skipped = sum(skip.lines for skip in listing.skips)
        self.ignored = listing.ignored
        self.held_out = held_out
        self.broken: dict[Path, str] = {}
        self.files = len({row.path for row in self.rows})  # several rows may share a picture
        self._transform, self._workers, self._seed = transform, workers, seed
        self._report, self._lock = report, threading.Lock()

    def __len__(self) -> int:
        """The number of rows, of which some may turn out to be broken."""
        return len(self.rows)

    def load(self, indices: Sequence[int] | Array, epoch: int) -> tuple[Array, list[str]]:
        """Pixels and captions of some rows, in this order: float (B, 3, R, R) and B strings.

        Broken and missing pictures are left out, so that B may be smaller than len(indices); each
        is reported once, remembered in `broken`, and never tried again. Where a row has several
        captions, (seed, index, epoch) decide which. The number of workers changes nothing.

        If all are, the batch is empty, (0, 3, 0, 0).

        Raises ValueError for no indices, a negative epoch, or a transform that returns something
        else; IndexError for an index outside the rows. Threads live no longer than the call.
        """
        check_whole_number("epoch", epoch, 0)
        numbers = [self._checked(index) for index in indices]
        if not numbers:
            raise ValueError("indices: got none, expected at least one")
        pixels, reasons = self._decode_all(dict.fromkeys(self.rows[i].path for i in numbers))
        for path, reason in reasons.items():
            self._remember(path, reason)
        if not pixels:  # the loop leaves such a batch out, and gives up after some of them
            return np.zeros((0, 3, 0, 0), np.float32), []
        check_pixels(list(pixels.values()))
        kept = [i for i in numbers if self.rows[i].path in pixels]
        batch = np.concatenate([pixels[self.rows[i].path] for i in kept])  # (B, 3, R, R)
        return batch, [self._caption(i, epoch) for i in kept]

    def labels(self, indices: Sequence[int]) -> tuple[str, ...] | None:
        """What is shown by those of some rows that `load` did not leave out; None if not said."""
        return labels_of([self.rows[i] for i in indices if self.rows[i].path not in self.broken])

    def summary(self) -> str:
        """One line, such as "1,203 pictures, 4 broken, 2 rows skipped"."""
        parts = [counted(self.files, "picture")]
        if len(self.rows) != self.files:
            parts[0] += f" in {counted(len(self.rows), 'row')}"
        if self.broken:
            parts.append(f"{len(self.broken):,} broken")
        if self.skipped:
            parts.append(f"{counted(self.skipped, 'row')} skipped")
        if self.held_out is not None and self.held_out.rows:
            parts.append(f"{len({row.path for row in self.held_out.rows}):,} more held out")
        if self.ignored:
            parts.append(f"{counted(self.ignored, 'other file')} ignored")
        return ", ".join(parts)

    def _checked(self, index: Any) -> int:
        """Negative numbers are refused: here they are a mistake more often than a wish."""
        whole = isinstance(index, (int, np.integer))
        if not whole or not 0 <= index < len(self.rows):
            raise IndexError(
                f"indices: got {index}, expected whole numbers from 0 to {len(self.rows) - 1}"
            )
        return int(index)

    def _caption(self, index: int, epoch: int) -> str:
        captions = self.rows[index].captions
        if len(captions) == 1:
            return captions[0]
        rng = np.random.default_rng([self._seed, epoch, index])
        return captions[rng.integers(len(captions))]

    def _decode_all(self, paths: Iterable[Path]) -> tuple[dict[Path, Array], dict[Path, str]]:
        """(path -> pixels, path -> reason), both in the order of the paths, which differ."""
        pixels: dict[Path, Array] = {}
        reasons: dict[Path, str] = {}
        # A pool of its own for every call: starting one is nothing beside decoding, and none is
        # left waiting when Python ends. `map` answers in order, whoever finishes first.
        with ThreadPoolExecutor(self._workers) as pool:
            for path, answer in pool.map(lambda path: (path, self._decode(path)), paths):
                if isinstance(answer, str):
                    reasons[path] = answer
                else:
                    pixels[path] = answer
        return pixels, reasons

    def _decode(self, path: Path) -> Array | str:
        """The pixels, (1, 3, R, R), or why there are none."""
        if path in self.broken:
            return self.broken[path]
        if path.is_dir():  # which a transform takes for all the pictures in it
            return "a folder, expected a picture's file"
        try:
            return self._transform([source_of(path)])
        except UNREADABLE as error:
            return reason_of(error, path)

    def _remember(self, path: Path, reason: str) -> None:
        """Two threads may meet the same broken picture; only the first one reports it."""
        with self._lock:
            known = path in self.broken
            self.broken.setdefault(path, reason)
        if not known:
            self._report(f"{str(path)!r} is left out: {reason}")


# Checks ------------------------------------------------------------------------------------------


def check_arguments(source: Any, template: Any, workers: Any, seed: Any) -> None:
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source: got {type(source).__name__}, expected the path of {EXPECTED}")
    if not isinstance(template, str) or "{}" not in template:
        raise ValueError(f"template: got {template!r}, expected a sentence with {{}}")
    check_whole_number("workers", workers, 1)
    check_whole_number("seed", seed, 0)


def check_whole_number(name: str, value: Any, low: int) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low:
        raise ValueError(f"{name}: got {value!r}, expected a whole number from {low}")


def check_pixels(arrays: list[Array]) -> None:
    """What a transform returned: one shape for all, (1, 3, R, R), of floats."""
    for array in arrays:
        shape = array.shape
        if shape != (1, 3, *shape[-1:] * 2) or array.dtype.kind != "f":
            raise ValueError(
                f"transform: got {array.dtype} {shape}, expected a float array (1, 3, R, R)"
            )
        if shape != arrays[0].shape:
            raise ValueError(
                f"transform: got {arrays[0].shape} and {shape}, expected one size for all pictures"
            )


def reason_of(error: Exception, path: Path) -> str:
    """Why a picture is broken, without the path, which the report has beside it."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    for name in (repr(str(path)), "images[0]"):  # a file's name, or bytes without one
        _, found, rest = text.partition(f"{name}: ")
        if found:
            return rest
    return text
