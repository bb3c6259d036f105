"""The parts of a run by themselves: recipe, optimiser, schedule, data, checkpoints."""

import errno
import json
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import training_checks as checks
from full_disk import Disk

from miniclip.nn.module import Module, Parameter
from miniclip.training import data as data_module
from miniclip.training import objectives, optimizer, state
from miniclip.training.data import SceneData, batches, load_batch, place_of, shuffled
from miniclip.training.gradients import gradients, unchanged_buffers
from miniclip.training.recipe import Recipe, trained_parameters
from miniclip.training.schedule import learning_rate
from miniclip.training.targets import contrastive_floor, positives
from miniclip.world.captions import caption
from miniclip.world.scenes import TRAINING_WORLD, World, make_scene

NUMPY = checks.make_trainer("vit").network.ops

# ------------------------------------------------------------------------ recipe


def test_what_a_recipe_is_where_nothing_is_said():
    """As docs/training.md has it; models that are trained again depend on every number."""
    assert Recipe(5, 4).as_dict() == {
        "steps": 5,
        "batch": 4,
        "chunk": None,
        "learning_rate": 1e-3,
        "warm_up": 100,
        "betas": (0.9, 0.98),
        "eps": 1e-6,
        "weight_decay": 0.1,
        "clip": 1.0,
        "loss": "contrastive",
        "seed": 0,
        "frozen": (),
        "save_every": 200,
    }


LEAST = {"steps": 1, "batch": 2, "warm_up": 0, "seed": 0, "save_every": 1, "chunk": 1}


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_the_least_whole_numbers(name, least):
    assert getattr(Recipe(**{"steps": 5, "batch": 4, name: least}), name) == least
    why = " (a single pair has nothing to be compared with)" if name == "batch" else ""
    for wrong in (least - 1, float(least), "3", True):
        with pytest.raises(ValueError, match="expected") as error:
            Recipe(**{"steps": 5, "batch": 4, name: wrong})
        expected = f"{name}: got {wrong!r}, expected a whole number from {least} on{why}"
        assert str(error.value) == expected


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        *((name, [1e-9, 3], [0, -1, math.inf, math.nan, "1", True, None])
          for name in ("learning_rate", "eps", "clip")),
        ("weight_decay", [0, 0.0, 2], [-1e-9, math.inf, "1", False, None]),
        ("betas", [(0, 0), (0.5, 0.999)],
         [(0.9,), (0.9, 1), (1.0, 0.9), (-0.1, 0.9), (0.9, 0.9, 0.9), (0.9, True), ("a", 0)]),
    ],
)  # fmt: skip
def test_numbers_at_their_bounds(name, right, wrong):
    for value in right:
        assert getattr(Recipe(5, 4, **{name: value}), name) == value
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{name}: got "):
            Recipe(5, 4, **{name: value})


def test_lists_become_tuples():
    recipe = Recipe(5, 4, betas=[0.5, 0.6], frozen=["a", "b"])
    assert (recipe.betas, recipe.frozen) == ((0.5, 0.6), ("a", "b"))
    again = {"steps": 5, "batch": 4, "betas": [0.5, 0.6], "frozen": ["a", "b"]}
    assert Recipe.from_dict(again) == recipe


def test_fields_that_are_unknown_or_missing():
    known = "steps, batch, chunk, learning_rate, warm_up, betas, eps, weight_decay, clip, loss"
    for values, message in (
        ({"b": 1, "a": 2}, f"a: no field of a recipe; known: {known}, seed, frozen, save_every"),
        ({}, "batch: missing in the recipe"),
        ({"batch": 2}, "steps: missing in the recipe"),
    ):
        with pytest.raises(ValueError, match=r"recipe") as error:
            Recipe.from_dict(values)
        assert str(error.value) == message


def test_frozen_parameters():
    named = dict.fromkeys(["a.x", "a.y", "b.x", "b.y"])
    assert list(trained_parameters(named, ())) == list(named)
    assert list(trained_parameters(named, ("a.*", "*.y"))) == ["b.x"]
    for frozen, message in (
        (("a.*", "A.*"), "frozen: no parameter's name fits 'A.*'; names look like a.x, a.y, b.x"),
        (("a.*", "b.*"), "frozen: a.*, b.* leaves nothing to train"),
    ):
        with pytest.raises(ValueError, match="frozen") as error:
            trained_parameters(named, frozen)
        assert str(error.value) == message


