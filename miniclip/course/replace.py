"""A learner's function in the place of ours, and a breakpoint in a module, both by name."""

from __future__ import annotations

import difflib
import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from miniclip import ops
from miniclip.backends import numpy as numpy_backend
from miniclip.inspect.stop import SKIPPED, Walk
from miniclip.nn.module import Module
from miniclip.ops.array import Array

# ------------------------------------------------------------------------ replace


@dataclass
class Used:
    """How often a learner's pair has run in a block."""

    forward: int = 0
    backward: int = 0


@dataclass(frozen=True)
class Kept:
    """What a replaced forward leaves for its backward."""

    values: dict[str, Any]  # the inputs by name, and the output as "y"
    cache: Any


@dataclass
class Replacement:
    """A pair that calls a learner's functions under the signatures of ours."""

    name: str
    forward: Callable[..., Any] | None
    backward: Callable[..., Any] | None
    used: Used = field(default_factory=Used)

    def __post_init__(self) -> None:
        self.ours = getattr(ops, self.name)
        self.ours_backward = getattr(ops, f"{self.name}_backward")
        self.signature = inspect.signature(self.ours)
        known = [*self.signature.parameters, "dy", "y", "cache"]
        for function in filter(None, (self.forward, self.backward)):
            for parameter in inspect.signature(function).parameters:
                if parameter not in known:
                    raise ValueError(
                        f"{function.__name__}: has a parameter {parameter!r}, expected names out "
                        f"of {', '.join(known)}"
                    )

    def call(self, *inputs: Any, **named: Any) -> tuple[Any, ...]:
        """In the place of the forward."""
        self.used.forward += 1
        bound = self.signature.bind(*inputs, **named)
        bound.apply_defaults()
        values, returned = dict(bound.arguments), None
        if self.forward is not None:
            returned = self.forward(*chosen(self.forward, values).values())
        if returned is None or (not isinstance(returned, tuple) and self.backward is None):
            whole = self.ours(*inputs, **named)
            returned = whole if returned is None else (returned, whole[-1])
        *outputs, cache = returned if isinstance(returned, tuple) else (returned, None)
        return (*outputs, Kept({**values, "y": outputs[0]}, cache))

    def call_backward(self, dy: Array, kept: Kept) -> Any:
        """In the place of the backward; a gradient for an input that was None is None."""
        self.used.backward += 1
        if self.backward is None:
            return self.ours_backward(dy, kept.cache)
        values = {"dy": dy, "cache": kept.cache, **kept.values}
        gradients = self.backward(*chosen(self.backward, values).values())
        if not isinstance(gradients, tuple):
            return gradients
        inputs = list(kept.values.values())
        return tuple(g if x is not None else None for g, x in zip(gradients, inputs, strict=False))


def chosen(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values that a function has parameters for, in their order."""
    return {name: values[name] for name in inspect.signature(function).parameters}


@contextmanager
def replace(
    name: str,
    forward: Callable[..., Any] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Iterator[Used]:
    """Inside the block, models on backend "numpy" compute an op with these functions.

    name: an op, such as "layer_norm". forward: takes inputs of ours by their names and returns y,
    or (y, cache). backward: takes dy and any of the inputs, y and cache, each by its name, and
    returns gradients as ours does. One that is left out stays ours. Ops that are made of others
    (attention, of softmax) use the replacement too. The block's value counts the calls.

    Raises ValueError for an unknown name, for no function and for a parameter of a name that is
    none of these, RuntimeError if nothing in the block called the op: then the model was not on
    backend "numpy".
    """
    if name not in ops.PAIRS:
        close = difflib.get_close_matches(name, ops.PAIRS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"name: got {name!r}, expected an op such as layer_norm{hint}")
    if forward is None and backward is None:
        raise ValueError("forward: got None, and so is backward: expected one of them at least")
    mine = Replacement(name, forward, backward)
    changed = [
        *places(name, mine.ours, mine.call),
        *places(f"{name}_backward", mine.ours_backward, mine.call_backward),
    ]
    try:
        for module, attribute, _, new in changed:
            setattr(module, attribute, new)
        yield mine.used
    finally:
        for module, attribute, old, _ in changed:
            setattr(module, attribute, old)
    if not mine.used.forward:
        raise RuntimeError(
            f"replace: {name} was not called in the block; expected a model on backend 'numpy' "
            f"that uses it (miniclip.load(..., backend='numpy'))"
        )


Change = tuple[ModuleType, str, Any, Any]


def places(name: str, ours: Any, new: Any) -> list[Change]:
    """The textbook's modules and the numpy backend, where they name our function."""
    textbook = [m for n, m in list(sys.modules.items()) if f"{n}.".startswith("miniclip.ops.")]
    return [
        (module, name, ours, new)
        for module in (*textbook, numpy_backend)
        if vars(module).get(name) is ours
    ]


# ------------------------------------------------------------------------ stop_at


def stop_at(name: str, model: Any = None) -> None:
    """Open pdb at the first line of a module's forward, the next time that it runs.

    name: as PyTorch names it, such as "visual.transformer.resblocks.3.attn". model: what `load`
    returned, or a network; None: every model in memory that has such a module. The breakpoint goes
    once it was met. The commands are those of docs/debugging.md.

    Raises ValueError if no model has a module of this name, or if it is not on backend "numpy",
    where a plan would compute in its place.
    """
    networks = networks_of(model)
    found = [(n, dict(n.named_modules())[name]) for n in networks if name in names_of(n)]
    if not found:
        raise ValueError(f"name: got {name!r}, {expected_names(name, networks)}")
    on_numpy = [module for network, module in found if network.ops is numpy_backend]
    if not on_numpy:
        raise ValueError(
            f"name: {name} is on backend {found[0][0].ops.name!r}, expected 'numpy': "
            "miniclip.load(..., backend='numpy')"
        )
    for module in on_numpy:
        stop_once(module)


def names_of(network: Module) -> list[str]:
    return [name for name, _ in network.named_modules() if name]


def networks_of(model: Any) -> list[Module]:
    """The network of a model, or all that are alive and no part of another."""
    if model is not None:
        network = getattr(model, "network", model)
        if not isinstance(network, Module):
            raise ValueError(f"model: got a {type(model).__name__}, expected what load returns")
        return [network]
    alive = [x for x in gc.get_objects() if issubclass(type(x), Module)]  # asks no lazy object
    inside = {id(child) for module in alive for child in module.children_.values()}
    return [module for module in alive if id(module) not in inside]


def expected_names(name: str, networks: list[Module]) -> str:
    """What to write instead."""
    if not networks:
        return "but no model is in memory: load one first"
    known = list(dict.fromkeys(n for network in networks for n in names_of(network)))
    close = difflib.get_close_matches(name, known, 3)
    return f"expected the name of a module, such as {', '.join(close or known[:3])}"


def stop_once(module: Module) -> None:
    """Put a method before the module's own, for one call."""
    if "forward" in vars(module):  # a trace's, or a breakpoint that is there already
        raise ValueError(
            f"name: this {type(module).__name__} is being traced or has a breakpoint already"
        )

    def stopping(*inputs: Any) -> Any:
        object.__delattr__(module, "forward")
        forward = module.forward
        Walk(skip=SKIPPED).set_trace(sys._getframe(1))
        return forward(*inputs)

    object.__setattr__(module, "forward", stopping)
