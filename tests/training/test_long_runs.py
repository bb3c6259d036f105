"""What keeps a long run safe, and what it says: bounds, room on the disk, messages word by word."""

import contextlib
import errno
import json
import math
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import training_checks as checks
from full_disk import Disk
from training_checks import make_trainer

from miniclip.training import loop, state
from miniclip.training.loop import MOST_EMPTY, STATE, Trainer, TrainingError
from miniclip.training.objectives import Objective, Outcome
from miniclip.training.report import LOG, PLOT, read_log


class Idle(Objective):
    """Costs nothing and teaches nothing; its loss of a step may be given."""

    name = "idle"

    def __init__(self, losses=(), during=lambda step: None):
        self.losses, self.during = dict(losses), during

    def __call__(self, network, batch, chunk=None):
        self.during(batch.step)
        return Outcome(self.losses.get(batch.step, 1.0))


def idle(folder=None, losses=(), during=lambda step: None, lines=None, **changes):
    lines = [] if lines is None else lines
    objective = Idle(losses, during)
    return make_trainer(
        "vit", folder=folder, objective=objective, report=lines.append, **{"steps": 6, **changes}
    )


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    monkeypatch.setattr(loop, "plot_log", lambda log, picture: picture.write_bytes(b"a plot"))


def thinned(trainer, keeps):
    """The first keeps(step) pairs of each batch; the others are broken."""
    load, steps = trainer.data.load, iter(range(10**6))

    def some(indices, epoch):
        keep = keeps(next(steps))
        return tuple(part[:keep] for part in load(indices, epoch))

    trainer.data.load = some


# ------------------------------------------------------------------------ the trainer


