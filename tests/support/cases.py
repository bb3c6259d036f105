"""What every op is tested with: for each one, how to draw inputs and what PyTorch says of them.

A `Case` draws a `Sample` (named inputs as float64 or integer NumPy arrays, and options) and names
the function of PyTorch that is the truth. op_checks.py runs samples on any backend, so one
parametrised test serves all ops, all backends and both dtypes, and the planted bugs as well.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st


@dataclass
class Sample:
    inputs: dict[str, np.ndarray | None]  # float64, integer or None, in the order of the op
    options: dict = field(default_factory=dict)
    seed: int = 0  # for the incoming gradient, directions and memory layouts
    layouts: tuple[str, ...] = ()  # one an input, then one for the incoming gradient
    read_only: bool = True  # kernels may copy read-only arrays: writing into the others must show


@dataclass(frozen=True)
class Case:
    op: str
    draw: Callable  # (draw) -> Sample without layouts
    torch: Callable  # (*inputs as tensors, **options) -> tensor or tuple of tensors
    # Inputs whose gradient is a sum that may cancel to nothing (a key's bias always does): their
    # error is measured against the op's largest gradient, as relative to zero it means nothing.
    cancels: tuple[str, ...] = ()


LAYOUTS = ("contiguous", "transposed", "sliced", "reversed", "broadcast")


@st.composite
def samples(draw, case):
    """A sample of the case, with a memory layout drawn for each of its float arrays."""
    sample = case.draw(draw)
    count = len(sample.inputs) + 1
    layouts = draw(st.lists(st.sampled_from(LAYOUTS), min_size=count, max_size=count))
    sample.layouts, sample.read_only = tuple(layouts), draw(st.booleans())
    return sample


def lay_out(array, layout):
    """The array's values (for `broadcast`: its first slice repeated) in another memory layout."""
    if array.ndim == 0:
        return array
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "sliced":
        larger = np.full([2 * n + 1 for n in array.shape], 7).astype(array.dtype)
        view = larger[tuple(slice(1, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    if layout == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    if layout == "broadcast":
        return np.broadcast_to(array[:1], array.shape)
    return np.ascontiguousarray(array)


# ---------------------------------------------------------------------------- drawing the inputs


def sizes(low, high):
    return st.integers(low, high)


def start(draw):
    """A random generator and its seed: NumPy draws values, Hypothesis shapes and options."""
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed), seed


def normal(rng, *shape, scale=1.0):
    return rng.standard_normal(shape) * scale


def optional(draw, array):
    return array if draw(st.booleans()) else None


def draw_linear(draw):
    rng, seed = start(draw)
    lead = draw(st.lists(sizes(1, 5), min_size=0, max_size=3))
    n_in, n_out = draw(sizes(4, 40)), draw(sizes(4, 24))  # one sum alone may cancel by chance
    bias = optional(draw, normal(rng, n_out))
    x, weight = normal(rng, *lead, n_in), normal(rng, n_out, n_in)
    return Sample({"x": x, "weight": weight, "bias": bias}, seed=seed)


def draw_conv2d(draw):
    rng, seed = start(draw)
    kernel = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (5, 5), (3, 1), (2, 4)]))
    stride, padding = draw(sizes(1, 3)), draw(sizes(0, 2))
    height = draw(sizes(max(1, kernel[0] - 2 * padding), 9))
    width = draw(sizes(max(1, kernel[1] - 2 * padding), 9))
    batch, c_in, c_out = draw(sizes(1, 3)), draw(sizes(1, 5)), draw(sizes(4, 6))
    inputs = {
        "x": normal(rng, batch, c_in, height, width),
        "weight": normal(rng, c_out, c_in, *kernel),
        "bias": optional(draw, normal(rng, c_out)),
    }
    return Sample(inputs, {"stride": stride, "padding": padding}, seed)


def draw_batch_norm(draw, running=False):
    rng, seed = start(draw)
    batch, channels = draw(sizes(1, 4)), draw(sizes(3, 6))
    # At least 8 values a channel: with 2, x_hat is +-1 whatever x is, and the gradient of x all
    # rounding (the extremes test that). Several channels, as one sum alone may cancel by chance.
    height, width = draw(sizes(2, 5)), draw(sizes(4, 6))
    x = normal(rng, batch, channels, height, width) + normal(rng, 1, channels, 1, 1)
    x *= draw(st.sampled_from([0.1, 1, 10]))
    inputs = {"x": x, "weight": normal(rng, channels), "bias": normal(rng, channels)}
    if running:
        inputs["running_mean"] = normal(rng, channels)
        inputs["running_var"] = rng.uniform(0.1, 3, channels)
    return Sample(inputs, {"eps": draw(st.sampled_from([1e-5, 1e-3]))}, seed)


