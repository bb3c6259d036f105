"""The one door for pictures: what was handed in becomes `Picture`s, one after the other.

A picture is a path, a binary file object, a PIL image or an array. Several are a list or tuple, an
array with one axis more in front, a folder, or any iterable, such as a generator: of that, pictures
are taken only as they are needed, so that a hundred thousand of them are never held in memory.
Folders and batches may be items of a list or an iterable.

What cannot be a picture is refused here, before anything is decoded, by a PictureError that names
it by its place. What shows only when a picture is opened is found in opening.py.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from miniclip.files import as_path

CHANNELS = (1, 3, 4)  # of arrays: gray, RGB, RGBA
ENCODE = "pass it to encode_image as it is, alone or in a list of such arrays"
# Of the files that count in a folder: what people keep pictures in, and Pillow reads.
ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
NEVER_SEVERAL = (str, os.PathLike, bytes, bytearray, memoryview, Mapping, Set)


class PictureError(ValueError):
    """A picture that cannot be used. The message names it and says what came and was expected."""


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """One picture, not yet opened. name: what messages call it, such as "images[3] 'cat.png'".

    source: a path, a binary file object, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or
    (H, W, 4), uint8 or float in [0, 1]; or the PictureError that opening it will raise.
    """

    name: str
    source: Any


Pictures: TypeAlias = list[Picture] | Iterator[Picture]


def pictures(images: Any, later: bool = False) -> Pictures:
    """Whatever was handed in, as pictures: a list; of an iterable of unknown length, an iterator.

    images: a path, a binary file object, a PIL image; an array, see `Picture`, with one axis more
    in front for a batch; a folder, meaning the pictures in it (not those in folders inside it) in
    the order of their names; a list, tuple or other iterable of all these. A `Picture` is left as
    it is.

    later: whatever is no picture is handed on, and its error raised when it is opened: for who goes
    on without it.

    Raises PictureError that names the picture: for no pictures at all (also of a folder), a missing
    or empty file, an array of another shape or dtype, and whatever else is no picture. Of an
    iterable, errors come when its pictures are taken.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind == "U":  # an array of paths
        images = images.ravel().tolist()
    if isinstance(images, list | tuple):
        found = [one for i, item in enumerate(images) for one in each(item, f"images[{i}]", later)]
        if not found:
            raise no_pictures()
        return found
    if is_iterable(images):
        return one_by_one(images, later)
    return list(each(images, "image", later))


def is_iterable(images: Any) -> bool:
    """Whether this is several pictures of unknown number: a generator, a map, a deque, ..."""
    has_its_own_kind = any(hasattr(images, name) for name in ("read", "shape"))  # files, arrays
    return (
        isinstance(images, Iterable)
        and not isinstance(images, NEVER_SEVERAL)
        and not has_its_own_kind
    )


def one_by_one(images: Iterable[Any], later: bool) -> Iterator[Picture]:
    """The pictures of an iterable, each taken when it is asked for."""
    none = True
    for i, item in enumerate(images):
        for picture in each(item, f"images[{i}]", later):
            none = False
            yield picture
    if none:
        raise no_pictures()


def no_pictures() -> PictureError:
    return PictureError("images: got none, expected at least one picture")


def each(item: Any, name: str, later: bool) -> Iterator[Picture]:
    """The picture that an item is, or the pictures of the folder or batch that it is."""
    try:
        yield from expanded(item, name, later)
    except PictureError as error:
        if not later:
            raise
        yield Picture(name, error)


def expanded(item: Any, name: str, later: bool) -> Iterator[Picture]:
    """The same, with an error for what is neither."""
    if isinstance(item, Picture):
        yield item
    elif isinstance(item, (str, os.PathLike)):
        at_home = os.fsdecode(item).startswith("~")
        yield from at_path(as_path(item) if at_home else item, name, later)
    elif isinstance(item, np.ndarray):
        check_array(item, name)
        if item.ndim == 4:
            yield from (Picture(part_of(name, i), one) for i, one in enumerate(item))
        else:
            yield Picture(name, item)
    elif isinstance(item, (list, tuple)):
        raise PictureError(f"{name}: got a {type(item).__name__}, expected a picture")
    elif isinstance(item, Image.Image) or is_binary_file(item):
        yield Picture(name, item)
    else:
        raise PictureError(f"{name}: got {described(item)}")


