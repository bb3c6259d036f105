"""Objectives: the loop trains one that knows nothing of pairs as it trains the contrastive one."""

import json
import math
from types import SimpleNamespace

import classifier_checks as checks
import numpy as np
import pytest
from backends_here import FAKE_GPU
from classifier_checks import classifier_trainer, make_classifier
from fake_gpu import FakeGpu
from matplotlib.figure import Figure
from training_checks import make_trainer, our_losses

from miniclip.inputs.preprocess import Transform
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig
from miniclip.training import loop, report
from miniclip.training.data import SceneData, batches
from miniclip.training.loop import STATE, Trainer
from miniclip.training.objectives import OBJECTIVES, Batch, Objective, Outcome
from miniclip.training.recipe import Recipe
from miniclip.training.state import read_state
from miniclip.world.scenes import COLOURS, World


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """matplotlib takes longer than the steps; the plot is drawn by the tests that look at it."""
    monkeypatch.setattr(loop, "plot_log", lambda log, picture: picture.write_bytes(b"a plot"))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_classifier_trains_as_in_pytorch(kind, backend):
    """Loss, gradients of the network and of the head, clipping, decay, statistics."""
    checks.check_classifier_curve(kind, backend=backend)


def test_a_classifier_trains_in_float32():
    checks.check_classifier_curve("vit", "float32", steps=30, tolerance=1e-4)


@pytest.mark.parametrize(
    "check",
    [
        "check_classifier_resume",
        "check_classifier_frozen",
        "check_chunk_is_refused",
        "check_names",
        "check_another_objective_is_refused",
    ],
)
def test_check(check):
    getattr(checks, check)()


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_classifier_on_arrays_that_live_elsewhere(kind):
    """The trainer brings the objective's module to the network's backend, buffers too."""
    gpu = SimpleNamespace(**vars(FAKE_GPU), as_ids=lambda x: FakeGpu(np.asarray(x, np.int64)))
    there = classifier_trainer(kind, backend=gpu)
    assert all(isinstance(x, FakeGpu) for x in there.module.state_dict().values())
    here = classifier_trainer(kind)
    np.testing.assert_allclose(our_losses(there, 4), our_losses(here, 4), rtol=1e-12)
    assert isinstance(there.module.state_dict()["head.size"], FakeGpu)


def colours_of_scenes(seed, count):
    """Drawings of one thing; the objective's labels are the colours that captions name."""
    one_thing = World(mix=(1.0, 0.0, 0.0, 0.0))
    return SceneData(Transform(size=32), count, seed, one_thing, language="en", size=32)


def test_a_classifier_learns_the_colours_of_drawings():
    """Fresh drawings, by the module in inference with its running statistic."""
    text = TextConfig(context_length=4, vocab_size=8, width=32, heads=1, layers=1)
    network = CLIP(CLIPConfig(32, VisionConfig(32, 1, 32, 1, patch_size=8), text), seed=0)
    recipe = Recipe(steps=40, batch=32, learning_rate=1e-2, warm_up=10)
    trainer = Trainer(
        network,
        colours_of_scenes(0, 40 * 32),
        lambda captions: np.full((len(captions), 4), 7),
        recipe,
        report=pytest.fail,  # no warning: the watcher asks nothing that a classifier has not
        progress=False,
        objective=make_classifier(tuple(COLOURS)),
    )
    trainer.run()
    pixels, captions = colours_of_scenes(1, 200).load(range(200), 0)
    chosen = trainer.objective.module(network.visual(pixels)).argmax(axis=1)
    assert (chosen == checks.labels(captions, tuple(COLOURS))).mean() > 0.4  # chance is a tenth


# ------------------------------------------------------------------------ registry and names


def test_the_registry_goes_by_the_objectives_names():
    assert {name: kind.name for name, kind in OBJECTIVES.items()} == {
        "contrastive": "contrastive",
        "sigmoid": "sigmoid",
    }


