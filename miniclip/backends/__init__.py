"""Backends: modules that offer every function of `miniclip.ops` under the same name.

`get("numpy")` is the textbook itself; `get("numba")` and `get("cupy")` start from it and redefine
pairs of functions that they can do faster. A backend is chosen by whoever runs a model, never by
an environment variable, so that one notebook can compare two.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from miniclip import ops
from miniclip.notes import in_one_line, say_once

NAMES = ("numpy", "numba", "cupy")
FASTEST_FIRST = ("cupy", "numba", "numpy")


def get(name: str) -> ModuleType:
    """The backend called `name`: "numpy", "numba" or "cupy". Imports its library when first asked.

    Raises ValueError for an unknown name, ImportError with the install command when the library
    is missing, RuntimeError when there is no GPU that CuPy can use.
    """
    if name not in NAMES:
        raise ValueError(f"backend: got {name!r}, expected one of {', '.join(NAMES)}")
    backend = importlib.import_module(f"miniclip.backends.{name}")
    backend.check_device()
    return backend


def why_not(name: str) -> str | None:
    """Why a backend does not work on this machine, in one line; None if it does."""
    try:
        get(name)
    except Exception as error:  # a broken installation fails in ways of its own
        return in_one_line(error)
    return None


def is_installed(name: str) -> bool:
    """Whether the library of a backend, which has its name, is there, working or not."""
    return importlib.util.find_spec(name) is not None


def available() -> list[str]:
    """The names of the backends that work on this machine, the textbook first."""
    return [name for name in NAMES if why_not(name) is None]


def choose(name: str) -> str:
    """The name itself; for "auto" the fastest that works here: cupy with a GPU, numba, numpy.

    Where a faster one's library is installed but does not work, a line on standard error says why.
    """
    if name != "auto":
        return name
    for fast in FASTEST_FIRST:
        reason = why_not(fast)
        if reason is None:
            return fast
        if is_installed(fast):
            say_once(f"backend {fast}", f"not on {fast}: {reason}")
    raise RuntimeError("backend: none works here, not even numpy")


def textbook_ops(backend: ModuleType) -> list[str]:
    """The ops that a backend has from the textbook: an edit in `miniclip/ops` changes these."""
    return [op for op in (*ops.PAIRS, *ops.STEPS) if getattr(backend, op) is getattr(ops, op)]


def describe(backend: ModuleType) -> str:
    """One line: the backend's name, and which ops are its own and which the textbook's."""
    return f"{backend.name}, {whose_ops(textbook_ops(backend))}"


def whose_ops(inherited: list[str]) -> str:
    """How many ops are a backend's own, and the names of those that it has from the textbook."""
    total = len(ops.PAIRS) + len(ops.STEPS)
    if len(inherited) == total:
        return f"all {total} ops the textbook's"
    own = f"kernels of its own for {total - len(inherited)} of {total} ops"
    return f"{own}; the textbook's: {', '.join(inherited)}" if inherited else own
