"""Every small slip in every right answer: rejected, unless it changes nothing, and most explained.

The slips are those of tests/mutants: an operator, a number, an index, an argument changed.
"""

import signal
import traceback
from collections import Counter

import numpy as np
import pytest
from mutant_sites import Source, changed_by, edits_of

from miniclip.course import WrongAnswer
from miniclip.course.checks import EXERCISES
from miniclip.course.session import names_before, run
from miniclip.course.source import read_parts, with_solution

TASKS = {task.name: (part, task) for part in read_parts() for task in part.tasks}
SECONDS = 2  # for a loop that a slip has made endless
# The least share of slips that give wrong numbers and are explained by a term, a factor, an order.
# Slips in the arithmetic of an activation (x / s for x * s) are no mistake that people make.
EXPLAINED = {"quick_gelu_backward": 0.3}


class Endless(BaseException):
    """The answer takes too long."""


def stop(*_):
    raise Endless


@pytest.fixture(autouse=True)
def alarm():
    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.signal(signal.SIGALRM, before)


def slips_of(text):
    source = Source(text)
    for edit in edits_of(source):
        changed = changed_by(edit, source)
        if changed is not None:
            yield changed


def outcome(exercise, answer):
    """passes, endless, raised, or the message. What our own code raises is a fault."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with np.errstate(all="ignore"):
            exercise(answer)
        return "passes"
    except WrongAnswer as wrong:
        return str(wrong)
    except Endless:
        return "endless"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if all(frame.filename != f"<{exercise.name}>" for frame in frames):
            raise
        return "raised"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def is_right(exercise, answer, seed):
    """Compared with ours by another way than the check's own."""
    for values in exercise.cases(seed):
        arguments = exercise.arguments(values, seed)
        got = exercise.in_order(answer(*arguments.values()))
        right = exercise.in_order(exercise.right(**arguments))
        for g, r in zip(got, right, strict=True):
            np.testing.assert_allclose(g, r, rtol=1e-5, atol=1e-5 * np.abs(r).max())


@pytest.mark.parametrize("name", TASKS)
def test_small_slips(name):
    part, task = TASKS[name]
    exercise, found = EXERCISES[name], Counter()
    for right in (with_solution(task.cell.text), *(cell.text for cell in task.rights)):
        for text in slips_of(right):
            names = names_before(part, task)
            run(text, names, name)
            said = outcome(exercise, names[name])
            if said == "passes":
                is_right(exercise, names[name], 9)
            wrong = said not in ("passes", "endless", "raised")
            found["explained"] += wrong and "no single term" not in said
            found["wrong"] += wrong
    assert found["wrong"] >= 10
    assert found["explained"] >= EXPLAINED.get(name, 0.6) * found["wrong"], found
