"""Checkpoints of a run: weights, optimiser, and where in the data it stood, in one file.

Batch, captions and shuffling of a step follow from the seed and the step's number alone, so the
number is all that has to be kept of data position and random state. Tensors keep their dtype: a
run that continues from its checkpoint gives the same bits as one that was never stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.files import named, write_bytes
from miniclip.ops.array import Array

BLOCK = 1 << 20  # bytes that are written at once
FORMAT = 1  # of the notes; another number is refused


class StateError(ValueError):
    """A checkpoint that cannot be resumed. The message names the file and why."""


class Room:
    """Room on the disk that is kept for what a run writes at its end: a hidden file of that size.

    Other programs may fill the disk during a run of hours; its result can still be written.
    """

    def __init__(self, folder: Path, size: Callable[[], int]) -> None:
        self.file, self.size = folder / ".room.tmp", size

    def take(self) -> None:
        """OSError that names the file where there is not enough room."""
        size = self.size()
        with named(self.file):
            try:
                with open(self.file, "wb") as file:
                    for start in range(0, size, BLOCK):  # written: a hole would keep no room
                        file.write(bytes(min(BLOCK, size - start)))
            except OSError:
                self.give_back()
                raise

    def give_back(self) -> None:
        self.file.unlink(missing_ok=True)


def write_state(path: Path, tensors: Mapping[str, Array], notes: dict[str, Any]) -> None:
    """Write tensors and notes (plain data) as one safetensors file, whole or not at all."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    # ascontiguousarray makes (1,) of a number without dimensions
    shaped = {name: x.reshape(tensors[name].shape) for name, x in contiguous.items()}
    metadata = {"miniclip.training": json.dumps({"format": FORMAT, **notes})}
    write_bytes({path: save(shaped, metadata)})


def read_state(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and notes. StateError naming the file if it is no checkpoint of a run."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            notes = json.loads((file.metadata() or {}).get("miniclip.training", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StateError(f"{path}: no checkpoint of a training run ({error})") from error
    if not isinstance(notes, dict) or notes.get("format") != FORMAT:
        raise StateError(
            f"{path}: no checkpoint of a training run of this version (its notes are "
            f"{str(notes)[:60]}, expected format {FORMAT}); to start from its weights use --init"
        )
    return tensors, notes


def size_of(arrays: Iterable[Array]) -> int:
    """Their bytes, on whatever backend they are."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)


def part(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The tensors under a prefix, without it."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
