"""The CuPy backend without a GPU: its CUDA sources run on the CPU, against the textbook.

See cuda_on_host.py for how. What stays for a real GPU: the compiler that CuPy calls, CUDA's own
exp, tanh and erf, scheduling, and CuPy's answers to the textbook's NumPy calls.
"""

import inspect
import re

import cuda_on_host
import numpy as np
import pytest
from cuda_checks import assert_close, check, draw, import_backend, skip_without_compiler

from miniclip import ops
from miniclip.backends.cupy import sources

DTYPES = ("float32", "float64")
ACTIVATIONS = ("relu", "quick_gelu", "gelu", "gelu_tanh")
SHAPES = [(1, 1), (5, 1), (2, 3), (5, 8), (1, 33), (5, 33), (2, 3, 257), (5, 768), (8,), (3, 0, 8)]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    skip_without_compiler()
    return cuda_on_host.build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def backend(libraries):
    return import_backend(cuda_on_host.host_cupy(libraries))


# The least size that errors are measured against where inputs have a size of 3: a single value in
# GELU's tail, or a gradient that is exactly zero in theory, has no right digits of its own.
LEAST = 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
class TestShapes:
    @pytest.mark.parametrize("op", ACTIVATIONS)
    def test_activation(self, backend, op, shape, dtype):
        check(backend, op, [draw(shape, dtype)], dtype, least=LEAST)

    def test_softmax(self, backend, shape, dtype):
        check(backend, "softmax", [draw(shape, dtype)], dtype, least=LEAST)

    def test_l2_normalize(self, backend, shape, dtype):
        check(backend, "l2_normalize", [draw(shape, dtype)], dtype, least=LEAST)

    @pytest.mark.parametrize("eps", [1e-5, 0.5])
    def test_layer_norm(self, backend, shape, dtype, eps):
        x = draw(shape, dtype) + np.asarray(2.0, dtype)
        weight, bias = (draw(shape[-1:], dtype, seed) for seed in (2, 3))
        check(backend, "layer_norm", [x, weight, bias], dtype, least=LEAST, eps=eps)


LAYOUTS = {
    "transposed": lambda x: np.asfortranarray(x),
    "sliced": lambda x: np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)[::2, 1::2],
    "reversed": lambda x: x[::-1, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}


