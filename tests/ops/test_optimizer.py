"""The optimiser's step: `adamw` of every backend against `torch.optim.AdamW`, step by step."""

import inspect

import backends_here
import numpy as np
import pytest
import torch
from cases import LAYOUTS, lay_out
from hypothesis import given
from hypothesis import strategies as st
from op_checks import TOLERANCE, to_backend, to_host

from miniclip import backends, ops

BACKENDS = pytest.mark.parametrize("name", backends_here.NAMES)
STEPS = 5


@st.composite
def trainings(draw):
    """A parameter, its gradients for some steps, a memory layout for all of them, and options."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(draw(st.lists(st.integers(1, 9), max_size=3)))
    scale = draw(st.sampled_from([1e-3, 1.0, 10.0]))
    x, *grads = [rng.standard_normal(shape) * scale for _ in range(1 + STEPS)]
    options = {
        "rate": draw(st.sampled_from([1e-4, 1e-2])),
        "betas": draw(st.sampled_from([(0.9, 0.98), (0.9, 0.999), (0.0, 0.5)])),
        "eps": draw(st.sampled_from([1e-6, 1e-3])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
    }
    return x, grads, draw(st.sampled_from(LAYOUTS)), options


def torch_steps(x, grads, rate, betas, eps, weight_decay):
    """The parameter and its running mean and square after every step, in float64."""
    x = torch.tensor(x)
    optimizer = torch.optim.AdamW([x], rate, betas, eps, weight_decay)
    for grad in grads:
        x.grad = torch.tensor(grad)
        optimizer.step()
        state = optimizer.state[x]
        yield [t.numpy().copy() for t in (x, state["exp_avg"], state["exp_avg_sq"])]


@BACKENDS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_adamw_equals_pytorch(name, dtype):
    backend = backends_here.load(name)
    tolerance = 1e-12 if dtype == "float64" else TOLERANCE[dtype]

    def on_backend(x, layout):
        host = lay_out(np.asarray(x).astype(dtype), layout)
        host.flags.writeable = False  # a step that writes into its inputs raises
        return to_backend(backend, host)

    @given(trainings())
    def run(training):
        x, grads, layout, options = training
        arrays = [on_backend(a, layout) for a in (x, 0 * x, 0 * x)]
        x = np.array(to_host(backend, arrays[0]), np.float64)  # as it came out of the layout
        grads = [on_backend(g, layout) for g in grads]
        wanted = torch_steps(x, [np.array(to_host(backend, g), float) for g in grads], **options)
        for step, (grad, expected) in enumerate(zip(grads, wanted, strict=True), start=1):
            arrays = backend.adamw(arrays[0], grad, *arrays[1:], step, **options)
            for got, truth in zip(arrays, expected, strict=True):
                assert got.dtype == dtype
                assert got.shape == truth.shape
                error = np.abs(to_host(backend, got) - truth).max()
                assert error <= tolerance * max(np.abs(truth).max(), 1e-30)

    run()


@BACKENDS
@pytest.mark.parametrize("shape", [(), (3,), (4, 5)])
def test_adamw_leaves_its_inputs_alone(name, shape):
    """Writeable inputs too: the old values are still there, and the new ones in other memory."""
    backend = backends_here.load(name)
    rng = np.random.default_rng(0)
    hosts = [np.asarray(rng.uniform(0.1, 1, shape), np.float32) for _ in range(4)]
    arrays = [to_backend(backend, x.copy()) for x in hosts]
    results = backend.adamw(*arrays, 3, 0.1, weight_decay=0.1)
    for x, before in zip(arrays, hosts, strict=True):
        np.testing.assert_array_equal(to_host(backend, x), before)
    for y, x in zip(results, (arrays[0], arrays[2], arrays[3]), strict=True):
        assert not np.array_equal(to_host(backend, y), to_host(backend, x))


@BACKENDS
def test_adamw_refuses_two_dtypes(name):
    backend = backends_here.load(name)
    x, other = (to_backend(backend, np.ones(3, dtype)) for dtype in ("float32", "float64"))
    with pytest.raises(TypeError, match="adamw: grad is float64, expected float32 like x"):
        backend.adamw(x, other, x, x, 1, 0.1)


@pytest.mark.parametrize("name", backends.available())
@pytest.mark.parametrize("step", ops.STEPS)
def test_steps_have_the_textbooks_signatures(name, step):
    expected = inspect.signature(getattr(ops, step)).parameters
    got = inspect.signature(getattr(backends.get(name), step)).parameters
    assert [(p.name, p.default) for p in got.values()] == [
        (p.name, p.default) for p in expected.values()
    ]
