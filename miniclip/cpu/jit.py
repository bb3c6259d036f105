"""One line that says why the first call takes so long: Numba is compiling.

Numba compiles a kernel when it is first called, and finds it on disk from then on. Numba tells
listeners when a compilation begins; it says nothing when the disk has the code. So the first
compilation of a kernel of ours that is kept on disk is a fresh install's (or one after an update).
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from numba.core import event

NOTE = "miniclip: compiling the fast kernels, once (about half a minute; kept on disk for later)"


class FirstCompilation(event.Listener):
    """Prints the note when the first of our kernels is compiled, and never again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = False

    def on_start(self, happening: Any) -> None:
        kernel = getattr(happening.data["dispatcher"], "py_func", None)
        if not getattr(kernel, "__module__", "").startswith("miniclip."):
            return
        with self._lock:
            told, self._told = self._told, True
        # stderr may be closed, or None in a program without a console: no reason not to compute
        if not told and sys.stderr is not None:
            try:
                print(NOTE, file=sys.stderr, flush=True)
            except (OSError, ValueError):
                return

    def on_end(self, happening: Any) -> None:
        """Nothing: the line says that it happens once."""


_listener: FirstCompilation | None = None


def announce_compilation() -> None:
    """From now on, say it once when a kernel has to be compiled. Not in the tests' processes."""
    global _listener
    if _listener is None and "PYTEST_CURRENT_TEST" not in os.environ:
        _listener = FirstCompilation()
        event.register("numba:compile", _listener)
