"""Byte-pair encoding as CLIP does it: text -> words -> bytes -> merges, and learning the merges.

Nothing here knows an id; `tokenizer.py` gives the symbols their numbers.

Source: Sennrich, Haddow, Birch 2016 (byte-pair encoding, `</w>`); Radford et al. 2019 (bytes);
`clip/simple_tokenizer.py` of openai/CLIP, whose every quirk is kept on purpose: the embeddings of
the trained models belong to these ids and to no others.
"""

from __future__ import annotations

import functools
import heapq
import html
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Pair = tuple[str, str]

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"  # marks a word's last symbol, so that "cat" and the start of "cattle" differ
BASE_SIZE = 2 * 256  # every byte, within a word and at its end
SPECIAL_SIZE = 2  # START and END

# Special tokens, English contractions, runs of letters, single digits, runs of anything else.
WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>"
    r"|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


# ---- text -> words ----------------------------------------------------------------------------


def clean_text(text: str) -> str:
    """Repair broken encodings, resolve HTML entities, make whitespace single spaces, lower.

    Entities are resolved twice (captions from the web hold `&amp;quot;`). A lone surrogate, which
    UTF-8 cannot write, becomes U+FFFD, and control characters go: both are ftfy's doing.

    Raises:
        TypeError: text is not a string.
        ValueError: a numeric entity with more digits than Python reads (4300).
    """
    check_text("text", text)
    import ftfy

    text = ftfy.fix_text(text)
    try:
        text = html.unescape(html.unescape(text)).strip()
    except ValueError as error:  # `&#111...;`: Python refuses to read so long a number
        raise ValueError(f"text: an HTML entity in {shorten(text)} is too long a number") from error
    return _compiled(r"\s+").sub(" ", text).strip().lower()


def split_words(text: str) -> list[str]:
    """The words of a cleaned text: what is between them, and only that, is forgotten."""
    return _compiled(WORD).findall(text)


@functools.cache
def _compiled(pattern: str) -> Any:
    import regex  # not `re`, which knows no \p{L}

    return regex.compile(pattern, regex.IGNORECASE)


def check_text(name: str, text: Any) -> None:
    if isinstance(text, bytes):
        raise TypeError(f"{name}: got bytes, expected a string (decode them first)")
    if not isinstance(text, str):
        raise TypeError(f"{name}: got {type(text).__name__}, expected a string")


def shorten(text: str, width: int = 40) -> str:
    """The text in quotes, cut to the width: messages stay readable whatever comes in."""
    return ascii(text) if len(text) <= width else f"{text[:width]!a}..."


# ---- words -> symbols -------------------------------------------------------------------------


@functools.cache
def byte_symbols() -> dict[int, str]:
    """A visible character for each of the 256 bytes, in the order of CLIP's ids.

    Printable Latin-1 bytes stand for themselves; the others (controls, spaces, soft hyphen) take
    the characters from U+0100 on, so that no symbol holds whitespace and files stay text.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    symbols = {byte: chr(byte) for byte in visible}
    return symbols | {byte: chr(0x100 + n) for n, byte in enumerate(hidden)}


def base_symbols() -> list[str]:
    """The 512 symbols that exist before any merge, in the order of their ids."""
    symbols = list(byte_symbols().values())
    return symbols + [symbol + END_OF_WORD for symbol in symbols]


def word_symbols(word: str) -> list[str]:
    """A word's UTF-8 bytes as symbols, the last one marked: "cat" -> c, a, t</w>."""
    table = byte_symbols()
    symbols = [table[byte] for byte in word.encode("utf-8")]
    symbols[-1] += END_OF_WORD
    return symbols


def symbols_text(symbols: str) -> str:
    """The text of bytes written as symbols; U+FFFD where they are no UTF-8."""
    byte_of = {symbol: byte for byte, symbol in byte_symbols().items()}
    return bytes(byte_of[symbol] for symbol in symbols).decode("utf-8", "replace")


# ---- symbols -> fewer symbols -----------------------------------------------------------------

NOBODY = -1


class Chain:
    """Words as linked lists of symbols: two neighbours join in the same few steps anywhere.

    A place is an index into `symbols`. Joining leaves the left place with the joined symbol and
    takes the right one out of the list.
    """

    def __init__(self, words: Iterable[Sequence[str]]) -> None:
        self.symbols: list[str] = []
        self.left, self.right = array("q"), array("q")
        for word in words:
            first = len(self.symbols)
            self.symbols += word
            end = len(self.symbols)
            self.left.extend([NOBODY, *range(first, end - 1)])
            self.right.extend([*range(first + 1, end), NOBODY])

    def pair(self, place: int) -> Pair | None:
        """The symbol there and its right neighbour; None at a word's end or where joined away."""
        right = self.right[place]
        return None if right == NOBODY else (self.symbols[place], self.symbols[right])

    def join(self, place: int, joined: str) -> None:
        gone = self.right[place]
        beyond = self.right[gone]
        self.symbols[place] = joined
        self.right[place] = beyond
        self.right[gone] = NOBODY
        if beyond != NOBODY:
            self.left[beyond] = place

    def word(self, place: int) -> Iterator[str]:
        """The symbols from a place to its word's end."""
        while place != NOBODY:
            yield self.symbols[place]
            place = self.right[place]


