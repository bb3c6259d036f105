"""Inputs for every op: `miniclip check OP` accepts ours and says what is wrong with others."""

import numpy as np
import pytest

from miniclip import ops
from miniclip.check.examples import EXAMPLES, check_op, examples_of

EVERY_OP = pytest.mark.parametrize("op", ops.PAIRS)


def test_every_op_has_examples():
    assert tuple(EXAMPLES) == ops.PAIRS


@EVERY_OP
def test_ours_hold_on_several_shapes(op):
    results = check_op(op, getattr(ops, op), getattr(ops, f"{op}_backward"))
    assert len({example.shapes for example, _ in results}) >= 2
    assert len(results) >= 3
    assert [str(result) for _, result in results if not result.holds] == []
    assert max(result.error for _, result in results) < 2e-8


@EVERY_OP
def test_a_wrong_backward_is_refused_on_every_example(op):
    def backward(dy, cache):
        gradients = getattr(ops, f"{op}_backward")(dy, cache)
        return (1.5 * gradients[0], *gradients[1:]) if type(gradients) is tuple else 1.5 * gradients

    results = check_op(op, getattr(ops, op), backward)
    assert [result.holds for _, result in results] == [False] * len(results)


@EVERY_OP
def test_the_seed_draws_the_numbers(op):
    def numbers(seed):
        arrays = [x for e in examples_of(op, seed) for x in e.inputs if x is not None]
        return np.concatenate([np.where(np.isfinite(x), x, 0).ravel() for x in arrays])

    assert np.array_equal(numbers(1), numbers(1))
    assert not np.array_equal(numbers(1), numbers(2))


def test_wrong_calls():
    with pytest.raises(ValueError, match="op: got 'layernorm', expected one of linear"):
        examples_of("layernorm")
    with pytest.raises(ValueError, match="seed: got -1, expected"):
        examples_of("relu", -1)
