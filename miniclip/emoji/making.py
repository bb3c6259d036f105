"""`miniclip data emoji`: pictures, a table that names them, and their licences, in one folder.

    FOLDER/metadata.jsonl      a line a picture: file_name, label, text, style, split, names, ...
    FOLDER/pictures/STYLE/     PNG files, RGBA, 128 pixels, named by code point
    FOLDER/licences.md         who drew what, and what it may be used for
    FOLDER/packages/           what was fetched, unless it lies elsewhere (`packages`)

The table has the form of a Hugging Face image folder. It is written last: where it is, the set is
complete. A run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from miniclip.emoji.concepts import Concept, parent_of, read_concepts
from miniclip.emoji.drawing import check_renderer, draw
from miniclip.emoji.icons import Icon, find_icons, read_names, svg_of
from miniclip.emoji.packages import (
    NAME_FILES,
    Packages,
    Report,
    fetched_packages,
    unpacked_packages,
)
from miniclip.emoji.sources import NAMES, STYLES, licence_table
from miniclip.files import as_path, write_bytes

TABLE = "metadata.jsonl"
LICENCES = "licences.md"
UNICODE = "unicode-licence.txt"
MADE = "made.json"  # what pictures that are there already were made by
LANGUAGES = ("en", "zh")
Bar = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class EmojiSet:
    """What was made. pictures: files. concepts: things that they show, some of them held out."""

    folder: Path
    pictures: int
    drawn: int
    concepts: int
    held_out: int
    styles: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "folder": str(self.folder)}


def make_emoji(
    folder: str | Path,
    packages: str | Path | None = None,
    languages: Sequence[str] = LANGUAGES,
    report: Report = print,
    bar: Bar = iter,
) -> EmojiSet:
    """Make the set, or what is missing of it.

    packages: a folder in which the packages of sources.toml lie unpacked; None: npm fetches them.
    languages: of the names and keywords; English is always among them. report: takes lines for
    people. bar: wraps what is gone through.
    Raises PackageError naming a package, file or icon that is not as expected, ImportError without
    resvg, OSError naming the file that could not be written.
    """
    folder = as_path(folder)
    languages = list(dict.fromkeys(["en", *languages]))
    parents = [parent for language in languages if (parent := parent_of(language))]
    needed = list(dict.fromkeys([*languages, *parents]))
    made_by = {"resvg": check_renderer(), "packages": versions()}
    check_made(folder, made_by)
    if packages is None:
        there = fetched_packages(folder / "packages", needed, report)
    else:
        there = unpacked_packages(as_path(packages), needed)
    concepts = read_concepts(there, languages)
    called = read_names(there, concepts)
    icons = [icon for style in STYLES for icon in find_icons(there, style, called)]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes({folder / MADE: (json.dumps(made_by, indent=1) + "\n").encode()})
    (folder / TABLE).unlink(missing_ok=True)  # until the set is whole
    drawn = sum(draw_missing(folder, there, icon) for icon in bar(icons))
    write_papers(folder, there)
    write_table(folder, icons, concepts)
    counts = {style.name: sum(icon.style == style.name for icon in icons) for style in STYLES}
    held_out = sum(concept.held_out for concept in concepts)
    return EmojiSet(folder, len(icons), drawn, len(concepts), held_out, counts)


def versions() -> dict[str, str]:
    packages = [*(style.package for style in STYLES), *NAMES]
    return {package.name: package.version for package in packages}


def check_made(folder: Path, made_by: dict[str, Any]) -> None:
    """ValueError where pictures made otherwise, or a person's own files, are in the folder."""
    note = folder / MADE
    if note.exists():
        try:
            found = json.loads(note.read_bytes())
        except ValueError as error:
            raise ValueError(f"{note}: not JSON ({error}); remove {folder}, begin anew") from error
        if found != made_by:
            raise ValueError(
                f"{folder}: holds pictures made from other versions ({note}); choose another folder"
            )
        return
    for name in ("pictures", TABLE, LICENCES, UNICODE):
        if (folder / name).exists():
            raise ValueError(f"{folder}: holds {name} but no {MADE}, expected a folder of its own")


def file_of(icon: Icon) -> str:
    """Where a picture lies in the folder."""
    code_point = "-".join(f"{ord(c):x}" for c in icon.character)
    end = f"_{icon.number}" if icon.number else ""
    return f"pictures/{icon.style}/{code_point}{end}.png"


def draw_missing(folder: Path, packages: Packages, icon: Icon) -> bool:
    """Draw a picture unless it is there; whether it was drawn."""
    path = folder / file_of(icon)
    if path.exists():
        return False
    svg, width, height = svg_of(icons_of(packages, icon.style), icon.name)
    picture = draw(svg, width, height, f"{icon.style}: {icon.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes({path: picture})
    return True


@lru_cache(1)
def icons_of(packages: Packages, style: str) -> Any:
    """A set's icons.json, which has tens of megabytes: the last one is kept."""
    package = next(s.package for s in STYLES if s.name == style)
    return packages.json(package, "icons.json")


def write_papers(folder: Path, packages: Packages) -> None:
    """The licences: a table, and the text of the names' licence as it came."""
    changes = "The pictures were drawn at 128 pixels from the SVG files of these sets, unchanged."
    text = f"# Where the pictures and names come from\n\n{licence_table()}\n\n{changes}\n"
    licence = packages.path(NAMES[0], NAME_FILES[1]).read_bytes()
    write_bytes({folder / LICENCES: text.encode(), folder / UNICODE: licence})


def write_table(folder: Path, icons: Sequence[Icon], concepts: Sequence[Concept]) -> None:
    by_character = {concept.character: concept for concept in concepts}
    rows = (row_of(icon, by_character[icon.character]) for icon in icons)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes({folder / TABLE: lines.encode()})


def row_of(icon: Icon, concept: Concept) -> dict[str, Any]:
    """A line of the table. label and text: the English name, no two concepts' are the same."""
    return {
        "file_name": file_of(icon),
        "label": concept.names["en"],
        "text": concept.names["en"],
        "character": concept.character,
        "code_point": concept.code_point,
        "style": icon.style,
        "number": icon.number,
        "split": "held-out" if concept.held_out else "train",
        "group": concept.group,
        "names": concept.names,
        "keywords": concept.keywords,
    }
