"""The attention pool, built from its parts, equals PyTorch's multi-head attention."""

import backends_here
import numpy as np
import pytest
from fake_gpu import FakeGpu
from hypothesis import given
from pool_checks import check_pool, poolings

import miniclip
from miniclip.nn import AttentionPool2d


@pytest.mark.parametrize("name", backends_here.NAMES)
def test_it_equals_pytorch(name):
    """Maps of the pool's own grid and of others, not square too: both ways, all parameters."""
    backend = backends_here.load(name)
    place = {"fake_gpu": FakeGpu, "cupy": lambda x: backend.place(x)}.get(name, np.asarray)

    @given(poolings())
    def run(pooling):
        check_pool(miniclip, pooling, "cupy" if name == "cupy" else backend, place)

    run()


def test_its_projections_are_not_called():
    """As in the original, where the whole pool is one functional call."""
    pool = AttentionPool2d(2, 8, 2, 3)
    x = np.ones((1, 8, 2, 2), np.float32)
    with miniclip.trace(pool) as trace, pool.record():
        pool.backward(pool(x))
    assert list(trace) == ["model", "model.grad"]
