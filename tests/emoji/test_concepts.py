"""Which things there are, what they are called, and which of them training never sees."""

import json
import os
from pathlib import Path

import pytest
from emoji_packages import CAT, DOG, HEART, LION, characters, write_packages

from miniclip.emoji import concepts as module
from miniclip.emoji.concepts import (
    Concept,
    character_of,
    is_held_out,
    is_variant,
    read_concepts,
)
from miniclip.emoji.packages import PackageError, Packages, unpacked_packages
from miniclip.emoji.sources import NAMES

REAL = os.environ.get("MINICLIP_EMOJI_PACKAGES")  # a folder with the packages of npm, unpacked


@pytest.fixture
def packages(tmp_path):
    return Packages(write_packages(tmp_path))


def test_the_list(packages):
    """Three of four sets decide; no skin tones, no letters of flags, no hair alone."""
    concepts = read_concepts(packages, ["en", "zh"])
    assert [c.character for c in concepts] == ["\u2764", *map(characters, (CAT, DOG, LION))]
    heart, cat, dog, _ = concepts
    assert heart.names == {"en": "red heart", "zh": "红心"}
    assert heart.keywords == {"en": ("love",), "zh": ()}
    assert (heart.code_point, heart.group) == ("2764", "Symbols")
    assert dog.keywords["en"] == ("pet", "animal")
    assert (cat.code_point, cat.group) == (CAT, "Animals")
    assert [c.held_out for c in concepts] == [True, False, False, False]


def test_english_decides_whatever_languages_are_wanted(packages):
    assert [c.names for c in read_concepts(packages, ["zh"])][1] == {"zh": "猫"}


def test_a_thing_without_an_english_name_is_none(tmp_path):
    def change(package, files):
        for name in files:
            if name.endswith("en/annotations.json"):
                content = json.loads(files[name])
                (inner,) = content.values()
                inner["annotations"].pop(characters(CAT), None)
                files[name] = json.dumps(content).encode()

    concepts = read_concepts(Packages(write_packages(tmp_path, change)), ["en"])
    assert characters(CAT) not in [c.character for c in concepts]
    assert len(concepts) == 3


def test_a_language_may_lack_a_few_names_and_not_more(tmp_path, monkeypatch):
    def change(package, files):
        for name in files:
            if name.endswith("zh/annotations.json"):
                content = json.loads(files[name])
                (inner,) = content.values()
                inner["annotations"].pop(characters(DOG), None)
                files[name] = json.dumps(content).encode()

    packages = Packages(write_packages(tmp_path, change))
    with pytest.raises(PackageError, match="languages: zh names 3 of 4 things, too few"):
        read_concepts(packages, ["zh"])
    monkeypatch.setattr(module, "NAMED", 0.75)
    dog = read_concepts(packages, ["en", "zh"])[2]
    assert (dog.names, list(dog.keywords)) == ({"en": "dog"}, ["en"])


def test_a_regional_language_says_what_its_parent_does_not(tmp_path):
    folder = write_packages(tmp_path)
    for package in NAMES:
        key = "annotationsDerived" if "derived" in package.name else "annotations"
        path = folder / package.name / key / "zh-TW" / "annotations.json"
        path.parent.mkdir()
        own = (
            {characters(CAT): {"tts": ["貓"], "default": ["寵物"]}} if key == "annotations" else {}
        )
        path.write_text(json.dumps({key: {"annotations": own}}))
    concepts = read_concepts(Packages(folder), ["zh-TW"])
    assert [c.names["zh-TW"] for c in concepts] == ["红心", "貓", "狗", "狮子"]
    assert concepts[1].keywords["zh-TW"] == ("寵物",)


def test_names_in_another_form_are_told(tmp_path):
    folder = write_packages(tmp_path)
    path = folder / NAMES[0].name / "annotations" / "zh" / "annotations.json"
    path.write_text('{"annotations": {}}')
    with pytest.raises(PackageError, match=r"zh/annotations\.json: has no object 'annotations'"):
        read_concepts(Packages(folder), ["zh"])


def test_an_unknown_language_is_refused(packages):
    with pytest.raises(PackageError, match="languages: got 'xx', which cldr-annotations-full has"):
        read_concepts(packages, ["en", "xx"])


@pytest.mark.parametrize(
    ("character", "variant"),
    [
        ("\U0001f408", False),
        ("\U0001f3fa", False),  # an amphora: the code point before the skin tones
        ("\U0001f3fb", True),
        ("\U0001f44b\U0001f3ff", True),
        ("\U0001f400", False),
        ("\U0001f1e5", False),
        ("\U0001f1e6\U0001f1ff", True),
        ("\U0001f200", False),
        ("\U0001f3f4\U000e0020", True),
        ("\U0001f3f4\U000e007f", True),
        ("\U000e0080", False),
        ("\U0001f9af", False),
        ("\U0001f9b0", True),
        ("\U0001f9b3", True),
        ("\U0001f9b4", False),
        ("\U0001f468\u200d\U0001f9b0", False),  # a man with red hair
    ],
)
def test_variants(character, variant):
    assert is_variant(character) == variant


def test_the_mark_that_asks_for_colour_is_no_part_of_a_character():
    assert character_of(HEART) == "\u2764"
    assert character_of("2764-fe0f-200d-1f525") == "\u2764\u200d\U0001f525"


@pytest.mark.parametrize(
    ("character", "held_out"), [("\u2197", True), ("\U0001f331", True), ("\U0001f408", False)]
)
def test_held_out_things_stay_the_same(character, held_out):
    """Written down when the set was made: another hash would be another benchmark."""
    assert is_held_out(character) == held_out
    assert Concept(character, {}, {}, "").held_out == held_out


@pytest.mark.skipif(REAL is None, reason="MINICLIP_EMOJI_PACKAGES names no folder of packages")
def test_the_real_list():
    concepts = read_concepts(unpacked_packages(Path(REAL)), ["en", "zh"])
    assert len(concepts) == 1652
    assert sum(concept.held_out for concept in concepts) == 169
    for language in ("en", "zh"):
        assert len({concept.names[language] for concept in concepts}) == 1652
    assert all(concept.group for concept in concepts)
