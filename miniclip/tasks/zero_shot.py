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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.checkpoints.shipped import DEFAULT
from miniclip.inputs.bpe import clean_text, shorten, split_words
from miniclip.inputs.tokenizer import TextTooLong
from miniclip.ops import l2_normalize
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline, load
from miniclip.tasks.result import ZeroShotResult, remembered
from miniclip.tasks.templates import find_templates

WORDS_NAMED = 5  # of those that a model never saw
Labels = Sequence[str] | Mapping[str, Sequence[str]]


def zero_shot(
    images: Any,
    labels: Labels,
    model: Pipeline | str | Path = DEFAULT,
    templates: str | Sequence[str] | None = None,
    progress: bool | None = None,
    truncate: bool = False,
    on_error: str = "raise",
) -> ZeroShotResult:
    """Choose for every picture the label that fits it best, without training on the labels.

    images: one picture or several: paths, files, PIL images, arrays, folders, lists or iterators
    of them (see `miniclip.inputs.pictures`). Of an iterator, the result keeps only what it shows.
    labels: strings, or a mapping label -> list of whole prompts.
    model: what `load` returned, or what it takes: a name, folder or file. The default, mini-vit,
    comes with miniclip; it knows drawings of coloured shapes and nothing else.
    templates: sentences with {} for the label; "plain", "imagenet7", "imagenet80"; None: the label
    alone. Several templates make an ensemble: normalise, mean, normalise.
    truncate: cut a label that is too long, instead of an error. on_error: "raise", or "skip": go on
    without pictures that cannot be used; the result names them.
    Raises ValueError for no labels, duplicate, empty or too long ones, naming them.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: got {on_error!r}, expected raise or skip")
    names, prompts = build_prompts(labels, templates)
    pipeline = model if isinstance(model, Pipeline) else load(model)
    skipped: dict[int, str] | None = {} if on_error == "skip" else None
    pictures, sources = remembered(pipeline.pictures(images, later=on_error == "skip"))
    text_features = encode_labels(pipeline, prompts, progress, names, truncate)  # (L, E)
    image_features = pipeline.encode_image(pictures, True, progress, skipped)  # (N, E)
    if skipped and not len(image_features):
        raise ValueError(f"images: all were skipped, expected one that can be read; {skipped[0]}")
    cosine = cosines(image_features, text_features)  # (N, L)
    kept = [source for i, source in enumerate(sources) if i not in (skipped or {})]
    result = choose(pipeline, cosine, names, kept)
    notes = [*result.notes, *notes_on_words(pipeline, names, prompts, labels)]
    about = "" if pipeline.knows is None else pipeline.knows.about
    return replace(
        result,
        notes=notes,
        skipped=list((skipped or {}).values()),
        model=pipeline.name,
        about=about,
    )


def build_prompts(
    labels: Labels, templates: str | Sequence[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Step 1: the labels, and for each of them its prompts."""
    if isinstance(labels, str):
        raise ValueError(f"labels: got the string {labels!r}, expected a list of strings")
    if not isinstance(labels, Iterable):
        raise TypeError(f"labels: got {type(labels).__name__}, expected a list of strings")
    names = [str(n) if isinstance(n, np.str_) else n for n in labels]
    check_names(names)
    if isinstance(labels, Mapping):
        if templates is not None:
            raise ValueError("templates: labels already has whole prompts, expected None")
        prompts = [prompts_of(name, labels[name]) for name in names]
    else:
        sentences = find_templates(templates)
        check_words(names, [[name] for name in names])
        prompts = [[sentence.replace("{}", name) for sentence in sentences] for name in names]
    check_words(names, prompts)
    return names, prompts


def check_names(names: list[str]) -> None:
    """Raise ValueError for no labels, something that is no text, an empty one or one twice."""
    if not names:
        raise ValueError("labels: got none, expected at least one")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"labels: got {name!r}, expected a text that is not empty")


