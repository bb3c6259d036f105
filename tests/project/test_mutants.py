"""The mutants: what a slip is, what is left alone, how they are drawn, run and counted."""

import ast
import sys
import time
from collections import Counter

import mutant_report as report
import pytest
from mutant_run import Place, finished, limit_of, outcome_of
from mutant_sample import PACKAGE, TESTS, Mutant, files_of, sample
from mutant_sites import OPERATORS, Source, changed_by, edits_of

SMALL = "import numpy as np\n\n\ndef f(x, y, eps=1e-5, *, axis=-1):\n    {}\n"

# One line of a function, and what each slip writes in its place.
SLIPS = [
    ("return g(x, eps=eps)", "option not handed on", {"return g(x)"}),
    ("return g(x, y)", "argument dropped", {"return g(x)"}),
    ("return min(x, y)", "arguments swapped", set()),
    ("return g(x, (y), eps)", "arguments swapped", {"return g(x, (eps), y)", "return g(y, (x), eps)"}),
    ("return x", "option ignored", {"eps = 1e-5 return x", "axis = -1 return x"}),
    ("return x if y else eps", "condition forced", {"return x if True else eps", "return x if False else eps"}),
    ("return [x for x in y if x]", "condition forced", {"return [x for x in y if True]"}),
    ("return x < y", "boundary moved", {"return x <= y"}),
    ("return 0 <= x < y", "boundary moved", {"return 0 < x < y", "return 0 <= x <= y"}),
    ("return x is not None", "boundary moved", {"return x is None"}),
    ("return x and (y or eps)", "and for or", {"return x or (y or eps)", "return x and (y and eps)"}),
    ("x[0] = y", "statement deleted", {"pass"}),
    ("x += y", "statement deleted", {"pass"}),
    ("x = y", "statement deleted", set()),  # a name that does not exist is found by any test
    ("return x[0, 1:]", "index moved", {"return x[1, 1:]", "return x[0, 2:]"}),
    ("return x[-1]", "index moved", {"return x[-2]"}),
    ("return x.sum(axis=0)", "index moved", {"return x.sum(axis=1)"}),
    ("return x.transpose(0, 1)", "index moved", {"return x.transpose(1, 1)", "return x.transpose(0, 2)"}),
    ("return x[g(0)]", "index moved", set()),
    ("return x * 3 + 0.5", "number changed", {"return x * 4 + 0.5", "return x * 3 + 1.0"}),
    ("return True", "number changed", {"return False"}),
    ("return x[0]", "number changed", set()),
    ("return x * -y", "arithmetic", {"return x / -y", "return x * y"}),
    ("x -= y", "arithmetic", {"x += y"}),
    ("return not x", "arithmetic", {"return x"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "operator", "expected"), SLIPS)
def test_what_each_slip_writes(line, operator, expected):
    source = Source(SMALL.format(line))
    found = {source.lines(e)[1] for e in edits_of(source) if e.operator == operator}
    found.discard("def f(x, y, eps=2e-05, *, axis=-1):")
    found.discard("def f(x, y, eps=1e-5, *, axis=-2):")
    assert found == expected


LEFT_ALONE = [
    '"""One of 3 docstrings."""',
    "z: Annotated[int, 3] = x",
    'raise ValueError(f"got {x + 1}, expected {3}")',
    'warnings.warn("more than 3", stacklevel=2)',
    'z = f"{x[0]} of {y:.3f}"',
    'parser.add_argument("--count", default=3)',
    "g(open(x, encoding='utf-8'))",
    "g(zip(x, strict=True))",
]


@pytest.mark.parametrize("line", LEFT_ALONE)
def test_annotations_docstrings_and_messages_are_left_alone(line):
    """A statement may go as a whole; the words and numbers in it stay as they are."""
    source = Source(f"def f(x, y):\n    {line}\n")
    inside = [e for e in edits_of(source) if e.operator != "statement deleted"]
    assert [source.lines(edit)[1] for edit in inside] == []


def test_every_mutant_is_python_and_another_program():
    source = Source((PACKAGE / "ops" / "norm.py").read_text(encoding="utf-8"))
    edits = edits_of(source)
    changed = [text for edit in edits if (text := changed_by(edit, source))]
    assert len(changed) > 0.9 * len(edits) > 100
    trees = {ast.dump(ast.parse(text)) for text in changed}
    assert ast.dump(source.tree) not in trees
    assert {edit.operator for edit in edits} <= set(OPERATORS)


def test_text_that_is_not_ascii_stays():
    source = Source('def f(x):\n    name = "、和"; return x + 1  # é\n')
    [edit] = [e for e in edits_of(source) if e.operator == "arithmetic"]
    assert '"、和"; return x - 1  # é' in changed_by(edit, source)


def test_a_sample_takes_every_room_and_every_slip_equally():
    rooms = ("files", "inspect", "nn")
    drawn = sample(48, seed=5, rooms=rooms)
    assert set(Counter(m.room for m in drawn).values()) == {16}
    slips = Counter(m.operator for m in drawn if m.room == "nn")
    assert max(slips.values()) <= 2
    keys = [m.key for m in drawn]
    assert keys == [m.key for m in sample(48, 5, rooms)]
    assert keys != [m.key for m in sample(48, 6, rooms)]
    fresh = sample(48, 5, rooms, without=keys)
    assert len(fresh) == 48
    assert {m.key for m in fresh}.isdisjoint(keys)


def test_only_lines_that_changed():
    drawn = sample(50, seed=1, rooms=("ops", "nn"), lines={"ops/linear.py": {20, 21, 22}})
    assert 0 < len(drawn) < 50
    assert {(m.file, 20 <= m.line <= 22) for m in drawn} == {("ops/linear.py", True)}


def test_every_room_has_tests():
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} | {"files"}
    assert set(TESTS) == rooms
    folders = {p.name for p in (PACKAGE.parent / "tests").iterdir()}
    assert all(set(tests) <= folders for tests in TESTS.values())
    assert all(files_of(room) for room in rooms)


