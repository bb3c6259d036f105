"""The Pipeline: a loaded model that takes paths, pictures and strings."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniclip import backends
from miniclip.checkpoints.writer import save_checkpoint
from miniclip.files import as_path, made_folder, write_bytes
from miniclip.inputs.pictures import Pictures, pictures
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP, CLIPConfig
from miniclip.ops.array import Array
from miniclip.pipeline.batching import (
    Skipping,
    as_preprocessed,
    images_per_chunk,
    in_chunks,
    texts_per_chunk,
)
from miniclip.pipeline.engines import InferencePlan, plan_for
from miniclip.pipeline.knowledge import Knowledge
from miniclip.pipeline.vocabularies import check_vocabulary, find_tokenizer, local_tokenizer

# Beyond this a scale is damage: e^50 times a cosine is still finite. Training keeps its own at
# most ln 100 (training/optimizer.py), but checkpoints of others need not have been clamped.
DAMAGED_LOG_SCALE = 50.0


ONE_TEXT = (
    "one text: a probability needs a choice, so there is none; the cosine says how well it fits"
)


@dataclass(frozen=True, eq=False)
class Similarity:
    """How well N images fit M texts. cosine, logit: (N, M); probability: over the texts.

    The probability of one text among one would be 1 whatever the picture shows: it is NaN.
    """

    cosine: Array
    logit: Array
    probability: Array

    @property
    def notes(self) -> list[str]:
        """What to know before reading the numbers."""
        return [ONE_TEXT] if self.cosine.shape[1] == 1 else []


class Pipeline:
    """A loaded CLIP: `.network` (the modules), `.tokenizer`, `.transform`, and calls that use them.

    Arrays that come out are NumPy's, in the model's dtype, whatever the backend.
    """

    def __init__(
        self,
        network: CLIP,
        transform: Transform | None = None,
        tokenizer: Tokenizer | None = None,
        *,
        name: str = "",
        folder: Path | None = None,
        knows: Knowledge | None = None,
    ) -> None:
        self.network = network
        self.name = name
        self.folder = folder
        self.knows = knows  # what it was trained on, where its folder says so
        self._transform = transform
        self._tokenizer = tokenizer
        self._plan: InferencePlan | None = None

    def __repr__(self) -> str:
        network = self.network
        return (
            f"<miniclip {self.name or 'model'}: {network.count_parameters():,} parameters, "
            f"{network.dtype} on {network.ops.name}>"
        )

    def __str__(self) -> str:
        """What `print` shows: also whose ops compute, so that an edit is made where it counts."""
        return f"{self!r}\nbackend {backends.describe(self.network.ops)}"

    @property
    def config(self) -> CLIPConfig:
        return self.network.config

    @property
    def transform(self) -> Transform:
        """How pictures become arrays. ValueError for a checkpoint without image tower."""
        if self._transform is None:
            vision = self.network.visual.config  # raises if there is no image tower
            self._transform = Transform(size=vision.image_resolution)
        return self._transform

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the text tower, looked for when first used (see `find_tokenizer`).

        Its rows are as long as the model's context.
        """
        text = self.network.text.config
        if self._tokenizer is None:
            tokenizer = find_tokenizer(self.folder)
            if tokenizer.vocab_size != text.vocab_size:
                raise ValueError(
                    f"tokenizer: the vocabulary found has {tokenizer.vocab_size} words, expected "
                    f"{text.vocab_size} as in the model; pass the right one: load(..., tokenizer=)"
                )
            self._tokenizer = tokenizer
        self._tokenizer = self._tokenizer.with_context_length(text.context_length)
        return self._tokenizer

    def to(self, backend: str | None = None, dtype: str | None = None) -> Pipeline:
        """Move to another backend or dtype."""
        self.network.to(backend, dtype)
        return self

    @property
    def plan(self) -> InferencePlan | None:
        """What `encode_image` and `encode_text` run instead of the modules.

        None on a backend that has no inference plans. `print` it to see each tower's steps, or why
        it runs by its modules at the moment.
        """
        self._plan = plan_for(self.network, self._plan)
        return self._plan

    def compile(self) -> InferencePlan:
        """Make the plan of both towers now, rather than at the first picture and the first text.

        Needed after writing into a parameter's array by hand; assigning parameters, loading a
        state and optimiser steps are noticed without. Raises ValueError on a backend that has no
        inference plans.
        """
        plan = self.plan
        if plan is None:
            raise ValueError(
                f"compile: the model is on the {self.network.ops.name} backend, expected one that "
                "has inference plans (docs/engine.md)"
            )
        plan.compile()
        return plan

    def save(self, path: str | Path, layout: str = "openai") -> None:
        """Write the weights: layout "openai" (one .safetensors file) or "hf" (a folder).

        The file is whole or not there at all. Transformers loads the folder; the original model
        takes the file's tensors as its state_dict.
        """
        network = self.network
        state = {name: network.ops.to_numpy(x) for name, x in network.state_dict().items()}
        path = as_path(path)
        folder = path if layout == "hf" else path.parent
        tokenizer = self._tokenizer or local_tokenizer([self.folder])
        check_vocabulary(folder, tokenizer)
        warn_of_what_is_lost(self._transform, layout)
        recipe = None if self._transform is None else preprocessing_of(self._transform)
        with made_folder(folder):
            save_checkpoint(state, network.config, path, layout, recipe)
            if tokenizer is not None:
                tokenizer.save(folder)
            if layout == "hf" and network.config.text is not None:
                note_length(folder, network.config.text.context_length)
            if self.knows is not None:
                self.knows.save(folder)

    # ------------------------------------------------------------------ inputs

    def pictures(self, images: Any, later: bool = False) -> Array | Pictures:
        """What `encode_image` takes, one by one: `Picture`s, or rows of a preprocessed array.

        images, later: see `miniclip.inputs.pictures.pictures`; what `preprocess` returned, a row of
        it or a list of rows becomes (B, 3, R, R).
        """
        pixels = as_preprocessed(images, self.transform)
        return pictures(images, later) if pixels is None else pixels

    def preprocess(self, images: Any) -> Array:
        """Paths, files, PIL images, arrays, folders -> (B, 3, R, R) in the model's dtype."""
        return self.transform(images).astype(self.network.dtype, copy=False)

    def tokenize(self, texts: str | Sequence[str], truncate: bool = False) -> Array:
        """Strings -> ids (B, context), int64. A text that is too long is an error or cut."""
        return self.tokenizer(texts, truncate=truncate)

    # ------------------------------------------------------------------ embeddings

    def encode_image(
        self,
        images: Any,
        normalize: bool = False,
        progress: bool | None = None,
        skipped: dict[int, str] | None = None,
    ) -> Array:
        """Pictures -> embeddings (B, E), unnormalised as in the original.

        images: one or several: paths, binary files, PIL images, arrays, folders, lists or
        iterators of them (see `miniclip.inputs.pictures`), or what `preprocess` returned, whole
        (B, 3, R, R) or a row of it (3, R, R). Many are taken in chunks that fit the memory budget,
        of an iterator only as many as one chunk needs. normalize: give the embeddings unit length.
        progress: show a bar (None: on a terminal, when there are several chunks or the number is
        not known). skipped: a dict to be filled: pictures that cannot be used are then left out,
        and stand there by their place among all, with the reason.
        Raises PictureError naming the picture; ValueError naming the first bad parameter if an
        embedding is not finite.
        """

        def embed(chunk: Any) -> Array:
            return self._embed(self.network.visual, pixels_of(chunk), "image")

        pixels_of = self._pixels if skipped is None else Skipping(self._pixels, skipped)
        step = images_per_chunk(self.config)
        given = self.pictures(images, later=skipped is not None)
        parts = in_chunks(embed, given, step, "images", progress)
        return self._finish(parts, normalize)

    def encode_text(
        self,
        texts: Any,
        normalize: bool = False,
        truncate: bool = False,
        progress: bool | None = None,
    ) -> Array:
        """Strings, or ids (B, T), -> embeddings (B, E), unnormalised as in the original."""

        def embed(chunk: Array) -> Array:
            return self._embed(self.network.text, chunk, "text")

        step = texts_per_chunk(self.config)
        parts = in_chunks(embed, self._ids(texts, truncate), step, "texts", progress)
        return self._finish(parts, normalize)

    def similarity(self, images: Any, texts: Any) -> Similarity:
        """Cosines, logits (cosine times the learned scale) and probabilities over the texts.

        images, texts: what `encode_image` and `encode_text` take.
        """
        cosine = self.encode_image(images, normalize=True) @ self.encode_text(texts, True).T
        return self.scale(cosine)

    def scale(self, cosine: Array) -> Similarity:
        """Logits and probabilities of cosines (N, M), by the model's temperature."""
        network = self.network
        log_scale = float(network.ops.to_numpy(network.logit_scale.data))
        if not abs(log_scale) < DAMAGED_LOG_SCALE:  # NaN is not, either
            raise ValueError(
                f"logit_scale: got {log_scale}, expected a number such as ln 100 = 4.6; the "
                "checkpoint is damaged (miniclip weights check)"
            )
        logit = math.exp(log_scale) * cosine  # a Python number: float32 stays float32
        probability, _ = backends.get("numpy").softmax(logit)
        if logit.shape[1] == 1:
            probability = np.full_like(probability, np.nan)
        return Similarity(cosine, logit, probability)

    def _ids(self, texts: Any, truncate: bool) -> Array:
        """Integers are ids, strings are tokenized, anything else is refused."""
        array = texts if isinstance(texts, np.ndarray) else None
        if array is None or array.dtype.kind in "UO":
            return self.tokenize(texts if array is None else array.tolist(), truncate)
        if array.dtype.kind not in "iu":
            raise TypeError(f"texts: got a {array.dtype} array, expected strings or integer ids")
        return array

    def _pixels(self, chunk: Any) -> Array:
        """Some of what `pictures` gave -> (n, 3, R, R)."""
        if isinstance(chunk, np.ndarray):
            return np.asarray(chunk, self.network.dtype)
        return self.preprocess(chunk)

    def _embed(self, tower: Any, x: Array, kind: str) -> Array:
        """One chunk through a tower and back to NumPy; never keeps a non-finite embedding."""
        ops = self.network.ops
        if not len(x):  # every picture of a chunk was skipped
            return np.zeros((0, self.config.embed_dim), self.network.dtype)
        on_device = ops.asarray(x, self.network.dtype) if kind == "image" else ops.as_ids(x)
        plan = self.plan
        compute = (None if plan is None else plan.of(kind)) or tower
        y = ops.to_numpy(compute(on_device))
        if not np.isfinite(y).all():
            raise ValueError(self._why_not_finite(x, kind))
        return y

    def _why_not_finite(self, x: Array, kind: str) -> str:
        if not np.isfinite(x).all():
            return f"{kind}s: got non-finite numbers, expected finite pixels"
        for name, data in self.network.state_dict().items():
            host = self.network.ops.to_numpy(data)
            bad = host.size - int(np.isfinite(host).sum())
            if bad:
                return (
                    f"{kind} embedding is not finite: parameter {name} has {bad} non-finite of "
                    f"{host.size} numbers; the checkpoint is damaged (miniclip weights check)"
                )
        return f"{kind} embedding is not finite though all weights are: an activation overflowed"

    def _finish(self, parts: list[Array], normalize: bool) -> Array:
        y = np.concatenate(parts)
        if normalize:
            y = backends.get("numpy").l2_normalize(y)[0]
        return y


def note_length(folder: Path, context_length: int) -> None:
    """Tell transformers' tokenizer how long the model's rows are."""
    content = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context_length}
    write_bytes({folder / "tokenizer_config.json": json.dumps(content, indent=2).encode()})


def warn_of_what_is_lost(transform: Transform | None, layout: str) -> None:
    """Miniclip reads the whole recipe back from every layout; transformers does not know it all."""
    if layout == "hf" and transform is not None and transform.apply_exif:
        warnings.warn(
            "layout 'hf': transformers has no apply_exif: what loads this folder there sees "
            "photographs as they are stored (miniclip turns them)",
            stacklevel=3,
        )


def preprocessing_of(transform: Transform) -> dict[str, Any]:
    """What a checkpoint keeps of the transform: all of it."""
    return {name: value for name, value in vars(transform).items() if value is not None}
