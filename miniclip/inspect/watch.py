"""Collect a PyTorch model's activations and gradients by module name, to compare a trace with.

Works by PyTorch's own hooks and needs no import of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from miniclip.ops.array import Array


@contextmanager
def watch(torch_model: Any) -> Iterator[dict[str, Array]]:
    """Every module's output, and its gradient under "name.grad", for the length of the block.

        with watch(torch_model) as activations:
            torch_model(images, ids)[0].sum().backward()
        print(t.compare(activations))

    What went into a module is kept under "name.input", and the gradient that the module gave back
    under "name.input.grad"; the parameters' gradients under "name.weight.grad". Values are copied
    when they appear, as the original's ReLUs change them in place.
    """
    watcher = Watcher()
    named = [(name, module) for name, module in torch_model.named_modules() if name]
    handles = [torch_model.register_forward_pre_hook(watcher.before("model", gradients=False))]
    handles += [m.register_forward_pre_hook(watcher.before(n)) for n, m in named]
    handles += [m.register_forward_hook(watcher.after(n)) for n, m in named]
    for name, parameter in torch_model.named_parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_hook(watcher.keep_as(f"{name}.grad")))
    try:
        yield watcher.activations
    finally:
        for handle in handles:
            handle.remove()


class Watcher:
    """The hooks that fill `activations`."""

    def __init__(self) -> None:
        self.activations: dict[str, Array] = {}

    def keep(self, name: str, tensor: Any) -> None:
        self.activations[name] = tensor.detach().cpu().numpy().copy()

    def keep_as(self, name: str) -> Any:
        """A hook of a tensor: keep its gradient under this name."""
        return lambda gradient: self.keep(name, gradient)

    def before(self, name: str, gradients: bool = True) -> Any:
        """A hook of a module that keeps its inputs.

        Each is handed on as a copy, because a tensor that goes into several modules has one
        gradient, the sum, while its copies have one each. Attention is given one tensor three
        times: it stays one.
        """

        def hook(module: Any, inputs: tuple[Any, ...]) -> Any:
            tensors = {id(x): x for x in inputs if hasattr(x, "detach")}
            copies = {}
            for i, (key, tensor) in enumerate(tensors.items()):
                label = f"{name}.input" + (f"[{i}]" if len(tensors) > 1 else "")
                self.keep(label, tensor)
                if gradients and tensor.requires_grad:
                    copies[key] = tensor.clone()
                    copies[key].register_hook(self.keep_as(f"{label}.grad"))
            return tuple(copies.get(id(x), x) for x in inputs) if copies else None

        return hook

    def after(self, name: str) -> Any:
        """A hook of a module that keeps its output."""

        def hook(module: Any, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output  # attention gives (y, None)
            if not hasattr(first, "detach"):
                return
            self.keep(name, first)
            if first.requires_grad:
                first.register_hook(self.keep_as(f"{name}.grad"))

        return hook
