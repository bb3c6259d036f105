"""The gradient check of a module: over its inputs, and over all its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from miniclip.check import answers
from miniclip.check.answers import Unusable
from miniclip.check.gradients import DIRECTIONS, TOLERANCE, examine
from miniclip.check.result import GradientCheck, InputCheck
from miniclip.check.slopes import Point
from miniclip.ops.array import Array


def module_gradients(
    module: Any,
    *inputs: Any,
    seed: int = 0,
    directions: int = DIRECTIONS,
    tolerance: float = TOLERANCE,
) -> GradientCheck:
    """Check a module's backward pass, over its inputs and all its parameters.

    module: any object with `record()`, `forward(*inputs)`, `backward(dy)` and
    `named_parameters()`, whose parameters have `data` and `grad`, as `miniclip.nn.Module` has.
    Where forward returns several outputs, backward takes a gradient for each. It returns the
    gradients of the inputs in their order (for an integer input anything: it is not compared) and
    adds those of the parameters to `grad`; that it adds, and does not overwrite, is checked too.

    Afterwards parameters and their gradients are as they were, and so are buffers if the module
    has `state_dict` and `load_state_dict`. Raises as `op_gradients` does, and TypeError for
    parameters that are not float64.
    """
    answers.check_settings(directions, tolerance)
    subject = Subject(module, inputs)
    state = module.state_dict() if hasattr(module, "state_dict") else None
    try:
        return subject.check(seed, directions, tolerance)
    except Unusable as reason:
        return GradientCheck((), tolerance, str(reason))
    finally:
        if state is not None:
            module.load_state_dict(state)
        subject.restore()


class Subject:
    """A module and its inputs, as a loss of named arrays."""

    def __init__(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self.module = module
        self.inputs = answers.named_inputs(module.forward, inputs, None)
        self.parameters: dict[str, Any] = {}
        for name, parameter in module.named_parameters():
            if all(parameter is not known for known in self.parameters.values()):
                self.parameters[name] = parameter  # one under two names counts once
        self.before = {name: (p.data, p.grad) for name, p in self.parameters.items()}
        for name, (data, _) in self.before.items():
            if np.asarray(data).dtype != np.float64:
                raise TypeError(
                    f"{name} is {np.asarray(data).dtype}, expected float64: "
                    "call module.to(dtype='float64') first"
                )
        floats = {n: x for n, x in self.inputs.items() if x is not None and x.dtype == np.float64}
        self.values = answers.check_values(floats | {n: d for n, (d, _) in self.before.items()})
        self.dys: list[Array] = []

    def restore(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, parameter.grad = self.before[name]

    def outputs(self, replaced: Mapping[str, Array]) -> list[Array]:
        for name, parameter in self.parameters.items():
            parameter.data = replaced.get(name, self.before[name][0])
        y = self.module.forward(*(replaced.get(name, x) for name, x in self.inputs.items()))
        return list(y) if isinstance(y, tuple) else [y]

    def loss(self, replaced: Mapping[str, Array]) -> float:
        ys = self.outputs(replaced)
        return float(sum((dy * y).sum() for dy, y in zip(self.dys, ys, strict=True)))

    def backward(self) -> dict[str, Array | None]:
        """One recorded pass. The inputs' gradients, and what the parameters' have come to."""
        copies = self.copies()
        dys = {f"dy {i}": dy.copy() for i, dy in enumerate(self.dys)}
        with self.module.record():
            self.outputs(copies)
            returned = self.module.backward(*dys.values())
        before = self.inputs | {f"dy {i}": dy for i, dy in enumerate(self.dys)}
        answers.check_untouched(before, copies | dys)
        by_input = answers.in_order(returned, list(self.inputs))
        own = {name: p.grad for name, p in self.parameters.items()}
        got = {name: by_input[name] for name in self.inputs if name in self.values} | own
        return {name: None if g is None else np.array(g) for name, g in got.items()}

    def copies(self) -> dict[str, Array]:
        return {name: x.copy() for name, x in self.inputs.items() if x is not None}

    def check(self, seed: int, directions: int, tolerance: float) -> GradientCheck:
        ys = self.outputs(self.copies())  # should forward write into them
        for i, y in enumerate(ys):
            answers.check_output("y" if len(ys) == 1 else f"output {i}", y)
        rng = np.random.default_rng([seed, 1])  # not the stream that draws inputs of the same seed
        self.dys = [np.asarray(rng.standard_normal(np.shape(y))) for y in ys]
        for parameter in self.parameters.values():
            parameter.grad = None
        once, twice = self.backward(), self.backward()
        # one without any gradient may be right, if nothing depends on it
        got = {n: np.zeros(self.values[n].shape) if g is None and n in self.parameters else g
               for n, g in once.items()}  # fmt: skip
        size = float(sum(np.abs(dy * y).sum() for dy, y in zip(self.dys, ys, strict=True)))
        incoming = answers.only_number(self.dys[0]) if len(self.dys) == 1 else None
        point = Point(self.values, self.loss, size, incoming)
        result = examine(point, self.values, got, rng, directions, tolerance)
        checks = [self.amend(check, once[check.name], twice[check.name]) for check in result.inputs]
        return GradientCheck(tuple(checks), tolerance)

    def amend(self, check: InputCheck, once: Array | None, twice: Array | None) -> InputCheck:
        """A parameter that got nothing although y depends on it, or only the last pass's."""
        if check.name not in self.parameters:
            return check
        if once is None:
            problem = "is None: backward adds nothing to it" if check.problem else ""
            return InputCheck(check.name, check.error, problem)
        added = twice is not None and np.allclose(twice, 2 * once, rtol=1e-9, atol=1e-300)
        if check.holds and not added:
            return InputCheck(check.name, float("inf"), "is overwritten by a second backward pass")
        return check
