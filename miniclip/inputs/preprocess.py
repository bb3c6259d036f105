"""From pictures to the array that an image tower takes: resize, crop, RGB, normalise.

Pillow decodes and resizes; which steps, in which order and with which rounding, is written here.
CLIP was trained behind exactly these steps, and a model fed through others answers worse without
saying so. Read from the top: `Transform` is the recipe, the functions under it are its steps. What
may be handed in is in pictures.py, how it is opened in opening.py.

Source: clip/clip.py, `_transform` (openai/CLIP), and the torchvision functions it calls;
open_clip/transform.py for the other two ways to resize.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from miniclip.inputs.opening import (
    in_pixels,
    limit_in_words,
    most_pixels,
    open_picture,
    pillow_errors,
)
from miniclip.inputs.pictures import Picture, PictureError, pictures

# Of the pictures that CLIP was trained on, per channel (red, green, blue), pixels in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
CHOICES = {
    "resize_mode": ("shortest", "squash", "longest"),
    "interpolation": tuple(RESAMPLING),
    "order": ("openai", "hf"),
    "alpha": ("drop", "white"),
}


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
    alpha: "drop" shows the colour under transparent pixels (CLIP's own), "white" lays transparent
      pictures on white before anything else, as transformers does since its version 5.
    resize_to: the side that "shortest" and "squash" resize to before the crop; None: `size`. A
      larger one crops more, with a smaller one the rest is black. Not for "longest".

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
    alpha: str = "drop"
    resize_to: int | None = None

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
        if self.resize_to is not None:
            check_whole_number("resize_to", self.resize_to, 1, None)
            if self.resize_mode == "longest":
                raise ValueError(f"resize_to: got {self.resize_to}, expected None for 'longest'")

    def __call__(self, images: Any) -> np.ndarray:
        """One picture or several -> float32 (B, 3, size, size), C-contiguous.

        images: paths, binary file objects, PIL images, arrays, folders, and lists, batches or
        iterables of them; see `miniclip.inputs.pictures.pictures`. Float arrays are rounded to the
        256 levels of uint8 first, so that a picture and its float copy give the same result. Of an
        animation, the first frame counts. Nothing is ever fetched from a URL.

        Raises PictureError naming the picture; warns with PictureWarning where pixels deeper than
        8 bits are clipped.
        """
        given = pictures(images)
        one = np.dtype((np.float32, (3, self.size, self.size)))
        count = len(given) if isinstance(given, list) else -1
        return np.fromiter(map(self._one, given), one, count)

    def _one(self, picture: Picture) -> np.ndarray:
        """(3, size, size), float32."""
        name = picture.name
        with pillow_errors(name):
            opened = open_picture(picture, self.apply_exif)
        warn_of_clipping(opened, name)
        with pillow_errors(name):
            square = self._square(opened, name)
        return normalize(np.asarray(square), self.mean, self.std)

    def _square(self, picture: Image.Image, name: str) -> Image.Image:
        """Any picture -> RGB, size x size pixels."""
        if self.alpha == "white" and is_transparent(picture):
            picture = on_white(picture)
        if self.order == "hf":
            picture = picture.convert("RGB")
        size = resized_size(picture.size, self.resize_to or self.size, self.resize_mode)
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

    image: one picture (B is then 1) or several: whatever `Transform.__call__` takes.
    size: pixels along a side. order: "openai" or "hf". fields: further fields of `Transform`, such
    as `resize_mode="squash"`.

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


def is_transparent(picture: Image.Image) -> bool:
    """Whether it has an alpha channel, or a colour that means transparent."""
    return "A" in picture.getbands() or picture.info.get("transparency") is not None


def on_white(picture: Image.Image) -> Image.Image:
    """RGB: the picture over a white one. Source: transformers, `convert_to_rgb`."""
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def centre_crop(picture: Image.Image, n: int, order: str) -> Image.Image:
    """The n x n pixels in the middle. Source: torchvision `CenterCrop`; transformers' for "hf"."""
    left, top = (crop_start(side, n, order) for side in picture.size)
    return picture.crop((left, top, left + n, top + n))


def crop_start(side: int, n: int, order: str) -> int:
    """The first pixel kept. Where one pixel is left over, "openai" goes to the even neighbour
    (Python rounds halves to even), "hf" always down. Below 0 there is too little picture: black
    is added, and where its width is odd, more of it right and below ("hf": left and above)."""
    if order == "hf":
        return (side - n) // 2
    return round((side - n) / 2) if side >= n else -((n - side) // 2)


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


# Checks ------------------------------------------------------------------------------------------


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
