"""What a check raises: one line that says what is wrong with an answer."""

from __future__ import annotations

from miniclip.notes import in_one_line


class WrongAnswer(Exception):
    """An answer is wrong; the message says how. A notebook shows this line and no traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"Not yet: {self}"]


class Refused(BaseException):
    """The answer has called the function that it is to write.

    No Exception, so that an answer which catches everything does not catch this.
    """


def raised(what: str, error: Exception) -> str:
    """What to say of code that ended with an exception of its own, in one line."""
    return f"{what} raised {type(error).__name__}: {in_one_line(error)}"
