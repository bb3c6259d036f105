"""`trace(model)`: what every module put out, and the gradient that came back, by PyTorch name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from miniclip.inspect.compare import Comparison, compare
from miniclip.inspect.statistics import TensorRow, as_html, as_text, statistics
from miniclip.nn.module import Module
from miniclip.ops.array import Array

GRADIENT = ".grad"  # the gradient of `name` is kept under `name.grad`


def trace(model: Module) -> Trace:
    """Watch every module of `model` for the length of a `with` block.

        with miniclip.trace(model) as t, model.record():
            per_image, per_text = model(images, ids)
            model.backward(dper_image)
        print(t)

    t["visual.conv1"] is that module's output, t["visual.conv1.grad"] the gradient of its output,
    as arrays of the model's backend; modules have their names in the original PyTorch CLIP. A
    module that runs a second time is kept as "name#2". What a module offers beside its forward is
    kept under its own name: t["visual.tokens"]. Only the thread that opened the trace is
    watched, and the model is left as it was when the block ends, also by an error.
    """
    return Trace(model)


class Trace(Mapping[str, Array]):
    """Outputs and output gradients in the order in which they came, by name. See `trace`."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.ops = model.ops  # the backend that the arrays belong to, should the model move later
        self.arrays: dict[str, Array] = {}
        self.thread = 0
        self.before: list[tuple[Module, dict[str, Any]]] = []  # instances' own methods, if any
        self.passes: dict[str, list[str]] = {}  # of a name, those that have had no backward yet

    # ------------------------------------------------------------------ watching

    def __enter__(self) -> Self:
        self.thread = threading.get_ident()
        self.ops = self.model.ops
        for name, module in named_for_trace(self.model):
            watched = {}
            for way, backward, shown in ways(name, module):
                watched[way] = self._watched_forward(shown, getattr(module, way))
                watched[backward] = self._watched_backward(shown, getattr(module, backward))
            own = {m: module.__dict__.get(m) for m in watched}
            self.before.append((module, own))
            # Instance attributes hide the class's methods for this model alone.
            for method, wrapped in watched.items():
                object.__setattr__(module, method, wrapped)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self.before:
            module, own = self.before.pop()
            for method, before in own.items():
                module.__dict__.pop(method, None)
                if before is not None:
                    module.__dict__[method] = before

    def _watched_forward(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*inputs: Any, **options: Any) -> Any:
            y = forward(*inputs, **options)
            if threading.get_ident() == self.thread:
                this_pass = self._unused(name, y)
                self.passes.setdefault(name, []).append(this_pass)
                self._keep(this_pass, "", y)
            return y

        return watched

    def _watched_backward(self, name: str, backward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*gradients: Any) -> Any:
            if threading.get_ident() == self.thread:
                passes = self.passes.get(name)  # the last pass is unwound first
                dy = gradients[0] if len(gradients) == 1 else gradients
                self._keep(passes.pop() if passes else name, GRADIENT, dy)
            return backward(*gradients)

        return watched

    def _unused(self, name: str, value: Any) -> str:
        """The name for this pass: `name`, or `name#2` for the second one, and so on."""
        suffix = "[0]" if isinstance(value, tuple) else ""
        this_pass, count = name, 1
        while this_pass + suffix in self.arrays:
            count += 1
            this_pass = f"{name}#{count}"
        return this_pass

    def _keep(self, name: str, suffix: str, value: Any) -> None:
        """Keep an array, or each of several, under this name."""
        if not isinstance(value, tuple):
            value, names = (value,), [name]
        else:
            names = [f"{name}[{i}]" for i in range(len(value))]
        for key, array in zip(names, value, strict=True):
            if array is not None:
                self.arrays[key + suffix] = array

    # ------------------------------------------------------------------ reading

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            near = [n for n in self.arrays if name in n or n in name][:5]
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise KeyError(f"trace: nothing was recorded under {name!r}{hint}")
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def host(self, name: str) -> Array:
        """The array under a name as a NumPy array."""
        return np.asarray(self.ops.to_numpy(self[name]))

    def rows(self) -> list[TensorRow]:
        """Name, shape, dtype and statistics of every array, in order."""
        return [statistics(name, self.host(name)) for name in self.arrays]

    def __repr__(self) -> str:
        return as_text(self.rows())

    def _repr_html_(self) -> str:
        return as_html(self.rows())

    # ------------------------------------------------------------------ comparing and keeping

    def compare(
        self,
        other: Mapping[str, Any] | str | Path,
        tolerance: float | None = None,
    ) -> Comparison:
        """Find the first tensor that differs from `other`, in the order of this trace.

        other: another trace, a dictionary of PyTorch activations by module name (`watch` collects
        one; gradients under "name.grad"), or the path of an .npz that `save` wrote. Names that only
        one side has are listed and skipped.
        tolerance: the largest error that counts as equal, where error = largest absolute
        difference / largest absolute value of `other`; None: 1e-4 in float32, 1e-9 in float64.
        """
        if isinstance(other, str | Path):
            with np.load(other, allow_pickle=False) as file:
                other = {name: file[name] for name in file.files}
        return compare({name: self.host(name) for name in self.arrays}, as_host(other), tolerance)

    def save(self, path: str | Path) -> None:
        """Write all arrays to an .npz file, for `compare` on another day or machine."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"path: got {str(path)!r}, expected a name that ends in .npz")
        np.savez(path, **{name: self.host(name) for name in self.arrays})  # type: ignore[arg-type]


def as_host(other: Mapping[str, Any]) -> dict[str, Array]:
    """Another trace, or a dictionary of NumPy arrays or PyTorch tensors, as NumPy arrays."""
    if isinstance(other, Trace):
        return {name: other.host(name) for name in other}
    host = {}
    for name, value in other.items():
        if hasattr(value, "detach"):  # a PyTorch tensor
            value = value.detach().cpu().numpy()
        host[name] = np.asarray(value)
    return host


def ways(name: str, module: Module) -> Iterator[tuple[str, str, str]]:
    """Each way through a module: its method, that one's mirror, and the name that a trace shows."""
    yield "forward", "backward", name
    for way in module.WAYS:
        yield way, f"{way}_backward", f"{name}.{way}"


def named_for_trace(model: Module) -> Iterator[tuple[str, Module]]:
    """Modules with the names that a trace shows: the nameless root and text tower get one."""
    for name, module in model.named_modules():
        yield name or ("model" if module is model else "text"), module
