"""The tests are worth something: each of these bugs, planted in the textbook, makes them fail."""

from types import SimpleNamespace

import numpy as np
import pytest
from cases import BY_NAME, samples
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from op_checks import check_against_torch, check_directions
from planting import Bug, planted

from miniclip import backends, ops
from miniclip.backends import numba
from miniclip.backends.numba import attention, maps
from miniclip.cpu import matmul, products, rows, simd

ATTENTION, CONV, NORM, LOSS = "ops.attention", "ops.conv", "ops.norm", "ops.loss"
ACTIVATION, POOL, EMBEDDING, LINEAR = "ops.activation", "ops.pool", "ops.embedding", "ops.linear"
SDPA = "scaled_dot_product_attention"

FORWARD = [
    Bug("1/sqrt(d) dropped", SDPA, ATTENTION, "k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5", "k.swapaxes(-1, -2))"),
    Bug("scaled by 1/d", SDPA, ATTENTION, "k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5", "k.swapaxes(-1, -2)) / q.shape[-1]"),
    Bug("mask added after the softmax", SDPA, ATTENTION, "    if mask is not None:\n        scores = scores + mask\n    return softmax(scores)", "    weights, cache = softmax(scores)\n    return weights + (0 if mask is None else mask), cache"),
    Bug("attention pool over pixels only", "attention_pool", ATTENTION, "v, v_cache = linear(tokens, v_weight, v_bias)", "v, v_cache = linear(tokens * (np.arange(tokens.shape[1]) > 0)[:, None].astype(x.dtype), v_weight, v_bias)"),
    Bug("positions not added before the query", "attention_pool", ATTENTION, "linear(tokens[:, :1], q_weight, q_bias)", "linear(mean, q_weight, q_bias)"),
    Bug("GELU for QuickGELU", "quick_gelu", ACTIVATION, "return x * sigmoid(QUICK_GELU_SLOPE * x), x", "return gelu(x)"),
    Bug("tanh GELU for the exact one", "gelu", ACTIVATION, "return x * (0.5 + 0.5 * erf(x * 2**-0.5)), x", "return gelu_tanh(x)"),
    Bug("too few terms in erf", "gelu", ACTIVATION, "ERF_TERMS = 23", "ERF_TERMS = 12"),
    Bug("a constant of the tanh GELU", "gelu_tanh", ACTIVATION, "(x + 0.044715 * x * x * x)\n    return", "(x + 0.044751 * x * x * x)\n    return"),
    Bug("softmax over the wrong axis", "softmax", ACTIVATION, "powers.sum(axis=-1, keepdims=True)", "powers.sum(axis=0, keepdims=True)"),
    Bug("a step at zero in ReLU's gradient's sign", "relu", ACTIVATION, "return dy * (x > 0)", "return dy * (x < 0)"),
    Bug("weight transposed", "linear", LINEAR, "rows @ weight.T  # (R", "rows @ weight.reshape(weight.shape[::-1])  # (R"),
    Bug("padding off by one", "conv2d", CONV, "padded[:, :, padding : padding + height, padding : padding + width] = x", "padded[:, :, padding + (padding > 0) :, padding:][:, :, :height, :width] = x[:, :, : padded.shape[2] - padding - (padding > 0)]"),
    Bug("stride ignored along the width", "conv2d", CONV, "j : j + stride * wo : stride]", "j : j + wo]"),
    Bug("kernel flipped, as in a true convolution", "conv2d", CONV, "kernels = weight.reshape(out_channels, -1)  # (O, C*kh*kw)\n    y =", "kernels = weight[:, :, ::-1, ::-1].reshape(out_channels, -1)\n    y ="),
    Bug("running variance biased", "batch_norm", NORM, "var * (n / (n - 1))", "var"),
    Bug("normalised by the unbiased variance", "batch_norm", NORM, "inv_std = 1.0 / np.sqrt(var + eps)  # (C,)\n    y = centred", "inv_std = 1.0 / np.sqrt(var * (n / (n - 1)) + eps)  # (C,)\n    y = centred"),
    Bug("eps outside the root", "layer_norm", NORM, "inv_std = 1.0 / np.sqrt(var + eps)\n    y = centred * inv_std", "inv_std = 1.0 / (np.sqrt(var) + eps)\n    y = centred * inv_std"),
    Bug("mean not taken out in inference", "batch_norm_inference", NORM, "y = (x - per_channel(running_mean)) * per_channel(inv_std * weight)", "y = x * per_channel(inv_std * weight)"),
    Bug("squared length for length", "l2_normalize", NORM, "length = np.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))", "length = (scaled * scaled).sum(axis=-1, keepdims=True)"),
    Bug("pooled by sums", "avg_pool2d", POOL, "squares.mean(axis=(3, 5))", "squares.sum(axis=(3, 5))"),
    Bug("rows and columns of the pool swapped", "avg_pool2d", POOL, "squares.mean(axis=(3, 5))", "squares.mean(axis=(2, 4))"),
    Bug("patches read column by column", "patch_embedding", EMBEDDING, "return columns.reshape(batch, channels * patch * patch, rows * cols).transpose(0, 2, 1)", "return columns.swapaxes(-1, -2).reshape(batch, channels * patch * patch, rows * cols).transpose(0, 2, 1)"),
    Bug("overlapping patches cut without overlap", "patch_embedding", EMBEDDING, "columns = im2col(x, (patch, patch), stride, 0)", "columns = im2col(x, (patch, patch), patch, 0)"),
    Bug("class token last", "prepend_class_token", EMBEDDING, "np.concatenate([first, x], axis=1)", "np.concatenate([x, first], axis=1)"),
    Bug("last token for end of text", "gather_end_of_text", EMBEDDING, "end = np.argmax(ids if end_id is None else ids == end_id, axis=-1)", "end = 0 * np.argmax(ids, axis=-1) + ids.shape[1] - 1"),
    Bug("end id not looked for", "gather_end_of_text", EMBEDDING, "np.argmax(ids if end_id is None else ids == end_id, axis=-1)", "np.argmax(ids, axis=-1)"),
    Bug("antialias ignored", "interpolate_positions", EMBEDDING, "    if antialias:", "    if False:"),
    Bug("corners aligned", "interpolate_positions", EMBEDDING, "+ 0.5) * (n / m) - 0.5", "+ 0.0) * (n - 1) / max(m - 1, 1)"),
    Bug("rows and columns of the grid swapped", "interpolate_positions", EMBEDDING, "resized = down @ square @ across.T  # (D", "resized = down @ square.swapaxes(1, 2) @ across.T  # (D"),
    Bug("loss over one direction only", "contrastive_loss", LOSS, "loss = 0.5 * (image_loss + text_loss)", "loss = image_loss"),
    Bug("scale for its logarithm", "contrastive_loss", LOSS, "logits = np.exp(log_scale) * (images @ texts.T)", "logits = log_scale * (images @ texts.T)"),
    Bug("several positives not shared out", "contrastive_loss", LOSS, "return pairs / pairs.sum(axis=1, keepdims=True), pairs / pairs.sum(axis=0, keepdims=True)", "return pairs, pairs"),
    Bug("sigmoid loss divided by pairs", "sigmoid_loss", LOSS, "loss = terms.sum() / images.shape[0]", "loss = terms.mean()"),
    Bug("sigmoid loss's bias forgotten", "sigmoid_loss", LOSS, "wrongness = -sign * (scaled + bias)", "wrongness = -sign * scaled"),
    Bug("cross-entropy summed", "cross_entropy", LOSS, "(wanted * logits).sum(axis=-1)).mean()", "(wanted * logits).sum(axis=-1)).sum()"),
]  # fmt: skip

