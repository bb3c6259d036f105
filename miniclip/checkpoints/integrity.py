"""Whether a file is the one it should be: hashes, finite values, and what was verified before."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileReport:
    """What a check found in one safetensors file.

    size: bytes. sha256: of the file. expected: the hash that it should have, None if not known.
    tensors: how many it holds. not_finite: the first key with a NaN or an infinity.
    error: why the file cannot be read.
    """

    path: Path
    size: int
    sha256: str
    expected: str | None
    tensors: int = 0
    not_finite: str | None = None
    error: str | None = None

    @property
    def problem(self) -> str | None:
        """The first thing that is wrong, in words; None for a good file."""
        if self.expected not in (None, self.sha256):
            return f"sha256 is {self.sha256}, expected {self.expected}"
        if self.error is not None:
            return self.error
        if self.not_finite is not None:
            return f"{self.not_finite} holds values that are not finite"
        return None


@dataclass(frozen=True)
class WeightsReport:
    """What a check found: name is what was asked for, files holds one report a file.

    error: why the files are no checkpoint together, such as a shard that the index names and that
    is not there; None where they are, or where one of them cannot be read by itself.
    """

    name: str
    files: tuple[FileReport, ...]
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a file, and nothing is wrong with any, nor with all together."""
        good = all(file.problem is None for file in self.files)
        return bool(self.files) and good and self.error is None


def error_of_whole(path: Path) -> str | None:
    """Why a file, an index or a folder cannot be opened as one checkpoint; None if it can."""
    from miniclip.checkpoints.errors import CheckpointError
    from miniclip.checkpoints.reader import open_checkpoint

    try:
        open_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return None


def check_file(path: Path, expected: str | None) -> FileReport:
    """Hash one safetensors file and look at every number in it. Raises OSError if unreadable."""
    report: dict[str, Any] = {"path": path, "size": path.stat().st_size, "expected": expected}
    report["sha256"] = sha256_of(path)
    # imported here, so that names and paths can be asked for without a reader
    from miniclip.checkpoints.errors import CheckpointError
    from miniclip.checkpoints.reader import open_checkpoint

    try:
        checkpoint = open_checkpoint(path)
        keys = checkpoint.keys()
        arrays = ((key, checkpoint.array(key)) for key in keys)
        bad = (key for key, x in arrays if x.dtype.kind == "f" and not np.isfinite(x).all())
        return FileReport(**report, tensors=len(keys), not_finite=next(bad, None))
    except CheckpointError as error:
        return FileReport(**report, error=str(error))


def sha256_of(path: Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_by_blob(path: Path) -> str | None:
    """The hash that the hub gave for a file of its cache, None where it gave none.

    The cache keeps a large file as blobs/HASH, and a link to that under the file's own name. The
    blob may itself be a link, into a store of files of all repositories, under another hash.
    """
    blob = links(path)[1] if path.is_symlink() else None
    return blob.name if blob is not None and SHA256.fullmatch(blob.name) else None


def links(path: Path) -> list[Path]:
    """The path, what it is a link to, what that is a link to, ..., and the file at the end."""
    chain = [path]
    while chain[-1].is_symlink() and len(chain) < 10:
        chain.append(Path(os.path.normpath(chain[-1].parent / os.readlink(chain[-1]))))
    return chain


# ------------------------------------------------------------------------ what was verified before
#
# Hashing gigabytes takes seconds, so it is done once after a download. A mark in the repository's
# folder of the cache, one for each commit, says which files were whole and verified; it holds as
# long as their sizes and times stay the same.


def remember(mark: Path, weights: str, hashes: dict[str, str | None]) -> None:
    """Note that a snapshot is whole: its weights (file or index), and each file with its hash."""
    folder = snapshot_of(mark)
    files = {name: [*size_and_time(folder / name), digest] for name, digest in hashes.items()}
    text = json.dumps({"weights": weights, "files": files}, indent=1)
    partial = mark.with_name(f"{mark.name}.{uuid.uuid4().hex[:8]}")
    try:
        mark.parent.mkdir(exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, mark)
    except OSError:
        partial.unlink(missing_ok=True)  # a cache that cannot be written is verified every time


def remembered(mark: Path) -> tuple[str, dict[str, str | None]] | None:
    """What `remember` noted, if every file is still the same; else None."""
    try:
        note = json.loads(mark.read_text(encoding="utf-8"))
        weights, files = note["weights"], note["files"]
        folder = snapshot_of(mark)
        same = all(
            size_and_time(folder / name) == tuple(stamp[:2]) for name, stamp in files.items()
        )
        hashes = {name: stamp[2] for name, stamp in files.items()}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    return (weights, hashes) if same and files else None


def mark_of(snapshot: Path) -> Path:
    """The mark of a snapshot folder: REPOSITORY/miniclip/COMMIT.json."""
    return snapshot.parents[1] / "miniclip" / f"{snapshot.name}.json"


def snapshot_of(mark: Path) -> Path:
    return mark.parents[1] / "snapshots" / mark.stem


def size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def forget(snapshot: Path, name: str, damaged: bool) -> None:
    """Remove a file of a snapshot, its blob, and the mark, so that nothing takes it again.

    damaged: also from the store that repositories share, where it would be found again.
    """
    mark_of(snapshot).unlink(missing_ok=True)
    chain = links(snapshot / name)
    for path in chain if damaged else chain[:2]:
        path.unlink(missing_ok=True)
