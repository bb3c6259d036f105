"""Planting bugs in a running package, or in a copy of it, and whether a check finds them.

`Bug` and `planted` (one module) are miniclip.check's; what is here serves tests of whole models and
of compiled kernels.
"""

import importlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, SimpleNamespace

import pytest

import miniclip
from miniclip import ops
from miniclip.check import Bug, planted

__all__ = [
    "Bug",
    "is_caught",
    "planted_in_place",
    "planted_package",
    "run_with",
    "textbook_with",
]
PACKAGE = Path(miniclip.__file__).parent
MISTAKES = (ValueError, LookupError, RuntimeError, RuntimeWarning)  # that wrong numbers lead to
FOUND = (AssertionError, pytest.fail.Exception, *MISTAKES)


def is_caught(check, also=()):
    """Whether a check fails, by an assertion or by one of the usual errors.

    also: further errors that count. Any other is a fault of the test and is raised.
    """
    try:
        check()
    except (*FOUND, *also):
        return True
    return False


def textbook_with(bug):
    """The textbook as a backend, with the functions of one module taken from the planted one."""
    functions = {name: getattr(ops, name) for name in ops.__all__}
    module = planted(bug)
    functions |= {n: getattr(module, n) for n in functions if hasattr(module, n)}
    return SimpleNamespace(**functions, to_numpy=lambda x: x, name="planted")


@contextmanager
def planted_in_place(bug, room):
    """The functions and classes of a planted module instead of the real ones, wherever modules of
    that room use them, while the block lasts. Compiled kernels stay: theirs is a cache on disk.
    """
    real, module = sys.modules[f"miniclip.{bug.module}"], planted(bug)
    changed = {
        id(getattr(real, name)): value
        for name, value in vars(module).items()
        if isinstance(value, type | FunctionType) and value.__module__ == module.__name__
    }
    places = [
        (user, name, value)
        for user_name, user in list(sys.modules.items())
        if f"{user_name}.".startswith(f"miniclip.{room}.")
        for name, value in list(vars(user).items())
        if id(value) in changed
    ]
    try:
        for user, name, value in places:
            setattr(user, name, changed[id(value)])
        yield module
    finally:
        for user, name, value in places:
            setattr(user, name, value)


def copy_with(bug, folder):
    """A copy of the package with the bug, in a folder of the test."""
    shutil.copytree(PACKAGE, folder / "miniclip", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "miniclip" / bug.path).write_text(bug.changed_source(), encoding="utf-8")


@contextmanager
def planted_package(bug, folder):
    """The whole package imported anew from a copy with the bug, while the block lasts."""
    copy_with(bug, folder)
    real = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "miniclip"}
    for name in real:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    cache = os.environ.get("MINICLIP_CACHE_DIR")
    os.environ["MINICLIP_CACHE_DIR"] = str(folder / "cache")
    try:
        yield importlib.import_module("miniclip")
    finally:
        sys.path.remove(str(folder))
        if cache is None:
            del os.environ["MINICLIP_CACHE_DIR"]
        else:
            os.environ["MINICLIP_CACHE_DIR"] = cache
        for name in [name for name in sys.modules if name.split(".")[0] == "miniclip"]:
            del sys.modules[name]
        sys.modules.update(real)


def run_with(bug, folder, code, *arguments):
    """Run code in a process whose miniclip is a copy with the bug, and its compiled kernels too.

    Returns the last line of the error, "" if there was none.
    """
    copy_with(bug, folder)
    places = {"PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parent}"}
    run = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, **places, "MINICLIP_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return run.stderr.strip().split("\n")[-1] if run.returncode else ""
