"""AdamW over a whole network: who decays, gradient clipping, and the temperature's clamp."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from miniclip.nn.module import Parameter
from miniclip.ops.array import Array

# The clamp after a step, which keeps training stable (CLIP section 2.5). Whether a checkpoint is
# damaged is another question, for which miniclip.pipeline has a wider bound.
LOG_SCALE_CLAMP = math.log(100)
EMBEDDINGS = ("token_embedding.weight", "positional_embedding", "class_embedding")


def is_decayed(name: str, parameter: Parameter) -> bool:
    """Whether weight decay pulls at this parameter: only matrices and kernels.

    Gains and biases (one axis), the temperature (none) and embeddings, which are looked up and
    not multiplied with, keep their size. Source: CLIP section 2.5; open_clip's parameter groups.
    """
    return parameter.data.ndim >= 2 and not name.endswith(EMBEDDINGS)


class AdamW:
    """Running means and squares for named parameters, and the step that uses them.

    ops: the backend of the parameters.
    """

    def __init__(
        self,
        ops: ModuleType,
        parameters: Mapping[str, Parameter],
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.1,
    ) -> None:
        self.ops, self.parameters = ops, dict(parameters)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.steps = 0
        self.means = {n: np.zeros_like(p.data) for n, p in self.parameters.items()}
        self.squares = {n: np.zeros_like(p.data) for n, p in self.parameters.items()}

    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient; new arrays take the old ones' places."""
        self.steps += 1
        for name, p in self.parameters.items():
            if p.grad is None:
                continue
            p.data, self.means[name], self.squares[name] = self.ops.adamw(
                p.data,
                p.grad,
                self.means[name],
                self.squares[name],
                self.steps,
                rate,
                self.betas,
                self.eps,
                self.weight_decay if is_decayed(name, p) else 0.0,
            )

    def state(self) -> dict[str, Array]:
        """Means and squares by name, for a checkpoint."""
        return {f"mean.{n}": x for n, x in self.means.items()} | {
            f"square.{n}": x for n, x in self.squares.items()
        }

    def load_state(self, state: dict[str, Any], steps: int) -> None:
        """Take what `state` returned. KeyError names what is missing."""
        for name, p in self.parameters.items():
            self.means[name] = self.ops.asarray(state[f"mean.{name}"], p.data.dtype)
            self.squares[name] = self.ops.asarray(state[f"square.{name}"], p.data.dtype)
        self.steps = steps


def global_norm(parameters: Iterable[Parameter]) -> float:
    """The length of all gradients taken as one vector; summed in float64."""
    total = 0.0
    for p in parameters:
        if p.grad is not None:
            total += float((p.grad * p.grad).sum(dtype=np.float64))
    return math.sqrt(total)


def clip_gradients(parameters: Iterable[Parameter], largest: float) -> float:
    """Shorten all gradients together so that their common length is at most `largest`.

    Returns the length before. The direction stays. Source: Pascanu et al. 2012 (arXiv 1211.5063);
    `torch.nn.utils.clip_grad_norm_`.
    """
    parameters = list(parameters)
    norm = global_norm(parameters)
    if norm > largest:
        share = largest / (norm + 1e-6)
        for p in parameters:
            if p.grad is not None:
                p.grad = p.grad * share
    return norm


def clamp_log_scale(parameters: Mapping[str, Parameter], largest: float = LOG_SCALE_CLAMP) -> None:
    """Keep the logarithm of the temperature's inverse in [0, ln 100], after a step.

    Without it a confident model keeps sharpening until training is unstable. parameters: those
    that are trained. A temperature that is frozen, or that the loss does not use, keeps its bits.
    Source: CLIP section 2.5 (at most 100), open_clip (at least 1).
    """
    p = parameters.get("logit_scale")
    if p is not None and p.grad is not None:
        p.data = np.clip(p.data, 0.0, largest)
