"""Planted bugs in the numba backend and in CUDA sources: the checks of the ops find each of them."""

import sys

import cuda_on_host
import numpy as np
import pytest
from cases import BY_NAME, samples
from cuda_checks import check, draw, import_backend, skip_without_compiler
from hypothesis import given
from numba import types
from op_checks import check_against_torch, few
from planting import is_caught, textbook_with

from miniclip import backends
from miniclip.backends.cupy import sources
from miniclip.check import Bug, planted, unchanged
from miniclip.cpu import jit, simd

SDPA = "scaled_dot_product_attention"
NUMBA, MAPS, CONV = "backends.numba.rows", "backends.numba.maps", "backends.numba.conv"
HEADS, ROWWISE, LOSSES = (
    "backends.numba.attention",
    "backends.numba.linear",
    "backends.numba.losses",
)
COMPILED = [
    Bug("softmax in the caller's memory", "softmax", NUMBA, "y = own_copy(x, x.shape, x.dtype)", "y = ready(x, x.shape, x.dtype)"),
    Bug("softmax's gradient in the memory of dy", "softmax", NUMBA, "dx = own_copy(dy, y.shape, y.dtype)", "dx = ready(dy, y.shape, y.dtype)"),
    Bug("output in the order of a transposed input", "quick_gelu", NUMBA, "y = np.empty(x.shape, x.dtype)\n    entry_by_entry(kernel,", "y = np.empty_like(x)\n    entry_by_entry(kernel,"),
    Bug("ReLU's output in the order of a transposed input", "relu", NUMBA, "y = np.empty(x.shape, x.dtype)\n    entry_by_entry(kernel,", "y = np.empty_like(x)\n    entry_by_entry(kernel,"),
    Bug("a word's running sum begun at one", "embedding", NUMBA, "order, np.zeros(shape[1]), dtable", "order, np.ones(shape[1]), dtable"),
    Bug("tokens without their mean", "mean_token", NUMBA, "(batch, 1 + count, width), x.dtype", "(batch, count, width), x.dtype"),
    Bug("weight's gradient transposed", "linear", ROWWISE, "dweight = product(drows.T, rows)", "dweight = product(rows.T, drows).reshape(weight.shape)"),
    Bug("bias forgotten in the product", "linear", ROWWISE, "product(as_rows(x), weight.T, bias)", "product(as_rows(x), weight.T)"),
    Bug("heads of the gradients side by side in the wrong order", SDPA, HEADS, "[dq, dk, dv], mask)", "[dk, dq, dv] if q.shape == k.shape else [dq, dk, dv], mask)"),
    Bug("a view's beginning forgotten", SDPA, HEADS, "begin = (address(x) - address(root)) // size", "begin = 0"),
    Bug("scores scaled by the values' width", SDPA, HEADS, "scale = q.dtype.type(width**-0.5)", "scale = q.dtype.type(1.0)"),
    Bug("the texts' log-sum-exp along the images", "contrastive_loss", LOSSES, "log_sum_exp(np.ascontiguousarray(logits.T))\n    if", "log_sum_exp(logits)\n    if"),
    Bug("the diagonal's gradient counted once", "contrastive_loss", LOSSES, "-= 1 / n + 1 / m", "-= 1 / n"),
    Bug("several positives of a text not shared out", "contrastive_loss", LOSSES, "dlogits -= per_text / m", "dlogits -= per_image / m"),
    Bug("temperature's gradient not summed over the scaled logits", "cosine_logits", LOSSES, "(dlogits * logits).sum()", "dlogits.sum()"),
    Bug("target not taken off", "cross_entropy", LOSSES, "    dlogits[np.arange(len(logits)), targets] -= 1\n", ""),
    Bug("sign of the sigmoid loss's slope", "sigmoid_loss", LOSSES, "dlogits = -sign * sigmoid(-sign", "dlogits = sign * sigmoid(-sign"),
    Bug("weights' taps transposed", "conv2d", CONV, ".transpose(2, 1, 0)  # (O, C, taps)", ".transpose(2, 0, 1).reshape(out, channels, -1)"),
    Bug("maps taken for whole vectors", "conv2d", CONV, "direct = pointwise and width % lanes == 0", "direct = pointwise"),
    Bug("patches' gradient of the wrong weights", "patch_embedding", CONV, "dweight = product(drows.T, rows).reshape(weight.shape)", "dweight = product(rows.T, drows).reshape(weight.shape)"),
    Bug("squares about the first value for the variance", "batch_norm", MAPS, "squares - total * total / n", "squares"),
    Bug("mean counted from the first value", "batch_norm", MAPS, "mean = total / n + near", "mean = total / n"),
    Bug("first value of one channel for all", "batch_norm", MAPS, "mean = total / n + near", "mean = total / n + near[0]"),
    Bug("x for x_hat in BatchNorm's gradient", "batch_norm", MAPS, "dweight * inv_std / n", "dweight / n"),
    Bug("gradient of BatchNorm's weight not normalised", "batch_norm_inference", MAPS, "return dweight * inv_std, dbias", "return dweight, dbias"),
    Bug("share of the side for that of the square", "avg_pool2d", MAPS, "stacked(maps), kernel, x.dtype.type(kernel**-2)", "stacked(maps), kernel, x.dtype.type(1 / kernel)"),
]  # fmt: skip

