"""The rooms: who may import whom, what a backend must offer, and that the front door is light."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import backends_here
import pytest
from fake_gpu import CUPY_FUNCTIONS, FakeGpu

import miniclip
from miniclip import backends, ops

PACKAGE = Path(miniclip.__file__).parent

# Each room may import the rooms before it. Rooms on one line do not import each other.
ORDER = [
    ["files", "notes", "tables", "ops"],
    ["inputs", "world", "emoji", "check"],
    ["cpu"],
    ["backends"],
    ["nn"],
    ["models"],
    ["checkpoints", "engine", "training", "inspect"],
    ["pipeline"],
    ["tasks"],
    ["bench", "course"],
    ["cli"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}


def imports_of(path):
    """The rooms of miniclip that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "miniclip" and len(parts) > 1 and parts[1] in FLOOR:
                yield parts[1]


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_imports_point_one_way(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in FLOOR, f"{path.name} stands in no known room"
    for imported in imports_of(path):
        allowed = imported == room or FLOOR[imported] < FLOOR[room]
        assert allowed, f"{room} must not import {imported} ({path})"


def test_the_rule_bites(tmp_path):
    wrong = tmp_path / "linear.py"
    wrong.write_text("def f():\n    from miniclip.nn import layers\n")
    assert list(imports_of(wrong)) == ["nn"]
    assert FLOOR["nn"] > FLOOR["ops"]


MODULES = [
    name for name in backends.NAMES if importlib.util.find_spec(name) or name == "numpy"
]  # a backend's module can be looked at without a GPU


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("op", [*ops.PAIRS, *(f"{p}_backward" for p in ops.PAIRS), *ops.HELPERS])
def test_backends_have_the_textbooks_signatures(name, op):
    backend = importlib.import_module(f"miniclip.backends.{name}")
    expected, got = inspect.signature(getattr(ops, op)), inspect.signature(getattr(backend, op))
    assert list(got.parameters) == list(expected.parameters)
    for parameter in expected.parameters.values():
        assert got.parameters[parameter.name].default == parameter.default


@pytest.mark.parametrize("name", MODULES)
def test_backends_redefine_whole_pairs(name):
    """A cache is opaque to all but its pair: forward and backward come from one backend."""
    backend = importlib.import_module(f"miniclip.backends.{name}")
    for op in ops.PAIRS:
        forward, backward = getattr(backend, op), getattr(backend, f"{op}_backward")
        own = forward is not getattr(ops, op)
        assert own == (backward is not getattr(ops, f"{op}_backward")), f"{name}: half of {op}"


@pytest.mark.parametrize("name", MODULES)
def test_the_table_of_ops_and_backends_is_true(name):
    """docs/backends.md says `own` exactly where the backend has a kernel of its own."""
    table = (PACKAGE.parent / "docs" / "backends.md").read_text(encoding="utf-8")
    backend = importlib.import_module(f"miniclip.backends.{name}")
    column = backends.NAMES.index(name) + 2
    for op in ops.PAIRS:
        rows = [line for line in table.splitlines() if line.startswith(f"| `{op}` |")]
        assert len(rows) == 1, f"docs/backends.md has {len(rows)} rows for {op}"
        cell = rows[0].split("|")[column].strip()
        own = getattr(backend, op) is not getattr(ops, op) or name == "numpy"
        assert cell.startswith("own") == own, f"{op} on {name}: the table says {cell!r}"


def test_the_pipeline_knows_no_backend_by_name():
    """Which backends there are and what plans they have is said in backends/ alone."""
    for path in sorted((PACKAGE / "pipeline").rglob("*.py")):
        source = path.read_text(encoding="utf-8").lower()
        assert "numba" not in source, path
        assert "cupy" not in source, path
        assert "engine" not in set(imports_of(path)), path


def test_unknown_backend():
    with pytest.raises(ValueError, match="backend: got 'jax', expected one of numpy, numba, cupy"):
        backends.get("jax")


def test_importing_miniclip_is_light():
    """Numba, CuPy, matplotlib and the hub's client load when first used, not before."""
    heavy = ("numba", "cupy", "matplotlib", "huggingface_hub", "torch", "transformers", "ftfy")
    code = f"import miniclip, sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    heavy += (
        "PIL",
        "regex",
        "safetensors",
    )  # `miniclip --help` needs none
    code = f"import miniclip.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_fake_gpu_knows_only_what_cupy_has():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: its names are not checked")
    assert not CUPY_FUNCTIONS - set(dir(cupy))


def test_the_fake_gpu_refuses_host_arrays():
    import numpy as np

    x = FakeGpu(np.ones(3))
    for mix in (
        lambda: x + np.ones(3),
        lambda: np.ones(3) * x,
        lambda: np.concatenate([x, np.ones(1)]),
        lambda: np.asarray(x),
        lambda: x[np.array([0])],
        lambda: np.add.at(x, [0], 1.0),
        lambda: np.pad(x, 1),
    ):
        with pytest.raises(TypeError):
            mix()
    assert isinstance(np.zeros(3, x.dtype, like=x), FakeGpu)
    assert isinstance((2.0 * x).sum(), FakeGpu)


def test_all_backends_are_tried():
    """Numba must work wherever miniclip is installed; CuPy where there is a GPU."""
    assert {"numpy", "numba", "fake_gpu"} <= set(backends_here.NAMES)


# ------------------------------------------------------------------------ what is written about it

ROOT = PACKAGE.parent
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))  # those that are folders


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_has_a_short_readme(room):
    """At most 15 lines: what it promises, what it may import (which is checked), where to begin."""
    text = (room / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 15
    assert text.startswith(f"# {room.name}: ")
    promises, may_import, begin = (
        text.index(f"- **{heading}:**") for heading in ("Promises", "May import", "Begin with")
    )
    assert promises < may_import < begin
    named = re.findall(r"`(\w+)`", text[may_import:begin])
    below = [other for floor in ORDER[: FLOOR[room.name]] for other in floor]
    assert named == below, f"{room.name}/README.md: a room may import those of the floors below it"


def test_the_design_page_shows_this_order():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (drawn,) = re.findall(r"^```text\n(files .*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [line.split() for line in drawn.splitlines()] == ORDER
    table = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(table))) == sorted(FLOOR)


# Files that are longer than 400 lines, and why. Empty is best.
LONG: dict[str, str] = {}


def test_no_file_is_over_400_lines():
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    long = {name for name, lines in lengths.items() if lines > 400}
    assert long - set(LONG) == set(), "split it, or write the reason beside its name in LONG"
    assert set(LONG) - long == set(), "no longer long: take its name out of LONG"


COMPILED_ROOMS = ("cpu", "backends/numba", "engine/cpu")
DECORATORS = ("@kernel", "@entry_kernel", "@scalar", "@intrinsic")


def compiled_functions(room):
    """The names of the functions in a room that Numba compiles."""
    found = set()
    for path in (PACKAGE / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(
                f"@{ast.unparse(decorator)}" in DECORATORS for decorator in node.decorator_list
            ):
                found.add(node.name)
    return found


def test_no_compiled_function_is_written_twice():
    """One name, one meaning: what two rooms need is in cpu/."""
    names = [compiled_functions(room) for room in COMPILED_ROOMS]
    assert all(len(found) > 10 for found in names)
    for i, found in enumerate(names):
        for other in names[i + 1 :]:
            assert found & other == set()


def test_advice_to_install_holds_wherever_miniclip_came_from():
    """It may have been installed from a folder, where no index knows its name or its extras."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install [^\n]*miniclip", source), path
