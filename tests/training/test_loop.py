"""Training: equal to PyTorch step by step, safe from bad data, resumed bit for bit."""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import training_checks as checks
from backends_here import FAKE_GPU
from fake_gpu import FakeGpu
from training_checks import make_trainer, our_losses

from miniclip import ops
from miniclip.training import loop, report, state
from miniclip.training.data import SceneData, batches, load_batch, place_of
from miniclip.training.loop import MOST_EMPTY, STATE, Trainer, TrainingError
from miniclip.training.objectives import OBJECTIVES, Batch, Contrastive, mean_cosine
from miniclip.training.optimizer import clip_gradients, global_norm
from miniclip.training.recipe import Recipe
from miniclip.training.schedule import learning_rate
from miniclip.training.targets import contrastive_floor, positives
from miniclip.world.captions import ZH_SHAPES


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """matplotlib takes longer than the steps; test_objectives.py looks at the plot."""
    monkeypatch.setattr(loop, "plot_log", lambda log, picture: picture.write_bytes(b""))


# ------------------------------------------------------------------------ against PyTorch


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_loss_curve_is_pytorchs(kind, backend):
    """In float64: forward, backward, clipping, AdamW, schedule, clamp, statistics."""
    steps = 50 if backend == "numpy" else 14  # the warm-up, and some steps of the way down
    checks.check_same_curve(kind, "float64", backend, steps=steps, tolerance=1e-7)


def test_the_loss_curve_of_the_sigmoid_loss():
    checks.check_same_curve("vit", loss="sigmoid")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_loss_curve_in_float32(backend):
    checks.check_same_curve("vit", "float32", backend, steps=20, tolerance=1e-4)
    checks.check_same_curve("resnet", "float32", backend, steps=5, tolerance=1e-3)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("loss", list(OBJECTIVES))
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_steps_on_arrays_that_live_elsewhere(kind, loss, chunk):
    """The whole step on the pretend GPU: no host array meets its arrays, and the curve is ours."""
    gpu = SimpleNamespace(**vars(FAKE_GPU), as_ids=lambda x: FakeGpu(np.asarray(x, np.int64)))
    there = our_losses(make_trainer(kind, backend=gpu, loss=loss, chunk=chunk), 4)
    here = our_losses(make_trainer(kind, loss=loss, chunk=chunk), 4)
    np.testing.assert_allclose(there, here, rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 5, 10])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_gradcache(kind, training, chunk):
    if kind == "resnet" and training and chunk == 1:
        chunk = 2  # one picture of 64 pixels leaves one 2 x 2 map: enough, but torch wants more
    checks.check_gradcache(kind, training, chunk)


def test_chunks_in_a_whole_step():
    """A ViT trained in chunks takes the same steps as one trained at once."""
    whole = our_losses(make_trainer("vit"), 6)
    chunked = our_losses(make_trainer("vit", chunk=3), 6)
    np.testing.assert_allclose(chunked, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "check",
    [
        "check_order",
        "check_decay",
        "check_resume",
        "check_nan",
        "check_frozen",
        "check_held_out",
        "check_chunks_are_small",
        "check_unusual_recipe",
        "check_clamp",
        "check_end_of_text",
    ],
)
def test_check(check):
    getattr(checks, check)()


def test_sigmoid_loss_has_the_gradient_that_it_says():
    """Along a random direction, of every parameter, its own bias included."""
    trainer = make_trainer("vit", loss="sigmoid")
    network, objective = trainer.network, trainer.objective
    pixels, captions = trainer.data.load(range(8), 0)
    batch = Batch(pixels, checks.encode(captions), captions, positives(captions))
    network.zero_grad()
    objective(network, batch)
    rng = np.random.default_rng(0)
    parameters = [p for _, p in network.named_parameters()] + [objective.module.logit_bias]
    directions = [rng.standard_normal(p.data.shape) for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, directions, strict=True))
    start, losses = [p.data for p in parameters], []
    for side in (1, -1):
        for p, x, d in zip(parameters, start, directions, strict=True):
            p.data = x + side * 1e-6 * d
        losses.append(objective(network, batch).loss)
    assert slope == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-6)


def test_sigmoid_training_learns():
    trainer = make_trainer("vit", loss="sigmoid", learning_rate=1e-2)
    losses = our_losses(trainer, 40)
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.objective.module.logit_bias.data != -10.0


