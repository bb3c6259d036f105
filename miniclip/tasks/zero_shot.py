"""Zero-shot classification in six visible steps.

1. build prompts: every label becomes one sentence or several.      `build_prompts`
2. encode the texts; the prompts of a label are averaged.           `encode_labels`
3. encode the images.                                               `Pipeline.encode_image`
4. normalise: every embedding gets unit length.                     (in 2 and 3)
5. cosine: how well each image fits each label.                     `cosines`
6. choose: scale, softmax, sort.                                    `choose`

Source: CLIP section 3.1; the ensemble of prompts as in the notebook of section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.checkpoints.shipped import DEFAULT
from miniclip.ops import l2_normalize
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline, load
from miniclip.tasks.result import ZeroShotResult, remembered
from miniclip.tasks.templates import find_templates

Labels = Sequence[str] | Mapping[str, Sequence[str]]


def zero_shot(
    images: Any,
    labels: Labels,
    model: Pipeline | str | Path = DEFAULT,
    templates: str | Sequence[str] | None = None,
    progress: bool | None = None,
) -> ZeroShotResult:
    """Choose for every picture the label that fits it best, without training on the labels.

    images: one picture or several: paths, files, PIL images, arrays, folders, lists or iterators
    of them (see `miniclip.inputs.pictures`). Of an iterator, the result keeps only what it shows.
    labels: strings, or a mapping label -> list of whole prompts.
    model: what `load` returned, or what it takes: a name, folder or file. The default, mini-vit,
    comes with miniclip; it knows drawings of coloured shapes and nothing else.
    templates: sentences with {} for the label; "plain", "imagenet7", "imagenet80"; None: the label
    alone. Several templates make an ensemble: normalise, mean, normalise.
    Raises ValueError for no labels, duplicate or empty ones, naming them.
    """
    pipeline = model if isinstance(model, Pipeline) else load(model)
    names, prompts = build_prompts(labels, templates)
    pictures, sources = remembered(pipeline.pictures(images))
    text_features = encode_labels(pipeline, prompts, progress)  # (L, E)
    image_features = pipeline.encode_image(pictures, normalize=True, progress=progress)  # (N, E)
    cosine = cosines(image_features, text_features)  # (N, L)
    return choose(pipeline, cosine, names, sources)


def build_prompts(
    labels: Labels, templates: str | Sequence[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Step 1: the labels, and for each of them its prompts."""
    if isinstance(labels, str):
        raise ValueError(f"labels: got the string {labels!r}, expected a list of strings")
    if not isinstance(labels, Iterable):
        raise TypeError(f"labels: got {type(labels).__name__}, expected a list of strings")
    names = [str(n) if isinstance(n, np.str_) else n for n in labels]
    check_labels(names)
    if isinstance(labels, Mapping):
        if templates is not None:
            raise ValueError("templates: labels already has whole prompts, expected None")
        prompts = [prompts_of(name, labels[name]) for name in names]
    else:
        sentences = find_templates(templates)
        prompts = [[sentence.replace("{}", name) for sentence in sentences] for name in names]
    return names, prompts


def check_labels(names: list[str]) -> None:
    """Raise ValueError for no labels, something that is no text, an empty one or a duplicate."""
    if not names:
        raise ValueError("labels: got none, expected at least one")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"labels: got {name!r}, expected a text that is not empty")
    seen: dict[str, str] = {}
    for name in names:
        same = " ".join(name.split()).lower()  # as the tokenizer sees it
        if same in seen:
            also = "" if seen[same] == name else f" (as {seen[same]!r}, the same to the model)"
            raise ValueError(f"labels: got {name!r} twice{also}, expected each label once")
        seen[same] = name


def prompts_of(name: str, prompts: Any) -> list[str]:
    """The prompts of one label as a list. ValueError if one is no text, or empty."""
    several = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(several, list | tuple) or not several:
        raise ValueError(f"labels[{name!r}]: got {prompts!r}, expected a list of prompts")
    if not all(isinstance(p, str) and p.strip() for p in several):
        raise ValueError(f"labels[{name!r}]: got {prompts!r}, expected prompts that are not empty")
    return list(several)


def encode_labels(
    pipeline: Pipeline, prompts: list[list[str]], progress: bool | None = None
) -> Array:
    """Steps 2 and 4: one unit vector for each label, (L, E): normalise, mean, normalise."""
    flat = [prompt for group in prompts for prompt in group]
    features = pipeline.encode_text(flat, normalize=True, progress=progress)  # (P, E)
    ends = np.cumsum([len(group) for group in prompts])
    means = [part.mean(axis=0) for part in np.split(features, ends[:-1])]  # L times (E,)
    normalised: Array = l2_normalize(np.stack(means))[0]
    return normalised


def cosines(image_features: Array, text_features: Array) -> Array:
    """Step 5: (N, E) and (L, E) of unit length -> (N, L)."""
    return image_features @ text_features.T


def choose(
    pipeline: Pipeline, cosine: Array, names: list[str], images: Sequence[Any] = ()
) -> ZeroShotResult:
    """Step 6: logits and probabilities; the result sorts them."""
    if len(images) not in (0, len(cosine)):
        raise ValueError(f"images: got {len(images)} pictures for {len(cosine)} rows of cosines")
    scaled = pipeline.scale(cosine)
    return ZeroShotResult(names, scaled.cosine, scaled.logit, scaled.probability, list(images))
