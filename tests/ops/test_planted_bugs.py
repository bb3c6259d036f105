"""The tests are worth something: each of these bugs, planted in the textbook, makes them fail."""

from types import SimpleNamespace

import pytest
from cases import BY_NAME, samples
from hypothesis import given
from hypothesis import strategies as st
from op_checks import check_against_torch, check_directions, few
from planting import is_caught, textbook_with

from miniclip import ops
from miniclip.check import Bug

ATTENTION, CONV, NORM, LOSS = "ops.attention", "ops.conv", "ops.norm", "ops.loss"
ACTIVATION, POOL, EMBEDDING, LINEAR = "ops.activation", "ops.pool", "ops.embedding", "ops.linear"
SDPA = "scaled_dot_product_attention"

FORWARD = [
    Bug("1/sqrt(d) dropped", SDPA, ATTENTION, "k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5", "k.swapaxes(-1, -2))"),
    Bug("scaled by 1/d", SDPA, ATTENTION, "k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5", "k.swapaxes(-1, -2)) / q.shape[-1]"),
    Bug("mask added after the softmax", SDPA, ATTENTION, "    if mask is not None:\n        scores = scores + mask\n    return softmax(scores)", "    weights, cache = softmax(scores)\n    return weights + (0 if mask is None else mask), cache"),
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
    Bug("mean token last", "mean_token", EMBEDDING, "np.concatenate([mean, x], axis=1)", "np.concatenate([x, mean], axis=1)"),
    Bug("last token for end of text", "gather_end_of_text", EMBEDDING, "end = end_of_text(ids, end_id)", "end = 0 * end_of_text(ids, end_id) + ids.shape[1] - 1"),
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
    Bug("mean token's share in the pixels forgotten", "mean_token", EMBEDDING, "dy[:, 1:] + dy[:, :1] / (dy.shape[1] - 1)", "dy[:, 1:]"),
    Bug("mean token counted among the pixels", "mean_token", EMBEDDING, "dy[:, 1:] + dy[:, :1] / (dy.shape[1] - 1)", "dy[:, 1:] + dy[:, :1] / dy.shape[1]"),
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


@pytest.mark.planted
@pytest.mark.parametrize("bug", FORWARD + BACKWARD, ids=lambda bug: bug.name)
def test_pytorch_finds_it(bug):
    backend, case = textbook_with(bug), BY_NAME[bug.where]

    @given(samples(case))
    def check(sample):
        check_against_torch(backend, case, "float32", sample)
        check_against_torch(backend, case, "float64", sample)

    assert is_caught(few(check)), f"not found: {bug.name}"


@pytest.mark.planted
@pytest.mark.parametrize("bug", BACKWARD, ids=lambda bug: bug.name)
def test_the_slope_finds_it(bug):
    """A wrong backward also disagrees with its own forward, without any PyTorch."""
    backend, case = textbook_with(bug), BY_NAME[bug.where]

    @given(st.data())
    def check(data):
        check_directions(backend, case, case.draw(data.draw))

    assert is_caught(few(check)), f"not found: {bug.name}"


@pytest.mark.parametrize("case", BY_NAME.values(), ids=lambda case: case.op)
def test_without_a_bug_nothing_is_found(case):
    """The control: the same harness, nothing planted."""
    backend = SimpleNamespace(
        **{name: getattr(ops, name) for name in ops.__all__}, to_numpy=lambda x: x
    )

    @given(samples(case))
    def check(sample):
        check_against_torch(backend, case, "float32", sample)

    assert not is_caught(few(check))


def test_there_are_enough():
    assert len({bug.name for bug in FORWARD + BACKWARD}) == len(FORWARD + BACKWARD) >= 25
