"""The numba backend's own ways: work cut into pieces, float64 sums, the same bits every time.

The property tests of test_ops.py draw small arrays, which fit into one piece. Here the pieces are
made smaller still, so that the arrays are cut everywhere they can be.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import BY_NAME, samples
from hypothesis import given, settings
from op_checks import check_against_torch

from miniclip import backends, ops
from miniclip.backends.numba import attention, conv
from miniclip.cpu import memory, products, share, team
from miniclip.cpu.jit import NOTE

numba = backends.get("numba")
SDPA = "scaled_dot_product_attention"


@pytest.fixture(params=[1, 6, 40])
def small_pieces(request, monkeypatch):
    """About so many positions, scores, numbers or rows at once, shared out by all threads."""
    size = request.param
    monkeypatch.setattr(conv, "POSITIONS", size)
    monkeypatch.setattr(share, "PIECES", 1000)
    monkeypatch.setattr(share, "LEAST", 1)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 4 * size)
    monkeypatch.setattr(attention, "PIECES", 1000)
    monkeypatch.setattr(products, "LEAST_ROWS", size)
    monkeypatch.setattr(products, "LEAST_DEPTH", size)
    monkeypatch.setattr(share, "ENTRIES", size)
    monkeypatch.setattr(share, "ALONE", 0)


@pytest.fixture
def any_threads():
    """The number of threads may be changed; afterwards it is what it was."""
    before = team.team().members
    yield team.set_threads
    team.set_threads(before)


CUT = ["linear", "conv2d", "patch_embedding", "batch_norm", "layer_norm", "quick_gelu", "softmax"]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("op", [*CUT, SDPA, "avg_pool2d", "mean_token", "contrastive_loss"])
def test_small_pieces_make_the_same_whole(op, any_threads):
    case = BY_NAME[op]
    any_threads(3)

    @given(samples(case))
    @settings(max_examples=25)
    def run(sample):
        for dtype in ("float64", "float32"):
            check_against_torch(numba, case, dtype, sample)

    run()


def tensors(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


LARGE = {
    "linear": (tensors((600, 70), (90, 70), (90,)), {}),
    "conv2d": (tensors((40, 16, 9, 9), (24, 16, 3, 3), (24,)), {"stride": 1, "padding": 1}),
    "patch_embedding": (tensors((40, 3, 32, 32), (48, 3, 16, 16)), {"stride": 8}),
    "batch_norm": (tensors((40, 16, 9, 9), (16,), (16,)), {}),
    "layer_norm": (tensors((9000, 48), (48,), (48,)), {}),
    "quick_gelu": (tensors((300, 1000)), {}),
    "mean_token": (tensors((40, 49, 256)), {}),
    "softmax": (tensors((3000, 100)), {}),
    SDPA: (tensors((20, 3, 30, 32), (20, 3, 30, 32), (20, 3, 30, 32)), {}),
}


@pytest.mark.parametrize("op", LARGE)
def test_any_number_of_threads_gives_the_same_bits(op, any_threads, monkeypatch):
    """Pieces are cut by shape, and sums over pieces are added in order, whoever made them."""
    monkeypatch.setattr(share, "ALONE", 0)
    inputs, options = LARGE[op]
    results = set()
    for threads in (1, 2, 3, 2):
        any_threads(threads)
        *y, cache = getattr(numba, op)(*inputs, **options)
        gradients = getattr(numba, f"{op}_backward")(np.cos(y[0]), cache)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        results.add(b"".join(np.asarray(a).tobytes() for a in (*y, *gradients)))
    assert len(results) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (200, 70, 2100), (13, 150, 64)])
@pytest.mark.parametrize("order", ["CC", "CF", "FC", "FF"])
def test_product(dtype, shape, order):
    """Edges of tiles and panels, several passes and parts of the inner axis, all orders."""
    rows, columns, depth = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, depth)), rng.standard_normal((depth, columns))
    bias = rng.standard_normal(columns)
    expected, size = a @ b + bias, np.abs(a) @ np.abs(b)
    ours = products.product(
        np.asarray(a, dtype, order[0]), np.asarray(b, dtype, order[1]), bias.astype(dtype)
    )
    assert ours.dtype == dtype
    assert np.all(np.abs(ours - expected) <= 4 * np.finfo(dtype).eps * (size + 1))


@pytest.mark.parametrize(("rows", "columns", "depth"), [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_a_product_of_nothing(rows, columns, depth):
    y = products.product(np.ones((rows, depth)), np.ones((depth, columns)), np.ones(columns))
    np.testing.assert_array_equal(y, np.ones((rows, columns)))
    y = products.product(np.ones((rows, depth)), np.ones((depth, columns)))
    np.testing.assert_array_equal(y, np.zeros((rows, columns)))


def test_gradients_of_attention_lie_side_by_side():
    """`join_qkv` of attention's own gradients copies nothing; of all others it copies."""
    qkv = np.random.default_rng(0).standard_normal((2, 5, 24))
    q, k, v = numba.split_qkv(qkv, 2)
    _, cache = numba.scaled_dot_product_attention(q, k, v)
    gradients = numba.scaled_dot_product_attention_backward(np.ones((2, 2, 5, 4)), cache)
    joined = numba.join_qkv(*gradients)
    np.testing.assert_array_equal(joined, ops.join_qkv(*gradients))
    assert np.shares_memory(joined, gradients[0])
    for mixed in ([gradients[i] for i in (1, 0, 2)], [g.copy() for g in gradients]):
        np.testing.assert_array_equal(numba.join_qkv(*mixed), ops.join_qkv(*mixed))
        assert not np.shares_memory(numba.join_qkv(*mixed), mixed[0])