# ------------------------------------------------------------------------ optimiser


def parameter(value, gradient=None):
    one = Parameter(np.array(value))
    if gradient is not None:
        one.add_grad(np.array(gradient))
    return one


def test_adamw_as_torch_where_nothing_is_said():
    """The defaults are CLIP's; a matrix decays, a vector does not, what has no gradient stays."""
    rng = np.random.default_rng(0)
    start = {
        "w": rng.standard_normal((3, 2)),
        "b": rng.standard_normal(4),
        "still": np.ones((2, 2)),
    }
    named = {name: Parameter(x.copy()) for name, x in start.items()}
    ours = optimizer.AdamW(NUMPY, named)
    theirs = {name: torch.tensor(x, requires_grad=True) for name, x in start.items()}
    groups = [
        {"params": [theirs["w"]], "weight_decay": 0.1},
        {"params": [theirs["b"]], "weight_decay": 0.0},
    ]
    their = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98), eps=1e-6)
    for rate in (0.1, 0.03, 0.2):
        for name in ("w", "b"):
            gradient = 1e-5 * rng.standard_normal(start[name].shape)  # so small that eps counts
            named[name].grad = gradient
            theirs[name].grad = torch.tensor(gradient)
        for group in their.param_groups:
            group["lr"] = rate
        ours.step(rate)
        their.step()
    assert ours.steps == 3
    for name, p in named.items():
        np.testing.assert_allclose(p.data, theirs[name].detach().numpy(), rtol=1e-10)
    assert set(ours.state()) == {f"{kind}.{n}" for kind in ("mean", "square") for n in start}
    again = optimizer.AdamW(NUMPY, named)
    assert again.steps == 0
    assert not any(x.any() for x in again.state().values())
    again.load_state({n: x.astype(np.float32) for n, x in ours.state().items()}, 3)
    assert again.steps == 3
    for name, x in again.state().items():
        assert x.dtype == np.float64  # of the parameter
        np.testing.assert_allclose(x, ours.state()[name], rtol=1e-6)
    with pytest.raises(KeyError, match=r"square\.w"):
        again.load_state({f"mean.{n}": start[n] for n in start}, 3)


def test_clipping_as_torch():
    gradients = {"a": np.array([[3.0, 4.0]]), "b": np.array([12.0])}
    for largest in (13.0, 12.999, 6.5, 100.0):
        ours = [parameter(np.zeros_like(g), g) for g in gradients.values()] + [parameter([0.0])]
        theirs = [torch.zeros(g.shape, dtype=torch.float64) for g in gradients.values()]
        for p, g in zip(theirs, gradients.values(), strict=True):
            p.grad = torch.tensor(g)
        assert optimizer.clip_gradients(iter(ours), largest) == 13.0
        if largest < 13:
            torch.nn.utils.clip_grad_norm_(theirs, largest)
        for p, their in zip(ours, theirs, strict=False):
            np.testing.assert_allclose(p.grad, their.grad.numpy(), rtol=1e-12)
        assert ours[-1].grad is None
        if largest >= 13:
            np.testing.assert_array_equal(ours[0].grad, gradients["a"])


def test_the_length_of_gradients_is_summed_in_double_precision():
    many = parameter(np.zeros(1 << 20, np.float32), np.full(1 << 20, 0.1, np.float32))
    exact = math.sqrt((1 << 20) * float(np.float32(0.1) * np.float32(0.1)))
    assert optimizer.global_norm([many]) == pytest.approx(exact, rel=1e-12)
    assert optimizer.global_norm([]) == 0.0


def test_the_clamp_of_the_temperature():
    for start, largest, after in (
        (5.0, (), math.log(100)), (-1.0, (), 0.0), (3.0, (), 3.0), (3.0, (2.0,), 2.0),
    ):  # fmt: skip
        p = parameter(start, 1.0)
        optimizer.clamp_log_scale({"other": parameter(9.0, 1.0), "logit_scale": p}, *largest)
        assert p.data == after
    still = parameter(5.0)
    optimizer.clamp_log_scale({"logit_scale": still})
    assert still.data == 5.0
    optimizer.clamp_log_scale({"other": parameter(9.0, 1.0)})


