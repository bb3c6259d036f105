"""How long, how often and in which order; who differs by how much: at the limits exactly."""

import numpy as np
import pytest
from bench_checks import Machine

from miniclip.bench import measure
from miniclip.bench.measure import Subject


def test_a_pause_is_quiet_up_to_a_tenth_of_a_core():
    for busy, pauses in (([0.1], 1), ([0.125, 0.1], 2), ([0.0], 1)):
        machine = Machine(busy)
        measure.wait_until_quiet(machine.limits(pause=1.0))
        assert machine.pauses == pauses


def test_rounds_and_seconds_are_reached_and_not_passed():
    for rounds, done, passed, is_enough in [
        (3, 2, 1e9, False), (3, 3, 0, True), (None, 5, 20, True), (None, 5, 19.9, False),
        (None, 4, 99, False), (None, 9, 20, True), (1, 1, 0, True),
    ]:  # fmt: skip
        assert measure.enough(done, passed, measure.Limits(rounds=rounds)) == is_enough
    machine = Machine()
    machine.now = 100.0  # a clock that did not begin at zero
    limits = machine.limits(seconds=6.0, pause=0.0)
    assert len(measure.interleave([machine.subject("A", [1.0])], limits)["A"]) == 6


def test_a_run_of_no_time_is_repeated_and_no_more():
    still = measure.with_repeats(Subject("A", lambda: None), Machine().limits())
    assert 50_000 <= still.repeats <= 50_001
    machine = Machine()
    machine.now = 5.0
    exact = measure.with_repeats(machine.subject("A", [0.0625]), machine.limits())
    assert exact.repeats == 1
    assert measure.with_repeats(machine.subject("A", [0.03]), machine.limits()).repeats == 2
    machine.log.clear()
    assert measure.turn(machine.subject("A", [0.5]), machine.limits()) == 0.5
    assert machine.log == ["A"]  # one run in a turn needs none before it


def test_two_runs_are_not_timed():
    count = []

    def run():
        count.append(0)
        return [len(count)]

    outputs = measure.warm_up([Subject("A", run), Subject("B", run)])
    assert {name: y.tolist() for name, y in outputs.items()} == {"A": [3], "B": [4]}


def test_outputs_differ_by_a_share_of_the_reference():
    y = np.array([3.0, 4.0], np.float32)
    assert measure.difference(y, y) == 0
    assert measure.difference(np.array([3.0, 5.0]), y) == pytest.approx(0.2)
    assert measure.difference(y, 2 * y) == pytest.approx(0.5)
    assert measure.difference(y[:, None], y) == float("inf")
    huge = np.array([1e30, 1e30], np.float32)  # whose squares are infinite in float32
    assert measure.difference(2 * huge, huge) == pytest.approx(1)
    assert measure.difference(y, np.array([3.0, 4.00002])) == pytest.approx(4e-6, rel=0.1)


@pytest.mark.parametrize(("error", "text"), [(1e-4, "0.0001"), (0.25, "0.25"), (np.nan, "nan")])
def test_wrong_outputs_say_by_how_much(monkeypatch, error, text):
    monkeypatch.setattr(measure, "difference", lambda y, reference: 0.0 if y is reference else y)
    with pytest.raises(ValueError) as told:
        measure.check_outputs({"numpy": "right", "torch": error}, "numpy")
    assert str(told.value) == (
        f"torch: output differs from that of numpy by {text} (relative), expected less than "
        "0.0001; it is not timed"
    )
    assert measure.check_outputs({"numpy": "right", "torch": 9.9e-5}, "numpy") == {
        "numpy": 0.0, "torch": 9.9e-5
    }  # fmt: skip


def test_families_are_first_words():
    times = {"torch": [2.0], "torch channels_last": [3.0], "torchlike": [1.0], "numba": [0.5]}
    assert measure.best_of(times, "torch") == "torch"
    assert measure.best_of(times, "numba") == "numba"
