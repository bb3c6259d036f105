"""`miniclip course prove`: does each grader accept right answers and reject wrong ones?

A grader that was never seen to reject anything proves nothing. For each exercise: the solution and
other right ways have to pass; the empty exercise, the wrong answers of its source, each with its
words, and six that every exercise gets have to fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from miniclip.course.answers import example_of
from miniclip.course.checks import EXERCISES
from miniclip.course.exercise import Exercise
from miniclip.course.session import answer_of
from miniclip.course.source import Part, Task, Wrong, with_solution, without_solution
from miniclip.tables import text_table

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Proof:
    """One answer and what its grader said. expected: words of the message; "" where it passes."""

    exercise: str
    kind: str  # solution, right, empty, wrong, always
    what: str  # which answer
    passes: bool  # whether it should
    expected: str
    message: str  # what the grader said, "" for right
    seconds: float

    @property
    def holds(self) -> bool:
        if self.passes:
            return not self.message
        return bool(self.message) and self.expected in self.message


@dataclass(frozen=True)
class Proofs:
    """All answers of all exercises."""

    rows: tuple[Proof, ...]

    @property
    def ok(self) -> bool:
        return all(row.holds for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "answers": [{**asdict(r), "holds": r.holds} for r in self.rows]}

    def as_text(self, messages: bool = False) -> str:
        """A row for each exercise, and all that does not hold; messages: every answer's."""
        lines = [self.line(name) for name in dict.fromkeys(row.exercise for row in self.rows)]
        headings = ["exercise", "right ways pass", "wrong ones fail", "own", "seconds"]
        shown = [row for row in self.rows if messages or not row.holds]
        return "\n".join([text_table(headings, lines), *(as_line(row) for row in shown)])

    def line(self, exercise: str) -> list[str]:
        rows = [row for row in self.rows if row.exercise == exercise]
        right, wrong = ([row for row in rows if row.passes is kind] for kind in (True, False))
        own = [row for row in wrong if row.kind == "wrong"]
        held = (f"{sum(row.holds for row in some)} of {len(some)}" for some in (right, wrong, own))
        return [exercise, *held, f"{max(row.seconds for row in rows):.2f}"]


def as_line(row: Proof) -> str:
    """One answer with its message, and what was expected where that is not it."""
    said = row.message or "passes"
    line = f"{row.exercise}, {row.kind}, {row.what}: {said}"
    if row.holds:
        return line
    expected = "to pass" if row.passes else f"words {row.expected!r}" if row.message else "to fail"
    return f"FAILED {line} (expected {expected})"


def prove(parts: list[Part]) -> Proofs:
    """Try all answers of all parts. Raises ValueError for a wrong cell that cannot be made."""
    rows = [row for part in parts for task in part.tasks for row in prove_task(part, task)]
    return Proofs(tuple(rows))


def prove_task(part: Part, task: Task) -> Iterator[Proof]:
    """All answers to one exercise."""
    exercise = exercise_of(part, task)
    solution = with_solution(task.cell.text)
    texts = [("solution", "the solution", True, "", solution)]
    texts += [("right", f"line {c.line}", True, "", c.text) for c in task.rights]
    texts += [("empty", "as handed out", False, "", without_solution(task.cell.text))]
    texts += [
        ("wrong", f"{w.old!r} -> {w.new!r}", False, w.words, changed(part, solution, w))
        for w in task.wrongs
    ]
    for kind, what, passes, words, text in texts:
        message, seconds = tried(exercise, answer_of(part, task, text))
        yield Proof(task.name, kind, what, passes, words, message, seconds)
    for what, (answer, words) in always_wrong(exercise, answer_of(part, task, solution)).items():
        message, seconds = tried(exercise, answer)
        yield Proof(task.name, "always", what, False, words, message, seconds)


def exercise_of(part: Part, task: Task) -> Exercise:
    if task.name not in EXERCISES:
        raise ValueError(f"{part.name}: {task.name} has no check in miniclip.course.checks")
    return EXERCISES[task.name]


def changed(part: Part, solution: str, wrong: Wrong) -> str:
    """The solution with one passage changed. Raises ValueError unless it is there."""
    if wrong.old not in solution:
        raise ValueError(
            f"{part.name}: a wrong answer changes {wrong.old!r}, which no solution has"
        )
    return solution.replace(wrong.old, wrong.new, 1)


def tried(exercise: Exercise, answer: Answer) -> tuple[str, float]:
    """What the grader says, and its seconds. Warnings of a wrong answer are no concern here."""
    start = time.perf_counter()
    with np.errstate(all="ignore"):
        message = exercise.verdict(answer)
    return message, time.perf_counter() - start


# ------------------------------------------------------------------------ always among the wrong


def always_wrong(exercise: Exercise, solution: Answer) -> dict[str, tuple[Answer, str]]:
    """The six wrong answers that every exercise gets, and words of their messages."""

    def first_changed(change: Callable[[Any], Any]) -> Answer:
        def answer(*arguments: Any) -> Any:
            returned = solution(*arguments)
            if isinstance(returned, tuple):
                return (change(returned[0]), *returned[1:])
            return change(returned)

        return answer

    def writes(*arguments: Any) -> Any:
        returned = solution(*arguments)
        array = next(x for x in arguments if isinstance(x, np.ndarray))
        array += 1
        return returned

    narrow = np.float64 if exercise.float32 else np.float32
    kinds = "float64 for float32" if exercise.float32 else "float32 for float64"
    example = "the example of the text comes out right" if example_of(exercise.name) else ""
    return {
        "returns nothing": (lambda *arguments: None, "returned nothing"),
        "another shape": (first_changed(lambda x: np.asarray(x)[None]), "has shape"),
        "another dtype": (first_changed(lambda x: np.asarray(x).astype(narrow)), kinds),
        "writes into its input": (writes, "has written into"),
        "right for the example alone": (example_only(exercise, solution), example),
        "calls ours": (lambda *arguments: exercise.right(*arguments), "do not call it"),
    }


def example_only(exercise: Exercise, solution: Answer) -> Answer:
    """Gives the known outputs for the known example, and zeros for anything else."""
    known, outputs = example_of(exercise.name) or first_case(exercise)

    def answer(*arguments: Any) -> Any:
        if all(map(alike, arguments, known.values())):
            return outputs if len(outputs) > 1 else outputs[0]
        returned = solution(*arguments)
        if isinstance(returned, tuple):
            return tuple(np.zeros_like(x) for x in returned)
        return np.zeros_like(returned)

    return answer


def first_case(exercise: Exercise) -> tuple[dict[str, Any], tuple[Any, ...]]:
    arguments = exercise.arguments(exercise.cases(0)[0], 0)
    return arguments, exercise.in_order(exercise.right(**arguments))


def alike(x: Any, y: Any) -> bool:
    """Whether two arguments are the same; functions cannot be compared."""
    if callable(x):
        return True
    return np.shape(x) == np.shape(y) and bool(np.all(np.asarray(x) == np.asarray(y)))
