"""The team of threads: work shared out once, errors that reach the caller, nobody who waits."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from engine_checks import CONFIGS, network_of, pictures, within
from threadpoolctl import threadpool_info

import miniclip
from miniclip.cpu import team as team_file
from miniclip.cpu.team import APART, Team, claim, make_sync, meet, team
from miniclip.engine.plan import Plan

PATIENCE = 60  # seconds until something that hangs fails


@pytest.fixture(params=[1, 2, 3])
def workers(request):
    workers = Team(request.param)
    yield workers
    workers.dismiss()


def nothing():
    """The flag of a job in which nobody waits."""
    return np.zeros(1, np.int64)


# ---------------------------------------------------------------- sharing


def test_every_member_runs_the_job_once(workers):
    for _ in range(20):
        seen = []
        within(PATIENCE, lambda seen=seen: workers.run(lambda *who: seen.append(who), nothing()))
        assert sorted(seen) == [(i, workers.members) for i in range(workers.members)]


def test_the_caller_is_the_first_member(workers):
    threads = {}

    def job(member, members):
        threads[member] = threading.get_ident()

    workers.run(job, nothing())
    assert threads[0] == threading.get_ident()
    assert len(set(threads.values())) == workers.members


def test_every_piece_is_claimed_once(workers):
    steps, pieces = 3, 2000
    sync = make_sync(steps)
    taken = [[] for _ in range(steps)]

    def job(member, members):
        for step in range(steps):
            while (piece := claim(sync, step)) < pieces:
                taken[step].append(piece)
            meet(sync, step, members)
            # nobody leaves a step before its work is done: there is nothing left of it
            assert len(taken[step]) == pieces

    within(PATIENCE, lambda: workers.run(job, sync))
    for pieces_of_step in taken:
        assert sorted(pieces_of_step) == list(range(pieces))


def test_counters_lie_apart_and_inside():
    """Two steps' counters never share a cache line, and the last one is the last of the array."""
    for steps in (1, 2, 7):
        sync = make_sync(steps)
        for step in range(steps):
            claim(sync, step)
            meet(sync, step, 1)
        used = np.nonzero(sync)[0]
        assert used.tolist() == [APART * i for i in range(1, 2 * steps + 1)]
        assert used[-1] < len(sync)


