"""Inference plans for a CPU: what `encode_image` and `encode_text` run on the numba backend.

A plan is made from a loaded network: weights packed once, BatchNorm folded, activations and
shortcuts fused into the products, buffers kept (see cpu_packing, cpu_transformer, cpu_resnet), run
by one team of threads (cpu/team.py). It is checked against the modules, which stay what
they are; `plan.describe()` lists the steps, or says why a tower runs by its modules.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, TypeAlias

import numpy as np

from miniclip.engine.cpu.packing import Weights, padded
from miniclip.engine.cpu.program import Program, Run, all_sequences
from miniclip.engine.cpu.resnet import add_resnet
from miniclip.engine.cpu.transformer import (
    ACTIVATIONS,
    add_blocks,
    add_projection,
    add_words,
    pack_projection,
)
from miniclip.engine.cpu.vit import add_vit, pack_blocks
from miniclip.models.checks import check_ends, check_ids, check_images
from miniclip.models.resnet import ModifiedResNet
from miniclip.models.text import TextTransformer
from miniclip.models.vit import VisionTransformer
from miniclip.nn import layers
from miniclip.nn.module import Module
from miniclip.ops.array import Array
from miniclip.ops.embedding import end_of_text

# What the plans know how to do; anything else runs by its modules.
TOWERS: set[Any] = {ModifiedResNet, TextTransformer, VisionTransformer}

# Buffers of the pictures or texts that go through at once: enough to read the weights seldom, not
# much more than what the last cache holds.
CHUNK_BYTES = 64 << 20


class NoPlan(Exception):
    """Why a tower cannot be planned."""


def check_plannable(tower: Any) -> None:
    """Raise NoPlan unless every part of the tower is what the plans are written for."""
    kind: Any = type(tower)
    usual = usual_parts(kind, tower.config) if kind in TOWERS else {}
    for name, module in tower.named_modules():
        reason = why_unknown(module, usual.get(name))
        if reason:
            raise NoPlan(f"{name or 'the tower'} ({type(module).__name__}) {reason}")


# What a plan takes from the tower's configuration: where a module has another one, it cannot be
# planned. What it reads from the modules (SETTINGS) may be changed, and is packed again.
GEOMETRY = ("stride", "padding", "kernel", "grid", "causal")
SETTINGS = ("eps", "heads", "config", *GEOMETRY)

Part: TypeAlias = tuple[Any, set[str], list[Any]]  # type, names of parameters, geometry


@functools.cache
def usual_parts(tower: Any, config: Any) -> dict[str, Part]:
    """What the modules of such a tower are, by name."""
    return {
        name: (type(module), set(module.parameters_), geometry(module))
        for name, module in tower(config, 1).named_modules()
    }


def geometry(module: Module) -> list[Any]:
    return [module.__dict__.get(name) for name in GEOMETRY]


def is_usual(module: Any, part: Part) -> bool:
    """Whether a module is of the usual class for its place; any activation may be another one."""
    kind, names, usual_geometry = part
    if type(module) is not kind:
        return type(module) in ACTIVATIONS and kind in ACTIVATIONS
    return module.parameters_.keys() == names and geometry(module) == usual_geometry


def why_unknown(module: Module, part: Part | None) -> str | None:
    """What no plan can do for this module, if there is something. part: what it is usually."""
    if part is None or not is_usual(module, part):
        return "is not a module that plans know in its place"
    if module._recording() is not None:
        return "is being recorded"
    for way in ("forward", *module.WAYS):
        if way in module.__dict__:
            return f"has a {way} of its own: it is being traced, or was changed"
    if module.training and type(module) is layers.BatchNorm2d:
        return "is in training mode"
    if module.dtype != np.float32:
        return f"computes in {module.dtype}, plans do in float32"
    if module.ops.name != "numba":
        return f"is on the {module.ops.name} backend, plans are for numba"
    return None


class TowerPlan:
    """The plan of one tower. Calling it does what calling the tower does; safe from any thread."""

    def __init__(self, tower: Module) -> None:
        check_plannable(tower)
        self.tower: Any = tower
        self._state = [weakref.ref(thing) for thing in fingerprint(tower)]
        self._settings = settings(tower)
        self._packed: dict[Any, Any] = {}
        self._programs: dict[tuple[bool, Any, bool], Program] = {}  # see `program`
        self._one_call = threading.Lock()
        self.program(self._usual_size())

    def is_current(self) -> bool:
        """Whether the tower still has the modules, arrays and settings that were packed."""
        now = list(fingerprint(self.tower))
        return (
            len(now) == len(self._state)
            and all(old() is new for old, new in zip(self._state, now, strict=True))
            and settings(self.tower) == self._settings
        )

    def _usual_size(self) -> tuple[int, ...]:
        if isinstance(self.tower, TextTransformer):
            return (self.tower.config.context_length,)
        return (self.tower.config.image_resolution,) * 2

    def program(self, size: tuple[int, ...], all_tokens: bool = False) -> Program:
        """The steps for pictures (height, width), or for texts of at most (tokens,).

        all_tokens: of pictures, instead of their embeddings. Both are kept side by side, each for
        the latest size: the buffers of another size are let go.
        """
        key = (all_tokens, size, getattr(self.tower, "antialias", True))
        if key not in self._programs:
            program = Program()
            if isinstance(self.tower, TextTransformer):
                add_text(program, self.tower, self._packed, *size)
            else:
                height, width = size
                add = add_vit if isinstance(self.tower, VisionTransformer) else add_resnet
                add(program, self.tower, self._packed, height, width, all_tokens)
            others = {k: p for k, p in self._programs.items() if k[0] != all_tokens}
            self._programs = {**others, key: program}
        return self._programs[key]

    def __call__(self, x: Array) -> Array:
        """Pictures (B, 3, H, W) or ids (B, T) -> embeddings (B, E), as the tower gives them."""
        runs = self.text_runs if isinstance(self.tower, TextTransformer) else self.image_runs
        with self._one_call:
            return runs(x)

    def tokens(self, images: Array) -> Array:
        """Pictures (B, 3, H, W) -> all their tokens (B, T, D), as the tower's `tokens` gives them.

        The steps are made when this is first asked for. ValueError for a text tower.
        """
        if isinstance(self.tower, TextTransformer):
            raise ValueError(
                "tokens: this is the plan of the text tower, expected the image tower's (texts are "
                "planned without their padding; the tower's own `tokens` has all of them)"
            )
        with self._one_call:
            return self.image_runs(images, all_tokens=True)

    def image_runs(self, images: Array, all_tokens: bool = False) -> Array:
        tower = self.tower
        is_vit = isinstance(tower, VisionTransformer)
        least = tower.conv1.weight.data.shape[-1] if is_vit else 32
        check_images(tower, images, tower.config.image_resolution, tower.interpolate, least)
        images = np.require(images, np.float32, ["C", "W"])
        program = self.program(images.shape[2:], all_tokens)
        y = np.empty((len(images), program.outputs, program.width), np.float32)
        for part in even_parts(len(images), program.memory(program.tokens, 1)):
            starts = np.arange(part.stop - part.start + 1) * program.tokens
            run = Run(images[part], starts, starts[:0], starts[:-1])
            program.run(run, y[part].reshape(-1, program.width))
        return y if all_tokens else y.reshape(len(images), program.width)

    def text_runs(self, ids: Array) -> Array:
        """Texts lie one after the other without the padding between them: a text of 9 tokens is 9
        rows, not 77. No token looks at what follows it, so nothing else is left out.
        """
        tower = self.tower
        check_ids(ids, tower.config.context_length, tower.config.vocab_size)
        check_ends(ids, tower.config.end_id)
        ends = end_of_text(ids, tower.config.end_id)  # (B,)
        program = self.program(self._usual_size())
        y = np.empty((len(ids), program.width), np.float32)
        for part in even_parts(len(ids), program.memory(int(ends.max()) + 1, 1)):
            program.run(self.text_run(ids[part], ends[part]), y[part])
        return y

    def text_run(self, ids: Array, ends: Array) -> Run:
        """ids: (B, T). ends: (B,), position of each text's last token."""
        real = np.arange(ids.shape[1]) <= ends[:, None]  # (B, T)
        starts = np.concatenate([[0], np.cumsum(ends + 1)])
        words = self.tower.token_embedding.weight.data[ids[real]]  # (rows, D)
        return Run(words, starts, np.nonzero(real)[1], starts[1:] - 1)

    def lines(self) -> Iterator[str]:
        """The steps, and what they keep in memory."""
        packed = sum(w.data.nbytes for w in all_weights(self._packed))
        for (all_tokens, size, _), program in self._programs.items():
            shape = " x ".join(map(str, size)) + (" tokens" if len(size) == 1 else " pixels")
            shape += ", all tokens" if all_tokens else ""
            yield f"{len(program.steps)} steps for {shape}, {packed / 2**20:.0f} MiB packed"
            yield from (f"  {text}" for text, _ in program.steps)


