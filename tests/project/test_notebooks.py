"""The notebooks run from top to bottom, and their last expressions show something.

Of the course's parts, which begin with a number, the solutions run: what is handed out has open
answers.
"""

import ast
import json
from pathlib import Path

import pytest

from miniclip.course import WrongAnswer

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[a-z]*.ipynb"))
PARTS = sorted(FOLDER.glob("[0-9]*.ipynb"))


def run_cell(source, names):
    """Run a cell as a notebook does; the value of its last line, if that is an expression."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def run_all(path):
    """Run all cells; the values of their last lines."""
    names, shown = {}, []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert cell.get("outputs", []) == []  # results are made by the reader
        if cell["cell_type"] == "code":
            shown.append(run_cell("".join(cell["source"]), names))
    return shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert any(hasattr(value, "_repr_html_") for value in run_all(path))


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("error")
def test_every_solution_runs_without_a_warning(path, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    figures = []
    monkeypatch.setattr(plt, "show", lambda: (figures.append(plt.gcf()), plt.close("all")))
    shown = run_all(FOLDER / "solutions" / path.name)
    checks = [value for value in shown if type(value).__name__ == "Right"]
    text = (FOLDER / "src" / f"{path.stem}.py").read_text(encoding="utf-8")
    assert len(checks) == text.count('# %% tags=["check"]')
    assert len(figures) == text.count('# %% tags=["look"]')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_what_is_handed_out_runs_as_far_as_its_first_check(path):
    """Predictions are open, and the first open exercise says so in one line."""
    with pytest.raises(WrongAnswer, match="returned nothing, expected"):
        run_all(path)


def test_there_is_one():
    assert NOTEBOOKS
    assert PARTS
