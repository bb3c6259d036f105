"""Captions made of names and keywords, in several languages: the same thing in other words.

A table may say what a picture shows by `names` and `keywords`, both by language:

    {"image": "1.png", "names": {"en": "dog", "zh": "狗"}, "keywords": {"en": ["pet"]}, ...}

A model that only ever reads "dog" learns the word as one more number; one that also reads "dog,
pet, animal" and 狗 learns words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniclip.training.recipe import is_number

FORMS = ("name", "both", "keywords")
MOST_KEYWORDS = 4  # of a caption


@dataclass(frozen=True, slots=True)
class Named:
    """What a picture shows. names: language -> name. keywords: language -> further words."""

    names: Mapping[str, str]
    keywords: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, names: Any, keywords: Any) -> Named:
        """From a table's values. ValueError saying what is wrong with them."""
        names, keywords = without_empty(names), without_empty({} if keywords is None else keywords)
        if not is_texts(names) or not names:
            raise ValueError('the names are no object such as {"en": "dog"}')
        if not isinstance(keywords, dict) or not all(is_list(words) for words in keywords.values()):
            raise ValueError('the keywords are no object such as {"en": ["pet", "animal"]}')
        several = {language: tuple(words) for language, words in keywords.items()}
        return cls(names, several)

    def texts(self) -> Iterator[str]:
        """Every name and keyword."""
        yield from self.names.values()
        for words in self.keywords.values():
            yield from words


def without_empty(value: Any) -> Any:
    """An object without the languages that have nothing, as some programs write them."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def is_texts(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return all(isinstance(k, str) and isinstance(v, str) and v.strip() for k, v in value.items())


def is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value)


@dataclass(frozen=True)
class Wording:
    """How often a caption is what.

    languages: language -> how often, beside the others. name, both, keywords: how often a caption
    is the name in a template, the name and some keywords, some keywords alone. templates: language
    -> sentences with {} for the name; of a language without any, the name alone.
    Raises ValueError naming the field.
    """

    languages: Mapping[str, float] = field(default_factory=lambda: {"en": 1.0})
    name: float = 0.6
    both: float = 0.2
    keywords: float = 0.2
    templates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for form in FORMS:
            check_weight(form, getattr(self, form))
        for name in ("languages", "templates"):
            if not isinstance(getattr(self, name), Mapping):
                got = getattr(self, name)
                raise ValueError(f"{name}: got {got!r}, expected one entry a language")
        for language, weight in self.languages.items():
            check_weight(f"languages.{language}", weight)
        if not sum(self.languages.values()) > 0:
            raise ValueError("languages: got no weight above 0, expected one at least")
        if not self.name + self.both + self.keywords > 0:
            raise ValueError("name: got no weight above 0 for name, both and keywords")
        for language, sentences in self.templates.items():
            several = isinstance(sentences, list | tuple)
            if not several or not all(isinstance(s, str) and "{}" in s for s in sentences):
                raise ValueError(
                    f"templates.{language}: got {sentences!r}, expected a list, each with {{}}"
                )
        object.__setattr__(self, "templates", {k: tuple(v) for k, v in self.templates.items()})

    def texts(self, named: Named) -> Iterator[str]:
        """Every text that captions of a picture may be made of."""
        for language, name in named.names.items():
            if self.languages.get(language, 0) > 0 or len(named.names) == 1:
                sentences = self.templates.get(language) or ("{}",)
                yield from (sentence.replace("{}", name) for sentence in sentences)
                yield from named.keywords.get(language, ())

    def caption(self, named: Named, rng: np.random.Generator) -> str:
        """One caption. A language that this picture has no name in is never chosen."""
        language = choose(rng, {k: w for k, w in self.languages.items() if k in named.names})
        if language is None:
            language = next(iter(named.names))
        words = named.keywords.get(language, ())
        form = choose(rng, {form: getattr(self, form) for form in FORMS}) if words else "name"
        if form == "name":
            sentences = self.templates.get(language) or ("{}",)
            return sentences[rng.integers(len(sentences))].replace("{}", named.names[language])
        count = int(rng.integers(1, min(MOST_KEYWORDS, len(words)) + 1))
        chosen = [words[i] for i in rng.permutation(len(words))[:count]]
        return ", ".join([named.names[language], *chosen] if form == "both" else chosen)


def check_weight(name: str, value: Any) -> None:
    if not is_number(value) or value < 0:
        raise ValueError(f"{name}: got {value!r}, expected a number from 0 on")


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str | None:
    """One of the keys, as often as its weight says; None if no weight is above 0."""
    total = sum(weights.values())
    if total <= 0:
        return None
    place = rng.random() * total
    for key, weight in weights.items():
        place -= weight
        if place < 0:
            return key
    return list(weights)[-1]
