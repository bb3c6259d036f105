"""What a gradient check found: right or wrong, by how much, and in one sentence what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from miniclip.check.answers import gradient_of

NAMED = 3  # further wrong gradients that a sentence names before it only counts them


@dataclass(frozen=True)
class InputCheck:
    """One input's gradient against the measured slopes.

    error: the largest difference, relative (see `GradientCheck.error`); infinite where there was
    nothing to compare. problem: what is wrong, the rest of a sentence that begins with the
    gradient's name; empty where the gradient is right.
    """

    name: str  # the input's
    error: float
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether this gradient is right."""
        return not self.problem

    def __str__(self) -> str:
        return f"{gradient_of(self.name)} {self.problem or 'is right'}"


@dataclass(frozen=True)
class GradientCheck:
    """The result for all inputs, in their order.

    problem: set where the forward or backward pass as a whole gave nothing that could be compared;
    `inputs` is empty then. `str()` of a result is its diagnosis.
    """

    inputs: tuple[InputCheck, ...]
    tolerance: float
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether every gradient is right."""
        return not self.problem and all(check.holds for check in self.inputs)

    @property
    def error(self) -> float:
        """The largest relative error among the inputs.

        Along a direction v, the difference between the measured slope and sum(gradient * v), over
        sum(|gradient * v|).
        """
        if self.problem:
            return float("inf")
        return max((check.error for check in self.inputs), default=0.0)

    @property
    def wrong(self) -> list[str]:
        """The names of the inputs whose gradients are wrong."""
        return [check.name for check in self.inputs if not check.holds]

    @property
    def diagnosis(self) -> str:
        """One sentence: that all gradients are right, or what is wrong with the first wrong one."""
        if self.problem:
            return self.problem
        wrong = [check for check in self.inputs if not check.holds]
        if not wrong:
            worst = max(self.inputs, key=lambda check: check.error)
            return (
                f"{count(len(self.inputs))} the measured slopes; "
                f"the largest relative error is {worst.error:.1e}, of {gradient_of(worst.name)}"
            )
        names = [gradient_of(check.name) for check in wrong[1:]]
        if len(names) > NAMED:
            names[NAMED:] = [f"{len(names) - NAMED} more"]
        return f"{wrong[0]}; also wrong: {', '.join(names)}" if names else str(wrong[0])

    def __str__(self) -> str:
        return self.diagnosis

    def __repr__(self) -> str:
        return f"GradientCheck(holds={self.holds}): {self.diagnosis}"


def count(gradients: int) -> str:
    return "the gradient agrees with" if gradients == 1 else f"all {gradients} gradients agree with"
