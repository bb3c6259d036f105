"""Taking turns: who is measured one after the other is measured on different machines.

A shared machine is faster now and slower a minute later. So all subjects run once, and again, and
again; a ratio is taken within each round, where both saw the same machine.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from miniclip.ops.array import Array

LEAST_ROUNDS = 5  # when the time is up, but a median of fewer would say nothing
QUIET = 0.1  # share of one core's time below which a pause counts as quiet
MOST_PAUSES = 20
SHORTEST_TURN = 0.05  # seconds
TOLERANCE = 1e-4  # relative L2 difference of outputs


@dataclass(frozen=True)
class Subject:
    """Something to be timed: `run` does the work once and returns what it computed.

    repeats: how often in a turn.
    """

    name: str
    run: Callable[[], Any]
    repeats: int = 1


@dataclass(frozen=True)
class Limits:
    """How long to measure: `rounds`, or until `seconds` have passed. pause: seconds before a run.

    clock, cpu and sleep are the system's; tests bring their own.
    """

    rounds: int | None = None
    seconds: float = 20.0
    pause: float = 0.02
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)
    cpu: Callable[[], float] = field(default=time.process_time, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)


def interleave(subjects: Sequence[Subject], limits: Limits) -> dict[str, list[float]]:
    """Seconds of a run by subject, round by round. Each round starts with another subject."""
    times: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    start = limits.clock()
    done = 0
    while not enough(done, limits.clock() - start, limits):
        for subject in in_turn(subjects, done):
            wait_until_quiet(limits)
            times[subject.name].append(turn(subject, limits))
        done += 1
    return times


def turn(subject: Subject, limits: Limits) -> float:
    """Seconds of a run: the mean of the subject's repeats, after one that wakes its threads."""
    if subject.repeats > 1:
        subject.run()
    before = limits.clock()
    for _ in range(subject.repeats):
        subject.run()
    return (limits.clock() - before) / subject.repeats


def with_repeats(subject: Subject, limits: Limits) -> Subject:
    """The subject with so many repeats that a turn is longer than what disturbs it.

    A run of a millisecond would mostly measure how fast threads wake up after the pause.
    """
    before = limits.clock()
    subject.run()
    one = max(limits.clock() - before, 1e-6)
    return replace(subject, repeats=math.ceil(SHORTEST_TURN / one))


def enough(done: int, passed: float, limits: Limits) -> bool:
    """Whether so many rounds in so many seconds are what was asked for."""
    if limits.rounds is not None:
        return done >= limits.rounds
    return done >= LEAST_ROUNDS and passed >= limits.seconds


def in_turn(subjects: Sequence[Subject], number: int) -> list[Subject]:
    """The order of a round: A B C, then B C A, then C A B."""
    first = number % len(subjects)
    return [*subjects[first:], *subjects[:first]]


def wait_until_quiet(limits: Limits) -> None:
    """Pause, and go on pausing while threads of this process still work (within reason).

    Pools of threads spin for a while after a run, so that the next one starts sooner (OpenBLAS for
    a hundred milliseconds). Whoever comes next would have to share the cores with them.
    """
    for _ in range(MOST_PAUSES):
        before = limits.cpu()
        limits.sleep(limits.pause)
        if limits.pause == 0 or limits.cpu() - before <= QUIET * limits.pause:
            return


# ------------------------------------------------------------------------ the same work?


def warm_up(subjects: Sequence[Subject]) -> dict[str, Array]:
    """Everybody's output, from two runs that are not timed (compiling, packing, first touches)."""
    for subject in subjects:
        subject.run()
    return {subject.name: np.asarray(subject.run()) for subject in subjects}


def check_outputs(outputs: Mapping[str, Array], reference: str) -> dict[str, float]:
    """Relative L2 difference of each output from the reference's.

    Raises ValueError naming the subject if it is TOLERANCE or more: nobody is timed on wrong work.
    """
    errors = {name: difference(y, outputs[reference]) for name, y in outputs.items()}
    for name, error in errors.items():
        if not error < TOLERANCE:  # NaN is not, either
            raise ValueError(
                f"{name}: output differs from that of {reference} by {error:.2g} (relative), "
                f"expected less than {TOLERANCE:g}; it is not timed"
            )
    return errors


def difference(y: Array, reference: Array) -> float:
    """|y - reference| / |reference|, in float64; infinite for another shape."""
    if y.shape != reference.shape:
        return float("inf")
    wide = reference.astype(np.float64)
    return float(np.linalg.norm(y.astype(np.float64) - wide) / np.linalg.norm(wide))


# ------------------------------------------------------------------------ numbers


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (linear between ranks)."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return Spread(median, low, high)


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Median and quartiles of the ratios theirs / ours within each round.

    The ratio of both medians would compare a quiet round with a disturbed one, and may lie outside
    these quartiles.
    """
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])


def best_of(times: Mapping[str, Sequence[float]], family: str) -> str:
    """The subject with the lowest median among "torch", "torch channels_last" and so on."""
    names = [name for name in times if name.split()[0] == family]
    return min(names, key=lambda name: statistics.median(times[name]))
