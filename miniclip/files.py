"""Files that are whole or not there, written beside their place and renamed; the cache folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_files(files: Mapping[Path, Callable[[BinaryIO], None]]) -> None:
    """Write all files under temporary names; only when all are complete do they get their own.

    Whatever goes wrong on the way, by an interrupt too, the temporary files are removed.
    """
    # Hidden, and unlike any checkpoint's name; made by open() for the usual permissions.
    temporary = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in files}
    try:
        for path, write in files.items():
            with named(path), open(temporary[path], "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())  # on the disk before the name points to it
        for path in files:
            with named(path):
                os.replace(temporary[path], path)
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An error of the system inside the block names this file: a full disk names none by itself."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def write_bytes(contents: Mapping[Path, bytes]) -> None:
    """Files with this content, all or none."""
    write_files({path: writer(content) for path, content in contents.items()})


def writer(content: bytes) -> Callable[[BinaryIO], None]:
    """What `write_files` calls for a file with this content."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def cache_folder() -> Path:
    """Where miniclip keeps what can be made or fetched again: ~/.cache/miniclip.

    MINICLIP_CACHE_DIR names another folder; XDG_CACHE_HOME another place for all programs' caches.
    """
    chosen = os.environ.get("MINICLIP_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "miniclip"
