"""The header of a safetensors file, parsed and checked: which bytes are which tensor.

A safetensors file is 8 bytes (the header's length, a little-endian u64), the header (a JSON object:
name -> dtype, shape, data_offsets), and the tensors' bytes, one after the other without gaps.
Nothing in it is believed before it is checked: a header that passes describes every byte after it
exactly once. Our own parser, because the library's NumPy reader refuses BF16, and because errors
have to name the file and the key.
Source: the format's description, https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from miniclip.checkpoints.errors import CheckpointError, kind_of
from miniclip.checkpoints.json_files import MAX_JSON, parse_json

MAX_DIMENSIONS = 8
MAX_SIZE = 2**63 - 1  # of one axis

# How each dtype is stored. BF16 is the upper half of a float32: its bits are read as u2.
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4} | {
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1
}  # fmt: skip

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
NO_PICKLE = (
    "a pickle can run code when it is opened, so miniclip opens safetensors only; take the hub's "
    "*.safetensors file, or convert a file that you trust where it can do no harm: from "
    "safetensors.torch import save_file; save_file({k: v.clone() for k, v in "
    'model.state_dict().items()}, "model.safetensors")'
)


@dataclass(frozen=True)
class Entry:
    """Where one tensor is: bytes begin to end of the file, with this dtype and shape."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, file: BinaryIO) -> tuple[dict[str, Entry], dict[str, str]]:
    """All entries by key, and the file's own notes (`__metadata__`).

    Raises CheckpointError for everything that is not as the format says.
    """
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    start = file.read(9)
    refuse_other_files(path, start)
    if size < 9:
        raise CheckpointError(
            f"{path}: {size} bytes, expected at least 9: the header's length and the header"
        )
    length = int.from_bytes(start[:8], "little")
    if length > min(size - 8, MAX_JSON):
        raise CheckpointError(
            f"{path}: its first 8 bytes give a header of {length} bytes, expected at most "
            f"{min(size - 8, MAX_JSON)} (the file has {size}; truncated, or not safetensors?)"
        )
    file.seek(8)
    header = parse_json(path, file.read(length))
    notes = checked_notes(path, header.pop("__metadata__", {}))
    entries = {key: checked_entry(path, key, entry) for key, entry in header.items()}
    check_layout(path, entries, size - 8 - length)
    shift = 8 + length  # the header counts from its own end, we from the file's beginning
    moved = {
        key: Entry(e.dtype, e.shape, e.begin + shift, e.end + shift) for key, e in entries.items()
    }
    return moved, notes


def refuse_other_files(path: Path, start: bytes) -> None:
    """Refuse by its first bytes what is often taken for a checkpoint.

    A pickle's \\x80 may also be the length of a header, so what a header must begin with decides.
    """
    if start[8:9] == b"{":
        return
    if start.startswith(b"PK\x03\x04") or (
        start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"
    ):
        raise CheckpointError(f"{path}: its content is a pickle (a PyTorch file): {NO_PICKLE}")
    if start.startswith(b"version "):
        raise CheckpointError(
            f"{path}: this is a Git LFS pointer, not the weights; `git lfs pull` fetches them"
        )


def checked_notes(path: Path, notes: Any) -> dict[str, str]:
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        raise CheckpointError(
            f"{path}: __metadata__ is {kind_of(notes)}, expected an object of strings"
        )
    return notes


def checked_entry(path: Path, key: str, entry: Any) -> Entry:
    """One entry of the header, with its offsets as written there."""
    where = f"{path}: {key!r}"
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{where} is {kind_of(entry)}, expected an object of dtype, shape and data_offsets"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{where} has dtype {kind_of(dtype)}, expected one of {', '.join(DTYPES)}"
        )
    if not are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(
            f"{where} has shape {kind_of(shape)}, expected at most {MAX_DIMENSIONS} sizes from 0 "
            f"to {MAX_SIZE}"
        )
    if not are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            f"{where} has data_offsets {kind_of(offsets)}, expected [begin, end] with begin <= end"
        )
    expected = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != expected:
        raise CheckpointError(
            f"{where} has {offsets[1] - offsets[0]} bytes, expected {expected} for {dtype} of "
            f"shape {shape}"
        )
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def are_sizes(values: Any) -> bool:
    """A list of plain integers that fit 64 bits. (True is an int too, but no size.)"""
    return isinstance(values, list) and all(type(n) is int and 0 <= n <= MAX_SIZE for n in values)


def check_layout(path: Path, entries: dict[str, Entry], available: int) -> None:
    """Tensors must fill the rest of the file from its first byte to its last, each byte once."""
    at, before = 0, "the header"
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.end > available:
            raise CheckpointError(
                f"{path}: {key!r} ends at byte {entry.end} of the data, expected at most "
                f"{available} (is the file truncated?)"
            )
        if entry.begin != at:
            what = "overlaps" if entry.begin < at else "leaves a hole after"
            raise CheckpointError(
                f"{path}: {key!r} begins at byte {entry.begin} of the data and {what} {before}, "
                f"expected {at}"
            )
        at, before = entry.end, repr(key)
    if at != available:
        raise CheckpointError(
            f"{path}: {available} bytes of data, expected {at}: what its tensors fill"
        )