# In the loops themselves. The names of their functions are the kernels', not the ops'.
ROWS, MAP_KERNELS = "backends.numba.row_kernels", "backends.numba.map_kernels"
SCALARS, ROW, TURN = "cpu.scalars", "cpu.rows", "cpu.transpose"
PRODUCTS, TAPS = "cpu.matmul", "backends.numba.conv_kernels"
HEAD_LOOPS = "backends.numba.attention_kernels"
LOOPS = [
    Bug("a word's last place wins", "embedding", ROWS, "total[j] += dy[r, j]", "total[j] = dy[r, j]"),
    Bug("one word's sum in the next one's", "embedding", ROWS, "                total[j] = 0\n", ""),
    Bug("the mean of one image begun with the last one's", "mean_token", ROWS, "        mean[:] = 0\n", "        mean[:] = y[b - 1, 0] if b else 0\n"),
    Bug("the mean's gradient not shared out", "mean_token", ROWS, "dy[b, t + 1, j] + dy[b, 0, j] * share", "dy[b, t + 1, j] + dy[b, 0, j]"),
    Bug("slope one at ReLU's other side", "relu", ROWS, "dx[i] = dy[i] if x[i] > zero else zero", "dx[i] = dy[i] if x[i] < zero else zero"),
    Bug("inner slope of the tanh GELU missing", "gelu_tanh", SCALARS, "return s + x * slope * (small * share * share)", "return s"),
    Bug("cube's factor of three", "gelu_tanh", SCALARS, "(one + three * cube * x * x)", "(one + cube * x * x)"),
    Bug("QuickGELU's second term missing", "quick_gelu", SCALARS, "return s + x * (slope * small * share * share)", "return s"),
    Bug("the other tail of the normal distribution", "gelu", SCALARS, "return x * (tail if x < 0 else one - tail)", "return x * (tail if x > 0 else one - tail)"),
    Bug("one term fewer of e^r", "softmax", SCALARS, "for k in range(13, -1, -1))", "for k in range(6, -1, -1))"),
    Bug("softmax's sum without its last entry", "softmax", ROW, "    for j in range(row.shape[0]):\n        total += row[j]", "    for j in range(row.shape[0] - 1):\n        total += row[j]"),
    Bug("scores' scale forgotten", SDPA, ROW, "row[j] = row[j] * scale + mask[j]", "row[j] = row[j] + mask[j]"),
    Bug("eps outside the root", "layer_norm", ROW, "np.sqrt(squares / width + eps)", "(np.sqrt(squares / width) + eps)"),
    Bug("the last rows of a transposition begun too late", SDPA, TURN, "range(across if i < whole else 0, width)", "range(across, width)"),
    Bug("columns beyond the last read", "linear", PRODUCTS, "transpose_padded(b, at, step_b, width, depth, packed, 0, padded)", "transpose_padded(b, at, step_b, width, min(depth, 1), packed, 0, padded)"),
    Bug("bias of the first panel for all", "linear", PRODUCTS, "c[at_c + i * row_c + j] += bias[at_bias + j]", "c[at_c + i * row_c + j] += bias[0]"),
    Bug("first rows of A for all", "linear", PRODUCTS, "a, at_a + row * row_a, row_a, step_a,\n            b", "a, at_a, row_a, step_a,\n            b"),
    Bug("fewer keys than there are", SDPA, HEAD_LOOPS, "weights[r * padded : r * padded + tokens]", "weights[r * padded : r * padded + tokens - tokens // 2]"),
    Bug("mask of the first query for all", SDPA, HEAD_LOOPS, "scale_and_mask(row, scale, mask[first + r])", "scale_and_mask(row, scale, mask[0])"),
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
    backend = textbook_with(unchanged(module, op))

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


def transpose_block(x, at_x, row_x, y, at_y, row_y):
    """The block that is transposed in registers, in Python."""
    lanes = simd.VECTOR_BYTES // x.itemsize
    for i in range(lanes):
        for j in range(lanes):
            y[at_y + j * row_y + i] = x[at_x + i * row_x + j]


def scalar(function):
    """A scalar function chosen by its argument's type, as Numba chooses it."""
    numba_types = {np.dtype(name): getattr(types, name) for name in ("float32", "float64", "int64")}
    return lambda *numbers: function(numba_types[numbers[0].dtype])(*numbers)


# The files with loops, each after those whose functions it calls.
LOOP_FILES = [SCALARS, ROW, TURN, PRODUCTS, ROWS, MAP_KERNELS, TAPS, HEAD_LOOPS]
# Where the backend calls them.
USERS = {
    ROWS: ["rows.kernels", "linear.kernels", "losses.kernels"],
    MAP_KERNELS: ["maps.kernels", "conv.kernels"],
    TAPS: ["conv.conv_kernels"],
    HEAD_LOOPS: ["attention.kernels"],
}


@pytest.fixture
def plant_loop(monkeypatch):
    """Puts all files with loops under the numba backend as plain Python, one of them planted.

    So a bug in a function shows through everything that calls it, without compiling anything.
    """

    def plant(bug):
        loops, backend = {}, backends.get("numba")
        with monkeypatch.context() as patch:
            for name in ("kernel", "entry_kernel"):
                patch.setattr(jit, name, lambda function: function)
            patch.setattr(jit, "scalar", scalar)
            patch.setattr(simd, "tile_product", tile_product)
            for file in LOOP_FILES:
                module = loops[file] = planted(bug if file == bug.module else unchanged(file))
                if hasattr(module, "transpose_block"):
                    module.transpose_block = transpose_block
                patch.setitem(sys.modules, f"miniclip.{file}", module)
                room, _, name = f"miniclip.{file}".rpartition(".")
                patch.setattr(sys.modules[room], name, module)
        for file, users in USERS.items():
            for user in users:
                # from sys.modules: as an attribute of the backend, `linear` is the op
                name, _, kernels = user.partition(".")
                monkeypatch.setattr(
                    sys.modules[f"miniclip.backends.numba.{name}"], kernels, loops[file]
                )
        monkeypatch.setattr("miniclip.cpu.products.kernels", loops[PRODUCTS])
        return backend

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
    backend = plant_loop(unchanged(module, op))

    @given(samples(BY_NAME[op]))
    def check(sample):
        check_against_torch(backend, BY_NAME[op], "float64", sample)

    assert not is_caught(few(check))


SOURCES = "backends.cupy.sources"
CUDA = [
    Bug("first barrier", "softmax", SOURCES, "T block_sum(T mine, T* shared) {\n    shared[threadIdx.x] = mine;\n    __syncthreads();\n", "T block_sum(T mine, T* shared) {\n    shared[threadIdx.x] = mine;\n"),
    Bug("last barrier", "layer_norm", SOURCES, "    __syncthreads();  // nobody writes", "    // nobody writes"),
    Bug("mean", "layer_norm", SOURCES, "y[j] = (x[j] - mu)", "y[j] = x[j]"),
    Bug("past the end", "l2_normalize", SOURCES, "T* inv_norm, double eps, long long n) {\n    __shared__ T shared[256];\n", "T* inv_norm, double eps, long long n) {\n    __shared__ T shared[256];\n    n += 1;\n"),
]  # fmt: skip


@pytest.fixture
def check_cuda(tmp_path, monkeypatch):
    """A check of one op, its kernel compiled for the CPU from sources that may be planted."""
    skip_without_compiler()

    def check_op(bug):
        wrong = planted(bug)
        monkeypatch.setattr(sources, "REDUCTIONS", wrong.REDUCTIONS)
        monkeypatch.setattr(sources, "ROWS", {bug.where: wrong.ROWS[bug.where]})
        monkeypatch.setattr(sources, "ELEMENTWISE", {})
        monkeypatch.setattr(sources, "C_TYPES", {"float64": "double"})
        backend = import_backend(cuda_on_host.host_cupy(cuda_on_host.build(tmp_path)))
        x = draw((3, 100), "float64")
        more = [draw((100,), "float64", seed) for seed in (2, 3)] * (bug.where == "layer_norm")
        return lambda: check(backend, bug.where, [x, *more], "float64", backward=False)

    return check_op


@pytest.mark.planted
@pytest.mark.parametrize("bug", CUDA, ids=lambda bug: bug.name)
def test_it_is_found_in_a_cuda_source(bug, check_cuda):
    """A missing barrier, a wrong term, a row that is too long."""
    assert is_caught(check_cuda(bug)), f"not found: {bug.name}"


@pytest.mark.parametrize("op", sorted({bug.where for bug in CUDA}))
def test_cuda_sources_without_a_bug_pass(op, check_cuda):
    """The control: the same sources, compiled in the same way."""
    check_cuda(unchanged(SOURCES, op))()


def test_there_are_enough():
    for bugs in (COMPILED, LOOPS):
        assert len({bug.name for bug in bugs}) == len(bugs) >= 25
