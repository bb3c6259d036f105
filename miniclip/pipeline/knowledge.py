"""What a model knows: a file beside its weights, written by who trained it.

`knows.json` holds two things: `about`, what the pictures of training were, in a few words, and
`words`, every word of its captions. A model trained on little answers everything else too, and
nothing in its numbers shows it; with this file its answers can say so. Weights of others have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from miniclip.checkpoints.errors import CheckpointError
from miniclip.checkpoints.json_files import read_json
from miniclip.files import write_bytes
from miniclip.inputs.bpe import clean_text, split_words

FILE = "knows.json"


@dataclass(frozen=True)
class Knowledge:
    """about: goes on from "this model knows". words: of the captions, as the tokenizer splits."""

    about: str
    words: frozenset[str]

    @classmethod
    def of(cls, about: str, captions: Iterable[str]) -> Knowledge:
        """What a model knows that was trained on these captions."""
        return cls(about, frozenset(word for text in captions for word in words_of(text)))

    def and_then(self, later: Knowledge) -> Knowledge:
        """The same of a model that was trained on something else afterwards."""
        return Knowledge(f"{self.about}; then {later.about}", self.words | later.words)

    def unseen(self, text: str) -> list[str]:
        """The words of a text that no caption of training had, in their order."""
        return [word for word in dict.fromkeys(words_of(text)) if word not in self.words]

    @classmethod
    def read(cls, folder: Path) -> Knowledge | None:
        """From the file in a checkpoint's folder; None where there is none."""
        if not (folder / FILE).is_file():
            return None
        content = read_json(folder / FILE)
        about, words = content.get("about"), content.get("words")
        if not isinstance(about, str) or not isinstance(words, list):
            raise CheckpointError(f"{folder / FILE}: expected `about`, a text, and a list `words`")
        return cls(about, frozenset(map(str, words)))

    def save(self, folder: Path) -> None:
        """Write the file; read it with `read`."""
        content = {"about": self.about, "words": sorted(self.words)}
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        write_bytes({folder / FILE: text.encode()})


def words_of(text: str) -> list[str]:
    """The words of a text as the tokenizer splits them, without punctuation.

    Chinese and Japanese put no spaces between words: there every character is one.
    """
    words = [word for word in split_words(clean_text(text)) if any(map(str.isalnum, word))]
    return [part for word in words for part in (word if is_without_spaces(word) else [word])]


def is_without_spaces(word: str) -> bool:
    """Whether a run of letters is of a script that writes no spaces (Han, Kana)."""
    return all("\u3040" <= c <= "\u9fff" or c >= "\U00020000" for c in word)
