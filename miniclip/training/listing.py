"""What a user's file or folder names: a .csv, a .jsonl, tar shards or class folders become rows
of (picture, captions); a row that cannot be used becomes a reason. No picture is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from miniclip.inputs.pictures import ENDINGS, is_hidden, is_picture
from miniclip.training.shards import ENDING, read_shard
from miniclip.training.table_rows import (
    PATH_NAMES,
    READERS,
    Row,
    Skip,
    Values,
    counted,
    read_text,
    row_of,
)

# That a folder may hold, beside its pictures; the latter two as in a Hugging Face image folder.
TABLES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
EXPECTED = "a .csv, .jsonl or .tar file, or a folder of class folders (cats/1.jpg)"
MOST_TOLD = 5  # skipped rows of a file that are reported one by one

Report: TypeAlias = Callable[[str], Any]
Only: TypeAlias = Mapping[str, Sequence[str]]  # column -> the values of it that are wanted


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
        entries = sorted(path.iterdir()) if table is None else [path]
        shards = shards_among(entries) if table in (None, path) else []
        if shards:
            listing = read_shards(shards, only or {})
        elif table is not None:
            listing = read_file(table, only or {})
        elif only:
            raise ValueError(f"{path}: class folders have no column {next(iter(only))!r}")
        else:
            listing = read_folder(path, entries, template)
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


def read_folder(folder: Path, entries: Sequence[Path], template: str) -> Listing:
    """cats/1.jpg -> (folder/cats/1.jpg, "a photo of a cats"), in the order of the entries."""
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


# Tar files ---------------------------------------------------------------------------------------


def shards_among(entries: Sequence[Path]) -> list[Path]:
    """The tar files; none where class folders lie beside them, which then count."""
    seen = [entry for entry in entries if not is_hidden(entry)]
    if any(entry.is_dir() for entry in seen):
        return []
    return [entry for entry in seen if entry.suffix.lower() == ENDING and entry.is_file()]


def read_shards(files: Sequence[Path], only: Only) -> Listing:
    """The samples of tar files; see shards.py."""
    listing = Listing()
    for file in files:
        shard = read_shard(file)
        listing.ignored += shard.ignored
        for name, sample in shard.samples.items():
            where = f"{file.name}/{name}"
            if sample.wrong or sample.picture is None:
                listing.skips.append(Skip(0, sample.wrong or "no picture", sample=where))
            else:
                values = {**sample.values, PATH_NAMES[0]: sample.picture}
                add_row(listing, values, 0, file, only, where)
        if shard.broken:
            listing.skips.append(Skip(0, shard.broken, sample=file.name))
    return listing


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
        else:
            add_row(listing, found, line, file, only)
    return listing


def add_row(
    listing: Listing, values: Values, line: int, file: Path, only: Only, sample: str = ""
) -> None:
    """A row of a table, or a sample of a tar file, to where it belongs."""
    missing = next((column for column in only if column not in values), None)
    if missing is not None:
        row: Row | Skip = Skip(line, f"no column {missing!r}, which is asked for")
    elif not is_wanted(values, only):
        listing.unwanted += 1
        return
    else:
        row = row_of(values, line, file)
    if isinstance(row, Skip):
        listing.skips.append(replace(row, sample=sample))
    else:  # a sample's picture is in the tar file, under the name that it has there
        at = file / values[PATH_NAMES[0]] if sample else row.path
        listing.rows.append(replace(row, path=at))


def is_wanted(values: Mapping[str, Any], only: Only) -> bool:
    """Whether a row has the values asked for; numbers as they are written."""
    return all(str(values[c]) in [str(one) for one in wanted] for c, wanted in only.items())


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
            f"{source}: no usable row, {lost} skipped; the first, {first.where}: {first.reason}"
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
        report(f"{file}, {skip.where}, skipped: {skip.reason}")
    rest = sum(skip.lines for skip in listing.skips[MOST_TOLD:])
    if rest:
        report(f"{file}: {counted(rest, 'further row')} skipped")
    if listing.ignored:
        report(
            f"{file}: {counted(listing.ignored, 'other file')} ignored (hidden, a link, without a "
            "picture's ending, or not directly in a class folder)"
        )