@pytest.mark.parametrize(
    ("name", "shape", "decays"),
    [
        ("visual.proj", (2, 3), True), ("visual.conv1.weight", (2, 3, 4, 4), True),
        ("ln.weight", (3,), False), ("logit_scale", (), False),
        ("token_embedding.weight", (2, 3), False), ("visual.positional_embedding", (2, 3), False),
        ("visual.class_embedding", (2, 3), False), ("positional_embedding.other", (2, 3), True),
    ],
)  # fmt: skip
def test_what_decays(name, shape, decays):
    assert optimizer.is_decayed(name, parameter(np.zeros(shape))) is decays


@pytest.mark.parametrize(("steps", "warm_up"), [(10, 4), (10, 0), (7, 1), (4, 4), (3, 9)])
def test_the_rate_of_every_step(steps, warm_up):
    """A line up, then half a cosine down: by the complex exponential, which it does not use."""
    for step in range(steps):
        if step < warm_up:
            expected = 0.3 * (step + 1) / warm_up
        else:
            turn = np.exp(1j * np.pi * (step - warm_up) / (steps - warm_up))
            expected = 0.3 * (1 + turn.real) / 2
        assert learning_rate(step, steps, 0.3, warm_up) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(5, 5, 0.3, 5) == 0.3  # a warm-up of the whole run, and one step more


# ------------------------------------------------------------------------ objectives and targets


def test_targets_of_repeated_captions():
    np.testing.assert_array_equal(positives(["b", "a", "b"]), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert positives(["b", "a", "b"]).dtype == np.float64
    assert positives(["b", "a"]) is None


def test_the_floor_is_the_mean_of_both_directions():
    """Of targets that are not symmetric: the entropy of the rows' and of the columns' shares."""
    targets = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1]], np.float32)
    rows = (math.log(3) + math.log(2) + math.log(1)) / 3
    columns = (math.log(1) + math.log(2) + math.log(3)) / 3
    assert contrastive_floor(targets) == pytest.approx((rows + columns) / 2, rel=1e-14)
    targets = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 0]], np.float16)
    lopsided = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 0]], np.float16)
    assert contrastive_floor(targets) == pytest.approx(math.log(3) / 3, rel=1e-14)
    expected = (2 * math.log(3) + math.log(3) + 2 * math.log(2)) / 6
    assert contrastive_floor(lopsided) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_mean_cosine_of_different_rows(n):
    unit = np.random.default_rng(n).standard_normal((n, 4))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = [float(a @ b) for i, a in enumerate(unit) for b in unit[i + 1 :]]
    assert objectives.mean_cosine(unit) == pytest.approx(np.mean(cosines), rel=1e-9, abs=1e-12)


def test_what_an_objective_that_says_nothing_does():
    class Bare(objectives.EmbeddingObjective):
        name = "bare"

    network = SimpleNamespace()
    for call, what in (
        (lambda: objectives.Objective()(network, None), "Objective has no __call__"),
        (lambda: Bare().loss(network, None, None, None), "Bare has no loss"),
        (lambda: Bare().chance(3), "Bare has no chance"),
        (lambda: Bare().floor(None), "Bare has no floor"),
    ):
        with pytest.raises(NotImplementedError) as error:
            call()
        assert str(error.value) == what
    assert objectives.Objective().reference_lines(None) == {}
    assert objectives.Objective.module is None
    batch = objectives.Batch(1, 2)
    assert (batch.captions, batch.targets, batch.step) == ((), None, 0)
    assert objectives.Outcome(np.float32(1.5)) == objectives.Outcome(1.5, {})


@pytest.mark.parametrize("n", [2, 5])
def test_the_chance_of_the_sigmoid_loss(n):
    """The least of the loss over one logit for all pairs, by trying many."""
    logits = np.linspace(-8, 4, 12001)
    losses = np.log1p(np.exp(-logits)) + (n - 1) * np.log1p(np.exp(logits))
    assert objectives.Sigmoid().chance(n) == pytest.approx(losses.min(), rel=1e-6)
    assert objectives.Sigmoid().floor(None) == 0.0
    assert objectives.Contrastive().chance(n) == pytest.approx(np.log(n))


