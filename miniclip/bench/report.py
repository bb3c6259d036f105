"""What was measured: as plain data for a file, and as tables for people."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.bench.measure import best_of, ratio, spread
from miniclip.bench.subjects import CEILING, CEILING_FLOPS
from miniclip.bench.threads import cores
from miniclip.tables import text_table

STEADY = 0.9  # of its best speed, what a machine shows that nobody else uses
LIBRARIES = ("miniclip", "numpy", "numba", "threadpoolctl", "torch", "onnxruntime", "openai-clip")


@dataclass(frozen=True)
class Case:
    """One model, tower (or "training") and batch.

    flops: of the whole batch. times: seconds by subject, round by round; CEILING among them.
    ours: the subjects that ratios compare with. errors: relative differences of outputs (losses).
    """

    model: str
    weights: str
    tower: str
    batch: int
    flops: int
    ours: tuple[str, ...]
    times: dict[str, list[float]]
    errors: dict[str, float]

    @property
    def unit(self) -> str:
        return {"image": "images", "text": "texts"}.get(self.tower, "pairs")


# ------------------------------------------------------------------------ plain data


def case_record(case: Case) -> dict[str, Any]:
    """The case and everything that follows from its times, as JSON can keep it."""
    ceiling = ceiling_record(case.times[CEILING])
    subjects = {
        name: subject_record(case, times, ceiling["best"])
        for name, times in case.times.items()
        if name != CEILING
    }
    return {
        "model": case.model,
        "weights": case.weights,
        "tower": case.tower,
        "batch": case.batch,
        "gflop": case.flops / 1e9,
        "rounds": len(case.times[CEILING]),
        "ours": list(case.ours),
        "subjects": subjects,
        "ratios": ratios_record(case),
        "differences": case.errors,
        "ceiling": ceiling,
    }


def subject_record(case: Case, times: list[float], ceiling: float) -> dict[str, Any]:
    """Times in milliseconds, samples a second, GFLOP/s and its share of the ceiling."""
    ms = spread([1e3 * t for t in times])
    speed = case.flops / 1e6 / ms.median
    return {
        "times_ms": [1e3 * t for t in times],
        "median_ms": ms.median,
        "best_ms": 1e3 * min(times),
        "quartiles_ms": [ms.low, ms.high],
        "per_second": 1e3 * case.batch / ms.median,
        "gflops": speed,
        "share": speed / ceiling,
    }


def ceiling_record(times: Sequence[float]) -> dict[str, Any]:
    """GFLOP/s of the large product: every sample, their median and the best."""
    samples = [CEILING_FLOPS / 1e9 / t for t in times]
    return {"median": statistics.median(samples), "best": max(samples), "samples": samples}


def ratios_record(case: Case) -> list[dict[str, Any]]:
    """How many times as long as ours the others take. Of PyTorch's layouts the better counts."""
    families = dict.fromkeys(name.split()[0] for name in case.times)
    others = [best_of(case.times, f) for f in families if f not in (CEILING, *case.ours)]
    return [ratio_record(case, name, ours) for name in others for ours in case.ours]


def ratio_record(case: Case, name: str, ours: str) -> dict[str, Any]:
    value = ratio(case.times[name], case.times[ours])
    quartiles = [value.low, value.high]
    return {"subject": name, "ours": ours, "ratio": value.median, "quartiles": quartiles}


def machine_record(threads: int) -> dict[str, Any]:
    """Where this was measured."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "threads": threads,
        "load": load,
    }


def processor_name(file: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's own name, where the system tells."""
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions_record() -> dict[str, str | None]:
    """Library -> version, None for what is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = None
    versions["blas"] = blas_version()
    return versions


def blas_version() -> str | None:
    """The BLAS that NumPy brings, "openblas 0.3.31" or alike."""
    found = np.show_config(mode="dicts")
    blas = found.get("Build Dependencies", {}).get("blas", {}) if isinstance(found, dict) else {}
    return f"{blas.get('name')} {blas.get('version')}" if blas else None


def new_record(kind: str, threads: int, pause: float) -> dict[str, Any]:
    """The head of a record; its cases follow."""
    return {
        "kind": kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_record(threads),
        "versions": versions_record(),
        "pause_ms": 1e3 * pause,
        "cases": [],
    }


# ------------------------------------------------------------------------ tables


def head_text(record: dict[str, Any]) -> str:
    """Machine and versions in two lines."""
    machine = record["machine"]
    versions = ", ".join(f"{n} {v}" for n, v in record["versions"].items() if v is not None)
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{record['date']}\n{versions}"
    )


def case_text(case: Case) -> str:
    """The table of one case: subjects from fast to slow, ratios, the ceiling."""
    record = case_record(case)
    speeds = [f"{case.unit}/s", "GFLOP/s", "of ceiling"]
    headings = ["", "ms", "quartiles", "best", *speeds, "difference"]
    rows = sorted(record["subjects"].items(), key=lambda row: row[1]["median_ms"])
    lines = [
        [
            name,
            f"{row['median_ms']:.1f}",
            pair(row["quartiles_ms"], 1),
            f"{row['best_ms']:.1f}",
            f"{row['per_second']:.1f}",
            f"{row['gflops']:.0f}",
            f"{row['share']:.0%}",
            f"{case.errors[name]:.0e}",
        ]
        for name, row in rows
    ]
    return "\n".join(
        [
            title(case, record),
            text_table(headings, lines),
            *ratio_lines(record),
            ceiling_line(record),
        ]
    )


def title(case: Case, record: dict[str, Any]) -> str:
    what = "training" if case.tower == "training" else case.unit
    return (
        f"{case.model} ({case.weights} weights), {what}, batch {case.batch}: "
        f"{record['gflop']:.1f} GFLOP, {record['rounds']} rounds"
    )


def ratio_lines(record: dict[str, Any]) -> list[str]:
    return [
        f"{row['subject']} / {row['ours']}: {row['ratio']:.2f} ({pair(row['quartiles'], 2)})"
        for row in record["ratios"]
    ]


def ceiling_line(record: dict[str, Any]) -> str:
    ceiling = record["ceiling"]
    best, median = ceiling["best"], ceiling["median"]
    noisy = "" if median > STEADY * best else " (others used the machine: trust ratios only)"
    return f"ceiling: {best:.0f} GFLOP/s at best, median {median:.0f}{noisy}"


def pair(values: Sequence[float], digits: int) -> str:
    return " to ".join(f"{v:.{digits}f}" for v in values)
