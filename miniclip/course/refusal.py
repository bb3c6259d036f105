"""While an answer runs, the function that it is to write cannot be called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any


def _refuse(*arguments: Any, **named: Any) -> None:
    from miniclip.course.failures import Refused  # this code runs with the globals of another file

    raise Refused


def guarded(
    answer: Callable[..., Any], names: Iterable[str], *more: Callable[..., Any]
) -> Callable[..., Any]:
    """An answer that cannot call miniclip's functions of these names, nor those given.

    They raise `Refused` while it runs. The functions themselves are changed, not the places that
    name them, so that one which was imported before, or is called by a module of a model, raises
    as well. This is no sandbox: it keeps an answer from being ours by accident.
    """
    names, own = tuple(names), [f for f in more if isinstance(f, FunctionType)]

    def call(*arguments: Any) -> Any:
        # looked for anew each time, as an answer may import a backend
        with refused([*own, *(f for name in names for f in functions_called(name))]):
            return answer(*arguments)

    return call


@contextmanager
def refused(functions: Sequence[FunctionType]) -> Iterator[None]:
    """Inside, these functions raise `Refused`."""
    codes = {f: f.__code__ for f in functions}
    try:
        for function in codes:
            function.__code__ = _refuse.__code__
        yield
    finally:
        for function, code in codes.items():
            function.__code__ = code


def functions_called(name: str) -> list[FunctionType]:
    """All functions of this name that a module of miniclip has, of every backend."""
    modules = [m for n, m in list(sys.modules.items()) if n.partition(".")[0] == "miniclip"]
    found = [vars(module).get(name) for module in modules if module is not None]
    return [f for f in found if isinstance(f, FunctionType)]
