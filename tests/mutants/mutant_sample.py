"""Mutants of the package by room, and a sample with the same number of every slip in every room."""

import hashlib
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mutant_sites import Source, changed_by, edits_of

from miniclip.check import Bug

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "miniclip"

# The folders of tests that watch a room. What is only seen through what is built of it is watched
# there: a layer in a tower, a kernel in its operation.
TESTS = {
    "backends": ["backends", "ops"],
    "bench": ["bench"],
    "check": ["check"],
    "checkpoints": ["checkpoints"],
    "cli": ["cli"],
    "course": ["course"],
    "cpu": ["cpu", "backends"],
    "emoji": ["emoji"],
    "engine": ["engine"],
    "files": ["files"],
    "inputs": ["inputs"],
    "inspect": ["inspect"],
    "models": ["models", "nn"],
    "nn": ["nn", "models"],
    "ops": ["ops"],
    "pipeline": ["pipeline"],
    "tasks": ["tasks"],
    "training": ["training"],
    "world": ["world"],
}


@dataclass(frozen=True)
class Mutant:
    """One slip in one file."""

    file: str  # "ops/norm.py"
    line: int
    operator: str
    before: str  # the line, or the lines, as they are
    after: str
    changed: str  # the whole file with the slip

    @property
    def room(self):
        return self.file.split("/")[0] if "/" in self.file else "files"

    @property
    def key(self):
        """Names the slip for as long as the file stays as it is."""
        text = f"{self.file}\n{self.operator}\n{self.changed}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def bug(self):
        source = (PACKAGE / self.file).read_text(encoding="utf-8")
        module = self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return Bug(self.operator, self.room, module, source, self.changed)


def files_of(room):
    """The files of a room, named from the package's folder. Those that stand alone are one room."""
    if room == "files":
        return ["files.py", "notes.py", "tables.py"]
    return sorted(p.relative_to(PACKAGE).as_posix() for p in (PACKAGE / room).rglob("*.py"))


def mutant_of(file, source, edit):
    """The mutant of an edit; None where the edit is no Python or changes nothing."""
    changed = changed_by(edit, source)
    if changed is None:
        return None
    return Mutant(file, source.line(edit), edit.operator, *source.lines(edit), changed)


def changed_lines(since):
    """The lines of each file of the package that differ from a commit: {"ops/norm.py": {3, 4}}.

    Raises subprocess.CalledProcessError if the commit is not in the clone.
    """
    command = ["git", "diff", "--unified=0", "--relative", since, "--", "."]
    diff = subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, text=True).stdout
    lines, file = {}, ""
    for line in diff.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ b/")
        elif line.startswith("@@"):
            first, _, count = line.split("+")[1].split(" ")[0].partition(",")
            numbers = range(int(first), int(first) + int(count or 1))
            lines.setdefault(file, set()).update(numbers)
    return lines


def sample(count, seed, rooms=tuple(TESTS), lines=None, without=()):
    """`count` mutants: as many from each room, and in each room the operators in turn.

    lines: only mutants on these lines of these files (`changed_lines`). A room that has fewer than
    its share leaves the rest to the others. without: keys of mutants that are not drawn.
    """
    without = set(without)
    chance = random.Random(seed)
    queues = [shuffled(room, random.Random(f"{seed} {room}"), lines) for room in rooms]
    chance.shuffle(queues)
    drawn = []
    while queues and len(drawn) < count:
        for queue in list(queues):
            mutant = next((m for m in queue if m.key not in without), None)
            if mutant is None:
                queues.remove(queue)
            elif len(drawn) < count:
                drawn.append(mutant)
    return drawn


def shuffled(room, chance, lines):
    """A room's mutants in the order in which they are drawn: one of each operator in each round."""
    by_operator = {}
    for file in files_of(room):
        if lines is None or file in lines:
            source = Source((PACKAGE / file).read_text(encoding="utf-8"))
            for edit in edits_of(source):
                if lines is None or source.line(edit) in lines[file]:
                    by_operator.setdefault(edit.operator, []).append((file, source, edit))
    for edits in by_operator.values():
        chance.shuffle(edits)
    while by_operator:
        for operator in chance.sample(sorted(by_operator), len(by_operator)):
            mutant = None
            while mutant is None and by_operator[operator]:
                mutant = mutant_of(*by_operator[operator].pop())
            if not by_operator[operator]:
                del by_operator[operator]
            if mutant is not None:
                yield mutant
