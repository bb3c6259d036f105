"""The one decorator under which compiled code is written, and the note while it compiles.

Numba compiles a kernel when it is first called with arrays of new types. `kernel` and
`entry_kernel` are Numba's `njit` with the settings that all our loops share, and with a cache on
disk of our own (cpu/cache.py), so that the next process finds the machine code there.

- `nogil`: kernels are serial and release the interpreter's lock, so that the team's threads can
  each run one.
- `error_model="numpy"`: a division by zero gives inf as in NumPy; a check would end vectorisation.
- fastmath: never `nnan` or `ninf`: masks hold -inf, and a NaN must stay visible.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

try:
    from numba import njit
    from numba.core import event
    from numba.extending import overload
except ImportError as error:
    raise ImportError("the numba backend needs Numba (pip install numba)") from error

from miniclip.cpu.cache import attach, kept

# `reassoc` lets the compiler keep one partial sum per SIMD lane, which is also the more accurate
# way to add.
SUMS = frozenset({"reassoc", "contract", "nsz"})
# Without it, where the order matters: for roundings, or for x * (0 * a) with a huge x.
AS_WRITTEN = frozenset({"contract", "nsz"})


def jit(fastmath: frozenset[str]) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: compile the function at its first call, or take it from the cache."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = njit(nogil=True, fastmath=set(fastmath), error_model="numpy")(function)
        attach(compiled)
        return compiled

    return decorate


kernel = jit(SUMS)  # loops that add up: in whatever order is fastest
entry_kernel = jit(AS_WRITTEN)  # loops that compute each entry by itself


def scalar(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates `f(x_type) -> the Python function to compile for it`, to be called in kernels.

    The compiler sees through such a call and can vectorise the loop around it. Arguments after the
    first are numbers of the same type.
    """
    stub = _stub(function.__name__)
    overload(stub, jit_options={"fastmath": set(AS_WRITTEN), "error_model": "numpy"})(function)
    return stub


def _stub(name: str) -> Callable[..., Any]:
    """A function that exists to be named in kernels; outside of them it has no meaning."""

    def stub(*numbers: Any) -> Any:
        raise NotImplementedError(f"{name} is for use inside Numba kernels")

    stub.__name__ = stub.__qualname__ = name
    return stub


# --- The note -------------------------------------------------------------------------------------
#
# Numba tells listeners when a compilation begins, and says nothing when the cache has the code. So
# the first compilation of a kernel of ours is that of a fresh install, or the first after an edit.

NOTE = "miniclip: compiling the fast kernels, once (about half a minute; kept on disk for later)"
NOTE_UNKEPT = "miniclip: compiling the fast kernels (about half a minute; not kept: {reason})"


class FirstCompilation(event.Listener):
    """Prints the note when the first of our kernels is compiled, and never again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = False

    def on_start(self, happening: Any) -> None:
        function = getattr(happening.data["dispatcher"], "py_func", None)
        if not getattr(function, "__module__", "").startswith("miniclip."):
            return
        with self._lock:
            told, self._told = self._told, True
        # stderr may be closed, or None in a program without a console: no reason not to compute
        if told or sys.stderr is None or "PYTEST_CURRENT_TEST" in os.environ:
            return
        folder, reason = kept()
        try:
            print(
                NOTE if folder else NOTE_UNKEPT.format(reason=reason), file=sys.stderr, flush=True
            )
        except (OSError, ValueError):
            return

    def on_end(self, happening: Any) -> None:
        """Nothing: the line says that it happens once."""


event.register("numba:compile", FirstCompilation())
