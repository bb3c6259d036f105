"""Compiled kernels on disk, never stale: a folder for each state of the source, a file a kernel.

Numba's own cache looks at a kernel's own file only, while kernels call each other across files and
freeze constants of others: after an edit of a leaf its callers would run the old code. It also has
an index for each kernel, which two processes that compile at once can leave pointing at the wrong
code. Here:

- the **stamp** is a hash over every file that compiled code takes a name or a value from (SOURCES;
  a test walks the imports), and over the versions, settings and vector width that it was compiled
  with. Each stamp has a folder of its own, so nothing in it can be out of date;
- there is **no index**: the name of a file is the kernel's name and a hash of its signature and the
  processor. Two processes that compile the same kernel write the same file, one after the other;
- a file begins with a hash of the rest, is written beside its place and renamed. Whatever is
  missing, short or damaged is compiled again; of the damaged one line on standard error tells.

The files hold pickles of machine code. They are read only from a folder that belongs to this user
and that nobody else may write to: `cache_folder()/compiled`, mode 0700.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

from miniclip.cpu.simd import VECTOR_BYTES, VECTORS
from miniclip.files import cache_folder
from miniclip.notes import say_once

# Names that Numba does not promise. Where a release lacks one, everything is compiled and nothing
# is kept, and the note says so.
try:
    from numba.core.compiler import CompileResult
    from numba.core.serialize import dumps

    missing = [name for name in ("_reduce", "_rebuild") if not hasattr(CompileResult, name)]
except ImportError as error:
    missing = [str(error)]

# Every file of the package that compiled code takes a name or a value from.
SOURCES = (
    "backends/numba/attention_kernels.py",
    "backends/numba/conv_kernels.py",
    "backends/numba/map_kernels.py",
    "backends/numba/row_kernels.py",
    "cpu/augment.py",
    "cpu/cache.py",
    "cpu/jit.py",
    "cpu/matmul.py",
    "cpu/rows.py",
    "cpu/scalars.py",
    "cpu/simd.py",
    "cpu/team.py",
    "cpu/transpose.py",
    "engine/cpu/attention_kernels.py",
    "engine/cpu/kernels.py",
    "engine/cpu/map_kernels.py",
    "engine/cpu/winograd.py",
    "engine/cpu/winograd_kernels.py",
    "files.py",
    "inputs/augment.py",
    "notes.py",
    "ops/activation.py",
    "ops/array.py",
)
PACKAGE = Path(__file__).parents[1]
DIGEST = hashlib.sha256().digest_size
UNUSED_DAYS = 30  # after which the folder of another stamp is deleted


@functools.cache
def stamp() -> str:
    """The hash that names the folder: of the source, the versions, the settings and the width."""
    versions = (platform.python_version(), np.__version__, numba.__version__, llvmlite.__version__)
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_"))
    total = hashlib.sha256(repr((versions, settings, VECTOR_BYTES, VECTORS)).encode())
    for name in SOURCES:
        source = (PACKAGE / name).read_bytes()
        total.update(f"\n{name} {len(source)}\n".encode() + source)
    return total.hexdigest()[:24]


@functools.cache
def kept() -> tuple[Path | None, str]:
    """The folder of this stamp, made when first asked for; or None, and why nothing can be kept."""
    if missing:
        return None, f"Numba {numba.__version__} lacks what that needs: {', '.join(missing)}"
    try:
        root = cache_folder() / "compiled"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(root)
        folder = root / stamp()
        is_new = not folder.exists()
        folder.mkdir(mode=0o700, exist_ok=True)
        check_private(folder)
        with tempfile.NamedTemporaryFile(dir=folder):  # a disk that is full or read-only says so
            os.utime(folder)  # used today
    except OSError as error:  # of a user without a home, too
        return None, f"{error}; MINICLIP_CACHE_DIR names another folder"
    if is_new:
        delete_unused(root)
    return folder, ""


def check_private(folder: Path) -> None:
    """PermissionError unless the folder is this user's and nobody else may write to it."""
    if not hasattr(os, "getuid"):  # Windows: a user's folders are private by default
        return
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} belongs to another user, or others may write to it")


def delete_unused(root: Path) -> None:
    """Delete the folders of stamps that no process has used for a while.

    Never a younger one: another checkout, or another environment, may be using it now.
    """
    for folder in root.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > UNUSED_DAYS * 24 * 3600:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another process was faster
            continue


def attach(dispatcher: Any) -> None:
    """Give a compiled function its cache, if it is one of ours and something can be kept.

    A function from elsewhere (a test's, a learner's, a changed copy of a module) is compiled in
    each process: the stamp says nothing about its source.
    """
    function = getattr(dispatcher, "py_func", None)  # none under NUMBA_DISABLE_JIT
    if function is None or function.__module__ not in MODULES:
        return
    if Path(function.__code__.co_filename) == PACKAGE / MODULES[function.__module__]:
        dispatcher._cache = KernelCache(function)


def module_of(source: str) -> str:
    return f"{__name__.split('.')[0]}.{source.removesuffix('.py').replace('/', '.')}"


MODULES = {module_of(source): source for source in SOURCES}


class KernelCache:
    """One kernel's files. Numba asks it before it compiles a signature, and gives it the result."""

    def __init__(self, function: Callable[..., Any]) -> None:
        line = function.__code__.co_firstlineno
        self.name = f"{function.__module__}.{function.__qualname__}-{line}"

    def path(self, signature: Any, codegen: Any) -> Path | None:
        """The file for a signature on this processor. None where nothing can be kept."""
        folder, _ = kept()
        if folder is None:
            return None
        key = hashlib.sha256(repr((signature, codegen.magic_tuple())).encode()).hexdigest()
        return folder / f"{self.name}.{key[:20]}"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled function, or None if it has to be compiled."""
        target.refresh()
        path = self.path(signature, target.codegen())
        if path is None or not path.exists():
            return None
        try:
            return CompileResult._rebuild(target, *read(path))
        except OSError:  # deleted meanwhile, or not to be read
            return None
        except Exception as error:  # of any kind: it is not what was written
            say_once("damaged", f"what is damaged in {path.parent} is made again ({error})")
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a compiled function, unless it holds what is true of this process only."""
        if any(not loop.can_cache for loop in compiled.lifted):
            return
        path = self.path(signature, compiled.codegen)
        if path is not None and not compiled.library.has_dynamic_globals:
            write(path, dumps(compiled._reduce()))

    # what else Numba asks of a cache

    @property
    def cache_path(self) -> str:
        return str(kept()[0] or "")

    def enable(self) -> None:
        """It always is."""

    def disable(self) -> None:
        """It never is."""

    def flush(self) -> None:
        """Nothing is out of date."""


def read(path: Path) -> Any:
    """What a file holds. Raises ValueError if it is not whole, OSError if it cannot be read."""
    raw = path.read_bytes()
    if hashlib.sha256(raw[DIGEST:]).digest() != raw[:DIGEST]:
        raise ValueError(f"{path.name}: got {len(raw)} bytes with another hash than their first")
    return pickle.loads(raw[DIGEST:])


def write(path: Path, body: bytes) -> None:
    """Write a file whole or not at all: on a full disk, or in a folder deleted meanwhile."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent)
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