def check_words(names: list[str], prompts: list[list[str]]) -> None:
    """Raise ValueError where the tokenizer's cleaning leaves nothing, or makes two labels one."""
    seen: dict[tuple[tuple[str, ...], ...], str] = {}
    for name, group in zip(names, prompts, strict=True):
        words = tuple(tuple(split_words(clean_text(prompt))) for prompt in group)
        if not all(words):
            raise ValueError(
                f"labels: got {name!r}, of which cleaning the text leaves nothing, expected words"
            )
        check_new(words, name, seen)


def check_new(key: Any, name: str, seen: dict[Any, str]) -> None:
    """Raise ValueError where another label is the same to the model by this key."""
    if key in seen:
        also = "" if seen[key] == name else f" (as {seen[key]!r}, the same to the model)"
        raise ValueError(f"labels: got {name!r} twice{also}, expected each label once")
    seen[key] = name


def prompts_of(name: str, prompts: Any) -> list[str]:
    """The prompts of one label as a list. ValueError if one is no text, or empty."""
    several = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(several, list | tuple) or not several:
        raise ValueError(f"labels[{name!r}]: got {prompts!r}, expected a list of prompts")
    if not all(isinstance(p, str) and p.strip() for p in several):
        raise ValueError(f"labels[{name!r}]: got {prompts!r}, expected prompts that are not empty")
    return list(several)


def encode_labels(
    pipeline: Pipeline,
    prompts: list[list[str]],
    progress: bool | None = None,
    names: Sequence[str] | None = None,
    truncate: bool = False,
) -> Array:
    """Steps 2 and 4: one unit vector for each label, (L, E): normalise, mean, normalise.

    names: what errors call the labels; None: their first prompts. truncate: cut what is too long.
    """
    names = [group[0] for group in prompts] if names is None else names
    ids = [
        label_ids(pipeline, name, group, truncate)
        for name, group in zip(names, prompts, strict=True)
    ]
    seen: dict[bytes, str] = {}
    for name, rows in zip(names, ids, strict=True):
        check_new(rows.tobytes(), name, seen)  # what was cut may have been all the difference
    features = pipeline.encode_text(
        np.concatenate(ids), normalize=True, progress=progress
    )  # (P, E)
    ends = np.cumsum([len(group) for group in prompts])
    means = [part.mean(axis=0) for part in np.split(features, ends[:-1])]  # L times (E,)
    normalised: Array = l2_normalize(np.stack(means))[0]
    return normalised


def label_ids(pipeline: Pipeline, name: str, prompts: list[str], truncate: bool) -> Array:
    """The ids of a label's prompts, (P, T). ValueError that names the label if one is too long."""
    try:
        return pipeline.tokenize(prompts, truncate)
    except TextTooLong as error:
        where = f"labels: {shorten(name)}"
        if prompts[error.place] != name:
            where += f", as {shorten(prompts[error.place])}"
        hint = "truncate=True, or --truncate, drops what does not fit"
        raise ValueError(f"{where}: {error.reason} ({hint})") from None


def notes_on_words(
    pipeline: Pipeline, names: list[str], prompts: list[list[str]], labels: Labels
) -> list[str]:
    """What a model of few words should say when it is asked about others."""
    if pipeline.knows is None:
        return []
    texts = prompts if isinstance(labels, Mapping) else [[name] for name in names]
    unseen = [word for group in texts for text in group for word in pipeline.knows.unseen(text)]
    if not unseen:
        return []
    words = list(dict.fromkeys(unseen))
    named = ", ".join(map(repr, words[:WORDS_NAMED]))
    more = f" and {len(words) - WORDS_NAMED} more words" if len(words) > WORDS_NAMED else ""
    return [
        f"this model knows {pipeline.knows.about}; it never saw {named}{more}, and what it says of "
        "labels with such words means nothing"
    ]


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
    return ZeroShotResult(
        names, scaled.cosine, scaled.logit, scaled.probability, list(images), scaled.notes
    )
