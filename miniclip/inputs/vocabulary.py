"""The tokenizer's vocabulary: which token has which id, and the files that say so.

A vocabulary is a list of merges (pairs of symbols) and the ids of the tokens they make. Whatever
is wrong with a file's content is one ValueError that begins with the file's name.

Source: the layout of `bpe_simple_vocab_16e6.txt.gz` and of its ids is that of
`clip/simple_tokenizer.py` in openai/CLIP; merges.txt and vocab.json are those of transformers,
tokenizer.json that of tokenizers.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from miniclip.files import as_path, made_folder, write_bytes
from miniclip.inputs.bpe import (
    BASE_SIZE,
    END,
    END_OF_WORD,
    SPECIAL_SIZE,
    START,
    Pair,
    base_symbols,
    shorten,
)

PathLike = str | os.PathLike[str]
Vocab = Mapping[str, int]

BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
BPE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
BPE_MERGES = 49152 - 256 - 2  # the file holds more; the original reads this many after its header

LARGEST_FILE = 64 << 20  # bytes, unpacked: twenty times what the real vocabulary takes


# ---- token -> id ------------------------------------------------------------------------------


def clip_vocab(merges: Sequence[Pair]) -> dict[str, int]:
    """Token -> id as CLIP lays them out: bytes, bytes at a word's end, merges, start, end."""
    tokens = [*base_symbols(), *map("".join, merges), START, END]
    return {token: i for i, token in enumerate(tokens)}


def checked_merges(merges: Sequence[Pair]) -> tuple[Pair, ...]:
    """The merges as pairs; ValueError where one stands twice or joins what does not exist."""
    pairs = tuple((first, second) for first, second in merges)
    if len(set(pairs)) < len(pairs):
        pair, count = Counter(pairs).most_common(1)[0]
        raise ValueError(f"the merge {pair!a} stands {count} times")
    known = set(base_symbols()).union(map("".join, pairs))
    if unknown := set(chain.from_iterable(pairs)) - known:
        rank = next(rank for rank, pair in enumerate(pairs) if unknown & set(pair))
        raise ValueError(
            f"merge {rank}, {pairs[rank]!a}, joins what is neither a byte's symbol nor made by "
            "another merge"
        )
    return pairs


def check_vocab(vocab: Vocab, merges: Sequence[Pair]) -> None:
    """ValueError unless the vocabulary has one id for each token that there can be."""
    expected = clip_vocab(merges)
    if missing := [token for token in expected if token not in vocab]:
        raise ValueError(f"the vocabulary has no id for {_some(missing)}")
    if foreign := [token for token in vocab if token not in expected]:
        raise ValueError(f"the vocabulary has tokens that no merge makes: {_some(foreign)}")
    largest = BASE_SIZE + len(merges) + SPECIAL_SIZE - 1
    if outside := [token for token, i in vocab.items() if not 0 <= i <= largest]:
        raise ValueError(f"the vocabulary's ids are not from 0 to {largest} for {_some(outside)}")
    if len(set(vocab.values())) != len(vocab):
        raise ValueError("the vocabulary gives one id to two tokens")


def _some(tokens: list[str]) -> str:
    """A few of the tokens, and how many more there are."""
    named = ", ".join(shorten(token) for token in tokens[:3])
    return named if len(tokens) <= 3 else f"{named} and {len(tokens) - 3} more"


# ---- reading ----------------------------------------------------------------------------------


def read_bpe_file(path: PathLike, sha256: str | None) -> tuple[Pair, ...]:
    """The merges of a file as the original's: gzip, a header line, then one merge a line."""
    with _naming(path):
        packed = _read(path)
        got = hashlib.sha256(packed).hexdigest()
        if sha256 is not None and got != sha256:
            raise ValueError(f"its sha256 is {got}, expected {sha256}")
        lines = _lines(_unpack(packed))[1 : 1 + BPE_MERGES]
        return checked_merges(_parse_merges(lines, "line", 2))


def read_merges_file(path: PathLike) -> tuple[Pair, ...]:
    """The merges of a merges.txt; its first line may say the version."""
    with _naming(path):
        lines = _lines(_read(path))
        skip = 1 if "#version" in lines[0] else 0
        return checked_merges(_parse_merges(lines[skip:], "line", 1 + skip))


