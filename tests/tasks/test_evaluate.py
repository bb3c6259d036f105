"""Zero-shot on drawn scenes: a model that knows the truth scores 1, one that guesses scores chance.

The models here are fakes: a picture's embedding is the sum of the vectors of the statements that
the fake holds true of it. They know pictures by their pixels, so that a question about the wrong
picture, or with the wrong names, costs them points.
"""

import importlib
import json
import math

import numpy as np
import pytest
from fake_models import COUNT, SEED, Fake, scenes_of, seen_from, truth, vector
from pipelines import scene_pipeline
from task_checks import LARGEST, SMALLEST, asked, check_evaluate

from miniclip.tasks.evaluation_result import CHANCE, wilson_interval
from miniclip.world.captions import LANGUAGES, NUMBERS, name_pair, name_relation
from miniclip.world.scenes import (
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    is_held_out,
    relation_of,
)

module = importlib.import_module("miniclip.tasks.evaluate")  # not a function of that name


def test_who_knows_the_truth_is_always_right():
    check_evaluate(module)
    result = module.evaluate(Fake(asked(), truth), COUNT, SEED)
    for question in ("pair", "colour", "shape"):
        for pairs in ("seen", "held-out"):
            for language in LANGUAGES:
                assert result.find(question, language, pairs).total == COUNT
    assert {s.question for s in result.scores} == set(CHANCE)
    assert not any(is_held_out(*s.things[0].pair) for s in asked()[:COUNT])
    assert all(is_held_out(*s.things[0].pair) for s in asked()[COUNT : 2 * COUNT])


def test_who_guesses_is_right_by_chance():
    result = module.evaluate(Fake([], truth), 150)
    for score in result.scores:
        if score.group == "all":
            low, high = wilson_interval(score.right, score.total, z=3.7)  # 1 in 5,000
            assert low <= score.chance <= high, score


def test_who_knows_colours_alone_has_no_shapes():
    """All twelve shapes of a colour are the same to him: his guess among them decides."""

    def colours(scene):
        colour = scene.things[0].colour
        return [name_pair(colour, shape, language) for shape in SHAPES for language in LANGUAGES]

    result = module.evaluate(Fake(asked(300), colours), 300)
    for pairs in ("seen", "held-out"):
        assert result.find("colour", pairs=pairs).share == 1
        for question in ("shape", "pair"):
            score = result.find(question, pairs=pairs)
            low, high = wilson_interval(score.right, score.total, z=3.7)
            assert low <= 1 / 12 <= high, score


def test_a_bag_of_words_cannot_bind():
    """Who adds up words knows the relation's word, but not which thing it is said of."""

    def bag(text):
        return sum(vector(word) for word in text.split())

    result = module.evaluate(Fake(asked(), truth, text_vector=bag), COUNT, SEED, ["en"])
    assert result.find("relation").share == 1
    assert result.find("binding").share < 0.75


def test_who_says_the_same_of_everything_is_never_right():
    """A tie is no answer; else the statement that stands first would win every time."""

    class Collapsed(Fake):
        def encode_image(self, images, normalize=False, progress=None):
            return np.eye(1, 8).repeat(len(list(images)), axis=0)

        def encode_text(self, texts, normalize=False, truncate=False, progress=None):
            return np.eye(1, 8).repeat(len(texts), axis=0)

    result = module.evaluate(Collapsed([], truth), 20)
    assert {score.right for score in result.scores} == {0}
    np.testing.assert_array_equal(module.choose(np.array([[1, 2, 2], [3, 2, 2]])), [-1, 0])


def test_who_always_chooses_the_same_place_is_right_by_chance(monkeypatch):
    """Of two statements that differ by rounding alone, the true one is as often the second."""
    monkeypatch.setattr(module, "choose", lambda cosine: np.zeros(len(cosine), int))
    result = module.evaluate(Fake(asked(), truth), COUNT, SEED)
    assert result.find("binding").share == result.find("binding", "zh").share == 0.5


def swapped(text):
    for side in ("above", "below", "to the left of", "to the right of"):
        a, between, b = text.partition(f" {side} ")
        if between:
            return b + between + a
    return text


def test_exactly_one_statement_is_true():
    for scene in asked()[3 * COUNT :]:
        a, b = scene.things
        for language in LANGUAGES:
            true = name_relation(a, seen_from(a, b), b, language)
            four = module.relation_statements(scene, language)
            assert [true == statement for statement in four].count(True) == 1
            assert len(set(four)) == len(RELATIONS) == 4
            # "b above a" is false where "a above b" is true, whoever looks
            first, second = module.binding_statements(scene, language)
            assert first == true != second
            assert second == name_relation(b, seen_from(a, b), a, language)
            assert seen_from(b, a) != seen_from(a, b)
        assert (
            swapped(module.binding_statements(scene, "en")[0])
            == (module.binding_statements(scene, "en")[1])
        )
    for scene in asked()[2 * COUNT : 3 * COUNT]:
        three = module.count_statements(scene, "en")
        assert [text.split()[0] for text in three] == ["one", "two", "three"]
        assert truth(scene)[-2 if scene.kind == "count" else 1] in three


