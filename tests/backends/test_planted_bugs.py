"""Planted bugs in the numba backend: the tests of the ops against PyTorch find each of them."""

import numpy as np
import pytest
from cases import BY_NAME, samples
from hypothesis import given
from op_checks import check_against_torch, few
from planting import Bug, is_caught, planted, textbook_with

from miniclip import backends
from miniclip.backends import numba
from miniclip.backends.numba import attention, maps
from miniclip.cpu import matmul, products, rows, simd

SDPA = "scaled_dot_product_attention"
NUMBA, MAPS = "backends.numba", "backends.numba.maps"
HEADS, ROWWISE, LOSSES = (
    "backends.numba.attention",
    "backends.numba.linear",
    "backends.numba.losses",
)
COMPILED = [
    Bug("softmax in the caller's memory", "softmax", NUMBA, "y = own_copy(x, x.shape, x.dtype)", "y = ready(x, x.shape, x.dtype)"),
    Bug("softmax's gradient in the memory of dy", "softmax", NUMBA, "dx = own_copy(dy, y.shape, y.dtype)", "dx = ready(dy, y.shape, y.dtype)"),
    Bug("output in the order of a transposed input", "quick_gelu", NUMBA, "y = np.empty(x.shape, x.dtype)\n    entries =", "y = np.empty_like(x)\n    entries ="),
    Bug("ReLU's output in the order of a transposed input", "relu", NUMBA, "y = np.empty(x.shape, x.dtype)\n    entry_by_entry(kernels.relu,", "y = np.empty_like(x)\n    entry_by_entry(kernels.relu,"),
    Bug("a word's running sum begun at one", "embedding", NUMBA, "order, np.zeros(shape[1]), dtable", "order, np.ones(shape[1]), dtable"),
    Bug("weight's gradient transposed", "linear", ROWWISE, "dweight = product(drows.T, rows)", "dweight = product(rows.T, drows).reshape(weight.shape)"),
    Bug("bias forgotten in the product", "linear", ROWWISE, "product(as_rows(x), weight.T, bias)", "product(as_rows(x), weight.T)"),
    Bug("heads of the gradients side by side in the wrong order", SDPA, HEADS, "[dq, dk, dv], mask)", "[dk, dq, dv] if q.shape == k.shape else [dq, dk, dv], mask)"),
    Bug("a view's beginning forgotten", SDPA, HEADS, "begin = (address(x) - address(root)) // size", "begin = 0"),
    Bug("scores scaled by the values' width", SDPA, HEADS, "scale = q.dtype.type(width**-0.5)", "scale = q.dtype.type(1.0)"),
    Bug("the query's gradient not in the pool's", "attention_pool", HEADS, "    dtokens[:, :1] += dquery  # the mean token is query, key and value\n", ""),
    Bug("share of the mean token in the pixels forgotten", "attention_pool", HEADS, "    dpixels += dtokens[:, :1] / (height * width)\n", ""),
    Bug("the texts' log-sum-exp along the images", "contrastive_loss", LOSSES, "log_sum_exp(np.ascontiguousarray(logits.T))\n    if", "log_sum_exp(logits)\n    if"),
    Bug("the diagonal's gradient counted once", "contrastive_loss", LOSSES, "-= 1 / n + 1 / m", "-= 1 / n"),
    Bug("several positives of a text not shared out", "contrastive_loss", LOSSES, "dlogits -= pairs / pairs.sum(axis=0, keepdims=True) / m", "dlogits -= pairs / m"),
    Bug("temperature's gradient not summed over the scaled logits", "cosine_logits", LOSSES, "(dlogits * logits).sum()", "dlogits.sum()"),
    Bug("target not taken off", "cross_entropy", LOSSES, "    dlogits[np.arange(len(logits)), targets] -= 1\n", ""),
    Bug("sign of the sigmoid loss's slope", "sigmoid_loss", LOSSES, "dlogits = -sign * sigmoid(-sign", "dlogits = sign * sigmoid(-sign"),
    Bug("weights' taps transposed", "conv2d", MAPS, ".transpose(2, 1, 0)  # (O, C, taps)", ".transpose(2, 0, 1).reshape(out, channels, -1)"),
    Bug("maps taken for whole vectors", "conv2d", MAPS, "direct = pointwise and width % lanes == 0", "direct = pointwise"),
    Bug("patches' gradient of the wrong weights", "patch_embedding", MAPS, "dweight = product(drows.T, rows).reshape(weight.shape)", "dweight = product(rows.T, drows).reshape(weight.shape)"),
    Bug("squares about the first value for the variance", "batch_norm", MAPS, "squares - total * total / n", "squares"),
    Bug("mean counted from the first value", "batch_norm", MAPS, "mean = total / n + near", "mean = total / n"),
    Bug("first value of one channel for all", "batch_norm", MAPS, "mean = total / n + near", "mean = total / n + near[0]"),
    Bug("x for x_hat in BatchNorm's gradient", "batch_norm", MAPS, "dweight * inv_std / n", "dweight / n"),
    Bug("gradient of BatchNorm's weight not normalised", "batch_norm_inference", MAPS, "return dweight * inv_std, dbias", "return dweight, dbias"),
    Bug("share of the side for that of the square", "avg_pool2d", MAPS, "stacked(maps), kernel, x.dtype.type(kernel**-2)", "stacked(maps), kernel, x.dtype.type(1 / kernel)"),
]  # fmt: skip

