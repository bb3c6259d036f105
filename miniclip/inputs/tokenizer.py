"""CLIP's tokenizer: texts become ids, ids become text again, and every step can be looked at.

The way of a text: `clean_text`, `split_words`, `word_symbols`, `merge_symbols` (all in `bpe.py`),
then one id a symbol, between the start and the end token, padded to the context length.

Source: `clip/simple_tokenizer.py` and `tokenize` in `clip/clip.py` of openai/CLIP.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from miniclip.files import as_path
from miniclip.inputs import bpe, vocabulary
from miniclip.inputs.bpe import END, END_OF_WORD, START, Pair
from miniclip.inputs.steps import Merge, TextSteps, WordSteps
from miniclip.inputs.vocabulary import BPE_FILE, PathLike

CACHED_WORDS = 1 << 16
CACHED_LETTERS = 64  # a longer word hardly comes twice


class TextTooLong(ValueError):
    """A text that does not fit the context. place: its index; reason: the message without it."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(f"texts[{place}]: {reason} (truncate=True drops what does not fit)")
        self.place, self.reason = place, reason


class Tokenizer:
    """Byte-pair encoding with CLIP's cleaning, words and special tokens.

    Safe to use from several threads.

    Args:
        merges: pairs of symbols, the one to apply first in front.
        vocab: token -> id. None lays the ids out as CLIP does: 256 bytes, 256 bytes at a word's
            end, the merges, start, end; the end token then has the largest id.
        context_length: ids in a row of `__call__`, with start and end.
        pad_id: fills the rows; 0 in the original, the end token's id in transformers. The
            embedding is the same, as nothing after the first end token is read.

    Attributes:
        vocab_size: rows that the model's token embedding needs.
        start_id, end_id: ids of `<|startoftext|>` and `<|endoftext|>`.
        merges, vocab, context_length, pad_id: as given.

    Raises:
        TypeError: context_length or pad_id is not an integer.
        ValueError: a merge of unknown symbols, a merge that stands twice, a vocabulary that does
            not belong to the merges, a context_length below 2, a pad_id that is no id.
    """

    def __init__(
        self,
        merges: Sequence[Pair],
        *,
        vocab: Mapping[str, int] | None = None,
        context_length: int = 77,
        pad_id: int = 0,
    ) -> None:
        self.merges = vocabulary.checked_merges(merges)
        if vocab is None:
            vocab = vocabulary.clip_vocab(self.merges)
        else:
            vocabulary.check_vocab(vocab, self.merges)
        self.vocab = dict(sorted(vocab.items(), key=lambda item: item[1]))
        self.vocab_size = max(self.vocab.values()) + 1
        self.start_id, self.end_id = self.vocab[START], self.vocab[END]
        self.context_length = check_integer("context_length", context_length, 2)
        self.pad_id = check_integer("pad_id", pad_id, 0, self.vocab_size - 1)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._tokens = {i: token for token, i in self.vocab.items()}
        self._cache: dict[str, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} ids, context {self.context_length})"

    def with_context_length(self, context_length: int) -> Tokenizer:
        """The same vocabulary for rows of another length; itself if that is its own."""
        if context_length == self.context_length:
            return self
        other = copy.copy(self)
        other.context_length = check_integer("context_length", context_length, 2)
        return other

    # ---- text -> ids --------------------------------------------------------------------------

    def clean(self, text: str) -> str:
        """The text as it is encoded: repaired, unescaped, single spaces, lower case."""
        return bpe.clean_text(text)

    def words(self, text: str) -> list[str]:
        """The cleaned text's words; each is encoded by itself."""
        return bpe.split_words(self.clean(text))

    def encode(self, text: str) -> list[int]:
        """Ids of a text of any length, without start and end.

        `<|startoftext|>` and `<|endoftext|>` written in the text (in any case, or with HTML
        entities) become these tokens, as in the original.

        Raises:
            TypeError, ValueError: see `bpe.clean_text`.
        """
        return [i for word in self.words(text) for i in self._word_ids(word)]

    def _word_ids(self, word: str) -> tuple[int, ...]:
        ids = self._cache.get(word)
        if ids is None:
            ids = tuple(self.vocab[piece] for piece in self._pieces(word))
            self._remember(word, ids)
        return ids

    def _remember(self, word: str, ids: tuple[int, ...]) -> None:
        """Keep a word's ids, in bounded memory. Two threads at worst compute the same twice."""
        if len(self._cache) >= CACHED_WORDS:
            self._cache.clear()
        if len(word) <= CACHED_LETTERS:
            self._cache[word] = ids

    def _pieces(self, word: str, steps: list[int] | None = None) -> list[str]:
        """The tokens of a word; the ranks of the merges that led there go into steps."""
        if word in (START, END):
            return [word]
        return bpe.merge_symbols(bpe.word_symbols(word), self._ranks, steps)

    def __call__(
        self,
        texts: str | Iterable[str],
        context_length: int | None = None,
        truncate: bool = False,
    ) -> npt.NDArray[np.int64]:
        """Rows of ids for the text tower: start, the text, end, padding.

        Args:
            texts: one string or several; an empty string is start and end.
            context_length: ids in a row; None is the tokenizer's own.
            truncate: cut a too long text; its last id is the end token all the same.

        Returns:
            (B, context_length) int64; B is 1 for one string.

        Raises:
            TypeError: texts, or one of them, is not a string.
            ValueError: no texts, or a text that is too long; the message counts its tokens and
                shows the first words that would be dropped. See also `bpe.clean_text`.
        """
        texts = as_texts(texts)
        context = self.context_length
        if context_length is not None:
            context = check_integer("context_length", context_length, 2)
        rows = np.full((len(texts), context), self.pad_id, np.int64)
        for i, text in enumerate(texts):
            ids = [self.start_id, *self.encode(text), self.end_id]
            if len(ids) > context:
                if not truncate:
                    raise TextTooLong(i, self._too_long(text, len(ids), context))
                ids = [*ids[: context - 1], self.end_id]
            rows[i, : len(ids)] = ids
        return rows

    def _too_long(self, text: str, count: int, context: int) -> str:
        words = self.words(text)
        room, kept = context - 2, 0  # without start and end
        while room >= (length := len(self._word_ids(words[kept]))):
            room, kept = room - length, kept + 1
        dropped = bpe.shorten(" ".join(words[kept : kept + 6]))
        return (
            f"got {count} tokens with start and end, expected at most {context}; the first "
            f"words that do not fit are {dropped}"
        )

    # ---- ids -> text --------------------------------------------------------------------------

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, up to the first end token: as far as the model reads.

        Words are separated by one space, wherever the text had spaces, so
        `decode(encode(text)) == " ".join(words(text))`: the cleaned text up to spaces around
        punctuation and digits ("don't" comes back as "don 't"). Special tokens leave nothing.
        A character whose bytes were cut apart shows as U+FFFD.

        Args:
            ids: of one text, as `encode` or one row of `__call__` gives them.

        Raises:
            TypeError: ids are not integers.
            ValueError: an id that no token has.
        """
        pieces: list[str] = []
        for i in ids:
            token = self._token(i)
            if token == END:
                break
            if token != START:
                pieces.append(token)
        return bpe.symbols_text("".join(pieces)).replace(END_OF_WORD, " ").removesuffix(" ")

    def _token(self, i: Any) -> str:
        try:
            return self._tokens[operator.index(i)]
        except TypeError:
            kind = type(i).__name__
            raise TypeError(f"ids: got a {kind}, expected integers (one row at a time)") from None
        except KeyError:
            last = self.vocab_size - 1
            raise ValueError(f"ids: got {i}, expected the ids of tokens, 0 to {last}") from None

    # ---- every step ---------------------------------------------------------------------------

    def steps(self, text: str) -> TextSteps:
        """Every step from the text to its ids, to be printed or shown in a notebook.

        Raises:
            TypeError, ValueError: see `bpe.clean_text`.
        """
        words = tuple(map(self._word_steps, self.words(text)))
        return TextSteps(text, self.clean(text), words, self.context_length)

    def _word_steps(self, word: str) -> WordSteps:
        ranks: list[int] = []
        pieces = tuple(self._pieces(word, ranks))
        symbols = pieces if word in (START, END) else tuple(bpe.word_symbols(word))
        merges = tuple(Merge(rank, *self.merges[rank]) for rank in ranks)
        ids = tuple(self.vocab[piece] for piece in pieces)
        return WordSteps(word, symbols, merges, pieces, ids)

    # ---- files --------------------------------------------------------------------------------

    @classmethod
    def from_bpe_file(
        cls, path: PathLike, *, sha256: str | None = None, **settings: Any
    ) -> Tokenizer:
        """From a file as the original's `bpe_simple_vocab_16e6.txt.gz`: a header, then the merges.

        Args:
            path: the gzip file. The original's holds more merges than it uses: the first 48,894.
            sha256: if given (the original's is `BPE_SHA256`), any other file is refused.
            settings: `context_length` and `pad_id`.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is corrupt, truncated, or another than asked for.
        """
        return cls(vocabulary.read_bpe_file(path, sha256), **settings)

    @classmethod
    def from_merges_file(
        cls, merges_txt: PathLike, vocab_json: PathLike | None = None, **settings: Any
    ) -> Tokenizer:
        """From `merges.txt` and, better, the `vocab.json` beside it, which says the ids.

        Without it the ids are laid out as CLIP does.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a file is corrupt, or the two do not belong together.
        """
        merges = vocabulary.read_merges_file(merges_txt)
        vocab = None if vocab_json is None else vocabulary.read_vocab_json(vocab_json, merges)
        return cls(merges, vocab=vocab, **settings)

    @classmethod
    def from_tokenizer_json(cls, path: PathLike, **settings: Any) -> Tokenizer:
        """From the `tokenizer.json` of the tokenizers library.

        Only merges and vocabulary are read: cleaning and words are always those of the original.
        Added tokens other than start and end are not CLIP's, and not recognised.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is corrupt, or another tokenizer than byte-pair encoding with `</w>`.
        """
        merges, vocab = vocabulary.read_tokenizer_json(path)
        return cls(merges, vocab=vocab, **settings)

    @classmethod
    def from_folder(cls, folder: PathLike, **settings: Any) -> Tokenizer | None:
        """From what a checkpoint's folder holds; None where it holds no vocabulary.

        The first of: `vocab.json` with `merges.txt`, `tokenizer.json`,
        `bpe_simple_vocab_16e6.txt.gz`, `merges.txt` alone.

        Raises:
            ValueError: the one that is there is corrupt; no other is tried.
        """
        folder = as_path(folder)
        merges, vocab, whole = (folder / n for n in ("merges.txt", "vocab.json", "tokenizer.json"))
        if merges.is_file() and vocab.is_file():
            return cls.from_merges_file(merges, vocab, **settings)
        if whole.is_file():
            return cls.from_tokenizer_json(whole, **settings)
        if (folder / BPE_FILE).is_file():
            return cls.from_bpe_file(folder / BPE_FILE, **settings)
        if merges.is_file():
            return cls.from_merges_file(merges, **settings)
        return None

    def save(self, folder: PathLike) -> None:
        """Write `merges.txt` and `vocab.json`, which transformers' CLIPTokenizer loads too.

        The folder is made where there is none. Files are replaced only when both are written.

        Raises:
            OSError: the folder cannot be written to.
        """
        vocabulary.write_vocabulary(as_path(folder), self.merges, self.vocab)


# ---- what comes in at the door ----------------------------------------------------------------


def as_texts(texts: Any) -> list[str]:
    """A list of strings, or one error that names what is wrong."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, Mapping, Set)) or not isinstance(texts, Iterable):
        kind = type(texts).__name__
        raise TypeError(f"texts: got {kind}, expected a string or a list of strings")
    texts = list(texts)
    if not texts:
        raise ValueError("texts: got an empty list, expected at least one text")
    for i, text in enumerate(texts):
        bpe.check_text(f"texts[{i}]", text)
    return texts


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """The value as an int within its limits, or one error that names it."""
    wanted = f"an integer of at least {low}" if high is None else f"an integer, {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {type(value).__name__}, expected {wanted}") from None
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name}: got {number}, expected {wanted}")
    return number
