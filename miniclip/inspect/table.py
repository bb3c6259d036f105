"""Statistics of tensors, as a table for a terminal and for a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass, fields

import numpy as np

from miniclip.ops.array import Array


@dataclass(frozen=True)
class Row:
    """One tensor: what it is and how its numbers are spread. Statistics are over finite numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    deviation: float
    largest: float  # absolute value
    zeros: float  # share, 0 to 1
    nonfinite: int  # how many NaN and infinities


def statistics(name: str, x: Array) -> Row:
    """The row of one array of numbers."""
    finite = np.isfinite(x)
    values = x[finite].astype(np.float64)
    some = values if values.size else np.zeros(1)
    zeros = float((values == 0).sum() / max(x.size, 1))
    return Row(
        name,
        tuple(x.shape),
        x.dtype.name,
        float(some.mean()),
        float(some.std()),
        float(np.abs(some).max()),
        zeros,
        int(x.size - finite.sum()),
    )


def cells(row: Row) -> list[str]:
    """The row as text."""
    shape = "x".join(map(str, row.shape)) or "number"
    numbers = [f"{v:.4g}" for v in (row.mean, row.deviation, row.largest)]
    return [row.name, shape, row.dtype, *numbers, f"{row.zeros:.0%}", str(row.nonfinite or "")]


HEADINGS = [field.name for field in fields(Row)]


def as_text(rows: list[Row]) -> str:
    """The table for a terminal, names to the left and numbers to the right."""
    return text_table(HEADINGS, [cells(row) for row in rows])


def text_table(headings: list[str], lines: list[list[str]]) -> str:
    """Columns as wide as their longest cell."""
    everything = [headings, *lines]
    widths = [max(len(line[i]) for line in everything) for i in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in everything
    )


def as_html(rows: list[Row]) -> str:
    """The table for a notebook; rows with NaN or infinities stand out."""
    bad = ["background: #fdd" if row.nonfinite else "" for row in rows]
    return html_table(HEADINGS, [cells(row) for row in rows], bad)


def html_table(headings: list[str], lines: list[list[str]], styles: list[str]) -> str:
    """A table in HTML; styles: one for each line."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    body = "".join(
        f'<tr style="{style}">' + "".join(f"<td>{html.escape(c)}</td>" for c in line) + "</tr>"
        for line, style in zip(lines, styles, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def markdown_table(headings: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    rules = [":--"] + ["--:"] * (len(headings) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rules, *lines])