# ------------------------------------------------------------------------ small parts


def test_learning_rate():
    rates = [learning_rate(step, 100, 2.0, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)  # half-way down
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.01
    assert learning_rate(0, 5, 1.0, 0) == 1.0


def test_floor_is_reached_by_perfect_logits():
    captions = ["a", "b", "a", "c", "b", "a"]
    targets = positives(captions)
    assert targets.sum(axis=1).tolist() == [3, 2, 3, 1, 2, 3]
    unit = np.eye(3)[[0, 1, 0, 2, 1, 0]]  # the same embedding where the caption is the same
    loss, _ = ops.contrastive_loss(unit, unit, np.array(math.log(100.0)), targets)
    assert float(loss) == pytest.approx(contrastive_floor(targets), abs=1e-9)
    assert contrastive_floor(positives(["a", "b"])) == 0.0
    assert positives(["a", "b"]) is None


def test_repeated_captions_change_the_floor_and_not_the_contrastive_loss():
    """Equal texts have equal embeddings, and the mean over equal logits is each of them."""
    rng = np.random.default_rng(0)
    images, texts = (ops.l2_normalize(rng.standard_normal((6, 4)))[0] for _ in range(2))
    texts = texts[[0, 1, 0, 2, 1, 0]]
    targets, scale = positives(["a", "b", "a", "c", "b", "a"]), np.array(2.0)
    with_targets = ops.contrastive_loss(images, texts, scale, targets)[0]
    assert float(with_targets) == pytest.approx(
        float(ops.contrastive_loss(images, texts, scale)[0])
    )
    bias = np.array(-1.0)
    with_targets = ops.sigmoid_loss(images, texts, scale, bias, targets)[0]
    assert abs(float(with_targets) - float(ops.sigmoid_loss(images, texts, scale, bias)[0])) > 0.1


@pytest.mark.parametrize("loss", list(OBJECTIVES))
@pytest.mark.parametrize("n", [2, 8])
def test_chance_is_what_guessing_gives(loss, n):
    """The loss of embeddings that are all alike."""
    objective = OBJECTIVES[loss]()
    network = make_trainer("vit").network
    unit = np.ones((n, 4)) / 2
    network.logit_scale.data = np.array(0.0)
    if objective.module is not None:  # sigmoid(1 + bias) = 1/n, the best constant
        objective.module.logit_bias.data = np.array(-math.log(n - 1) - 1.0)
    value, _, _ = objective.loss(network, unit, unit, None)
    lines = objective.reference_lines(Batch(unit, unit))
    assert float(value) == pytest.approx(lines["chance"])
    assert lines["floor"] == 0


def test_clipping():
    trainer = make_trainer("vit")
    pixels, captions = trainer.data.load(range(8), 0)
    Contrastive()(trainer.network, Batch(pixels, checks.encode(captions)))
    parameters = [p for _, p in trainer.network.named_parameters()]
    norm = global_norm(parameters)
    assert clip_gradients(parameters, 2 * norm) == norm
    assert global_norm(parameters) == norm
    assert clip_gradients(parameters, norm / 3) == norm
    assert global_norm(parameters) == pytest.approx(norm / 3, rel=1e-5)


def test_mean_cosine():
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((7, 5))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(7, dtype=bool)]
    assert mean_cosine(unit) == pytest.approx(cosines.mean())
    assert math.isnan(mean_cosine(unit[:1]))


# ------------------------------------------------------------------------ batches


def test_batches_are_those_of_their_steps():
    data = checks.Arrays(32)
    got = list(batches(data, range(2, 9), 8, 5))
    assert [batch.step for batch in got] == list(range(2, 9))
    for batch in got:
        alone = load_batch(data, batch.step, 8, 5)
        assert batch.indices == alone.indices
        np.testing.assert_array_equal(batch.pixels, alone.pixels)
    assert [place_of(step, 24, 8) for step in (0, 2, 3, 7)] == [(0, 0), (0, 16), (1, 0), (2, 8)]
    assert place_of(3, 23, 8) == (1, 8)  # 7 of 23 pairs do not fill a batch


def test_an_error_in_the_loading_thread_comes_out():
    class Broken(checks.Arrays):
        def load(self, indices, epoch):
            raise ValueError("data: broken on purpose")

    with pytest.raises(ValueError, match="broken on purpose"):
        list(batches(Broken(32), range(3), 8, 0))


