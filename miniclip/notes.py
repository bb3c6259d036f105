"""Lines for people: notes on standard error, and what went wrong, said in one line."""

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


def in_one_line(error: BaseException) -> str:
    """What an exception says, without line breaks; of the system's errors the file comes first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
