"""The CuPy backend on a pretend CuPy, against the textbook in float64; planted bugs as well."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest

from miniclip import ops

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def skip_without_compiler():
    """See cuda_on_host.py for what compiles the CUDA sources here."""
    if shutil.which("g++") is None or not sys.platform.startswith("linux"):
        pytest.skip("running CUDA sources on the CPU needs g++ and Linux's ucontext")


def import_backend(cupy):
    """cupy_backend as a module of its own, with `cupy` where it imports CuPy."""
    found = importlib.util.find_spec("miniclip.backends.cupy")
    module = importlib.util.module_from_spec(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy)
        found.loader.exec_module(module)
    return module


def draw(shape, dtype, seed=0, scale=3.0):
    return np.random.default_rng([seed, *shape]).normal(size=shape, scale=scale).astype(dtype)


def assert_close(got, expected, dtype, least=0.0):
    """Shape, dtype, and the error over the largest absolute value, which counts as `least`."""
    assert got.shape == expected.shape
    assert got.dtype == dtype
    finite = np.isfinite(expected)
    assert np.array_equal(got[~finite], expected[~finite], equal_nan=True)
    if finite.any():
        largest = max(np.abs(expected[finite]).max(), least)
        assert np.abs(got[finite] - expected[finite]).max() <= TOLERANCE[dtype] * largest


def check(backend, op, inputs, dtype, backward=True, least=0.0, **options):
    """Forward and backward of an op agree with the textbook in float64, and inputs stay whole."""
    for x in inputs:
        x.flags.writeable = False
    exact = [x.astype("float64") for x in inputs]
    y, cache = getattr(backend, op)(*inputs, **options)
    expected, exact_cache = getattr(ops, op)(*exact, **options)
    assert_close(y, expected, dtype, least)
    if not backward:
        return
    dy = draw(y.shape, dtype, seed=1)
    dy.flags.writeable = False
    got = getattr(backend, f"{op}_backward")(dy, cache)
    expected = getattr(ops, f"{op}_backward")(dy.astype("float64"), exact_cache)
    got, expected = (g if isinstance(g, tuple) else (g,) for g in (got, expected))
    for g, e in zip(got, expected, strict=True):
        assert_close(g, e, dtype, least)