def same_pixels(pictures):
    return np.stack([np.asarray(p, np.float32).transpose(2, 0, 1) for p in pictures])


def test_scenes_are_reproducible_and_wrong_captions_stay_wrong():
    data = SceneData(same_pixels, 200, seed=3, wrong=0.3)
    pixels, captions = data.load([5, 7, 9], 1)
    again, same = data.load([9, 7, 5], 1)
    np.testing.assert_array_equal(pixels, again[::-1])
    assert captions == same[::-1]
    wrong = [data.described(i) for i in range(200)]
    assert 0.2 < np.mean([other != i for i, other in enumerate(wrong)]) < 0.4
    clean = SceneData(same_pixels, 200, seed=3)
    assert [clean.described(i) for i in range(200)] == list(range(200))
    other = next(i for i in range(200) if wrong[i] != i)
    thing = data.scene(wrong[other]).things[0]
    assert any(word in data.caption(other, 1) for word in (thing.shape, ZH_SHAPES[thing.shape]))
    worded = {clean.caption(5, epoch) for epoch in range(20)}
    assert len(worded) > 3
    with pytest.raises(ValueError, match="wrong: got 2, expected a share"):
        SceneData(same_pixels, 10, wrong=2)


# ------------------------------------------------------------------------ bad runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 1}, "batch: got 1, expected a whole number from 2 on .a single pair"),
        ({"batch": True}, "batch: got True"),
        ({"steps": 0}, "steps: got 0"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"learning_rate": 0}, "learning_rate: got 0"),
        ({"clip": -1.0}, "clip: got -1.0"),
        ({"weight_decay": -0.1}, "weight_decay: got -0.1"),
        ({"betas": (0.9, 1.0)}, "betas: got"),
        ({"loss": "triplet"}, "loss: got 'triplet', expected one of contrastive, sigmoid"),
    ],
)
def test_wrong_recipes(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"steps": 5, "batch": 4, **changes})


def test_recipes_from_plain_data():
    recipe = Recipe(5, 4, frozen=("visual.*",), betas=(0.9, 0.99))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    with pytest.raises(ValueError, match="lr: no field of a recipe; known: steps"):
        Recipe.from_dict({"steps": 1, "batch": 2, "lr": 3})
    with pytest.raises(ValueError, match="batch: missing"):
        Recipe.from_dict({"steps": 1})


def test_one_pair_is_refused():
    trainer = make_trainer("vit")
    with pytest.raises(ValueError, match="data: got 1 pair, expected at least 2"):
        Trainer(trainer.network, checks.Arrays(32, 1), checks.encode, trainer.recipe)


def test_patterns_that_freeze_nothing_or_all():
    with pytest.raises(ValueError, match=r"frozen: no parameter's name fits 'vision\.\*'"):
        make_trainer("vit", frozen=("vision.*",))
    with pytest.raises(ValueError, match="leaves nothing to train"):
        make_trainer("vit", frozen=("*",))


def thinned(trainer, keep):
    """The trainer's data with all but the first `keep` pairs of each batch broken."""
    load = trainer.data.load
    trainer.data.load = lambda i, e: tuple(part[:keep] for part in load(i, e))
    lines = []
    trainer.report = trainer.watcher.report = lines.append
    return lines


def test_batches_with_broken_pictures_are_smaller():
    trainer = make_trainer("vit")
    thinned(trainer, 5)
    trainer.run(until=3)
    assert trainer.samples == 15


def test_batches_without_pairs_are_left_out_and_then_end_the_run():
    trainer = make_trainer("vit")
    lines = thinned(trainer, 1)
    trainer.run(until=5)
    assert (trainer.samples, trainer.skipped, len(lines)) == (0, 5, 1)
    assert "fewer than two usable pairs" in lines[0]
    with pytest.raises(TrainingError, match=f"{MOST_EMPTY} batches in a row"):
        trainer.run()


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on(tmp_path, monkeypatch):
    trainer = make_trainer("vit", folder=tmp_path, steps=8, save_every=2)
    lines = []
    trainer.report = lines.append
    trainer.run(until=2)
    before = (tmp_path / STATE).read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):  # the last save is not optional
            trainer.run(until=6)
        assert (tmp_path / STATE).read_bytes() == before
        assert len(lines) == 2
        assert all("no checkpoint could be written" in line for line in lines)
        assert trainer.step == 6
    trainer.run()
    _, notes = state.read_state(tmp_path / STATE)
    assert notes["progress"]["step"] == 8
    assert {p.name for p in tmp_path.iterdir()} == {STATE, report.LOG, report.PLOT}


