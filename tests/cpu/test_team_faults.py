"""Nobody waits for ever: a fault at every line of the team, in the caller and in the others.

The lines are those that a job really runs: a trace function counts them, and raises at the n-th.
"""

import linecache
import sys
import threading
import time

import numpy as np
import pytest

from miniclip.cpu import team as team_file
from miniclip.cpu.team import Team, claim, make_sync, meet

DEADLINE = 20  # seconds
MEMBERS = 3
FILE = team_file.__file__
WITH = "with "  # its line runs again to leave the block: between two instructions that cannot fail


class Fault:
    """A trace function that raises at the n-th line of the team that a thread of its kind runs."""

    def __init__(self, at, error):
        self.at, self.error = at, error
        self.count = 0
        self.where = None

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename != FILE:
            return None
        if event == "line" and not linecache.getline(FILE, frame.f_lineno).lstrip().startswith(
            WITH
        ):
            self.count += 1
            if self.count == self.at:
                self.where = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                raise self.error("planted")
        return self


def test_a_thread_that_is_lost_stops_the_job_there_is_and_is_remembered():
    """Between two jobs there is none to stop."""
    current, first, second = team_file.Current(), KeyError("a"), KeyError("b")
    current.give_up(first)
    assert (current.stop, current.lost) == (None, [first])
    current.stop = np.zeros(4, np.int64)
    current.give_up(second)
    assert current.lost == [first, second]
    assert list(current.stop) == [1, 0, 0, 0]


def ask(workers, fault=None, whose="caller"):
    """Run a job whose members wait for each other. Returns the pieces taken, or the error."""
    answer = []

    def caller():
        sync = make_sync(2)
        taken = []

        def job(member, members):
            while (piece := claim(sync, 0)) < 50:
                taken.append(piece)
            meet(sync, 0, members)
            meet(sync, 1, members)

        if fault is not None and whose == "caller":
            sys.settrace(fault)
        try:
            workers.run(job, sync)
            result = sorted(taken)
        except BaseException as error:
            result = error
        finally:
            sys.settrace(None)
        answer.append(result)

    if fault is not None and whose == "others":
        threading.settrace(fault_in_members(fault))
    thread = threading.Thread(target=caller, daemon=True)
    try:
        thread.start()
        thread.join(DEADLINE)
    finally:
        threading.settrace(None)
    assert not thread.is_alive(), f"still waiting, after a fault in {fault and fault.where}"
    return answer[0]


def fault_in_members(fault):
    def trace(frame, event, argument):
        mine = threading.current_thread().name == "miniclip"
        return fault(frame, event, argument) if mine else None

    return trace


@pytest.fixture
def soon(monkeypatch):
    """Who looks for the lost does it often."""
    monkeypatch.setattr(team_file, "LOOK_EVERY", 0.005)
    assert ask(Team(MEMBERS)) == list(range(50))  # compiled by now


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize(  # the others are traced from their beginning
    ("whose", "hired"), [("caller", False), ("caller", True), ("others", False)]
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_at_every_line(soon, whose, error, hired):
    """The caller is told, or the fault did no harm; and the next job is whole."""
    places, told = set(), 0
    for at in range(1, 1000):
        workers = Team(MEMBERS)
        if hired:
            ask(workers)
        fault = Fault(at, error)
        got = ask(workers, fault, whose)
        if fault.where is None:
            break
        places.add(fault.where.split(",")[0])
        if isinstance(got, BaseException):
            told += 1
            assert isinstance(got, error | RuntimeError), (fault.where, got)
        else:
            assert got == list(range(50)), fault.where
        assert ask(workers) == list(range(50)), f"the job after a fault in {fault.where}"
        ask_to_leave(workers)
    expected = {"caller": {"run", "_hire", "put", "get", "_outcome", "_attempt"}}
    assert places >= expected.get(whose, {"_work", "put", "get", "_attempt"}) - (
        {"_outcome"} if hired else set()
    )
    assert told > len(places)


def ask_to_leave(workers):
    thread = threading.Thread(target=workers.dismiss, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def always(error):
    def fail(*arguments, **options):
        raise error("planted")

    return fail


LASTING = {
    "ring": (team_file, "ring"),
    "listen": (team_file, "listen"),
    "put": (team_file.Mailbox, "put"),
    "get": (team_file.Mailbox, "get"),
    "start": (threading.Thread, "start"),
    "sleep": (time, "sleep"),
    "enumerate": (threading, "enumerate"),
    "mailbox": (team_file, "Mailbox"),
    "order": (team_file, "partial"),
    "attempt": (team_file, "_attempt"),
}


@pytest.mark.parametrize("hired", [False, True], ids=["new", "hired"])
@pytest.mark.parametrize("what", LASTING)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_that_lasts(soon, monkeypatch, what, hired):
    """The same error each time, in the handling of errors too: what an empty file in a cache of
    compiled code once did.
    """
    workers = Team(MEMBERS)
    if hired:
        ask(workers)
    answer = []
    caller = threading.Thread(target=lambda: answer.append(run_plainly(workers)), daemon=True)
    if what == "start":
        caller.start = caller.start  # the real one, whatever the class has
    with monkeypatch.context() as patch:
        start = threading.Thread.start
        patch.setattr(*LASTING[what], always(OSError))
        start(caller)
        until(lambda: answer)
    assert answer, "still waiting"
    assert isinstance(answer[0], OSError | RuntimeError) or answer[0] == [0, 1, 2]
    assert ask(workers) == list(range(50))
    ask_to_leave(workers)


def run_plainly(workers, kind=None):
    seen = []

    def job(member, members):
        seen.append(member)
        if kind and member == members - 1:
            raise kind

    try:
        workers.run(job, np.zeros(1, np.int64))
    except Exception as error:
        return error
    return sorted(seen)


def until(there):
    """Wait, without what may have been made to fail."""
    end = time.monotonic() + DEADLINE
    while not there() and time.monotonic() < end:
        threading.Event().wait(0.001)


def test_a_job_that_was_given_up_is_never_taken_for_a_whole_one():
    workers = Team(2)
    stop = np.zeros(1, np.int64)
    with pytest.raises(RuntimeError, match="was given up"):
        workers.run(lambda member, members: stop.__setitem__(0, 1), stop)
    ask_to_leave(workers)


def test_an_error_in_the_handling_of_an_error(soon, monkeypatch):
    """Outcomes and orders of a job that could not even be broken off are not the next one's."""
    workers = Team(MEMBERS)
    ask(workers)
    with monkeypatch.context() as patch:
        patch.setattr(Team, "_outcome", always(OSError))
        patch.setattr(Team, "_break_off", always(MemoryError))
        assert isinstance(run_plainly(workers), MemoryError)
    for _ in range(3):
        assert ask(workers) == list(range(50))
        assert isinstance(run_plainly(workers, ValueError), ValueError)
    ask_to_leave(workers)
