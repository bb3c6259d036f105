"""The checks that notebooks call, each under the name of the function that a learner writes.

    from miniclip.course import check
    check.layer_norm_backward(layer_norm_backward)

This raises `WrongAnswer` with one line that says what is wrong, or returns what was looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miniclip.course.exercise import Exercise
from miniclip.course.exercises import ALL

#: The exercises by the names of their functions.
#:
#: :meta hide-value:
EXERCISES: dict[str, Exercise] = {e.name: e for e in ALL}


def verdict(name: str, answer: Callable[..., Any], seed: int = 0) -> str:
    """What is wrong with an answer to the exercise of this name, in one line; "" if it is right.

    Raises ValueError for an unknown name.
    """
    if name not in EXERCISES:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(EXERCISES)}")
    return EXERCISES[name].verdict(answer, seed)


def __getattr__(name: str) -> Exercise:
    if name not in EXERCISES:
        raise AttributeError(f"no exercise is called {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]


def __dir__() -> list[str]:
    return [*EXERCISES, "verdict"]
