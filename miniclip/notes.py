"""Notes on standard error: what a program's user should know and need not act on."""

from __future__ import annotations

import sys
import threading

_said: set[str] = set()
_lock = threading.Lock()


def say_once(about: str, line: str) -> None:
    """Print `miniclip: line`, once in this process for what it is about."""
    with _lock:
        if about in _said:
            return
        _said.add(about)
    say(line)


def say(line: str) -> None:
    """Print `miniclip: line`. No error where standard error is closed, or there is none."""
    if sys.stderr is None:
        return
    try:
        print(f"miniclip: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return
