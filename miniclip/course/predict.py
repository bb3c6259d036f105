"""A prediction beside what it turned out to be."""

from __future__ import annotations

from typing import Any

import numpy as np


def predicted(guess: Any, right: Any) -> None:
    """Print a prediction beside the result, and whether they agree to one part in a hundred.

    guess, right: numbers, arrays or words; a guess of `...` was left open. Nothing is graded.
    """
    if guess is ...:
        print(f"It is {shown(right)}. Next time write your own guess first.")
    elif agree(guess, right):
        print(f"Yes: {shown(right)}.")
    else:
        print(f"You said {shown(guess)}; it is {shown(right)}.")


def agree(guess: Any, right: Any) -> bool:
    if isinstance(right, str) or isinstance(guess, str):
        return bool(guess == right)
    try:
        return np.shape(guess) == np.shape(right) and bool(
            np.allclose(np.asarray(guess, float), right, rtol=0.01, atol=1e-9)
        )
    except (TypeError, ValueError):  # it was no number
        return False


def shown(value: Any) -> str:
    """A number with four digits, an array as a list."""
    if isinstance(value, np.ndarray | np.generic | float):
        return str(np.round(np.asarray(value, float), 4).tolist())
    return str(value)
