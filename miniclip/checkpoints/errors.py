"""The error for checkpoints that cannot be used, and the words it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message names the file, the key, and what is wrong."""


def kind_of(value: Any) -> str:
    """What a JSON value is, in words and briefly."""
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that the system does not let us read."""
    reason = getattr(error, "strerror", None) or str(error)
    return CheckpointError(f"{path}: cannot be read: {reason}")
