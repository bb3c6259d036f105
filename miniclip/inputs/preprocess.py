"""From pictures to the array that an image tower takes: resize, crop, RGB, normalise.

Pillow decodes and resizes; which steps, in which order and with which rounding, is written here.
CLIP was trained behind exactly these steps, and a model fed through others answers worse without
saying so. Read from the top: `Transform` is the recipe, the functions under it are its steps, and
the rest turns whatever was handed in into Pillow pictures, or into one clear error.

Source: clip/clip.py, `_transform` (openai/CLIP), and the torchvision functions it calls;
open_clip/transform.py for the other two ways to resize.
"""

from __future__ import annotations

import io
import math
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Of the pictures that CLIP was trained on, per channel (red, green, blue), pixels in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
CHOICES = {
    "resize_mode": ("shortest", "squash", "longest"),
    "interpolation": tuple(RESAMPLING),
    "order": ("openai", "hf"),
}
CHANNELS = (1, 3, 4)  # of arrays: gray, RGB, RGBA
ENCODE = "pass it directly to encode_image"


class PictureError(ValueError):
    """A picture that cannot be used. The message names it and says what came and was expected."""


class PictureWarning(UserWarning):
    """A picture that the recipe turns into something else than one sees."""


@dataclass(frozen=True)
class Transform:
    """The recipe: pictures of any size and mode -> float32 (B, 3, size, size).

    size: pixels along a side of the result.
    mean, std: of the normalisation, one number each for red, green and blue, pixels in [0, 1].
    resize_mode: "shortest" (the shorter side becomes `size`, the rest of the longer one is cut
      off: CLIP's own), "squash" (both sides become `size`, whatever the shape), "longest" (the
      longer side becomes `size`, the shorter one is padded with `fill`); as in open_clip.
    interpolation: "bicubic" (CLIP's own) or "bilinear".
    order: "openai" resizes the picture in its own mode and converts to RGB afterwards; "hf"
      converts to RGB first and rounds the crop down, as Hugging Face's CLIPImageProcessor does.
    fill: 0 to 255, of every band of the padded picture (in its own mode, as in open_clip).
    apply_exif: turn the picture as its EXIF orientation says. The original does not, hence False.

    Raises ValueError naming the field. Source: clip/clip.py, `_transform`.
    """

    size: int = 224
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    order: str = "openai"
    fill: int = 0
    apply_exif: bool = False

    def __post_init__(self) -> None:
        check_whole_number("size", self.size, 1, None)
        check_whole_number("fill", self.fill, 0, 255)
        object.__setattr__(self, "mean", three_numbers("mean", self.mean))
        object.__setattr__(self, "std", three_numbers("std", self.std))
        if min(self.std) <= 0:
            raise ValueError(f"std: got {self.std}, expected three positive numbers")
        for field, choices in CHOICES.items():
            got = getattr(self, field)
            if got not in choices:
                raise ValueError(f"{field}: got {got!r}, expected one of {', '.join(choices)}")
        if not isinstance(self.apply_exif, bool):
            raise ValueError(f"apply_exif: got {self.apply_exif!r}, expected True or False")

    def __call__(self, images: Any, first: int = 0) -> np.ndarray:
        """One picture, or a list, tuple or batch of them -> float32 (B, 3, size, size).

        A picture is a path, a binary file object, a PIL image, or an array: uint8, or float in
        [0, 1], of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), with one axis more in front for
        a batch. Float arrays are rounded to the 256 levels of uint8 first, so that a picture and
        its float copy give the same result. Of an animation, the first frame counts. The result
        is C-contiguous. Nothing is ever fetched from a URL.
        first: the number by which messages call the first picture of a list (of a longer one).

        Raises PictureError naming the picture; warns with PictureWarning where pixels deeper than
        8 bits are clipped.
        """
        pictures = list(each_picture(images, first))
        if not pictures:
            raise PictureError("images: got no pictures, expected at least one")
        batch = np.empty((len(pictures), 3, self.size, self.size), np.float32)
        for pixels, (name, source) in zip(batch, pictures, strict=True):
            pixels[:] = self._one(source, name)
        return batch

    def _one(self, source: Any, name: str) -> np.ndarray:
        with pillow_errors(name):
            picture = open_picture(source, name, self.apply_exif)
        warn_of_clipping(picture, name)
        with pillow_errors(name):
            square = self._square(picture, name)
        return normalize(np.asarray(square), self.mean, self.std)

    def _square(self, picture: Image.Image, name: str) -> Image.Image:
        """Any picture -> RGB, size x size pixels."""
        if self.order == "hf":
            picture = picture.convert("RGB")
        size = resized_size(picture.size, self.size, self.resize_mode)
        check_resized(picture.size, size, name)
        # In the picture's own mode: Pillow weighs colours by their alpha here, and takes the
        # nearest pixel, whatever was asked for, where it has a palette or only black and white.
        picture = picture.resize(size, RESAMPLING[self.interpolation])
        if self.resize_mode == "longest":
            picture = pad(picture, self.size, self.fill)
        else:
            picture = centre_crop(picture, self.size, self.order)
        return picture.convert("RGB")


