"""Running a sample on a backend: against PyTorch in float64, and against its own differences.

The error of a tensor is the largest absolute error over the largest absolute value of the truth,
which is always PyTorch's in float64, computed from the very numbers that the op was given.
"""

import numpy as np
import torch
from cases import lay_out
from hypothesis import HealthCheck, Phase, settings

from miniclip.check import op_gradients

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
# For a planted bug: it shows in a few examples, and the smallest of them is not looked for.
few = settings(
    max_examples=40,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    database=None,
)
CONSTANTS = ("mask", "targets", "running_mean", "running_var")  # inputs without a gradient


def check_against_torch(backend, case, dtype, sample):
    """The op and its backward equal PyTorch's, keep the dtype and leave their inputs alone."""
    inputs = prepare(sample, dtype)
    on_device = {name: to_backend(backend, x) for name, x in inputs.items()}
    before = {name: None if x is None else np.array(x) for name, x in inputs.items()}

    *y, cache = getattr(backend, case.op)(*on_device.values(), **sample.options)
    tensors = {name: to_torch(x, name) for name, x in inputs.items()}
    truth = case.torch(*tensors.values(), **sample.options)
    truth = list(truth) if isinstance(truth, tuple) else [truth]
    assert len(y) == len(truth)
    for got, expected in zip(y, truth, strict=True):
        compare("y", to_host(backend, got), expected.detach().numpy(), dtype)

    dy = incoming_gradient(truth[0].shape, dtype, sample)
    dy_there, dy_before = to_backend(backend, dy), np.array(dy)
    got = getattr(backend, f"{case.op}_backward")(dy_there, cache)
    got = list(got) if isinstance(got, tuple) else [got]
    compare_gradients(backend, case, dtype, tensors, truth[0], dy, got)

    for name, x in inputs.items():
        if x is not None:
            now = to_host(backend, on_device[name])
            assert np.array_equal(now, before[name], equal_nan=True), f"{case.op} changed {name}"
    assert np.array_equal(to_host(backend, dy_there), dy_before), f"{case.op}_backward changed dy"


def compare_gradients(backend, case, dtype, tensors, truth, dy, got):
    """Every gradient, in the order of the inputs that have one; None for an input that was None."""
    names = [name for name, t in tensors.items() if wants_gradient(name, t)]
    assert len(got) == len(names), f"{case.op}_backward gave {len(got)} gradients, not {len(names)}"
    present = [tensors[name] for name in names if tensors[name] is not None]
    wanted = iter(torch.autograd.grad(truth, present, torch.tensor(np.array(dy, np.float64))))
    expected = {n: None if tensors[n] is None else next(wanted).numpy() for n in names}
    largest = max(np.abs(g).max() for g in expected.values() if g is not None)
    for name, gradient in zip(names, got, strict=True):
        if expected[name] is None:
            assert gradient is None, f"{case.op}_backward: d{name} should be None"
            continue
        least = largest if name in case.cancels else 0.0
        compare(f"d{name}", to_host(backend, gradient), expected[name], dtype, least)


def check_directions(backend, case, sample):
    """Without PyTorch: every gradient is the slope that differences measure (float64)."""
    inputs = prepare(sample, "float64")
    result = op_gradients(
        getattr(backend, case.op),
        getattr(backend, f"{case.op}_backward"),
        *inputs.values(),
        constants=[name for name in inputs if name in CONSTANTS],
        options=sample.options,
        names=list(inputs),
        seed=sample.seed,
    )
    assert result.holds, f"{case.op}: {result}"


def prepare(sample, dtype):
    """The inputs in the dtype and memory layout of the test, read-only."""
    layouts = sample.layouts or ("contiguous",) * (len(sample.inputs) + 1)
    prepared = {}
    for (name, x), layout in zip(sample.inputs.items(), layouts, strict=False):
        if x is None:
            prepared[name] = None
            continue
        if layout == "broadcast" and not may_repeat(name, x):
            layout = "transposed"
        is_float = np.issubdtype(x.dtype, np.floating)
        array = lay_out(x.astype(dtype) if is_float else x.copy(), layout)
        if sample.read_only:
            array.flags.writeable = False  # an op that writes into its input raises
        prepared[name] = array
    return prepared


def may_repeat(name, x):
    """Whether all slices of x may be alike: not where the gradient would then be exactly zero."""
    return name not in ("targets", "images", "texts", "ids") and not (
        x.ndim == 1 and name in ("x", "dy")
    )


def incoming_gradient(shape, dtype, sample):
    dy = np.random.default_rng([sample.seed, 1]).standard_normal(shape)  # not the inputs again
    layout = sample.layouts[-1] if sample.layouts else "contiguous"
    if layout == "broadcast" and not may_repeat("dy", np.asarray(dy)):
        layout = "transposed"
    dy = lay_out(np.asarray(dy).astype(dtype), layout)
    if sample.read_only:
        dy.flags.writeable = False
    return dy


def wants_gradient(name, x):
    if name in CONSTANTS:
        return False
    if torch.is_tensor(x):
        return x.is_floating_point()
    return x is None or np.issubdtype(x.dtype, np.floating)


def to_torch(x, name):
    if x is None:
        return None
    if np.issubdtype(x.dtype, np.floating):
        return torch.tensor(np.array(x, np.float64), requires_grad=name not in CONSTANTS)
    return torch.tensor(np.array(x))


def to_backend(backend, x):
    """Move to the backend's device without a change of layout, where the backend has its own."""
    if x is None:
        return None
    return backend.place(x) if hasattr(backend, "place") else x


def to_host(backend, x):
    return backend.to_numpy(x)


def compare(what, got, expected, dtype, least=0.0):
    """Shape, dtype and error; `least`: the smallest size that the error is measured against."""
    assert np.shape(got) == expected.shape, f"{what}: shape {np.shape(got)}, not {expected.shape}"
    assert got.dtype == dtype, f"{what}: dtype {got.dtype}, not {dtype}"
    if expected.size == 0:
        return
    size = max(np.abs(expected).max(), least)
    error = np.abs(np.asarray(got, np.float64) - expected).max()
    assert error <= TOLERANCE[dtype] * size, f"{what}: error {error / max(size, 1e-300):.1e}"
