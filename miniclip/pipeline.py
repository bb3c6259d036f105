"""`load`: from a name or a file to a model that takes paths, pictures and strings."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miniclip import backends
from miniclip.checkpoints import hub
from miniclip.checkpoints.known import Known
from miniclip.checkpoints.layouts import LoadedModel, read_model
from miniclip.checkpoints.writer import save_checkpoint
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.inputs.vocabulary import BPE_FILE
from miniclip.models import CLIP, CLIPConfig
from miniclip.ops.array import Array

if TYPE_CHECKING:  # the plans need Numba, which loads when they are first used
    from miniclip.engine.plan import Plan

VOCABULARY_REPOSITORY = "openai/clip-vit-base-patch32"  # has vocab.json and merges.txt
LARGEST_LOG_SCALE = 50.0  # trained models stay below ln 100; e^50 times a cosine is still finite
MEMORY_BUDGET = 1 << 30  # bytes that the activations of one chunk may take


def load(
    what: str | Path,
    backend: str = "auto",
    dtype: str = "float32",
    *,
    activation: str | None = None,
    head_width: int | tuple[int, int] | None = None,
    stride: int | None = None,
    revision: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> Pipeline:
    """Load a CLIP.

    what: a model's name ("ViT-B/32", "RN50"; see `available_models`), a hub repository
    ("openai/clip-vit-base-patch32"), a folder, or a .safetensors file.
    backend: "numpy", "numba", "cupy", or "auto": cupy where a GPU answers, else numba, else numpy.
    dtype: "float32" or "float64".
    activation ("quick_gelu", "gelu", "gelu_tanh"), head_width and stride: for a bare file, whose
    tensors do not tell them; they overrule what stands beside the file. head_width may be a pair,
    for images and texts.
    revision: of a hub repository. tokenizer: instead of the one that comes with the checkpoint.
    Raises CheckpointError or HubError naming the file, ValueError naming the argument.
    """
    found = hub.resolve(what, revision)
    # what the table of known checkpoints says where the file is silent
    defaults = None if found.known is None else {"activation": found.known.activation}
    loaded = read_model(
        found.path, activation=activation, head_width=head_width, stride=stride, defaults=defaults
    )
    network = CLIP(loaded.config, seed=None)
    network.load_state_dict(loaded.state)
    network.to(best_backend() if backend == "auto" else backend, dtype)
    transform = make_transform(loaded, found.known)
    folder = found.path if found.path.is_dir() else found.path.parent
    return Pipeline(network, transform, tokenizer, name=found.name, folder=folder)


def best_backend() -> str:
    """cupy where a GPU answers, else numba, else numpy."""
    working = backends.available()
    return next(name for name in ("cupy", "numba", "numpy") if name in working)


def make_transform(loaded: LoadedModel, known: Known | None) -> Transform | None:
    """Preprocessing as the folder says, else as the table says, else the original's."""
    if loaded.config.vision is None:
        return None
    fields = (
        {} if known is None else {k: v for k, v in known.preprocessing.items() if v is not None}
    )
    fields |= {k: v for k, v in loaded.preprocessing.items() if v is not None}
    fields["size"] = loaded.config.vision.image_resolution  # checked against what the folder says
    return Transform(**fields)


def preprocessing_of(transform: Transform) -> dict[str, Any]:
    """What a checkpoint keeps of the transform."""
    names = ("size", "mean", "std", "resize_mode", "interpolation")
    return {name: getattr(transform, name) for name in names}


@dataclass(frozen=True, eq=False)
class Similarity:
    """How well N images fit M texts. cosine, logit: (N, M); probability: over the texts."""

    cosine: Array
    logit: Array
    probability: Array


