"""The pages of docs/ops say what the code does: their examples run, their quotations exist."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "ops").glob("*.md"))
MODULES = sorted(
    path.stem
    for path in (ROOT / "miniclip" / "ops").glob("*.py")
    if path.stem not in ("__init__", "array")  # array.py is described in README.md
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Markdown reads these before the mathematics is set (escapes, emphasis, HTML, line starts), and
# GitHub refuses the last.
EATEN_IN_MATH = re.compile(r"\\[^a-zA-Z\s]|[})\]|]_|[*<>~`]|\n|\\operatorname")


def examples(text: str) -> list[tuple[str, str | None]]:
    """Every python block with the text block that follows it (None where another or none does)."""
    blocks = FENCE.findall(text)
    following = [*blocks[1:], ("", "")][: len(blocks)]
    return [
        (body, next_body if next_language == "text" else None)
        for (language, body), (next_language, next_body) in zip(blocks, following, strict=True)
        if language == "python"
    ]


def printed_by(code: str) -> str:
    """What the code prints, run by itself."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "<example>", "exec"), {"__name__": "example"})
    return out.getvalue()


def public_functions(module: str) -> list[str]:
    """Names of the functions that the module itself defines."""
    members = inspect.getmembers(
        importlib.import_module(f"miniclip.ops.{module}"), inspect.isfunction
    )
    home = f"miniclip.ops.{module}"
    return [name for name, f in members if f.__module__ == home and not name.startswith("_")]


def unnamed_functions(text: str, module: str) -> list[str]:
    """Public functions of the module that no heading of the page names."""
    headings = "\n".join(re.findall(r"^## .*$", text, re.MULTILINE))
    return [name for name in public_functions(module) if f"`{name}`" not in headings]


def missing_quotations(text: str, module: str) -> list[str]:
    """Code quoted after "Code:" that the module does not contain."""
    source = inspect.getsource(importlib.import_module(f"miniclip.ops.{module}"))
    source = "".join(re.sub(r"  #.*", "", source).split())
    # a list of quotations ends at the first full stop outside them
    passages = re.findall(r"Code: ((?:[^`.]|`[^`]*`)*)", text)
    quotations = [code for passage in passages for code in re.findall(r"`([^`]*)`", passage)]
    return [code for code in quotations if "".join(code.split()) not in source]


def fragile_mathematics(text: str) -> list[str]:
    """Formulas with a sequence that Markdown would change before they are set."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    formulas = re.findall(r"\$\$.*?\$\$|\$[^$]+\$", prose, re.DOTALL)
    return [formula for formula in formulas if EATEN_IN_MATH.search(formula)]


def test_there_is_a_page_for_every_file_and_an_index() -> None:
    assert [page.stem for page in PAGES] == ["README", *MODULES]
    index = (ROOT / "docs" / "ops" / "README.md").read_text()
    assert [name for name in MODULES if f"({name}.md)" not in index] == []
    assert unnamed_functions(index, "array") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_print_what_the_page_says(page: Path) -> None:
    found = examples(page.read_text())
    assert found, "a page without an example"
    for code, expected in found:
        assert expected is not None, f"no output after this example:\n{code}"
        assert printed_by(code) == expected, code


@pytest.mark.parametrize("module", MODULES)
def test_page_names_every_function_and_quotes_real_code(module: str) -> None:
    text = (ROOT / "docs" / "ops" / f"{module}.md").read_text()
    assert public_functions(module)
    assert unnamed_functions(text, module) == []
    assert "Code: " in text
    assert missing_quotations(text, module) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_mathematics_and_links_survive_markdown(page: Path) -> None:
    text = page.read_text()
    assert fragile_mathematics(text) == []
    assert FENCE.sub("", text).count("$") % 2 == 0
    targets = re.findall(r"\]\(([^)#]+)\)", FENCE.sub("", text))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_checks_notice_planted_faults() -> None:
    good = "```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n"
    ((code, expected),) = examples(good)
    assert printed_by(code) == expected
    ((code, expected),) = examples(good.replace("\n2\n", "\n3\n"))
    assert printed_by(code) != expected
    assert examples("```python\nprint(1)\n```\n")[0][1] is None
    assert unnamed_functions("## `linear`\n`linear_backward`", "linear") == ["linear_backward"]
    quoted = "Code: `dweight = drows.T @ rows`, then\n`dweight = rows.T @ drows`.\n\n`not code`"
    assert missing_quotations(quoted, "linear") == ["dweight = rows.T @ drows"]
    assert fragile_mathematics("$a_i$ and $W b_{ij}$") == []
    assert fragile_mathematics(r"$\hat{x}_i$ or $a \, b$ or $a * b$ or $a < b$ or `$a*$`") == [
        r"$\hat{x}_i$",
        r"$a \, b$",
        "$a * b$",
        "$a < b$",
    ]


GUIDES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_guides_print_what_they_say(page: Path) -> None:
    """Examples with their output run; the others, which need what the reader brings, parse."""
    for code, output in examples(page.read_text()):
        if output is None:
            compile(code, page.name, "exec")
        else:
            assert printed_by(code) == output