def preprocess(image: Any, size: int = 224, order: str = "openai", **fields: Any) -> np.ndarray:
    """Pictures -> float32 (B, 3, size, size), normalised, as CLIP's image towers take them.

    image: one picture (B is then 1), or a list, tuple or batch of them; what a picture may be
    stands at `Transform.__call__`. size: pixels along a side. order: "openai" or "hf". fields:
    further fields of `Transform`, such as `resize_mode="squash"`.

    Raises PictureError naming the picture, ValueError naming a wrong field.
    Source: clip/clip.py, `_transform`.
    """
    return Transform(size=size, order=order, **fields)(image)


# The steps ---------------------------------------------------------------------------------------


def resized_size(size: tuple[int, int], n: int, mode: str) -> tuple[int, int]:
    """(width, height) of the resized picture, from (width, height) and the side n of the result.

    Source: torchvision, `Resize` ("shortest", "squash"); open_clip, `ResizeKeepRatio` ("longest").
    """
    if mode == "squash":
        return n, n
    short, long = sorted(size)
    if mode == "shortest":
        # Cut off after dividing: int(n / short * long) is one pixel short for some sizes.
        new_short, new_long = n, int(n * long / short)
    else:
        ratio = long / n
        new_short, new_long = round(short / ratio), round(long / ratio)
    return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


def centre_crop(picture: Image.Image, n: int, order: str) -> Image.Image:
    """The n x n pixels in the middle. Source: torchvision `CenterCrop`; transformers' for "hf"."""
    left, top = (crop_start(side, n, order) for side in picture.size)
    return picture.crop((left, top, left + n, top + n))


def crop_start(side: int, n: int, order: str) -> int:
    """The first pixel kept. Where one pixel is left over, "openai" goes to the even neighbour
    (Python rounds halves to even), "hf" always down."""
    return (side - n) // 2 if order == "hf" else round((side - n) / 2)