class VocabularyError(ValueError):
    """No vocabulary is to be had. The message says how to get one."""


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
    ) -> None:
        self.network = network
        self.name = name
        self.folder = folder
        self._transform = transform
        self._tokenizer = tokenizer
        self._plan: Plan | None = None

    def __repr__(self) -> str:
        network = self.network
        return (
            f"<miniclip {self.name or 'model'}: {network.count_parameters():,} parameters, "
            f"{network.dtype} on {network.ops.name}>"
        )

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
        """The vocabulary of the text tower, looked for when first used (see `find_tokenizer`)."""
        if self._tokenizer is None:
            text = self.network.text.config
            tokenizer = find_tokenizer(self.folder)
            if tokenizer.vocab_size != text.vocab_size:
                raise ValueError(
                    f"tokenizer: the vocabulary found has {tokenizer.vocab_size} words, expected "
                    f"{text.vocab_size} as in the model; pass the right one: load(..., tokenizer=)"
                )
            self._tokenizer = tokenizer
        return self._tokenizer

    def to(self, backend: str | None = None, dtype: str | None = None) -> Pipeline:
        """Move to another backend or dtype."""
        self.network.to(backend, dtype)
        return self

    @property
    def plan(self) -> Plan | None:
        """What `encode_image` and `encode_text` run instead of the modules; None unless on numba.

        `print` it to see each tower's steps, or why it runs by its modules at the moment.
        """
        if self.network.ops.name != "numba":
            return None
        if self._plan is None or self._plan.network is not self.network:
            from miniclip.engine.plan import Plan

            self._plan = Plan(self.network)
        return self._plan

    def compile(self) -> Plan:
        """Make the plan of both towers now, rather than at the first picture and the first text.

        Needed after writing into a parameter's array by hand; assigning parameters, loading a
        state and optimiser steps are noticed without. Raises ValueError on other backends.
        """
        plan = self.plan
        if plan is None:
            raise ValueError(
                f"compile: the model is on the {self.network.ops.name} backend, expected numba"
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
        folder = Path(path) if layout == "hf" else Path(path).parent
        tokenizer = self._tokenizer or local_tokenizer([self.folder])
        check_vocabulary(folder, tokenizer)
        recipe = None if self._transform is None else preprocessing_of(self._transform)
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            save_checkpoint(state, network.config, Path(path), layout, recipe)
        except BaseException:
            if is_new and not any(folder.iterdir()):
                folder.rmdir()
            raise
        if tokenizer is not None:
            tokenizer.save(folder)

    # ------------------------------------------------------------------ inputs

    def preprocess(self, images: Any) -> Array:
        """Paths, files, PIL images or pixel arrays -> (B, 3, R, R) in the model's dtype."""
        return self.transform(images).astype(self.network.dtype, copy=False)

    def tokenize(self, texts: str | Sequence[str], truncate: bool = False) -> Array:
        """Strings -> ids (B, context), int64. A text that is too long is an error or cut."""
        context = self.network.text.config.context_length
        return self.tokenizer(texts, context_length=context, truncate=truncate)

    # ------------------------------------------------------------------ embeddings

    def encode_image(
        self, images: Any, normalize: bool = False, progress: bool | None = None
    ) -> Array:
        """Pictures -> embeddings (B, E), unnormalised as in the original.

        images: what `preprocess` takes, or an array that it returned, (B, 3, R, R).
        normalize: give them unit length. Many pictures are taken in chunks that fit the memory
        budget; progress: show a bar (None: on a terminal, when there are several chunks).
        Raises ValueError naming the first bad parameter if an embedding is not finite.
        """
        items = images if is_preprocessed(images, self.transform.size) else listed(images)
        step = images_per_chunk(self.config)
        parts = [
            self._embed(self.network.visual, self._pixels(chunk, start), "image")
            for start, chunk in chunks(items, step, "images", progress)
        ]
        return self._finish(parts, normalize)

    def encode_text(
        self,
        texts: Any,
        normalize: bool = False,
        truncate: bool = False,
        progress: bool | None = None,
    ) -> Array:
        """Strings, or ids (B, T), -> embeddings (B, E), unnormalised as in the original."""
        ids = self._ids(texts, truncate)
        step = texts_per_chunk(self.config)
        parts = [
            self._embed(self.network.text, chunk, "text")
            for _, chunk in chunks(ids, step, "texts", progress)
        ]
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
        if not abs(log_scale) < LARGEST_LOG_SCALE:  # NaN is not, either
            raise ValueError(
                f"logit_scale: got {log_scale}, expected a number such as ln 100 = 4.6; the "
                "checkpoint is damaged (miniclip weights check)"
            )
        logit = math.exp(log_scale) * cosine  # a Python number: float32 stays float32
        probability, _ = backends.get("numpy").softmax(logit)
        return Similarity(cosine, logit, probability)

    def _ids(self, texts: Any, truncate: bool) -> Array:
        """Integers are ids, strings are tokenized, anything else is refused."""
        array = texts if isinstance(texts, np.ndarray) else None
        if array is None or array.dtype.kind in "UO":
            return self.tokenize(texts if array is None else array.tolist(), truncate)
        if array.dtype.kind not in "iu":
            raise TypeError(f"texts: got a {array.dtype} array, expected strings or integer ids")
        return array

    def _pixels(self, chunk: Any, start: int) -> Array:
        if is_preprocessed(chunk, self.transform.size):
            return np.asarray(chunk, self.network.dtype)
        return self.transform(chunk, start).astype(self.network.dtype, copy=False)

    def _embed(self, tower: Any, x: Array, kind: str) -> Array:
        """One chunk through a tower and back to NumPy; never keeps a non-finite embedding."""
        ops = self.network.ops
        on_device = ops.asarray(x, self.network.dtype) if kind == "image" else ops.as_ids(x)
        plan = None if self.plan is None else self.plan.of(kind)
        y = ops.to_numpy((plan or tower)(on_device))
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


# ------------------------------------------------------------------------ vocabularies


def find_tokenizer(folder: Path | None = None) -> Tokenizer:
    """The vocabulary, from the first of these places that has one.

    1. The checkpoint's folder: tokenizer.json, vocab.json with merges.txt, or the original's
       bpe_simple_vocab_16e6.txt.gz.  2. miniclip's cache folder.  3. An installed openai-clip or
       open_clip_torch.  4. The hub (openai/clip-vit-base-patch32, two small files).
    Raises ValueError that says how to get one where none is to be had.
    """
    tokenizer = local_tokenizer(vocabulary_folders(folder))
    if tokenizer is not None:
        return tokenizer
    try:
        downloaded = hub.download_tokenizer(VOCABULARY_REPOSITORY)
    except hub.HubError as error:
        raise VocabularyError(
            f"tokenizer: no vocabulary beside the checkpoint, in {hub.cache_folder()}, or in an "
            f"installed openai-clip or open_clip_torch, and none from the hub ({error}). Put "
            f"{BPE_FILE} (from github.com/openai/CLIP, folder clip) into one of these folders, or "
            "pip install openai-clip"
        ) from None
    tokenizer = Tokenizer.from_folder(downloaded)
    if tokenizer is None:
        raise VocabularyError(
            f"tokenizer: {VOCABULARY_REPOSITORY} holds no vocabulary that we know"
        )
    return tokenizer


def check_vocabulary(folder: Path, tokenizer: Tokenizer | None) -> None:
    """Raise ValueError if saving would replace the vocabulary of another model in this folder."""
    there = local_tokenizer([folder])
    if tokenizer is not None and there is not None and there.merges != tokenizer.merges:
        raise ValueError(f"path: {folder} holds the vocabulary of another model, expected none")


def tokenize(
    texts: str | Sequence[str],
    context_length: int = 77,
    truncate: bool = False,
    tokenizer: Tokenizer | None = None,
) -> Array:
    """Strings -> ids (B, context_length), int64, by the original's vocabulary (or another one).

    Raises ValueError for a text that is too long (truncate=True cuts it), TypeError for no text.
    """
    return (tokenizer or original_tokenizer())(
        texts, context_length=context_length, truncate=truncate
    )


@functools.cache
def original_tokenizer() -> Tokenizer:
    """The first vocabulary that is found on this machine, or the hub's; read once."""
    return find_tokenizer()


def local_tokenizer(folders: Iterable[Path | None]) -> Tokenizer | None:
    """The vocabulary of the first folder that has one."""
    for folder in folders:
        tokenizer = Tokenizer.from_folder(folder) if folder and folder.is_dir() else None
        if tokenizer is not None:
            return tokenizer
    return None


def vocabulary_folders(folder: Path | None) -> Iterator[Path]:
    """Local folders that may hold a vocabulary, in order. Packages are found, not imported."""
    if folder is not None:
        yield folder
    yield hub.cache_folder()
    for package in ("clip", "open_clip"):
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            yield Path(place)


# ------------------------------------------------------------------------ many inputs


def is_preprocessed(images: Any, size: int) -> bool:
    """Whether this is an array (B, 3, size, size) of floats, as `preprocess` returns."""
    return (
        isinstance(images, np.ndarray)
        and images.dtype.kind == "f"
        and images.ndim == 4
        and images.shape[1:] == (3, size, size)
    )


def listed(images: Any) -> Sequence[Any]:
    """One picture, several, or a batch, as a list with one item for each picture."""
    items = list(images) if isinstance(images, list | tuple) else [images]
    pictures = [
        picture
        for item in items
        for picture in (item if isinstance(item, np.ndarray) and item.ndim == 4 else [item])
    ]
    if not pictures:
        raise ValueError("images: got none, expected at least one picture")
    return pictures


def chunks(items: Any, step: int, unit: str, progress: bool | None) -> Iterator[tuple[int, Any]]:
    """Slices of `step` items and where each starts, with a progress bar when there are several."""
    starts = range(0, len(items), step)
    if len(starts) > 1:
        from tqdm import tqdm

        # tqdm's own None: no bar unless the output is a terminal
        disable = None if progress is None else not progress
        with tqdm(total=len(items), unit=f" {unit}", disable=disable) as bar:
            for start in starts:
                chunk = items[start : start + step]
                yield start, chunk
                bar.update(len(chunk))
        return
    yield 0, items


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