def test_siglips_start():
    bias = objectives.Sigmoid().module.logit_bias.data
    assert (float(bias), bias.shape, bias.dtype) == (-10.0, (), np.float32)
    network = SimpleNamespace(logit_scale=parameter(np.float32(3.0)))
    objectives.Sigmoid().prepare(network)
    assert network.logit_scale.data == np.float32(math.log(10))
    assert network.logit_scale.data.dtype == np.float32


@pytest.mark.parametrize(("chunk", "calls"), [(None, 1), (9, 1), (8, 1), (7, 4), (4, 4), (3, 6)])
def test_how_often_a_tower_runs(chunk, calls):
    """Once where the batch is one chunk; else twice for every chunk, the last one shorter."""
    trainer = checks.make_trainer("vit")
    network, sizes = trainer.network, {"visual": [], "text": []}
    for name, seen in sizes.items():
        tower = getattr(network, name)
        tower.forward = lambda x, forward=tower.forward, seen=seen: (
            seen.append(len(x)),
            forward(x),
        )[1]
    pixels, captions = trainer.data.load(range(8), 0)
    zero = np.zeros((8, 16))
    value, images, texts = gradients(
        network, pixels, checks.encode(captions), lambda a, b: (np.array(2.0), zero, zero), chunk
    )
    assert float(value) == 2.0
    assert images.shape == texts.shape == (8, 16)
    for seen in sizes.values():
        assert len(seen) == calls
        assert sum(seen) == (8 if calls == 1 else 16)


def test_buffers_are_put_back_whatever_happens():
    module = Module()
    module.buffers_["mean"] = 1

    def broken():
        with unchanged_buffers(module):
            module.buffers_["mean"] = 2
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert module.buffers_ == {"mean": 1}


# ------------------------------------------------------------------------ order and drawn data


def as_pixels(pictures):
    return np.stack([np.asarray(p, np.float32).transpose(2, 0, 1) for p in pictures])


def test_every_option_of_drawn_data():
    """By the scenes, captions and random numbers that its docstring names."""
    plain = SceneData(as_pixels, 30)
    assert (len(plain), plain.seed, plain.wrong, plain.language) == (30, 0, 0.0, None)
    assert plain.world is TRAINING_WORLD
    assert plain.load([0], 0)[0].shape == (1, 3, 64, 64)
    single = World(mix=(1.0, 0.0, 0.0, 0.0))
    data = SceneData(as_pixels, 30, 5, single, wrong=0.5, language="zh", size=32)
    assert data.load([3, 1], 0)[0].shape == (2, 3, 32, 32)
    assert [data.scene(i) for i in range(9)] == [make_scene(single, 5, i) for i in range(9)]
    for i in range(30):
        rng = np.random.default_rng([5, i, 2])
        other = i if rng.random() >= 0.5 else int(rng.integers(30))
        assert data.described(i) == other
        for epoch in (0, 3):
            expected = caption(
                make_scene(single, 5, other), np.random.default_rng([5, i, 3, epoch]), "zh"
            )
            assert data.caption(i, epoch) == data.load([i], epoch)[1][0] == expected
    all_wrong = SceneData(as_pixels, 30, wrong=1)
    assert sum(all_wrong.described(i) == i for i in range(30)) < 5
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"^wrong: got {wrong}, expected a share from 0 to"):
            SceneData(as_pixels, 3, wrong=wrong)


def test_the_order_of_an_epoch():
    np.testing.assert_array_equal(
        shuffled(9, 2, 7), np.random.default_rng([2, 7, 4]).permutation(9)
    )
    batch = load_batch(checks.Arrays(32), 4, 8, 6)
    expected = np.random.default_rng([6, 1, 4]).permutation(24)[8:16]
    assert (batch.step, batch.epoch, batch.indices) == (4, 1, tuple(expected))
    assert all(type(i) is int for i in batch.indices)
    assert batch.captions == [checks.CAPTIONS[i] for i in expected]
    assert [place_of(step, 10, 3) for step in (2, 3, 8)] == [(0, 6), (1, 0), (2, 6)]