# In the loops themselves. The names of their functions are the kernels', not the ops'.
ROWS, MAP_KERNELS = "cpu.rows", "backends.numba.map_kernels"
PRODUCTS, TAPS = "cpu.matmul", "backends.numba.conv_kernels"
HEAD_LOOPS = "backends.numba.attention_kernels"
LOOPS = [
    Bug("a word's last place wins", "embedding", ROWS, "total[j] += dy[r, j]", "total[j] = dy[r, j]"),
    Bug("one word's sum in the next one's", "embedding", ROWS, "                total[j] = 0\n", ""),
    Bug("slope one at ReLU's other side", "relu", ROWS, "dx[i] = dy[i] if x[i] > zero else zero", "dx[i] = dy[i] if x[i] < zero else zero"),
    Bug("inner slope of the tanh GELU missing", "gelu_tanh", ROWS, "dx[i] = dy[i] * (s + x[i] * slope * (small * share * share))", "dx[i] = dy[i] * s"),
    Bug("cube's factor of three", "gelu_tanh", ROWS, "(one + real(3) * cube * x[i] * x[i])", "(one + cube * x[i] * x[i])"),
    Bug("columns beyond the last read", "linear", PRODUCTS, "transpose(b, at, step_b, width, depth, packed, 0, padded)", "transpose(b, at, step_b, width, min(depth, 1), packed, 0, padded)"),
    Bug("bias of the first panel for all", "linear", PRODUCTS, "c[at_c + i * row_c + j] += bias[at_bias + j]", "c[at_c + i * row_c + j] += bias[0]"),
    Bug("first rows of A for all", "linear", PRODUCTS, "a, at_a + row * row_a, row_a, step_a,\n                b", "a, at_a, row_a, step_a,\n                b"),
    Bug("fewer keys than there are", SDPA, HEAD_LOOPS, "weights[r * padded : r * padded + tokens]", "weights[r * padded : r * padded + tokens - tokens // 2]"),
    Bug("mask of the first query for all", SDPA, HEAD_LOOPS, "scale, mask[first + r])", "scale, mask[0])"),
    Bug("sequences and heads mixed up", SDPA, HEAD_LOOPS, "head // heads, head % heads", "head % heads, head // heads"),
    Bug("the scores' gradient not turned for the keys", SDPA, HEAD_LOOPS, "dscores, 0, 1, padded, tokens, some,", "weights, 0, 1, padded, tokens, some,"),
    Bug("taps down and across swapped", "conv2d", TAPS, "i, j = tap // across, tap % across", "j, i = tap // across, tap % across"),
    Bug("one tap's output for the sum", "conv2d", TAPS, "tap > 0, nothing, 0, target", "False, nothing, 0, target"),
    Bug("overlaps overwritten", "conv2d", TAPS, "not direct, nothing, 0, target", "False, nothing, 0, target"),
    Bug("the last image's pixels in the next one's", "conv2d", MAP_KERNELS, "line[v] = values[v]", "line[v] = values[0]"),
    Bug("pixels of all remainders in one plane", "conv2d", MAP_KERNELS, "to[at + j * plane + column] = line[v]", "to[at + column] = line[v]"),
    Bug("padding before the line forgotten", "conv2d", MAP_KERNELS, "target = to[at + padding : at + padding + width]", "target = to[at : at + width]"),
    Bug("overlapping patches overwritten", "patch_embedding", MAP_KERNELS, "line[v * stride + j] += source[j]", "line[v * stride + j] = source[j]"),
    Bug("patches without their stride", "patch_embedding", MAP_KERNELS, "target[j] = line[v * stride + j]", "target[j] = line[v + j]"),
    Bug("centre not taken out", "batch_norm", MAP_KERNELS, "y[b, c, p] = (x[b, c, p] - m) * a + s", "y[b, c, p] = x[b, c, p] * a + s"),
    Bug("a value of one channel for all", "batch_norm", MAP_KERNELS, "first = float(near[c])", "first = float(near[0])"),
    Bug("statistics taken as constants", "batch_norm", MAP_KERNELS, "((dy[b, c, p] - k_one) - (x[b, c, p] - m) * k_x)", "dy[b, c, p]"),
    Bug("lower half of the square forgotten", "avg_pool2d", MAP_KERNELS, "upper[2 * v] + lower[2 * v], upper[2 * v + 1]", "upper[2 * v] + upper[2 * v], upper[2 * v + 1]"),
    Bug("right pixels without a gradient", "avg_pool2d", MAP_KERNELS, "                        line[2 * v + 1] = part\n", ""),
    Bug("first pixel for the mean of the map", "global_avg_pool", MAP_KERNELS, "total += x[r, p]", "total += x[r, 0]"),
]  # fmt: skip