def test_a_log_that_cannot_be_written_is_told_once(tmp_path):
    lines = []
    log = report.Log(tmp_path / "missing" / "log.jsonl", lines.append)
    record = a_record(0)
    for _ in range(3):
        log.write(record)
    assert log.lost == 3
    assert len(lines) == 1
    assert "training continues" in lines[0]


def test_a_cut_off_log_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    assert report.read_log(path) == [{"step": 0, "loss": 1.0}]


REFERENCES = {"chance": 3.0, "floor": 0.2}
MEASURES = {"scale": 20.0, "image_cosine": 0.1, "text_cosine": 0.1}


def a_record(step, loss=1.0, references=REFERENCES, **measures):
    """measures: instead of those of the losses over embeddings."""
    measures = MEASURES | measures
    return report.Record(step, 0, loss, references, 1.0, 1e-3, measures, 8, 8, 1.0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"loss": 2.95}, "stayed at 3.000, which is what guessing gives, for 300 steps"),
        ({"loss": 2.93, "references": {"chance": 3.0}}, "stayed at 3.000, which is what guessing"),
        ({"loss": 2.9}, None),  # a little has been learned: 97 % of the way down from chance
        ({"loss": 2.9, "references": {"chance": 3.0}}, None),
        ({"loss": 2.95, "references": {"floor": 0.2}}, None),
        ({"loss": 2.95, "references": {}}, None),
        ({"image_cosine": 0.999}, "image tower has collapsed"),
        ({"text_cosine": 0.999}, "text tower has collapsed"),
        ({"scale": 100.0}, "at its limit"),
        ({}, None),
    ],
)
def test_warnings(changes, word):
    lines = []
    watcher = report.Watcher(lines.append)
    for step in range(2 * report.STUCK_AFTER):
        watcher.look(a_record(step, **changes), 10, 100.0)
    if word is None:
        assert lines == []
    else:
        assert len(lines) == 1, "each warning is given once"
        assert word in lines[0]
        assert lines[0].startswith("warning: ")


@pytest.mark.parametrize(
    "changes", [{"loss": 2.95}, {"image_cosine": 0.999}, {"text_cosine": 0.999}]
)
def test_no_warning_inside_the_warm_up(changes):
    """The steps of the warm-up do not count: a warning comes as late as if the run began then."""
    first = []
    for warm_up in (0, 40, 10 * report.STUCK_AFTER):
        lines, told = [], None
        watcher = report.Watcher(lines.append)
        for step in range(2 * report.STUCK_AFTER):
            watcher.look(a_record(step, **changes), warm_up, 100.0)
            told = step if lines and told is None else told
        first.append(told)
    assert first == [first[0], first[0] + 40, None]
    assert first[0] == (report.STUCK_AFTER - 1 if "loss" in changes else 0)


def test_smoothing_has_no_bias():
    """A constant stays what it is, and a line lags by what the weights say, from the start on."""
    assert report.smoothed([3.0] * 50) == pytest.approx([3.0] * 50)
    line = [5.0 - step for step in range(120)]
    for n, value in enumerate(report.smoothed(line, 0.95), 1):
        weights = 0.95 ** np.arange(n)[::-1]
        assert value == pytest.approx(np.average(line[:n], weights=weights))
    assert report.smoothed([4.0, 2.0], 0.95)[1] == pytest.approx(3.0, abs=0.03)  # hardly 3.9


def test_the_bar_counts_steps_and_fits_eighty_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    trainer = make_trainer("vit", steps=6)
    trainer.progress = True
    trainer.run(until=4)
    lines = [line.rstrip() for line in capsys.readouterr().err.replace("\r", "\n").splitlines()]
    assert "4/4" in lines[-1]
    assert "pairs" not in lines[-1]
    long = report.Record(0, 0, 11.512, {"chance": 11.513}, 1.0, 1.0, {}, 8, 8, 1.0).short()
    bar = loop.tqdm_bar(250_000, 123_456, disable=False)
    bar.start_t -= 36_000
    bar.set_postfix_str(long)
    bar.close()
    last = capsys.readouterr().err.replace("\r", "\n").rstrip().splitlines()[-1]
    assert len(last) < 80
    assert long in last
    assert "123456/250000" in last


