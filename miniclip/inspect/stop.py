"""`stop_here()`: pdb, whose steps go from one line of mathematics to the next."""

from __future__ import annotations

import pdb
import sys
from types import FrameType
from typing import Any

# What a step passes over: it checks or hands on, or is not ours. `b FILE:LINE` still stops there.
SKIPPED = ("miniclip.nn.module", "miniclip.models.checks", "miniclip.ops.array", "numpy", "numpy.*")


class Walk(pdb.Pdb):
    """pdb with fewer stops, the same ones on every Python."""

    def user_call(self, frame: FrameType, argument_list: Any) -> None:
        """A step into a function stops at its first line, not at its head before that."""

    def set_stepinstr(self) -> None:
        """Where Python 3.13 begins at the call itself: at the line after it, as before 3.13."""
        self.set_step()


def stop_here() -> None:
    """Open pdb at the next line, as `breakpoint()` does, to step through a model.

    Here `s` goes from a module's call to the first line of its `forward` at once, and passes over
    checks of shapes and dtypes, and over NumPy.
    """
    Walk(skip=SKIPPED).set_trace(sys._getframe(1))
