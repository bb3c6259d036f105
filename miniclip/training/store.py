"""Pictures decoded once and kept on disk as one array, which every step reads from.

Decoding a batch of PNG or JPEG files takes longer than augmenting it. So all pictures of a run
become uint8 squares with transparency (inputs/square.py), in one .npy file that is mapped into
memory: only what a step touches is read, and the system keeps what it can. The file lies in the
cache, under a name that follows from the pictures' paths, sizes and times, so that it is made again
when one changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from miniclip.files import cache_folder, write_files
from miniclip.inputs.opening import open_picture, pillow_errors
from miniclip.inputs.pictures import Picture
from miniclip.inputs.square import visible_square
from miniclip.ops.array import Array
from miniclip.training.shards import shard_of, source_of

FORM = 1  # of the file; another one makes all anew
CHUNK = 256  # pictures in memory while the file is written
Bar = Callable[[Iterable[Any]], Iterable[Any]]


class Store:
    """`store[path]` is a picture, uint8 (side, side, 4), read-only. broken: path -> reason."""

    def __init__(self, squares: Array, paths: Sequence[Path], broken: dict[Path, str]) -> None:
        self.squares, self.broken = squares, broken
        self._place = {path: n for n, path in enumerate(paths)}

    def __getitem__(self, path: Path) -> Array:
        square: Array = self.squares[self._place[path]]
        return square


def pictures_folder() -> Path:
    """Where decoded pictures are kept; it may be deleted at any time."""
    return cache_folder() / "pictures"


def stored(paths: Sequence[Path], side: int, workers: int = 2, bar: Bar = iter) -> Store:
    """The store of these pictures, made if it is not there. OSError where it cannot be written.

    side: pixels. workers: threads that decode. bar: wraps what is gone through while it is made.
    A picture that cannot be read is nothing but transparent in it, and named in `broken`.
    """
    paths = list(dict.fromkeys(paths))
    folder = pictures_folder()
    name = name_of(paths, side)
    squares, notes = folder / f"{name}.npy", folder / f"{name}.json"
    if not (squares.is_file() and notes.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        broken: dict[str, str] = {}
        write = partial(write_squares, paths, side, workers, bar, broken)
        write_files({squares: write, notes: lambda file: write_json(file, broken)})
    found = {Path(path): reason for path, reason in json.loads(notes.read_bytes()).items()}
    return Store(np.load(squares, mmap_mode="r"), paths, found)


def name_of(paths: Sequence[Path], side: int) -> str:
    """A name that is another one as soon as a picture is."""
    digest = hashlib.sha256(f"{FORM} {side}".encode())
    for path in paths:
        try:
            status = os.stat(shard_of(path) or path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"\n{path.absolute()} {state}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def write_squares(
    paths: Sequence[Path], side: int, workers: int, bar: Bar, broken: dict[str, str], file: BinaryIO
) -> None:
    """The .npy file, some pictures at a time."""
    shape = (len(paths), side, side, 4)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for path, square in bar(list_squares(paths, side, workers)):
        if isinstance(square, str):
            broken[str(path)] = square
            square = np.zeros(shape[1:], np.uint8)
        file.write(square.tobytes())


def list_squares(
    paths: Sequence[Path], side: int, workers: int
) -> Iterator[tuple[Path, Array | str]]:
    """Each path with its square, or the reason why there is none, in order."""
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), CHUNK):
            some = paths[start : start + CHUNK]
            yield from zip(some, pool.map(partial(square_of, side=side), some), strict=True)


def square_of(path: Path, side: int) -> Array | str:
    """A picture's square, or why it cannot be read."""
    name = repr(str(path))
    try:
        with pillow_errors(name):
            square: Array = visible_square(open_picture(Picture(name, source_of(path)), True), side)
            return square
    except (OSError, ValueError) as error:
        return str(error).removeprefix(f"{name}: ")


def write_json(file: BinaryIO, content: Any) -> None:
    file.write((json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
