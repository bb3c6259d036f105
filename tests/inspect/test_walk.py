"""The walk of docs/debugging.md: its keys are typed, and pdb shows what the page shows.

On this Python, and on every other one of 3.11 and later that is found with NumPy: by its name on
the path, or listed in MINICLIP_PYTHONS (paths with the path separator between them).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import miniclip

ROOT = Path(miniclip.__file__).parents[1]
PAGE = ROOT / "docs" / "debugging.md"
PROMPT = "(Pdb) "
OTHERS = [f"python3.{minor}" for minor in range(11, 20) if minor != sys.version_info.minor]


def interpreters():
    listed = os.environ.get("MINICLIP_PYTHONS", "").split(os.pathsep)
    found = [path for path in [*listed, *map(shutil.which, OTHERS)] if path]
    probe = "import sys, numpy; assert sys.version_info >= (3, 11) and numpy.__version__ >= '2'"
    asked = [subprocess.run([path, "-c", probe], capture_output=True) for path in found]
    return [path for path, run in zip(found, asked, strict=True) if run.returncode == 0]


def page():
    return PAGE.read_text(encoding="utf-8")


def block(language, text):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def plain(line):
    """A line of pdb without what differs from machine to machine and from edit to edit."""
    line = re.sub(r"(?<=[> ])/\S*?(miniclip/\w+/\w+\.py|step\.py)", r"\1", line)
    line = re.sub(r"(\.py[:(])\d+", r"\1…", line)
    return re.sub(r"\)->.*", ")->…", line).rstrip()


def steps(text):
    """(key, what pdb shows then) for each prompt; the first one's key is empty."""
    key, shown = "", []
    for line in text.splitlines():
        if line.startswith(PROMPT):
            yield key, shown
            key, shown = line.removeprefix(PROMPT), []
        elif line:
            shown.append(plain(line))
    yield key, shown


def walked(python, folder, keys):
    """What pdb prints for these keys, with each key after its prompt, as on a screen."""
    (folder / "step.py").write_text(block("python", page())[0])
    run = subprocess.run(
        [python, "step.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "HOME": str(folder)},
        input="\n".join(keys) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    first, *answers = run.stdout.split(PROMPT)
    assert len(answers) == len(keys), run.stdout + run.stderr
    rest = zip(keys, answers, strict=True)
    return first + "".join(f"{PROMPT}{key}\n{answer}" for key, answer in rest)


def check_walk(python, folder):
    written = list(steps("\n".join(block("console", page()))))
    seen = list(steps(walked(python, folder, [key for key, _ in written[1:]])))
    for number, (wanted, got) in enumerate(zip(written, seen, strict=True)):
        assert got == wanted, f"key {number}"


def test_what_the_page_shows_is_what_pdb_shows(tmp_path):
    check_walk(sys.executable, tmp_path)


@pytest.mark.parametrize("python", interpreters())
def test_on_another_python(python, tmp_path):
    check_walk(python, tmp_path)


def test_the_walk_goes_where_it_should():
    """Into the tower with one key, past the checks with one each, to an op and its backward."""
    text = "\n".join(block("console", page()))
    written = list(steps(text))
    assert written[0][1][-1].startswith("-> embedding = tower(image)")
    at_a_check = [i for i, (_, shown) in enumerate(written) if "-> check_" in "".join(shown[-1:])]
    assert len(at_a_check) >= 3
    assert all("-> check_" not in written[i + 1][1][-1] for i in at_a_check)
    first = next(shown for key, shown in written if key == "s")
    assert first[0] == "> miniclip/models/vit.py(…)forward()"
    stacks = ["\n".join(shown) for key, shown in written if key == "w"]
    assert "> miniclip/ops/attention.py(…)scaled_dot_product_attention()" in stacks[0]
    assert "> miniclip/ops/norm.py(…)layer_norm_backward()" in stacks[1]
    assert f"The stack has {len(stacks[0].splitlines()) // 2} frames" in page().replace("\n", " ")