def test_size_does_not_give_the_number_away():
    """One, two and three are equally frequent, and one thing is as small as training draws it."""
    scenes = scenes_of(module.COUNT_WORLD, 900)
    numbers = [len(scene.things) for scene in scenes]
    assert all(250 < numbers.count(n) < 350 for n in NUMBERS)
    assert {s.things[0].radius for s in scenes if len(s.things) == 1} == {SMALLEST}


def test_groups_hold_all_scenes_once():
    result = module.evaluate(Fake(asked(), truth), COUNT, SEED)
    for name, groups in module.GROUPS.items():
        question = {"number": "count", "relation": "relation"}.get(name, "pair")
        wanted = {f"{name} {group}" for group in groups}
        parts = [
            s for s in result.scores
            if (s.question, s.language, s.pairs) == (question, "en", "seen") and s.group in wanted
        ]  # fmt: skip
        assert sum(part.total for part in parts) == COUNT, name
    striped = sum(scene.things[0].texture == "striped" for scene in asked()[:COUNT])
    assert result.find("pair", group="texture striped").total == striped


def test_groups_by_what_they_say():
    """Who reads striped things alone is right about these."""
    fake = Fake(asked(), lambda s: truth(s) if s.things[0].texture == "striped" else ["nothing"])
    result = module.evaluate(fake, COUNT, SEED)
    assert result.find("pair", group="texture striped").share == 1
    assert result.find("pair", group="texture solid").share < 0.3
    sizes = [
        module.size_of(Thing("circle", "red", "solid", 0.5, 0.5, SMALLEST + share * span))
        for span in [LARGEST - SMALLEST]
        for share in (-0.5, 0, 0.32, 0.35, 0.65, 0.68, 1)
    ]
    assert sizes == ["small"] * 3 + ["middle"] * 2 + ["large"] * 2


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(8, 10, 0.4901625, 0.9433178), (0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0),
     (5, 10, 0.2365931, 0.7634069), (1, 1, 0.2065493, 1.0)],
)  # fmt: skip
def test_wilsons_interval(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-6)


def test_wilsons_interval_is_what_it_says():
    """At its ends the share is z standard deviations of that end away."""
    z = 1.959963984540054
    for right, total in ((1, 7), (30, 96), (599, 600)):
        for p in wilson_interval(right, total):
            assert abs(right / total - p) == pytest.approx(z * math.sqrt(p * (1 - p) / total))
    for right, total in ((3, 2), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match=f"right: got {right} of {total}, expected"):
            wilson_interval(right, total)


def test_results_are_numbers_by_name_and_tables():
    result = module.evaluate(Fake(asked(), truth), COUNT, SEED)
    data = json.loads(json.dumps(result.as_dict()))
    assert (data["model"], data["count"], data["seed"]) == ("fake", COUNT, SEED)
    assert data["scores"][0] == {
        "question": "pair", "language": "en", "pairs": "seen", "group": "all", "right": COUNT,
        "total": COUNT, "share": 1.0, "low": pytest.approx(60 / (60 + 3.8414588)),
        "high": pytest.approx(1), "chance": 1 / 120,
    }  # fmt: skip
    for table in result.as_markdown().split("\n\n"):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    text = result.as_text()
    assert "held-out" in text
    assert "texture striped" in text
    # every score of a group has a cell of its own
    assert text.count("100.0% of ") == sum(s.group != "all" for s in result.scores)
    with pytest.raises(KeyError, match="no score for pair, fr, seen, all"):
        result.find("pair", "fr")


def test_a_real_model_is_asked():
    """Untrained, so that nothing is expected but numbers, the same each time."""
    pipeline = scene_pipeline()
    result = module.evaluate(pipeline, 12)
    assert result == module.evaluate(pipeline, 12)
    assert result != module.evaluate(pipeline, 12, seed=7)
    assert {s.total for s in result.scores if s.group == "all"} == {12}


@pytest.mark.parametrize("side", ["encode_image", "encode_text"])
def test_embeddings_that_are_no_numbers_are_an_error(side):
    """A NaN compares as neither better nor worse: it would only look like a bad model."""
    fake = Fake(asked(), truth)
    right = getattr(fake, side)
    setattr(fake, side, lambda *given, **more: math.nan * right(*given, **more))
    with pytest.raises(ValueError, match=r"model: the embeddings of \d+ of \d+ .* are not numbers"):
        module.evaluate(fake, 2)


def test_bad_arguments():
    fake = Fake([], truth)
    for count in (0, -1, 1.5, "9"):
        with pytest.raises(ValueError, match=rf"count: got {count!r}, expected a whole number"):
            module.evaluate(fake, count)
    for languages in ([], ["fr"]):
        with pytest.raises(ValueError, match="languages: got"):
            module.evaluate(fake, 5, languages=languages)


def test_the_relation_is_the_packages():
    """`seen_from` above, and `relation_of`: two readings of the same places."""
    scenes = asked()[3 * COUNT :]
    assert all(isinstance(scene, Scene) for scene in scenes)
    assert [relation_of(*s.things) for s in scenes] == [seen_from(*s.things) for s in scenes]
