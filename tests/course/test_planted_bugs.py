"""Bugs planted in the graders: the proof of graders, `miniclip course prove`, finds each."""

import pytest
from planting import is_caught, planted_in_place

from miniclip.check import Bug, unchanged
from miniclip.course import prove
from miniclip.course.source import read_parts

ANSWERS, DIAGNOSIS, EXERCISE, REFUSAL = (
    f"course.{name}" for name in ("answers", "diagnosis", "exercise", "refusal")
)
BUGS = [
    Bug("None passes for an answer", "form", ANSWERS, "if returned is None or returned is Ellipsis:", "if False:"),
    Bug("shapes unseen", "form", ANSWERS, "if np.shape(got) != expected.shape:", "if np.ndim(got) > 9:"),
    Bug("dtypes unseen", "form", ANSWERS, "if dtype != expected.dtype:", "if dtype.kind != 'f':"),
    Bug("writing unseen", "form", ANSWERS, "    if written:\n", "    if len(written) > 1:\n"),
    Bug("compared with itself", "form", ANSWERS, "not same(x, arguments[n])", "not same(x, x)"),
    Bug("everything agrees", "numbers", DIAGNOSIS, "return bool(np.abs(got - right).max() >", "return bool(0 >"),
    Bug("a loose tolerance", "numbers", DIAGNOSIS, "> tolerance * max", "> 0.2 + tolerance * max"),
    Bug("missing for wrong sign", "words", DIAGNOSIS, 'return f"{term} is missing"', 'return f"{term} has the opposite sign"'),
    Bug("no slip is known", "words", DIAGNOSIS, "[Slip(\"\", output.terms), *output.slips]", "[Slip(\"\", output.terms)]"),
    Bug("the dearest explanation", "words", DIAGNOSIS, "return min(found)[2]", "return max(found)[2]"),
    Bug("ours may be called", "refusal", REFUSAL, "function.__code__ = _refuse.__code__", "pass"),
]  # fmt: skip
PARTS = read_parts()


def check():
    assert prove.prove(PARTS).ok


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_proof_finds_it(bug):
    with planted_in_place(bug, "course"):
        assert is_caught(check, also=(TypeError, AttributeError)), bug.name


@pytest.mark.parametrize("module", [ANSWERS, DIAGNOSIS, EXERCISE, REFUSAL])
def test_without_a_bug_the_proof_holds(module):
    with planted_in_place(unchanged(module), "course"):
        check()