def test_a_trainer_where_nothing_is_said():
    given = idle()
    trainer = Trainer(given.network, checks.Arrays(32, 2, ["0", "1"]), checks.encode, given.recipe)
    assert trainer.report is print
    assert trainer.folder is trainer.progress is trainer.room is None
    assert trainer.objective.name == "contrastive"
    assert trainer.batch_size == 2  # two pairs are enough, and are the batch
    assert (trainer.step, trainer.samples, trainer.empty, trainer.skipped) == (0, 0, 0, 0)
    assert trainer.about == {"recipe": given.recipe.as_dict(), "pairs": 2}
    about = Trainer(
        given.network, trainer.data, checks.encode, given.recipe, None, {"data": "d"}
    ).about
    assert about == {"data": "d", **trainer.about}
    with pytest.raises(ValueError, match="data: got 1 pair") as error:
        Trainer(given.network, checks.Arrays(32, 1, ["0"]), checks.encode, given.recipe)
    assert str(error.value) == (
        "data: got 1 pair, expected at least 2 (a single pair has nothing to be compared with)"
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_objectives_parameters_have_the_networks_dtype(dtype):
    trainer = make_trainer("vit", dtype, loss="sigmoid")
    assert trainer.module.logit_bias.data.dtype == np.dtype(dtype)
    assert trainer.about["recipe"]["loss"] == "sigmoid"


@pytest.mark.parametrize(("until", "end"), [(None, 6), (2, 2), (6, 6), (99, 6), (0, 0)])
def test_how_far_a_run_goes(until, end):
    trainer = idle()
    trainer.run(until)
    assert trainer.step == end
    trainer.run()
    assert (trainer.step, trainer.samples) == (6, 6 * 8)


@pytest.mark.parametrize("losses", [(), {3: math.nan}])
def test_after_a_run_the_network_answers_again(losses):
    """Also after one that failed: BatchNorm by its own statistics."""
    seen = []
    trainer = idle(losses=losses, during=lambda step: seen.append(trainer.network.training))
    with pytest.raises(TrainingError) if losses else contextlib.nullcontext():
        trainer.run()
    assert set(seen) == {True}
    assert not trainer.network.training
    assert not trainer.module.training


@pytest.mark.parametrize("name", ["numba", "numpy"])
def test_freed_memory_is_kept_where_kernels_are_compiled(name, monkeypatch):
    called = []
    monkeypatch.setattr(loop, "keep_freed_memory", lambda: called.append(1))
    trainer = idle(steps=1)
    ops = SimpleNamespace(**{**vars(trainer.network.ops), "name": name})
    trainer.network.ops = trainer.optimizer.ops = ops
    trainer.run()
    assert called == [1] * (name == "numba")


def test_two_pairs_make_a_batch_and_one_does_not():
    trainer = idle()
    thinned(trainer, lambda step: 2 if step % 2 else 1)
    trainer.run()
    assert (trainer.samples, trainer.skipped) == (6, 3)


def test_empty_batches_are_counted_in_a_row():
    """The twentieth ends the run; a good one in between begins the count anew."""
    lines = []
    trainer = idle(lines=lines, steps=100)
    thinned(trainer, lambda step: 2 if step == 15 else 0)
    with pytest.raises(TrainingError) as error:
        trainer.run()
    assert str(error.value) == (
        f"step {15 + MOST_EMPTY}: 20 batches in a row had fewer than two usable pairs; look at the "
        "reports of broken pictures above"
    )
    assert lines == ["warning: step 0: fewer than two usable pairs in the batch; left out"]
    assert trainer.skipped == 15 + MOST_EMPTY


def test_what_is_logged_of_a_step(tmp_path, monkeypatch):
    seconds = iter([10.0, 100.0, 101.23456, 102.5])
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    trainer = idle(tmp_path / "deep" / "run", losses={1: 2.0}, steps=2, warm_up=4)
    trainer.run()
    rows = read_log(tmp_path / "deep" / "run" / LOG)
    assert [row["seconds"] for row in rows] == [1.235, 2.5]  # from when the run began
    assert [row["loss"] for row in rows] == [1.0, 2.0]
    assert [row["rate"] for row in rows] == [5e-4, 1e-3]
    assert [row["samples"] for row in rows] == [8, 16]
    assert [row["gradient"] for row in rows] == [0.0, 0.0]


# ------------------------------------------------------------------------ no numbers


@pytest.mark.parametrize(
    ("loss", "norm", "bad"),
    [(math.nan, 1.0, "loss"), (math.inf, 1.0, "loss"), (1.0, math.nan, "gradient"),
     (2.5, math.inf, "gradient")],
)  # fmt: skip
@pytest.mark.parametrize("saved", ["no folder", "nothing", "checkpoint"])
def test_what_is_said_of_a_loss_that_is_no_number(loss, norm, bad, saved, tmp_path, monkeypatch):
    trainer = idle(None if saved == "no folder" else tmp_path, losses={4: loss}, batch=10)
    if saved == "checkpoint":
        (tmp_path / STATE).write_bytes(b"")
    monkeypatch.setattr(loop, "clip_gradients", lambda *_: norm if trainer.step == 5 else 1.0)
    with pytest.raises(TrainingError) as error:
        trainer.run()
    place = np.random.default_rng([0, 2, 4]).permutation(24)[:10].tolist()
    kept = "nothing is saved yet"
    if saved == "checkpoint":
        kept = f"the last good checkpoint is {tmp_path / STATE}"
    assert str(error.value) == (
        f"step 4: the {bad} is not a number (loss {loss}, gradient {norm}) on the pairs "
        f"{place[:8]}... of epoch 2, the first of them {checks.CAPTIONS[place[0]]!r}; {kept}. Try "
        "a lower learning rate, or look at these pairs"
    )
    assert not (tmp_path / ".room.tmp").exists()


# ------------------------------------------------------------------------ the bar


def test_where_a_bar_is_shown(capsys):
    for progress, shown in ((True, True), (False, False), (None, False)):  # this is no terminal
        trainer = idle(steps=2)
        trainer.progress = progress
        trainer.run()
        assert bool(capsys.readouterr().err) == shown
        trainer.run()  # nothing is left
        assert capsys.readouterr().err == ""


def test_the_bar_of_a_step(monkeypatch):
    calls = []

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self):
            calls.append("update")

        def set_postfix_str(self, text, refresh=True):
            calls.append((text, refresh))

    monkeypatch.setattr(loop, "tqdm_bar", lambda *given: calls.append(given) or Bar())
    trainer = idle(steps=3)
    trainer.progress = True
    trainer.step = 1
    trainer.run(2)
    assert calls == [(2, 1, False), ("loss 1.000", False), "update"]
    calls.clear()
    thinned(trainer, lambda step: 0)
    trainer.run()
    assert calls == [(3, 2, False), "update"]  # nothing new to show of a batch that is left out


def test_how_often_the_bar_is_drawn():
    bar = loop.tqdm_bar(5, 2, disable=False)
    assert (bar.mininterval, bar.total, bar.n) == (0.5, 5, 2)
    assert bar.bar_format == loop.BAR
    bar.close()
    assert loop.tqdm_bar(5, 0, disable=True).disable


