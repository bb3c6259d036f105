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
from queue import SimpleQueue
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

    def get(self) -> Item:
        listen(self._bell, self._taken)
        item = self._items.get()
        self._taken += 1
        return item


class Team:
    """`members` threads, the caller's among them. `run` gives them a job and waits for its end."""

    def __init__(self, members: int) -> None:
        self.members = members
        self._one_job = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._inboxes: list[Mailbox[Order]] = []
        self._outbox: Mailbox[BaseException | None] = Mailbox()

    def run(self, job: Job, give_up: Callable[[], None]) -> None:
        """Every member calls job(member, members); member 0 is the caller.

        give_up: called when a member raises, so that the others do not wait for it. The first
        exception is raised again here, after all members have stopped.
        """
        with self._one_job:
            try:
                self._hire()
                for member, inbox in enumerate(self._inboxes, 1):
                    inbox.put(partial(_attempt, job, give_up, member, self.members))
                outcomes = [_attempt(job, give_up, 0, self.members)]
                outcomes += [self._outbox.get() for _ in self._inboxes]
            except BaseException:  # of a signal's handler (Ctrl-C), wherever it caught us
                self._break_off(give_up)
                raise
        for error in outcomes:
            if error is not None:
                raise error

    def dismiss(self) -> None:
        """End the threads, after the job that they may be at."""
        with self._one_job:
            for inbox in self._inboxes:
                inbox.put(None)
            self._inboxes, self._threads = [], []

    def _hire(self) -> None:
        """Start the threads when they are first needed; they wait for jobs as long as we live."""
        while len(self._inboxes) < self.members - 1:
            inbox: Mailbox[Order] = Mailbox()
            self._inboxes.append(inbox)
            arguments = (inbox, self._outbox)
            thread = threading.Thread(target=_work, args=arguments, daemon=True, name="miniclip")
            self._threads.append(thread)
            thread.start()

    def _break_off(self, give_up: Callable[[], None]) -> None:
        """After a signal nobody knows who has an order or an outcome, so all members go home; the
        next job hires others. When this returns no member is at work.
        """
        while True:
            try:
                give_up()
                for inbox in self._inboxes:
                    inbox.put(None)
                while any(map(_is_there, self._threads)):
                    time.sleep(0.001)
                self._outbox = Mailbox()
                self._inboxes, self._threads = [], []
                return
            except BaseException:  # one more signal: the first one is raised in the end
                continue


def _is_there(thread: threading.Thread) -> bool:
    """Like is_alive(), which a signal during join() makes false too early. A thread that has not
    begun has no order.
    """
    return thread.ident is not None and thread in threading.enumerate()


def _work(inbox: Mailbox[Order], outbox: Mailbox[BaseException | None]) -> None:
    while (order := inbox.get()) is not None:
        outbox.put(order())
        del order  # do not keep the job's arrays until the next one


def _attempt(
    job: Job, give_up: Callable[[], None], member: int, members: int
) -> BaseException | None:
    try:
        job(member, members)
    except BaseException as error:
        give_up()
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
