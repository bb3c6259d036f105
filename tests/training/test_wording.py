"""Captions made of names and keywords."""

from collections import Counter

import numpy as np
import pytest

from miniclip.training.wording import FORMS, Named, Wording, choose

DOG = Named(
    {"en": "dog", "zh": "狗"}, {"en": ("pet", "animal", "bark", "tail", "paw"), "zh": ("宠物",)}
)


def captions(wording, named=DOG, count=2000):
    return [wording.caption(named, np.random.default_rng([1, n])) for n in range(count)]


def kind(caption):
    words = caption.split(", ")
    has_name = "dog" in words[0] or "狗" in words[0]
    return "name" if has_name and len(words) == 1 else "both" if has_name else "keywords"


def test_languages_and_forms_come_as_often_as_they_should():
    some = captions(Wording({"en": 3.0, "zh": 1.0}, name=0.5, both=0.3, keywords=0.2))
    chinese = np.mean([not caption.isascii() for caption in some])
    assert abs(chinese - 0.25) < 0.03
    forms = Counter(map(kind, some))
    for form, share in zip(FORMS, (0.5, 0.3, 0.2), strict=True):
        assert abs(forms[form] / len(some) - share) < 0.04, form


def test_keywords_are_one_to_four_different_ones_after_the_name():
    both = [c.split(", ") for c in captions(Wording(name=0, both=1, keywords=0))]
    assert {len(words) for words in both} == {2, 3, 4, 5}
    assert all(words[0] == "dog" and len(set(words)) == len(words) for words in both)
    alone = [c.split(", ") for c in captions(Wording(name=0, both=0, keywords=1))]
    assert {len(words) for words in alone} == {1, 2, 3, 4}
    assert {word for words in alone for word in words} == {*DOG.keywords["en"]}


def test_templates_are_for_the_name_alone():
    wording = Wording(both=0, keywords=0, templates={"en": ("a {}", "the {} here")})
    assert set(captions(wording, count=60)) == {"a dog", "the dog here"}
    chinese = Wording({"zh": 1.0}, both=0, keywords=0, templates={"en": ("a {}",)})
    assert set(captions(chinese, count=20)) == {"狗"}
    both = Wording(name=0, both=1, keywords=0, templates={"en": ("a {}",)})
    assert all(c.startswith("dog, ") for c in captions(both, count=20))


def test_a_picture_without_keywords_or_without_the_language_has_its_name():
    assert set(captions(Wording(name=0, both=1), Named({"en": "cat"}, {}), 20)) == {"cat"}
    assert set(captions(Wording({"de": 1.0}), Named({"zh": "猫"}, {}), 20)) == {"猫"}
    assert set(captions(Wording({"zh": 1.0, "en": 0.0}), Named({"en": "cat"}, {}), 20)) == {"cat"}


def test_choosing():
    rng = np.random.default_rng(0)
    counts = Counter(choose(rng, {"a": 1, "b": 0, "c": 3}) for _ in range(2000))
    assert set(counts) == {"a", "c"}
    assert abs(counts["c"] / 2000 - 0.75) < 0.03
    assert choose(rng, {"a": 0.0}) is None
    assert choose(rng, {}) is None


def test_what_a_vocabulary_is_learned_from():
    named = Named.of({"en": "dog", "zh": "狗"}, {"en": ["pet", "tail"]})
    assert list(named.texts()) == ["dog", "狗", "pet", "tail"]
    assert Named.of({"en": "dog"}, None).keywords == {}
    exported = Named.of({"en": "dog", "zh": None}, {"en": None, "zh": ["宠物"]})
    assert exported == Named({"en": "dog"}, {"zh": ("宠物",)})


def test_the_texts_that_captions_are_made_of():
    wording = Wording({"en": 1.0, "zh": 0.0}, templates={"en": ("{}", "a {}")})
    assert list(wording.texts(DOG)) == ["dog", "a dog", *DOG.keywords["en"]]
    assert list(wording.texts(Named({"zh": "狗"}, {}))) == ["狗"]  # all that can be said


@pytest.mark.parametrize(
    ("names", "keywords", "message"),
    [
        ("dog", None, "the names are no object"),
        ({}, None, "the names are no object"),
        ({"en": " "}, None, "the names are no object"),
        ({"en": 3}, None, "the names are no object"),
        ({"en": "dog"}, ["pet"], "the keywords are no object"),
        ({"en": "dog"}, {"en": "pet"}, "the keywords are no object"),
        ({"en": "dog"}, {"en": ["pet", ""]}, "the keywords are no object"),
    ],
)
def test_wrong_words_of_a_table(names, keywords, message):
    with pytest.raises(ValueError, match=message):
        Named.of(names, keywords)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": -1}, "name: got -1, expected a number from 0 on"),
        ({"both": float("inf")}, "both: got inf"),
        ({"keywords": True}, "keywords: got True"),
        ({"name": 0, "both": 0, "keywords": 0}, "name: got no weight above 0"),
        ({"languages": {"en": 0}}, "languages: got no weight above 0"),
        ({"languages": ["en"]}, "languages: got .*, expected one entry a language"),
        ({"templates": ["a {}"]}, "templates: got .*, expected one entry a language"),
        ({"templates": {"en": "a {}"}}, "templates.en: got 'a {}', expected a list"),
        ({"languages": {"en": "much"}}, "languages.en: got 'much'"),
        ({"templates": {"en": ["a dog"]}}, r"templates.en: got \['a dog'\], expected a list"),
    ],
)
def test_wrong_settings(values, message):
    with pytest.raises(ValueError, match=message):
        Wording(**values)


def test_settings_from_a_file():
    wording = Wording(name=1.0, templates={"en": ["a {}"]})
    assert wording.templates == {"en": ("a {}",)}
    assert wording.both == 0.2
