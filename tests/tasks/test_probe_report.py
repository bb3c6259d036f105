"""The probe's report, step by step: which examples, which features, which draws, which table."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from miniclip.tasks.linear_probe import LinearProbe
from miniclip.world.drawing import draw_array
from miniclip.world.scenes import SEEN, TRAINING_WORLD, make_scene, single_world

module = importlib.import_module("miniclip.tasks.probe")  # not the function of that name
PLACE, SIZE, BACKGROUND = module.ATTRIBUTES


def test_the_documented_numbers():
    assert module.PROBE_SEED == 2_000_003
    assert (module.SHOTS, module.DRAWS) == ((1, 2, 4, 8, 16), 5)
    assert module.L2_GRID == (0.001, 0.01, 0.1, 1, 10)
    assert [(a.name, a.classes, a.chance) for a in module.ATTRIBUTES] == [
        ("place", 9, 1 / 9), ("size", 3, 1 / 3), ("background", 3, 1 / 3)
    ]  # fmt: skip
    assert PLACE.world == single_world(SEEN, radius=(0.2, 0.2))
    assert SIZE.world == BACKGROUND.world == single_world(SEEN)


def thing(x=0.5, y=0.5, radius=0.2):
    return SimpleNamespace(x=x, y=y, radius=radius)


def scene(*things, background="plain"):
    return SimpleNamespace(things=things, background=background)


def test_what_is_asked_of_the_first_thing():
    """At the borders of the cells, and of the thirds of the sizes that training draws."""
    for x, column in ((0.0, 0), (0.33, 0), (0.34, 1), (0.66, 1), (0.67, 2), (0.99, 2)):
        for y, row in ((0.0, 0), (0.33, 0), (0.34, 1), (0.66, 1), (0.67, 2), (0.99, 2)):
            assert PLACE.read(scene(thing(x, y), thing(0.5, 0.5))) == 3 * row + column
    low, high = TRAINING_WORLD.radius
    for share, third in ((0.0, 0), (0.3, 0), (0.36, 1), (0.64, 1), (0.7, 2), (1.0, 2)):
        radius = low + share * (high - low)
        assert SIZE.read(scene(thing(radius=radius), thing(radius=low))) == third
    for number, name in enumerate(("plain", "gradient", "noisy")):
        assert BACKGROUND.read(scene(thing(), background=name)) == number


# ------------------------------------------------------------------------ the strength


class Fitted:
    """A probe whose score follows from its strength alone."""

    def __init__(self, l2):
        self.l2 = l2

    def fit_to(self, examples):
        self.examples = examples
        return self

    def score(self, features, labels):
        assert (features, labels) == ("validation features", "validation labels")
        return {0.5: 0.7, 2.0: 0.9, 8.0: 0.9, 30.0: 0.1}[self.l2]


@pytest.mark.parametrize("l2s", [(0.5, 2.0, 8.0, 30.0), (8.0, 30.0, 0.5, 2.0), [8.0, 2.0], [8.0]])
def test_the_best_strength_and_of_equals_the_strongest(monkeypatch, l2s):
    monkeypatch.setattr(module, "LinearProbe", Fitted)
    monkeypatch.setattr(module.Standardised, "of", lambda *given: given)
    best = module.probe("features", "labels", "validation features", "validation labels", l2s)
    assert (best.l2, best.examples) == (8.0, ("features", "labels"))


def test_strengths_are_the_grid_or_those_given():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((12, 2)), np.arange(12) % 2
    assert module.probe(x, labels, x, labels, [5.0]).l2 == 5.0
    assert module.probe(x, labels, x, labels).l2 in module.L2_GRID
    one = module.probe(x, labels, x, labels, np.array([0.3]))
    np.testing.assert_array_equal(one.weight_, LinearProbe(0.3).fit(x, labels).weight_)
    for none in ([], (), np.array([])):
        with pytest.raises(ValueError, match=r"^l2s: got none, expected at least one strength$"):
            module.probe(x, labels, x, labels, none)


# ------------------------------------------------------------------------ the report


@pytest.fixture
def asked(monkeypatch):
    """Calls of the report's steps, which answer with made-up examples and rising scores."""
    calls = SimpleNamespace(examples=[], scores=[])

    def make_examples(*arguments):
        calls.examples.append(arguments)
        return SimpleNamespace(features={"first": 0, "second": 0}, made_by=arguments)

    def score_draw(train, validation, test, *rest):
        made_by = [split.made_by[2:] for split in (train, validation, test)]
        calls.scores.append((train.made_by[1].name, *made_by, *rest))
        return rest[2][2] / 10 + rest[1] / 1000

    monkeypatch.setattr(module, "make_examples", make_examples)
    monkeypatch.setattr(module, "score_draw", score_draw)
    return calls


