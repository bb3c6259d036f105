"""Many inputs, a few at a time: as many as the memory budget allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any

import numpy as np

from miniclip.models import CLIPConfig
from miniclip.ops.array import Array

MEMORY_BUDGET = 1 << 30  # bytes that the activations of one chunk may take


def is_preprocessed(images: Any, size: int) -> bool:
    """Whether this is an array (B, 3, size, size) of floats, as `preprocess` returns."""
    return (
        isinstance(images, np.ndarray)
        and images.dtype.kind == "f"
        and images.ndim == 4
        and images.shape[1:] == (3, size, size)
    )


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
