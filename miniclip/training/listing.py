"""What a user's file or folder names: a .csv, a .jsonl or a folder of class folders becomes rows
of (picture, captions); a row that cannot be used becomes a reason. No picture is opened here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from miniclip.inputs.pictures import ENDINGS, is_hidden, is_picture
from miniclip.training.wording import Named

# Names of columns and keys, in any case. Where a file has several of a line, the first here counts.
PATH_NAMES = ("image", "path", "file", "filepath", "filename", "file_name")
CAPTION_NAMES = ("caption", "text", "title")
LABEL_NAME = "label"
# That a folder may hold, beside its pictures; the latter two as in a Hugging Face image folder.
TABLES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
EXPECTED = "a .csv file, a .jsonl file, or a folder of class folders (cats/1.jpg)"
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
MOST_TOLD = 5  # skipped rows of a file that are reported one by one

Report: TypeAlias = Callable[[str], Any]
Values: TypeAlias = dict[str, Any]  # column, in small letters -> what a row has there
Only: TypeAlias = Mapping[str, Sequence[str]]  # column -> the values of it that are wanted


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: a picture, and the captions of which every epoch chooses one.

    label: what is shown, the same for all pictures of it; None where the table has no such column.
    named: names and keywords that captions can be made of (see wording.py); None without.
    """

    path: Path
    captions: tuple[str, ...]
    label: str | None = None
    named: Named | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A row that cannot be used: where it begins, why, and how many lines are lost with it."""

    line: int
    reason: str
    lines: int = 1


@dataclass
class Listing:
    """What a file or folder names; `ignored` counts the files of a folder that are no samples.

    classes: whether these are class folders, whose captions are the names of classes. unwanted:
    rows of a table that have other values than those asked for.
    """

    rows: list[Row] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    ignored: int = 0
    classes: bool = False
    unwanted: int = 0


def read_listing(path: Path, template: str, only: Only | None = None) -> Listing:
    """What `path` names, with at least one row. ValueError naming what cannot be used.

    only: of a table, the rows that have one of these values in each of these columns.
    """
    try:
        table = table_in(path) if path.is_dir() else path
        if table is None and only:
            raise ValueError(f"{path}: class folders have no column {next(iter(only))!r}")
        listing = read_folder(path, template) if table is None else read_file(table, only or {})
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    check_usable(path, listing)
    return listing


# Folders -----------------------------------------------------------------------------------------


def table_in(folder: Path) -> Path | None:
    """The table of captions that lies in a folder; None where there is none."""
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) > 1:
        both = " and ".join(file.name for file in found)
        raise ValueError(f"{folder}: holds {both}, expected one: name the file")
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


def read_file(file: Path, only: Only) -> Listing:
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
    for line, found in reader(read_text(file), file):
        if isinstance(found, Skip):
            listing.skips.append(found)
        elif not is_wanted(found, only, file):
            listing.unwanted += 1
        else:
            row = row_of(found, line, file)
            if isinstance(row, Skip):
                listing.skips.append(row)
            else:
                listing.rows.append(row)
    return listing


def is_wanted(values: Mapping[str, Any], only: Only, file: Path) -> bool:
    """Whether a row has the values asked for. ValueError for a column that it does not have."""
    for column, wanted in only.items():
        if column not in values:
            raise ValueError(f"{file}: a row without the column {column!r}, which is asked for")
        if values[column] not in wanted:
            return False
    return True


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


def rows_of_csv(text: str, file: Path) -> Iterator[tuple[int, Values | Skip]]:
    """Rows of a table. Quotes may hold commas, line ends and, doubled, quotes."""
    # strict: otherwise a quote that nobody closed takes all that follows into one caption.
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(filter(None, table), [])
    except csv.Error as error:
        raise ValueError(f"{file}: the header cannot be read as CSV: {error}") from error
    names = [name.strip().lower() for name in header]
    least = least_columns(header, names, file)
    while True:
        line = table.line_num + 1
        try:
            fields = next(table, None)
        except csv.Error as error:
            yield line, Skip(line, f"not CSV ({error})", table.line_num - line + 1)
            continue
        if fields is None:
            return
        wrong = wrong_columns(fields, len(header), least)
        if wrong:
            yield line, Skip(line, wrong)
        elif fields:  # and nothing for an empty line
            pairs = list(zip(names, fields, strict=False))
            yield line, dict(reversed(pairs))  # of columns with one name, the first


def least_columns(header: list[str], names: list[str], file: Path) -> int:
    """How many columns a row needs: up to those of path and caption."""
    path, caption = first_of(PATH_NAMES, names), first_of(CAPTION_NAMES, names)
    if path is None or caption is None:
        got = f"the header {', '.join(map(repr, header))}" if header else "an empty file"
        raise ValueError(
            f"{file}: got {got}, expected {in_words(PATH_NAMES)} for the path and "
            f"{in_words(CAPTION_NAMES)} for the caption, with a comma between"
        )
    return max(names.index(path), names.index(caption)) + 1


def wrong_columns(fields: list[str], expected: int, least: int) -> str:
    """What is wrong with the number of columns, or nothing. Empty ones at the end may be missing,
    or be too many, as spreadsheets write them."""
    if fields and len(fields) < least:
        return f"got {counted(len(fields), 'column')}, expected {expected}"
    if any(fields[expected:]):
        return f"got {len(fields)} columns, expected {expected}: put a text with commas in quotes"
    return ""


def rows_of_jsonl(text: str, file: Path) -> Iterator[tuple[int, Values | Skip]]:
    """Rows of JSON objects, one a line."""
    for line, entry in enumerate(io.StringIO(text, newline=None), 1):
        if entry.strip():
            yield line, values_of_json(entry, line)


def values_of_json(entry: str, line: int) -> Values | Skip:
    try:
        value = json.loads(entry)
    except (ValueError, RecursionError) as error:
        return Skip(line, f"not JSON ({getattr(error, 'msg', error)})")
    if not isinstance(value, dict):
        return Skip(line, f"got JSON's {type(value).__name__}, expected an object")
    return {key.strip().lower(): value for key, value in value.items()}


def row_of(values: Values, line: int, file: Path) -> Row | Skip:
    """A sample, or why there is none; its path is relative to the file's folder."""
    path, caption = first_of(PATH_NAMES, values), first_of(CAPTION_NAMES, values)
    if path is None:
        return Skip(line, f"no path, expected a key {in_words(PATH_NAMES)}")
    if caption is None:
        return Skip(line, f"no caption, expected a key {in_words(CAPTION_NAMES)}")
    several = values[caption]
    row = make_row(line, file, values[path], several if isinstance(several, list) else [several])
    if isinstance(row, Skip):
        return row
    label = values.get(LABEL_NAME)
    if label is not None and not (isinstance(label, str | int) and str(label).strip()):
        return Skip(line, f"the label is {label!r}, expected a text or a number")
    try:
        named = Named.of(values["names"], values.get("keywords")) if "names" in values else None
    except ValueError as error:
        return Skip(line, str(error))
    return replace(row, label=None if label is None else str(label), named=named)


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


def labels_of(rows: Sequence[Row]) -> tuple[str, ...] | None:
    """The labels of some rows; None where one of them has none."""
    labels = tuple(row.label for row in rows if row.label is not None)
    return labels if len(labels) == len(rows) else None


# Checks ------------------------------------------------------------------------------------------


def check_usable(source: Path, listing: Listing) -> None:
    """Raise where nothing is left to train on."""
    if listing.rows:
        return
    if listing.unwanted and not listing.skips:
        rows = counted(listing.unwanted, "row")
        raise ValueError(f"{source}: {rows}, none of which has the values that are asked for")
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