@pytest.mark.parametrize(
    ("count", "validation", "shots"),
    [(2, 1, [1, 2]), (3, 1, [1, 2, 3]), (5, 2, [1, 2, 4, 5]), (16, 8, [1, 2, 4, 8, 16]),
     (17, 8, [1, 2, 4, 8, 16, 17])],
)  # fmt: skip
def test_every_attribute_feature_and_number_of_examples(asked, count, validation, shots):
    """Five draws of few examples, one of all; each split of its own seed."""
    rows = module.probe_report("model", count, 50)
    names = ["place", "size", "background"]
    splits = (count, 50), (validation, 52), (count, 51)
    assert [(p, a.name, n, seed) for p, a, n, seed in asked.examples] == [
        ("model", name, n, seed)
        for name in names
        for n, seed in ((count, 50), (count, 51), (validation, 52))
    ]
    draws = {n: 5 if n < count else 1 for n in shots}
    assert asked.scores == [
        (name, *splits, features, n, [50, n, draw])
        for name in names
        for features in ("first", "second")
        for n in shots
        for draw in range(draws[n])
    ]
    chance = {"place": 1 / 9, "size": 1 / 3, "background": 1 / 3}
    assert [(r.attribute, r.features, r.shots, r.draws, r.chance) for r in rows] == [
        (name, features, n, draws[n], chance[name])
        for name in names
        for features in ("first", "second")
        for n in shots
    ]
    for row in rows:  # scores 0, 0.1, ... 0.4 and a little
        mean, deviation = (0.2, np.sqrt(0.025)) if row.draws == 5 else (0, 0)
        assert row.accuracy == pytest.approx(mean + row.shots / 1000)
        assert row.deviation == pytest.approx(deviation)


def test_a_hundred_examples_of_the_usual_seed(asked):
    module.probe_report("model")
    assert {call[2:] for call in asked.examples} == {
        (100, 2_000_003), (100, 2_000_004), (50, 2_000_005)
    }  # fmt: skip
    for count in (1, 0, 2.5, "9"):
        with pytest.raises(ValueError, match=rf"^count: got {count!r}, expected a whole number, "):
            module.probe_report("model", count)


def test_rows_are_means_and_deviations_of_draws():
    row = module.make_row(SIZE, "pixels", 4, [0.25, 0.5])
    assert row.as_dict() == {
        "attribute": "size", "features": "pixels", "shots": 4, "accuracy": 0.375,
        "deviation": pytest.approx(np.sqrt(2) / 8), "draws": 2, "chance": 1 / 3,
    }  # fmt: skip
    one = module.make_row(PLACE, "pixels", 4, [0.25])
    assert (one.accuracy, one.deviation, one.draws, one.chance) == (0.25, 0.0, 1, 1 / 9)


def test_features_are_embeddings_and_pixels(monkeypatch):
    scenes = [make_scene(TRAINING_WORLD, 1, i) for i in range(3)]
    asked = []
    monkeypatch.setattr(module, "balanced_scenes", lambda *given: asked.append(given) or scenes)
    monkeypatch.setattr(module, "embed_scenes", lambda *given: asked.append(given) or "embedded")
    found = module.make_examples("model", BACKGROUND, 1, 9)
    assert asked == [(BACKGROUND, 1, 9), ("model", scenes)]
    assert list(found.features) == ["embedding", "pixels", "small pixels"]
    assert found.features["embedding"] == "embedded"
    pixels = [draw_array(s) for s in scenes]
    np.testing.assert_array_equal(found.features["pixels"], [p.ravel() for p in pixels])
    small = [p.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)).ravel() for p in pixels]
    np.testing.assert_allclose(found.features["small pixels"], small)
    backgrounds = ("plain", "gradient", "noisy")
    assert found.labels.tolist() == [backgrounds.index(s.background) for s in scenes]


