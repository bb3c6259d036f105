"""Peaks of memory, each measured in a fresh process of its own.

What counts is the process's own memory (RssAnon of Linux): a peak of all resident memory would
count files that are mapped, libraries and weights, which the system can share and drop.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miniclip.tables import text_table

STATUS = Path("/proc/self/status")
FIELD = "RssAnon:"


@dataclass(frozen=True)
class Job:
    """What a child process does: embed `count` pictures with one model.

    subject: "ours" or "torch". model: a shipped one, a folder or a file. repeated: the pictures are
    one, in a view that holds it once, so that they take no memory themselves; otherwise all are
    there and are one batch.
    """

    subject: str
    model: str
    count: int
    repeated: bool
    threads: int
    activation: str | None = None

    @property
    def title(self) -> str:
        how = "in chunks" if self.repeated else "in one batch"
        return f"{self.model}, {self.subject}, {self.count} pictures {how}"


@dataclass(frozen=True)
class Peak:
    """MiB of own memory. before: models and pictures there, nothing computed yet. peak: the
    highest of all. first, last: the highest in the first and in the last quarter of the time."""

    before: float
    peak: float
    first: float
    last: float

    @property
    def above(self) -> float:
        return self.peak - self.before


def own_memory(status: Path = STATUS) -> float:
    """MiB of this process's own memory now. RuntimeError where the system does not report it."""
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(FIELD):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"memory: needs {FIELD[:-1]} in {status}, which only Linux has")


def measure(job: Job) -> Peak:
    """Run the job in a process of its own. RuntimeError with its last words if it fails."""
    command = [sys.executable, "-m", "miniclip.bench.memory_child", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"memory: {job.title}: {words[-1]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def jobs(
    model: str, batches: Sequence[int], pictures: int, torch: bool, threads: int, activation: Any
) -> list[Job]:
    """Ours and PyTorch's batch by batch, and ours over many pictures."""
    subjects = ["ours", "torch"] if torch else ["ours"]
    one_batch = [Job(s, model, b, False, threads, activation) for b in batches for s in subjects]
    return [*one_batch, Job("ours", model, pictures, True, threads, activation)]


def record(job: Job, peak: Peak) -> dict[str, Any]:
    return {**asdict(job), **asdict(peak), "above": peak.above}


def table(rows: Sequence[tuple[Job, Peak]]) -> str:
    """MiB: before, highest, their difference, highest in the first and last quarter of the time."""
    headings = ["MiB of own memory", "before", "peak", "above", "first quarter", "last quarter"]
    lines = [
        [job.title, *(f"{v:.0f}" for v in (p.before, p.peak, p.above, p.first, p.last))]
        for job, p in rows
    ]
    return text_table(headings, lines)
