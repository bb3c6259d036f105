"""The questions of `evaluate` as they are put, and what is counted; own pictures as they read."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from fake_models import Fake, truth

from miniclip.tasks.own_pictures import OwnEvaluation, OwnScore
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import (
    COLOUR_SHAPE_PAIRS,
    HELD_OUT,
    SEEN,
    TRAINING_WORLD,
    Scene,
    Thing,
    World,
    make_scene,
    single_world,
)

module = importlib.import_module("miniclip.tasks.evaluate")  # not a function of that name
RED = Thing("circle", "red", "striped", 0.2, 0.3, 0.1)
BLUE = Thing("square", "blue", "solid", 0.8, 0.4, 0.1)


def scene(*things, kind="relation"):
    return Scene(kind, things, "plain", "flat", (0, 0))


def test_the_documented_questions():
    smallest = TRAINING_WORLD.radius[0]
    assert module.EVALUATION_SEED == 1_000_003
    assert {
        "seen": single_world(SEEN), "held-out": single_world(HELD_OUT)
    } == module.SINGLE_WORLDS  # fmt: skip
    assert World(mix=(1 / 3, 2 / 3, 0, 0), radius=(smallest, smallest)) == module.COUNT_WORLD
    assert World(mix=(0, 0, 1, 0)) == module.RELATION_WORLD
    assert list(module.GROUPS) == ["texture", "size", "colour", "shape", "number", "relation"]
    assert module.GROUPS["number"] == ("one", "two", "three")
    assert [len(groups) for groups in module.GROUPS.values()] == [4, 3, 10, 12, 3, 4]


def test_statements_word_by_word():
    pair = scene(RED, BLUE)
    assert module.count_statements(scene(RED, RED, kind="count"), "en") == [
        "one red circle", "two red circles", "three red circles"
    ]  # fmt: skip
    assert module.relation_statements(pair, "en") == [
        "a red circle above a blue square", "a red circle below a blue square",
        "a red circle to the left of a blue square", "a red circle to the right of a blue square",
    ]  # fmt: skip
    assert module.binding_statements(pair, "en") == [
        "a red circle to the left of a blue square", "a blue square to the left of a red circle"
    ]  # fmt: skip


def test_the_best_alone_is_chosen():
    cosine = np.array([[0.1, 0.3, 0.2], [0.5, 0.5, 0.1], [0.9, -1, 0.8], [0.0, 0.1, 0.1]])
    assert module.choose(cosine).tolist() == [1, -1, 0, -1]
    images, names = np.eye(3), np.zeros((120, 3))
    names[[5, 7], [0, 1]] = 1
    assert module.answer_pairs(images, names) == [
        COLOUR_SHAPE_PAIRS[5], COLOUR_SHAPE_PAIRS[7], ("", "")
    ]  # fmt: skip


def test_each_picture_is_asked_its_own_statements():
    """And each statement is read once."""
    asked = []
    vectors = {"a": [1.0, 0], "b": [0, 1], "c": [0.5, 2]}

    def encode_text(texts, **options):
        asked.append((list(texts), options))
        return np.array([vectors[text] for text in texts])

    images = np.array([[1.0, 2.0], [3.0, 5.0]])
    model = SimpleNamespace(encode_text=encode_text)
    cosine = module.ask(model, images, [["b", "a", "c"], ["a", "c", "a"]])
    assert cosine.tolist() == [[2, 1, 4.5], [3, 11.5, 3]]
    assert asked == [(["b", "a", "c"], {"normalize": True, "progress": False})]


def test_all_pairs_are_named_in_one_language():
    asked = []
    model = SimpleNamespace(
        encode_text=lambda texts, **options: asked.append(list(texts)) or np.ones((len(texts), 2))
    )
    module.embed_pairs(model, "zh")
    module.embed_pairs(model)
    assert [names[0] for names in asked] == ["一个红色的圆形", "a red circle"]
    assert [len(names) for names in asked] == [120, 120]


def test_pictures_are_drawn_when_their_turn_comes():
    drawn = []

    def encode_image(images, normalize=False, progress=None):
        assert (normalize, progress) == (True, False)
        assert drawn == []
        return np.array([[float(image), 1.0] for image in images])

    model = SimpleNamespace(encode_image=encode_image)
    found = module.embed_scenes(model, [3, 4], lambda scene: drawn.append(scene) or scene)
    assert (found.tolist(), drawn) == ([[3, 1], [4, 1]], [3, 4])
    scenes = module.make_scenes(module.RELATION_WORLD, 3, 8)
    assert scenes == [make_scene(module.RELATION_WORLD, 8, n) for n in range(3)]


@pytest.mark.parametrize(
    ("what", "features", "bad"),
    [("pictures", [[1.0, np.nan], [np.inf, 0], [1, 2]], "2 of 3"), ("texts", [[np.nan]], "1 of 1")],
)
def test_embeddings_are_numbers(what, features, bad):
    with pytest.raises(ValueError) as error:
        module.check_finite(what, np.array(features))
    assert str(error.value) == f"model: the embeddings of {bad} {what} are not numbers"
    assert module.check_finite(what, np.ones((2, 2))) is None


def test_answers_are_counted_by_group():
    groups = {"size": ["small", "large", "small", "large"], "number": ["two"] * 4}
    scores = module.tally([True, False, False, True], "count", "zh", "seen", groups)
    assert [(s.group, s.right, s.total) for s in scores] == [
        ("all", 2, 4), ("size small", 1, 2), ("size large", 1, 2), ("number two", 2, 4)
    ]  # fmt: skip
    assert {(s.question, s.language, s.pairs) for s in scores} == {("count", "zh", "seen")}
    assert len(module.tally(np.array([True]), "pair", "en", "held-out")) == 1
    assert [s.right for s in module.tally([], "pair", "en", "seen")] == [0]


@pytest.mark.parametrize(
    ("share", "size"),
    [(-1, "small"), (0, "small"), (0.33, "small"), (0.34, "middle"), (0.66, "middle"),
     (0.67, "large"), (1, "large"), (2, "large")],
)  # fmt: skip
def test_sizes_are_thirds(share, size):
    low, high = TRAINING_WORLD.radius
    thing = Thing("circle", "red", "solid", 0.5, 0.5, low + share * (high - low))
    assert module.size_of(thing) == size


def test_the_whole_is_four_kinds_of_scenes(monkeypatch):
    """In the order of the table, with the languages asked for; 1200 scenes of the usual seed."""
    asked = []

    def scored(name):
        def score(pipeline, scenes, *rest):
            asked.append((name, scenes, *rest))
            return [name]

        return score

    worlds = [single_world(SEEN), single_world(HELD_OUT), module.COUNT_WORLD, module.RELATION_WORLD]
    monkeypatch.setattr(module, "make_scenes", lambda w, n, seed: (worlds.index(w), n, seed))
    for name in ("score_pairs", "score_counts", "score_relations"):
        monkeypatch.setattr(module, name, scored(name))
    model = SimpleNamespace(name="toy")
    for arguments, count, seed, languages in [
        ((), 1200, 1_000_003, ("en", "zh")), ((5, 6, ["zh"]), 5, 6, ["zh"])
    ]:  # fmt: skip
        asked.clear()
        result = module.evaluate(model, *arguments)
        assert (result.model, result.count, result.seed) == ("toy", count, seed)
        assert result.scores == ("score_pairs",) * 2 + ("score_counts", "score_relations")
        assert asked == [
            ("score_pairs", (0, count, seed), "seen", languages),
            ("score_pairs", (1, count, seed), "held-out", languages),
            ("score_counts", (2, count, seed), languages),
            ("score_relations", (3, count, seed), languages),
        ]
    with pytest.raises(ValueError, match=r"^languages: got \['en', 'fr'\], expected some of \['en"):
        module.evaluate(model, 5, languages=["en", "fr"])
    with pytest.raises(ValueError, match=r"^count: got 1, expected a whole number, at least 2$"):
        module.check_count(1, 2)
    assert module.check_count(1) is None


def test_groups_are_counted_in_english_for_pairs_and_in_all_languages_elsewhere():
    scenes = [make_scene(single_world(SEEN), 3, n) for n in range(5)]
    fake = Fake(scenes, truth)
    scores = module.score_pairs(fake, scenes, "seen", ["en", "zh"])
    assert {s.language for s in scores if s.group != "all"} == {"en"}
    assert {s.question for s in scores if s.group != "all"} == {"pair"}
    assert [(s.question, s.language) for s in scores if s.group == "all"] == [
        (question, language)
        for language in ("en", "zh")
        for question in ("pair", "colour", "shape")
    ]  # fmt: skip
    pairs = [make_scene(module.RELATION_WORLD, 3, n) for n in range(4)]
    scores = module.score_relations(Fake(pairs, truth, draw_scene), pairs, ["zh", "en"])
    whole = [(s.question, s.language, s.right) for s in scores if s.group == "all"]
    assert whole == [("relation", "zh", 4), ("binding", "zh", 4), ("relation", "en", 4),
                     ("binding", "en", 4)]  # fmt: skip
    assert {s.question for s in scores if s.group != "all"} == {"relation"}


# ------------------------------------------------------------------------ own pictures


def own(**changes):
    scores = (
        OwnScore("class", 1, 3, 4, 5, 0.2), OwnScore("class", 5, 4, 4, 9, 0.75),
        OwnScore("text to image", 10, 1, 8, 1234, 0.01),
    )  # fmt: skip
    given = {"model": "toy", "source": "cats.csv", "held_out": False, "pictures": 1204, "broken": 0}
    return OwnEvaluation(**{**given, "scores": scores, **changes})


def test_own_pictures_as_text():
    first, empty, headings, *_, last = own().as_text().splitlines()
    assert (first, empty) == ("1,204 pictures of cats.csv", "")
    assert headings.split() == ["question", "right", "95", "%", "chance", "choices", "asked"]
    assert last.split("  ")[0] == "text to image, R@10"
    assert last.split()[-3:] == ["1.0%", "1234", "8"]
    lines = own(held_out=True, broken=2).as_markdown().splitlines()
    assert lines == [
        "1,204 pictures held out of cats.csv, 2 broken ones left out", "",
        "| question | right | 95 % | chance | choices | asked |",
        "| :-- | --: | --: | --: | --: | --: |",
        "| accuracy | 75.0% | 30.1% to 95.4% | 20.0% | 5 | 4 |",
        "| accuracy, first 5 | 100.0% | 51.0% to 100.0% | 75.0% | 9 | 4 |",
        "| text to image, R@10 | 12.5% | 2.2% to 47.1% | 1.0% | 1234 | 8 |",
    ]  # fmt: skip


def test_own_pictures_as_data():
    data = own(broken=2).as_dict()
    first = data.pop("scores")[0]
    assert data == {
        "model": "toy", "source": "cats.csv", "held_out": False, "pictures": 1204, "broken": 2
    }  # fmt: skip
    assert first == {
        "question": "class", "among": 1, "right": 3, "total": 4, "choices": 5, "chance": 0.2,
        "share": 0.75, "low": pytest.approx(0.3006, abs=1e-4),
        "high": pytest.approx(0.9544, abs=1e-4),
    }  # fmt: skip
    assert own().find("class") is not own().find("class", 5)
    assert own().find("text to image", 10).total == 8
    with pytest.raises(KeyError) as error:
        own().find("text to image")
    assert error.value.args == ("no score for text to image, 1",)
