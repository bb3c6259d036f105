"""Linear probes: the optimum is PyTorch's, and the report cannot call a wrong probe good."""

import importlib
import json

import numpy as np
import pytest
import torch
from pipelines import scene_pipeline
from task_checks import Sees, check_probe_report, quick, table

from miniclip.check import function_gradients
from miniclip.tasks import linear_probe
from miniclip.tasks.lbfgs import minimise
from miniclip.tasks.linear_probe import LinearProbe
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import BACKGROUNDS, TRAINING_WORLD, Scene, Thing

module = importlib.import_module("miniclip.tasks.probe")  # not the function of that name
SEED = module.PROBE_SEED


def blobs(n, d, classes, seed=0, apart=1.0):
    """Rows around a point for each class, every column with its own scale and middle."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    middles = np.random.default_rng(99).standard_normal((classes, d))
    rows = apart * middles[labels] + rng.standard_normal((n, d))
    scale = np.geomspace(0.01, 100, d)
    return (rows + 3) * scale, labels


# ------------------------------------------------------------------------ the fit


def test_the_gradient_is_that_of_the_loss():
    """Against measured slopes."""
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((11, 4)), rng.integers(0, 3, 11)

    def at(point):
        return linear_probe.loss_and_gradient(point, x=x, targets=targets, classes=3, l2=0.3)

    result = function_gradients(
        lambda point: at(point)[0], lambda dy, point: dy * at(point)[1], rng.standard_normal(5 * 3)
    )
    assert result.holds, result


def loss_by_torch(x, labels, weight, bias, l2):
    """The convex objective as PyTorch writes it."""
    entropy = torch.nn.functional.cross_entropy(x @ weight + bias, labels)
    return entropy + l2 / 2 * (weight**2).sum()


def best_by_torch(x, labels, classes, l2):
    """The lowest loss that PyTorch's L-BFGS finds."""
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = loss_by_torch(x, labels, weight, bias, l2)
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item()


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("shape", [(90, 7, 3), (20, 60, 4), (4, 200, 2)])
def test_it_is_the_optimum_that_torch_finds(shape, l2):
    """The same loss within 1e-8, also with more features than examples."""
    x, labels = blobs(*shape, apart=0.5)
    probe = LinearProbe(l2).fit(x, labels)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    standard = torch.tensor((x - mean) / deviation)
    weight = torch.tensor(probe.weight_ * deviation[:, None])  # for standardised features
    bias = torch.tensor(probe.bias_ + mean @ probe.weight_)
    ours = float(loss_by_torch(standard, torch.tensor(labels), weight, bias, l2))
    assert ours == pytest.approx(best_by_torch(standard, torch.tensor(labels), shape[2], l2),
                                 abs=1e-8)  # fmt: skip