# ------------------------------------------------------------------------ resuming


def test_another_runs_checkpoint_is_refused(tmp_path):
    make_trainer("vit", folder=tmp_path, steps=2).run()
    other = make_trainer("vit", folder=tmp_path, steps=3)
    with pytest.raises(state.StateError, match=r"recipe\.steps = 2, expected 3"):
        other.resume()
    (tmp_path / STATE).write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(state.StateError, match="no checkpoint of a training run"):
        other.resume()


def test_more_steps_are_refused_with_the_way_out(tmp_path):
    make_trainer("vit", folder=tmp_path, steps=2).run()
    with pytest.raises(state.StateError, match=r"expected 3 .* choose another --out, with --init"):
        make_trainer("vit", folder=tmp_path, steps=3).resume()
    with pytest.raises(state.StateError, match="choose another folder, or the same settings"):
        make_trainer("vit", folder=tmp_path, steps=2, seed=1).resume()


@pytest.mark.parametrize("loss", list(OBJECTIVES))
def test_every_loss_resumes_with_all_its_state(loss):
    """The sigmoid loss's bias has running means of its own."""
    checks.check_resume("vit", OBJECTIVES[loss])


def test_no_checkpoint_is_no_error(tmp_path):
    assert not make_trainer("vit", folder=tmp_path / "new").resume()
    assert not make_trainer("vit").resume()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_step_and_leaves_a_checkpoint(number, tmp_path):
    trainer = make_trainer("vit", folder=tmp_path, save_every=1000)
    step = trainer.optimizer.step

    def interrupted(rate):  # in the middle of step 4: some gradients are there, no parameter moved
        if trainer.optimizer.steps == 4:
            os.kill(os.getpid(), number)
        step(rate)

    trainer.optimizer.step = interrupted
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert state.read_state(tmp_path / STATE)[1]["progress"]["step"] == 5
    again = make_trainer("vit", folder=tmp_path, save_every=1000)
    assert again.resume()
    again.run(until=10)
    whole = make_trainer("vit", save_every=1000)
    whole.run(until=10)
    checks.same_bits(whole, again)


def test_a_second_interrupt_does_not_wait(tmp_path):
    trainer = make_trainer("vit", folder=tmp_path, save_every=1000)

    def stuck(rate):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one waited too")

    trainer.optimizer.step = stuck
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert not (tmp_path / STATE).exists()


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training_checks import make_trainer
trainer = make_trainer({kind!r}, "float32", "numba", Path(sys.argv[1]), steps=80, save_every=2)
trainer.resume()
print("at", trainer.step, flush=True)
trainer.run()
print("done", flush=True)
"""


def start(kind, folder):
    code = RUN.format(tests=str(Path(__file__).parents[1] / "support"), kind=kind)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def last_step(folder):
    log = folder / report.LOG
    rows = report.read_log(log) if log.exists() else []
    return rows[-1]["step"] if rows else -1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_killed_at_ten_random_moments(kind, tmp_path):
    """kill -9, again and again: the run still ends in the bits of one that was left alone."""
    chance = random.Random(5)
    killed = 0
    for _ in range(10):
        before = last_step(tmp_path)
        process = start(kind, tmp_path)
        assert process.stdout.readline().startswith("at")
        deadline = (
            time.monotonic() + 300
        )  # a fresh cache compiles first, and the machine may be busy
        goal = before + chance.randint(2, 7)
        while last_step(tmp_path) < goal and process.poll() is None:
            assert time.monotonic() < deadline, "the run makes no progress"
            time.sleep(chance.uniform(0.001, 0.02))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert killed == 10, "the run was over too early for the kills to mean anything"
    process = start(kind, tmp_path)
    assert process.stdout.readlines()[-1] == "done\n"
    assert process.wait() == 0
    quiet = tmp_path / "quiet"
    process = start(kind, quiet)
    process.communicate()
    for name, x in state.read_state(quiet / STATE)[0].items():
        assert np.array_equal(x, state.read_state(tmp_path / STATE)[0][name]), name
    logs = [report.read_log(folder / report.LOG) for folder in (tmp_path, quiet)]
    assert [r["step"] for r in logs[0]] == list(range(80))
    assert [r["loss"] for r in logs[0]] == [r["loss"] for r in logs[1]]