# ------------------------------------------------------------------------ checkpoints


def test_when_checkpoints_are_written(tmp_path, monkeypatch):
    saved = []
    save = Trainer.save
    monkeypatch.setattr(Trainer, "save", lambda self: saved.append(self.step) or save(self))
    idle(tmp_path, steps=7, save_every=3).run()
    assert saved == [3, 6, 7]
    idle(steps=7, save_every=3).run()  # nowhere
    assert saved == [3, 6, 7]
    with pytest.raises(ValueError, match=r"^folder: got None, expected where checkpoints go$"):
        idle().save()


def test_the_room_that_is_kept(tmp_path):
    """Two checkpoints and the model's weights before the first one, one of them later."""
    sizes = []
    trainer = make_trainer(
        "vit", folder=tmp_path, loss="sigmoid", steps=4, save_every=2,
    )  # fmt: skip
    step = trainer.optimizer.step

    def measured(rate):
        sizes.append((tmp_path / ".room.tmp").stat().st_size)
        step(rate)

    trainer.optimizer.step = measured
    trainer.run()
    tensors, _ = state.read_state(tmp_path / STATE)
    everything = sum(x.nbytes for x in tensors.values())
    weights = sum(x.nbytes for n, x in tensors.items() if not n.startswith("optimizer."))
    assert sizes == [2 * everything + weights] * 2 + [everything + weights] * 2
    assert {path.name for path in tmp_path.iterdir()} == {STATE, LOG, PLOT}


def test_a_full_disk_in_the_middle_word_by_word(tmp_path):
    lines = []
    full = SimpleNamespace(now=False)
    trainer = idle(
        tmp_path, steps=4, save_every=2, lines=lines,
        during=lambda step: setattr(full, "now", step == 1),
    )  # fmt: skip
    log = tmp_path / LOG
    with Disk(tmp_path, lambda number: full.now).mounted():
        trainer.run()
    reason = f"[Errno {errno.ENOSPC}] No space left on device"
    assert len(lines) == 3
    assert lines[0] == f"warning: {log} could not be written ({reason}); training continues"
    assert lines[1].startswith(f"warning: step 2: no checkpoint could be written ({reason}: ")
    assert lines[1].endswith("); the one before stays, training continues")
    assert lines[2] == (
        "warning: step 2: the disk has no room left for the end of the run "
        f"({reason}: {str(tmp_path / '.room.tmp')!r}); make room, training continues"
    )
    assert [row["step"] for row in read_log(log)] == [0, 2, 3]
    assert state.read_state(tmp_path / STATE)[1]["progress"]["step"] == 4


@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk_at_the_end_word_by_word(before, tmp_path, monkeypatch):
    trainer = idle(tmp_path, steps=3, save_every=2 if before else 100)
    save = Trainer.save

    def failing(self):
        if self.step == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self)

    monkeypatch.setattr(Trainer, "save", failing)
    with pytest.raises(OSError, match="could not be written") as error:
        trainer.run()
    kept = "the checkpoint before it stays" if before else "nothing was saved before"
    assert str(error.value) == (
        f"{tmp_path / STATE}: step 3 could not be written (No space left on device); {kept}: make "
        "room and run the same command again"
    )

    def without_a_reason(self):
        raise OSError("torn")

    monkeypatch.setattr(Trainer, "save", without_a_reason)
    with pytest.raises(OSError, match=r"step 3 could not be written \(torn\); "):
        trainer.run()


def test_a_plot_that_cannot_be_written_costs_no_model(tmp_path, monkeypatch):
    def full(log, picture):
        raise OSError("torn")

    monkeypatch.setattr(loop, "plot_log", full)
    lines = []
    idle(tmp_path, steps=1, lines=lines).run()
    assert lines == [f"warning: {tmp_path / PLOT} could not be written (torn)"]
    assert (tmp_path / STATE).exists()


# ------------------------------------------------------------------------ resuming


def test_what_is_gone_on_with(tmp_path):
    first = idle(tmp_path, steps=6)
    thinned(first, lambda step: 1 if step == 1 else 3)
    first.run(until=4)
    again = idle(tmp_path, steps=6)
    assert again.resume() is True
    assert (again.step, again.samples, again.skipped) == (4, 9, 1)
    assert again.optimizer.steps == 3
    assert idle(tmp_path / "none").resume() is False
    assert idle().resume() is False