@pytest.mark.parametrize("loss", list(OBJECTIVES))
def test_tensors_of_a_checkpoint(loss, tmp_path):
    """The names that checkpoints had before objectives had modules."""
    trainer = make_trainer("resnet", folder=tmp_path, steps=1, loss=loss)
    trainer.run()
    tensors, notes = read_state(tmp_path / STATE)
    own = {"logit_bias"} if loss == "sigmoid" else set()
    learned = {name for name, _ in trainer.network.named_parameters()} | own
    expected = {f"network.{name}" for name in trainer.network.state_dict()}
    expected |= {f"optimizer.{kind}.{n}" for kind in ("mean", "square") for n in learned}
    assert set(tensors) == expected | {f"objective.{name}" for name in own}
    assert notes["recipe"] == json.loads(json.dumps(trainer.recipe.as_dict()))


def test_chunks_of_the_losses_over_embeddings_are_taken():
    for loss in OBJECTIVES:
        assert make_trainer("vit", loss=loss, chunk=4).objective.no_chunks is None


def test_what_an_objective_sees():
    """Pixels and ids as the network takes them, the captions, which texts belong, the step."""
    seen = []

    class Looking(Objective):
        name = "looking"

        def __call__(self, network, batch, chunk=None):
            seen.append(batch)
            return Outcome(1.0)

    trainer = make_trainer("vit", "float32", objective=Looking())
    our_losses(trainer, 3)
    assert [batch.step for batch in seen] == [0, 1, 2]
    for batch in seen:
        assert batch.pixels.shape == (8, 3, 32, 32)
        assert batch.pixels.dtype == np.float32
        longest = max(int(caption) % 4 for caption in batch.captions) + 2
        assert batch.ids.shape == (8, longest)
        same = [[a == b for b in batch.captions] for a in batch.captions]
        np.testing.assert_array_equal(batch.targets, same)
        assert batch.targets.dtype == np.float32


def test_a_loss_without_gradients_moves_nothing():
    """No decay, no clamp of a temperature above its limit, and its log has what there is."""

    class Idle(Objective):
        name = "idle"

        def __call__(self, network, batch, chunk=None):
            return Outcome(1.0)

    trainer = make_trainer("resnet", objective=Idle(), steps=3)
    before = {name: np.array(x) for name, x in trainer.network.state_dict().items()}
    trainer.run()
    for name, x in trainer.network.state_dict().items():
        np.testing.assert_array_equal(x, before[name], err_msg=name)


# ------------------------------------------------------------------------ the report


class Reported(Objective):
    """Gives the report what it is told to."""

    name = "reported"

    def __init__(self, measures, references):
        self.measures, self.references = measures, references

    def __call__(self, network, batch, chunk=None):
        return Outcome(np.float32(2.5), self.measures)

    def reference_lines(self, batch):
        return self.references


def test_numbers_of_any_kind_are_logged(tmp_path):
    measures = {
        "accuracy": np.float32(0.25),
        "count": np.int64(3),
        "on_device": FakeGpu(np.ones(())),
    }
    trainer = make_trainer(
        "vit", folder=tmp_path, steps=2, objective=Reported(measures, {"chance": 3.0})
    )
    trainer.run()
    row = report.read_log(tmp_path / report.LOG)[1]
    assert (row["loss"], row["chance"], row["accuracy"]) == (2.5, 3.0, 0.25)
    assert (row["count"], row["on_device"]) == (3.0, 1.0)
    assert not {"floor", "scale", "image_cosine", "text_cosine"} & set(row)
    report.plot_log(tmp_path / report.LOG, tmp_path / "plot.png")  # it can be drawn
    assert (tmp_path / "plot.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("measures", "references", "message"),
    [
        ({"rate": 1.0}, {}, "measures: got 'rate', which the log has already"),
        ({"chance": 1.0}, {}, "measures: got 'chance', which the log has already"),
        ({}, {"ceiling": 1.0}, "reference_lines: got 'ceiling', expected chance or floor"),
    ],
)
def test_names_that_the_report_cannot_take(measures, references, message):
    trainer = make_trainer("vit", objective=Reported(measures, references))
    with pytest.raises(ValueError, match=message):
        trainer.run()


def test_the_log_of_the_losses_over_embeddings(tmp_path):
    make_trainer("vit", folder=tmp_path, steps=2).run()
    row = report.read_log(tmp_path / report.LOG)[0]
    loss = ["step", "epoch", "loss", "chance", "floor", "gradient", "rate"]
    measures = ["scale", "image_cosine", "text_cosine"]
    assert list(row) == [*loss, *measures, "pairs", "samples", "seconds"]
    assert row["scale"] == pytest.approx(math.exp(4.7))  # of the loss, before the first clamp
    assert report.read_log(tmp_path / report.LOG)[1]["scale"] <= 100 * (1 + 1e-12)
    assert row["chance"] == math.log(8)


