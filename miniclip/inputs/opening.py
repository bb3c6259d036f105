"""From a picture as it was handed in to one of Pillow's, or to one error that names it."""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from miniclip.inputs.pictures import ENCODE, Picture, PictureError


def open_picture(picture: Picture, apply_exif: bool) -> Image.Image:
    """A loaded Pillow picture of at least one pixel."""
    source, name = picture.source, picture.name
    if isinstance(source, PictureError):
        raise source
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return decode(file, name, apply_exif)
    if isinstance(source, np.ndarray):
        pixels = to_uint8(source, name)
        return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    if isinstance(source, Image.Image):
        return loaded(source, name, apply_exif)
    return decode(source, name, apply_exif)


def decode(file: Any, name: str, apply_exif: bool) -> Image.Image:
    """The first frame of a picture file."""
    with Image.open(file) as picture:  # reads the header only
        check_header(picture, name)
        return loaded(picture, name, apply_exif)


def loaded(picture: Image.Image, name: str, apply_exif: bool) -> Image.Image:
    """The picture with its pixels read, while its file is still open."""
    if is_closed(picture):
        raise PictureError(f"{name}: a closed picture, expected one that is open: load() it before")
    picture.load()
    if 0 in picture.size:
        raise PictureError(f"{name}: got a picture of {in_pixels(picture.size)}, expected some")
    if picture.mode in ("I;16B", "I;16L", "I;16N"):  # Pillow resizes these by their bytes
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16))
    return ImageOps.exif_transpose(picture) if apply_exif else picture


def is_closed(picture: Image.Image) -> bool:
    """Whether Pillow has neither its pixels nor the file to read them from."""
    return getattr(picture, "_im", None) is None and getattr(picture, "fp", None) is None


def to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    """The pixels of an array as uint8, or an error that says what they are."""
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PictureError(f"{name}: got values that are not finite, expected them in [0, 1]")
    if low < 0 or high > 1:
        raise PictureError(
            f"{name}: got floats from {low:.3g} to {high:.3g}, expected them in [0, 1]; if this is "
            f"already preprocessed, {ENCODE}; pixels from 0 to 255 are expected as uint8"
        )
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


# Limits ------------------------------------------------------------------------------------------


def check_header(picture: Image.Image, name: str) -> None:
    """Raise before anything is allocated for a picture that is too large, or is a program."""
    width, height = picture.size
    if width * height > most_pixels():
        raise PictureError(f"{name}: {in_pixels(picture.size)}, more than {limit_in_words()}")
    if picture.format == "EPS":
        raise PictureError(f"{name}: EPS is a program that Ghostscript runs; convert it to PNG")


def most_pixels() -> float:
    """Pillow's own limit, which users who trust their files know how to raise."""
    limit = Image.MAX_IMAGE_PIXELS
    return math.inf if limit is None else limit


def limit_in_words() -> str:
    return f"the limit of {most_pixels()} pixels (PIL.Image.MAX_IMAGE_PIXELS)"


def in_pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"


# Around Pillow -----------------------------------------------------------------------------------


@contextmanager
def pillow_errors(name: str) -> Iterator[None]:
    """Everything that goes wrong inside becomes one PictureError that names the picture.

    Pillow's readers meet broken files with whatever their parsing runs into (OSError, SyntaxError,
    struct.error, zlib.error, EOFError, KeyError, ...), so every Exception is meant.
    """
    try:
        with QUIET_PILLOW:
            yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: not a picture, or none in a format Pillow reads") from error
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+ pixels", str(error))  # Pillow's own limit is twice as high
        size = count[0] if count else str(error)
        raise PictureError(f"{name}: {size}, more than {limit_in_words()}") from error
    except MemoryError as error:
        raise PictureError(f"{name}: not enough memory for this picture") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise PictureError(f"{name}: broken, truncated or unreadable: {reason}") from error


class QuietPillow:
    """Silences Pillow's warnings (damaged metadata, limits that are errors here) while in use.

    Python's warning filters belong to the process: of several threads the first one in sets
    them and the last one out puts them back, since guards that overlap would restore wrongly.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.users += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.filters.__exit__(None, None, None)


QUIET_PILLOW = QuietPillow()
