"""Planted bugs in the tasks' graders: models that know the answers show each of them."""

import importlib

import pytest
from planting import is_caught
from task_checks import (
    check_evaluate,
    check_own_pictures,
    check_probe_report,
    check_robustness,
    check_verify,
    quick,
)

from miniclip.check import Bug, planted, unchanged

EVALUATE, PROBE, ROBUSTNESS = "tasks.evaluate", "tasks.probe", "tasks.robustness"
VERIFY, OWN = "tasks.verify", "tasks.own_pictures"

BUGS = [
    Bug("names in another order than the pairs", "evaluate", EVALUATE, "for pair in COLOUR_SHAPE_PAIRS]", "for pair in COLOUR_SHAPE_PAIRS[::-1]]"),
    Bug("held-out pairs are seen ones", "evaluate", EVALUATE, "single_world(HELD_OUT)", "single_world(SEEN)"),
    Bug("seen pairs are any pairs", "evaluate", EVALUATE, "single_world(SEEN)", "single_world(COLOUR_SHAPE_PAIRS)"),
    Bug("the worst fits best", "evaluate", EVALUATE, "cosine.max(axis=1", "cosine.min(axis=1"),
    Bug("one is counted as two", "evaluate", EVALUATE, "numbers.index(len(scene.things)) for", "len(scene.things) for"),
    Bug("seen from the other thing", "evaluate", EVALUATE, "relation_of(*scene.things)", "relation_of(*scene.things[::-1])"),
    Bug("the false statement for the true one", "evaluate", EVALUATE, "[:: -1 if place else 1]", "[:: 1 if place else -1]"),
    Bug("statements of another scene", "evaluate", EVALUATE, "texts[own]", "texts[own[::-1]]"),
    Bug("pictures in another order", "evaluate", EVALUATE, "map(draw, scenes)", "map(draw, scenes[::-1])"),
    Bug("another seed", "evaluate", EVALUATE, "make_scenes(COUNT_WORLD, count, seed)", "make_scenes(COUNT_WORLD, count, 0)"),
    Bug("colour for shape", "evaluate", EVALUATE, "a[1] == t.shape", "a[0] == t.shape"),
    Bug("the last picture is lost", "evaluate", EVALUATE, "map(draw, scenes)", "map(draw, scenes[:-1])"),
    Bug("test pictures' labels mixed", "probe", PROBE, "(test.features[features], test.labels)", "(test.features[features], test.labels[::-1])"),
    Bug("training labels mixed", "probe", PROBE, "train.labels[chosen],", "train.labels[chosen][::-1],"),
    Bug("columns for rows", "probe", PROBE, "3 * int(3 * thing.y) + int(3 * thing.x)", "3 * int(3 * thing.y)"),
    Bug("pixels for embeddings", "probe", PROBE, '"embedding": embed_scenes(pipeline, scenes)', '"embedding": pixels.reshape(len(scenes), -1)'),
    Bug("tested on training pictures", "probe", PROBE, "fitted.score(test.features[features], test.labels)", "fitted.score(train.features[features][chosen], train.labels[chosen])"),
    Bug("the worst strength", "probe", PROBE, "int(np.argmax(scores))", "int(np.argmin(scores)) * 0 + len(scores)"),
    Bug("nothing is changed", "robustness", ROBUSTNESS, "scenes[pairs], names, draw)", "scenes[pairs], names, draw_scene)"),
    Bug("seen and held-out in each other's column", "robustness", ROBUSTNESS, '("seen", "held-out")', '("held-out", "seen")'),
    Bug("held-out pairs alone", "robustness", ROBUSTNESS, '("seen", "held-out")', '("held-out", "held-out")'),
    Bug("noise from nowhere", "robustness", ROBUSTNESS, "default_rng([*scene.seed, STREAM])", "default_rng()"),
    Bug("names in another order", "robustness", ROBUSTNESS, "embed_pairs(pipeline)  #", "embed_pairs(pipeline)[::-1]  #"),
    Bug("wrong counts as right", "robustness", ROBUSTNESS, "a == scene.things[0].pair", "a != scene.things[0].pair"),
    Bug("any number is near enough", "verify", VERIFY, "if gap <= known.tolerance", "if gap >= 0"),
    Bug("one right number is enough", "verify", VERIFY, "np.abs(got - expected).max()", "np.abs(got - expected).min()"),
    Bug("too small is no difference", "verify", VERIFY, "np.abs(got - expected).max()", "(got - expected).max()"),
    Bug("one number for all", "verify", VERIFY, "if got.shape == expected.shape else", "if got.size else"),
    Bug("a skipped row is a proof", "verify", VERIFY, 'o.known.weights and o.status != "skip"', "o.known.weights"),
    Bug("the tokenizer is a proof", "verify", VERIFY, 'o.known.weights and o.status != "skip"', 'o.status != "skip"'),
    Bug("another model's answers", "verify", VERIFY, "if k.model == name]", "]"),
    Bug("an error is skipped", "verify", VERIFY, 'Verdict(known, "fail", note', 'Verdict(known, "skip", note'),
    Bug("ties count for the model", "own pictures", OWN, "(cosine >= best) & ~fits", "(cosine > best) & ~fits"),
    Bug("right answers stand before each other", "own pictures", OWN, "(cosine >= best) & ~fits", "(cosine >= best) & (cosine != best)"),
    Bug("the worst right answer counts", "own pictures", OWN, "np.where(fits, cosine, -np.inf).max(axis=1", "np.where(fits, cosine, np.inf).min(axis=1"),
    Bug("places from nought", "own pictures", OWN, "places: Array = 1 + ", "places: Array = "),
    Bug("below k alone", "own pictures", OWN, "(places <= k).sum()", "(places < k).sum()"),
    Bug("one right answer for chance", "own pictures", OWN, "math.comb(choices - right, k)", "math.comb(choices - 1, k)"),
    Bug("a picture's first caption alone", "own pictures", OWN, "tuple(dict.fromkeys(several))", "tuple(several[:1])"),
]  # fmt: skip


@pytest.fixture
def check(monkeypatch):
    """The check that the real module passes, by the name of the task."""

    def check_probe(module):
        quick(monkeypatch, module)
        check_probe_report(module)

    return {
        "evaluate": check_evaluate,
        "own pictures": check_own_pictures,
        "probe": check_probe,
        "robustness": check_robustness,
        "verify": check_verify,
    }


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.where}: {bug.name}")
def test_it_is_found(bug, check):
    wrong = planted(bug)
    assert is_caught(lambda: check[bug.where](wrong)), f"not found: {bug.name}"


@pytest.mark.parametrize(("module", "where"), sorted({(bug.module, bug.where) for bug in BUGS}))
def test_without_a_bug_nothing_is_found(module, where, check):
    """The control: the same module executed anew, nothing changed."""
    again = planted(unchanged(module, where))
    assert again is not importlib.import_module(f"miniclip.{module}")
    check[where](again)


def test_there_are_enough():
    assert len({(bug.where, bug.name) for bug in BUGS}) == len(BUGS) >= 24
