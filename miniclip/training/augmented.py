"""Pictures that look a little different in every step, with captions in different words.

`AugmentedData` takes decoded squares from a store (store.py), changes them (inputs/augment.py) and
words their captions (wording.py). `OneOfEachLabel` makes batches in which every thing occurs once:
six pictures of a cat in one batch would be five false negatives for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from miniclip.inputs.augment import PLAIN, Augment, Change, apply
from miniclip.inputs.preprocess import Transform
from miniclip.ops.array import Array
from miniclip.training.recipe import is_number
from miniclip.training.store import Store
from miniclip.training.table_rows import Row, labels_of
from miniclip.training.wording import Wording

WORDS, CHOICE = 7, 8  # streams of random numbers: 1 to 6 belong to scenes, orders, augmentation
Apply = Callable[[Sequence[Array], Sequence[Change], int], Array]  # -> (N, 3, size, size), 0 to 1


@dataclass(frozen=True)
class Ramp:
    """How strong augmentation is on the way of a run: a network that has learned nothing yet learns
    nothing from pictures that are changed much, and ends best on pictures as they are asked about.

    start: the strength of the first step, growing to 1 until the share `up` of the steps is done.
    end: the strength of the last step, to which it falls in the share `down` at the end.
    """

    start: float = 0.1
    up: float = 1 / 3
    end: float = 0.3
    down: float = 0.15

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value!r}, expected a number from 0 to 1")
        if self.up + self.down > 1:
            raise ValueError(f"down: got {self.down!r} beside up {self.up!r}, expected at most 1")

    def strength(self, step: int, steps: int) -> float:
        """From 0 to 1; step: 0 for the first of `steps`."""
        done = step / max(1, steps - 1)
        rising = 1.0 if self.up == 0 else min(1.0, done / self.up)
        falling = 1.0 if self.down == 0 else min(1.0, (1 - done) / self.down)
        up = self.start + (1 - self.start) * rising
        down = self.end + (1 - self.end) * falling
        return min(up, down)


class AugmentedData:
    """Rows of a table as a dataset; what a pair looks like follows from seed, step and place.

    rows: whose pictures are in the store. transform: of the network, for size, mean and deviation.
    augment: None leaves pictures as they are. wording: how captions are made of names and keywords;
    rows without names take one of their captions. steps: of the run. make: what changes pictures,
    `apply_all` below or its compiled twin in cpu/augment.py.
    """

    by_step = True

    def __init__(
        self,
        rows: Sequence[Row],
        store: Store,
        transform: Transform,
        augment: Augment | None,
        wording: Wording,
        steps: int,
        seed: int = 0,
        ramp: Ramp | None = None,
        make: Apply | None = None,
    ) -> None:
        if transform.resize_to is not None:
            raise ValueError(
                f"resize_to: got {transform.resize_to}, expected None for augmentation"
            )
        self.rows, self.store, self.transform = list(rows), store, transform
        self.augment, self.wording, self.steps, self.seed = augment, wording, steps, seed
        self.ramp, self.make = ramp or Ramp(), make or apply_all
        self._mean = np.array(transform.mean, np.float32)[:, None, None]
        self._std = np.array(transform.std, np.float32)[:, None, None]

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, indices: Sequence[int], epoch: int, step: int = 0) -> tuple[Array, list[str]]:
        """Pixels (N, 3, R, R), normalised, and N captions, for a step."""
        paths = [self.rows[i].path for i in indices]
        squares = [self.store[path] for path in paths]
        changes = [self.change(step, place, path) for place, path in enumerate(paths)]
        pixels = self.make(squares, changes, self.transform.size)
        captions = [self.caption(i, step, place) for place, i in enumerate(indices)]
        return (pixels - self._mean) / self._std, captions

    def change(self, step: int, place: int, path: Path) -> Change:
        """What happens to the picture at a place in the batch of a step.

        Where nothing changes, a picture without transparency fills its page, as `Transform` makes
        it; what was cut out of a transparent one has a margin, as questions show it.
        """
        strength = self.ramp.strength(step, self.steps) if self.augment else 0.0
        plain = 1.0 if path in self.store.opaque else PLAIN
        return (self.augment or Augment()).draw(strength, [self.seed, step, place], plain)

    def caption(self, index: int, step: int, place: int) -> str:
        row = self.rows[index]
        rng = np.random.default_rng([self.seed, step, place, WORDS])
        if row.named is None:
            return row.captions[rng.integers(len(row.captions))]
        return self.wording.caption(row.named, rng)

    def labels(self, indices: Sequence[int]) -> tuple[str, ...] | None:
        """What is shown; None if a row does not say it."""
        return labels_of([self.rows[i] for i in indices])


def apply_all(squares: Sequence[Array], changes: Sequence[Change], size: int) -> Array:
    """Pictures under their changes, one by one: (N, 3, size, size), float32 from 0 to 1."""
    pairs = zip(squares, changes, strict=True)
    return np.stack([apply(square, change, size) for square, change in pairs]).transpose(0, 3, 1, 2)


class Labelled(Protocol):
    """A dataset that has rows."""

    rows: list[Row]

    def load(self, indices: Sequence[int], epoch: int, *step: int) -> tuple[Array, list[str]]: ...


class OneOfEachLabel:
    """A dataset of things: number i is one of the pictures of label i, another each epoch."""

    def __init__(self, data: Labelled, seed: int = 0) -> None:
        labels = labels_of(data.rows)
        if labels is None:
            raise ValueError("data: got rows without labels, expected some")
        groups: dict[str, list[int]] = {}
        for i, label in enumerate(labels):
            groups.setdefault(label, []).append(i)
        self.data, self.seed, self.groups = data, seed, list(groups.values())
        self.by_step: bool = getattr(data, "by_step", False)

    def __len__(self) -> int:
        return len(self.groups)

    def chosen(self, indices: Sequence[int], epoch: int) -> list[int]:
        """A row for each label."""
        rngs = [np.random.default_rng([self.seed, epoch, i, CHOICE]) for i in indices]
        groups = [self.groups[i] for i in indices]
        return [rows[rng.integers(len(rows))] for rows, rng in zip(groups, rngs, strict=True)]

    def load(self, indices: Sequence[int], epoch: int, *step: int) -> tuple[Array, list[str]]:
        return self.data.load(self.chosen(indices, epoch), epoch, *step)


def by_label(data: Any, batch: int, seed: int) -> Any:
    """A batch that holds each label once, where there are labels enough to fill it.

    With fewer, rows stay as they are, and equal labels count as positives (`Dataset.labels`).
    """
    if labels_of(data.rows) is None:
        return data
    one_of_each = OneOfEachLabel(data, seed)
    if len(one_of_each) < 2:
        raise ValueError(
            f"label: all {len(data.rows)} rows have {data.rows[0].label!r}, expected two at least: "
            "of one thing nothing can be told apart"
        )
    return one_of_each if len(one_of_each) >= batch else data
