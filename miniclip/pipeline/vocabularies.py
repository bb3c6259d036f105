"""Which vocabulary belongs to a model, and where it is found."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from miniclip.checkpoints import hub
from miniclip.files import as_path
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.inputs.vocabulary import BPE_FILE
from miniclip.ops.array import Array

VOCABULARY_REPOSITORY = "openai/clip-vit-base-patch32"  # has vocab.json and merges.txt


class VocabularyError(ValueError):
    """No vocabulary is to be had. The message says how to get one."""


def find_tokenizer(folder: Path | None = None) -> Tokenizer:
    """The vocabulary, from the first of these places that has one.

    1. The checkpoint's folder: tokenizer.json, vocab.json with merges.txt, or the original's
       bpe_simple_vocab_16e6.txt.gz.  2. miniclip's cache folder.  3. An installed openai-clip or
       open_clip_torch.  4. The hub (openai/clip-vit-base-patch32, two small files).
    Raises ValueError that says how to get one where none is to be had.
    """
    tokenizer = local_tokenizer(vocabulary_folders(None if folder is None else as_path(folder)))
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
