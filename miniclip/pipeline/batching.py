"""Many inputs, a few at a time: as many as the memory budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any

import numpy as np

from miniclip.inputs.pictures import CHANNELS, PictureError
from miniclip.inputs.preprocess import Transform
from miniclip.models import CLIPConfig
from miniclip.ops.array import Array

SURELY_NOT_NORMALISED = 5.0  # times the largest number that a picture can become
MEMORY_BUDGET = 1 << 30  # bytes that the activations of one chunk may take


def as_preprocessed(images: Any, transform: Transform) -> Array | None:
    """What `preprocess` returned, or rows of it, as (B, 3, R, R); None for pictures.

    images: (B, 3, R, R), one row (3, R, R), or a list of these. Raises PictureError where arrays
    look preprocessed and are not so for this model, or stand among pictures.
    """
    if looks_preprocessed(images):
        return checked_pixels(images, "image", transform)
    if not isinstance(images, list | tuple) or not any(map(looks_preprocessed, images)):
        return None
    for i, item in enumerate(images):
        if not looks_preprocessed(item):
            raise PictureError(
                f"images[{i}]: a picture among preprocessed arrays, expected only one kind: "
                "preprocess it too"
            )
    return np.concatenate(
        [checked_pixels(item, f"images[{i}]", transform) for i, item in enumerate(images)]
    )


def looks_preprocessed(images: Any) -> bool:
    """Floats with three channels in front of what no channels can be."""
    return (
        isinstance(images, np.ndarray)
        and images.dtype.kind == "f"
        and images.ndim in (3, 4)
        and images.shape[-3] == 3
        and images.shape[-1] not in CHANNELS
    )


def checked_pixels(images: Array, name: str, transform: Transform) -> Array:
    """(3, R, R) or (B, 3, R, R) -> (B, 3, R, R), if these can be pixels for this model."""
    size = transform.size
    if images.shape[-2:] != (size, size):
        raise PictureError(
            f"{name}: preprocessed for {images.shape[-2]} x {images.shape[-1]} pixels, expected "
            f"{size} x {size}, as this model takes: use its own preprocess"
        )
    if images.size == 0:
        raise PictureError(f"{name}: got an array of shape {images.shape}, which has no pixels")
    usual, largest = largest_pixel(transform), float(np.abs(images).max())
    too_large = largest > SURELY_NOT_NORMALISED * usual
    if too_large and math.isfinite(largest):  # NaN and infinity are found later, with their cause
        raise PictureError(
            f"{name}: got floats up to {largest:.3g} in {images.shape}, expected normalised pixels "
            f"(at most {usual:.3g}): pass pictures as uint8 (H, W, 3), or through preprocess"
        )
    return images if images.ndim == 4 else images[None]


def largest_pixel(transform: Transform) -> float:
    """How far from 0 black or white can be in any channel, normalised."""
    channels = zip(transform.mean, transform.std, strict=True)
    return max(abs(end - mean) / std for mean, std in channels for end in (0, 1))


class Skipping:
    """Chunks of pictures one after the other -> their pixels, without those that cannot be used.

    skipped: filled with the place of each of these among all pictures, and the reason.
    """

    def __init__(self, pixels_of: Callable[[Any], Array], skipped: dict[int, str]) -> None:
        self.pixels_of, self.skipped, self.count = pixels_of, skipped, 0

    def __call__(self, chunk: Any) -> Array:
        if isinstance(chunk, np.ndarray):
            return self.pixels_of(chunk)
        rows = [row for picture in chunk for row in self.rows_of(picture)]
        return np.stack(rows) if rows else np.zeros((0,))

    def rows_of(self, picture: Any) -> Array | list[Array]:
        """One row, or none."""
        self.count += 1
        try:
            return self.pixels_of([picture])
        except PictureError as error:
            self.skipped[self.count - 1] = str(error)
            return []


def in_chunks(
    compute: Callable[[Any], Array],
    items: Sized | Iterable[Any],
    step: int,
    unit: str,
    progress: bool | None,
) -> list[Array]:
    """`compute` of every `step` items, one chunk after the other; it gives a row for each item.

    items: an array or list, whose chunks are slices, or an iterator, whose chunks are iterators:
    each item is taken when `compute` asks for it. progress: show a bar where there are several
    chunks, or the number of items is not known (None: on a terminal only).
    """
    total = len(items) if isinstance(items, Sized) else None
    if total is not None and total <= step:
        return [compute(items)]
    from tqdm import tqdm

    disable = None if progress is None else not progress  # tqdm's own None: only on a terminal
    results = []
    with tqdm(total=total, unit=f" {unit}", disable=disable) as bar:
        for chunk in chunks(items, step):
            results.append(compute(chunk))
            bar.update(len(results[-1]))
    return results


def chunks(items: Any, step: int) -> Iterator[Any]:
    """Slices of `step` items, or iterators over as many, each to be used up before the next."""
    if isinstance(items, Sized):
        yield from (items[start : start + step] for start in range(0, len(items), step))  # type: ignore[index]
    else:
        iterator = iter(items)
        for first in iterator:
            yield chain([first], islice(iterator, step - 1))


def images_per_chunk(config: CLIPConfig, budget: int = MEMORY_BUDGET) -> int:
    """How many pictures fit the budget, by the largest thing that a layer makes of one picture."""
    vision = config.vision
    if vision is None:
        return 1
    if vision.is_resnet:
        # im2col of the stem's third convolution: 9 columns of width/2 channels at half resolution
        floats = 9 * (vision.width // 2) * (vision.image_resolution // 2) ** 2 * 2
    else:
        tokens = vision.grid**2 + 1
        hidden = tokens * (vision.mlp_width or 4 * vision.width)
        scores = vision.heads * tokens**2
        floats = 8 * max(hidden, scores)  # the MLP's activation makes some copies on its way
    return max(1, budget // (4 * floats))


def texts_per_chunk(config: CLIPConfig, budget: int = MEMORY_BUDGET) -> int:
    """The same for texts."""
    text = config.text
    if text is None:
        return 1
    hidden = text.context_length * (text.mlp_width or 4 * text.width)
    scores = text.heads * text.context_length**2
    return max(1, budget // (4 * 8 * max(hidden, scores)))