def draw_layer_norm(draw):
    rng, seed = start(draw)
    lead = draw(st.lists(sizes(1, 5), min_size=1, max_size=3))
    width = draw(sizes(8, 80))  # see draw_batch_norm
    x = (normal(rng, *lead, width) + normal(rng, *lead, 1)) * draw(st.sampled_from([0.1, 1, 10]))
    inputs = {"x": x, "weight": normal(rng, width), "bias": normal(rng, width)}
    return Sample(inputs, {"eps": draw(st.sampled_from([1e-5, 1e-6, 1e-3]))}, seed)


ROW_LENGTHS = sizes(1, 60)


def draw_rows(draw, lengths=ROW_LENGTHS, scales=(0.1, 1.0, 10.0)):
    rng, seed = start(draw)
    lead = draw(st.lists(sizes(1, 5), min_size=0, max_size=3))
    x = normal(rng, *lead, draw(lengths), scale=draw(st.sampled_from(scales)))
    return Sample({"x": x}, seed=seed)


# Rows for ops whose gradient is a difference. With 2 or 3 entries, or with a softmax that has made
# up its mind, that difference is lost in the rounding of float32 for PyTorch as for us; the
# extremes test those. One entry alone gives exactly zero.
MIXING = {"lengths": st.just(1) | sizes(5, 60), "scales": (0.1, 1.0)}


def draw_gelu(draw):
    """One entry is positive: far out on the negative side GELU is a difference lost in rounding."""
    sample = draw_rows(draw)
    x = sample.inputs["x"]
    x[..., 0] = np.abs(x[..., 0])
    return sample


def draw_away_from_zero(draw):
    sample = draw_rows(draw)
    x = sample.inputs["x"]
    sample.inputs["x"] = x + np.sign(x) * 0.01  # ReLU's kink: a step of the gradient check is 1e-6
    return sample


def draw_images(draw, low=1):
    rng, seed = start(draw)
    batch, channels = draw(sizes(1, 3)), draw(sizes(1, 5))
    x = 1.0 + normal(rng, batch, channels, draw(sizes(low, 9)), draw(sizes(low, 9)))
    return Sample({"x": x}, seed=seed)  # a mean that is not zero: relative errors mean something


def draw_avg_pool2d(draw):
    kernel = draw(sizes(1, 3))
    sample = draw_images(draw, low=kernel)
    sample.options["kernel"] = kernel
    return sample


def draw_embedding(draw):
    rng, seed = start(draw)
    batch, tokens, words, width = (draw(sizes(1, n)) for n in (4, 9, 12, 16))
    ids = rng.integers(0, words, (batch, tokens))  # few words, so that they repeat
    return Sample({"ids": ids, "table": normal(rng, words, width)}, seed=seed)


def draw_patch_embedding(draw):
    rng, seed = start(draw)
    patch = draw(sizes(1, 4))
    stride = draw(sizes(1, patch))  # patch: they touch; less: they overlap
    batch, channels, width = draw(sizes(1, 3)), draw(sizes(1, 3)), draw(sizes(1, 12))
    x = normal(rng, batch, channels, draw(sizes(patch, 13)), draw(sizes(patch, 13)))
    weight = normal(rng, width, channels, patch, patch)
    return Sample({"x": x, "weight": weight}, {"stride": stride}, seed)


def draw_tokens(draw, **more):
    """x (B, T, D), and for each name in `more` an array of the shape it returns for (B, T, D)."""
    rng, seed = start(draw)
    batch, tokens, width = draw(sizes(1, 4)), draw(sizes(1, 9)), draw(sizes(1, 20))
    inputs = {"x": normal(rng, batch, tokens, width)}
    for name, shape in more.items():
        inputs[name] = normal(rng, *shape(draw, tokens, width))
    return Sample(inputs, seed=seed)


