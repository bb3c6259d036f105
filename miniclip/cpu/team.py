"""The threads of the compiled code: a few that share one job, and meet after each of its steps.

Threads that belong to several owners (a BLAS library's, OpenMP's, a pool's) fight for the same
cores. Here one team owns them all: a job is a Python function that every member runs, step by step;
in each step, compiled code without the interpreter's lock, members take the next piece of work from
a common counter until none is left, and wait for each other. So a core that is slow, or taken by
another program for a moment, does fewer pieces instead of holding up the rest.

One job runs at a time. Calls from several threads are queued: each job has all cores to
itself, which takes no longer than all of them at once, and needs less memory.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from llvmlite import ir
from numba import types

from miniclip.cpu.jit import kernel
from miniclip.cpu.simd import intrinsic, pointer
from miniclip.ops.array import Array

# Counters of different steps lie in different cache lines: 8 numbers of 8 bytes.
APART = 8
PATIENCE = 2000  # looks at a counter before the core is offered to others
OFFERS = 500  # of the core, before a thread that waits for work sleeps: a fraction of a millisecond
LOOK_EVERY = 0.2  # seconds; so often a caller who sleeps looks whether the others are still there
TRIES = 1000  # to send members home, where that itself fails

Item = TypeVar("Item")
Job: TypeAlias = Callable[[int, int], None]  # job(member, members)
Order: TypeAlias = Callable[[], BaseException | None] | None  # None: go home


# --- Counters that several threads change ---------------------------------------------------------


@intrinsic
def fetch_add(typing_context: Any, counters: Any, at: Any, value: Any) -> Any:
    """Add to counters[at], whole before any other thread sees it; returns what was there before."""
    signature = types.int64(counters, types.int64, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counters, at, value = arguments
        address = pointer(context, builder, signature.args[0], counters, at)
        return builder.atomic_rmw("add", address, value, "seq_cst")

    return signature, codegen


@intrinsic
def fetch(typing_context: Any, counters: Any, at: Any) -> Any:
    """counters[at] as it is now, not as the compiler remembers it."""
    signature = types.int64(counters, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counters, at = arguments
        address = pointer(context, builder, signature.args[0], counters, at)
        return builder.load_atomic(address, "seq_cst", 8)

    return signature, codegen


@intrinsic
def offer_core(typing_context: Any) -> Any:
    """Let another thread run on this core, if one waits for it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
        function = builder.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(ir.IntType(32), [])
            function = ir.Function(builder.module, kind, name)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@kernel
def claim(sync: Array, step: int) -> int:
    """The number of the next piece of this step that nobody has taken."""
    return fetch_add(sync, (2 * step + 1) * APART, 1)


@kernel
def meet(sync: Array, step: int, members: int) -> None:
    """Wait until all members have come here, or the job was given up."""
    here = (2 * step + 2) * APART
    fetch_add(sync, here, 1)
    looks = 0
    while fetch(sync, here) < members and fetch(sync, 0) == 0:
        looks += 1
        if looks > PATIENCE:
            offer_core()


@kernel
def ring(bell: Array) -> None:
    """Count one more, for those who listen."""
    fetch_add(bell, 0, 1)


@kernel
def listen(bell: Array, heard: int) -> None:
    """Wait for a little while until the bell has rung more than `heard` times.

    A thread that sleeps needs some 30 microseconds to wake up, as long as small pieces of work
    take. So it looks out for the next one first; it sleeps afterwards, in a queue.
    """
    for _ in range(OFFERS):
        for _ in range(100):
            if fetch(bell, 0) > heard:
                return
        offer_core()


def make_sync(steps: int) -> Array:
    """Counters for a job of so many steps. Entry 0 is not 0 once a member has given up."""
    return np.zeros((2 * steps + 1) * APART, np.int64)


# --- The team -------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS asks for fewer, as it does for BLAS."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(int(asked), cores) if asked.isdecimal() and int(asked) > 0 else cores


