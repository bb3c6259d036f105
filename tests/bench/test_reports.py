"""What people and files get of a measurement, whole: every number of a made-up case, by hand."""

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from miniclip.bench import memory, report, run, subjects
from miniclip.bench.memory import Job, Peak

CEILING = 2 * 2048**3  # operations of one product
SECOND = CEILING / 1e11  # at 100 GFLOP/s


def made_up(tower="text", **changes):
    """Times whose medians, quartiles, best and worst all differ; 5 rounds."""
    times = {
        "numpy": [0.45, 0.5, 0.6, 0.9, 0.8],
        "plan": [0.05, 0.06, 0.08, 0.1, 0.2],
        "torch": [0.09, 0.12, 0.2, 0.16, 0.3],
        "matmul": [SECOND, 1.25 * SECOND, 2 * SECOND, SECOND, 4 * SECOND],
    }
    errors = {"numpy": 0.0, "plan": 3.21e-7, "torch": 9.9e-6}
    fields = {
        "model": "ViT-X", "weights": "random", "tower": tower, "batch": 4, "flops": 2 * 10**9,
        "ours": ("plan", "numpy"), "times": times, "errors": errors,
    }  # fmt: skip
    return report.Case(**{**fields, **changes})


def test_a_case_as_people_read_it():
    assert report.case_text(made_up()).splitlines() == [
        "ViT-X (random weights), texts, batch 4: 2.0 GFLOP, 5 rounds",
        "          ms       quartiles   best  texts/s  GFLOP/s  of ceiling  difference",
        "plan    80.0   60.0 to 100.0   50.0     50.0       25         25%       3e-07",
        "torch  160.0  120.0 to 200.0   90.0     25.0       12         12%       1e-05",
        "numpy  600.0  500.0 to 800.0  450.0      6.7        3          3%       0e+00",
        "torch / plan: 1.80 (1.60 to 2.00)",
        "torch / numpy: 0.24 (0.20 to 0.33)",
        "ceiling: 100 GFLOP/s at best, median 80 (others used the machine: trust ratios only)",
    ]


@pytest.mark.parametrize(
    ("tower", "what", "unit"),
    [("image", "images", "images/s"), ("text", "texts", "texts/s"),
     ("training", "training", "pairs/s")],
)  # fmt: skip
def test_towers_have_their_own_words(tower, what, unit):
    first, second, *_ = report.case_text(made_up(tower)).splitlines()
    assert first == f"ViT-X (random weights), {what}, batch 4: 2.0 GFLOP, 5 rounds"
    assert second.split()[3] == unit


def test_a_case_as_files_keep_it():
    record = report.case_record(made_up())
    assert json.loads(json.dumps(record)) == record
    torch = record["subjects"].pop("torch")
    assert set(record.pop("subjects")) == {"plan", "numpy"}
    expected = {
        "times_ms": [90, 120, 200, 160, 300], "median_ms": 160, "best_ms": 90,
        "quartiles_ms": [120, 200], "per_second": 25, "gflops": 12.5, "share": 0.125,
    }  # fmt: skip
    assert list(torch) == list(expected)
    for name, value in expected.items():
        assert torch[name] == pytest.approx(value), name
    ratios, ceiling = record.pop("ratios"), record.pop("ceiling")
    assert [(r["subject"], r["ours"]) for r in ratios] == [("torch", "plan"), ("torch", "numpy")]
    assert [r["ratio"] for r in ratios] == pytest.approx([1.8, 0.24])
    assert ratios[0]["quartiles"] == pytest.approx([1.6, 2])
    assert ceiling["samples"] == pytest.approx([100, 80, 50, 100, 25])
    assert (ceiling["median"], ceiling["best"]) == pytest.approx((80, 100))
    assert record == {
        "model": "ViT-X", "weights": "random", "tower": "text", "batch": 4, "gflop": 2.0,
        "rounds": 5, "ours": ["plan", "numpy"],
        "differences": {"numpy": 0.0, "plan": 3.21e-7, "torch": 9.9e-6},
    }  # fmt: skip


def test_the_ceiling_is_the_documented_product():
    assert subjects.CEILING_FLOPS == CEILING == 17_179_869_184


@pytest.mark.parametrize(
    ("median", "shown", "noisy"), [(90.0, 90, True), (90.1, 90, False), (100.0, 100, False)]
)
def test_a_steady_machine_shows_nine_tenths_of_its_best(median, shown, noisy):
    line = report.ceiling_line({"ceiling": {"best": 100.0, "median": median}})
    end = " (others used the machine: trust ratios only)" if noisy else ""
    assert line == f"ceiling: 100 GFLOP/s at best, median {shown}{end}"


def test_the_head_of_a_record(monkeypatch):
    monkeypatch.setattr(report, "cores", lambda: 6)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.75, 2.0, 3.0), raising=False)
    record = report.new_record("memory", 3, 0.02)
    age = datetime.now(UTC) - datetime.fromisoformat(record.pop("date"))
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)
    assert record.pop("machine") == {
        "processor": report.processor_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": 6, "threads": 3, "load": 0.75,
    }  # fmt: skip
    assert record.pop("versions") == report.versions_record()
    assert record == {"kind": "memory", "pause_ms": 20, "cases": []}
    monkeypatch.delattr(os, "getloadavg", raising=False)  # as on Windows
    assert report.machine_record(1)["load"] is None


def test_the_head_as_people_read_it():
    record = {
        "machine": {"processor": "A CPU", "cores": 6, "threads": 3},
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"python": "3.11", "torch": None, "blas": "openblas 0.3"},
    }
    assert report.head_text(record) == (
        "A CPU, 6 cores, 3 threads, 2026-01-02T03:04:05+00:00\npython 3.11, blas openblas 0.3"
    )


