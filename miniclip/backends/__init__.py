"""Backends: modules that offer every function of `miniclip.ops` under the same name.

`get("numpy")` is the textbook itself; `get("numba")` and `get("cupy")` start from it and redefine
pairs of functions that they can do faster. A backend is chosen by whoever runs a model, never by
an environment variable, so that one notebook can compare two.
"""

from __future__ import annotations

import importlib
from types import ModuleType

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


def available() -> list[str]:
    """The names of the backends that work on this machine, the textbook first."""
    working = []
    for name in NAMES:
        try:
            get(name)
        except (ImportError, RuntimeError):
            continue
        working.append(name)
    return working


def choose(name: str) -> str:
    """The name itself; for "auto" the fastest that works here: cupy with a GPU, numba, numpy."""
    if name != "auto":
        return name
    working = available()
    return next(fast for fast in FASTEST_FIRST if fast in working)
