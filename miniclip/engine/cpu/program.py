"""What a plan consists of: steps in order, and the buffers that they read and write.

A `Program` is built once for a tower (and a picture size). A `Run` is one chunk of pictures or
texts on its way through it. All members of the team call all steps; inside a step they share the
work, and after it they have met, so a step may read what the one before wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from miniclip.cpu.team import APART, make_sync, team
from miniclip.engine.cpu import kernels
from miniclip.engine.cpu.packing import Weights, aligned
from miniclip.ops.array import Array

LOWEST = np.float32(-np.inf)  # of a product without ReLU
ZERO = np.float32(0)
A_BLOCK = 96 * 768  # numbers of A in one piece: 288 KiB stay in the second cache
PIECES = 4  # for each member at least, so that they end together


@dataclass(frozen=True)
class Sizes:
    """Numbers in a buffer: so many for each row (token) and each sequence (picture, text)."""

    per_row: int = 0
    per_sequence: int = 0

    def of(self, rows: int, sequences: int) -> int:
        return self.per_row * rows + self.per_sequence * sequences


@dataclass(eq=False)
class Run:
    """One chunk: what goes in, how its rows are cut into sequences, and its buffers by name."""

    x: Array  # pictures (B, 3, H, W), or the rows' words
    starts: Array  # (B + 1,): where each sequence's rows begin
    places: Array  # each row's place in its sequence (texts)
    chosen: Array  # the row that speaks for each sequence
    space: dict[str, Array] = field(default_factory=dict)
    scratch: Array = field(default_factory=lambda: aligned(0))

    @property
    def sequences(self) -> int:
        return len(self.starts) - 1

    @property
    def rows(self) -> int:
        return int(self.starts[-1])


@dataclass(frozen=True)
class Member:
    """Who calls a step: the team's counters, the step's number, and the room of its own."""

    sync: Array
    step: int
    members: int
    at: int  # in the scratch

    @property
    def meeting(self) -> tuple[Array, int, int]:
        """What every kernel takes last."""
        return self.sync, self.step, self.members


Step: TypeAlias = Callable[[Run, Member], None]


class Program:
    """Steps with a line about each, and the sizes of their buffers."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, Step]] = []
        self.buffers: dict[str, Sizes] = {}
        self.scratch = 0  # numbers for each member
        self.output = ""  # the buffer that holds the result
        self.columns = 0  # of the output's rows, padded
        self.width = 0  # numbers of a row of the result
        self.tokens = 1  # of each picture
        self.outputs = 1  # rows of the result for each sequence: its embedding, or its tokens
        self._kept: dict[str, Array] = {}

    def add(self, text: str, step: Step) -> None:
        self.steps.append((text, step))

    def buffer(self, name: str, per_row: int = 0, per_sequence: int = 0) -> str:
        """A buffer of at least this size; asked for twice, the larger size counts."""
        old = self.buffers.get(name, Sizes())
        self.buffers[name] = Sizes(max(per_row, old.per_row), max(per_sequence, old.per_sequence))
        return name

    def need_scratch(self, numbers: int) -> None:
        """Numbers that each member needs for itself in some step."""
        self.scratch = max(self.scratch, -(-numbers // APART // 2) * APART * 2)

    def memory(self, rows: int, sequences: int) -> int:
        """Bytes of all buffers for a chunk."""
        return 4 * sum(sizes.of(rows, sequences) for sizes in self.buffers.values())

    def run(self, run: Run, out: Array) -> None:
        """All steps; the run's embeddings go to out, (B, E), or its tokens, (B * T, D)."""
        workers = team()
        run.space = {
            name: self._room(name, sizes.of(run.rows, run.sequences))
            for name, sizes in self.buffers.items()
        }
        run.scratch = self._room("the members' own", self.scratch * workers.members)
        sync = make_sync(len(self.steps))

        def job(member: int, members: int) -> None:
            for number, (_, step) in enumerate(self.steps):
                step(run, Member(sync, number, members, member * self.scratch))
                if sync[0]:
                    return  # another member gave up

        workers.run(job, sync)
        rows = run.space[self.output][: len(out) * self.columns]
        out[:] = rows.reshape(len(out), self.columns)[:, : out.shape[1]]
        run.space = {}

    def _room(self, name: str, numbers: int) -> Array:
        """A buffer, kept from run to run: new memory is mapped page by page, which takes longer
        than to fill it."""
        if len(self._kept.get(name, ())) < numbers:
            self._kept[name] = aligned(numbers)
        return self._kept[name]

    # ------------------------------------------------------------------ steps that both kinds use

    def product(
        self,
        text: str,
        a: str,
        row_a: int,
        w: Weights,
        c: str,
        row_c: int,
        *,
        rows: Callable[[Run], int],
        activation: int = kernels.NOTHING,
        relu: bool = False,
        add: bool = False,
        group_a: int = 0,
        group_c: int = 0,
    ) -> None:
        """C (+)= A W + bias, then ReLU or an activation. a, c: buffers; rows: of this run."""
        lowest = ZERO if relu else LOWEST
        panels = -(-w.columns // w.panel) * w.groups

        def step(run: Run, member: Member) -> None:
            count = rows(run)
            block = block_rows(count, w.depth, panels, member.members)
            kernels.panel_product(
                run.space[a], row_a, count, w.depth, w.data, w.panel, w.columns, w.bias,
                lowest, activation, run.space[c], row_c, add, w.groups, group_a, group_c,
                block, *member.meeting,
            )  # fmt: skip

        self.add(f"{text}: product {w.depth} -> {w.columns}", step)

    def layer_norm(
        self, text: str, x: str, y: str, width: int, row: int, norm: Any, rows: Callable[[Run], int]
    ) -> None:
        """LayerNorm from one buffer to another, or in place. norm: the module."""
        weight, bias = float32(norm.weight.data), float32(norm.bias.data)
        eps = np.float32(norm.eps)

        def step(run: Run, member: Member) -> None:
            kernels.layer_norm_rows(
                run.space[x], rows(run), width, row, weight, bias, eps, run.space[y],
                *member.meeting,
            )  # fmt: skip

        self.add(f"{text}: LayerNorm", step)


def float32(x: Array) -> Array:
    """A flat copy in float32 that the kernels may read."""
    return np.array(x, np.float32, order="C").reshape(-1)


def block_rows(rows: int, depth: int, panels: int, members: int) -> int:
    """Rows of one piece of a product: a block of A that stays in the cache, but enough pieces."""
    block = min(max(A_BLOCK // depth // 6 * 6, 24), 480)
    while block > 12 and -(-rows // block) * panels < PIECES * members:
        block = -(-block // 12) * 6
    return block


def all_rows(run: Run) -> int:
    return run.rows


def all_sequences(run: Run) -> int:
    return run.sequences