def test_jobs_of_several_callers_do_not_mix(workers):
    inside, most = [], []

    def job(member, members):
        inside.append(member)
        most.append(len(inside))
        time.sleep(0.001)
        inside.remove(member)

    callers = [
        threading.Thread(target=lambda: workers.run(job, nothing()), daemon=True) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
        assert not caller.is_alive()
    assert len(most) == 8 * workers.members
    assert max(most) <= workers.members


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_of_any_member_reaches_the_caller(workers, kind):
    """The others are told, and do not wait for it; the next job runs as if nothing had been."""
    for bad in range(workers.members):
        sync = make_sync(2)

        def job(member, members, bad=bad, sync=sync):
            meet(sync, 0, members)
            if member == bad:
                raise kind(f"member {bad}")
            meet(sync, 1, members)

        with pytest.raises(kind, match=f"member {bad}"):
            within(PATIENCE, lambda job=job, sync=sync: workers.run(job, sync))
        test_every_member_runs_the_job_once(workers)


def test_errors_of_all_members(workers):
    def job(member, members):
        raise ValueError(f"member {member}")

    with pytest.raises(ValueError, match="member 0"):  # the caller's own comes first
        within(PATIENCE, lambda: workers.run(job, nothing()))
    test_every_member_runs_the_job_once(workers)


def test_a_step_that_fails_ends_the_plans_run(threads, monkeypatch):
    """In every member, wherever it happens; then the plan works again."""
    network = network_of(miniclip, CONFIGS["vit"])
    x = pictures(2, 32, 32)
    for members in (1, 2, 3):
        threads(members)
        plan = Plan(network).of("image")
        expected = plan(x)
        program = plan.program((32, 32))
        whole = list(program.steps)
        for bad in range(members):
            text, step = whole[5]

            def failing(run, member, bad=bad, step=step, size=program.scratch):
                if size and member.at == bad * size:
                    raise RuntimeError("broken")
                step(run, member)

            program.steps[5] = (text, failing)
            with pytest.raises(RuntimeError, match="broken"):
                within(PATIENCE, lambda plan=plan: plan(x))
            program.steps[:] = whole
            assert np.array_equal(within(PATIENCE, lambda plan=plan: plan(x)), expected)


INTERRUPTED = """
import os, signal, threading, time
import numpy as np
from miniclip.cpu.team import Team, make_sync, meet, set_threads
from miniclip.models import CLIP, CLIPConfig, VisionConfig
from miniclip.engine.plan import Plan

def soon(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()

signal.signal(signal.SIGINT, signal.default_int_handler)
workers = Team(2)
for busy in (0, 1):  # the member that is at work while the other one waits
    sync = make_sync(1)
    end = time.monotonic() + 20
    def job(member, members):
        while member == busy and not sync[0] and time.monotonic() < end:
            time.sleep(0.01)
        if busy == 0:
            meet(sync, 0, members)
    soon(0.3)
    try:
        workers.run(job, sync)
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted")
    seen = []
    workers.run(lambda member, members: seen.append(member), np.zeros(1))
    print(sorted(seen))

set_threads(2)
network = CLIP(CLIPConfig(8, VisionConfig(32, 2, 32, 2, patch_size=8), None)).to("numba")
plan = Plan(network).of("image")
x = np.random.default_rng(0).standard_normal((64, 3, 32, 32), np.float32)
expected = plan(x)
for attempt in range(5):
    soon(0.05)
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            plan(x)
    except KeyboardInterrupt:
        print("interrupted", np.array_equal(plan(x), expected))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's here")
def test_ctrl_c_during_a_job():
    """A real signal, in a process of its own: it ends the job, and the next one works."""
    lines = output_of(INTERRUPTED)
    assert lines == ["interrupted", "[0, 1]"] * 2 + ["interrupted True"] * 5


class Interrupted:
    """A queue whose user gets Ctrl-C as soon as one of its calls is done, once."""

    def __init__(self, queue, call):
        self.queue, self.call = queue, call

    def once(self, call, result):
        if self.call == call:
            self.call = None
            raise KeyboardInterrupt
        return result

    def put(self, order):
        return self.once("put", self.queue.put(order))

    def get(self, seconds=None):
        return self.once("get", self.queue.get(seconds))


@pytest.mark.parametrize("moment", ["an order given", "an outcome taken"])
def test_ctrl_c_between_two_lines_of_the_team(moment):
    """The members' work is over when the caller goes on, and the next job is whole."""
    workers = Team(3)
    workers.run(lambda member, members: None, nothing())
    if moment == "an order given":
        workers._inboxes[0] = Interrupted(workers._inboxes[0], "put")
    else:
        workers._outbox = Interrupted(workers._outbox, "get")
    seen = []

    def job(member, members):
        time.sleep(0.1 * member)
        seen.append(member)

    with pytest.raises(KeyboardInterrupt):
        within(5, lambda: workers.run(job, nothing()))
    time.sleep(0.5)
    seen.clear()
    within(5, lambda: workers.run(job, nothing()))
    assert sorted(seen) == [0, 1, 2]
    workers.dismiss()


FORKED = """
import os, sys
import numpy as np
from miniclip.cpu.team import set_threads, team
from miniclip.models import CLIP, CLIPConfig, VisionConfig
from miniclip.engine.plan import Plan

set_threads(2)
network = CLIP(CLIPConfig(8, VisionConfig(32, 2, 32, 2, patch_size=8), None)).to("numba")
plan = Plan(network).of("image")
x = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
expected, parents = plan(x), team()
sys.stdout.flush()
child = os.fork()
if child == 0:
    right = np.array_equal(plan(x), expected) and team() is not parents
    os._exit(7 if right else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(np.array_equal(plan(x), expected), team() is parents)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_a_team_of_its_own():
    assert output_of(FORKED) == ["7", "True True"]


def output_of(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env={**os.environ, **environment},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


# ---------------------------------------------------------------- how many


def members_at_work():
    seen = []
    team().run(lambda member, members: seen.append(members), nothing())
    assert seen == [team().members] * team().members
    return len(seen)


def test_set_threads(threads):
    for wanted in (3, 1, 2):
        threads(wanted)
        assert members_at_work() == wanted
    same = team()
    threads(2)
    assert team() is same  # nothing to change
    threads(None)
    assert members_at_work() == team_file.usable_cores()


@pytest.mark.parametrize("wrong", [0, -1])
def test_set_threads_refuses(threads, wrong):
    threads(2)
    with pytest.raises(ValueError, match=f"threads: got {wrong}, expected at least 1"):
        threads(wrong)
    assert team().members == 2


@pytest.mark.parametrize(
    ("asked", "cores"),
    [("1", 1), ("2", 2), ("2,1", 2), ("9", 4), ("0", 4), ("", 4), ("-1", 4), ("many", 4)],
)
def test_omp_num_threads_asks_for_fewer(monkeypatch, asked, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert team_file.usable_cores() == cores
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert team_file.usable_cores() == 4


def test_where_there_is_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert team_file.usable_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert team_file.usable_cores() == 1


def test_omp_num_threads_in_a_process():
    code = "from miniclip.cpu.team import team; print(team().members)"
    assert output_of(code, OMP_NUM_THREADS="1") == ["1"]


# ---------------------------------------------------------------- threads that stay


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name == "miniclip"]


def test_threads_do_not_pile_up(threads):
    """Those of a dismissed team go home; a team that was never asked has none."""
    threads(1)
    before = set(own_threads())  # of teams that other tests hold
    for wanted in (3, 2, 3, 1, 3):
        threads(wanted)
        for _ in range(5):
            members_at_work()
        assert len(set(own_threads()) - before) >= wanted - 1
    threads(1)
    for thread in set(own_threads()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    members_at_work()
    assert not set(own_threads()) - before


def test_an_idle_team_keeps_nothing_of_its_last_job(workers):
    """Arrays of a job are freed when it ends, not when the next one comes."""
    import gc
    import weakref

    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)
    workers.run(lambda member, members, large=large: None, nothing())
    del large
    end = time.monotonic() + PATIENCE
    while gone() is not None and time.monotonic() < end:  # the others are a moment behind
        gc.collect()
        time.sleep(0.01)
    assert gone() is None


def test_blas_keeps_its_threads(threads):
    """The engine owns its threads and touches nobody else's."""
    threads(2)
    network = network_of(miniclip, CONFIGS["narrow"])
    before = threadpool_info()
    plan = Plan(network)
    plan.of("image")(pictures(2, 30, 30))
    plan.of("text")(np.full((1, 1), CONFIGS["narrow"].text.end_id))
    assert threadpool_info() == before