def even_parts(count: int, memory: int) -> Iterator[slice]:
    """Slices of nearly one size, as many as the memory for one thing needs."""
    most = max(1, CHUNK_BYTES // max(1, memory))
    parts = -(-count // most)
    for i in range(parts):
        yield slice(count * i // parts, count * (i + 1) // parts)


def all_weights(packed: Any) -> Iterator[Weights]:
    """Every packed matrix in a dictionary of them."""
    if isinstance(packed, Weights):
        yield packed
    elif isinstance(packed, dict | list | tuple):
        for item in packed.values() if isinstance(packed, dict) else packed:
            yield from all_weights(item)
    elif is_dataclass(packed):
        yield from all_weights(list(vars(packed).values()))


def add_text(program: Program, tower: Any, packed: dict[Any, Any], context: int) -> None:
    """The whole text tower."""
    if not packed:
        packed["blocks"] = pack_blocks(tower.transformer)
        packed["proj"] = pack_projection(tower.text_projection)
    width = tower.positional_embedding.data.shape[1]
    add_words(program, tower)
    chosen = add_blocks(program, packed["blocks"], width, True, context)
    row = padded(width)
    program.layer_norm("ln_final", chosen, chosen, width, row, tower.ln_final, all_sequences)
    add_projection(program, chosen, width, tower.text_projection, packed["proj"])


def fingerprint(tower: Module) -> Iterator[Any]:
    """Every module and array: when one is replaced, the plan is out of date."""
    for module in tower.modules():
        yield module
        for parameter in module.parameters_.values():
            yield parameter.data
        yield from module.buffers_.values()


def settings(tower: Module) -> list[Any]:
    """The numbers that modules compute with, beside their arrays."""
    return [module.__dict__.get(name) for module in tower.modules() for name in SETTINGS]


class Plan:
    """The plans of a network's towers, made when they are first needed or by `compile`.

    An optimiser's step, `load_state_dict`, moving the network and assigning a parameter, a module
    or a module's setting (`ln_1.eps`) are noticed, and the plan is made again. Writing into a
    parameter's array (`p.data[0] = 1`, `p.data *= 2`) is not: call `compile()` afterwards.
    """

    def __init__(self, network: Module) -> None:
        self.network = network
        self._forget()
        _plans.add(self)

    def _forget(self) -> None:
        """No plans, and new locks: those of before may be held by threads that are no more."""
        self._towers: dict[str, TowerPlan] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """For copy.deepcopy and pickle: packed weights are made again."""
        return Plan, (self.network,)

    def compile(self) -> None:
        """Make the plans of both towers now, from the weights as they are."""
        with self._lock:
            self._towers = {}
        for name in self.towers():
            self.of(name)

    def towers(self) -> dict[str, Module]:
        """The network's towers: "image", "text"."""
        names = {"image": "visual", "text": ""}
        children = self.network.children_
        return {kind: children[name] for kind, name in names.items() if name in children}

    def of(self, kind: str) -> TowerPlan | None:
        """The plan of the "image" or "text" tower; None where the modules have to do it."""
        if self.why_not(kind) is not None:
            return None
        tower = self.towers()[kind]
        with self._lock:
            plan = self._towers.pop(kind, None)  # popped: two need not be in memory at once
            if plan is None or plan.tower is not tower or not plan.is_current():
                plan = None
                plan = TowerPlan(tower)
            self._towers[kind] = plan
            return plan

    def why_not(self, kind: str) -> str | None:
        """Why a tower runs by its modules at this moment; None if it has a plan."""
        try:
            check_plannable(self.towers()[kind])
        except NoPlan as reason:
            return str(reason)
        return None

    def describe(self) -> str:
        """Each tower's steps, or why it runs by its modules."""
        lines = []
        for kind in self.towers():
            plan = self.of(kind)
            if plan is None:
                lines.append(f"{kind} tower: by its modules, because {self.why_not(kind)}")
            else:
                first, *rest = plan.lines()
                lines += [f"{kind} tower: {first}", *rest]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.describe()


_plans: weakref.WeakSet[Plan] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked process has one thread; what others were at is half done, and their locks shut."""
    for plan in list(_plans):
        plan._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
