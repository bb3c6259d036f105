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

    Values are copied when they appear, as the original's ReLUs change them in place.
    """
    activations: dict[str, Array] = {}

    def keep(name: str, tensor: Any) -> None:
        activations[name] = tensor.detach().cpu().numpy().copy()

    def hook(name: str) -> Any:
        def after(module: Any, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output  # attention gives (y, None)
            if not hasattr(first, "detach"):
                return
            keep(name, first)
            if first.requires_grad:
                first.register_hook(lambda grad: keep(f"{name}.grad", grad))

        return after

    handles = [m.register_forward_hook(hook(n)) for n, m in torch_model.named_modules() if n]
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()
