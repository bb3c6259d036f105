"""Planted bugs in batching: lost or doubled things are noticed."""

import pytest
from door_checks import check_chunks
from planting import is_caught, planted_in_place

from miniclip.check import Bug, unchanged

BATCHING = "pipeline.batching"
BUGS = [
    Bug("one too many in a chunk", "chunks", BATCHING, "islice(iterator, step - 1)", "islice(iterator, step)"),
    Bug("the first of a chunk lost", "chunks", BATCHING, "chain([first], islice", "chain([], islice"),
    Bug("slices overlap", "chunks", BATCHING, "items[start : start + step]", "items[start : start + step + 1]"),
    Bug("the last slice lost", "chunks", BATCHING, "range(0, len(items), step)", "range(0, len(items) - step + 1, step)"),
    Bug("only the first chunk", "chunks", BATCHING, "yield from (items[start", "yield next(items[start"),
]  # fmt: skip


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_found(bug):
    with planted_in_place(bug, "pipeline"):
        assert is_caught(check_chunks), f"not found: {bug.name}"


def test_without_a_bug_nothing_is_found():
    """The control: the same module executed anew, nothing changed."""
    with planted_in_place(unchanged(BATCHING), "pipeline"):
        check_chunks()
