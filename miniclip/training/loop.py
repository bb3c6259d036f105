"""The training loop: batch, loss, backward, clip, step, clamp; and what keeps a long run safe."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.cpu.memory import keep_freed_memory
from miniclip.models import CLIP
from miniclip.nn.module import Module
from miniclip.ops.array import Array
from miniclip.ops.embedding import end_of_text
from miniclip.training.data import Dataset, LoadedBatch, batches
from miniclip.training.objectives import OBJECTIVES, Batch, Objective, Outcome, named_parameters
from miniclip.training.optimizer import LOG_SCALE_CLAMP, AdamW, clamp_log_scale, clip_gradients
from miniclip.training.recipe import Recipe, trained_parameters
from miniclip.training.report import LOG, PLOT, Log, Record, Watcher, plot_log
from miniclip.training.schedule import learning_rate
from miniclip.training.state import Room, StateError, part, read_state, size_of, write_state
from miniclip.training.targets import positives

STATE = "checkpoint.safetensors"
# Steps, time and the loss: 80 columns hold them whole for any number of steps below a million.
BAR = "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
LATER = ("vocabulary", "transform", "rows")  # which checkpoints of earlier versions do not say
MOST_EMPTY = 20  # batches without two usable pairs, one after the other, that end a run


class TrainingError(RuntimeError):
    """A run that cannot go on. The message says at which step and batch, and what is kept."""


class Trainer:
    """Trains a CLIP on a dataset by a recipe.

    network: on its backend and in its dtype; trained in place. data: see `Dataset`. encode:
    captions -> ids (n, T), such as `Pipeline.tokenize`. folder: where checkpoint, log and plot go;
    None writes nothing. about: plain data that a checkpoint keeps and a resumed run must repeat
    (which data, which sizes). report: takes the lines meant for people. progress: show a bar; None:
    on a terminal. objective: what to train for, see `Objective`; None: the recipe's loss.
    Raises ValueError for data of fewer than two pairs, for a recipe with a chunk that the objective
    cannot use, and for an objective that shares names or parameters with the network.
    """

    def __init__(
        self,
        network: CLIP,
        data: Dataset,
        encode: Callable[[Sequence[str]], Array],
        recipe: Recipe,
        folder: Path | None = None,
        about: dict[str, Any] | None = None,
        report: Callable[[str], None] = print,
        progress: bool | None = None,
        objective: Objective | None = None,
    ) -> None:
        if len(data) < 2:
            raise ValueError(
                f"data: got {len(data)} pair, expected at least 2 (a single pair has nothing to "
                "be compared with)"
            )
        self.network, self.data, self.encode, self.recipe = network, data, encode, recipe
        self.batch_size = min(recipe.batch, len(data))
        self.folder, self.report, self.progress = folder, report, progress
        self.objective = OBJECTIVES[recipe.loss]() if objective is None else objective
        self.objective.check_chunk(recipe.chunk)
        self.objective.prepare(network)
        # without one, an empty module: nothing to train, to save or to resume
        self.module = Module() if self.objective.module is None else self.objective.module
        self.module.to(network.ops, network.dtype)
        settings = {**recipe.as_dict(), "loss": self.objective.name}
        self.about = {**(about or {}), "recipe": settings, "pairs": len(data)}
        trained = trained_parameters(named_parameters(network, self.objective), recipe.frozen)
        self.optimizer = AdamW(network.ops, trained, recipe.betas, recipe.eps, recipe.weight_decay)
        self.room = None if folder is None else Room(folder, self._bytes_to_write)
        self.step = self.samples = self.empty = self.skipped = 0
        self.watcher = Watcher(report)
        self.started = time.perf_counter()

    # ------------------------------------------------------------------ the run

    def run(self, until: int | None = None) -> None:
        """Train from the current step to the recipe's last (or to `until`).

        Leaves a checkpoint when it ends, also by Ctrl-C or SIGTERM, which wait for the end of the
        step (a second one does not). Raises TrainingError for a loss that is no number; the last
        good checkpoint stays. OSError for a disk without room for a checkpoint, before the first
        step: that much room is kept until the end.
        """
        stop = self.recipe.steps if until is None else min(until, self.recipe.steps)
        log = None if self.folder is None else self._open_log(self.folder)
        if self.room is not None:
            self.room.take()
        self.started = time.perf_counter()
        self.train_mode()
        if self.network.ops.name == "numba":
            keep_freed_memory()
        try:
            with self._bar(stop) as bar, interrupts_wait() as interrupts:
                for loaded in batches(
                    self.data, range(self.step, stop), self.batch_size, self.recipe.seed
                ):
                    record = self.train_on(loaded)
                    self._after(record, log, bar)
                    if interrupts:
                        self._save_or_warn()
                        again = "run the same command again to continue"
                        self.report(f"stopped after step {self.step}; {again}")
                        raise KeyboardInterrupt
        finally:
            self.network.eval()
            self.module.eval()
            if self.room is not None:
                self.room.give_back()
        if self.folder is not None:
            self._save_at_the_end()
            self._plot(self.folder)

    def train_mode(self) -> None:
        """Training mode, but for frozen modules: a frozen BatchNorm keeps its statistics."""
        learning = {id(p) for p in self.optimizer.parameters.values()}
        for tree in (self.network, self.module):
            tree.train()
            for module in tree.modules():
                own = module.parameters_.values()
                if own and not any(id(p) in learning for p in own):
                    module.training = False

    def train_on(self, loaded: LoadedBatch) -> Record | None:
        """One step. None if the batch had fewer than two usable pairs and was left out."""
        self.step = loaded.step + 1
        if len(loaded.captions) < 2:
            self._count_empty(loaded)
            return None
        self.empty = 0
        recipe = self.recipe
        batch = self._batch(loaded)
        self._clear_gradients()
        outcome = self.objective(self.network, batch, recipe.chunk)
        norm = clip_gradients(self.optimizer.parameters.values(), recipe.clip)
        self._check_finite(loaded, outcome.loss, norm)
        rate = learning_rate(loaded.step, recipe.steps, recipe.learning_rate, recipe.warm_up)
        self.optimizer.step(rate)
        clamp_log_scale(self.optimizer.parameters)
        self.samples += len(loaded.captions)
        return self._record(loaded, outcome, self.objective.reference_lines(batch), norm, rate)

    def _clear_gradients(self) -> None:
        """Of all parameters, the frozen ones and the objective's own too: gradients add up."""
        self.network.zero_grad()
        self.module.zero_grad()

    def _batch(self, loaded: LoadedBatch) -> Batch:
        """The batch on the network's backend, with its ids and targets."""
        pixels, ids = self._inputs(loaded)
        targets = positives(loaded.captions, loaded.labels)
        if targets is not None:
            targets = self.network.ops.asarray(targets, self.network.dtype)
        return Batch(pixels, ids, loaded.captions, targets, loaded.step)

    def _inputs(self, batch: LoadedBatch) -> tuple[Array, Array]:
        """Pixels and ids on the network's backend; ids cut at the longest text of the batch.

        Tokenizers fill every row to the context length, as the original's does, and `encode` may
        be any of them. So the cut is here, once; the filling costs microseconds.
        """
        ops = self.network.ops
        ids = np.asarray(self.encode(batch.captions))
        ends = end_of_text(ids, self.network.text.config.end_id)  # (N,)
        ids = ids[:, : int(ends.max()) + 1]  # what follows the end of text is never read
        return ops.asarray(batch.pixels, self.network.dtype), ops.as_ids(ids)

    def _check_finite(self, batch: LoadedBatch, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        kept = "nothing is saved yet"
        if self.folder is not None and (self.folder / STATE).exists():
            kept = f"the last good checkpoint is {self.folder / STATE}"
        bad = "loss" if not math.isfinite(loss) else "gradient"
        raise TrainingError(
            f"step {batch.step}: the {bad} is not a number (loss {loss}, gradient {norm}) on the "
            f"pairs {list(batch.indices[:8])}... of epoch {batch.epoch}, the first of them "
            f"{batch.captions[0]!r}; {kept}. Try a lower learning rate, or look at these pairs"
        )

    def _count_empty(self, batch: LoadedBatch) -> None:
        self.empty += 1
        self.skipped += 1
        self.watcher.warn(
            "empty", f"step {batch.step}: fewer than two usable pairs in the batch; left out"
        )
        if self.empty == MOST_EMPTY:
            raise TrainingError(
                f"step {batch.step}: {MOST_EMPTY} batches in a row had fewer than two usable "
                "pairs; look at the reports of broken pictures above"
            )

    # ------------------------------------------------------------------ telling

    def _record(
        self,
        loaded: LoadedBatch,
        outcome: Outcome,
        references: dict[str, float],
        norm: float,
        rate: float,
    ) -> Record:
        return Record(
            step=loaded.step,
            epoch=loaded.epoch,
            loss=outcome.loss,
            references=references,
            gradient=norm,
            rate=rate,
            measures=outcome.measures,
            pairs=len(loaded.captions),
            samples=self.samples,
            seconds=round(time.perf_counter() - self.started, 3),
        )

    def _after(self, record: Record | None, log: Log | None, bar: Any) -> None:
        """What follows a step: log, warnings, the bar, and a checkpoint when it is due."""
        if record is not None:
            if log is not None:
                log.write(record)
            self.watcher.look(record, self.recipe.warm_up, math.exp(LOG_SCALE_CLAMP))
            bar.set_postfix_str(record.short(), refresh=False)
        bar.update()
        if self.step % self.recipe.save_every == 0:
            self._save_or_warn()

    def _bar(self, stop: int) -> Any:
        disable = None if self.progress is None else not self.progress
        return tqdm_bar(stop, self.step, True if self.step >= stop else disable)

    def _open_log(self, folder: Path) -> Log:
        folder.mkdir(parents=True, exist_ok=True)
        log = Log(folder / LOG, self.report)
        log.keep_before(self.step)
        return log

    def _plot(self, folder: Path) -> None:
        """The plot can be drawn again from the log; no trained model is given up for it."""
        try:
            plot_log(folder / LOG, folder / PLOT)
        except OSError as error:
            self.report(f"warning: {folder / PLOT} could not be written ({error})")

    # ------------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Write the checkpoint: whole, or the old one stays. OSError from the disk."""
        if self.folder is None:
            raise ValueError("folder: got None, expected where checkpoints go")
        host = self.network.ops.to_numpy
        tensors = {f"network.{n}": host(x) for n, x in self.network.state_dict().items()}
        tensors |= {f"optimizer.{n}": host(x) for n, x in self.optimizer.state().items()}
        tensors |= {f"objective.{n}": host(x) for n, x in self.module.state_dict().items()}
        progress = {"step": self.step, "samples": self.samples, "skipped": self.skipped}
        notes = {**self.about, "progress": progress, "optimizer_steps": self.optimizer.steps}
        write_state(self.folder / STATE, tensors, notes)

    def _bytes_to_write(self) -> int:
        """Of the next checkpoint, beside the one before it, and of the model's own file."""
        weights = size_of([*self.network.state_dict().values(), *self.module.state_dict().values()])
        state = weights + size_of(self.optimizer.state().values())
        assert self.folder is not None
        is_first = not (self.folder / STATE).exists()
        return weights + (2 if is_first else 1) * state

    def _save_or_warn(self) -> None:
        """A disk that is full now may have room later: tell, keep the old checkpoint, go on."""
        if self.room is None:
            return
        try:
            self.room.give_back()
            self.save()
        except OSError as error:
            self.report(
                f"warning: step {self.step}: no checkpoint could be written ({error}); the one "
                "before stays, training continues"
            )
        try:
            self.room.take()
        except OSError as error:
            self.report(
                f"warning: step {self.step}: the disk has no room left for the end of the run "
                f"({error}); make room, training continues"
            )

    def _save_at_the_end(self) -> None:
        """The last checkpoint is not optional: say what is kept where it cannot be written."""
        try:
            self.save()
        except OSError as error:
            assert self.folder is not None
            kept = "nothing was saved before"
            if (self.folder / STATE).exists():
                kept = "the checkpoint before it stays"
            raise OSError(
                f"{self.folder / STATE}: step {self.step} could not be written "
                f"({error.strerror or error}); {kept}: make room and run the same command again"
            ) from error

    def resume(self) -> bool:
        """Go on from the folder's checkpoint. False if there is none.

        Raises StateError naming the file and the first thing that differs if it belongs to
        another run.
        """
        if self.folder is None or not (self.folder / STATE).exists():
            return False
        path = self.folder / STATE
        tensors, notes = read_state(path)
        self._check_same_run(path, notes)
        try:
            self.module.load_state_dict(part(tensors, "objective."))
            self.network.load_state_dict(part(tensors, "network."))
            self.optimizer.load_state(part(tensors, "optimizer."), notes["optimizer_steps"])
        except (KeyError, ValueError) as error:
            what = f"this network and the objective {self.objective.name!r}"
            raise StateError(f"{path}: not a checkpoint of {what} ({error})") from error
        progress = notes["progress"]
        self.step, self.samples = progress["step"], progress["samples"]
        self.skipped = progress["skipped"]
        return True

    def _check_same_run(self, path: Path, notes: dict[str, Any]) -> None:
        for name, mine in self.about.items():
            if name in LATER and name not in notes:
                continue
            theirs = notes.get(name)
            if isinstance(mine, dict) and isinstance(theirs, dict):
                pairs = {f"{name}.{k}": (mine[k], theirs.get(k)) for k in mine}
            else:
                pairs = {name: (mine, theirs)}
            for field, (wanted, found) in pairs.items():
                if plain(wanted) != plain(found):
                    raise StateError(
                        f"{path}: a run with {field} = {found!r}, expected {wanted!r} as asked for "
                        f"now; {self._way_out(field)}"
                    )

    def _way_out(self, field: str) -> str:
        if field != "recipe.steps":
            return "choose another folder, or the same settings"
        return (
            "the learning rate falls to zero over the steps of a run, so that none can be added: "
            f"to train its model further, choose another --out, with --init {self.folder}"
        )


def tqdm_bar(steps: int, done: int, disable: bool | None) -> Any:
    """A bar that counts steps; disable: None for one on a terminal alone."""
    from tqdm import tqdm

    return tqdm(total=steps, initial=done, bar_format=BAR, disable=disable, mininterval=0.5)


@contextlib.contextmanager
def interrupts_wait() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM instead of raising it: half a step is no checkpoint.

    The second one interrupts at once. Other threads than the main one get no signals.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
