"""What is written beside the code is true: names of files, links, versions, the citation."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAPERS = sorted(  # every page of Markdown
    path
    for where in ("*.md", "docs/**/*.md", "miniclip/**/*.md", "weights/**/*.md")
    for path in ROOT.glob(where)
    if "_build" not in path.parts
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def missing_paths(text):
    """Paths in backticks, from the root of the repository, that do not exist; NAME is a blank."""
    named = re.findall(r"`((?:miniclip|tests|docs|notebooks|weights)/[\w/.-]*)`", text)
    return [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


def broken_links(text, folder):
    """Links to files, or to headings of files, that do not exist."""
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = folder / path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            broken.append(target)
    return broken


def anchors(text):
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAPERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page):
    text = page.read_text(encoding="utf-8")
    assert missing_paths(text) == []
    assert broken_links(text, page.parent) == []


def test_the_checks_notice_what_is_missing():
    assert missing_paths("`tests/ops` and `tests/nothing/a.py`") == ["tests/nothing/a.py"]
    text = "[a](README.md#test) [b](README.md#no-such) [c](nothing.md) [d](https://x.org)"
    assert broken_links(text, ROOT) == ["README.md#no-such", "nothing.md"]


def test_every_test_that_is_named_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert named
    assert [name for name in named if f"def {name}(" not in sources] == []


def test_every_folder_of_tests_is_in_the_table():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\|.*\| `(tests/\w+)` \| \d+ \| \d+ \|$", text, re.MULTILINE)
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    assert sorted(listed) == sorted(folders)


def test_pre_commit_and_ci_use_the_versions_of_pyproject():
    """Hooks run what the extra `lint` installs; CI runs the hooks, in such an environment."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = config["repos"]
    assert repository["repo"] == "local"  # so that no version is written twice
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    lint = {pin.partition("==")[0]: pin for pin in PROJECT["optional-dependencies"]["lint"]}
    assert all("==" in pin for pin in lint.values())
    assert programs <= set(lint)
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pre-commit run --all-files" in ci


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # what the format asks for
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert "doi" not in citation
