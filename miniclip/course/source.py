"""The source of a part: notebooks/src/NN-name.py, Python in percent format.

A cell begins with `# %%` and ends before the next; tags stand behind it, as jupytext writes them:

    # %% tags=["exercise"]

| tag | what the cell is |
|---|---|
| `setup` | imports, and what all exercises use; runs before each when graded |
| `predict` | a question: the line that ends with `# SOLUTION` is left to the learner |
| `exercise` | one function; between `# BEGIN SOLUTION` and `# END SOLUTION` is what is left out |
| `check` | calls `check.NAME(NAME)` |
| `look` | a picture or a plot |
| `right` | another right answer to an exercise; never leaves the source |
| `wrong` | wrong answers: a list of (old text, new text, words of the message); never leaves it |

A right or wrong cell belongs to the exercise before it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

HIDDEN = {"right", "wrong"}  # tags of cells that stay in the source
TAGS = {"setup", "predict", "exercise", "check", "look"} | HIDDEN
PART = re.compile(r"\d\d-[a-z0-9-]+")
MARKER = re.compile(r"^# %%(?P<markdown> \[markdown\])?(?P<rest>.*)$")
BLOCK = re.compile(
    r"^(?P<indent> *)# BEGIN SOLUTION\n(?P<body>.*?)^ *# END SOLUTION\n?", re.MULTILINE | re.DOTALL
)
LINE = re.compile(r"^(?P<before> *[\w., ]+ = ).*  # SOLUTION$", re.MULTILINE)
SEED = re.compile(r"^SEED = \d+$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell. text: Markdown without its comment signs, or Python. line: where it begins."""

    text: str
    tag: str = ""  # "" for text and for code without a tag
    markdown: bool = False
    line: int = 0

    @property
    def function(self) -> str:
        """The name of the function that an exercise defines: its last one."""
        functions = [n for n in ast.parse(self.text).body if isinstance(n, ast.FunctionDef)]
        return functions[-1].name if functions else ""


@dataclass(frozen=True)
class Wrong:
    """A wrong answer: the solution with one passage changed, and words that its message has."""

    old: str
    new: str
    words: str


@dataclass(frozen=True)
class Task:
    """An exercise of a part, with what proves its grader."""

    cell: Cell
    rights: tuple[Cell, ...]
    wrongs: tuple[Wrong, ...]

    @property
    def name(self) -> str:
        return self.cell.function


@dataclass(frozen=True)
class Part:
    """The source of one part."""

    name: str  # "02-chain-rule"
    cells: tuple[Cell, ...]

    @property
    def tasks(self) -> list[Task]:
        """The exercises in order."""
        groups: list[list[Cell]] = []
        for cell in self.cells:
            if cell.tag == "exercise":
                groups.append([cell])
            elif cell.tag in HIDDEN and groups:
                groups[-1].append(cell)
        return [self.task_of(*group) for group in groups]

    def task_of(self, cell: Cell, *proofs: Cell) -> Task:
        wrongs = [Wrong(*w) for p in proofs if p.tag == "wrong" for w in listed(p, self.name)]
        return Task(cell, tuple(p for p in proofs if p.tag == "right"), tuple(wrongs))

    def shown(self) -> list[Cell]:
        """The cells that go into notebooks."""
        return [cell for cell in self.cells if cell.tag not in HIDDEN]


def listed(cell: Cell, part: str) -> list[tuple[str, str, str]]:
    """The list that a wrong cell assigns. Raises ValueError that names its line."""
    try:
        (statement,) = ast.parse(cell.text).body
        found = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
        return [(str(old), str(new), str(words)) for old, new, words in found]
    except (ValueError, TypeError, AttributeError, SyntaxError) as error:
        raise ValueError(
            f"{part}, line {cell.line}: a wrong cell is one list of (old text, new text, words of "
            f"the message): {error}"
        ) from error


# ------------------------------------------------------------------------ reading


def read_part(path: Path) -> Part:
    """Read a source. Raises ValueError with the line that cannot be read."""
    return parse_part(path.stem, path.read_text(encoding="utf-8"))


def parse_part(name: str, text: str) -> Part:
    """The cells of a source. What stands before the first is no part of it."""
    starts: list[tuple[int, re.Match[str]]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        found = MARKER.match(line)
        if found:
            starts.append((number, found))
    ends = [number for number, _ in starts[1:]] + [len(lines)]
    cells = [
        cell_of(name, number + 1, found, lines[number + 1 : end])
        for (number, found), end in zip(starts, ends, strict=True)
    ]
    if not any(cell.tag == "exercise" for cell in cells):
        raise ValueError(f"{name}: got no cell with the tag exercise, expected one at least")
    return Part(name, tuple(cells))


def cell_of(name: str, line: int, marker: re.Match[str], lines: list[str]) -> Cell:
    text = "\n".join(lines).strip("\n")
    if marker["markdown"]:
        text = "\n".join(re.sub("^# ?", "", row) for row in text.splitlines())
        return Cell(text, markdown=True, line=line)
    rest = marker["rest"].strip()
    found = re.fullmatch(r'tags=\["(\w+)"\]', rest)
    if rest and (not found or found[1] not in TAGS):
        raise ValueError(
            f"{name}, line {line}: got {rest!r}, expected tags=[...] with one of "
            f"{', '.join(sorted(TAGS))}"
        )
    return Cell(text, found[1] if found else "", line=line)


def source_folder() -> Path:
    """Where the installed sources lie; in a checkout that is not installed, notebooks/src."""
    try:
        return Path(str(resources.files("miniclip.course.parts")))
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "notebooks" / "src"


def read_parts(folder: Path | None = None) -> list[Part]:
    """All parts of a folder in order, by default the installed ones.

    Raises FileNotFoundError for a folder without a source.
    """
    folder = source_folder() if folder is None else folder
    paths = sorted(path for path in folder.glob("*.py") if PART.fullmatch(path.stem))
    if not paths:
        raise FileNotFoundError(f"source: {folder} has no file such as 02-chain-rule.py")
    return [read_part(path) for path in paths]


# ------------------------------------------------------------------------ what a cell becomes


def without_solution(text: str) -> str:
    """The cell as a learner gets it."""
    text = BLOCK.sub(lambda found: f"{found['indent']}...  # your lines\n", text)
    return LINE.sub(open_answer, text).rstrip("\n")


def open_answer(found: re.Match[str]) -> str:
    """`a, b = ` -> `a, b = ..., ...`, to be filled in."""
    dots = ", ".join(["..."] * (found["before"].count(",") + 1))
    return f"{found['before']}{dots}  # your answer"


def with_solution(text: str) -> str:
    """The cell with its solution, without the marks."""
    return LINE.sub(
        lambda found: found[0].removesuffix("  # SOLUTION"),
        BLOCK.sub(lambda found: found["body"], text),
    ).rstrip("\n")


def for_nbgrader(text: str) -> str:
    """The cell with its solution between the marks that nbgrader knows."""

    def marked(found: re.Match[str]) -> str:
        indent = found["indent"]
        return f"{indent}### BEGIN SOLUTION\n{found['body']}{indent}### END SOLUTION\n"

    return LINE.sub(
        lambda found: found[0].removesuffix("  # SOLUTION"), BLOCK.sub(marked, text)
    ).rstrip("\n")


def seeded(text: str, seed: int) -> str:
    """The cell with another seed, where it sets one."""
    return SEED.sub(f"SEED = {seed}", text)


Variant = Callable[[str], str]