def test_a_mutant_that_never_ends_is_killed_with_its_children():
    sleep = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    start = time.monotonic()
    code, _ = finished([sys.executable, "-c", sleep], None, None, limit=1.0)
    assert code is None
    assert outcome_of(code, "") == "late"
    assert time.monotonic() - start < 30  # the child held the pipe for 60


@pytest.mark.parametrize(
    ("code", "outcome"), [(0, "survived"), (1, "found"), (2, "found"), (-9, "found")]
)
def test_outcomes(code, outcome):
    assert outcome_of(code, "") == outcome


def test_a_wrong_call_of_pytest_is_no_find():
    """No tests collected: the tool's fault."""
    with pytest.raises(RuntimeError, match="pytest ended with 5"):
        outcome_of(5, "no tests ran")


def test_kernels_get_time_to_compile():
    ops = Mutant("ops/norm.py", 1, "", "", "", "")
    kernel = Mutant("cpu/matmul.py", 1, "", "", "", "")
    assert limit_of(ops, 20.0) == 60.0
    assert limit_of(ops, 1.0) == 30.0
    assert limit_of(kernel, 20.0) == 300.0


def test_the_interval_is_wilsons():
    """8 of 10, by the formula's published example (Brown, Cai and DasGupta 2001, at 95 %)."""
    share, low, high = report.interval(8, 10)
    assert (share, round(low, 3), round(high, 3)) == (0.8, 0.490, 0.943)
    assert report.interval(0, 10)[1] == 0.0
    assert report.interval(10, 10)[2] == pytest.approx(1.0)


def row(outcome, before="a", key="1"):
    return {"key": key, "room": "ops", "file": "ops/norm.py", "line": 3, "operator": "arithmetic",
            "before": before, "after": "b", "outcome": outcome, "seconds": 1.0, "by": ""}  # fmt: skip


def test_shares_leave_the_equivalent_out(monkeypatch):
    monkeypatch.setattr(report, "reasons", lambda: {("ops/norm.py", "same", "b"): "why"})
    rows = [row("found"), row("late"), row("survived"), row("survived", "same")]
    assert report.counted(rows, "room") == [("ops", 2, 1, 1), ("all", 2, 1, 1)]
    assert report.survivors(rows) == [rows[2]]
    assert "| all | 4 | 1 | 2 | 67% |" in report.table(rows, "room")


def test_a_run_goes_on_from_whole_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a"}\n{"key": "b"}\n{"key": "c", "roo')
    assert set(report.read_rows(path)) == {"a", "b"}
    assert report.read_rows(tmp_path / "none") == {}


def test_reasons_are_of_mutants_that_exist():
    """An entry whose line was written otherwise since is of no use."""
    sources = {}
    for file, before, after in report.reasons():
        if file not in sources:
            source = Source((PACKAGE / file).read_text(encoding="utf-8"))
            sources[file] = {source.lines(edit) for edit in edits_of(source)}
        assert (before, after) in sources[file], f"{file}: {before}"


@pytest.mark.slow
def test_a_mutant_is_found_and_an_unchanged_copy_is_not(tmp_path):
    """By the tests of a room, run in a copy; the checkout stays as it is."""
    text = (PACKAGE / "inspect" / "compare.py").read_text(encoding="utf-8")
    changed = text.replace('"float64": 1e-9', '"float64": 1e9')
    assert changed != text
    place = Place(tmp_path / "place")
    mutant = Mutant("inspect/compare.py", 1, "number changed", "", "", changed)
    outcome, _, failure = place.run(mutant.bug(), 300)
    assert outcome == "found"
    assert failure.startswith("tests/inspect/")
    same = Mutant("inspect/compare.py", 1, "nothing", "", "", f"{text}\n")
    assert place.run(same.bug(), 300)[0] == "survived"
    assert (PACKAGE / "inspect" / "compare.py").read_text(encoding="utf-8") == text
