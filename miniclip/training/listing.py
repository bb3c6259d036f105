"""What a user's file or folder names: a .csv, a .jsonl or a folder of class folders becomes rows
of (picture, captions); a row that cannot be used becomes a reason. No picture is opened here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from miniclip.inputs.pictures import ENDINGS, is_hidden, is_picture

# Names of columns and keys, in any case. Where a file has several of a line, the first here counts.
PATH_NAMES = ("image", "path", "file", "filepath", "filename")
CAPTION_NAMES = ("caption", "text", "title")
TABLES = ("captions.csv", "captions.jsonl")  # that a folder may hold, beside its pictures
EXPECTED = "a .csv file, a .jsonl file, or a folder of class folders (cats/1.jpg)"
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
MOST_TOLD = 5  # skipped rows of a file that are reported one by one

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
    """What a file or folder names; `ignored` counts the files of a folder that are no samples.

    classes: whether these are class folders, whose captions are the names of classes.
    """

    rows: list[Row] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    ignored: int = 0
    classes: bool = False


def read_listing(path: Path, template: str) -> Listing:
    """What `path` names, with at least one row. ValueError naming what cannot be used."""
    try:
        table = table_in(path) if path.is_dir() else path
        listing = read_folder(path, template) if table is None else read_file(table)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    check_usable(path, listing)
    return listing


# Folders -----------------------------------------------------------------------------------------


def table_in(folder: Path) -> Path | None:
    """The table of captions that lies in a folder; None where there is none."""
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder}: holds {' and '.join(TABLES)}, expected one: name the file")
    return found[0] if found else None


def read_folder(folder: Path, template: str) -> Listing:
    """cats/1.jpg -> (folder/cats/1.jpg, "a photo of a cats"), in the order of the names."""
    entries = sorted(folder.iterdir())
    classes = [entry for entry in entries if entry.is_dir() and not is_hidden(entry)]
    if not classes:
        raise ValueError(
            f"{folder}: got a folder of {counted(len(entries), 'file')} and no class folder, "
            f"expected class folders with pictures (cats/1.jpg), or {' or '.join(TABLES)}"
        )
    listing = Listing(ignored=len(entries) - len(classes), classes=True)
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


def first_of(names: Sequence[str], among: Iterable[str]) -> str | None:
    """The first of the names that is there."""
    there = set(among)
    return next((name for name in names if name in there), None)


def in_words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def counted(n: int, thing: str) -> str:
    """Such as "1 picture" or "1,203 pictures"."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"
