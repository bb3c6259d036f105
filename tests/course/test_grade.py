"""Grading a folder, and laying one out."""

import json

import pytest

from miniclip.course.build import notebook
from miniclip.course.grade import grade
from miniclip.course.new import new
from miniclip.course.session import run
from miniclip.course.source import read_parts, with_solution, without_solution

(PART,) = [part for part in read_parts() if part.name == "02-chain-rule"]
NAME = "softmax_backward"


def hand_in(folder, variant=with_solution, **changed):
    """A notebook with other text in some cells; None removes a cell, "check" is every check."""
    made = json.loads(notebook(PART, variant))
    for cell in made["cells"]:
        text = "".join(cell["source"])
        for name, new_text in changed.items():
            if f"def {name}(" in text or (name == "check" and text.startswith("check.")):
                cell["source"] = [new_text or ""]
    (folder / "02-chain-rule.ipynb").write_text(json.dumps(made))
    return folder


def graded(folder, **settings):
    return {row.exercise: row for row in grade(folder, **settings).rows}


def test_solutions_are_right_and_handed_out_ones_empty(tmp_path):
    grades = grade(hand_in(tmp_path))
    assert grades.ok
    assert (grades.right, len(grades.rows)) == (6, 6)
    assert grades.absent == ()
    grades = grade(hand_in(tmp_path, without_solution))
    assert {row.result for row in grades.rows} == {"empty"}
    assert not grades.ok
    assert grades.as_dict()["right"] == 0


WRONG = "def softmax_backward(dy, y):\n    return y * dy"


def test_each_exercise_by_itself(tmp_path):
    """A wrong one does not make the others wrong, though LayerNorm calls sum_to_shape."""
    rows = graded(hand_in(tmp_path, sum_to_shape="def sum_to_shape(dy, shape):\n    return dy"))
    assert [name for name, row in rows.items() if row.result != "right"] == ["sum_to_shape"]
    assert rows["sum_to_shape"].message.startswith("dx has shape ")


@pytest.mark.parametrize(
    ("text", "result", "message"),
    [
        (WRONG, "wrong", "the path through the sum (- y sum(dy y)) is missing"),
        (None, "missing", "no cell defines softmax_backward"),
        (
            "def softmax_backward(dy, y)\n    return",
            "wrong",
            "its cell raised SyntaxError: exp",
        ),
        (
            "def softmax_backward(dy, y):\n    return z",
            "wrong",
            "raised NameError: name 'z' is",
        ),
        ("import os\nos._exit(0)\n" + WRONG, "wrong", "ended with code 0 and no verdict"),
        ("def softmax_backward(dy, y):\n    raise SystemExit(0)", "wrong", "code 0 and no verdict"),
        ("def softmax_backward(dy, y):\n    while True: pass", "wrong", "not done after 2 seconds"),
        ("check = None\n" + WRONG, "wrong", "(- y sum(dy y)) is missing"),
        (
            "from miniclip.course import checks\nchecks.EXERCISES.clear()\n" + WRONG,
            "wrong",
            "(- y sum(dy y)) is missing",
        ),
        (
            "%matplotlib inline\nprint('noise')\ndef softmax_backward(dy, y):\n"
            "    return y * (dy - (dy * y).sum(-1, keepdims=True))",
            "right",
            "",
        ),
    ],
)
def test_what_is_handed_in(text, result, message, tmp_path):
    keep = {task.name: task for task in PART.tasks}
    made = json.loads(notebook(PART, without_solution))
    for cell in made["cells"]:
        if f"def {NAME}(" in "".join(cell["source"]):
            cell["source"] = [text or ""]
    (tmp_path / "02-chain-rule.ipynb").write_text(json.dumps(made))
    row = graded(tmp_path, limit=2)[NAME]
    assert row.result == result
    assert message in row.message
    assert len(keep) == 6


def test_edited_checks_change_nothing(tmp_path):
    rows = graded(hand_in(tmp_path, check="pass", softmax_backward=WRONG))
    assert rows[NAME].result == "wrong"


def test_the_last_definition_counts(tmp_path):
    hand_in(tmp_path)
    path = tmp_path / "02-chain-rule.ipynb"
    made = json.loads(path.read_text())
    made["cells"].append({"cell_type": "code", "source": WRONG.splitlines(keepends=True)})
    path.write_text(json.dumps(made))
    assert graded(tmp_path)[NAME].result == "wrong"


def test_other_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no notebook such as 02-chain-rule"):
        grade(tmp_path)
    (tmp_path / "notebooks").mkdir()
    hand_in(tmp_path / "notebooks", without_solution)
    assert len(grade(tmp_path).rows) == 6
    (tmp_path / "notebooks" / "02-chain-rule.ipynb").write_text("no notebook")
    with pytest.raises(ValueError, match=r"02-chain-rule\.ipynb is no notebook"):
        grade(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"seed": -1}, "seed: got -1, expected"), ({"limit": 0}, "limit: got 0, expected seconds")],
)
def test_wrong_settings(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        grade(tmp_path, **settings)


# ------------------------------------------------------------------------ new


def test_a_learners_folder(tmp_path):
    folder = tmp_path / "course"
    made = new(folder)
    assert made.kept == ()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(folder).as_posix() for path in made.written}
    assert {"README.md", "models/README.md", "notebooks/02-chain-rule.ipynb"} < names
    assert sum(name.startswith("data/") and name.endswith(".png") for name in names) == 4
    assert "](../" not in (folder / "notebooks" / "02-chain-rule.ipynb").read_text()
    assert {row.result for row in grade(folder).rows} == {"empty"}


def test_work_is_never_overwritten(tmp_path):
    new(tmp_path)
    path = tmp_path / "notebooks" / "02-chain-rule.ipynb"
    path.write_text("my work")
    (tmp_path / "models" / "README.md").unlink()
    made = new(tmp_path)
    assert path.read_text() == "my work"
    assert made.written == (tmp_path / "models" / "README.md",)
    assert path in made.kept


def test_a_folder_with_another_seed(tmp_path):
    new(tmp_path, seed=4)
    assert "SEED = 4" in (tmp_path / "notebooks" / "02-chain-rule.ipynb").read_text()
    with pytest.raises(ValueError, match="seed: got -1"):
        new(tmp_path / "other", seed=-1)
    assert not (tmp_path / "other").exists()


def test_a_cell_is_run_as_it_is_written():
    """What this package's own files import from the future changes nothing in it."""
    names = {}
    run("def double(x: int): return 2 * x", names, "double")
    assert names["double"].__annotations__ == {"x": int}
    assert names["double"](3) == 6
