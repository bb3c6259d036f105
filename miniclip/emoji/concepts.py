"""The concepts: which things there are pictures of, what they are called, and which of them
training never sees.

The list is fixed by a rule, so that figures of different people are figures of the same task: a
character (without the mark U+FE0F, which asks for a coloured picture) that at least three of four
large sets have, with an English name; without skin tones, flags of regions and single hair styles,
which are variants rather than things. It has 1,652 entries. One in ten is held out, decided by a
hash of the character alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from miniclip.emoji.packages import PackageError, Packages, missing_file, names_file
from miniclip.emoji.sources import GROUPS_OF, NAMES, STYLES

COLOURED = "\ufe0f"  # asks for a coloured picture, and names nothing
LISTING = ("noto", "twemoji", "openmoji", "fluent-emoji-flat")  # the sets that vote
VOTES = 3
NAMED = 0.9  # the share of the list that a language has to name
VARIANTS = (  # first and last code points of what a concept has none of
    (0x1F3FB, 0x1F3FF),  # skin tones
    (0x1F1E6, 0x1F1FF),  # letters that make flags of countries
    (0xE0020, 0xE007F),  # letters that make flags of regions
)
HAIR = (0x1F9B0, 0x1F9B3)  # a hair style alone


@dataclass(frozen=True)
class Concept:
    """A thing. names, keywords: by language. group: such as "Food & Drink"."""

    character: str
    names: dict[str, str]
    keywords: dict[str, tuple[str, ...]]
    group: str

    @property
    def code_point(self) -> str:
        """Such as "1f408-200d-2b1b": what files are named by."""
        return "-".join(f"{ord(c):x}" for c in self.character)

    @property
    def held_out(self) -> bool:
        return is_held_out(self.character)


def is_held_out(character: str) -> bool:
    """Whether training never sees a concept, in no style: one in ten, by a hash."""
    return int(hashlib.sha256(character.encode()).hexdigest(), 16) % 10 == 0


def character_of(code_points: str) -> str:
    """ "2764-fe0f-200d-1f525" -> the characters, without the mark that asks for colour."""
    characters = "".join(chr(int(code, 16)) for code in code_points.split("-"))
    return characters.replace(COLOURED, "")


def is_variant(character: str) -> bool:
    """Whether this is another form of a concept, or a part of one."""
    codes = [ord(c) for c in character]
    if len(codes) == 1 and HAIR[0] <= codes[0] <= HAIR[1]:
        return True
    return any(low <= code <= high for code in codes for low, high in VARIANTS)


def read_concepts(packages: Packages, languages: Sequence[str]) -> list[Concept]:
    """The list, in the order of the code points; "en" decides it, whatever languages are wanted.

    A few concepts may have no name in another language. PackageError for a language that names
    fewer than nine in ten.
    """
    english = names_in(packages, "en")
    names = {language: names_in(packages, language) for language in languages}
    groups = groups_of(packages)
    listed = sorted(c for c in voted(packages) if c in english and not is_variant(c))
    for language, known in names.items():
        count = sum(character in known for character in listed)
        if count < NAMED * len(listed):
            raise PackageError(
                f"languages: {language} names {count} of {len(listed):,} things, too few"
            )
    concepts = []
    for character in listed:
        named = {lang: known[character] for lang, known in names.items() if character in known}
        concepts.append(
            Concept(
                character,
                {language: name for language, (name, _) in named.items()},
                {language: keywords for language, (_, keywords) in named.items()},
                groups.get(character, ""),
            )
        )
    return concepts


def voted(packages: Packages) -> Iterable[str]:
    """The characters that enough of the listing sets have."""
    votes: Counter[str] = Counter()
    for style in STYLES:
        if style.name in LISTING:
            votes.update(set(map(character_of, packages.json(style.package, "chars.json"))))
    return [character for character, count in votes.items() if count >= VOTES]


def names_in(packages: Packages, language: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Character -> its name and its keywords in a language, from Unicode's CLDR.

    What a regional language such as pt-PT does not say itself, its parent (pt) says.
    """
    parent = parent_of(language)
    found = {} if parent is None else names_in(packages, parent)
    for package in NAMES:
        file = names_file(package, language)
        if not packages.path(package, file).is_file():
            raise missing_file(packages.path(package, file), package)
        key = file.split("/")[0]
        for character, entry in packages.part(package, file, key, "annotations").items():
            if entry.get("tts"):
                keywords = tuple(entry.get("default", ()))
                found[character.replace(COLOURED, "")] = (entry["tts"][0], keywords)
    return found


def parent_of(language: str) -> str | None:
    """ "pt" of "pt-PT"; None of a language itself."""
    first, dash, _ = language.partition("-")
    return first if dash else None


def groups_of(packages: Packages) -> dict[str, str]:
    """Character -> its group."""
    package = next(style.package for style in STYLES if style.name == GROUPS_OF)
    categories = packages.part(package, "metadata.json", "categories")
    group = {icon: name for name, icons in categories.items() for icon in icons}
    icons = packages.json(package, "chars.json").items()
    return {character_of(code): group[icon] for code, icon in icons if icon in group}
