"""A mutant against the tests of its room: a process in a copy of the project, with a time limit."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mutant_sample import ROOT, TESTS
from planting import copy_with

from miniclip.check import unchanged
from miniclip.cpu.cache import SOURCES

LIMIT = 3  # times the usual seconds of a room's tests
COMPILING = 240.0  # more seconds where the kernels have to be compiled anew
LEAST = 30.0
MEMORY = 12 << 30  # bytes: a slip may ask for any size
COPIED = ("tests", "weights", "docs", "notebooks")  # what tests of rooms read, beside the package
QUICK = "not slow and not planted"  # a planted bug's passage may be the very line that is changed


class Place:
    """A copy of the project for one worker, whose package is changed for each mutant."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.root = self.folder / "miniclip"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.root.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__", "_build")
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, self.root)
        if (ROOT.parent / "shared").is_dir():  # the original's vocabulary, where tests find it
            (self.folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
        compiled = ROOT / ".pytest_cache" / "miniclip"
        if compiled.is_dir():  # spares the first tests compiling what is not changed
            shutil.copytree(compiled, self.folder / "cache", ignore=shutil.ignore_patterns("tmp*"))

    def environment(self):
        return {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "MINICLIP_CACHE_DIR": str(self.folder / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",  # two mutants of a second would share a stale file
            "PYTEST_XDIST_WORKER": "gw0",  # one thread a worker, as the suite has it
        }

    def run(self, bug, limit):
        """(outcome, seconds, the first test that failed), of a bug against its room's tests."""
        shutil.rmtree(self.root / "miniclip", ignore_errors=True)
        copy_with(bug, self.root)
        kept = set(self.compiled())
        start = time.monotonic()
        code, output = finished(self.command(bug), self.root, self.environment(), limit)
        for folder in set(self.compiled()) - kept:  # kernels of this mutant alone
            if changes_kernels(bug):
                shutil.rmtree(folder, ignore_errors=True)
        return outcome_of(code, output), time.monotonic() - start, first_failure(output)

    def compiled(self):
        return (self.folder / "cache" / "compiled").glob("*")

    def command(self, bug):
        tests = [f"tests/{folder}" for folder in TESTS[bug.where]]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", QUICK]
        options.append(f"--basetemp={self.folder / 'tmp'}")
        return [sys.executable, "-m", "pytest", *options, *tests]


def changes_kernels(bug):
    return bug.name != "nothing" and bug.path.as_posix() in SOURCES


def finished(command, cwd, environment, limit):
    """(exit status, output) of a command; (None, output) when it took longer and was killed."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]
        except BaseException:  # Ctrl-C: no tests are left running
            os.killpg(process.pid, signal.SIGKILL)
            raise


def outcome_of(code, output):
    """survived, found, or late. Raises RuntimeError where pytest itself was used wrongly."""
    if code is None:
        return "late"
    if code in (3, 4, 5) and "Error" not in output:
        raise RuntimeError(f"pytest ended with {code}:\n{output[-2000:]}")
    return "found" if code else "survived"


def first_failure(output):
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return found[1] if found else ""


def limit_of(mutant, usual):
    """Seconds that a mutant is given."""
    compiling = COMPILING if mutant.file in SOURCES else 0.0
    return LIMIT * max(usual, LEAST / LIMIT) + compiling


def usual_seconds(place, room):
    """How long a room's tests take on the unchanged package. Raises RuntimeError if they fail."""
    outcome, seconds, failure = place.run(unchanged(room, room), 1800.0)
    if outcome != "survived":
        raise RuntimeError(f"the tests of {room} fail without a mutant: {failure or outcome}")
    return seconds
