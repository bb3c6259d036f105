"""A user's own pictures with captions, to train on: a .csv, a .jsonl, or a folder of class folders.

`read_pictures` reads names and captions only, so that a million rows open in seconds. Pixels come
batch by batch from `PictureData.load`, decoded in threads: Pillow lets go of Python's lock while it
works. Data that people collect has broken files and odd rows. Neither ends a run of many hours, and
neither is passed over in silence: all are left out, told once, and counted.

What decodes a picture is handed in (`Transform` of miniclip.inputs), so nothing here knows how.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL.Image import DecompressionBombError

from miniclip.ops.array import Array

# Names of columns and keys, in any case. Where a file has several of a line, the first here counts.
PATH_NAMES = ("image", "path", "file", "filepath", "filename")
CAPTION_NAMES = ("caption", "text", "title")
# Of pictures in class folders; a file that names its pictures may name any.
ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
EXPECTED = "a .csv file, a .jsonl file, or a folder of class folders (cats/1.jpg)"
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
MOST_TOLD = 5  # skipped rows of a file that are reported one by one

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

Transform: TypeAlias = Callable[[list[Path]], Array]  # one path in a list -> float (1, 3, R, R)
Report: TypeAlias = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: a picture, and the captions of which every epoch chooses one."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skip:
    """A row that cannot be used: where it begins, why, and how many lines are lost with it."""

    line: int
    reason: str
    lines: int = 1


@dataclass
class Listing:
    """What a file or folder names; `ignored` counts the files of a folder that are no samples."""

    rows: list[Row] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    ignored: int = 0


def read_pictures(
    source: str | os.PathLike[str],
    transform: Transform,
    *,
    template: str = "a photo of a {}",
    workers: int = 2,
    seed: int = 0,
    report: Report = print,
) -> PictureData:
    """Find a user's pictures and their captions. No picture is opened yet.

    source: one of
      - a .csv file (UTF-8, commas) with a header that names a column for the path (image, path,
        file, filepath or filename) and one for the caption (caption, text or title), in any case;
      - a .jsonl file, one JSON object a line with such keys; a caption may be a list of captions;
      - a folder of class folders: the caption of cats/1.jpg is `template` with "cats" for its {}.
        Underscores and hyphens of a class folder's name become spaces. Deeper folders, hidden
        files and files without a picture's ending are ignored, and counted.
      Paths in a file are relative to the file's own folder, or absolute; spaces around are cut.
    transform: [path] -> float array (1, 3, R, R), such as `miniclip.inputs.preprocess.Transform`.
      It is called in several threads at once, and raises ValueError or OSError for bad pictures.
    workers: threads that decode. seed: of the choice among several captions.
    report: called with one line for each of the first rows skipped, and for each broken picture.

    Rows without a path or caption, and rows that cannot be read, are skipped and counted. Raises
    ValueError naming the argument or file where there is nothing to use: no such file, another
    ending, not UTF-8, a header without the columns, no class folders, or no usable row.
    """
    check_arguments(source, template, workers, seed)
    path = Path(source)
    try:
        listing = read_folder(path, template) if path.is_dir() else read_file(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    check_usable(path, listing)
    tell_skipped(path, listing, report)
    return PictureData(listing, transform, workers, seed, report)


class PictureData:
    """Samples (picture, caption) by number. `load` may be called from several threads at once.

    rows: the samples, in the order of the file, or of the folders' and files' names.
    broken: path -> reason, of the pictures that `load` met and could not use.
    skipped: lines of the file that gave no sample. ignored: files of the folder that are none.
    """

    def __init__(
        self, listing: Listing, transform: Transform, workers: int, seed: int, report: Report
    ) -> None:
        self.rows = listing.rows
        self.skipped = sum(skip.lines for skip in listing.skips)
        self.ignored = listing.ignored
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

    def summary(self) -> str:
        """One line, such as "1,203 pictures, 4 broken, 2 rows skipped"."""
        parts = [counted(self.files, "picture")]
        if len(self.rows) != self.files:
            parts[0] += f" in {counted(len(self.rows), 'row')}"
        if self.broken:
            parts.append(f"{len(self.broken):,} broken")
        if self.skipped:
            parts.append(f"{counted(self.skipped, 'row')} skipped")
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
        try:
            return self._transform([path])
        except UNREADABLE as error:
            return reason_of(error, path)

    def _remember(self, path: Path, reason: str) -> None:
        """Two threads may meet the same broken picture; only the first one tells."""
        with self._lock:
            known = path in self.broken
            self.broken.setdefault(path, reason)
        if not known:
            self._report(f"{str(path)!r} is left out: {reason}")


# Folders -----------------------------------------------------------------------------------------


def read_folder(folder: Path, template: str) -> Listing:
    """cats/1.jpg -> (folder/cats/1.jpg, "a photo of a cats"), in the order of the names."""
    entries = sorted(folder.iterdir())
    classes = [entry for entry in entries if entry.is_dir() and not is_hidden(entry)]
    if not classes:
        raise ValueError(
            f"{folder}: got a folder of {counted(len(entries), 'file')} and no class folder, "
            "expected class folders with pictures (cats/1.jpg)"
        )
    listing = Listing(ignored=len(entries) - len(classes))
    for one in classes:
        files = sorted(one.iterdir())
        pictures = [file for file in files if is_picture(file)]
        captions = (template.replace("{}", label_of(one.name)),)
        listing.rows += [Row(picture, captions) for picture in pictures]
        listing.ignored += len(files) - len(pictures)
    return listing


def label_of(name: str) -> str:
    """A class folder's name in words: "red_panda" -> "red panda"; "_" stays what it is."""
    return " ".join(re.sub("[_-]", " ", name).split()) or name


