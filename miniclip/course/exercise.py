"""An exercise and its grader: is a function that somebody wrote right, and if not, what is wrong?

A check looks, in this order, whether the answer returned anything; at shapes and dtypes; whether
all numbers are finite; whether an input was written into; then at the numbers, beside slopes
measured on the forward pass, beside ours and beside stored ones of PyTorch. Where numbers are
wrong, diagnosis.py says which term it is. NumPy only, seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniclip.check import function_gradients
from miniclip.course.answers import as_float32, check_form, example_of
from miniclip.course.diagnosis import Output, differs, explain
from miniclip.course.failures import Refused, WrongAnswer, raised
from miniclip.course.refusal import guarded
from miniclip.ops.array import Array

Values = dict[str, Any]


@dataclass(frozen=True)
class Forward:
    """The forward pass that a backward pass belongs to.

    function: takes the values of a case by name, returns y. inputs: those with a gradient, in the
    order of the answer's outputs. given: (dy, values) -> the arguments of the answer.
    """

    function: Callable[..., Array]
    inputs: tuple[str, ...]
    given: Callable[[Array, Values], Values]


@dataclass(frozen=True)
class Right:
    """An answer was right. Its text says what was looked at."""

    exercise: str
    cases: int
    slopes: bool
    stored: bool

    def __repr__(self) -> str:
        seen = [f"with ours on {self.cases} shapes"]
        seen += ["with slopes measured on the forward pass"] * self.slopes
        seen += ["with stored numbers of PyTorch"] * self.stored
        return f"Right: {self.exercise} agrees {', '.join(seen)}."


@dataclass(frozen=True)
class Exercise:
    """One function to be written, and how it is checked.

    outputs: what it returns, each with the terms of its derivation. right: the same function, ours.
    draw: makes cases of several shapes; the values by name are the arguments of the answer, or,
    for a backward pass, those of its forward. refused: names of miniclip's functions that raise
    while an answer runs. tolerance: relative to the largest entry.
    """

    name: str
    outputs: tuple[Output, ...]
    right: Callable[..., Any]
    draw: Callable[[np.random.Generator], list[Values]]
    forward: Forward | None = None
    refused: tuple[str, ...] = ()
    float32: bool = True
    tolerance: float = 1e-7

    # ------------------------------------------------------------------ what a learner calls

    def __call__(self, answer: Callable[..., Any], seed: int = 0) -> Right:
        """Check an answer. Raises `WrongAnswer`; what the answer raises itself is not caught.

        seed: draws other numbers.
        """
        cases = [(values, self.arguments(values, seed)) for values in self.cases(seed)]
        rights = [self.in_order(self.right(**arguments)) for _, arguments in cases]
        answer = guarded(answer, self.refused, self.right)
        try:
            got = self.forms(answer, cases, rights)
            self.numbers(answer, cases, rights, got, seed)
            stored = self.check_stored(answer)
        except Refused:
            raise WrongAnswer(
                f"{self.name} calls miniclip's own: you are writing this one, do not call it"
            ) from None
        return Right(self.name, len(cases), self.forward is not None, stored)

    def verdict(self, answer: Callable[..., Any], seed: int = 0) -> str:
        """What is wrong with an answer, in one line; "" if it is right."""
        try:
            self(answer, seed)
        except WrongAnswer as wrong:
            return str(wrong)
        except Exception as error:
            return raised(self.name, error)
        return ""

    # ------------------------------------------------------------------ cases

    def cases(self, seed: int) -> list[Values]:
        """Drawn values, of several shapes. The same seed draws the same."""
        return self.draw(np.random.default_rng([seed, len(self.name)]))

    def arguments(self, values: Values, seed: int) -> Values:
        """The answer's arguments; a backward pass gets a random dy."""
        if self.forward is None:
            return values
        y = self.forward.function(**values)
        dy = np.random.default_rng([seed, 2]).standard_normal(np.shape(y))
        return self.forward.given(np.asarray(dy), values)

    def in_order(self, returned: Any) -> tuple[Array, ...]:
        """What a function returned, as a tuple of arrays."""
        outputs = returned if len(self.outputs) > 1 else (returned,)
        return tuple(np.asarray(x) for x in outputs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    # ------------------------------------------------------------------ the steps of a check

    def forms(self, answer: Callable[..., Any], cases: list[Any], rights: list[Any]) -> list[Any]:
        """The outputs of all cases, as arrays of the right shape and dtype."""
        got = []
        for i, ((_, arguments), right) in enumerate(zip(cases, rights, strict=True)):
            got.append(check_form(self.name, self.names, answer, arguments, right))
            if i == 0 and self.float32:
                self.check_float32(answer, arguments)
        return got

    def check_float32(self, answer: Callable[..., Any], arguments: Values) -> None:
        """float32 in, float32 out. The numbers are looked at in float64 alone."""
        narrow = as_float32(arguments)
        shapes = [np.zeros(shape, np.float32) for shape in self.shapes(arguments)]
        check_form(self.name, self.names, answer, narrow, shapes)

    def shapes(self, arguments: Values) -> list[tuple[int, ...]]:
        return [next(iter(o.terms(**arguments).values())).shape for o in self.outputs]

    def numbers(
        self,
        answer: Callable[..., Any],
        cases: list[Any],
        rights: list[Any],
        got: list[Any],
        seed: int,
    ) -> None:
        """Every entry of every case, and the slopes of the forward pass."""
        for (values, arguments), right, outputs in zip(cases, rights, got, strict=True):
            errors = self.slopes(answer, values, seed)
            wrong = [
                i
                for i, (g, r) in enumerate(zip(outputs, right, strict=True))
                if differs(g, r, self.tolerance)
            ]
            if wrong:
                first = self.outputs[wrong[0]]
                message = self.sentence(first, arguments, outputs, right, errors)
                others = [self.names[i] for i in wrong[1:]]
                also = f"; also wrong: {', '.join(others)}" if others else ""
                raise WrongAnswer(message + also + self.example_words(answer))
            for name, (_, problem) in errors.items():
                if problem:  # right for one dy and wrong for another
                    raise WrongAnswer(f"{name} {problem}{self.example_words(answer)}")

    def sentence(
        self,
        output: Output,
        arguments: Values,
        got: tuple[Array, ...],
        right: tuple[Array, ...],
        errors: Mapping[str, tuple[float, str]],
    ) -> str:
        """Which output is wrong, by how much, and why."""
        i = self.names.index(output.name)
        error, problem = errors.get(output.name, (0.0, ""))
        by = f"disagrees with measured slopes by {percent(error)}"
        if not problem:
            share = np.abs(got[i] - right[i]).max() / max(np.abs(right[i]).max(), 1e-300)
            by = f"differs from the right one by {percent(float(share))}"
        others = dict(zip(self.names, right, strict=True))
        return f"{output.name} {by}: {explain(output, arguments, got[i], right[i], others)}"

    def slopes(
        self, answer: Callable[..., Any], values: Values, seed: int
    ) -> dict[str, tuple[float, str]]:
        """Output -> its error along random directions and what is wrong; {} without a forward."""
        if self.forward is None:
            return {}
        forward, inputs = self.forward, self.forward.inputs

        def function(*moved: Array) -> Array:
            return forward.function(**{**values, **dict(zip(inputs, moved, strict=True))})

        def backward(dy: Array, *moved: Array) -> Any:
            now = {**values, **dict(zip(inputs, moved, strict=True))}
            return answer(*forward.given(dy, now).values())

        result = function_gradients(
            function, backward, *(values[name] for name in inputs), names=inputs, seed=seed
        )
        if result.problem:
            return dict.fromkeys(self.names, (1.0, result.problem))
        return {
            output: (one.error, one.problem)
            for output, one in zip(self.names, result.inputs, strict=True)
        }

    # ------------------------------------------------------------------ the example

    @property
    def example(self) -> str:
        """The stored example as text: arguments, and what PyTorch gives."""
        known = example_of(self.name)
        if known is None:
            return f"{self.name} has no stored example."
        arguments, outputs = known
        pairs = [*arguments.items(), *zip(self.names, outputs, strict=True)]
        return "\n".join(f"{name} = {as_text(value)}" for name, value in pairs)

    def check_stored(self, answer: Callable[..., Any]) -> bool:
        """The numbers of PyTorch that come with miniclip, if there are any for this exercise."""
        example = example_of(self.name)
        if example is None:
            return False
        arguments, right = example
        got = check_form(self.name, self.names, answer, arguments, right)
        for name, g, r in zip(self.names, got, right, strict=True):
            if differs(g, r, self.tolerance):
                raise WrongAnswer(f"{name} differs from PyTorch's numbers for the example")
        return True

    def example_words(self, answer: Callable[..., Any]) -> str:
        """Said of an answer that is wrong, but not for the example."""
        if example_of(self.name) is None:
            return ""
        try:
            self.check_stored(answer)
        except Exception:
            return ""
        return " (the example of the text comes out right)"


def as_text(value: Any) -> str:
    """An array as a list with four digits."""
    return str(np.round(value, 4).tolist() if isinstance(value, np.ndarray) else value)


def percent(share: float) -> str:
    """A share in per cent, with two digits."""
    return f"{100 * share:.2g} %" if share < 0.995 else "100 % or more"
