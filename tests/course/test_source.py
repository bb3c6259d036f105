"""Sources, and the notebooks that are derived from them."""

import json
import re
from pathlib import Path

import pytest

from miniclip.course.build import build, differing, links_as_words, notebook
from miniclip.course.source import (
    parse_part,
    read_parts,
    seeded,
    source_folder,
    with_solution,
    without_solution,
)

ROOT = Path(__file__).parents[2]
PARTS = read_parts()

SMALL = '''\
# what stands before the first cell is no part of it
# %% [markdown]
# # A part
#
# With [a link](../docs/course.md#grading) and [another](https://x.org).

# %% tags=["setup"]
SEED = 0

# %% tags=["predict"]
a, b = 1, 2  # SOLUTION

# %% tags=["exercise"]
def double(x):
    """Twice x."""
    # BEGIN SOLUTION
    y = 2 * x
    return y
    # END SOLUTION

# %% tags=["right"]
def double(x):
    return x + x

# %% tags=["wrong"]
WRONG = [("2 * x", "3 * x", "3/2")]

# %% tags=["check"]
check.double(double, seed=SEED)
'''


def part(text=SMALL):
    return parse_part("07-small", text)


def cells_of(made):
    return json.loads(made)["cells"]


def source_of(cell):
    return "".join(cell["source"])


def test_cells_and_tasks():
    small = part()
    assert [cell.tag for cell in small.cells] == [
        "", "setup", "predict", "exercise", "right", "wrong", "check",
    ]  # fmt: skip
    assert small.cells[0].markdown
    assert small.cells[0].text.startswith("# A part\n\nWith [a link]")
    (task,) = small.tasks
    assert (task.name, len(task.rights)) == ("double", 1)
    (wrong,) = task.wrongs
    assert (wrong.old, wrong.new, wrong.words) == ("2 * x", "3 * x", "3/2")


def test_what_a_learner_gets():
    text = part().tasks[0].cell.text
    assert without_solution(text) == 'def double(x):\n    """Twice x."""\n    ...  # your lines'
    assert with_solution(text).endswith('"""Twice x."""\n    y = 2 * x\n    return y')
    assert without_solution("a, b = 1, 2  # SOLUTION") == "a, b = ..., ...  # your answer"
    assert without_solution("a = f(1, 2)  # SOLUTION") == "a = ...  # your answer"
    assert with_solution("a, b = 1, 2  # SOLUTION") == "a, b = 1, 2"
    assert seeded("x = 1\nSEED = 0\nSEEDS = 3", 12) == "x = 1\nSEED = 12\nSEEDS = 3"


def test_notebooks():
    student, solution = (cells_of(notebook(part(), v)) for v in (without_solution, with_solution))
    assert [c["metadata"].get("tags") for c in student] == [
        None, ["setup"], ["predict"], ["exercise"], ["check"],
    ]  # fmt: skip
    assert student[3]["metadata"]["miniclip"] == {"exercise": "double"}
    everything = json.dumps(student)
    assert "2 * x" not in everything
    assert "3 * x" not in json.dumps(solution)
    assert "2 * x" in source_of(solution[3])
    assert all(c.get("outputs", []) == [] for c in student + solution)
    assert len({c["id"] for c in student}) == len(student)


def test_a_cell_that_comes_changes_no_other_ones_name():
    longer = SMALL.replace(
        '# %% tags=["predict"]',
        '# %%\nx = 1\n\n# %%\nx = 1\n\n# %%\nx = 1\n\n# %% tags=["predict"]',
    )
    first, second = (
        [c["id"] for c in cells_of(notebook(part(text), with_solution))] for text in (SMALL, longer)
    )
    assert len(second) == len(set(second)) == len(first) + 3
    assert [name for name in second if name in first] == first


def test_a_solution_lies_a_folder_deeper(tmp_path):
    build([part()], tmp_path)
    made = {path.parent.name: path for path in tmp_path.rglob("*.ipynb")}
    first = source_of(cells_of(made["solutions"].read_text())[0])
    assert "](../../docs/course.md#grading)" in first
    assert "](https://x.org)" in first
    del made["solutions"]
    (student,) = made.values()
    assert "](../docs/course.md#grading)" in source_of(cells_of(student.read_text())[0])


