"""A recipe: everything that decides a run, besides the data and the first weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from miniclip.nn.module import Parameter
from miniclip.training.objectives import OBJECTIVES


@dataclass(frozen=True)
class Recipe:
    """steps: of the optimiser. batch: pairs in each of them. chunk: pairs at a time (GradCache).

    learning_rate: the peak, after warm_up steps. clip: the largest length of the gradient.
    loss: "contrastive" or "sigmoid", the objective where the trainer is given no other. seed: of
    the data's order. frozen: patterns of parameter names that are not trained, such as "visual.*",
    also of the objective's own. save_every: steps between checkpoints.
    Raises ValueError naming the field.
    """

    steps: int
    batch: int
    chunk: int | None = None
    learning_rate: float = 1e-3
    warm_up: int = 100
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.1
    clip: float = 1.0
    loss: str = "contrastive"
    seed: int = 0
    frozen: tuple[str, ...] = ()
    save_every: int = 200

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "frozen", tuple(self.frozen))
        self._check_integers()
        self._check_numbers()
        if self.loss not in OBJECTIVES:
            raise ValueError(f"loss: got {self.loss!r}, expected one of {', '.join(OBJECTIVES)}")

    def _check_integers(self) -> None:
        least = {"steps": 1, "batch": 2, "warm_up": 0, "seed": 0, "save_every": 1}
        if self.chunk is not None:
            least["chunk"] = 1
        for name, smallest in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < smallest:
                why = " (a single pair has nothing to be compared with)" if name == "batch" else ""
                raise ValueError(
                    f"{name}: got {value!r}, expected a whole number from {smallest} on{why}"
                )

    def _check_numbers(self) -> None:
        for name in ("learning_rate", "eps", "clip"):
            value = getattr(self, name)
            if not is_number(value) or value <= 0:
                raise ValueError(f"{name}: got {value!r}, expected a number above 0")
        if not is_number(self.weight_decay) or self.weight_decay < 0:
            raise ValueError(f"weight_decay: got {self.weight_decay!r}, expected 0 or more")
        if len(self.betas) != 2 or not all(is_number(b) and 0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas: got {self.betas!r}, expected two numbers in [0, 1)")

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """ValueError names a field that no recipe has, or one that is missing."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"{unknown[0]}: no field of a recipe; known: {', '.join(known)}")
        missing = sorted({"steps", "batch"} - set(values))
        if missing:
            raise ValueError(f"{missing[0]}: missing in the recipe")
        return cls(**values)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def trained_parameters(
    named: Mapping[str, Parameter], frozen: tuple[str, ...]
) -> dict[str, Parameter]:
    """The parameters that no pattern freezes. ValueError for a pattern that fits no name."""
    for pattern in frozen:
        if not any(fnmatchcase(name, pattern) for name in named):
            some = ", ".join(list(named)[:3])
            raise ValueError(
                f"frozen: no parameter's name fits {pattern!r}; names look like {some}"
            )
    trained = {
        name: p
        for name, p in named.items()
        if not any(fnmatchcase(name, pattern) for pattern in frozen)
    }
    if not trained:
        raise ValueError(f"frozen: {', '.join(frozen)} leaves nothing to train")
    return trained
