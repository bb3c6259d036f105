"""Work cut into pieces and shared out over the team of threads.

Pieces are ranges of rows, images or heads, cut by their number and never by that of the threads:
whoever takes a piece, its results are the same bits. Sums over all rows are kept piece by piece and
added in the order of the pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from miniclip.cpu.team import make_sync, team
from miniclip.ops.array import Array

# Waking the other threads and waiting for them takes about 30 microseconds, much longer where other
# programs want the cores too. Work is counted in numbers read or written by simple kernels: a core
# does one or two in a nanosecond.
ALONE = 1 << 17


def pieces(n: int, size: int) -> Iterator[slice]:
    """0 to n in slices of `size`, the last one shorter."""
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def in_pieces(n: int, size: int, work: int, run: Callable[[int, slice], None]) -> None:
    """run(number, slice) for every piece of n; `work` is that of all of them."""
    if n <= size:
        if n:
            run(0, slice(0, n))
        return
    cut = list(enumerate(pieces(n, size)))
    if len(cut) < 2 or work < ALONE or team().members == 1:
        for number, piece in cut:
            run(number, piece)
        return
    taken = itertools.count()  # next() is one step under the interpreter's lock
    stop = np.zeros(1, np.int64)

    def job(member: int, members: int) -> None:
        while not stop[0] and (number := next(taken)) < len(cut):
            run(*cut[number])

    team().run(job, stop)


ENTRIES = 1 << 17  # of a piece: half a MiB in float32, a tenth of a millisecond


def entry_by_entry(kernel: Callable[..., None], cost: int, *arguments: Any) -> None:
    """A kernel over flat arrays, in pieces. Arguments that are no arrays go to all pieces as they
    are. cost: how many simple operations an entry is.
    """
    n = next(x.shape[0] for x in arguments if isinstance(x, np.ndarray))
    if n <= ENTRIES:
        kernel(*arguments)
        return

    def run(_: int, piece: slice) -> None:
        kernel(*(x[piece] if isinstance(x, np.ndarray) else x for x in arguments))

    in_pieces(n, ENTRIES, cost * n, run)


def rows_at_once(width: int) -> int:
    """How many rows make a piece of about ENTRIES numbers."""
    return max(1, ENTRIES // max(1, width))


PIECES = 16  # of a batch of maps, at most
LEAST = 1 << 18  # numbers of a piece: members take turns at the interpreter's lock to begin one


def maps_at_once(count: int, numbers: int) -> int:
    """How many of `count` images, or maps, with so many numbers in all, are a piece."""
    return max(1, -(-count // PIECES), -(-count * LEAST // max(1, numbers)))


def row_sums(kernel: Callable[..., None], rows: Array, sums: int, *arguments: Any) -> Array:
    """A kernel over rows (R, D) that adds to `sums` vectors (D,): (sums, D), in float64.

    The kernel gets the rows, then the arguments (arrays cut as the rows are), then the sums.
    """
    count, width = rows.shape
    size = rows_at_once(width)
    totals = np.zeros((-(-count // size), sums, width))

    def run(number: int, piece: slice) -> None:
        kernel(rows[piece], *(x[piece] for x in arguments), *totals[number])

    in_pieces(count, size, rows.size, run)
    return totals.sum(axis=0)


def together(steps: int, work: int, run: Callable[[Array, int, int], None]) -> None:
    """run(sync, member, members) by every member of the team: for kernels that claim and meet."""
    sync = make_sync(steps)
    if work < ALONE or team().members == 1:
        run(sync, 0, 1)
        return
    team().run(lambda member, members: run(sync, member, members), sync)
