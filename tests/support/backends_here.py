"""The backends that tests run on: what works on this machine, and the pretend GPU."""

from types import SimpleNamespace

import numpy as np
from fake_gpu import FakeGpu

from miniclip import backends, ops

# The textbook on arrays that live elsewhere.
FAKE_GPU = SimpleNamespace(
    **{name: getattr(ops, name) for name in ops.__all__},
    name="fake_gpu",
    place=FakeGpu,
    asarray=lambda x, dtype: FakeGpu(np.asarray(x, dtype)),
    to_numpy=lambda x: np.array(x.host),
)


def load(name):
    """A backend by name. CuPy's `place` keeps the memory layout of the host array."""
    if name == "fake_gpu":
        return FAKE_GPU
    backend = backends.get(name)
    if name == "cupy":
        members = {n: getattr(backend, n) for n in (*ops.__all__, "to_numpy")}
        return SimpleNamespace(**members, name=name, place=place_on_gpu)
    return backend


def place_on_gpu(x):
    """A CuPy array laid out as x is (cupy.asarray would make it contiguous), but never reversed."""
    import cupy

    if x.size == 0 or x.ndim == 0:
        return cupy.asarray(x)
    steps = [max(1, abs(s) // x.itemsize) if s else 0 for s in x.strides]
    length = sum((n - 1) * s for n, s in zip(x.shape, steps, strict=True)) + 1
    memory = cupy.zeros(length, x.dtype)
    view = cupy.lib.stride_tricks.as_strided(memory, x.shape, [s * x.itemsize for s in steps])
    if 0 not in steps:
        view[...] = cupy.asarray(np.ascontiguousarray(x))
        return view
    return cupy.broadcast_to(cupy.asarray(np.ascontiguousarray(x[:1])), x.shape)


NAMES = [*backends.available(), "fake_gpu"]
