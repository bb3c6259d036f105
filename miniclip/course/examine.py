"""One answer in a process of its own: `python -m miniclip.course.examine`, as grading calls it.

The job comes as JSON on standard input; the verdict is written to the file that it names. A process
that ends before that, whatever its exit code, has no verdict.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from miniclip.course.checks import EXERCISES
from miniclip.course.failures import raised
from miniclip.course.session import answer_of
from miniclip.course.source import read_part


def examine(job: dict[str, Any]) -> str:
    """What is wrong with the answer, in one line; "" if it is right."""
    part = read_part(Path(job["part"]))
    (task,) = (task for task in part.tasks if task.name == job["exercise"])
    exercise = EXERCISES[task.name]  # taken before the answer runs, which may change our names
    try:
        answer = answer_of(part, task, job["text"])
    except Exception as error:
        return raised("its cell", error)
    return exercise.verdict(answer, job["seed"])


if __name__ == "__main__":
    given = json.load(sys.stdin)
    message = examine(given)
    Path(given["verdict"]).write_text(json.dumps({"message": message}), encoding="utf-8")