def test_a_convex_function_is_minimised():
    """A quadratic whose curvatures differ a thousandfold has its minimum where algebra says."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    hessian = turn @ np.diag(np.geomspace(1e-2, 10, 30)) @ turn.T
    pull = rng.standard_normal(30)
    calls = []

    def quadratic(x):
        calls.append(x)
        return float(0.5 * x @ hessian @ x - pull @ x), hessian @ x - pull

    found = minimise(quadratic, np.zeros(30), tolerance=1e-9)
    np.testing.assert_allclose(found, np.linalg.solve(hessian, pull), rtol=1e-5)
    assert len(calls) < 500  # gradient descent needs some ten thousand
    calls.clear()
    minimise(quadratic, np.zeros(30), steps=3)
    assert len(calls) < 20
    stays = minimise(quadratic, found, tolerance=1e-6)
    np.testing.assert_array_equal(stays, found)


def test_few_rows_are_short_and_nothing_is_lost():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 40))
    short, axes = linear_probe.shortened(x)
    assert short.shape == (6, 6)
    np.testing.assert_allclose(short @ axes.T, x, atol=1e-12)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-12)
    # the same probe as without it
    targets = np.arange(6) % 2
    small, bias = linear_probe.solve(short, targets, 2, 0.1)
    weight, same = linear_probe.solve(x, targets, 2, 0.1)
    np.testing.assert_allclose(axes @ small, weight, atol=1e-5)
    np.testing.assert_allclose(bias, same, atol=1e-5)


def test_scale_and_middle_of_features_do_not_count():
    x, labels = blobs(60, 5, 3)
    plain = LinearProbe(0.1).fit(x, labels)
    moved = LinearProbe(0.1).fit(1000 * x - 7, labels)
    np.testing.assert_allclose(
        moved.decision_function(1000 * x - 7), plain.decision_function(x), atol=1e-4
    )
    # a column that never changes in training has no say later
    constant = np.concatenate([x, np.full((60, 1), 0.1)], axis=1)
    later = np.concatenate([x, np.full((60, 1), 1e6)], axis=1)
    probe = LinearProbe(0.1).fit(constant, labels)
    np.testing.assert_allclose(
        probe.decision_function(later), plain.decision_function(x), atol=1e-4
    )


def test_labels_come_back_as_they_were():
    x, labels = blobs(60, 5, 3, apart=4.0)
    names = np.array(["red", "blue", "green"])[labels]
    probe = LinearProbe().fit(x, names)
    fresh, fresh_labels = blobs(60, 5, 3, seed=1, apart=4.0)
    assert list(probe.predict(fresh)) == list(np.array(["red", "blue", "green"])[fresh_labels])
    assert probe.score(fresh, np.array(["red", "blue", "green"])[fresh_labels]) == 1
    assert probe.score(fresh, np.array(["blue", "green", "red"])[fresh_labels]) == 0
    odd = LinearProbe().fit(x, labels * 10 - 5)
    assert set(odd.predict(fresh)) == {-5, 5, 15}
    again = LinearProbe().fit(x.copy(), names.copy())
    np.testing.assert_array_equal(again.weight_, probe.weight_)


def test_an_estimator_as_in_scikit_learn():
    """fit returns the probe, what it learned ends in _, and fitting again forgets the old."""
    x, labels = blobs(60, 5, 3, apart=4.0)
    names = np.array(["red", "blue", "green"])[labels]
    probe = LinearProbe(0.1)
    assert set(vars(probe)) == {"l2"}  # nothing is learned by being made
    for call in (probe.predict, probe.decision_function, lambda x: probe.score(x, labels)):
        with pytest.raises(ValueError, match=r"LinearProbe: nothing is learned yet, expected fit"):
            call(x)
    assert probe.fit(x, names) is probe
    assert {name for name in vars(probe) if name != "l2"} == {"weight_", "bias_", "classes_"}
    assert list(probe.classes_) == ["blue", "green", "red"]
    assert (probe.weight_.shape, probe.bias_.shape) == ((5, 3), (3,))
    scores = probe.decision_function(x)
    np.testing.assert_array_equal(probe.predict(x), probe.classes_[scores.argmax(axis=1)])
    two, which = blobs(40, 4, 2)
    probe.fit(two, which)
    fresh = LinearProbe(0.1).fit(two, which)
    np.testing.assert_array_equal(probe.weight_, fresh.weight_)
    assert probe.classes_.tolist() == [0, 1]
    assert repr(probe) == "LinearProbe(l2=0.1)"


def test_scores_are_logits():
    """With almost no penalty the probabilities are those of the model that made the labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20000, 2))
    probability = 1 / (1 + np.exp(-(1.5 * x[:, 0] - 0.5)))
    labels = (rng.random(len(x)) < probability).astype(int)
    logits = LinearProbe(1e-9).fit(x, labels).decision_function(x)
    slope = np.polyfit(x[:, 0], logits[:, 1] - logits[:, 0], 1)
    np.testing.assert_allclose(slope, [1.5, -0.5], atol=0.1)


def test_random_labels_cannot_be_foretold():
    """What was learned by heart is no knowledge: it fails on new rows."""
    x, _ = blobs(60, 80, 4)
    labels = np.random.default_rng(5).integers(0, 4, 60)
    probe = LinearProbe(1e-4).fit(x, labels)
    assert probe.score(x, labels) == 1
    fresh, _ = blobs(400, 80, 4, seed=8)
    assert probe.score(fresh, np.random.default_rng(6).integers(0, 4, 400)) < 0.35


def test_the_strength_is_chosen_on_validation_examples():
    """40 rows of 200 features, one of which counts: a strong penalty is better here."""

    def rows(n, seed):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, n)
        x = rng.standard_normal((n, 200))
        x[:, 0] += 3 * labels
        return x, labels

    train, validation = rows(40, 0), rows(300, 1)
    best = module.probe(*train, *validation)
    scores = {l2: LinearProbe(l2).fit(*train).score(*validation) for l2 in module.L2_GRID}
    assert best.l2 == max(l2 for l2 in scores if scores[l2] == max(scores.values()))
    assert len(set(scores.values())) > 1
    # of equals the strongest: with one class to find everywhere, all are equally right
    easy = blobs(40, 3, 2, apart=30.0)
    assert module.probe(*easy, *easy, l2s=(1e-3, 10.0, 1.0)).l2 == 10.0


