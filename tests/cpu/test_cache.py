"""Compiled code on disk: never stale, never mixed up, never needed, never anybody else's.

Each case runs small kernels in processes of their own, over a copy of the package whose source may
be edited, with a cache of its own. Where Numba's own cache gets a case wrong, the same harness runs
once with it in the place of ours, as a control: it has to see the fault.
"""

import ast
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import miniclip
from miniclip.cpu import cache

PACKAGE = Path(miniclip.__file__).parent
KERNELS = """
import sys, numpy as np
from miniclip.backends.numba import row_kernels
x = np.array([[0.5, -1.0, 2.0]], sys.argv[1])
row_kernels.softmax(x)
y = np.empty(3, x.dtype)
row_kernels.quick_gelu(np.array([0.5, -1.0, 2.0], x.dtype), y)
print(x[0].tolist(), y.tolist())
"""
NUMBAS_OWN = (
    "compiled = njit(nogil=True, ",
    "compiled = njit(nogil=True, cache=True, ",
    "        attach(compiled)\n",
    "",
)


def expected(share=1.0, slope=1.702):
    x = np.array([0.5, -1.0, 2.0])
    return share * np.exp(x) / np.exp(x).sum(), x / (1 + np.exp(-slope * x))


@pytest.fixture
def copy(tmp_path):
    """A copy of the package that may be edited; `run` gives the kernels' answers in float64."""
    return Copy(tmp_path)


