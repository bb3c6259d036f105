"""Running cells of a part: what an exercise needs before it, and the answer itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miniclip.course.source import Part, Task, with_solution


def names_before(part: Part, task: Task) -> dict[str, Any]:
    """What an answer may use: the cells with the tag setup, and the solutions of earlier exercises.

    So each exercise is graded by itself: one that is wrong does not make the next one wrong.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in part.cells:
        if cell.tag == "setup":
            run(cell.text, names, "setup")
    for earlier in part.tasks:
        if earlier.name == task.name:
            return names
        run(with_solution(earlier.cell.text), names, earlier.name)
    raise ValueError(f"task: got {task.name!r}, expected an exercise of {part.name}")


def answer_of(part: Part, task: Task, text: str) -> Callable[..., Any]:
    """The function that a cell defines, run after what stands before it. Raises what it raises."""
    names = names_before(part, task)
    run(text, names, task.name)
    answer: Callable[..., Any] = names[task.name]
    return answer


def run(text: str, names: dict[str, Any], title: str) -> None:
    exec(compile(text, f"<{title}>", "exec", dont_inherit=True), names)