def test_the_processor_is_the_machines_own(tmp_path, monkeypatch):
    """Its name where the system tells, its family where not; whatever bytes stand beside it."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_bytes(b"bogus \xff\nvendor: model name\nmodel name\t:  One: fast \nmodel name: 2")
    assert report.processor_name(cpuinfo) == "One: fast"
    cpuinfo.write_text("vendor: someone\n")
    monkeypatch.setattr(platform, "machine", lambda: "a machine")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert report.processor_name(cpuinfo) == "a machine"
    monkeypatch.setattr(platform, "processor", lambda: "a processor")
    assert report.processor_name(tmp_path / "none") == "a processor"


def test_versions_of_what_is_there_and_of_what_is_not(monkeypatch):
    def version(name):
        if name in ("torch", "openai-clip"):
            raise importlib.metadata.PackageNotFoundError(name)
        return f"{name}'s"

    monkeypatch.setattr(report.importlib.metadata, "version", version)
    monkeypatch.setattr(report, "blas_version", lambda: None)
    assert report.versions_record() == {
        "python": platform.python_version(), "miniclip": "miniclip's", "numpy": "numpy's",
        "numba": "numba's", "threadpoolctl": "threadpoolctl's", "torch": None,
        "onnxruntime": "onnxruntime's", "openai-clip": None, "blas": None,
    }  # fmt: skip


def test_the_blas_is_numpys(monkeypatch):
    blas = {"Build Dependencies": {"blas": {"name": "openblas", "version": "0.3"}}}
    for told, expected in [
        (blas, "openblas 0.3"),
        ({"Build Dependencies": {}}, None),
        ({}, None),
        (None, None),  # NumPy printed it instead
    ]:
        monkeypatch.setattr(np, "show_config", lambda mode, told=told: told)
        assert report.blas_version() == expected


# ------------------------------------------------------------------------ memory


def test_memory_as_people_and_files_read_it():
    one, many = Job("torch", "m", 4, False, 2, "gelu"), Job("ours", "m", 300, True, 1)
    peaks = [Peak(100.4, 250.6, 120.0, 130.0), Peak(9.0, 10.0, 9.5, 9.6)]
    assert memory.table(list(zip((one, many), peaks, strict=True))).splitlines() == [
        "MiB of own memory                  before  peak  above  first quarter  last quarter",
        "m, torch, 4 pictures in one batch     100   251    150            120           130",
        "m, ours, 300 pictures in chunks         9    10      1             10            10",
    ]
    assert memory.record(one, peaks[0]) == {
        "subject": "torch", "model": "m", "count": 4, "repeated": False, "threads": 2,
        "activation": "gelu", "before": 100.4, "peak": 250.6, "first": 120.0, "last": 130.0,
        "above": pytest.approx(150.2),
    }  # fmt: skip


@pytest.mark.parametrize("torch", [False, True])
def test_who_is_asked_for_memory(torch):
    ours = [Job("ours", "m", b, False, 3, "gelu") for b in (2, 5)]
    theirs = [Job("torch", "m", b, False, 3, "gelu") for b in (2, 5)]
    batches = [ours[0], theirs[0], ours[1], theirs[1]] if torch else ours
    asked = memory.jobs("m", (2, 5), 90, torch, 3, "gelu")
    assert asked == [*batches, Job("ours", "m", 90, True, 3, "gelu")]


def test_a_childs_answer_is_its_last_line(monkeypatch):
    class Done:
        def __init__(self, returncode, stdout="", stderr=""):
            self.returncode, self.stdout, self.stderr = returncode, stdout, stderr

    def child(done):
        def started(command, capture_output=False, text=False, **more):
            assert (capture_output, text) == (True, True)
            assert command[1:3] == ["-m", "miniclip.bench.memory_child"]
            assert json.loads(command[3]) == {
                "subject": "ours", "model": "m", "count": 2, "repeated": True, "threads": 1,
                "activation": None,
            }  # fmt: skip
            return done

        monkeypatch.setattr(memory.subprocess, "run", started)
        return memory.measure(Job("ours", "m", 2, True, 1))

    said = 'a library says hello\n{"before": 1, "peak": 4, "first": 2, "last": 3}\n'
    assert child(Done(0, said)) == Peak(1, 4, 2, 3)
    title = "memory: m, ours, 2 pictures in chunks: "
    for done, words in [
        (Done(3, said, "Traceback\nValueError: no\n"), "ValueError: no"),
        (Done(-9, said), "exit code -9"),
    ]:
        with pytest.raises(RuntimeError) as error:
            child(done)
        assert str(error.value) == title + words


def test_memory_without_a_status_is_refused(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name: x\nRssAnon:\t 1536 kB\nRssAnon:\t 7 kB\n")
    assert memory.own_memory(status) == 1.5
    with pytest.raises(RuntimeError) as error:
        memory.own_memory(tmp_path / "none")
    where = tmp_path / "none"
    assert str(error.value) == f"memory: needs RssAnon in {where}, which only Linux has"


def test_options_are_those_of_the_documents():
    assert run.Options() == run.Options(
        kind="inference", models=(), batches=(), towers=("image", "text"), against=(), ours=None,
        threads=None, pictures=256, file=None, activation=None, limits=run.Limits(),
    )  # fmt: skip
    limits = run.Limits()
    assert (limits.rounds, limits.seconds, limits.pause) == (None, 20, 0.02)
    assert run.BATCHES == {"inference": (1, 8, 32), "training": (16,), "memory": (32,)}
    assert run.MODELS == {
        "inference": ("ViT-B/32", "RN50"), "training": ("mini-vit", "mini-rn", "ViT-B/32"),
        "memory": ("ViT-B/32",),
    }  # fmt: skip