class Mailbox(Generic[Item]):
    """A queue with one reader, who looks out for a little while before it sleeps."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._bell = np.zeros(APART, np.int64)
        self._taken = 0

    def put(self, item: Item) -> None:
        self._items.put(item)
        ring(self._bell)

    def get(self, seconds: float | None = None) -> Item:
        """The next item; queue.Empty if none comes in so many seconds."""
        listen(self._bell, self._taken)
        item = self._items.get(timeout=seconds)
        self._taken += 1
        return item


class Current:
    """What the members know of the job at hand, and whom the team has lost."""

    def __init__(self) -> None:
        self.stop: Array | None = None  # of the job
        self.lost: list[BaseException] = []  # why a thread ended that nobody sent home

    def give_up(self, error: BaseException) -> None:
        """A thread ends. Whoever waits for it in a step stops, whoever waits for its outcome is
        told. The list first: `Team.run` sets `stop` first and looks at the list afterwards, so one
        of both sees the other.
        """
        self.lost.append(error)
        if self.stop is not None:
            self.stop[0] = 1


class Team:
    """`members` threads, the caller's among them. `run` gives them a job and waits for its end.

    Whatever fails, in a job or in the team itself, `run` raises it and nobody waits for ever.
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self._one_job = threading.Lock()
        self._is_whole = True  # False while a job runs, and after one that even failed to break off
        self._go_home()

    def _go_home(self) -> None:
        """Nobody is hired. Threads of before may be on their way, and have what is theirs."""
        self._threads: list[threading.Thread] = []
        self._inboxes: list[Mailbox[Order]] = []
        self._outbox: Mailbox[BaseException | None] | None = None
        self._current: Current | None = None

    def run(self, job: Job, stop: Array) -> None:
        """Every member calls job(member, members); member 0 is the caller.

        stop: its first entry is set to 1 when a member fails; whoever waits for others looks at it.
        The first exception is raised again here, after all members have stopped.
        """
        with self._one_job:
            outcomes = self._outcomes_of(job, stop)
        for error in outcomes:
            if error is not None:
                raise error
        if stop[0]:
            raise RuntimeError("a job of the team was given up, and nobody says why")

    def _outcomes_of(self, job: Job, stop: Array) -> list[BaseException | None]:
        """Each member's error, or None; the caller's first."""
        try:
            outbox = self._hire(stop)
            for member, inbox in enumerate(self._inboxes, 1):
                inbox.put(partial(_attempt, job, stop, member, self.members))
            outcomes = [_attempt(job, stop, 0, self.members)]
            outcomes += [self._outcome(outbox) for _ in self._inboxes]
            self._is_whole = True
        except BaseException:  # of a signal's handler (Ctrl-C) or of the team's own lines
            self._break_off(stop)
            raise
        return outcomes

    def dismiss(self) -> None:
        """End the threads, after the job that they may be at."""
        with self._one_job:
            for inbox in self._inboxes:
                inbox.put(None)
            self._go_home()

    def _hire(self, stop: Array) -> Mailbox[BaseException | None]:
        """Start the threads when they are first needed; they wait for jobs as long as we live.

        If one has been lost since the last job, all are replaced.
        """
        if self._current is not None:
            self._current.stop = stop  # before the list is looked at: see Current.give_up
            if self._current.lost or not self._is_whole:
                self._current.stop = None
                self._break_off(np.zeros(1, np.int64))
        self._is_whole = False
        if self._current is None or self._outbox is None:
            self._current, self._outbox = Current(), Mailbox()
            self._current.stop = stop
        while len(self._threads) < self.members - 1:
            inbox: Mailbox[Order] = Mailbox()
            arguments = (inbox, self._outbox, self._current)
            thread = threading.Thread(target=_work, args=arguments, daemon=True, name="miniclip")
            self._inboxes.append(inbox)
            self._threads.append(thread)
            thread.start()
            self._outcome(self._outbox)  # that it is at its mailbox
        return self._outbox

    def _outcome(self, outbox: Mailbox[BaseException | None]) -> BaseException | None:
        """The next member's outcome. Raises what ended a thread, if one ends without any."""
        while True:
            try:
                return outbox.get(LOOK_EVERY)
            except Empty:
                if self._current is not None and self._current.lost:
                    raise self._current.lost[0] from None
                if not all(map(_is_there, self._threads)):
                    raise RuntimeError("a thread of the team has ended during its job") from None

    def _break_off(self, stop: Array) -> None:
        """After an error nobody knows who has an order or an outcome, so all members go home; the
        next job hires others. When this returns no member is at work.
        """
        stop[0] = 1
        leaving = [
            thread
            for thread, inbox in zip(self._threads, self._inboxes, strict=False)
            if _is_told(inbox)
        ]
        for _ in range(TRIES):
            try:
                while any(map(_is_there, leaving)):
                    time.sleep(0.001)
                break
            except BaseException:  # one more signal: the first one is raised in the end
                continue
        self._go_home()


def _is_told(inbox: Mailbox[Order]) -> bool:
    """Send a member home. False if even that fails, so that nobody waits for it to go."""
    for _ in range(TRIES):
        try:
            inbox.put(None)
        except BaseException:  # one more signal, or no memory for a moment
            continue
        return True
    return False


def _is_there(thread: threading.Thread) -> bool:
    """Like is_alive(), which a signal during join() makes false too early. A thread that has not
    begun has no order.
    """
    return thread.ident is not None and thread in threading.enumerate()


def _work(inbox: Mailbox[Order], outbox: Mailbox[BaseException | None], current: Current) -> None:
    try:
        outbox.put(None)
        while (order := inbox.get()) is not None:
            outbox.put(order())
            del order  # do not keep the job's arrays until the next one
    except BaseException as error:
        current.give_up(error)


def _attempt(job: Job, stop: Array, member: int, members: int) -> BaseException | None:
    try:
        job(member, members)
    except BaseException as error:
        stop[0] = 1
        return error
    return None


_team: Team | None = None
_team_lock = threading.Lock()


def team() -> Team:
    """The process's one team."""
    global _team
    with _team_lock:
        if _team is None:
            _team = Team(usable_cores())
        return _team


def set_threads(threads: int | None) -> None:
    """How many threads the compiled plans use from now on; None: as many as there are cores.

    Raises ValueError for less than one.
    """
    global _team
    if threads is not None and threads < 1:
        raise ValueError(f"threads: got {threads}, expected at least 1")
    with _team_lock:
        wanted = threads or usable_cores()
        if _team is not None and _team.members != wanted:
            _team.dismiss()
            _team = None
        if _team is None:
            _team = Team(wanted)


def _after_fork() -> None:
    """A forked process has no threads but the one that forked: it starts a team of its own."""
    global _team, _team_lock
    _team, _team_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
