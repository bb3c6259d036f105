"""Docstrings of this project as Sphinx reads them.

Ours are plain text: `code` in single backticks, blocks that are indented by four are shown as they
are, and a line such as "size: pixels along a side" begins an item that its indented lines continue.
Signs that reStructuredText would take for markup (|x|, *, a trailing underscore) mean themselves,
and the file of a page, docs/ops/loss.md, is a link to it.
Sections such as "Args:" are napoleon's, which comes after this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

CODE = re.compile(r"(`+[^`]+`+)")
MARKUP = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")
PAGE = re.compile(r"\bdocs/([\w/-]+)\.md\b")
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE)
BULLET = re.compile(r"- |\d+\. ")
NAMED = re.compile(r"\w+(, \w+)*: ")


def to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring as lines of reStructuredText."""
    text = "\n".join(lines).strip("\n")
    if SECTION.search(text):
        return inline(text).split("\n")
    blocks = re.split(r"\n\s*\n", text)
    return [line for block in blocks for line in (*laid_out(block.split("\n")), "")]


def inline(text: str) -> str:
    """Single backticks become double ones, which may touch letters; markup is escaped."""
    parts = CODE.split(text)
    for i, part in enumerate(parts):
        code, words = part.strip("`"), MARKUP.sub(r"\\\g<0>", part)
        parts[i] = rf"\ ``{code}``\ " if i % 2 else PAGE.sub(r":doc:`\g<0> </\1>`", words)
    return "".join(parts)


def laid_out(block: list[str]) -> Iterator[str]:
    """Lines without a blank one between: text to show as it is, or paragraphs and items."""
    if block[0].startswith("    "):
        yield from ("::", "", *block)
        return
    if not any(line.startswith(" ") or BULLET.match(line) for line in block):
        yield from inline("\n".join(block)).split("\n")
        return
    for first, *rest in parts(block):
        bullet = BULLET.match(first)
        if bullet is None and NAMED.match(first) is None:
            yield from inline("\n".join([first, *rest])).split("\n")
        else:
            marker = bullet[0] if bullet else "- "
            below = list(laid_out(dedent("\n".join(rest)).split("\n"))) if rest else []
            gap = [""] if rest and BULLET.match(rest[0].strip()) else []
            yield marker + inline(first.removeprefix(marker))
            yield from (" " * len(marker) + line for line in (*gap, *below))
        yield ""


def parts(block: list[str]) -> Iterator[list[str]]:
    """Items with the indented lines that belong to them, and the paragraphs between."""
    part: list[str] = []
    for line in block:
        begins = not line.startswith(" ") and (is_item(line) or (part and is_item(part[0])))
        if part and begins:
            yield part
            part = []
        part.append(line)
    yield part


def is_item(line: str) -> bool:
    return bool(BULLET.match(line) or NAMED.match(line))


# ---------------------------------------------------------------------------- for Sphinx

# What autodoc makes of `Array`, the name that the source gives to an array of any dtype.
ARRAY = "numpy.ndarray[tuple[~typing.Any, ...], ~numpy.dtype[~typing.Any]]"


def process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def shorten(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: Any, returned: Any
) -> tuple[Any, Any]:
    return with_arrays(arguments), with_arrays(returned)


def with_arrays(signature: str | None) -> str | None:
    """A signature with `Array` where the source has it."""
    if signature is None:
        return None
    for spelling in (f"~{ARRAY}", ARRAY, ARRAY.replace("~", "")):
        signature = signature.replace(spelling, "Array")
    return signature


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True}