BACKWARD = [
    Bug("scale of the scores dropped", SDPA, ATTENTION, "softmax_backward(dweights, softmax_cache) * q.shape[-1] ** -0.5", "softmax_backward(dweights, softmax_cache)"),
    Bug("mask forgotten when the weights are made again", SDPA, ATTENTION, "weights, softmax_cache = attention_weights(q, k, mask)", "weights, softmax_cache = attention_weights(q, k, None)"),
    Bug("mean token's share in the pixels forgotten", "attention_pool", ATTENTION, "dtokens[:, 1:] + dmean / (height * width)", "dtokens[:, 1:]"),
    Bug("mean token as query only", "attention_pool", ATTENTION, "dmean = dtokens[:, :1] + dquery", "dmean = dquery"),
    Bug("LayerNorm's mean term missing", "layer_norm", NORM, "dx = inv_std * (dx_hat - along_one - x_hat * along_x_hat)", "dx = inv_std * (dx_hat - x_hat * along_x_hat)"),
    Bug("LayerNorm's variance term missing", "layer_norm", NORM, "dx = inv_std * (dx_hat - along_one - x_hat * along_x_hat)", "dx = inv_std * (dx_hat - along_one)"),
    Bug("LayerNorm's weight forgotten", "layer_norm", NORM, "dx_hat = dy * weight\n", "dx_hat = dy\n"),
    Bug("BatchNorm's statistics taken as constants", "batch_norm", NORM, "inside = dy - per_channel(dbias / n) - x_hat * per_channel(dweight / n)", "inside = dy"),
    Bug("BatchNorm divided by n - 1", "batch_norm", NORM, "x_hat * per_channel(dweight / n)", "x_hat * per_channel(dweight / (n - 1))"),
    Bug("projection of the unit length missing", "l2_normalize", NORM, "inv_norm * (dy - y * along_y)", "inv_norm * dy"),
    Bug("second term of QuickGELU's slope missing", "quick_gelu", ACTIVATION, "dy * (s + x * (QUICK_GELU_SLOPE * s * (1.0 - s)))", "dy * s"),
    Bug("density of GELU's slope missing", "gelu", ACTIVATION, "dy * (phi + x * density)", "dy * phi"),
    Bug("softmax's sum missing", "softmax", ACTIVATION, "return y * (dy - (dy * y).sum(axis=-1, keepdims=True))", "return y * dy * (1 - y)"),
    Bug("overlaps overwritten", "conv2d", CONV, "dpadded[:, :, rows, cols] += dcolumns[:, :, i, j]", "dpadded[:, :, rows, cols] = dcolumns[:, :, i, j]"),
    Bug("gradient cut from the wrong corner", "conv2d", CONV, "return dpadded[:, :, padding : padding + height, padding : padding + width]", "return dpadded[:, :, :height, :width]"),
    Bug("bias gradient of one image", "conv2d", CONV, "dbias = dy.sum(axis=(0, 2))", "dbias = dy[0].sum(axis=1)"),
    Bug("a repeated word counted once", "embedding", EMBEDDING, "dtable[words] = occurs.T @ rows", "dtable[ids.reshape(-1)] = rows"),
    Bug("position gradients averaged", "add_positions", EMBEDDING, "dy.sum(axis=0)\n    return dy, dpositions", "dy.mean(axis=0)\n    return dy, dpositions"),
    Bug("pooled gradient not shared out", "global_avg_pool", POOL, "share = (dy / (height * width))", "share = dy"),
    Bug("gradient of the texts' choice missing", "contrastive_loss", LOSS, "per_image) / n + (softmax(logits.T)[0].T - per_text) / m", "per_image) / n"),
    Bug("temperature's gradient by its value", "contrastive_loss", LOSS, "(dcosines * (images @ texts.T)).sum()", "(dy * (images @ texts.T)).sum()"),
    Bug("sign of the sigmoid loss's gradient", "sigmoid_loss", LOSS, "dlogits = -sign * sigmoid(-sign * (scaled + bias))", "dlogits = -sign * sigmoid(sign * (scaled + bias))"),
    Bug("incoming gradient ignored", "cross_entropy", LOSS, "* (dy / logits.shape[0])", "/ logits.shape[0]"),
]  # fmt: skip

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
few = settings(
    max_examples=40,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    database=None,
)