class Noted(checks.Arrays):
    """Notes who loads, and how many load at a time."""

    def __init__(self):
        super().__init__(32)
        self.threads, self.at_once, self.now = [], 0, 0
        self.second = threading.Event()

    def load(self, indices, epoch):
        self.now += 1
        self.at_once = max(self.at_once, self.now)
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == 2:
            self.second.set()
        time.sleep(0.02)
        answer = super().load(indices, epoch)
        self.now -= 1
        return answer


def test_the_next_batch_is_loaded_while_the_last_one_is_used():
    """One at a time, by one thread of its own, and none that nobody asked for."""
    data = Noted()
    coming = batches(data, range(5, 8), 8, 0)
    assert next(coming).step == 5
    assert data.second.wait(timeout=20)  # without anybody asking for it
    assert [batch.step for batch in coming] == [6, 7]
    assert len(data.threads) == 3
    assert set(data.threads) == {"miniclip-batch_0"}
    assert data.at_once == 1
    assert list(batches(data, range(5, 5), 8, 0)) == []
    assert data_module.shuffled.cache_info().maxsize >= 2  # two epochs meet in a step


# ------------------------------------------------------------------------ checkpoints


def test_a_state_comes_back_as_it_was(tmp_path):
    tensors = {
        "number": np.array(3.5, np.float64),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "half": np.ones((1, 2), np.float16),
    }
    state.write_state(tmp_path / "s", tensors, {"progress": {"step": 4}})
    again, notes = state.read_state(tmp_path / "s")
    assert notes == {"format": 1, "progress": {"step": 4}}
    assert set(again) == set(tensors)
    for name, x in tensors.items():
        assert (again[name].shape, again[name].dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(again[name], x)


@pytest.mark.parametrize(
    ("metadata", "notes"),
    [
        (None, "None"),
        ({"other": "x"}, "None"),
        ({"miniclip.training": "3"}, "3"),
        ({"miniclip.training": '{"format": 2}'}, "{'format': 2}"),
        ({"miniclip.training": "{}"}, "{}"),
        ({"miniclip.training": json.dumps({"long": "x" * 99})}, "{'long': '" + 50 * "x"),
    ],
)
def test_files_that_are_no_state_of_this_version(metadata, notes, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "s"
    save_file({"a": np.ones(1)}, path, metadata)
    with pytest.raises(state.StateError) as error:
        state.read_state(path)
    assert str(error.value) == (
        f"{path}: no checkpoint of a training run of this version (its notes are {notes}, expected "
        "format 1); to start from its weights use --init"
    )


def test_a_state_that_is_not_there(tmp_path):
    with pytest.raises(state.StateError, match=r"s: no checkpoint of a training run \("):
        state.read_state(tmp_path / "s")
    (tmp_path / "s").write_bytes(b"torn")
    with pytest.raises(state.StateError, match=r"s: no checkpoint of a training run \("):
        state.read_state(tmp_path / "s")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_room_is_written_in_blocks(size, tmp_path):
    """A hole in a file would keep no room, and one write of it all would need its memory."""
    sizes = iter([size, 5])
    room = state.Room(tmp_path, lambda: next(sizes))
    with Disk(tmp_path).mounted() as disk:
        room.take()
    assert room.file == tmp_path / ".room.tmp"
    assert room.file.stat().st_size == size
    assert len(disk.written) == -(-size // (1 << 20))
    room.take()  # as much as is needed by then
    assert room.file.stat().st_size == 5
    room.give_back()
    room.give_back()
    assert list(tmp_path.iterdir()) == []


def test_room_that_is_not_there(tmp_path):
    room = state.Room(tmp_path, lambda: 3 << 20)
    with Disk(tmp_path, lambda number: number == 2).mounted(), pytest.raises(OSError) as error:
        room.take()
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(room.file))
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_parts():
    assert state.size_of([np.zeros((2, 3), np.float32), np.zeros((), np.float64)]) == 32
    assert state.size_of([]) == 0
    named = {"a.x": 1, "a.b.a.y": 2, "b.a.x": 3}
    assert state.part(named, "a.") == {"x": 1, "b.a.y": 2}