def draw_gather_end_of_text(draw):
    sample = draw_tokens(draw)
    rng = np.random.default_rng(sample.seed)
    batch, tokens, _ = sample.inputs["x"].shape
    ids = rng.integers(0, 50, (batch, tokens))
    ends = rng.integers(0, tokens, batch)
    end_id = draw(st.sampled_from([None, 25, 99]))
    if end_id == 25:
        ids[ids == 25] = 26  # larger ids stand about: only a search for 25 finds the end
    ids[np.arange(batch), ends] = 99 if end_id is None else end_id
    if draw(st.booleans()):  # padded with the end token, as transformers does: the first counts
        for row, end in zip(ids, ends, strict=True):
            row[end:] = row[end]
    sample.inputs["ids"] = ids
    sample.options["end_id"] = end_id
    return sample


def draw_interpolate_positions(draw):
    rng, seed = start(draw)
    side, width, prefix = draw(sizes(2, 9)), draw(sizes(1, 8)), draw(sizes(0, 1))
    grid = (draw(sizes(1, 12)), draw(sizes(1, 12)))
    positions = normal(rng, prefix + side * side, width)
    options = {"grid": grid, "prefix": prefix, "antialias": draw(st.booleans())}
    return Sample({"positions": positions}, options, seed)


def draw_attention(draw):
    rng, seed = start(draw)
    batch, heads, width = draw(sizes(1, 3)), draw(sizes(1, 3)), draw(sizes(4, 16))
    keys = draw(st.just(1) | sizes(4, 9))  # see MIXING
    queries = draw(st.sampled_from([1, keys, draw(sizes(1, 9))]))
    mask = None
    if draw(st.booleans()):
        mask = normal(rng, queries, keys)
        mask[rng.random((queries, keys)) < 0.3] = -np.inf
        mask[:, :3] = 0.0  # no row may be hidden whole
    q = normal(rng, batch, heads, queries, width)
    width_v = draw(st.just(width) | sizes(1, 16))
    k, v = normal(rng, batch, heads, keys, width), normal(rng, batch, heads, keys, width_v)
    return Sample({"q": q, "k": k, "v": v, "mask": mask}, seed=seed)


def draw_cross_entropy(draw):
    rng, seed = start(draw)
    n, classes = draw(sizes(1, 9)), draw(sizes(4, 20))
    logits = normal(rng, n, classes, scale=draw(st.sampled_from([0.1, 1])))  # see MIXING
    return Sample({"logits": logits, "targets": rng.integers(0, classes, n)}, seed=seed)


def draw_cosine_logits(draw):
    sample = draw_contrastive(draw)
    del sample.inputs["targets"]
    return sample


def draw_contrastive(draw, bias=False):
    rng, seed = start(draw)
    n, width = draw(sizes(4, 9)), draw(sizes(4, 16))
    m = draw(st.sampled_from([n, draw(sizes(4, 9))]))
    targets = None
    if m != n or draw(st.booleans()):
        targets = (rng.random((n, m)) < 0.3) * rng.uniform(0.5, 2, (n, m))
        targets[np.arange(n), np.arange(n) % m] = 1.0  # a positive in every row
        targets[np.arange(m) % n, np.arange(m)] = 1.0  # and in every column
    inputs = {
        "images": unit(normal(rng, n, width)),
        "texts": unit(normal(rng, m, width)),
        "log_scale": np.array(rng.uniform(0, 1)),  # see MIXING; ln 100 is among the extremes
    }
    if bias:
        inputs["bias"] = np.array(rng.uniform(-3, 3))
    inputs["targets"] = targets
    return Sample(inputs, seed=seed)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# ------------------------------------------------------------------------- what PyTorch says


def torch_batch_norm(x, weight, bias, eps):
    """With momentum 1 the running statistics become the batch's own: mean and unbiased variance."""
    mean, var = torch.zeros_like(weight), torch.ones_like(weight)
    y = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=eps)
    return y, mean, var


def torch_patch_embedding(x, weight, stride):
    return F.conv2d(x, weight, stride=stride).flatten(2).transpose(1, 2)


def torch_prepend(x, class_embedding):
    return torch.cat([class_embedding.expand(len(x), 1, -1), x], dim=1)


def torch_gather(x, ids, end_id):
    end = (ids if end_id is None else (ids == end_id).int()).argmax(-1)
    return x[torch.arange(len(x)), end]


