"""Opening checkpoints: files, folders and sharded folders of safetensors, as arrays in the file.

`open_checkpoint` reads headers only, so that a file of gigabytes opens at once. `array` maps: pages
come from the disk when they are first read, are shared with every other process that reads the
file, and are copied (that page alone) when someone writes into the array; the file never changes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.checkpoints.errors import CheckpointError, kind_of, unreadable
from miniclip.checkpoints.json_files import open_regular, read_json
from miniclip.checkpoints.safetensors_header import (
    DTYPES,
    NO_PICKLE,
    PICKLES,
    Entry,
    read_header,
)
from miniclip.files import as_path
from miniclip.ops.array import Array

# In a folder, the first of these is the checkpoint. Where a folder of the hub has both kinds,
# `model.safetensors` may be timm's image tower alone, under other keys.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class MappedFile:
    """One safetensors file: what its header says, and its bytes, mapped copy-on-write."""

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]
    data: Array  # (file size,) uint8

    def array(self, key: str) -> Array:
        """The tensor under a key; see `Checkpoint.array`."""
        entry = self.entries[key]
        raw = self.data[entry.begin : entry.end].view(DTYPES[entry.dtype]).reshape(entry.shape)
        if entry.dtype == "F16":
            return raw.astype(np.float32)
        if entry.dtype == "BF16":
            return widen_bfloat16(raw)
        # A header of odd length leaves all that follows askew: such arrays are slow, so copy.
        return raw if raw.flags.aligned else raw.copy()


def widen_bfloat16(bits: Array) -> Array:
    """The bits of BF16 numbers (uint16) as float32: BF16 is its upper half, the lower is zero."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


class Checkpoint:
    """The tensors of a checkpoint by their keys in the file, from one file or several shards.

    path: the file or the index. folder: where it is, with its configuration beside it.
    metadata: the notes in the file's header, text to text. shapes: key -> shape, in file order.
    """

    def __init__(self, path: Path, files: list[MappedFile]) -> None:
        self.path = path
        self.folder = path.parent
        self.metadata = {k: v for file in files for k, v in file.metadata.items()}
        self._home = {key: file for file in files for key in file.entries}
        self.shapes = {key: file.entries[key].shape for key, file in self._home.items()}

    def keys(self) -> list[str]:
        """All keys, in the order of the file."""
        return list(self._home)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor. CheckpointError if there is none under this key."""
        return self._entry(key).shape

    def dtype(self, key: str) -> str:
        """The dtype as the file names it: "F32", "F16", "BF16", "I64", ..."""
        return self._entry(key).dtype

    def array(self, key: str) -> Array:
        """The tensor under a key. CheckpointError if there is none.

        F32 and F64 lie in the file: no copy is made, and writing into the array changes the array
        alone. F16 and BF16 are widened to float32, a copy. Integers come as they are. The arrays
        outlive this object.
        """
        self._entry(key)
        return self._home[key].array(key)

    def file_of(self, key: str) -> Path:
        """The file that holds a key, for errors to name."""
        return self._home[key].path if key in self._home else self.path

    def beside(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a file of this name in the same folder; None if there is no file."""
        path = self.folder / name
        return read_json(path) if path.is_file() else None

    def _entry(self, key: str) -> Entry:
        if key not in self._home:
            raise CheckpointError(f"{self.path}: it has no key {key!r}")
        return self._home[key].entries[key]

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {len(self._home)} tensors)"


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a `.safetensors` file, a folder that holds one, or a sharded folder (or its index).

    Reads headers only. Raises CheckpointError naming the file, and the key where one is at fault;
    TypeError if path is no path. Nothing is ever unpickled: .pt and .bin files are refused.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: got {type(path).__name__}, expected a file or a folder")
    chosen = as_path(path)
    try:
        if chosen.is_dir():
            chosen = find_weights(chosen)
    except OSError as error:
        raise unreadable(chosen, error) from error
    if chosen.name.endswith(INDEX):
        return Checkpoint(chosen, open_shards(chosen))
    return Checkpoint(chosen, [open_file(chosen)])


def find_weights(folder: Path) -> Path:
    """The checkpoint of a folder: one of the usual names, or else its only .safetensors file."""
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    names = sorted(path.name for path in folder.iterdir())
    found = [name for name in names if name.endswith(".safetensors")]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise CheckpointError(
            f"{folder}: holds {', '.join(found[:8])}; expected one (or {WEIGHTS[2]}): give the "
            "path of the file"
        )
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise CheckpointError(f"{folder}: holds {pickles[0]}, no safetensors file: {NO_PICKLE}")
    raise CheckpointError(f"{folder}: no .safetensors file in it, expected {WEIGHTS[2]}")


def open_file(path: Path) -> MappedFile:
    """Check a file's header and map it. The file is closed again; the mapping stays."""
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(f"{path}: a pickle (a PyTorch file) by its name: {NO_PICKLE}")
    try:
        with open_regular(path) as file:
            entries, metadata = read_header(path, file)
            data = np.asarray(np.memmap(file, np.uint8, mode="c"))
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise unreadable(path, error) from error
    return MappedFile(path, entries, metadata, data)


def open_shards(index: Path) -> list[MappedFile]:
    """All files of an index; every key must be in the shard that the index says, and only there."""
    home = read_weight_map(index)
    files = {}
    for name in dict.fromkeys(home.values()):
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: names the shard {name!r}, which is not in its folder")
        files[name] = open_file(index.parent / name)
    for key, name in home.items():
        if key not in files[name].entries:
            raise CheckpointError(f"{index}: says that {key!r} is in {name}, but it is not")
    for name, file in files.items():
        for key in file.entries:
            if home.get(key) != name:
                said = f"says it is in {home[key]}" if key in home else "does not list it"
                raise CheckpointError(f"{file.path}: holds {key!r}, but {index.name} {said}")
    return list(files.values())


def read_weight_map(index: Path) -> dict[str, str]:
    """key -> shard, where a shard is a plain file name: an index must not point elsewhere."""
    home = read_json(index).get("weight_map")
    if not isinstance(home, dict) or not home:
        raise CheckpointError(f"{index}: weight_map is {kind_of(home)}, expected key -> file")
    for key, name in home.items():
        plain = isinstance(name, str) and name.endswith(".safetensors")
        if not plain or any(sign in name for sign in "/\\:\0"):
            raise CheckpointError(
                f"{index}: {key!r} is in {kind_of(name)}, expected a .safetensors file of the same "
                "folder"
            )
    return home
