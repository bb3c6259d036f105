"""`miniclip course build`: the notebooks, derived from their sources.

From notebooks/src/NN-name.py come notebooks/NN-name.ipynb, the learner's, and
notebooks/solutions/NN-name.ipynb. The same source gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from miniclip.course.source import (
    Cell,
    Part,
    Variant,
    for_nbgrader,
    seeded,
    with_solution,
    without_solution,
)
from miniclip.files import made_folder, write_bytes

SOLUTIONS = "solutions"  # the folder of the notebooks with answers
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#]*)(#[^)]*)?\)")
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def build(
    parts: list[Part], folder: Path, seed: int | None = None, nbgrader: bool = False
) -> list[Path]:
    """Write both notebooks of each part; returns their paths. All are written, or none.

    seed: of the numbers in checks and predictions, for a teacher; None leaves the source's.
    nbgrader: add nbgrader's metadata; solutions then keep its marks.
    """
    check_seed(seed)
    files = derived(parts, folder, seed, nbgrader)
    with made_folder(folder / SOLUTIONS):
        write_bytes(files)
    return list(files)


def differing(
    parts: list[Part], folder: Path, seed: int | None = None, nbgrader: bool = False
) -> list[str]:
    """The derived notebooks that are not what their source gives, in words."""
    check_seed(seed)
    found = []
    for path, content in derived(parts, folder, seed, nbgrader).items():
        if not path.is_file():
            found.append(f"{path}: missing")
        elif path.read_bytes() != content:
            found.append(f"{path}: not what its source gives")
    return found


def check_seed(seed: int | None) -> None:
    if seed is not None and seed < 0:
        raise ValueError(f"seed: got {seed}, expected a number from 0 on")


def derived(parts: list[Part], folder: Path, seed: int | None, nbgrader: bool) -> dict[Path, bytes]:
    files = {}
    for part in parts:
        name = f"{part.name}.ipynb"
        files[folder / name] = notebook(part, without_solution, seed, nbgrader)
        answers = for_nbgrader if nbgrader else with_solution
        files[folder / SOLUTIONS / name] = notebook(part, answers, seed, nbgrader, "../")
    return files


def notebook(
    part: Part, variant: Variant, seed: int | None = None, nbgrader: bool = False, up: str = ""
) -> bytes:
    """One notebook as JSON, with no outputs. up: what leads to the folder of links."""
    shown = part.shown()
    names = zip(identities(shown), shown, strict=True)
    cells = [as_json(name, cell, variant, seed, up) for name, cell in names]
    if nbgrader:
        for cell, made in zip(shown, cells, strict=True):
            made["metadata"].update(nbgrader_metadata(cell))
    whole = {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(whole, ensure_ascii=False, indent=1) + "\n").encode()


def identities(cells: list[Cell]) -> list[str]:
    """A name for each cell, of its text: another cell that comes or goes does not change it."""
    names, seen = [], Counter[str]()
    for cell in cells:
        name = hashlib.sha256(cell.text.encode()).hexdigest()[:8]
        names.append(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def as_json(name: str, cell: Cell, variant: Variant, seed: int | None, up: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "cell_type": "markdown" if cell.markdown else "code",
        "id": name,
        "metadata": metadata(cell),
    }
    if cell.markdown:
        text = LINK.sub(lambda found: f"[{found[1]}]({up}{found[2]}{found[3] or ''})", cell.text)
        return {**made, "source": text.splitlines(keepends=True)}
    text = cell.text if seed is None else seeded(cell.text, seed)
    text = variant(text)
    return {**made, "execution_count": None, "outputs": [], "source": text.splitlines(True)}


def metadata(cell: Cell) -> dict[str, Any]:
    """Tags, and for an exercise its name, by which grading finds the cell."""
    found: dict[str, Any] = {"tags": [cell.tag]} if cell.tag else {}
    if cell.tag == "exercise":
        found["miniclip"] = {"exercise": cell.function}
    return found


def nbgrader_metadata(cell: Cell) -> dict[str, Any]:
    """What nbgrader needs to know of exercises and checks (its schema 3)."""
    checked = re.search(r"check\.(\w+)\(", cell.text)
    if cell.tag == "exercise":
        own: dict[str, Any] = {"grade_id": cell.function, "solution": True, "grade": False}
    elif cell.tag == "check" and checked:
        own = {"grade_id": f"check_{checked[1]}", "solution": False, "grade": True, "points": 1}
    else:
        return {}
    return {"nbgrader": {**own, "locked": own["grade"], "schema_version": 3, "task": False}}


def links_as_words(text: str) -> str:
    """Links into the repository as paths, for a folder that lies elsewhere."""
    return LINK.sub(lambda found: f"`{found[2].removeprefix('../')}`", text)