def torch_interpolate(positions, grid, prefix, antialias):
    first, rest = positions[:prefix], positions[prefix:]
    side = round(len(rest) ** 0.5)
    square = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    # For an output one pixel wide PyTorch 2.13's antialiased resize gives every row the same value;
    # one pixel high it is right. So such a grid is resized lying on its side.
    lying = grid[1] == 1
    resized = F.interpolate(
        square.mT if lying else square,
        size=grid[::-1] if lying else grid,
        mode="bicubic",
        align_corners=False,
        antialias=antialias,
    )
    resized = resized.mT if lying else resized
    return torch.cat([first, resized[0].permute(1, 2, 0).reshape(grid[0] * grid[1], -1)])


def torch_contrastive(images, texts, log_scale, targets):
    """Cross-entropy over the rows and over the columns, with PyTorch's probability targets."""
    logits = log_scale.exp() * images @ texts.T
    wanted = torch.eye(len(images), dtype=logits.dtype) if targets is None else targets
    per_image = wanted / wanted.sum(1, keepdim=True)
    per_text = (wanted / wanted.sum(0, keepdim=True)).T
    return (F.cross_entropy(logits, per_image) + F.cross_entropy(logits.T, per_text)) / 2


def torch_sigmoid_loss(images, texts, log_scale, bias, targets):
    logits = log_scale.exp() * images @ texts.T + bias
    together = torch.eye(len(images)) if targets is None else targets
    sign = torch.where(together > 0, 1.0, -1.0).to(logits.dtype)
    return -F.logsigmoid(sign * logits).sum() / len(images)


def class_token(draw, tokens, width):
    return (width,)


def position_table(draw, tokens, width):
    return (tokens + draw(sizes(0, 3)), width)


partial = functools.partial

CASES = [
    Case("linear", draw_linear, F.linear),
    Case("conv2d", draw_conv2d, F.conv2d),
    Case("batch_norm", draw_batch_norm, torch_batch_norm),
    Case(
        "batch_norm_inference",
        partial(draw_batch_norm, running=True),
        lambda x, w, b, mean, var, eps: F.batch_norm(x, mean, var, w, b, eps=eps),
    ),
    Case(
        "layer_norm",
        draw_layer_norm,
        lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, b, eps),
    ),
    Case(
        "l2_normalize", partial(draw_rows, lengths=sizes(4, 60)), lambda x: F.normalize(x, dim=-1)
    ),
    Case("relu", draw_away_from_zero, F.relu),
    Case("quick_gelu", draw_rows, lambda x: x * torch.sigmoid(1.702 * x)),
    Case("gelu", draw_gelu, F.gelu),
    Case("gelu_tanh", draw_gelu, lambda x: F.gelu(x, approximate="tanh")),
    Case("softmax", partial(draw_rows, **MIXING), lambda x: F.softmax(x, dim=-1)),
    Case("avg_pool2d", draw_avg_pool2d, lambda x, kernel: F.avg_pool2d(x, kernel)),
    Case("global_avg_pool", draw_images, lambda x: x.mean((2, 3))),
    Case("embedding", draw_embedding, lambda ids, table: F.embedding(ids, table)),
    Case("patch_embedding", draw_patch_embedding, torch_patch_embedding),
    Case("prepend_class_token", partial(draw_tokens, class_embedding=class_token), torch_prepend),
    Case("mean_token", draw_tokens, lambda x: torch.cat([x.mean(1, keepdim=True), x], dim=1)),
    Case("take_class_token", draw_tokens, lambda x: x[:, 0]),
    Case(
        "add_positions",
        partial(draw_tokens, positions=position_table),
        lambda x, positions: x + positions[: x.shape[1]],
    ),
    Case("gather_end_of_text", draw_gather_end_of_text, torch_gather),
    Case("interpolate_positions", draw_interpolate_positions, torch_interpolate),
    Case(
        "scaled_dot_product_attention",
        draw_attention,
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        cancels=("q", "k"),  # with one key their gradient is zero
    ),
    Case("cross_entropy", draw_cross_entropy, F.cross_entropy),
    Case(
        "cosine_logits",
        draw_cosine_logits,
        lambda images, texts, log_scale: log_scale.exp() * images @ texts.T,
        cancels=("log_scale",),
    ),
    Case("contrastive_loss", draw_contrastive, torch_contrastive, cancels=("log_scale",)),
    Case(
        "sigmoid_loss",
        partial(draw_contrastive, bias=True),
        torch_sigmoid_loss,
        cancels=("log_scale", "bias"),
    ),
]
BY_NAME = {case.op: case for case in CASES}
