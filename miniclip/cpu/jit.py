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
import threading
import time
from collections.abc import Callable
from typing import Any

try:
    from numba import njit
    from numba.core import event
    from numba.extending import overload
except ImportError as error:
    raise ImportError("the numba backend needs Numba (pip install numba)") from error

from miniclip.cpu.cache import attach, kept
from miniclip.notes import say_once

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
# Numba tells listeners when a compilation begins and ends, and says nothing when the cache has the
# code. So what is compiled here is new: in a fresh install, after an edit, or for work of a kind
# that has not been done before.

NOTICED = 0.5  # seconds of compiling after which a note explains what takes so long
NOTE = "compiling kernels for what is new here (up to half a minute; kept for the next time)"
NOTE_UNKEPT = "compiling kernels (up to half a minute; not kept: {reason})"


class Compilations(event.Listener):
    """Prints the note once in a process, when our kernels have been compiling for long enough."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0  # one compilation may wait for those of the kernels that it calls
        self._since = 0.0
        self._seconds = 0.0

    def on_start(self, happening: Any) -> None:
        with self._lock:
            if self._under_way == 0:
                self._since = time.monotonic()
            self._under_way += 1
        self._look(happening)

    def on_end(self, happening: Any) -> None:
        self._look(happening)
        with self._lock:
            self._under_way -= 1
            if self._under_way == 0:
                self._seconds += time.monotonic() - self._since

    def _look(self, happening: Any) -> None:
        function = getattr(happening.data["dispatcher"], "py_func", None)
        ours = getattr(function, "__module__", "").startswith("miniclip.")
        seconds = self._seconds + time.monotonic() - self._since
        if not ours or seconds < NOTICED or "PYTEST_CURRENT_TEST" in os.environ:
            return
        folder, reason = kept()
        say_once("compiling", NOTE if folder else NOTE_UNKEPT.format(reason=reason))


event.register("numba:compile", Compilations())
