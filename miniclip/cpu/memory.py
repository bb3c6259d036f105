"""Freed memory is kept for the next arrays instead of going back to the operating system.

A training step makes hundreds of large arrays and frees them all before the next step. The C
library gives large freed blocks back to the system at once, and the system hands out new ones as
pages of zeros, one page fault for each 4 KiB touched: a quarter of a microsecond on bare metal,
ten or twenty in some virtual machines, where a step then spends most of its time on that. Told to
keep what was freed, the C library gives the same pages out again.

This holds for the whole process, so importing or running a model does not do it: the training loop
does, whose process has little else to do, only where glibc is the C library, and only if the user
has not told malloc otherwise in the environment. A loop of your own may call `keep_freed_memory`.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST = 2**31 - 1  # mallopt takes a C int


def keep_freed_memory() -> bool:
    """Tell malloc to keep up to 2 GiB at hand. False where it cannot or should not be told."""
    if chosen_by_user():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    # without mmap all blocks come from one heap, and go back only from its end
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))


def chosen_by_user() -> bool:
    """Whether the environment says how malloc is to behave, or another malloc may be loaded."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD")
    return (
        sys.platform != "linux"
        or "glibc.malloc" in tunables
        or any(os.environ.get(name) for name in names)
    )
