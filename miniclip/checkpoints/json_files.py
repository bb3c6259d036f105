"""JSON that anyone may have written: read within bounds, and asked for what it should hold."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from miniclip.checkpoints.errors import CheckpointError, kind_of, unreadable

MAX_JSON = 100_000_000  # bytes; the safetensors format's own limit for a header


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises CheckpointError for anything else."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_JSON:
                raise CheckpointError(f"{path}: {size} bytes, expected at most {MAX_JSON}")
            return parse_json(path, file.read())
    except OSError as error:
        raise unreadable(path, error) from error


def open_regular(path: Path) -> BinaryIO:
    """Open for reading, but no pipe or device: those would wait, or never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise CheckpointError(f"{path}: expected a regular file")
    return open(path, "rb")


def parse_json(path: Path | str, data: bytes) -> dict[str, Any]:
    """A JSON object from bytes; duplicate keys are an error, as the format says."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise CheckpointError(f"{path}: the key {key!r} occurs twice in one JSON object")
            result[key] = value
        return result

    try:
        text = data.decode("utf-8")
        parsed = json.loads(text, object_pairs_hook=without_duplicates, parse_constant=no_constant)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its JSON is not valid: {error}") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path}: its JSON is {kind_of(parsed)}, expected an object")
    return parsed


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


# ---------------------------------------------------------------- what a value should be


def as_object(path: Path | str, field: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {field} is {kind_of(value)}, expected an object")
    return value


def check_only(path: Path, field: str, options: dict[str, Any], known: set[str]) -> None:
    if set(options) != known:
        raise CheckpointError(
            f"{path}: {field} is {kind_of(options)}, expected only {', '.join(known)}"
        )


def square(path: Path | str, field: str, value: Any) -> Any:
    """A side: a number, or a pair of equal ones."""
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    if isinstance(value, list):
        raise CheckpointError(f"{path}: {field} is {kind_of(value)}, expected a square")
    return value
