"""Modules: named parameters, and recordings of what a forward pass leaves for its backward.

A `Module` holds parameters, buffers and other modules under the names of the original CLIP. Its
`forward` calls ops and saves their caches, its `backward` takes them back in reverse. The caches
live in a recording, not on the module: without one nothing is kept, so inference costs no memory
and any number of threads may run one model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np

from miniclip import backends
from miniclip.backends import numpy as numpy_backend
from miniclip.ops.array import Array, Cache

_thread = threading.local()  # each thread has its own open recordings, the innermost last


def _open_recordings() -> list[Recording]:
    if not hasattr(_thread, "recordings"):
        _thread.recordings = []
    recordings: list[Recording] = _thread.recordings
    return recordings


class Parameter:
    """An array that is learned, and its gradient (None until a backward pass adds to it)."""

    def __init__(self, data: Array) -> None:
        self.data = data
        self.grad: Array | None = None

    def add_grad(self, grad: Array) -> None:
        """Add to the gradient: a parameter that is used twice gets the sum of both uses."""
        self.grad = grad if self.grad is None else self.grad + grad

    def __repr__(self) -> str:
        return f"Parameter(shape={tuple(self.data.shape)}, dtype={self.data.dtype})"


class Recording:
    """What forward passes of one model leave for backward, in this thread, until the block ends.

    A stack for each way through a module: one that ran twice gives its caches back in reverse.
    """

    def __init__(self, model: Module) -> None:
        self.names = {id(module): name for name, module in model.named_modules()}
        self.caches: dict[tuple[int, str], list[Cache]] = {}

    def __enter__(self) -> Self:
        _open_recordings().append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _open_recordings().remove(self)
        self.caches.clear()


class Module:
    """Parameters, buffers and child modules by name; `forward`, and its mirror, `backward`.

    WAYS: the other methods that a subclass offers in the same manner, such as "tokens" of the
    towers; each has a mirror called `NAME_backward`. A trace watches them too.
    """

    WAYS: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.parameters_: dict[str, Parameter] = {}
        self.buffers_: dict[str, Array] = {}
        self.children_: dict[str, Module] = {}
        self.ops: ModuleType = numpy_backend  # the backend whose functions forward calls
        self.dtype = np.dtype("float32")
        self.training = False  # only BatchNorm asks

    # ------------------------------------------------------------------ forward and backward

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def forward(self, *inputs: Any) -> Any:
        """The output; every module defines its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: Any) -> Any:
        """The gradient of the input from that of the output; adds to the parameters' gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def record(self) -> Recording:
        """Open a recording: `with model.record(): y = model(x); model.backward(dy)`.

        Inside, forward keeps what backward needs; leaving the block, by an error too, drops it.
        """
        return Recording(self)

    def save(self, cache: Cache, way: str = "forward") -> None:
        """Keep a cache for backward, if a recording of a model with this module is open.

        way: the method that ran. Each has a stack of its own, so one may be taken back and another
        not: `tokens` without the `pool` that followed it.
        """
        recording = self._recording()
        if recording is not None:
            recording.caches.setdefault((id(self), way), []).append(cache)

    def saved(self, way: str = "forward") -> Cache:
        """The cache saved last and not yet taken. RuntimeError without recording or forward."""
        backward = "backward" if way == "forward" else f"{way}_backward"
        recording = self._recording()
        if recording is None:
            raise RuntimeError(
                f"{type(self).__name__}: {backward} outside of a recording; expected {way} and "
                f"{backward} inside one `with model.record():`"
            )
        stack = recording.caches.get((id(self), way))
        if not stack:
            name = recording.names[id(self)] or type(self).__name__
            raise RuntimeError(
                f"{name}: {backward} without a {way} pass of its own in this recording; "
                f"expected one {way} before each {backward}"
            )
        return stack.pop()

    def _recording(self) -> Recording | None:
        """The innermost open recording, in this thread, of a model that this module is part of."""
        mine = (r for r in reversed(_open_recordings()) if id(self) in r.names)
        return next(mine, None)

    # ------------------------------------------------------------------ names

    def __setattr__(self, name: str, value: Any) -> None:
        """Assigning a Parameter or a Module registers it; assigning anything else ends that."""
        object.__setattr__(self, name, value)  # first, as it may be refused (a property)
        for registry, kind in (("parameters_", Parameter), ("children_", Module)):
            if isinstance(value, kind):
                self.__dict__[registry][name] = value
            elif registry in self.__dict__:
                self.__dict__[registry].pop(name, None)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        for registry in (self.parameters_, self.children_):
            registry.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        """For copy.deepcopy and pickle: the backend goes by its name."""
        return {**self.__dict__, "ops": self.ops.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, ops=backends.get(state["ops"]))

    def add_child(self, name: str, module: Module) -> None:
        """Register a module under a name that need not be a Python name ("0", "-1", "")."""
        self.children_[name] = module

    def add_buffer(self, name: str, data: Array) -> None:
        """Register an array that is kept with the parameters but not learned."""
        self.buffers_[name] = data

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted names, in order."""
        yield prefix, self
        for name, child in self.children_.items():
            yield from child.named_modules(join(prefix, name))

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Everything that is learned, by dotted name, in order."""
        for prefix, module in self.named_modules():
            for name, parameter in module.parameters_.items():
                yield join(prefix, name), parameter

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Everything that is kept but not learned (running statistics), by dotted name."""
        for prefix, module in self.named_modules():
            for name, data in module.buffers_.items():
                yield join(prefix, name), data

    def count_parameters(self) -> int:
        """How many numbers are learned in this module and below."""
        return sum(size(parameter.data) for _, parameter in self.named_parameters())

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Array]:
        """All parameters and buffers by name: the arrays themselves, not copies."""
        state = {name: parameter.data for name, parameter in self.named_parameters()}
        return state | dict(self.named_buffers())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take all parameters and buffers from arrays under exactly the model's names.

        Arrays that already have the model's dtype and device are taken as they are, not copied.
        Raises ValueError that names every missing and unexpected key, or the first wrong shape;
        then nothing has been changed.
        """
        own = self.state_dict()
        check_keys(own, state)
        for name, data in own.items():
            if tuple(np.shape(state[name])) != tuple(data.shape):
                raise ValueError(
                    f"load_state_dict: {name} has shape {tuple(np.shape(state[name]))}, "
                    f"expected {tuple(data.shape)}"
                )
        new = {name: self.ops.asarray(state[name], self.dtype) for name in own}
        for prefix, module in self.named_modules():
            for name, parameter in module.parameters_.items():
                parameter.data = new[join(prefix, name)]
            for name in module.buffers_:
                module.buffers_[name] = new[join(prefix, name)]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for _, parameter in self.named_parameters():
            parameter.grad = None

    def train(self, training: bool = True) -> Self:
        """BatchNorm then uses, and updates its statistics from, the batch at hand."""
        for module in self.modules():
            module.training = training
        return self

    def eval(self) -> Self:
        """BatchNorm then uses its running statistics (the default)."""
        return self.train(False)

    def to(self, backend: str | ModuleType | None = None, dtype: Any = None) -> Self:
        """Move all arrays to a backend ("numpy", "numba", "cupy") or a dtype (float32, float64).

        Gradients are dropped. Raises as `miniclip.backends.get` does, TypeError for other dtypes.
        """
        wanted = numpy_backend.check_dtype(self.dtype if dtype is None else dtype)
        ops = self.ops if backend is None else _backend(backend)
        for module in self.modules():
            from_host = module.ops.to_numpy if ops is not module.ops else _same
            for parameter in module.parameters_.values():
                parameter.data = ops.asarray(from_host(parameter.data), wanted)
                parameter.grad = None
            for name, data in module.buffers_.items():
                module.buffers_[name] = ops.asarray(from_host(data), wanted)
            module.ops, module.dtype = ops, wanted
        return self

    # ------------------------------------------------------------------ printing

    def describe(self) -> str:
        """The text in brackets when the module is printed: its own shapes."""
        return ""

    def __repr__(self) -> str:
        return "\n".join(self._lines("", type(self).__name__))

    def _lines(self, indent: str, title: str) -> Iterable[str]:
        count = self.count_parameters()
        shapes = [f"{n} {tuple(p.data.shape)}" for n, p in self.parameters_.items()]
        inside = ", ".join(filter(None, [self.describe(), *shapes]))
        yield f"{indent}{title}({inside})" + (f"  {count:,} parameters" if count else "")
        for name, child in self.children_.items():
            label = f"{name}: " if name else ""
            yield from child._lines(indent + "  ", label + type(child).__name__)


class Sequential(Module):
    """Modules one after the other, under explicit names."""

    def __init__(self, modules: Iterable[tuple[str, Module]]) -> None:
        super().__init__()
        for name, module in modules:
            self.add_child(name, module)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children_.values())

    def __len__(self) -> int:
        return len(self.children_)

    def forward(self, x: Array) -> Array:
        for module in self.children_.values():
            x = module(x)
        return x

    def backward(self, dy: Array) -> Array:
        for module in reversed(self.children_.values()):
            dy = module.backward(dy)
        return dy


def join(prefix: str, name: str) -> str:
    """Dotted name; an empty part (the root, the text tower) leaves no dot."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


def size(x: Array) -> int:
    """How many numbers an array of any backend holds."""
    return int(np.prod(x.shape, dtype=np.int64))


def check_keys(expected: Iterable[str], got: Iterable[str]) -> None:
    """Raise ValueError naming the keys that are missing and those that nobody expects."""
    expected, got = list(expected), list(got)
    missing = sorted(set(expected) - set(got))
    unexpected = sorted(set(got) - set(expected))
    if missing or unexpected:
        parts = [f"missing {_some(missing)}"] if missing else []
        parts += [f"unexpected {_some(unexpected)}"] if unexpected else []
        raise ValueError(f"load_state_dict: {'; '.join(parts)}")


def _some(names: list[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _backend(backend: str | ModuleType) -> ModuleType:
    return backends.get(backend) if isinstance(backend, str) else backend


def _same(x: Array) -> Array:
    return x