class Copy:
    def __init__(self, folder):
        self.folder, self.cache = folder, folder / "cache"
        shutil.copytree(
            PACKAGE, folder / "src" / "miniclip", ignore=shutil.ignore_patterns("__pycache__")
        )

    def edit(self, file, *replacements):
        path = self.folder / "src" / "miniclip" / file
        source = path.read_text(encoding="utf-8")
        for old, new in zip(replacements[::2], replacements[1::2], strict=True):
            assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {file}"
            source = source.replace(old, new)
        path.write_text(source, encoding="utf-8")

    def start(self, code=KERNELS, dtype="float64", **environment):
        variables = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        variables |= {
            "PYTHONPATH": str(self.folder / "src"),
            "MINICLIP_CACHE_DIR": str(self.cache),
            "NUMBA_CACHE_DIR": str(self.folder / "numba"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-c", code, dtype],
            env=variables | environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code=KERNELS, dtype="float64", **environment):
        """What the process printed to both streams. AssertionError if it failed."""
        process = self.start(code, dtype, **environment)
        said = process.communicate(timeout=300)
        assert process.returncode == 0, said[1]
        return said

    def answers(self, dtype="float64", **environment):
        return [np.array(x) for x in read(self.run(dtype=dtype, **environment)[0])]

    def files(self):
        folders = list((self.cache / "compiled").iterdir())
        return sorted(path for folder in folders for path in folder.iterdir())


def read(line):
    return ast.literal_eval("[" + line.strip().replace("] [", "], [") + "]")


def are_right(answers, tolerance=1e-13, **changed):
    return all(
        np.allclose(got, truth, rtol=0, atol=tolerance)
        for got, truth in zip(answers, expected(**changed), strict=True)
    )


# ------------------------------------------------------------------------ the stamp


def imports_of(path):
    """The files of the package from which this one takes a name, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("miniclip"):
            for alias in node.names:
                for name in (f"{node.module}.{alias.name}", node.module):
                    file = PACKAGE.parent / (name.replace(".", "/") + ".py")
                    if file.exists():
                        yield file
                        break


def test_the_stamp_covers_all_that_compiled_code_is_made_of():
    """From every file with a kernel, an intrinsic or a scalar function, along all imports."""
    marks = ("@kernel", "@entry_kernel", "@scalar", "@intrinsic")
    todo = {
        path
        for path in PACKAGE.rglob("*.py")
        if any(line.startswith(marks) for line in path.read_text("utf-8").splitlines())
    }
    assert len(todo) > 8
    found = set()
    while todo:
        path = todo.pop()
        found.add(path)
        todo |= set(imports_of(path)) - found
    assert sorted(str(path.relative_to(PACKAGE)) for path in found) == sorted(cache.SOURCES)


def test_nothing_else_is_compiled():
    """Numba's decorators occur in cpu/jit.py only, and no kernel asks for Numba's own cache."""
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text("utf-8")
        assert path.name == "jit.py" or "njit" not in source, path
        assert "cache=True" not in source, path


STAMP = "from miniclip.cpu.cache import stamp; print(stamp())"


def test_what_changes_the_stamp(copy):
    first = copy.run(STAMP)[0]
    assert copy.run(STAMP)[0] == first
    assert copy.run(STAMP, NUMBA_OPT="2")[0] != first
    narrow = "import llvmlite.binding as llvm; llvm.get_host_cpu_features = dict; "
    assert copy.run(narrow + STAMP)[0] != first
    copy.edit("ops/conv.py", "from __future__", "# a comment\nfrom __future__")
    assert copy.run(STAMP)[0] == first  # nothing compiled is made of it
    copy.edit("cpu/team.py", "PATIENCE = 2000", "PATIENCE = 2001")
    assert copy.run(STAMP)[0] != first


# ------------------------------------------------------------------------ never stale

EDITS = {
    "a leaf in another file": (
        "cpu/rows.py",
        "    share = real(1) / total\n",
        "    share = real(3) / total\n",
        {"share": 3.0},
    ),
    "a constant of the textbook": (
        "ops/activation.py",
        "QUICK_GELU_SLOPE = 1.702",
        "QUICK_GELU_SLOPE = 1.5",
        {"slope": 1.5},
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_seen(edit, copy):
    file, old, new, changed = EDITS[edit]
    assert are_right(copy.answers())
    copy.edit(file, old, new)
    assert are_right(copy.answers(), **changed)
    copy.edit(file, new, old)
    assert "compiling" not in copy.run()[1]  # what was compiled before the edit is still there


@pytest.mark.parametrize("edit", EDITS)
def test_numbas_own_cache_does_not_see_it(edit, copy):
    file, old, new, changed = EDITS[edit]
    copy.edit("cpu/jit.py", *NUMBAS_OWN)
    assert are_right(copy.answers())
    copy.edit(file, old, new)
    assert are_right(copy.answers())  # the answers of before the edit
    assert not are_right(copy.answers(), **changed)


def test_the_second_process_compiles_nothing(copy):
    assert "compiling" in copy.run()[1]
    assert copy.run() == copy.run()
    assert copy.run()[1] == ""


# ------------------------------------------------------------------------ never mixed up

# Two processes compile one kernel for two types at once. Each waits for its turn at every step that
# touches the disk, so that the worst order happens every time.
TURNS = """
import sys, time
from pathlib import Path
turns, folder = {turns!r}, Path({folder!r})
def turn(name):
    me = sys.argv[1] + " " + name
    if me in turns:
        deadline = time.monotonic() + 120
        while len(list(folder.iterdir())) != turns.index(me):
            assert time.monotonic() < deadline, me
            time.sleep(0.002)
def done(name):
    if sys.argv[1] + " " + name in turns:
        (folder / (sys.argv[1] + name)).touch()
def in_turn(owner, function):
    own = getattr(owner, function)
    def patched(*arguments):
        turn(function)
        try:
            return own(*arguments)
        finally:
            done(function)
    setattr(owner, function, patched)
"""
QUICK = """
import numpy as np
from miniclip.backends.numba import row_kernels
y = np.empty(3, sys.argv[1])
row_kernels.quick_gelu(np.array([0.5, -1.0, 2.0], sys.argv[1]), y)
print(y.tolist())
"""
OURS = "from miniclip.cpu import cache; in_turn(cache, 'write')\n"
THEIRS = """
from numba.core.caching import IndexDataCacheFile as File
save = File.save
def patched(self, key, data):
    if "quick_gelu" not in self._index_path:
        return save(self, key, data)
    for name in ("_load_index", "_save_index", "_save_data"):
        in_turn(self, name)
    save(self, key, data)
File.save = patched
"""


def race(copy, patch, turns):
    """Both processes at once; then what a third and a fourth one get, or None if they fail."""
    folder = copy.folder / "turns"
    folder.mkdir()
    code = TURNS.format(turns=turns, folder=str(folder)) + patch + QUICK
    racing = [copy.start(code, dtype) for dtype in ("float32", "float64")]
    for process in racing:
        assert process.communicate(timeout=300)
        assert process.returncode == 0
    assert len(list(folder.iterdir())) == len(turns)
    answers = []
    for dtype in ("float32", "float64"):
        process = copy.start("import sys\n" + QUICK, dtype)
        said, _ = process.communicate(timeout=300)
        answers.append(np.array(read(said)) if process.returncode == 0 else None)
    return answers


def right(answer, tolerance):
    truth = expected()[1]
    return answer is not None and np.allclose(answer, truth, rtol=0, atol=tolerance)


@pytest.mark.parametrize("first", ["float32", "float64"])
def test_two_processes_that_compile_at_once(first, copy):
    second = "float64" if first == "float32" else "float32"
    single, double = race(copy, OURS, [f"{first} write", f"{second} write"])
    assert right(single, 1e-6)
    assert right(double, 1e-13)


def test_numbas_index_is_left_wrong(copy):
    """Both find an empty index and take the same file name; the last writers are not the same."""
    copy.edit("cpu/jit.py", *NUMBAS_OWN)
    turns = ["float32 _load_index", "float64 _load_index", "float64 _save_index"]
    turns += ["float32 _save_index", "float32 _save_data", "float64 _save_data"]
    single, double = race(copy, THEIRS, turns)
    assert not (right(single, 1e-6) and right(double, 1e-13))


# ------------------------------------------------------------------------ damaged, or not there


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "gone"])
def test_damaged_files_are_compiled_again(damage, copy):
    copy.run()
    before = copy.files()
    assert before
    contents = {path: path.read_bytes() for path in before}
    for path, content in contents.items():
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        left = {"empty": b"", "cut": content[:middle], "changed": flipped, "gone": None}[damage]
        path.unlink() if left is None else path.write_bytes(left)
    said, noted = copy.run()
    assert are_right([np.array(x) for x in read(said)])
    assert noted.count("compiling") == 1
    assert noted.count("what is damaged") == (damage != "gone")
    assert noted.count("\n") <= 2
    assert copy.files() == before
    assert all(path.stat().st_size > 1000 for path in before)
    assert copy.run()[1] == ""


def test_an_install_that_nobody_may_write_to(copy):
    """Nothing is written into the package's folder, whoever owns it."""
    source = copy.folder / "src"
    before = sorted(source.rglob("*"))
    copy.run()
    assert sorted(source.rglob("*")) == before


@pytest.mark.parametrize("where", ["/dev/null/cache", "others", "a file"])
def test_a_folder_that_cannot_be_used(where, copy):
    """Compiled in each process, said once, and nothing is left behind."""
    if where == "others":
        copy.cache.mkdir()
        (copy.cache / "compiled").mkdir()
        (copy.cache / "compiled").chmod(0o777)
    elif where == "a file":
        copy.cache.write_text("not a folder")
    else:
        copy.cache = Path(where)
    for _ in range(2):
        said, noted = copy.run()
        assert are_right([np.array(x) for x in read(said)])
        assert noted.count("\n") == 1
        assert "not kept" in noted
        assert "MINICLIP_CACHE_DIR" in noted
    if where == "others":
        assert list((copy.cache / "compiled").iterdir()) == []


def test_a_user_without_a_home(copy):
    """Who has no HOME and is in no list of users."""
    lost = "import os\nos.path.expanduser = lambda path: path\n"
    lost += "for name in ('MINICLIP_CACHE_DIR', 'XDG_CACHE_HOME'): os.environ.pop(name, None)\n"
    said, noted = copy.run(lost + KERNELS)
    assert are_right([np.array(x) for x in read(said)])
    assert "this user has no home; MINICLIP_CACHE_DIR names another folder" in noted


def test_a_kernel_that_is_there_is_not_compiled_nor_spoken_of(copy):
    """In one process the note comes once, however many kernels are new; in the next not at all."""
    assert copy.run()[1].count("compiling kernels") == 1
    assert copy.run()[1] == ""


def test_the_folder_is_the_users_own(copy):
    copy.run()
    assert stat.S_IMODE((copy.cache / "compiled").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in copy.files())


def test_a_numba_without_the_private_names(copy):
    code = "from numba.core.compiler import CompileResult; del CompileResult._reduce\n" + KERNELS
    said, noted = copy.run(code)
    assert are_right([np.array(x) for x in read(said)])
    assert "lacks what that needs: _reduce" in noted
    assert not copy.cache.exists()


# ------------------------------------------------------------------------ what stays, what goes


def test_only_folders_unused_for_a_month_are_deleted(copy):
    root = copy.cache / "compiled"
    root.mkdir(parents=True, mode=0o700)
    ages = {"old": 31, "younger": 29, "new": 0}
    for name, days in ages.items():
        (root / name).mkdir()
        (root / name / "kernel").write_bytes(b"code")
        then = time.time() - days * 24 * 3600
        os.utime(root / name, (then, then))
    copy.run(STAMP + "; from miniclip.cpu.cache import kept; kept()")
    left = {path.name for path in root.iterdir()}
    assert "old" not in left
    assert {"younger", "new"} < left
    assert len(left) == 3


def test_using_a_folder_makes_it_young(copy):
    copy.run()
    (folder,) = (copy.cache / "compiled").iterdir()
    os.utime(folder, (0, 0))
    copy.run()
    assert time.time() - folder.stat().st_mtime < 3600


def test_foreign_functions_are_not_kept():
    """The stamp says nothing about a learner's kernel, or about a changed copy of a module."""
    from miniclip.cpu.jit import kernel
    from miniclip.cpu.rows import softmax_row

    @kernel
    def mine(x):
        return x + 1

    assert isinstance(softmax_row._cache, cache.KernelCache)
    assert not isinstance(mine._cache, cache.KernelCache)
    names = {"__name__": "miniclip.cpu.rows", "kernel": kernel}
    exec("@kernel\ndef softmax_row(x):\n    return x\n", names)
    assert not isinstance(names["softmax_row"]._cache, cache.KernelCache)