def with_about(folder, about, **changes):
    trainer = idle(folder, **changes)
    trainer.about = {**about, **trainer.about}
    return trainer


@pytest.mark.parametrize(
    ("mine", "theirs", "field", "found", "wanted"),
    [
        ({"data": "a"}, {"data": "b"}, "data", "'b'", "'a'"),
        ({"data": "a"}, {}, "data", "None", "'a'"),
        ({"scenes": {"x": 1, "y": (2, (3,))}}, {"scenes": {"x": 1, "y": [2, [4]]}}, "scenes.y",
         "[2, [4]]", "(2, (3,))"),
        ({"scenes": {"x": 1}}, {"scenes": {}}, "scenes.x", "None", "1"),
        ({"scenes": {"x": 1}}, {"scenes": 3}, "scenes", "3", "{'x': 1}"),
    ],
)  # fmt: skip
def test_another_run_word_by_word(mine, theirs, field, found, wanted, tmp_path):
    with_about(tmp_path, theirs, steps=1).run()
    with pytest.raises(state.StateError) as error:
        with_about(tmp_path, mine, steps=1).resume()
    assert str(error.value) == (
        f"{tmp_path / STATE}: a run with {field} = {found}, expected {wanted} as asked for now; "
        "choose another folder, or the same settings"
    )


def test_the_same_run_whatever_is_a_tuple(tmp_path):
    """JSON makes lists of them, inside others too; and a newer version may note more."""
    with_about(tmp_path, {"scenes": {"y": [2, [3]]}, "more": 1}, steps=1, frozen=["visual.*"]).run()
    assert with_about(
        tmp_path, {"scenes": {"y": (2, (3,))}}, steps=1, frozen=("visual.*",)
    ).resume()


def test_more_steps_word_by_word(tmp_path):
    idle(tmp_path, steps=1).run()
    with pytest.raises(state.StateError) as error:
        idle(tmp_path, steps=2).resume()
    assert str(error.value) == (
        f"{tmp_path / STATE}: a run with recipe.steps = 1, expected 2 as asked for now; the "
        "learning rate falls to zero over the steps of a run, so that none can be added: to train "
        f"its model further, choose another --out, with --init {tmp_path}"
    )


def test_a_checkpoint_that_lacks_a_tensor(tmp_path):
    idle(tmp_path, steps=1).run()
    tensors, notes = state.read_state(tmp_path / STATE)
    for absent in ("optimizer.mean.visual.proj", "network.visual.proj"):
        some = {name: x for name, x in tensors.items() if name != absent}
        state.write_state(tmp_path / STATE, some, notes)
        with pytest.raises(state.StateError, match="not a checkpoint of this network and") as error:
            idle(tmp_path, steps=1).resume()
        start = f"{tmp_path / STATE}: not a checkpoint of this network and the objective 'idle' ("
        assert str(error.value).startswith(start)
        assert "visual.proj" in str(error.value)


# ------------------------------------------------------------------------ interrupts


def test_what_an_interrupted_run_says(tmp_path):
    lines = []

    def interrupt(step):
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        idle(tmp_path, during=interrupt, lines=lines).run()
    assert lines == ["stopped after step 3; run the same command again to continue"]
    assert json.loads(json.dumps(state.read_state(tmp_path / STATE)[1]["progress"]))["step"] == 3
    assert not (tmp_path / ".room.tmp").exists()


def test_only_the_main_thread_waits_for_signals():
    """In another one, Python lets nobody set a handler: the run goes on without."""
    trainer = idle(steps=2)
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join(timeout=30)
    assert trainer.step == 2


def test_handlers_are_put_back(monkeypatch):
    """One that Python did not set, None, becomes the default: it cannot be set again."""
    ours, calls = object(), []
    before = {signal.SIGINT: ours, signal.SIGTERM: None}
    fake = SimpleNamespace(
        SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, SIG_DFL=signal.SIG_DFL,
        signal=lambda number, handler: calls.append((number, handler)) or before[number],
    )  # fmt: skip
    monkeypatch.setattr(loop, "signal", fake)
    with loop.interrupts_wait() as came:
        assert came == []
        handlers = [handler for _, handler in calls]
        handlers[0](signal.SIGTERM, None)
        assert came == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            handlers[0](signal.SIGINT, None)
    assert [number for number, _ in calls[:2]] == [signal.SIGINT, signal.SIGTERM]
    assert calls[2:] == [(signal.SIGINT, ours), (signal.SIGTERM, signal.SIG_DFL)]
