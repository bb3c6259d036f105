"""`miniclip course grade FOLDER`: which exercises of a learner's notebooks are right?

The cells with exercises come from the notebooks; everything else, the checks among it, from the
installed sources. Each exercise runs in a process of its own with a time limit. This is no sandbox.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miniclip.course.source import Part, Task, read_parts, source_folder, without_solution
from miniclip.tables import text_table

LIMIT = 10.0  # seconds for one exercise
MAGIC = re.compile(r"^[%!].*$", re.MULTILINE)
PACKAGES = Path(__file__).parents[2]  # where a new process finds miniclip


@dataclass(frozen=True)
class Grade:
    """One exercise. result: right, wrong, empty or missing. message: what is wrong."""

    part: str
    exercise: str
    result: str
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Grades:
    """All exercises of the notebooks that are there; absent: the parts without a notebook."""

    rows: tuple[Grade, ...]
    absent: tuple[str, ...]

    @property
    def right(self) -> int:
        return sum(row.result == "right" for row in self.rows)

    @property
    def ok(self) -> bool:
        return self.right == len(self.rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "right": self.right,
            "total": len(self.rows),
            "exercises": [asdict(row) for row in self.rows],
            "absent": list(self.absent),
        }

    def as_text(self) -> str:
        headings = ["exercise", "part", "result", "seconds"]
        lines = [[r.exercise, r.part, r.result, f"{r.seconds:.1f}"] for r in self.rows]
        said = [f"{row.exercise}: {row.message}" for row in self.rows if row.message]
        if self.absent:
            said.append(f"no notebook of {', '.join(self.absent)}")
        return "\n".join([text_table(headings, lines), f"{self.right} of {len(self.rows)}", *said])


def grade(folder: Path, seed: int = 0, limit: float = LIMIT, source: Path | None = None) -> Grades:
    """Grade the notebooks in a folder, or in its folder notebooks/.

    seed: of the numbers in the checks. limit: seconds for each exercise. source: a folder of
    sources; None: the installed ones.

    Raises FileNotFoundError for a folder without a notebook of the course, ValueError for one that
    cannot be read and for a seed or a limit that is not positive.
    """
    check_settings(seed, limit)
    source = source_folder() if source is None else source
    parts = read_parts(source)
    found = {part.name: notebook_of(folder, part) for part in parts}
    if not any(found.values()):
        raise FileNotFoundError(f"folder: {folder} has no notebook such as {parts[0].name}.ipynb")
    rows: list[Grade] = []
    for part in parts:
        path = found[part.name]
        if path is not None:
            rows += grade_part(part, source / f"{part.name}.py", code_cells(path), seed, limit)
    absent = [name for name, path in found.items() if path is None]
    return Grades(tuple(rows), tuple(absent))


def check_settings(seed: int, limit: float) -> None:
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected a number from 0 on")
    if not limit > 0:
        raise ValueError(f"limit: got {limit}, expected seconds, more than 0")


# ------------------------------------------------------------------------ reading notebooks


def notebook_of(folder: Path, part: Part) -> Path | None:
    """The notebook of a part, if the folder has it."""
    places = (folder / f"{part.name}.ipynb", folder / "notebooks" / f"{part.name}.ipynb")
    return next((path for path in places if path.is_file()), None)


def code_cells(path: Path) -> list[str]:
    """The text of a notebook's code cells, in order."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"folder: {path} is no notebook: {error!r}") from error


def answer_in(cells: list[str], task: Task) -> str | None:
    """The last cell that defines the exercise's function, without magic commands."""
    defines = re.compile(rf"^def {task.name}\(", re.MULTILINE)
    texts = [text for text in cells if defines.search(text)]
    return MAGIC.sub("", texts[-1]) if texts else None


# ------------------------------------------------------------------------ grading


def grade_part(
    part: Part, source: Path, cells: list[str], seed: int, limit: float
) -> Iterator[Grade]:
    for task in part.tasks:
        text = answer_in(cells, task)
        if text is None:
            message = f"no cell defines {task.name}"
            yield Grade(part.name, task.name, "missing", message)
        elif same_code(text, without_solution(task.cell.text)):
            yield Grade(part.name, task.name, "empty")
        else:
            start = time.perf_counter()
            message = verdict_of(source, task.name, text, seed, limit)
            seconds = time.perf_counter() - start
            yield Grade(part.name, task.name, "wrong" if message else "right", message, seconds)


def same_code(text: str, other: str) -> bool:
    return text.split() == other.split()


def verdict_of(source: Path, exercise: str, text: str, seed: int, limit: float) -> str:
    """What is wrong with an answer, in one line; "" if it is right. Runs it in a new process."""
    with tempfile.TemporaryDirectory() as place:
        verdict = Path(place) / "verdict.json"
        job = {
            "part": str(source.resolve()),
            "exercise": exercise,
            "text": text,
            "seed": seed,
            "verdict": str(verdict),
        }
        try:
            run = subprocess.run(
                [sys.executable, "-m", "miniclip.course.examine"],
                input=json.dumps(job),
                text=True,
                encoding="utf-8",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                errors="replace",
                cwd=place,
                env={**os.environ, "PYTHONPATH": search_path()},
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return f"not done after {limit:g} seconds: does a loop end?"
        if not verdict.is_file():
            last = run.stderr.strip().rpartition("\n")[2]
            return f"its process ended with code {run.returncode} and no verdict" + (
                f": {last}" if last else ""
            )
        message: str = json.loads(verdict.read_text(encoding="utf-8"))["message"]
        return message


def search_path() -> str:
    """This miniclip first, then what the environment names."""
    return os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH", "")]))