def test_bad_arguments():
    x, labels = blobs(9, 2, 3)
    probe = LinearProbe().fit(x, labels)
    broken = x.copy()
    broken[3, 1] = np.nan
    cases = [
        (lambda: LinearProbe().fit(x[0], labels), r"features: got float64 of shape \(2,\)"),
        (lambda: LinearProbe().fit(x[:0], labels[:0]), r"features: .* of shape \(0, 2\)"),
        (lambda: LinearProbe().fit(x.astype(str), labels), "features: got <U"),
        (lambda: LinearProbe().fit(broken, labels), "features: got numbers that are not"),
        (lambda: LinearProbe().fit(x, labels[1:]), r"labels: .*\(8,\), expected 9 integers"),
        (lambda: LinearProbe().fit(x, labels + 0.5), "labels: got float64"),
        (lambda: LinearProbe().fit(x, labels * 0), "labels: got only .*0.*, expected two"),
        (lambda: LinearProbe(0).fit(x, labels), "l2: got 0, expected a positive"),
        (lambda: LinearProbe(np.nan).fit(x, labels), "l2: got nan, expected a positive"),
        (lambda: probe.predict(x[:, :1]), "features: got 1 numbers a row, expected 2 as in fit"),
        (lambda: probe.score(x, labels[1:]), r"labels: .*expected 9 integers"),
        (lambda: module.probe(x, labels, x, labels, []), "l2s: got none, expected at least one"),
        (lambda: module.probe_report(None, 1), "count: got 1, expected a whole number, at least"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


# ------------------------------------------------------------------------ the report


def test_the_report_says_who_sees_what(monkeypatch):
    quick(monkeypatch, module)
    found = check_probe_report(module)
    blind = table(module.probe_report(Sees(lambda pixels: np.zeros(12)), 6))
    for shots in (1, 6):
        assert blind["place", "embedding", shots].accuracy < 0.25
        assert blind["background", "embedding", shots].accuracy < 0.6
        # pixels have nothing to do with the model
        for attribute in ("place", "background"):
            same = blind[attribute, "pixels", shots]
            assert same == found[attribute, "pixels", shots]


@pytest.mark.parametrize("attribute", module.ATTRIBUTES, ids=lambda a: a.name)
def test_examples_are_balanced_and_of_one_split(attribute):
    splits = [module.balanced_scenes(attribute, 6, SEED + i) for i in range(3)]
    for scenes in splits:
        labels = [attribute.read(scene) for scene in scenes]
        assert sorted(labels) == sorted(list(range(attribute.classes)) * 6)
        numbers = [scene.seed[1] for scene in scenes]
        assert numbers == sorted(set(numbers))  # in their order, none twice
    pictures = [{draw_scene(scene).tobytes() for scene in scenes} for scenes in splits]
    assert not pictures[0] & pictures[1]
    assert not pictures[0] & pictures[2]
    assert not pictures[1] & pictures[2]


def test_a_class_that_never_comes_is_an_error():
    always_two = module.Attribute("two", module.ATTRIBUTES[1].world, lambda scene: 2, 4)
    with pytest.raises(ValueError, match=r"attribute: two is hardly ever one of \[0, 1, 3\]"):
        module.balanced_scenes(always_two, 1, 0)


def test_size_tells_nothing_of_the_place():
    scenes = module.balanced_scenes(module.ATTRIBUTES[0], 5, 3)
    (radius,) = {scene.things[0].radius for scene in scenes}
    assert TRAINING_WORLD.radius[0] <= radius <= TRAINING_WORLD.radius[1]


def test_what_is_read_from_a_scene():
    def scene(x, y, background="plain"):
        thing = Thing("circle", "red", "solid", x, y, 0.1)
        return Scene("single", (thing,), background, "flat", (0, 0))

    cells = [module.cell_of(scene(x, y)) for y in (0.2, 0.5, 0.9) for x in (0.2, 0.5, 0.9)]
    assert cells == list(range(9))
    assert module.cell_of(scene(0.66, 0.34)) == 4
    kinds = [module.background_of(scene(0.5, 0.5, background)) for background in BACKGROUNDS]
    assert kinds == [0, 1, 2]


def test_few_examples_are_drawn_from_each_class():
    labels = np.array([0, 1, 2] * 10)
    draws = [module.choose_examples(labels, 4, np.random.default_rng(seed)) for seed in range(5)]
    for chosen in draws:
        assert sorted(labels[chosen]) == [0] * 4 + [1] * 4 + [2] * 4
        assert len(set(chosen)) == 12
    assert len({tuple(chosen) for chosen in draws}) == 5
    everything = module.choose_examples(labels, 10, np.random.default_rng(0))
    assert sorted(everything) == list(range(30))


def test_pixels_are_averaged_down():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    small = module.averaged_down(pixels, 16)
    assert small.shape == (2, 16, 16, 3)
    assert small[1, 3, 5, 2] == pixels[1, 12:16, 20:24, 2].mean()


def test_tables():
    row = module.ProbeRow("place", "embedding", 1, 0.25, 0.031, 5, 1 / 9)
    rows = [row, module.ProbeRow("place", "embedding", 20, 0.5, 0.0, 1, 1 / 9),
            module.ProbeRow("place", "pixels", 1, 0.125, 0.0, 1, 1 / 9)]  # fmt: skip
    assert json.loads(json.dumps(row.as_dict()))["shots"] == 1
    first, embedding, pixels = module.as_text(rows).splitlines()
    assert first.split() == ["probed", "for", "from", "1", "20", "chance"]
    assert embedding.split() == ["place", "embedding", "25.0%", "±", "3.1%", "50.0%", "11.1%"]
    assert pixels.split() == ["place", "pixels", "12.5%", "11.1%"]
    assert {line.count("|") for line in module.as_markdown(rows).splitlines()} == {6}


def test_a_real_model_is_probed(monkeypatch):
    """Untrained, so that nothing is expected but shares, the same each time."""
    quick(monkeypatch, module)
    pipeline = scene_pipeline()
    rows = module.probe_report(pipeline, 2)
    assert rows == module.probe_report(pipeline, 2)
    assert rows != module.probe_report(pipeline, 2, seed=1)
    assert all(0 <= row.accuracy <= 1 for row in rows)
