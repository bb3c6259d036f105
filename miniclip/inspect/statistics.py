"""Statistics of tensors, as a table for a terminal and for a notebook."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from miniclip.ops.array import Array
from miniclip.tables import html_table, text_table


@dataclass(frozen=True)
class TensorRow:
    """One tensor: what it is and how its numbers are spread. Statistics are over finite numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    deviation: float
    largest: float  # absolute value
    zeros: float  # share, 0 to 1
    nonfinite: int  # how many NaN and infinities


def statistics(name: str, x: Array) -> TensorRow:
    """The row of one array of numbers."""
    finite = np.isfinite(x)
    values = x[finite].astype(np.float64)
    some = values if values.size else np.zeros(1)
    zeros = float((values == 0).sum() / max(x.size, 1))
    return TensorRow(
        name,
        tuple(x.shape),
        x.dtype.name,
        float(some.mean()),
        float(some.std()),
        float(np.abs(some).max()),
        zeros,
        int(x.size - finite.sum()),
    )


def cells(row: TensorRow) -> list[str]:
    """The row as text."""
    shape = "x".join(map(str, row.shape)) or "number"
    numbers = [f"{v:.4g}" for v in (row.mean, row.deviation, row.largest)]
    return [row.name, shape, row.dtype, *numbers, f"{row.zeros:.0%}", str(row.nonfinite or "")]


HEADINGS = [field.name for field in fields(TensorRow)]


def as_text(rows: list[TensorRow]) -> str:
    """The table for a terminal, names to the left and numbers to the right."""
    return text_table(HEADINGS, [cells(row) for row in rows])


def as_html(rows: list[TensorRow]) -> str:
    """The table for a notebook; rows with NaN or infinities stand out."""
    bad = ["background: #fdd" if row.nonfinite else "" for row in rows]
    return html_table(HEADINGS, [cells(row) for row in rows], bad)