def test_another_seed_and_the_same_bytes(tmp_path):
    first, again, other = (tmp_path / name for name in "abc")
    for folder, seed in ((first, None), (again, None), (other, 5)):
        build([part()], folder, seed)
    name = "07-small.ipynb"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    assert "SEED = 5" in (other / name).read_text()
    with pytest.raises(ValueError, match="seed: got -1, expected a number from 0 on"):
        build([part()], tmp_path / "d", -1)
    assert not (tmp_path / "d").exists()


def test_what_differs_is_named(tmp_path):
    written = build([part()], tmp_path)
    assert differing([part()], tmp_path) == []
    written[0].write_text("{}")
    written[1].unlink()
    assert differing([part()], tmp_path) == [
        f"{written[0]}: not what its source gives",
        f"{written[1]}: missing",
    ]


def test_nbgrader_metadata():
    made = {
        c["metadata"]["nbgrader"]["grade_id"]: c["metadata"]["nbgrader"]
        for c in cells_of(notebook(part(), without_solution, nbgrader=True))
        if "nbgrader" in c["metadata"]
    }
    assert list(made) == ["double", "check_double"]
    assert made["double"] == {
        "grade_id": "double", "solution": True, "grade": False, "locked": False,
        "schema_version": 3, "task": False,
    }  # fmt: skip
    assert made["check_double"]["points"] == 1
    assert (made["check_double"]["grade"], made["check_double"]["locked"]) == (True, True)


def test_nbgrader_keeps_its_marks(tmp_path):
    build([part()], tmp_path, nbgrader=True)
    text = json.loads((tmp_path / "solutions" / "07-small.ipynb").read_text())
    assert "    ### BEGIN SOLUTION\n    y = 2 * x" in "".join(map(source_of, text["cells"]))


def test_links_as_words():
    text = "see [norm](../miniclip/ops/norm.py) and [x](https://x.org)"
    assert links_as_words(text) == "see `miniclip/ops/norm.py` and [x](https://x.org)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'tags=["check"]',
            'tags=["chck"]',
            "07-small, line 28: got 'tags=[\"chck\"]', expected",
        ),
        ('"exercise"', '"look"', "07-small: got no cell with the tag exercise, expected one"),
        ('("2 * x", "3 * x", "3/2")', '("2 * x",)', "07-small, line 25: a wrong cell is one"),
        ("WRONG = [", "WRONG = f[", "07-small, line 25: a wrong cell is one list of"),
    ],
)
def test_a_broken_source_names_its_line(old, new, message):
    assert old in SMALL
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = part(SMALL.replace(old, new)).tasks


def test_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no file such as 02-chain-rule"):
        read_parts(tmp_path)


# ------------------------------------------------------------------------ those of the course


def test_derived_notebooks_are_what_their_sources_give():
    """If not: `miniclip course build`."""
    assert source_folder() == ROOT / "notebooks" / "src" or source_folder().is_dir()
    assert differing(read_parts(ROOT / "notebooks" / "src"), ROOT / "notebooks") == []


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_form_of_a_part(part):
    """Predict, Build, Check, Break, In a trained model, Look; times, what to remember, links."""
    tags = [cell.tag for cell in part.cells]
    assert tags.count("exercise") == tags.count("check") >= 4
    assert tags.count("predict") >= 2
    assert tags.count("look") >= 1
    text = "\n".join(cell.text for cell in part.cells if cell.markdown)
    for wanted in ("| to read |", "| to do |", "## Break", "## In a trained model", "## Look",
                   "## What to remember", "arxiv.org/abs/"):  # fmt: skip
        assert wanted in text, wanted
    remembered = text[text.index("## What to remember") :]
    assert len(re.findall(r"^\d\. ", remembered, re.MULTILINE)) == 3
    for name in (task.name for task in part.tasks):
        assert f"`{name}`\n" in text
        assert re.search(rf"`{name}`\n\n\d+ minutes\. Difficulty \d of 5, importance \d of 5", text)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_links_lead_somewhere(part):
    text = "\n".join(cell.text for cell in part.cells if cell.markdown)
    targets = [t.partition("#")[0] for t in re.findall(r"\]\((\.\./[^)]+)\)", text)]
    assert targets
    assert [t for t in targets if not (ROOT / "notebooks" / t).exists()] == []