@pytest.mark.planted
@pytest.mark.parametrize("bug", COMPILED, ids=lambda bug: bug.name)
def test_pytorch_finds_it(bug):
    backend, case = textbook_with(bug), BY_NAME[bug.where]

    @given(samples(case))
    def check(sample):
        check_against_torch(backend, case, "float32", sample)
        check_against_torch(backend, case, "float64", sample)

    assert is_caught(few(check)), f"not found: {bug.name}"


@pytest.mark.parametrize(("module", "op"), sorted({(bug.module, bug.where) for bug in COMPILED}))
def test_without_a_bug_nothing_is_found(module, op):
    """The control: the same module executed anew, nothing changed."""
    first = "from __future__ import annotations"
    backend = textbook_with(Bug("none", op, module, first, first))

    @given(samples(BY_NAME[op]))
    def check(sample):
        check_against_torch(backend, BY_NAME[op], "float32", sample)

    assert not is_caught(few(check))


def tile_product(
    rows, vectors, a, at_a, row_a, step_a, b, at_b, row_b, c, at_c, row_c, depth, add, finish, *more
):  # fmt: skip
    """The register tile, which is written in LLVM's language, in Python."""
    bias, at_bias, lowest = more
    columns = vectors * (simd.VECTOR_BYTES // a.itemsize)
    for i in range(rows):
        for j in range(columns):
            total = c[at_c + i * row_c + j] if add else 0
            for k in range(depth):
                total += a[at_a + i * row_a + k * step_a] * b[at_b + k * row_b + j]
            c[at_c + i * row_c + j] = max(total + bias[at_bias + j], lowest) if finish else total


@pytest.fixture
def plant_loop(monkeypatch):
    """Puts a planted module of kernels under the numba backend, as plain Python.

    Compiled, its loops would go into Numba's cache on disk, where they could be taken for the
    right ones: they differ by as little as a constant.
    """

    def plain(function=None, **options):
        return function if callable(function) else plain

    def as_python(bug):
        with monkeypatch.context() as patch:
            patch.setattr("numba.njit", plain)
            patch.setattr(rows, "row_kernel", plain)
            patch.setattr(rows, "entry_kernel", plain)
            patch.setattr(matmul, "kernel", plain)
            patch.setattr(simd, "tile_product", tile_product)
            return planted(bug)

    def plant(bug):
        module = as_python(bug)
        if bug.module == ROWS:  # these stand for code that only Numba's types choose
            monkeypatch.setattr(module, "exp_of_negative", np.exp)
        if bug.module == MAP_KERNELS:  # convolution's products stage their images with these
            first = "def convolve("
            taps = as_python(Bug("none", "conv2d", TAPS, first, first))
            for name in ("stage", "unstage"):
                setattr(taps, name, getattr(module, name))
            monkeypatch.setattr(maps, "conv_kernels", taps)
        user, name = {
            ROWS: (numba, "kernels"),
            MAP_KERNELS: (maps, "kernels"),
            TAPS: (maps, "conv_kernels"),
            PRODUCTS: (products, "kernels"),
            HEAD_LOOPS: (attention, "kernels"),
        }[bug.module]
        monkeypatch.setattr(user, name, module)
        return backends.get("numba")

    return plant


@pytest.mark.planted
@pytest.mark.parametrize("bug", LOOPS, ids=lambda bug: bug.name)
def test_pytorch_finds_it_in_a_loop(bug, plant_loop):
    backend, case = plant_loop(bug), BY_NAME[bug.where]

    @given(samples(case))
    def check(sample):
        check_against_torch(backend, case, "float64", sample)

    assert is_caught(few(check)), f"not found: {bug.name}"


@pytest.mark.parametrize(("module", "op"), sorted({(bug.module, bug.where) for bug in LOOPS}))
def test_loops_as_plain_python_are_right(module, op, plant_loop):
    """The control: the same harness with nothing changed."""
    first = "from __future__ import annotations"
    backend = plant_loop(Bug("none", op, module, first, first))

    @given(samples(BY_NAME[op]))
    def check(sample):
        check_against_torch(backend, BY_NAME[op], "float64", sample)

    assert not is_caught(few(check))


def test_there_are_enough():
    for bugs in (COMPILED, LOOPS):
        assert len({bug.name for bug in bugs}) == len(bugs) >= 25