def pad(picture: Image.Image, n: int, fill: int) -> Image.Image:
    """The picture, at most n x n pixels, in the middle of n x n. Source: open_clip,
    `CenterCropOrPad`: where the padding is odd, its larger part lies right and below."""
    width, height = picture.size
    square = picture.crop((0, 0, n, n))  # a new picture with the same mode and palette
    square.paste((fill,) * len(picture.getbands()), (0, 0, n, n))
    square.paste(picture, ((n - width) // 2, (n - height) // 2))
    return square


def normalize(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (3, H, W), mean 0 and deviation 1 over CLIP's training pictures.

    In float32 from the division on, as torchvision's `ToTensor` and `Normalize`, for equal bits.
    """
    scaled = pixels.astype(np.float32) / np.float32(255)  # (H, W, 3), in [0, 1]
    normalized = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)  # (H, W, 3)
    return normalized.transpose(2, 0, 1)  # (3, H, W)


# From what was handed in to pictures -------------------------------------------------------------


def each_picture(images: Any, first: int = 0) -> Iterator[tuple[str, Any]]:
    """(name for messages, picture) for one picture, a batch, or a list or tuple of both."""
    if not isinstance(images, (list, tuple)):
        yield from split_batch(images, "image")
        return
    for i, item in enumerate(images, first):
        name = f"images[{i}]"
        if isinstance(item, (list, tuple)):
            raise PictureError(f"{name}: got a {type(item).__name__}, expected a picture")
        yield from split_batch(item, name)


def split_batch(source: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A path gets its name, an array becomes uint8 and a batch its pictures."""
    if isinstance(source, (str, os.PathLike)):
        yield f"{name} {shortened(source)}", source
    elif isinstance(source, np.ndarray):
        pixels = to_uint8(source, name)
        batch = pixels if pixels.ndim == 4 else pixels[None]
        yield from ((name, one) for one in batch)
    else:
        yield name, source


def open_picture(source: Any, name: str, apply_exif: bool) -> Image.Image:
    """A loaded Pillow picture of at least one pixel."""
    if isinstance(source, (str, os.PathLike)):
        check_path(source, name)
        with open(source, "rb") as file:
            return decode(file, name, apply_exif)
    if isinstance(source, np.ndarray):
        return Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
    if isinstance(source, Image.Image):
        return loaded(source, name, apply_exif)
    if hasattr(source, "read") and not isinstance(source, io.TextIOBase):
        return decode(source, name, apply_exif)
    raise PictureError(f"{name}: got {described(source)}")


def decode(file: Any, name: str, apply_exif: bool) -> Image.Image:
    """The first frame of a picture file."""
    with Image.open(file) as picture:  # reads the header only
        check_header(picture, name)
        return loaded(picture, name, apply_exif)


def loaded(picture: Image.Image, name: str, apply_exif: bool) -> Image.Image:
    """The picture with its pixels read, while its file is still open."""
    picture.load()
    if 0 in picture.size:
        raise PictureError(f"{name}: got a picture of {in_pixels(picture.size)}, expected some")
    return ImageOps.exif_transpose(picture) if apply_exif else picture


def to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    """A picture or batch as an array -> the same as uint8, or an error that says what it is."""
    check_shape(array, name)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        hint = " (divide 16-bit pixels by 65535)" if array.dtype == np.uint16 else ""
        raise PictureError(f"{name}: got {array.dtype}, expected uint8 or float in [0, 1]{hint}")
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PictureError(f"{name}: got values that are not finite, expected them in [0, 1]")
    if low < 0 or high > 1:
        raise PictureError(
            f"{name}: got floats from {low:.3g} to {high:.3g}, expected them in [0, 1]; if this is "
            f"already preprocessed, {ENCODE}; pixels from 0 to 255 are expected as uint8"
        )
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


# Checks ------------------------------------------------------------------------------------------


def check_shape(array: np.ndarray, name: str) -> None:
    """Raise unless the shape is that of a picture or a batch of them, channels last."""
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


def check_path(path: Any, name: str) -> None:
    """Raise unless the path leads to a file that has something in it."""
    if isinstance(path, str) and re.match(r"[a-z][a-z0-9+.-]*://", path, re.IGNORECASE):
        raise PictureError(f"{name}: a URL, and nothing is ever fetched; download the picture")
    if os.path.isdir(path):
        raise PictureError(f"{name}: a folder, expected a picture's file")
    if not os.path.exists(path):
        raise PictureError(f"{name}: no such file")
    if not os.path.isfile(path):  # a pipe or a device, which may never end
        raise PictureError(f"{name}: not a regular file; open it and pass the file object")
    if os.path.getsize(path) == 0:
        raise PictureError(f"{name}: an empty file")


def check_header(picture: Image.Image, name: str) -> None:
    """Raise before anything is allocated for a picture that is too large, or is a program."""
    width, height = picture.size
    if width * height > most_pixels():
        raise PictureError(f"{name}: {in_pixels(picture.size)}, more than {limit_in_words()}")
    if picture.format == "EPS":
        raise PictureError(f"{name}: EPS is a program that Ghostscript runs; convert it to PNG")


def check_resized(size: tuple[int, int], resized: tuple[int, int], name: str) -> None:
    """Raise where a picture is so long and thin that it cannot be resized with its aspect."""
    change = f"{in_pixels(size)} would be resized to {in_pixels(resized)}"
    if 0 in resized:
        raise PictureError(f"{name}: {change}, which has none; use another resize_mode")
    if resized[0] * resized[1] > most_pixels():
        raise PictureError(f"{name}: {change}, more than {limit_in_words()}; crop it first")


def warn_of_clipping(picture: Image.Image, name: str) -> None:
    """Pillow's conversion to RGB clips deeper pixels to 0 and 255; the original keeps silent."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        warnings.warn(
            f"{name}: pixels of mode {picture.mode} are clipped to 0 and 255, as in the original, "
            "so that most become white; to see it all, pass a float array scaled to [0, 1]",
            PictureWarning,
            stacklevel=4,  # the caller of the transform
        )


def check_whole_number(field: str, value: Any, low: int, high: int | None) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{field}: got {value!r}, expected a whole number {limits}")


def three_numbers(field: str, value: Any) -> tuple[float, ...]:
    """The value as three finite Python floats, or an error naming the field."""
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{field}: got {value!r}, expected three numbers (red, green, blue)")
    return numbers


# Words and limits --------------------------------------------------------------------------------


def most_pixels() -> float:
    """Pillow's own limit, which users who trust their files know how to raise."""
    limit = Image.MAX_IMAGE_PIXELS
    return math.inf if limit is None else limit


def limit_in_words() -> str:
    return f"the limit of {most_pixels()} pixels (PIL.Image.MAX_IMAGE_PIXELS)"


def in_pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"


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
