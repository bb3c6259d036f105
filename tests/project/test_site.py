"""The site: how docstrings are laid out for it, and that its front page has every public name.

The site itself is built by `.ci/run site`, where a broken link is an error.
"""

import importlib.util
import re
from pathlib import Path

import pytest

import miniclip

DOCS = Path(__file__).resolve().parents[2] / "docs"


def extension(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docstrings = extension("docstrings")


@pytest.mark.parametrize(
    ("ours", "rst"),
    [
        # markup that means itself, code that may touch letters
        ("y = x / |x|, a * b, x_ and x_hat", r"y = x / \|x\|, a \* b, x\_ and x_hat"),
        ("a `Plan`s |x|", r"a \ ``Plan``\ s \|x\|"),
        ("`a | b` and `x_`", r"\ ``a | b``\  and \ ``x_``\ "),
        # a page's file is a link to it
        ("See docs/ops/loss.md.", "See :doc:`docs/ops/loss.md </ops/loss>`."),
        # a paragraph stays one, also where it begins with a name
        ("x: (B, C).\nReturns y.\n\nNext.", "x: (B, C).\nReturns y.\n\nNext."),
        # indented: shown as it is
        (
            "Then\n\n    y = |x|\n      + 1\n\nis so.",
            "Then\n\n::\n\n    y = |x|\n      + 1\n\nis so.",
        ),
        # items, continued by indented lines; words behind them are a paragraph again
        ("a: one\n  more\nb, c: two\nSee |x|.", "- a: one\n  more\n\n- b, c: two\n\nSee \\|x\\|."),
        ("First:\n1. one\n2. two", "First:\n\n1. one\n\n2. two"),
        # items in items
        ("a: of\n  - x\n    y\n  - z\n  end", "- a: of\n\n  - x\n    y\n\n  - z\n\n  end"),
        # Google's sections are napoleon's
        ("One.\n\nArgs:\n    x: |a|\n      b", "One.\n\nArgs:\n    x: \\|a\\|\n      b"),
    ],
)
def test_docstrings_become_restructuredtext(ours, rst):
    lines = docstrings.to_rst(ours.split("\n"))
    squeezed = re.sub(r"\n\s*\n+", "\n\n", "\n".join(lines)).strip("\n")
    assert squeezed == rst


def test_nothing_is_lost_between():
    """All words of every docstring of a large file are there, in their order."""
    from miniclip.checkpoints import hub

    for thing in vars(hub).values():
        text = getattr(thing, "__doc__", None)
        if callable(thing) and isinstance(text, str):
            words = re.findall(r"\w+", text)
            assert re.findall(r"\w+", "\n".join(docstrings.to_rst(text.split("\n")))) == words


def test_arrays_keep_their_name_in_signatures():
    long = docstrings.ARRAY
    assert docstrings.with_arrays(f"(x: ~{long} | None) -> {long}") == "(x: Array | None) -> Array"
    assert docstrings.with_arrays("(x: int)") == "(x: int)"
    assert docstrings.with_arrays(None) is None


def test_the_front_page_has_every_public_name():
    listed = re.findall(r"^   ~([\w.]+)$", (DOCS / "index.md").read_text(), re.MULTILINE)
    names = {path.rpartition(".")[2]: path.rpartition(".")[0] for path in listed}
    assert sorted(names) == sorted(set(miniclip.__all__) - {"__version__"})
    for name, module in names.items():  # and links to where it is defined
        assert getattr(miniclip, name).__module__ == f"miniclip.{module}"


def test_every_page_is_in_the_contents():
    text = (DOCS / "index.md").read_text()
    pages = [p.relative_to(DOCS).with_suffix("").as_posix() for p in DOCS.rglob("*.md")]
    pages = [page for page in pages if not page.startswith(("_build/", "api/", "index"))]
    assert [page for page in pages if f"\n{page}\n" not in text] == []