def part_of(name: str, i: int) -> str:
    """What the i-th picture of a folder or batch is called."""
    return f"images[{i}]" if name == "image" else f"{name}[{i}]"


def is_binary_file(item: Any) -> bool:
    return hasattr(item, "read") and not isinstance(item, io.TextIOBase)


# Paths and folders -------------------------------------------------------------------------------


def at_path(path: Any, name: str, later: bool) -> Iterator[Picture]:
    """The picture of a file, or the pictures of a folder."""
    named = f"{name} {shortened(path)}"
    if os.path.isdir(path):
        files = files_of(Path(os.fsdecode(path)), named)
        for i, file in enumerate(files):
            yield from each(file, part_of(name, i), later)
    else:
        check_file(path, named)
        yield Picture(named, path)


def files_of(folder: Path, name: str) -> list[Path]:
    """The picture files of a folder, in the order of their names. PictureError if it has none."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise PictureError(f"{name}: cannot be read: {error.strerror or error}") from error
    files = [entry for entry in entries if is_picture(entry)]
    if not files:
        raise PictureError(
            f"{name}: a folder without pictures ({len(entries)} other entries), expected files "
            f"directly in it that end in {', '.join(ENDINGS)}"
        )
    return files


def is_picture(path: Path) -> bool:
    """By its name only: whether it can be read shows when it is opened."""
    return not is_hidden(path) and path.suffix.lower() in ENDINGS and path.is_file()


def is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def check_file(path: Any, name: str) -> None:
    """Raise unless the path leads to a file that has something in it."""
    if isinstance(path, str) and re.match(r"[a-z][a-z0-9+.-]*://", path, re.IGNORECASE):
        raise PictureError(f"{name}: a URL, and nothing is ever fetched; download the picture")
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a path with a null character
        raise PictureError(f"{name}: no such file") from None
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device, which may never end
        raise PictureError(f"{name}: not a regular file; open it and pass the file object")
    if status.st_size == 0:
        raise PictureError(f"{name}: an empty file")


# Arrays ------------------------------------------------------------------------------------------


def check_array(array: np.ndarray, name: str) -> None:
    """Raise unless shape and dtype are those of a picture or a batch of them, channels last."""
    check_shape(array, name)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        hint = " (divide 16-bit pixels by 65535)" if array.dtype == np.uint16 else ""
        raise PictureError(f"{name}: got {array.dtype}, expected uint8 or float in [0, 1]{hint}")


def check_shape(array: np.ndarray, name: str) -> None:
    shape = array.shape
    if array.ndim == 2 or (array.ndim in (3, 4) and shape[-1] in CHANNELS):
        if array.size == 0:
            raise PictureError(f"{name}: got an array of shape {shape}, which has no pixels")
        return
    expected = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a batch (B, H, W, 3)"
    if array.ndim in (3, 4) and shape[-3] == 3:
        floats = array.dtype.kind == "f"
        hint = f"looks already preprocessed: {ENCODE}" if floats else "has its channels first"
        raise PictureError(f"{name}: {array.dtype} {shape} {hint}; pictures are {expected}")
    raise PictureError(f"{name}: got an array of shape {shape}, expected {expected}")


# Words -------------------------------------------------------------------------------------------


def shortened(path: Any, most: int = 120) -> str:
    """A path in quotes; of an overlong one (a picture passed as text, say) the beginning."""
    text = repr(os.fspath(path))
    return text if len(text) <= most else text[:most] + "..."


def described(source: Any) -> str:
    """What came instead of a picture, and what to do about it."""
    expected = "a path, a binary file object, a PIL image or a NumPy array"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{type(source).__name__}, expected {expected}: wrap it in io.BytesIO(...)"
    if isinstance(source, io.TextIOBase):
        return f"a file opened as text, expected {expected}: open it with mode 'rb'"
    return f"{type(source).__name__}, expected {expected}, or a list of them"