@pytest.mark.parametrize(
    ("side", "shape"), [(2, (3, 4, 6, 5)), (4, (1, 4, 12, 1)), (1, (2, 3, 5, 2))]
)
def test_blocks_are_averaged(side, shape):
    """Of pictures that are not square, of any number of channels."""
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    small = module.averaged_down(pixels, side)
    n, height, width, channels = shape
    assert small.shape == (n, side, side, channels)
    rows, columns = height // side, width // side
    for i in range(side):
        for j in range(side):
            block = pixels[:, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            np.testing.assert_allclose(small[:, i, j], block.mean(axis=(1, 2)))


def counted(monkeypatch, read, classes=2):
    """An attribute that is read from a scene's number."""
    world = object()

    def made(given, seed, number):
        assert (given, seed) == (world, 4)
        return number

    monkeypatch.setattr(module, "make_scene", made)
    return module.Attribute("made up", world, read, classes)


def test_the_first_of_each_class_are_taken_in_their_order(monkeypatch):
    attribute = counted(monkeypatch, lambda number: [0, 0, 0, 1, 2, 1, 0, 2][number % 8], 3)
    assert module.balanced_scenes(attribute, 1, 4) == [0, 3, 4]
    assert module.balanced_scenes(attribute, 2, 4) == [0, 1, 3, 4, 5, 7]


def test_rare_classes_are_looked_for_long_but_not_for_ever(monkeypatch):
    """200 times as many scenes as equal shares would take: 2 classes, 3 examples, 1200 scenes."""
    assert len(module.balanced_scenes(counted(monkeypatch, lambda n: int(n >= 1197)), 3, 4)) == 6
    with pytest.raises(ValueError) as error:
        module.balanced_scenes(counted(monkeypatch, lambda n: int(n >= 1198)), 3, 4)
    assert str(error.value) == "attribute: made up is hardly ever one of [1], expected all"


def test_a_draw_is_fitted_scored_and_of_its_seed(monkeypatch):
    """Few of the training examples, all others of the same features."""
    splits = [
        module.Examples(np.arange(6) % 2 + 10 * i,
                        {"a": np.arange(6) + 100 * i, "b": np.arange(6) - 100 * i})
        for i in range(3)
    ]  # fmt: skip
    train, validation, test = splits
    asked = []

    def probe(*given):
        asked.append(given)
        return SimpleNamespace(score=lambda *given: asked.append(given) or 0.75)

    monkeypatch.setattr(module, "probe", probe)
    for seed in ([1, 2, 3], [1, 2, 4]):
        asked.clear()
        assert module.score_draw(train, validation, test, "b", 2, seed) == 0.75
        (x, y, of_validation, labels), tested = asked
        chosen = module.choose_examples(train.labels, 2, np.random.default_rng(seed))
        np.testing.assert_array_equal(x, train.features["b"][chosen])
        np.testing.assert_array_equal(y, train.labels[chosen])
        assert sorted(y) == [0, 0, 1, 1]
        assert of_validation is validation.features["b"]
        assert labels is validation.labels
        assert tested == (test.features["b"], test.labels)


def test_rows_as_a_table():
    """A cell that was not measured is empty; one draw has no deviation."""
    rows = [
        module.ProbeRow("place", "embedding", 1, 0.25, 0.0312, 5, 1 / 9),
        module.ProbeRow("place", "embedding", 20, 0.5, 0.4, 1, 1 / 9),
        module.ProbeRow("place", "pixels", 20, 0.125, 0.0, 2, 1 / 9),
        module.ProbeRow("size", "pixels", 1, 1.0, 0.0, 1, 1 / 3),
    ]
    assert module.as_text(rows).splitlines() == [
        "probed for       from             1            20  chance",
        "place       embedding  25.0% ± 3.1%         50.0%   11.1%",
        "place          pixels                12.5% ± 0.0%   11.1%",
        "size           pixels        100.0%                 33.3%",
    ]
    assert module.as_markdown(rows).splitlines()[:3] == [
        "| probed for | from | 1 | 20 | chance |",
        "| :-- | --: | --: | --: | --: |",
        "| place | embedding | 25.0% ± 3.1% | 50.0% | 11.1% |",
    ]
