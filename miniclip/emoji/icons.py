"""Which icon of a set shows which concept, and its SVG.

Some sets list the character of each icon; the others only call it by a name. A name is looked up
among what the listing sets call their icons, then among Unicode's names of the characters, first as
it is written and then without hyphens ("alarmclock"); a number at its end ("baby-2") tells pictures
of one thing apart. A name that could mean two characters in one of these lists is left to the next.

Source: the format of icons.json is Iconify's (iconify.design/docs/types/iconify-json.html).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from miniclip.emoji.concepts import LISTING, Concept, character_of
from miniclip.emoji.packages import PackageError, Packages
from miniclip.emoji.sources import STYLES, Style

Called: TypeAlias = dict[str, str | None]  # name -> character; None where it could be two


@dataclass(frozen=True)
class Icon:
    """A picture of a concept. name: in its set. number: 0 for the first of its style, which is the
    one that questions are asked about."""

    style: str
    character: str
    number: int
    name: str


def find_icons(packages: Packages, style: Style, called: Sequence[Called]) -> list[Icon]:
    """A set's icons of the concepts; called: see `read_names`."""
    listed = packages.json(style.package, "chars.json") if style.lists_characters else {}
    known = {character for names in called for character in names.values() if character}
    if listed:
        shown: dict[str, list[str]] = {}
        for code, icon in sorted(listed.items()):
            if character_of(code) in known:
                shown.setdefault(character_of(code), []).append(icon)
        return [Icon(style.name, c, 0, icons[0]) for c, icons in sorted(shown.items())]
    return icons_by_name(icon_names(packages, style), style.name, called)


def icons_by_name(names: Iterable[str], style: str, called: Sequence[Called]) -> list[Icon]:
    """The icons of a set that lists no characters."""
    shown: dict[str, list[tuple[int, int, str]]] = {}  # character -> (how sure, number, name)
    for name in names:
        hit = look_up(name, called)
        if hit is not None:
            character, sure, number = hit
            shown.setdefault(character, []).append((sure, number, name))
    icons = []
    for character, hits in sorted(shown.items()):
        best = sorted(hit for hit in hits if hit[0] == min(hits)[0])
        numbered = [hit for hit in best if hit[1] > 0] or best[:1]  # else two names of one picture
        icons += [Icon(style, character, n, name) for n, (_, _, name) in enumerate(numbered)]
    return icons


def look_up(name: str, called: Sequence[Called]) -> tuple[str, int, int] | None:
    """The character that a name means, how sure that is (0: surest), and the number at its end."""
    whole, end = name, re.fullmatch(r"(.*\D)-(\d+)", name)
    forms = [(whole, 0)] + ([(end[1], int(end[2]))] if end else [])
    for sure, names in enumerate(called):
        for form, number in forms:
            character = names.get(form)
            if character is not None:
                return character, sure, number
    return None


def icon_names(packages: Packages, style: Style) -> list[str]:
    """The names of a set's icons; other names of the same icon stand behind its own."""
    icons = packages.part(style.package, "icons.json", "icons")
    return [*sorted(icons), *sorted(packages.json(style.package, "icons.json").get("aliases", {}))]


# ------------------------------------------------------------------------ what things are called


def read_names(packages: Packages, concepts: Sequence[Concept]) -> list[Called]:
    """What the concepts are called, the surest first: by the listing sets and by Unicode's names,
    both as written, then both without hyphens."""
    wanted = {concept.character for concept in concepts}
    by_sets = [pair for s in STYLES if s.name in LISTING for pair in named_by(packages, s)]
    by_sets += [(slug(c.names["en"]), c.character) for c in concepts if "en" in c.names]
    by_unicode = [(slug(n), c.character) for c in concepts if (n := unicode_name(c.character))]
    written = [unique(by_sets, wanted), unique(by_unicode, wanted)]
    squeezed = [[(n.replace("-", ""), c) for n, c in pairs] for pairs in (by_sets, by_unicode)]
    return [*written, *(unique(pairs, wanted) for pairs in squeezed)]


def named_by(packages: Packages, style: Style) -> Iterator[tuple[str, str]]:
    """(name, character) of a set that lists its characters, further names included."""
    characters: dict[str, list[str]] = {}
    for code, icon in packages.json(style.package, "chars.json").items():
        characters.setdefault(icon, []).append(character_of(code))
    aliases = packages.json(style.package, "icons.json").get("aliases", {})
    for icon, several in characters.items():
        yield from ((icon, character) for character in several)
    for alias, entry in aliases.items():
        if set(entry) == {"parent"}:  # one that is turned over is another picture
            yield from ((alias, character) for character in characters.get(entry["parent"], ()))


def unique(pairs: Iterable[tuple[str, str]], wanted: set[str]) -> Called:
    """Name -> the one concept that it means; None where sets do not agree."""
    called: Called = {}
    for name, character in pairs:
        if character in wanted:
            called[name] = character if called.get(name, character) == character else None
    return called


def slug(name: str) -> str:
    """ "Mrs. Claus" -> "mrs-claus", as sets write the names of files."""
    ascii_only = unicodedata.normalize("NFKD", name.lower().replace("\u2019", ""))
    letters = ascii_only.encode("ascii", "ignore").decode().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")


def unicode_name(character: str) -> str:
    """Unicode's name of a single character, or nothing."""
    return unicodedata.name(character, "") if len(character) == 1 else ""


# ------------------------------------------------------------------------ the picture


def svg_of(content: dict[str, Any], name: str) -> tuple[str, int, int]:
    """An icon as an SVG document, and its width and height in its own units.

    content: a set's icons.json. PackageError naming the icon if it is not in the set.
    """
    flips = {"hFlip": False, "vFlip": False}
    entry = content["icons"].get(name)
    if entry is None and name in content.get("aliases", {}):
        alias = content["aliases"][name]
        if unknown := set(alias) - {"parent", *flips}:
            raise PackageError(f"{content.get('prefix')}: {name!r} has {min(unknown)!r}, not known")
        flips = {flip: bool(alias.get(flip)) for flip in flips}
        entry = content["icons"].get(alias["parent"])
    if entry is None:
        raise PackageError(f"{content.get('prefix')}: has no icon {name!r}")
    box = {key: entry.get(key, content.get(key, 0)) for key in ("left", "top", "width", "height")}
    left, top, width, height = box.values()
    width, height = width or 16, height or 16  # Iconify's own default
    body = entry["body"]
    if any(flips.values()):
        x, y = (-1 if flip else 1 for flip in flips.values())
        move = f"{2 * left + width if x < 0 else 0} {2 * top + height if y < 0 else 0}"
        body = f'<g transform="translate({move}) scale({x} {y})">{body}</g>'
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    view = f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}"'
    return f"<svg {names} {view}>{body}</svg>", width, height
