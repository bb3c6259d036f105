"""What `Tokenizer.steps` returns: every step from a text to its ids, to be read."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

SHOWN = 40  # symbols of a line, and merges of a word: the rest is counted


@dataclass(frozen=True)
class Merge:
    """One merge as it was applied: wherever first stood before second they became one."""

    rank: int  # position in the list of merges: the lowest goes first
    first: str
    second: str

    def apply(self, symbols: Sequence[str]) -> list[str]:
        """The symbols with the pair joined, from left to right."""
        joined: list[str] = []
        places = iter(range(len(symbols)))
        for place in places:
            if tuple(symbols[place : place + 2]) == (self.first, self.second):
                joined.append(self.first + self.second)
                next(places)
            else:
                joined.append(symbols[place])
        return joined


@dataclass(frozen=True)
class WordSteps:
    """One word's way to its ids."""

    word: str
    symbols: tuple[str, ...]  # its bytes as characters, the last with `</w>`
    merges: tuple[Merge, ...]  # in the order in which they were applied
    pieces: tuple[str, ...]  # what is left after them: the tokens
    ids: tuple[int, ...]  # one a piece

    def states(self) -> Iterator[list[str]]:
        """The symbols after each merge."""
        symbols = list(self.symbols)
        for merge in self.merges:
            symbols = merge.apply(symbols)
            yield symbols

    def lines(self) -> list[tuple[str, str]]:
        """What there is to read, as (heading, content)."""
        lines = [
            ("bytes", _some([f"{byte:02x}" for byte in self.word.encode("utf-8")])),
            ("symbols", _some(self.symbols)),
        ]
        for merge, state in islice(zip(self.merges, self.states(), strict=True), SHOWN):
            pair = f"{merge.first} + {merge.second}"
            lines.append((f"rank {merge.rank}", f"{pair}  ->  {_some(state)}"))
        if len(self.merges) > SHOWN:
            lines.append(("", f"... and {len(self.merges) - SHOWN} merges more"))
        ids = [f"{i} {piece}" for i, piece in zip(self.ids, self.pieces, strict=True)]
        return [*lines, ("ids", _some(ids, ", "))]


@dataclass(frozen=True, repr=False)
class TextSteps:
    """Every step from a text to its ids. Prints as text, shows in a notebook as a table."""

    text: str
    cleaned: str
    words: tuple[WordSteps, ...]
    context_length: int

    @property
    def ids(self) -> list[int]:
        """What `encode` gives: without start and end."""
        return [i for word in self.words for i in word.ids]

    def lines(self) -> list[tuple[str, str]]:
        """The steps of the text as a whole, as (heading, content)."""
        count = len(self.ids)
        room = f"{count} tokens, {count + 2} of {self.context_length} with start and end"
        return [
            ("text", repr(self.text)),
            ("cleaned", repr(self.cleaned)),
            ("words", " | ".join(word.word for word in self.words)),
            ("ids", " ".join(map(str, self.ids))),
            ("length", room),
        ]

    def __repr__(self) -> str:
        blocks = [_as_text(self.lines())]
        blocks += [f"{word.word}\n{_as_text(word.lines(), '  ')}" for word in self.words]
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        rows = _as_rows("", self.lines())
        rows += "".join(_as_rows(word.word, word.lines()) for word in self.words)
        return f"<table>{rows}</table>"


def _some(parts: Sequence[str], between: str = " ") -> str:
    shown = between.join(parts[:SHOWN])
    return shown if len(parts) <= SHOWN else f"{shown} ... and {len(parts) - SHOWN} more"


def _as_text(lines: list[tuple[str, str]], indent: str = "") -> str:
    width = max(len(heading) for heading, _ in lines)
    return "\n".join(f"{indent}{h.ljust(width)}  {content}".rstrip() for h, content in lines)


def _as_rows(word: str, lines: list[tuple[str, str]]) -> str:
    """Table rows; the word stands in the first of them."""
    rows = ""
    for i, (heading, content) in enumerate(lines):
        cells = [
            f"<b>{html.escape(word)}</b>" if i == 0 else "",
            *map(html.escape, (heading, content)),
        ]
        rows += "<tr>" + "".join(f'<td style="text-align: left">{c}</td>' for c in cells) + "</tr>"
    return rows