def is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def is_picture(path: Path) -> bool:
    """By its name alone: whether it can be read shows when it is."""
    return not is_hidden(path) and path.suffix.lower() in ENDINGS and path.is_file()


# Files -------------------------------------------------------------------------------------------


def read_file(file: Path) -> Listing:
    """The rows of a .csv or .jsonl file, those that can be used and those that cannot."""
    if not file.exists():
        raise ValueError(f"{file}: no such file or folder, expected {EXPECTED}")
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        got = f"ends in {file.suffix!r}" if file.suffix else "has no ending"
        raise ValueError(f"{file}: {got}, expected {EXPECTED}")
    if not file.is_file():  # a pipe or a device, which may never end
        raise ValueError(f"{file}: not a regular file, expected {EXPECTED}")
    listing = Listing()
    for item in reader(read_text(file), file):
        if isinstance(item, Row):
            listing.rows.append(item)
        else:
            listing.skips.append(item)
    return listing


def read_text(file: Path) -> str:
    """A UTF-8 file, without the byte order mark that some programs put in front."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `object`, not `data`: positions count from behind the mark
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ValueError(
            f"{file}: line {line}: got the byte 0x{byte:02x}, expected UTF-8: save the file as such"
        ) from error


def rows_of_csv(text: str, file: Path) -> Iterator[Row | Skip]:
    """Rows of a table. Quotes may hold commas, line ends and, doubled, quotes."""
    # strict: otherwise a quote that nobody closed takes all that follows into one caption.
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(filter(None, table), [])
    except csv.Error as error:
        raise ValueError(f"{file}: the header cannot be read as CSV: {error}") from error
    path_at, caption_at = find_columns(header, file)
    while True:
        line = table.line_num + 1
        try:
            fields = next(table, None)
        except csv.Error as error:
            yield Skip(line, f"not CSV ({error})", table.line_num - line + 1)
            continue
        if fields is None:
            return
        wrong = wrong_columns(fields, len(header), max(path_at, caption_at) + 1)
        if wrong:
            yield Skip(line, wrong)
        elif fields:  # and nothing for an empty line
            yield make_row(line, file, fields[path_at], [fields[caption_at]])


def find_columns(header: list[str], file: Path) -> tuple[int, int]:
    """The columns of path and caption."""
    names = [name.strip().lower() for name in header]
    path, caption = first_of(PATH_NAMES, names), first_of(CAPTION_NAMES, names)
    if path is None or caption is None:
        got = f"the header {', '.join(map(repr, header))}" if header else "an empty file"
        raise ValueError(
            f"{file}: got {got}, expected {in_words(PATH_NAMES)} for the path and "
            f"{in_words(CAPTION_NAMES)} for the caption, with a comma between"
        )
    return names.index(path), names.index(caption)


def wrong_columns(fields: list[str], expected: int, least: int) -> str:
    """What is wrong with the number of columns, or nothing. Empty ones at the end may be missing,
    or be too many, as spreadsheets write them."""
    if fields and len(fields) < least:
        return f"got {counted(len(fields), 'column')}, expected {expected}"
    if any(fields[expected:]):
        return f"got {len(fields)} columns, expected {expected}: put a text with commas in quotes"
    return ""


def rows_of_jsonl(text: str, file: Path) -> Iterator[Row | Skip]:
    """Rows of JSON objects, one a line."""
    for line, entry in enumerate(io.StringIO(text, newline=None), 1):
        if entry.strip():
            yield row_of_json(entry, line, file)


def row_of_json(entry: str, line: int, file: Path) -> Row | Skip:
    try:
        value = json.loads(entry)
    except (ValueError, RecursionError) as error:
        return Skip(line, f"not JSON ({getattr(error, 'msg', error)})")
    if not isinstance(value, dict):
        return Skip(line, f"got JSON's {type(value).__name__}, expected an object")
    values = {key.strip().lower(): value for key, value in value.items()}
    path, caption = first_of(PATH_NAMES, values), first_of(CAPTION_NAMES, values)
    if path is None:
        return Skip(line, f"no path, expected a key {in_words(PATH_NAMES)}")
    if caption is None:
        return Skip(line, f"no caption, expected a key {in_words(CAPTION_NAMES)}")
    several = values[caption]
    return make_row(line, file, values[path], several if isinstance(several, list) else [several])


def make_row(line: int, file: Path, path: Any, captions: list[Any]) -> Row | Skip:
    """A row, its path relative to the file's folder; blank captions of several are left out."""
    for name, value in (("path", path), *(("caption", caption) for caption in captions)):
        if not isinstance(value, str):
            return Skip(line, f"the {name} is {type(value).__name__}, expected a text")
    kept = tuple(caption for caption in captions if caption.strip())
    if not path.strip():
        return Skip(line, "the path is empty")
    if not kept:
        return Skip(line, "the caption is empty")
    if URL.match(path.strip()):
        return Skip(line, "the path is a URL, and nothing is ever fetched: download the picture")
    return Row(file.parent / path.strip(), kept)


