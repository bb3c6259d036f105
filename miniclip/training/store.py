"""Pictures decoded once and kept on disk as one array, which every step reads from.

Decoding a batch of PNG or JPEG files takes longer than augmenting it. So all pictures of a run
become uint8 squares with transparency (inputs/square.py), in one .npy file that is mapped into
memory: only what a step touches is read, and the system keeps what it can. The file lies in the
cache, under a name that follows from the pictures' paths, sizes and times, so that it is made again
when one changes. Files that no run has used for a month are deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from miniclip.files import cache_folder, write_files
from miniclip.inputs.opening import open_picture, pillow_errors
from miniclip.inputs.pictures import Picture
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.square import is_opaque, visible_square
from miniclip.ops.array import Array
from miniclip.training.shards import shard_of, source_of
from miniclip.training.table_rows import counted

FORM = 2  # of the files; another one makes all anew
CHUNK = 256  # pictures in memory while the file is written
UNUSED_DAYS = 30  # after which a store is deleted
Bar = Callable[[Iterable[Any]], Iterable[Any]]
Report = Callable[[str], Any]


class Store:
    """`store[path]` is a picture, uint8 (side, side, 4), read-only. broken: path -> reason. opaque:
    the pictures without a transparent pixel, which fill their page."""

    def __init__(
        self, squares: Array, paths: Sequence[Path], broken: dict[Path, str], opaque: set[Path]
    ) -> None:
        self.squares, self.broken, self.opaque = squares, broken, opaque
        self._place = {path: n for n, path in enumerate(paths)}

    def __getitem__(self, path: Path) -> Array:
        square: Array = self.squares[self._place[path]]
        return square


@dataclass
class Notes:
    """What is kept beside the squares, by number: why a picture has none, and which are opaque."""

    broken: dict[int, str] = field(default_factory=dict)
    opaque: list[int] = field(default_factory=list)


def pictures_folder() -> Path:
    """Where decoded pictures are kept; it may be deleted at any time."""
    return cache_folder() / "pictures"


def stored(
    paths: Sequence[Path],
    side: int,
    transform: Transform,
    workers: int = 2,
    bar: Bar = iter,
    report: Report = print,
) -> Store:
    """The store of these pictures, made if it is not there. OSError where it cannot be written.

    side: pixels. transform: says how a picture becomes square, and whether its EXIF orientation
    counts. workers: threads that decode. bar: wraps what is gone through while it is made, report
    is told where. A picture that cannot be read is nothing but transparent in it.
    """
    paths = list(dict.fromkeys(paths))
    square = partial(square_of, side=side, transform=transform)
    folder = pictures_folder()
    name = name_of(paths, f"{side} {transform.resize_mode} {transform.apply_exif}")
    squares, kept = folder / f"{name}.npy", folder / f"{name}.json"
    if not (squares.is_file() and kept.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        delete_unused(folder)
        size = len(paths) * 4 * side * side / 2**20
        report(f"decoding {counted(len(paths), 'picture')} into {folder} ({size:.0f} MiB)")
        notes = Notes()
        write = partial(write_squares, paths, side, square, workers, bar, notes)
        write_files({squares: write, kept: lambda file: write_json(file, vars(notes))})
    os.utime(kept)  # used today
    found = json.loads(kept.read_bytes())
    broken = {paths[int(n)]: reason for n, reason in found["broken"].items()}
    opaque = {paths[n] for n in found["opaque"]}
    return Store(np.load(squares, mmap_mode="r"), paths, broken, opaque)


def name_of(paths: Sequence[Path], made_how: str) -> str:
    """A name that is another one as soon as a picture is."""
    digest = hashlib.sha256(f"{FORM} {made_how}".encode())
    for path in paths:
        try:
            status = os.stat(shard_of(path) or path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"\n{path.absolute()} {state}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def delete_unused(folder: Path) -> None:
    """Delete stores that no run has asked for in a month, and what a killed run has left."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for file in folder.iterdir():
        beside = file.with_suffix(".json") if file.suffix == ".npy" else file
        try:
            if (beside if beside.exists() else file).stat().st_mtime < oldest:
                file.unlink()
        except OSError:  # another process deletes too, or uses it
            continue


def write_squares(
    paths: Sequence[Path],
    side: int,
    square: Callable[[Path], tuple[Array, bool] | str],
    workers: int,
    bar: Bar,
    notes: Notes,
    file: BinaryIO,
) -> None:
    """The .npy file, some pictures at a time."""
    shape = (len(paths), side, side, 4)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for n, found in enumerate(bar(list_squares(paths, square, workers))):
        if isinstance(found, str):
            notes.broken[n] = found
            file.write(bytes(4 * side * side))
            continue
        pixels, opaque = found
        notes.opaque += [n] * opaque
        file.write(pixels.tobytes())


def list_squares(
    paths: Sequence[Path], square: Callable[[Path], tuple[Array, bool] | str], workers: int
) -> Iterator[tuple[Array, bool] | str]:
    """What `square` gives for each path, in order."""
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), CHUNK):
            yield from pool.map(square, paths[start : start + CHUNK])


def square_of(path: Path, side: int, transform: Transform) -> tuple[Array, bool] | str:
    """A picture's square and whether it is opaque, or why it cannot be read."""
    name = repr(str(path))
    try:
        with pillow_errors(name):
            picture = open_picture(Picture(name, source_of(path)), transform.apply_exif)
            return visible_square(picture, side, transform.resize_mode), is_opaque(picture)
    except (OSError, ValueError) as error:
        return str(error).removeprefix(f"{name}: ")


def write_json(file: BinaryIO, content: Any) -> None:
    file.write((json.dumps(content) + "\n").encode())