def test_the_scale_is_told_in_double_precision():
    trainer = make_trainer("vit", "float32")
    batch = next(iter(batches(trainer.data, range(1), 8, 0)))
    assert trainer.train_on(batch).measures["scale"] == math.exp(float(np.float32(4.7)))


def test_the_line_for_people():
    record = report.Record(0, 0, 2.0, {"chance": 3.0}, 1.5, 1e-3, {"accuracy": 0.25}, 8, 8, 1.0)
    assert record.line() == "loss 2.000 (chance 3.000)  gradient 1.50  accuracy 0.25"
    alone = report.Record(0, 0, 2.0, {}, 1.5, 1e-3, {}, 8, 8, 1.0)
    assert alone.line() == "loss 2.000  gradient 1.50"


@pytest.mark.parametrize("references", [{}, {"floor": 0.5}])
def test_the_watcher_does_not_ask_for_what_is_not_given(references):
    """A high loss, with no chance level known, is no reason to warn."""
    lines = []
    watcher = report.Watcher(lines.append)
    for step in range(2 * report.STUCK_AFTER):
        record = report.Record(step, 0, 50.0, references, 1.0, 1.0, {"accuracy": 0.0}, 8, 8, 1.0)
        watcher.look(record, 0, 100.0)
    assert lines == []


def test_the_watcher_knows_a_chance_without_a_floor():
    lines = []
    watcher = report.Watcher(lines.append)
    for step in range(report.STUCK_AFTER):
        watcher.look(
            report.Record(step, 0, 2.0, {"chance": 2.0}, 1.0, 1.0, {}, 8, 8, 1.0), 0, 100.0
        )
    assert len(lines) == 1
    assert "stayed at 2.000" in lines[0]


def drawn(rows, tmp_path, monkeypatch):
    """The panels of a log's plot by label, and the names of the top one's lines."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: figures.append(self))
    log = tmp_path / report.LOG
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.plot_log(log, tmp_path / report.PLOT)
    panels = {axes.get_ylabel(): axes for axes in figures[0].axes}
    return panels, [text.get_text() for text in panels["loss"].get_legend().get_texts()]


def test_the_plot_has_a_panel_for_every_measure(tmp_path, monkeypatch):
    def row(step, references, measures):
        return report.Record(step, 0, 2.0, references, 1.5, 1e-3, measures, 8, 8, 1.0).row()

    embeddings = {"scale": 14.0, "image_cosine": 0.1, "text_cosine": 0.2}
    rows = [row(step, {"chance": 3.0, "floor": 0.1}, embeddings) for step in range(4)]
    panels, lines = drawn(rows, tmp_path, monkeypatch)
    assert list(panels) == ["loss", "scale", "image_cosine", "text_cosine", "rate"]
    assert lines == ["loss of each step", "loss (smoothed)", "chance", "floor"]
    # a measure that is taken every second step, and no reference line
    rows = [row(step, {}, {"accuracy": step / 10} if step % 2 else {}) for step in range(4)]
    panels, lines = drawn(rows, tmp_path, monkeypatch)
    assert list(panels) == ["loss", "accuracy", "rate"]
    assert lines == ["loss of each step", "loss (smoothed)"]
    assert panels["accuracy"].lines[0].get_xydata().tolist() == [[1, 0.1], [3, 0.3]]


def test_reference_lines_are_those_of_the_batch():
    """By numbers worked out by hand; the targets may be on a device, in its dtype."""
    unit = np.ones((4, 2)) / math.sqrt(2)
    targets = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)
    for place in (np.asarray, FakeGpu):
        lines = OBJECTIVES["contrastive"]().reference_lines(Batch(unit, unit, (), place(targets)))
        assert lines == {"chance": math.log(4), "floor": pytest.approx(math.log(2) / 2, rel=1e-15)}
    lines = OBJECTIVES["sigmoid"]().reference_lines(Batch(unit, unit))
    assert lines == {"chance": pytest.approx(4 * math.log(4) - 3 * math.log(3)), "floor": 0.0}