def test_attention_refuses_more_values_than_keys():
    q, more = np.ones((1, 2, 3, 4)), np.ones((1, 2, 5, 4))
    with pytest.raises(ValueError, match="as many keys as values"):
        numba.scaled_dot_product_attention(q, q, more)


SAY_IT = """
import numpy as np
from miniclip import backends
from miniclip.cpu import jit
jit.NOTICED = 0.0  # however fast this machine is
numba = backends.get("numba")
numba.relu(np.ones(3, np.float32))
numba.quick_gelu(np.ones(3, np.float32))
"""


def test_the_first_compilation_is_announced_once(tmp_path):
    """With nothing in the cache on disk: one line. From the next process on: none."""
    environment = {**os.environ, "MINICLIP_CACHE_DIR": str(tmp_path)}
    environment.pop("PYTEST_CURRENT_TEST")  # under which nothing is said
    said = [
        subprocess.run(
            [sys.executable, "-c", SAY_IT], env=environment, capture_output=True, text=True
        ).stderr
        for _ in range(2)
    ]
    assert said == [f"miniclip: {NOTE}\n", ""]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000", True),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=3", True),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=1", False),
        ("HOME", "/", False),
    ],
)
def test_what_the_user_told_malloc_stands(name, value, told, monkeypatch):
    for variable in ("MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    assert memory.chosen_by_user() == (told or sys.platform != "linux")
    if told:
        assert not memory.keep_freed_memory()


@pytest.mark.parametrize(
    ("batch", "channels", "size", "out", "kernel", "stride"),
    [
        (5, 3, 64, 8, 3, 2),
        (7, 8, 32, 16, 3, 1),
        (37, 16, 7, 8, 3, 1),  # several images at a time, fewer at last
        (70, 32, 2, 8, 1, 1),
        (3, 16, 37, 8, 1, 1),
        (9, 16, 4, 40, 1, 1),  # maps of whole vectors are not staged
        (2, 3, 23, 8, 5, 3),
    ],
)
def test_convolution_at_full_size(batch, channels, size, out, kernel, stride):
    """With the sizes that are used in earnest."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, size, size))
    weight, bias = rng.standard_normal((out, channels, kernel, kernel)), rng.standard_normal(out)
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    expected = F.conv2d(*inputs, stride=stride, padding=kernel // 2)
    y, cache = numba.conv2d(x, weight, bias, stride, kernel // 2)
    np.testing.assert_allclose(y, expected.detach(), atol=1e-11)
    dy = rng.standard_normal(y.shape)
    wanted = torch.autograd.grad(expected, inputs, torch.tensor(dy))
    for got, truth in zip(numba.conv2d_backward(dy, cache), wanted, strict=True):
        np.testing.assert_allclose(got, truth, atol=1e-10)


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 3, 2, 2)])
def test_a_convolution_of_nothing(shape):
    """No images, or images smaller than the kernel: an empty result, and gradients of zero."""
    x, weight = np.ones(shape, np.float32), np.ones((4, 3, 3, 3), np.float32)
    y, cache = numba.conv2d(x, weight)
    assert y.shape == (shape[0], 4, shape[2] - 2, shape[3] - 2)
    dx, dweight, _ = numba.conv2d_backward(np.ones(y.shape, np.float32), cache)
    assert dx.shape == shape
    assert dweight.shape == weight.shape
    assert not dx.any()
    assert not dweight.any()


@pytest.mark.parametrize("op", ["relu", "avg_pool2d", "global_avg_pool", "batch_norm_inference"])
def test_an_empty_batch(op):
    x, v = np.ones((0, 3, 4, 4), np.float32), np.ones(3, np.float32)
    more = {"avg_pool2d": (2,), "batch_norm_inference": (v, v, v, v)}.get(op, ())
    for backend in (ops, numba):
        y, cache = getattr(backend, op)(x, *more)
        gradients = getattr(backend, f"{op}_backward")(np.ones(y.shape, np.float32), cache)
        dx = gradients[0] if isinstance(gradients, tuple) else gradients
        assert len(y) == 0
        assert dx.shape == x.shape


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e6])
def test_batch_norm_far_from_zero(mean):
    """The variance comes from sums about the first value, not about zero, where digits are lost."""
    rng = np.random.default_rng(0)
    x = mean + rng.standard_normal((16, 3, 20, 20))
    x[0, :, 0, 0] += 30.0  # a first value far out
    y, got_mean, var, _ = numba.batch_norm(x, np.ones(3), np.zeros(3))
    expected = x.astype(np.longdouble)
    np.testing.assert_allclose(got_mean, expected.mean(axis=(0, 2, 3)), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(var, expected.var(axis=(0, 2, 3), ddof=1), rtol=1e-11)
    np.testing.assert_allclose(y, ops.batch_norm(x, np.ones(3), np.zeros(3))[0], atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.0, 3.0, -1e4])
def test_batch_norm_of_constant_channels(dtype, value):
    x, weight = np.full((4, 2, 3, 3), value, dtype), np.ones(2, dtype)
    y, mean, var, cache = numba.batch_norm(x, weight, 7 * weight)
    assert np.all(y == 7)
    assert np.all(mean == value)
    assert np.all(var == 0)
    assert np.isfinite(numba.batch_norm_backward(np.ones_like(x), cache)[0]).all()


def test_a_million_values_in_a_channel():
    """A running sum in float32 would be wrong in the fourth digit."""
    x = np.random.default_rng(0).uniform(0, 1, (64, 1, 128, 128)).astype(np.float32)
    ones = np.ones(1, np.float32)
    _, mean, var, cache = numba.batch_norm(x, ones, ones)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(), rtol=1e-7)
    np.testing.assert_allclose(var, exact.var(ddof=1), rtol=1e-7)
    _, dweight, dbias = numba.batch_norm_backward(x, cache)
    np.testing.assert_allclose(dbias, exact.sum(), rtol=1e-7)
    x_hat = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(dweight, (exact * x_hat).sum(), rtol=1e-6)


def test_a_word_that_stands_everywhere():
    dy = np.random.default_rng(0).uniform(0, 1, (1000, 100, 2)).astype(np.float32)
    ids = np.full(dy.shape[:2], 3)
    ids[0, 0] = 1
    _, cache = numba.embedding(ids, np.zeros((5, 2), np.float32))
    dtable = numba.embedding_backward(dy, cache)
    np.testing.assert_allclose(dtable[3], (dy.sum(axis=(0, 1), dtype=float) - dy[0, 0]), rtol=1e-7)
    np.testing.assert_array_equal(dtable[1], dy[0, 0])
    assert not dtable[[0, 2, 4]].any()


def test_relu_keeps_what_is_no_number():
    y, _ = numba.relu(np.array([np.nan, -1.0, 2.0, np.inf, -np.inf]))
    np.testing.assert_array_equal(y, [np.nan, 0, 2, np.inf, 0])


@pytest.mark.parametrize("case", BY_NAME.values(), ids=lambda case: case.op)
def test_the_same_call_gives_the_same_bits(case):
    """A training run that was interrupted is resumed bit for bit."""

    @given(samples(case))
    @settings(max_examples=5)
    def run(sample):
        first, second = (bits(case.op, sample) for _ in range(2))
        assert first == second

    run()


def bits(op, sample):
    """All results of the op and its backward, from copies in memory of their own."""
    inputs = [x if x is None else x.astype(x.dtype, copy=True) for x in sample.inputs.values()]
    *y, cache = getattr(numba, op)(*inputs, **sample.options)
    gradients = getattr(numba, f"{op}_backward")(np.ones_like(y[0]), cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return [None if a is None else np.asarray(a).tobytes() for a in (*y, *gradients)]