@pytest.mark.parametrize("op", [*ACTIVATIONS, "softmax", "l2_normalize", "layer_norm"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(backend, op, layout):
    inputs = [LAYOUTS[layout](draw((4, 40), "float64"))]
    if op == "layer_norm":
        inputs += [draw((80,), "float64")[::2], np.broadcast_to(np.ones(1), (40,))]
    x = inputs[0]
    y, cache = getattr(backend, op)(*inputs)
    expected, exact_cache = getattr(ops, op)(*inputs)
    assert_close(y, expected, "float64")
    backward = getattr(backend, f"{op}_backward"), getattr(ops, f"{op}_backward")
    dy = LAYOUTS[layout](draw(x.shape, "float64", seed=1))
    got, expected = (f(dy, c) for f, c in zip(backward, (cache, exact_cache), strict=True))
    for g, e in zip(*(v if isinstance(v, tuple) else (v,) for v in (got, expected)), strict=True):
        assert_close(g, e, "float64")


@pytest.mark.parametrize("dtype", DTYPES)
class TestExtremes:
    @pytest.mark.parametrize("op", [*ACTIVATIONS, "erf"])
    @pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the textbook on infinities
    def test_activation(self, backend, op, dtype):
        x = np.array([0.0, -0.0, 1e-30, -1e-30, 5.9, -6.1, 88.0, -89.0, 750.0, -750.0], dtype)
        if op == "erf":
            return assert_close(backend.erf(x), ops.erf(x.astype("float64")), dtype)
        check(backend, op, [x], dtype)
        special = np.array([np.nan, np.inf], dtype)
        y, _ = getattr(backend, op)(special)
        assert np.isnan(y[0])
        assert y[1] == np.inf
        return None

    def test_softmax(self, backend, dtype):
        x = np.zeros((4, 300), dtype)
        x[0, :-1] = -np.inf  # everything hidden but the last entry
        x[1, 1:] = -np.inf
        x[2] = 1e4 * draw((300,), dtype)  # e^x overflows
        x[3, ::2] = -np.inf
        check(backend, "softmax", [x], dtype)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_l2_normalize(self, backend, dtype, scale):
        x = draw((4, 300), dtype) * np.asarray(scale, dtype)
        x[1] = 0.0
        # without eps: the rows of 1e-30 have a direction, though their squares vanish
        check(backend, "l2_normalize", [x], dtype, backward=scale > 1, eps=0.0)
        check(backend, "l2_normalize", [x], dtype, backward=scale > 1)

    def test_l2_normalize_keeps_nan(self, backend, dtype):
        x = draw((2, 40), dtype)
        x[0, 7] = np.nan
        y, _ = backend.l2_normalize(x)
        assert np.isnan(y[0]).all()
        assert np.isfinite(y[1]).all()

    def test_layer_norm(self, backend, dtype):
        x = draw((3, 300), dtype)
        x[0] = 2.5  # no variance: eps alone keeps the row finite
        x[1] += 100.0 if dtype == "float32" else 1e5  # a mean that dwarfs the variance
        weight, bias = (draw((300,), dtype, seed) for seed in (2, 3))
        y, _ = backend.layer_norm(x, weight, bias)
        # against the textbook in the same dtype: such rows lose digits in it too
        assert_close(y, ops.layer_norm(x, weight, bias)[0], dtype)
        assert np.array_equal(y[0], bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding(backend, dtype):
    table = draw((7, 5), dtype)
    ids = np.array([[1, 2, 1], [6, 1, 0]])
    y, cache = backend.embedding(ids, table)
    assert_close(y, table[ids].astype("float64"), dtype)
    dy = draw(y.shape, dtype, seed=1)
    _, exact_cache = ops.embedding(ids, table.astype("float64"))
    expected = ops.embedding_backward(dy.astype("float64"), exact_cache)
    assert_close(backend.embedding_backward(dy, cache), expected, dtype)


def test_signatures_and_dtype_checks_are_the_textbook_s(backend):
    own = [n for n in ops.__all__ if getattr(backend, n) is not getattr(ops, n)]
    for name in own:
        assert inspect.signature(getattr(backend, name)) == inspect.signature(getattr(ops, name))
    pairs = [n for n in ops.PAIRS if n in own]
    assert len(pairs) == 8
    assert set(own) == {"erf", *pairs, *(f"{n}_backward" for n in pairs)}  # whole pairs
    half = np.ones((2, 3), "float16")
    for op in pairs:
        extra = [half[0]] * 2 if op == "layer_norm" else []
        arguments = [np.array([0]), half] if op == "embedding" else [half, *extra]
        with pytest.raises(TypeError, match=op) as of_textbook:
            getattr(ops, op)(*arguments)
        with pytest.raises(TypeError) as of_backend:
            getattr(backend, op)(*arguments)
        assert str(of_backend.value) == str(of_textbook.value)


@pytest.mark.parametrize("op", ["relu", "softmax", "layer_norm", "l2_normalize"])
def test_gradient_of_another_dtype_or_shape_is_refused(backend, op):
    """A kernel reads memory as what it was told: a wrong dtype would be garbage, not an error."""
    x = draw((4, 40), "float32")
    more = [draw((40,), "float32")] * 2 if op == "layer_norm" else []
    _, cache = getattr(backend, op)(x, *more)
    with pytest.raises(TypeError):
        getattr(backend, f"{op}_backward")(x.astype("float64"), cache)
    with pytest.raises(ValueError):
        getattr(backend, f"{op}_backward")(draw((4, 39), "float32"), cache)


def test_arrays_in_and_out(backend):
    assert backend.asarray([1, 2], "float32").dtype == np.float32
    assert backend.as_ids([1, 2]).dtype == np.int64
    assert np.array_equal(backend.to_numpy(backend.as_ids([1, 2])), [1, 2])
    with pytest.raises(TypeError, match="float16"):
        backend.asarray([1, 2], "float16")


def test_threads_for():
    assert [sources.threads_for(n) for n in (1, 32, 33, 64, 65, 129, 768)] == [
        32, 32, 64, 64, 128, 256, 256,
    ]  # fmt: skip
    # every kernel's shared memory has room for the largest block
    for source in sources.ROWS.values():
        assert f"__shared__ T shared[{sources.MAX_THREADS}];" in source


# ------------------------------------------------------------------- with CuPy, without a GPU


def test_missing_cupy_says_what_to_install():
    backend = import_backend(None)  # None in sys.modules: an import of it fails
    with pytest.raises(ImportError, match=r'pip install "cupy-cuda12x\[ctk\]"'):
        backend.check_device()


def test_no_gpu_is_a_runtime_error():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    backend = import_backend(cupy)
    assert backend.name == "cupy"
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        devices = 0
    if devices:
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match=r"no CUDA GPU that CuPy can use: .+"):
        backend.check_device()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [*sources.ROWS, *sources.ELEMENTWISE])
def test_nvrtc_compiles(op, dtype):
    """CUDA's own compiler, which needs no GPU, takes the sources and widens no float."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f"CUDA's compiler is not installed: {error}")
    rows = op in sources.ROWS
    source = sources.row_source if rows else cuda_on_host.elementwise_wrapper
    program = nvrtc.createProgram(source(op, dtype), f"{op}.cu", (), ())
    nvrtc.compileProgram(program, ("--std=c++17", "-arch=compute_80"))
    ptx = nvrtc.getPTX(program)
    ptx = ptx if isinstance(ptx, str) else ptx.decode()
    assert f".entry {f'{op}_rows' if rows else f'run_miniclip_{op}'}" in ptx
    wide = re.search(r"(add|sub|mul|div|fma|ex2|sqrt)\S*\.f64", ptx)
    assert (wide is None) or dtype == "float64", f"{wide} in a float kernel"
