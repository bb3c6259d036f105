"""`trace(model)`: what every module put out, and the gradient that came back, by PyTorch name.

What went into each module is kept as well, and what its backward gave: only with both sides of a
module can a comparison say that it, and not its neighbour, is where the numbers part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from miniclip.files import as_path
from miniclip.inspect.compare import Comparison, compare
from miniclip.inspect.culprit import BACKWARD, FORWARD, Call, Origin
from miniclip.inspect.statistics import TensorRow, as_html, as_text, statistics
from miniclip.nn.module import Module, Parameter
from miniclip.ops.array import Array

GRADIENT = ".grad"  # the gradient of `name` is kept under `name.grad`
INPUT = ".input"  # what went into `name` is kept under `name.input`


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
    """Outputs and output gradients in the order in which they came, by name. See `trace`.

    `everything` has what went into each module too ("NAME.input"), the gradient that it gave back
    ("NAME.input.grad") and those of its parameters ("NAME.weight.grad"): what this pass added to
    them, not what was there before.
    """

    def __init__(self, model: Module) -> None:
        self.model = model
        self.ops = model.ops  # the backend that the arrays belong to, should the model move later
        self.arrays: dict[str, Array] = {}
        self.everything: dict[str, Array] = {}
        self.origins: dict[str, Origin] = {}  # of everything: the call that it belongs to
        self.thread = 0
        self.before: list[tuple[Module, dict[str, Any]]] = []  # instances' own methods, if any
        self.counts: dict[str, int] = {}  # forward passes by name
        self.passes: dict[str, list[str]] = {}  # of a name, those that have had no backward yet
        self.calls: list[Call] = []  # that have not returned, the innermost last

    # ------------------------------------------------------------------ watching

    def __enter__(self) -> Self:
        self.thread = threading.get_ident()
        self.ops = self.model.ops
        for name, module in named_for_trace(self.model):
            watched = {}
            for way, backward, shown in ways(name, module):
                watched[way] = self._watched_forward(shown, getattr(module, way))
                watched[backward] = self._watched_backward(shown, getattr(module, backward), module)
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
            if threading.get_ident() != self.thread:
                return forward(*inputs, **options)
            this_pass = numbered(name, self.counts.get(name, 0) + 1)
            with self._call(this_pass, FORWARD):
                self._keep(this_pass + INPUT, "", arrays_of(inputs), went_in=True)
                y = forward(*inputs, **options)
                self.counts[name] = self.counts.get(name, 0) + 1
                self.passes.setdefault(name, []).append(this_pass)
                self.arrays |= self._keep(this_pass, "", y)
            return y

        return watched

    def _watched_backward(
        self, name: str, backward: Callable[..., Any], module: Module
    ) -> Callable[..., Any]:
        def watched(*gradients: Any) -> Any:
            if threading.get_ident() != self.thread:
                return backward(*gradients)
            passes = self.passes.get(name)  # the last pass is unwound first
            this_pass = passes.pop() if passes else name
            dy = gradients[0] if len(gradients) == 1 else gradients
            with self._call(this_pass, BACKWARD):
                self.arrays |= self._keep(this_pass, GRADIENT, dy, went_in=True)
                with self._shares(module):
                    dx = backward(*gradients)
                self._keep(this_pass + INPUT, GRADIENT, dx)
            return dx

        return watched

    @contextmanager
    def _call(self, name: str, direction: str) -> Iterator[None]:
        """While the block lasts, what is kept belongs to this call."""
        self.calls.append(Call(name, direction, self.calls[-1] if self.calls else None))
        try:
            yield
        finally:
            self.calls.pop()

    @contextmanager
    def _shares(self, module: Module) -> Iterator[None]:
        """Keep what a backward pass adds to each gradient of the module's parameters.

        They begin at nothing, and what was there before is added afterwards.
        """
        names = {id(p): name for name, p in self.model.named_parameters()}
        before = [(p, p.grad) for _, p in module.named_parameters()]
        for parameter, _ in before:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, grad in before:
                self._keep_share(names.get(id(parameter)), parameter)
                if parameter.grad is None:
                    parameter.grad = grad
                elif grad is not None:
                    parameter.grad = grad + parameter.grad

    def _keep_share(self, name: str | None, parameter: Parameter) -> None:
        """Keep a parameter's gradient, unless a module inside of this one has done so."""
        if name is None or parameter.grad is None:
            return
        count = 1
        while (key := numbered(name, count)) + GRADIENT in self.everything:
            if self.everything[key + GRADIENT] is parameter.grad:
                return
            count += 1
        self._keep(key, GRADIENT, parameter.grad, of_parameter=True)

    def _keep(self, name: str, suffix: str, value: Any, **what: bool) -> dict[str, Array]:
        """Keep an array, or each of several, for the call that runs; returns them by name.

        what: it is (`went_in`, `of_parameter`), see `Origin`.
        """
        if isinstance(value, tuple):
            new = {f"{name}[{i}]{suffix}": array for i, array in enumerate(value)}
        else:
            new = {name + suffix: value}
        new = {key: array for key, array in new.items() if array is not None}
        for key in new:
            self.origins[key] = Origin(self.calls[-1], **what)
        self.everything |= new
        return new

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
        """Find the first tensor that differs from `other`, in the order of this trace, and the
        module in which the difference arose.

        other: another trace, a dictionary of PyTorch activations by module name (`watch` collects
        one; gradients under "name.grad"), or the path of an .npz that `save` wrote. Names that only
        one side has are listed and skipped.
        tolerance: the largest error that counts as equal, where error = largest absolute
        difference / largest absolute value of `other`; None: 1e-4 in float32, 1e-9 in float64.
        """
        if isinstance(other, str | Path):
            with np.load(as_path(other), allow_pickle=False) as file:
                other = {name: file[name] for name in file.files}
        return compare(as_host(self), as_host(other), tolerance, self.origins)

    def save(self, path: str | Path) -> None:
        """Write everything to an .npz file, for `compare` on another day or machine."""
        path = as_path(path)
        if path.suffix != ".npz":
            raise ValueError(f"path: got {str(path)!r}, expected a name that ends in .npz")
        np.savez(path, **as_host(self))  # type: ignore[arg-type]


def as_host(other: Mapping[str, Any]) -> dict[str, Array]:
    """Another trace, or a dictionary of NumPy arrays or PyTorch tensors, as NumPy arrays."""
    if isinstance(other, Trace):
        return {n: np.asarray(other.ops.to_numpy(x)) for n, x in other.everything.items()}
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


def numbered(name: str, count: int) -> str:
    """`name`, or for the second time `name#2`, and so on."""
    return name if count == 1 else f"{name}#{count}"


def arrays_of(inputs: tuple[Any, ...]) -> Any:
    """Of what a module was called with the arrays: the only one, or a tuple."""
    arrays = tuple(x for x in inputs if hasattr(x, "dtype") and hasattr(x, "shape"))
    return arrays[0] if len(arrays) == 1 else arrays
