"""A seed gives the scene, words and picture that it always gave; wrong worlds are refused."""

import json

import numpy as np
import pytest
from stored_world import FOLDER, described, scenes, thumbnail, words

from miniclip.world.captions import (
    ZH_COLOURS,
    ZH_NUMBERS,
    ZH_SHAPES,
    ZH_SIDES,
    ZH_TEXTURES,
    caption,
    name_count,
    name_pair,
    name_relation,
    with_article,
)
from miniclip.world.drawing import draw_array, draw_scene
from miniclip.world.scenes import (
    COLOURS,
    HELD_OUT,
    KINDS,
    RELATIONS,
    SEEN,
    SHAPES,
    TEXTURES,
    TRAINING_WORLD,
    Scene,
    Thing,
    World,
    make_scene,
    relation_of,
    single_world,
)

STORED = json.loads((FOLDER / "stored.json").read_text(encoding="utf-8"))
ALL = dict(scenes())


def test_the_same_scenes_are_stored():
    assert list(STORED) == list(ALL)
    assert {scene.kind for scene in ALL.values()} == set(KINDS)


@pytest.mark.parametrize("name", ALL)
def test_a_scene_is_what_it_was(name):
    stored = STORED[name]["scene"]
    now = described(ALL[name])
    things, stored_things = now.pop("things"), stored.pop("things")
    assert now == stored
    assert len(things) == len(stored_things)
    for thing, before in zip(things, stored_things, strict=True):
        assert thing == pytest.approx(before)


@pytest.mark.parametrize("name", ALL)
def test_the_words_are_what_they_were(name):
    assert [*words(ALL[name]).values()] == [*STORED[name]["words"].values()]


def test_pictures_are_what_they_were():
    """To a shade of a pixel or two: another Pillow may round an edge otherwise."""
    with np.load(FOLDER / "stored.npz") as stored:
        for name, scene in ALL.items():
            gap = np.abs(thumbnail(scene).astype(float) - stored[name])
            assert gap.mean() < 0.1, name
            assert gap.max() < 8, name


@pytest.mark.parametrize("size", [48, 96])
def test_a_size_shows_the_same_scene(size):
    """Shrunk to one size, pictures of several sizes are alike but for noise and edges."""
    for scene in list(ALL.values())[-15:]:
        small = np.asarray(draw_scene(scene, size).resize((16, 16), 4), np.float32)
        usual = np.asarray(draw_scene(scene).resize((16, 16), 4), np.float32)
        assert draw_array(scene, size).shape == (size, size, 3)
        assert np.abs(small - usual).mean() < 4  # of other scenes: 20 and more


# What the grammar says, in sentences written by hand.
RED = Thing("circle", "red", "striped", 0.3, 0.3, 0.1)
ORANGE = Thing("cross", "orange", "solid", 0.7, 0.4, 0.1)


WITH_ARTICLE = ("{}", "a picture of {}", "a photo of {}", "a drawing of {}", "there is {}")
WORDINGS = {
    "en": {"a cross that is orange", "the cross is orange"}
    | {text.format("an orange cross") for text in WITH_ARTICLE}
    | {text.format("a solid orange cross") for text in WITH_ARTICLE}
    | {"orange cross", "solid orange cross", "one orange cross", "one solid orange cross"},
    "zh": {"这个十字是橙色的"}
    | {text.format("橙色的十字") for text in ("一个{}", "{}", "图中有一个{}", "这是一个{}")}
    | {text.format("实心的橙色十字") for text in ("一个{}", "{}", "图中有一个{}", "这是一个{}")},
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (name_pair("orange", "star"), "an orange star"),
        (name_pair("red", "circle"), "a red circle"),
        (name_pair("red", "circle", "zh"), "一个红色的圆形"),
        (name_count(ORANGE, 3, "en"), "three orange crosses"),
        (name_count(ORANGE, 1, "en"), "one orange cross"),
        (name_count(RED, 2, "en", textured=True), "two striped red circles"),
        (name_count(RED, 2, "zh", textured=True), "两个带条纹的红色圆形"),
        (name_count(RED, 3, "zh"), "三个红色的圆形"),
        (name_relation(RED, "left", ORANGE, "en"), "a red circle to the left of an orange cross"),
        (name_relation(RED, "left", ORANGE, "en", 1), "a red circle left of an orange cross"),
        (name_relation(RED, "above", ORANGE, "zh"), "红色的圆形在橙色的十字的上面"),
        (with_article("arrow"), "an arrow"),
    ],
)
def test_the_grammar(said, expected):
    assert said == expected


def test_every_word_has_a_translation_of_its_own():
    for words_of, english in [
        (ZH_COLOURS, COLOURS),
        (ZH_SHAPES, SHAPES),
        (ZH_TEXTURES, TEXTURES),
        (ZH_SIDES, RELATIONS),
    ]:
        assert set(words_of) == set(english)
        assert len(set(words_of.values())) == len(english)
    assert list(ZH_NUMBERS) == [1, 2, 3]


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match=r"^language: got 'de', expected one of en, zh$"):
        caption(ALL["training 0"], np.random.default_rng(0), "de")