def merge_symbols(
    symbols: Sequence[str], ranks: Mapping[Pair, int], steps: list[int] | None = None
) -> list[str]:
    """Join neighbours, the pair of lowest rank first and everywhere it stands, until none is known.

    The plain way looks at every pair again after every merge, which takes minutes for a word of
    100,000 letters. Here each place waits in the queue of its pair's rank: O(n log n).

    Args:
        symbols: a word's symbols, from `word_symbols`.
        ranks: pair -> its position in the list of merges.
        steps: if given, the ranks that were applied are appended to it, in order.
    """
    chain = Chain([symbols])
    waiting: dict[int, list[int]] = {}  # rank -> places where its pair stands, or once stood
    queue: list[int] = []  # the ranks in `waiting`, as a heap

    def rank_at(place: int) -> int | None:
        pair = chain.pair(place)
        return None if pair is None else ranks.get(pair)

    def notice(place: int) -> None:
        rank = rank_at(place)
        if rank is None:
            return
        if rank not in waiting:
            heapq.heappush(queue, rank)
            waiting[rank] = []
        waiting[rank].append(place)

    for place in range(len(symbols) - 1):
        notice(place)
    while queue:
        rank = heapq.heappop(queue)
        joined = False
        for place in sorted(waiting.pop(rank)):  # from left to right: "aaa" is "aa a"
            if rank_at(place) != rank:  # a neighbour has been joined since
                continue
            first, second = chain.symbols[place], chain.symbols[chain.right[place]]
            chain.join(place, first + second)
            joined = True
            if chain.left[place] != NOBODY:
                notice(chain.left[place])
            notice(place)
        if joined and steps is not None:
            steps.append(rank)
    return list(chain.word(0))


# ---- learning the merges ----------------------------------------------------------------------


def train_merges(texts: Iterable[str], vocab_size: int, *, min_count: int = 2) -> list[Pair]:
    """Learn merges from texts: again and again the most frequent pair of neighbours becomes one.

    Among equally frequent pairs the one first in the order of code points is taken, so the same
    texts in any order give the same merges. No two merges make the same token: the letters of a
    token are joined in the same order wherever it stands.

    Args:
        texts: captions; read once, cleaned and split as for encoding.
        vocab_size: ids in all: 512 for the bytes, one a merge, 2 for start and end.
        min_count: a rarer pair is not merged. There are then fewer merges than asked for, and
            `Tokenizer(merges).vocab_size` says how many ids there are.

    Returns:
        The merges in the order in which they are to be applied.

    Raises:
        TypeError: texts is one string, or holds something else than strings.
        ValueError: vocab_size below 514 or min_count below 1.

    Source: Sennrich, Haddow, Birch 2016, algorithm 1, on bytes.
    """
    if vocab_size < BASE_SIZE + SPECIAL_SIZE:
        raise ValueError(f"vocab_size: got {vocab_size}, expected at least 514 (bytes, start, end)")
    if min_count < 1:
        raise ValueError(f"min_count: got {min_count}, expected at least 1")
    pairs = _PairCounts(count_words(texts))
    merges: list[Pair] = []
    while len(merges) < vocab_size - BASE_SIZE - SPECIAL_SIZE:
        pair = pairs.pop_most_frequent(min_count)
        if pair is None:
            break
        merges.append(pair)
        pairs.merge(pair)
    return merges


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word stands in the texts. Start and end are tokens already."""
    if isinstance(texts, str):
        raise TypeError("texts: got one string, expected several")
    counts: Counter[str] = Counter()
    for i, text in enumerate(texts):
        check_text(f"texts[{i}]", text)
        counts.update(split_words(clean_text(text)))
    del counts[START], counts[END]
    return counts


class _PairCounts:
    """How often each pair stands in the words, kept right while pairs are merged.

    A merge changes only the pairs beside it, so all merges together cost about as much as there
    are letters to join, not merges times letters.
    """

    def __init__(self, words: Mapping[str, int]) -> None:
        self.chain = Chain(map(word_symbols, words))
        self.weight = array("q")  # of each place: how often its word stands in the texts
        for word, count in words.items():
            self.weight.extend([count] * len(word.encode("utf-8")))
        self.counts: dict[Pair, int] = {}
        self.places: dict[Pair, array[int]] = {}  # where a pair stands, or once stood
        for place in range(len(self.chain.symbols)):
            self.appears(place)
        self.queue = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(self.queue)

    def appears(self, place: int) -> Pair | None:
        pair = self.chain.pair(place)
        if pair is not None:
            self.counts[pair] = self.counts.get(pair, 0) + self.weight[place]
            self.places.setdefault(pair, array("q")).append(place)
        return pair

    def vanishes(self, place: int) -> None:
        pair = self.chain.pair(place)
        if pair is not None:
            self.counts[pair] -= self.weight[place]

    def pop_most_frequent(self, min_count: int) -> Pair | None:
        """The pair to merge next, taken from the queue; None if all are rarer than min_count."""
        while self.queue:
            count, pair = heapq.heappop(self.queue)
            now = self.counts[pair]
            if now == -count:
                return pair if now >= min_count else None
            if now > 0:  # it has become rarer since it was queued
                heapq.heappush(self.queue, (-now, pair))
        return None

    def merge(self, pair: Pair) -> None:
        """Join the pair wherever it stands and queue the pairs that this makes."""
        chain, joined = self.chain, "".join(pair)
        made: set[Pair] = set()
        for place in sorted(self.places.pop(pair)):  # from left to right, as in encoding
            if chain.pair(place) != pair:
                continue
            before = chain.left[place]
            for neighbour in (before, place, chain.right[place]):
                if neighbour != NOBODY:
                    self.vanishes(neighbour)
            chain.join(place, joined)
            for neighbour in (before, place):
                if neighbour != NOBODY and (new := self.appears(neighbour)):
                    made.add(new)
        for new in made:
            heapq.heappush(self.queue, (-self.counts[new], new))