READERS = {".csv": rows_of_csv, ".jsonl": rows_of_jsonl}


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


def check_usable(source: Path, listing: Listing) -> None:
    """Raise where nothing is left to train on."""
    if listing.rows:
        return
    if listing.skips:
        first = listing.skips[0]
        lost = counted(sum(skip.lines for skip in listing.skips), "row")
        raise ValueError(
            f"{source}: no usable row, {lost} skipped; the first, line {first.line}: {first.reason}"
        )
    if source.is_dir():
        others = counted(listing.ignored, "other file")
        raise ValueError(
            f"{source}: got class folders without a picture, and {others}; expected pictures such "
            f"as cats/1.jpg, directly in a class folder, that end in {', '.join(ENDINGS)}"
        )
    raise ValueError(f"{source}: no rows, expected at least one picture with its caption")


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


# Words -------------------------------------------------------------------------------------------


def tell_skipped(file: Path, listing: Listing, report: Report) -> None:
    """The first rows one by one, the rest as a number."""
    for skip in listing.skips[:MOST_TOLD]:
        last = skip.line + skip.lines - 1
        where = f"line {skip.line}" if skip.lines == 1 else f"lines {skip.line} to {last}"
        report(f"{file}, {where}, skipped: {skip.reason}")
    rest = sum(skip.lines for skip in listing.skips[MOST_TOLD:])
    if rest:
        report(f"{file}: {counted(rest, 'further row')} skipped")
    if listing.ignored:
        report(
            f"{file}: {counted(listing.ignored, 'other file')} ignored (hidden, without a "
            "picture's ending, or not directly in a class folder)"
        )


def reason_of(error: Exception, path: Path) -> str:
    """Why a picture is broken, without the path, which is told beside it."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    _, found, rest = text.partition(f"{str(path)!r}: ")
    return rest if found else text


def first_of(names: Sequence[str], among: Iterable[str]) -> str | None:
    """The first of the names that is there."""
    there = set(among)
    return next((name for name in names if name in there), None)


def in_words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def counted(n: int, thing: str) -> str:
    """Such as "1 picture" or "1,203 pictures"."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"
