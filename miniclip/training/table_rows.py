"""Rows of a table: what a line of a .csv or .jsonl says of a picture, or why it says nothing.

A reader gives (line, values by column) for each row; `row_of` makes a sample of the values. Tar
files (shards.py) have no reader: their values come to `row_of` at once.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from miniclip.training.wording import Named

# Names of columns and keys, in any case. Where a file has several of a line, the first here counts.
PATH_NAMES = ("image", "path", "file", "filepath", "filename", "file_name")
CAPTION_NAMES = ("caption", "text", "title")
LABEL_NAME = "label"
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

Values: TypeAlias = dict[str, Any]  # column, in small letters -> what a row has there


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
    """A row that cannot be used: where it begins, why, and how many lines are lost with it.

    sample: its name, where it is none of a file's lines but of a tar file's samples.
    """

    line: int
    reason: str
    lines: int = 1
    sample: str = ""

    @property
    def where(self) -> str:
        if self.sample:
            return self.sample
        last = self.line + self.lines - 1
        return f"line {self.line}" if self.lines == 1 else f"lines {self.line} to {last}"


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
    named = named_of(values)
    if path is None:
        return Skip(line, f"no path, expected a key {in_words(PATH_NAMES)}")
    if caption is None and named is None:
        return Skip(line, f"no caption, expected a key {in_words(CAPTION_NAMES)}")
    several = values[caption] if caption else list(named.names.values() if named else ())
    row = make_row(line, file, values[path], several if isinstance(several, list) else [several])
    if isinstance(row, Skip):
        return row
    return replace(row, label=label_in(values), named=named)


def label_in(values: Values) -> str | None:
    """What the row's label says; None for a blank one, and for what is neither text nor number."""
    label = values.get(LABEL_NAME)
    usable = isinstance(label, str | int | float) and not isinstance(label, bool)
    return (str(label).strip() or None) if usable else None


def named_of(values: Values) -> Named | None:
    """The row's names and keywords; None where columns of these names hold something else."""
    try:
        return Named.of(values["names"], values.get("keywords"))
    except (KeyError, ValueError):
        return None


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


Reader: TypeAlias = Callable[[str, Path], Iterator[tuple[int, Values | Skip]]]
READERS: dict[str, Reader] = {".csv": rows_of_csv, ".jsonl": rows_of_jsonl}


def labels_of(rows: Sequence[Row]) -> tuple[str, ...] | None:
    """The labels of some rows; a row without one is a thing of its own. None where none has one."""
    if all(row.label is None for row in rows):
        return None
    return tuple(row.label or f"the picture {row.path}" for row in rows)


# Words -------------------------------------------------------------------------------------------


def first_of(names: Sequence[str], among: Iterable[str]) -> str | None:
    """The first of the names that is there."""
    there = set(among)
    return next((name for name in names if name in there), None)


def in_words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def counted(n: int, thing: str) -> str:
    """Such as "1 picture" or "1,203 pictures"."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"
