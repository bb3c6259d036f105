"""A picture as a square of pixels with transparency: what training keeps in memory, and changes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from miniclip.inputs.preprocess import is_transparent

LEAST_ALPHA = 8  # of 255; what is more transparent is not seen
SMOOTH = Image.Resampling.LANCZOS


def visible_square(picture: Image.Image, side: int, resize_mode: str = "shortest") -> np.ndarray:
    """Any picture -> uint8 (side, side, 4): red, green, blue times alpha, and alpha.

    Of a picture with transparency, what is seen: cut out, its longer side made `side`, in the
    middle of nothing. Any other one as `Transform` makes it square: resize_mode "shortest" cuts
    off what is beside the middle, "squash" makes both sides equal, "longest" leaves margins.
    Colours are multiplied by alpha ("premultiplied"), so that they can be averaged and moved
    without what lies under transparent pixels coming out.
    """
    pixels = picture.convert("RGBA").convert("RGBa")  # premultiplied
    if not is_opaque(picture):
        seen = pixels.getchannel("a").point(lambda a: 255 if a > LEAST_ALPHA else 0).getbbox()
        pixels = pixels.crop(seen) if seen else pixels
    elif resize_mode == "shortest":
        pixels = middle(pixels)
    elif resize_mode == "squash":
        return np.asarray(pixels.resize((side, side), SMOOTH))
    scale = side / max(pixels.size)
    size = [max(1, round(scale * n)) for n in pixels.size]
    square = np.zeros((side, side, 4), np.uint8)
    left, top = ((side - n) // 2 for n in size)
    square[top : top + size[1], left : left + size[0]] = np.asarray(pixels.resize(size, SMOOTH))
    return square


def is_opaque(picture: Image.Image) -> bool:
    """Whether no pixel is transparent, be there an alpha channel or not."""
    if not is_transparent(picture):
        return True
    return bool(np.asarray(picture.convert("RGBA").getchannel("A")).min() == 255)


def middle(picture: Image.Image) -> Image.Image:
    """The largest square in the middle of a picture."""
    n = min(picture.size)
    left, top = ((length - n) // 2 for length in picture.size)
    return picture.crop((left, top, left + n, top + n))


def on_ground(square: np.ndarray, side: int, ground: int = 255) -> Image.Image:
    """A square from `visible_square` in the middle of a grey one of side x side pixels, RGB."""
    n = len(square)
    page = np.full((side, side, 3), ground, np.float64)
    start = (side - n) // 2
    alpha = square[..., 3:] / 255  # (n, n, 1)
    part = page[start : start + n, start : start + n]
    part[...] = square[..., :3] + (1 - alpha) * part
    return Image.fromarray(np.rint(page).clip(0, 255).astype(np.uint8))
