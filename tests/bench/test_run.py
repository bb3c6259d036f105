"""What `bench` hands to whom: every option reaches those who are to know it, in the right place."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
from bench_checks import RN, VIT, Machine
from notes import Notes

from miniclip.bench import run
from miniclip.bench.measure import Limits, Subject
from miniclip.bench.memory import Job, Peak
from miniclip.bench.report import Case

LIMITS = Limits(rounds=2, pause=0.0)


@pytest.fixture
def notes(monkeypatch):
    """Notes of calls: `notes.instead(run, "make_input", answer)` replaces a function."""
    notes = Notes()

    def instead(module, name, answer=None):
        monkeypatch.setattr(module, name, notes.of(name, answer))

    notes.instead = instead
    return notes


# ------------------------------------------------------------------------ cases


def stub_inference(notes):
    notes.instead(run, "load_weights", lambda m, a: (f"{m} config", f"{m} state", f"{m} weights"))
    notes.instead(run, "make_pipeline", lambda config, state, backend: f"{backend} pipeline")
    notes.instead(run, "image_flops", 10)
    notes.instead(run, "text_flops", 7)
    notes.instead(run, "make_input", lambda config, tower, batch: f"{batch} {tower}")
    notes.instead(run, "our_subjects", lambda *_: [Subject("first", None), Subject("last", None)])
    notes.instead(run, "peer_subjects", [Subject("peer", None)])
    notes.instead(run, "warm_up", lambda subjects: [s.name for s in subjects])
    notes.instead(run, "check_outputs", {"first": 1e-5})
    notes.instead(run, "take_times", {"first": [1.0]})


def test_every_model_tower_and_batch_is_a_case(notes):
    stub_inference(notes)
    options = run.Options(
        models=("a", "b"), batches=(2, 3), against=("torch",), ours=("numpy", "plan"),
        activation="gelu", limits=LIMITS,
    )  # fmt: skip
    cases = list(run.inference_cases(options, 5))
    assert cases == [
        Case(model, f"{model} weights", tower, batch, batch * flops, ("first",),
             {"first": [1.0]}, {"first": 1e-5})
        for model in ("a", "b")
        for tower, flops in (("image", 10), ("text", 7))
        for batch in (2, 3)
    ]  # fmt: skip
    last_case = len(notes) - 1 - notes[::-1].index(("make_input", "b config", "text", 3))
    pipelines = {"numba": "numba pipeline", "numpy": "numpy pipeline"}
    everybody = [Subject("first", None), Subject("last", None), Subject("peer", None)]
    assert notes[last_case:] == [
        ("make_input", "b config", "text", 3),
        ("our_subjects", ["plan", "numpy"], pipelines, "text", "3 text"),  # in their own order
        ("peer_subjects", ("torch",), "b config", "b state", "text", "3 text", 5),
        ("warm_up", everybody),
        ("check_outputs", ["first", "last", "peer"], "last"),
        ("take_times", everybody, LIMITS),
    ]
    assert ("load_weights", "b", "gelu") in notes
    assert ("image_flops", "a config") in notes
    assert ("text_flops", "b config") in notes
    made = sorted(call[1:] for call in notes if call[0] == "make_pipeline")
    assert made == [(f"{m} config", f"{m} state", b) for m in "ab" for b in ("numba", "numpy")]


@pytest.mark.parametrize(
    ("ours", "names", "backends"),
    [
        (None, ["plan", "numba", "numpy"], {"numba", "numpy"}),
        (("numba",), ["numba"], {"numba"}),
        (("numpy",), ["numpy"], {"numpy"}),
        (("plan",), ["plan"], {"numba"}),
    ],
)
def test_only_what_is_asked_for_is_made(notes, ours, names, backends):
    stub_inference(notes)
    options = run.Options(models=("a",), batches=(1,), towers=("image",), ours=ours)
    (case,) = run.inference_cases(options, 1)
    assert case.tower == "image"
    (call,) = [call for call in notes if call[0] == "our_subjects"]
    assert (call[1], set(call[2])) == (names, backends)


def test_training_cases(notes):
    ours = [Subject("numba", None), Subject("numba-full-texts", None)]
    notes.instead(run.training, "load", lambda model, activation: (f"{model} config", "state"))
    notes.instead(run.training, "training_flops", 11)
    notes.instead(run.training, "our_training", lambda *_: list(ours))
    notes.instead(run.training, "torch_training", lambda *_: iter([Subject("torch", None)]))
    notes.instead(run.training, "check_losses", {"numba": 1e-6})
    notes.instead(run, "take_times", {"numba": [2.0]})
    for against in ((), ("torch",)):
        notes.clear()
        options = run.Options(
            "training", models=("a", "b"), batches=(2, 6), against=against, activation="gelu",
            limits=LIMITS,
        )  # fmt: skip
        assert list(run.training_cases(options, 1)) == [
            Case(model, "random", "training", batch, 11 * batch, ("numba", "numba-full-texts"),
                 {"numba": [2.0]}, {"numba": 1e-6})
            for model in ("a", "b")
            for batch in (2, 6)
        ]  # fmt: skip
        everybody = [*ours, Subject("torch", None)] if against else ours
        theirs = [("torch_training", "b config", "state", 6)] if against else []
        assert notes[-3 - len(theirs) :] == [
            ("our_training", "b config", "state", 6),
            *theirs,
            ("check_losses", everybody),
            ("take_times", everybody, LIMITS),
        ]
        assert [c for c in notes if c[0] == "load"] == [("load", m, "gelu") for m in "ab"]
        assert ("training_flops", "a config") in notes


@pytest.mark.parametrize("against", [(), ("torch",), ("onnxruntime",), ("onnxruntime", "torch")])
def test_peers_get_what_we_get(notes, against):
    notes.instead(run.peers, "torch_subjects", ["t", "t channels_last"])
    notes.instead(run.peers, "onnxruntime_subject", "o")
    found = run.peer_subjects(against, "config", "state", "image", "x", 3)
    wanted = {
        "torch": (["t", "t channels_last"], ("torch_subjects", "config", "state", "image", "x")),
        "onnxruntime": (["o"], ("onnxruntime_subject", "config", "state", "image", "x", 3)),
    }
    asked = [name for name in wanted if name in against]
    assert found == [subject for name in asked for subject in wanted[name][0]]
    assert notes == [wanted[name][1] for name in asked]


def test_inputs_are_the_towers():
    assert run.make_input(RN, "image", 3).shape == (3, 3, 64, 64)
    ids = run.make_input(VIT, "text", 5)
    assert (ids.shape, ids.dtype.kind) == ((5, 12), "i")


def test_the_ceiling_takes_its_turn(monkeypatch):
    """The last of the first round; short runs are repeated, its own too."""
    machine = Machine()
    monkeypatch.setattr(run, "ceiling_subject", lambda: machine.subject("matmul", [0.02]))
    everybody = [machine.subject("A", [1.0]), machine.subject("B", [0.03])]
    times = run.take_times(everybody, machine.limits(rounds=2, pause=0.0))
    assert list(times) == ["A", "B", "matmul"]
    assert times["B"] == pytest.approx([0.03, 0.03])
    # each once to see how long it takes; then, after a run that wakes the threads, the repeats
    first = ["A", *["B"] * 3, *["matmul"] * 4]
    second = [*["B"] * 3, *["matmul"] * 4, "A"]
    assert machine.log == ["A", "B", "matmul", *first, *second]


# ------------------------------------------------------------------------ the whole


def test_times_go_case_by_case_into_the_record(notes):
    @contextlib.contextmanager
    def limited(threads, torch):
        notes.append(("limited", threads, torch))
        yield
        notes.append(("as before",))

    notes.instead(run.peers, "need", "PyTorch")
    notes.instead(run, "limited", limited)
    notes.instead(run, "inference_cases", ["one", "two"])
    notes.instead(run, "training_cases", ["three"])
    notes.instead(run, "case_text", lambda case: f"text of {case}")
    notes.instead(run, "case_record", lambda case: f"record of {case}")
    notes.instead(run.gc, "collect")
    for options, need, torch, kind, cases in [
        (run.Options(), [], None, "inference_cases", ("one", "two")),
        (run.Options("training", against=("torch",)), [("need", "torch")], "PyTorch",
         "training_cases", ("three",)),
    ]:  # fmt: skip
        notes.clear()
        record, lines = {"cases": []}, []
        run.measure_times(options, 3, record, lines.append)
        assert lines == [f"\ntext of {case}" for case in cases]
        assert record == {"cases": [f"record of {case}" for case in cases]}
        own = [[("case_text", c), ("case_record", c), ("collect",)] for c in cases]
        assert notes == [
            *need, ("limited", 3, torch), ("limited", 3, torch), (kind, options, 3),
            *(call for calls in own for call in calls), ("as before",),
        ]  # fmt: skip


def test_memory_is_measured_job_by_job(notes, monkeypatch):
    folders = []

    def on_disk(model, folder):
        assert folder.is_dir()
        folders.append(folder)
        return f"{model}.safetensors"

    notes.instead(run.memory, "own_memory")
    notes.instead(run.memory, "measure", lambda job: Peak(1.0, 3.0, 2.0, float(job.count)))
    monkeypatch.setattr(run, "on_disk", on_disk)
    options = run.Options(
        "memory", models=("a", "b"), batches=(4,), against=("torch",), pictures=70,
        activation="gelu",
    )  # fmt: skip
    record, lines = {"cases": []}, []
    run.measure_memory(options, 2, record, lines.append)
    jobs = [
        Job(who, model, count, count == 70, 2, "gelu")
        for model in ("a", "b")
        for who, count in (("ours", 4), ("torch", 4), ("ours", 70))
    ]
    files = [dataclasses.replace(job, model=f"{job.model}.safetensors") for job in jobs]
    assert notes == [("own_memory",), *(("measure", job) for job in files)]
    assert not any(folder.exists() for folder in folders)
    peaks = [{"before": 1.0, "peak": 3.0, "first": 2.0, "last": float(j.count)} for j in jobs]
    assert record["cases"] == [
        {**vars(job), **peak, "above": 2.0} for job, peak in zip(jobs, peaks, strict=True)
    ]
    titles = [line.split("  ")[0] for text in lines for line in text.splitlines()]
    heading = ["", "MiB of own memory"]
    assert titles == [*heading, *(j.title for j in jobs[:3]), *heading,
                      *(j.title for j in jobs[3:])]  # fmt: skip
    notes.clear()
    run.measure_memory(run.Options("memory", models=("a",), batches=(4,)), 2, record, lines.append)
    assert [job.subject for _, job in notes[1:]] == ["ours", "ours"]


def test_memory_needs_weights_in_a_file(notes, tmp_path):
    class Saved:
        save = notes.of("save")

    notes.instead(run, "load_weights", ("config", "state", "random"))
    notes.instead(run, "make_pipeline", lambda *_: Saved)
    assert run.on_disk("mini-vit", tmp_path) == "mini-vit"
    assert notes == []
    assert run.on_disk("RN50", tmp_path) == str(tmp_path / "random.safetensors")
    assert notes == [
        ("load_weights", "RN50"),
        ("make_pipeline", "config", "state", "numpy"),
        ("save", tmp_path / "random.safetensors"),
    ]


@pytest.mark.parametrize("kind", run.KINDS)
@pytest.mark.parametrize("threads", [None, 2])
def test_a_record_is_measured_printed_and_kept(notes, tmp_path, kind, threads):
    def measured(options, threads, record, report):
        report(f"{options.kind} with {threads}")
        record["cases"].append("été")

    notes.instead(run, "check_model")
    notes.instead(run, "cores", 7)
    notes.instead(run, "new_record", lambda *_: {"cases": []})
    notes.instead(run, "head_text", "the head")
    notes.instead(run, "measure_times", measured)
    notes.instead(run, "measure_memory", measured)
    lines, file = [], tmp_path / "record.json"
    options = run.Options(kind, threads=threads, file=file, limits=Limits(pause=0.5))
    record = run.bench(options, lines.append)
    count = threads or 7
    assert lines == ["the head", f"{kind} with {count}"]
    assert record == {"cases": ["été"]}
    assert ("new_record", kind, count, 0.5) in notes
    asked = [call[0] for call in notes if call[0].startswith("measure_")]
    assert asked == ["measure_memory" if kind == "memory" else "measure_times"]
    assert file.read_text(encoding="utf-8") == '{\n "cases": [\n  "été"\n ]\n}'
    file.unlink()
    run.bench(dataclasses.replace(options, file=None), lines.append)
    assert not list(tmp_path.iterdir())


def test_a_record_without_numbers_is_not_kept(notes, tmp_path, capsys):
    """NaN is no JSON. Without a place of their own, tables are printed."""
    notes.instead(run, "check_model")
    notes.instead(run, "new_record", lambda *_: {"cases": [float("nan")]})
    notes.instead(run, "head_text", "the head")
    notes.instead(run, "measure_times")
    with pytest.raises(ValueError, match="JSON compliant"):
        run.bench(run.Options(file=tmp_path / "record.json"))
    assert capsys.readouterr().out == "the head\n"
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------ checks


@pytest.mark.parametrize("kind", run.KINDS)
def test_defaults_suit_the_kind(notes, kind):
    notes.instead(run, "check_model")
    notes.instead(run, "blas_limits")
    options = run.checked(run.Options(kind, threads=3, pictures=9))
    assert (options.models, options.batches) == (run.MODELS[kind], run.BATCHES[kind])
    assert (options.threads, options.pictures) == (3, 9)
    assert notes == [("blas_limits",), *(("check_model", name) for name in run.MODELS[kind])]
    own = run.checked(run.Options(kind, models=("a",), batches=(5,)))
    assert (own.models, own.batches) == (("a",), (5,))


def test_the_least_of_everything_is_enough(notes, tmp_path):
    notes.instead(run, "check_model")
    notes.instead(run.peers, "check_peers")
    least = Limits(rounds=1, seconds=0.0, pause=0.0)
    for kind, batch in (("inference", 1), ("memory", 1), ("training", 2)):
        run.checked(
            run.Options(
                kind, batches=(batch,), pictures=1, threads=1, ours=("plan", "numba", "numpy"),
                towers=("text",), limits=least, file=tmp_path / "new.json",
                against=("onnxruntime", "torch") if kind == "inference" else ("torch",),
            )
        )  # fmt: skip
    assert ("check_peers", ("onnxruntime", "torch")) in notes
    assert not (tmp_path / "new.json").exists()


WRONG = [
    ({"kind": "speed"}, "kind: got 'speed', expected one of inference, training, memory"),
    ({"towers": ("text", "sound")}, "towers: got 'sound', expected one of image, text"),
    ({"ours": ("numpy", "cupy")}, "ours: got 'cupy', expected one of plan, numba, numpy"),
    ({"batches": (1, 0)}, "batches: got 0, expected at least 1"),
    ({"kind": "training", "batches": (1,)}, "batches: got 1, expected at least 2"),
    ({"kind": "memory", "batches": (0,)}, "batches: got 0, expected at least 1"),
    ({"pictures": 0}, "pictures: got 0, expected at least 1"),
    ({"threads": 0}, "threads: got 0, expected at least 1"),
    ({"limits": Limits(rounds=0)}, "rounds: got 0, expected at least 1"),
    ({"limits": Limits(seconds=-0.5)}, "seconds: got -0.5, expected at least 0"),
    ({"limits": Limits(pause=-0.5)}, "pause: got -0.5, expected at least 0"),
    ({"limits": Limits(pause=float("nan"))}, "pause: got nan, expected at least 0"),
    ({"limits": Limits(seconds=float("inf"))}, "seconds: got inf, expected a finite number"),
    ({"limits": Limits(pause=float("inf"))}, "pause: got inf, expected a finite number"),
    ({"file": Path()}, "json: . is a folder, expected a file"),
    ({"file": Path("no/such/record.json")},
     "json: there is no folder no/such, expected one to write in"),
    ({"kind": "training", "against": ("torch", "onnxruntime")},
     "against: got onnxruntime for training, expected torch, the only peer there"),
    ({"kind": "memory", "against": ("onnxruntime",)},
     "against: got onnxruntime for memory, expected torch, the only peer there"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_what_is_wrong_is_named(notes, fields, message):
    notes.instead(run, "check_model")
    notes.instead(run.peers, "check_peers")
    with pytest.raises(ValueError) as error:
        run.checked(run.Options(**fields))
    assert str(error.value) == message