def read_vocab_json(path: PathLike, merges: Sequence[Pair]) -> Vocab:
    """Token -> id of a vocab.json that belongs to the merges."""
    with _naming(path):
        vocab = _parse_vocab(_parse_json(_read(path)))
        check_vocab(vocab, merges)
        return vocab


def read_tokenizer_json(path: PathLike) -> tuple[tuple[Pair, ...], Vocab]:
    """Merges and vocabulary of a tokenizer.json that holds byte-pair encoding with `</w>`."""
    with _naming(path):
        content = _parse_json(_read(path))
        model = content.get("model")
        if not isinstance(model, dict):
            raise ValueError("it has no `model`")
        for key, expected in (("type", "BPE"), ("end_of_word_suffix", END_OF_WORD)):
            if model.get(key) != expected:
                got = shorten(str(model.get(key)))
                raise ValueError(f"not CLIP's tokenizer: {key} is {got}, expected {expected!r}")
        lines = model.get("merges")
        if not isinstance(lines, list):
            raise ValueError("its model has no list of merges")
        merges = checked_merges(_parse_merges(lines, "merge", 0))
        vocab = {**_added_specials(content), **_parse_vocab(model.get("vocab"))}
        check_vocab(vocab, merges)
        return merges, vocab


@contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Whatever is wrong with the content becomes one ValueError that begins with the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)}: not UTF-8 text ({error})") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _read(path: PathLike) -> bytes:
    with open(as_path(path), "rb") as file:
        return _bounded(file.read(LARGEST_FILE + 1))


def _unpack(packed: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            return _bounded(file.read(LARGEST_FILE + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not a whole gzip file, fetch it again ({error})") from error


def _bounded(content: bytes) -> bytes:
    if len(content) > LARGEST_FILE:
        raise ValueError(f"more than {LARGEST_FILE >> 20} MiB, too large for a vocabulary")
    return content


def _lines(content: bytes) -> list[str]:
    """Lines of a file of merges, without what follows the last line's end."""
    if not content.strip():
        raise ValueError("empty, expected merges")
    lines = content.decode("utf-8").split("\n")  # not splitlines: a symbol could be U+0085
    return lines[:-1] if not lines[-1] else lines


def _parse_merges(lines: list[Any], name: str, first: int) -> list[Pair]:
    """Pairs from lines "a b", or from ["a", "b"], as newer tokenizer.json files write them."""
    pairs = []
    for number, line in enumerate(lines, first):
        fields = line.split() if isinstance(line, str) else line
        is_pair = isinstance(fields, list) and len(fields) == 2
        if not is_pair or not all(isinstance(field, str) and field for field in fields):
            raise ValueError(f"{name} {number}: got {shorten(str(line))}, expected two symbols")
        pairs.append((fields[0], fields[1]))
    return pairs


def _parse_json(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"got a JSON {type(content).__name__}, expected an object")
    return content


def _parse_vocab(vocab: Any) -> dict[str, int]:
    if not isinstance(vocab, dict):
        raise ValueError("it has no vocabulary (token -> id)")
    for token, i in vocab.items():
        if type(i) is not int:
            got = shorten(str(i))
            raise ValueError(f"the id of {shorten(token)} is {got}, expected an integer")
    return vocab


def _added_specials(content: dict[str, Any]) -> dict[str, int]:
    """Start and end, where a tokenizer.json lists them beside the model and not in it."""
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError("its `added_tokens` are no list of tokens")
    specials = [token for token in added if token.get("content") in (START, END)]
    return _parse_vocab({token["content"]: token.get("id") for token in specials})


# ---- writing ----------------------------------------------------------------------------------


def write_vocabulary(folder: Path, merges: Sequence[Pair], vocab: Vocab) -> None:
    """merges.txt and vocab.json: both whole, or the folder is as it was."""
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    contents = {
        "merges.txt": "\n".join(lines),
        "vocab.json": json.dumps(dict(vocab), ensure_ascii=False),
    }
    with made_folder(folder):
        write_bytes({folder / name: content.encode() for name, content in contents.items()})
