"""One number of threads for everybody who computes in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_limits() -> Any:
    """threadpoolctl's context manager. ImportError that says how to get it, where it is missing."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise ImportError(
            "bench: needs threadpoolctl, to give everybody the same number of threads: "
            "pip install threadpoolctl"
        ) from None
    return threadpool_limits


@contextmanager
def limited(count: int, torch: Any = None) -> Iterator[None]:
    """BLAS, the plans and (where the module is given) PyTorch use `count` threads; then as before.

    ONNX Runtime is told when a session is made.
    """
    from miniclip.cpu.team import set_threads

    before = None if torch is None else torch.get_num_threads()
    with blas_limits()(count, user_api="blas"):
        try:
            if torch is not None:
                torch.set_num_threads(count)
            set_threads(count)
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
            set_threads(None)
