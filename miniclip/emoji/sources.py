"""Where the pictures and names come from: packages of npm, pinned in sources.toml, and what they
may be used for."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LICENCE_LINKS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "https://opensource.org/license/mit",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "Unicode-3.0": "https://www.unicode.org/license.txt",
}


@dataclass(frozen=True)
class Package:
    """A package as npm publishes it; integrity: the hash of its archive, as npm writes it."""

    name: str
    version: str
    integrity: str


@dataclass(frozen=True)
class Style:
    """One artist's set. licence: of the pictures, by its SPDX name. trained: may the shipped model
    be trained on it? one_colour: whether it is drawn in black alone. lists_characters: whether it
    says which character each icon shows; else its icons are found by their names."""

    name: str
    package: Package
    artist: str
    link: str
    licence: str
    trained: bool = True
    one_colour: bool = False
    lists_characters: bool = False
    note: str = ""


def read_sources() -> tuple[tuple[Style, ...], tuple[Package, ...]]:
    """The styles, and the packages with names: of single characters, and of sequences."""
    text = Path(__file__).with_name("sources.toml").read_text(encoding="utf-8")
    content: dict[str, list[dict[str, Any]]] = tomllib.loads(text)
    styles = tuple(Style(package=package_in(entry), **entry) for entry in content["style"])
    return styles, tuple(package_in(entry) for entry in content["names"])


def package_in(entry: dict[str, Any]) -> Package:
    """The package of an entry, its fields taken out of it."""
    return Package(entry.pop("package"), entry.pop("version"), entry.pop("integrity"))


GROUPS_OF = "noto"  # the set whose groups of emoji are taken
STYLES, NAMES = read_sources()
PACKAGES = (*(style.package for style in STYLES), *NAMES)


def licence_table() -> str:
    """Who drew each set, and what it may be used for, as Markdown; it travels with the pictures."""
    rows = [
        (style.name, style.artist, style.link, style.licence, style.package, style.note)
        for style in STYLES
    ]
    link = "https://cldr.unicode.org"
    rows += [("names", "Unicode CLDR", link, "Unicode-3.0", package, "") for package in NAMES]
    lines = ["| style | artist | licence | package | note |", "|---|---|---|---|---|"]
    for name, artist, link, licence, package, note in rows:
        cells = [name, f"[{artist}]({link})", f"[{licence}]({LICENCE_LINKS[licence]})"]
        cells += [f"`{package.name}` {package.version}", note]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
