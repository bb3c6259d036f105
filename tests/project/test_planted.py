"""Planted bugs are all of one style: one class, one marker, a file for each room, a control."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.glob("*/test_planted_bugs.py"))


def functions_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]


def is_marked(function):
    return any("mark.planted" in ast.unparse(mark) for mark in function.decorator_list)


def test_bugs_are_planted_in_their_rooms_file_only():
    """But for the tests of planting itself, and the mutants, which are drawn and not written."""
    planting = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        if re.search(r"\bBug\(|mark\.planted\b", path.read_text(encoding="utf-8"))
    }
    planting -= {"check/test_planting.py", "project/test_planted.py", "mutants/mutant_sample.py"}
    assert planting == {path.relative_to(TESTS).as_posix() for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_one_style(path):
    """What takes a bug is marked; beside it is a control, test_without_a_bug_..."""
    functions = functions_of(path)
    marked = [f for f in functions if is_marked(f)]
    takes_bug = [f for f in functions if "bug" in [a.arg for a in f.args.args]]
    assert takes_bug
    assert [f.name for f in takes_bug if f not in marked] == []
    others = [f for f in functions if f not in marked]
    assert any(
        "without_a_bug" in f.name or "control" in (ast.get_docstring(f) or "") for f in others
    )


def test_every_helper_is_listed():
    support = TESTS / "support"
    listed = re.findall(
        r"^\| `(\w+\.py)` \|", (support / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert listed == sorted(path.name for path in support.glob("*.py"))