def test_every_sentence_about_a_single_thing():
    """Each of the wordings, of a thing whose article differs from its shape's."""
    scene = Scene("single", (ORANGE,), "plain", "flat", (0, 0))
    for language, sentences in WORDINGS.items():
        said = {caption(scene, np.random.default_rng(i), language) for i in range(300)}
        assert said == sentences


def test_relations_at_the_diagonal_are_up_and_down():
    def at(x, y):
        return Thing("circle", "red", "solid", x, y, 0.1)

    assert relation_of(at(0.25, 0.25), at(0.5, 0.5)) == "above"
    assert relation_of(at(0.5, 0.75), at(0.25, 0.5)) == "below"
    assert relation_of(at(0.5, 0.3), at(0.25, 0.5)) == "right"
    assert relation_of(at(0.2, 0.7), at(0.5, 0.5)) == "left"


def test_a_fifth_is_held_out_and_every_word_is_seen():
    assert len(HELD_OUT) == 24
    assert len(SEEN) == 96
    assert not set(HELD_OUT) & set(SEEN)
    assert {colour for colour, _ in SEEN} == set(COLOURS)
    for shape in SHAPES:
        assert [s for _, s in HELD_OUT].count(shape) == 2
    assert ("red", "circle") in HELD_OUT
    assert TRAINING_WORLD.pairs == SEEN


WRONG_WORLDS = [
    ({"pairs": ()}, "pairs: got ()"),
    ({"pairs": (("red", "circle"), ("red", "rabbit"))}, "pairs: got (("),
    ({"mix": (0.5, 0.5)}, "mix: got (0.5, 0.5)"),
    ({"mix": (0.5, 0.25, 0.25)}, "mix: got (0.5"),
    ({"mix": (1.5, -0.5, 0.0, 0.0)}, "mix: got (1.5"),
    ({"mix": (0.5, 0.2, 0.2, 0.2)}, "mix: got (0.5"),
    ({"mix": (0.3, 0.2, 0.2, 0.2)}, "mix: got (0.3"),
    ({"style": "oil"}, "style: got 'oil', expected one of flat, sketch"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_WORLDS)
def test_wrong_worlds_are_refused(fields, message):
    with pytest.raises(ValueError) as error:
        World(**fields)
    assert str(error.value).startswith(message)


def test_a_world_without_enough_pairs_says_so():
    world = World(pairs=(("red", "star"), ("red", "heart")), mix=(0, 0, 1, 0))
    with pytest.raises(ValueError, match="expected 2 that share nothing"):
        make_scene(world, 0, 0)


def test_each_kind_comes_as_often_as_the_mix_says():
    counts = dict.fromkeys(KINDS, 0)
    world = World(mix=(0.1, 0.2, 0.3, 0.4))
    for number in range(2000):
        counts[make_scene(world, 9, number).kind] += 1
    for kind, share in zip(KINDS, world.mix, strict=True):
        assert counts[kind] / 2000 == pytest.approx(share, abs=0.04)
    assert {make_scene(single_world(), 9, n).kind for n in range(50)} == {"single"}


def test_the_colours():
    """By the RGB that the drawings scatter around: as the models learned them."""
    assert list(COLOURS.values()) == [
        (214, 39, 40), (255, 140, 20), (240, 215, 40), (45, 160, 60), (40, 200, 210),
        (40, 70, 210), (130, 50, 170), (245, 130, 185), (125, 75, 35), (30, 30, 30),
    ]  # fmt: skip


def test_things_of_a_scene_stay_in_the_picture_and_apart():
    for number in range(400):
        scene = make_scene(TRAINING_WORLD, 10, number)
        for i, a in enumerate(scene.things):
            assert a.radius <= min(a.x, a.y) + 1e-9
            assert max(a.x, a.y) <= 1 - a.radius + 1e-9
            for b in scene.things[:i]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) > a.radius + b.radius - 0.02
                if scene.kind == "count":
                    assert (a.pair, a.texture) == (b.pair, b.texture)
                else:
                    assert a.colour != b.colour
                    assert a.shape != b.shape


def test_a_box_is_a_square_around_the_thing():
    assert RED.box(100) == pytest.approx((20, 20, 40, 40))
    assert Thing("star", "red", "solid", 0.5, 0.25, 0.125).box(64) == (24, 8, 40, 24)


def test_a_thing_turns_counter_clockwise():
    """An arrow points right; a quarter turn to the left, it points up."""
    arrow = Thing("arrow", "black", "solid", 0.5, 0.5, 0.4, angle=90.0)
    scene = Scene("single", (arrow,), "plain", "flat", (1, 1))
    dark = draw_array(scene).sum(axis=2) < 300
    rows = dark.sum(axis=1)
    upper, lower = rows[:32].sum(), rows[32:].sum()
    assert upper > 1.2 * lower  # the head is above
    assert dark[:, :32].sum() == pytest.approx(dark[:, 32:].sum(), rel=0.05)