def textbook_with(bug):
    """The textbook as a backend, with the functions of one module taken from the planted one."""
    functions = {name: getattr(ops, name) for name in ops.__all__}
    module = planted(bug)
    functions |= {n: getattr(module, n) for n in functions if hasattr(module, n)}
    return SimpleNamespace(**functions, to_numpy=lambda x: x, name="planted")


def is_caught(check):
    try:
        few(check)()
    except (AssertionError, ValueError, IndexError, RuntimeWarning):
        return True
    return False


@pytest.mark.parametrize("bug", FORWARD + BACKWARD + COMPILED, ids=lambda bug: bug.name)
def test_pytorch_finds_it(bug):
    backend, case = textbook_with(bug), BY_NAME[bug.where]

    @given(samples(case))
    def check(sample):
        check_against_torch(backend, case, "float32", sample)
        check_against_torch(backend, case, "float64", sample)

    assert is_caught(check), f"not found: {bug.name}"


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


@pytest.mark.parametrize("bug", LOOPS, ids=lambda bug: bug.name)
def test_pytorch_finds_it_in_a_loop(bug, plant_loop):
    backend, case = plant_loop(bug), BY_NAME[bug.where]

    @given(samples(case))
    def check(sample):
        check_against_torch(backend, case, "float64", sample)

    assert is_caught(check), f"not found: {bug.name}"


@pytest.mark.parametrize(("module", "op"), sorted({(bug.module, bug.where) for bug in LOOPS}))
def test_loops_as_plain_python_are_right(module, op, plant_loop):
    """The control: the same harness with nothing changed."""
    first = "from __future__ import annotations"
    backend = plant_loop(Bug("none", op, module, first, first))

    @given(samples(BY_NAME[op]))
    def check(sample):
        check_against_torch(backend, BY_NAME[op], "float64", sample)

    assert not is_caught(check)


@pytest.mark.parametrize("bug", BACKWARD, ids=lambda bug: bug.name)
def test_the_slope_finds_it(bug):
    """A wrong backward also disagrees with its own forward, without any PyTorch."""
    backend, case = textbook_with(bug), BY_NAME[bug.where]

    @given(st.data())
    def check(data):
        check_directions(backend, case, case.draw(data.draw))

    assert is_caught(check), f"not found: {bug.name}"


@pytest.mark.parametrize("case", BY_NAME.values(), ids=lambda case: case.op)
def test_without_a_bug_nothing_is_found(case):
    """The control: the same harness, nothing planted."""
    backend = SimpleNamespace(
        **{name: getattr(ops, name) for name in ops.__all__}, to_numpy=lambda x: x
    )

    @given(samples(case))
    def check(sample):
        check_against_torch(backend, case, "float32", sample)

    assert not is_caught(check)


def test_there_are_enough():
    assert len({bug.name for bug in FORWARD + BACKWARD}) == len(FORWARD + BACKWARD) >= 25
