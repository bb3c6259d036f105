"""The engine's kernels against NumPy in float64. `check_*` take the room that the kernels are in.

What no kernel may read is NaN: padding, scratch, and the rest of every row. What none may write is
looked at afterwards.
"""

import importlib
import itertools
import math
import time
from types import SimpleNamespace

import numpy as np
import torch

SMALLEST = 2e-6  # relative to the sum of what was added up, without its signs


class Room:
    """The modules of one package (which may be a planted copy), and teams of its own."""

    def __init__(self, package):
        def module(name):
            return importlib.import_module(f"{package.__name__}.{name}")

        files = ("kernels", "attention_kernels", "map_kernels")
        everything = [vars(module(f"engine.cpu.{name}")) for name in files]
        self.kernels = SimpleNamespace(**{k: v for names in everything for k, v in names.items()})
        self.packing = module("engine.cpu.packing")
        self.resnet = module("engine.cpu.resnet")
        self.winograd = module("engine.cpu.winograd_kernels")
        self.tiles = module("cpu.simd")
        self.team = module("cpu.team")
        self.teams = {}

    def padded(self, n):
        return self.packing.padded(n)

    def run(self, members, kernel, *arguments, scratch=0):
        """The kernel by all members of a team; scratch: numbers that each needs for itself."""
        sync = self.team.make_sync(1)
        space = np.full(scratch * members + 1, np.nan, np.float32)

        def job(member, of):
            own = (space, member * scratch) if scratch else ()
            kernel(*arguments, *own, sync, 0, of)

        if members not in self.teams:
            self.teams[members] = self.team.Team(members)
        self.teams[members].run(job, sync)
        assert np.isnan(space[-1]), "written beyond the scratch"


def normal(seed, *shape):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def in_rows(x, row):
    """The rows of x, `row` numbers apart, NaN between them: a flat array."""
    wide = np.full((*x.shape[:-1], row), np.nan, np.float32)
    wide[..., : x.shape[-1]] = x
    return wide.reshape(-1)


def wide(x):
    return x.astype(np.float64)


def near(what, got, expected, size):
    """size: of what was added up, entry by entry."""
    assert np.isfinite(got).all(), f"{what}: not finite"
    error = np.abs(got - expected) / np.maximum(size, 1e-30)
    assert error.max(initial=0) <= SMALLEST, f"{what}: error {error.max():.1e}"


# ---------------------------------------------------------------- products


def activations():
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return {
        0: lambda x: x,
        1: lambda x: x / (1 + np.exp(-1.702 * x)),
        2: lambda x: x * (0.5 + 0.5 * erf(x * 0.5**0.5)),
        3: lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    }


def check_product(
    room, rows, depth, columns, groups=1, add=False, relu=False, activation=0, block=24, members=1,
    seed=0,
):  # fmt: skip
    """C (+)= A W + bias and what follows, for several groups; no other number of C is touched."""
    a, w = normal(seed, groups, rows, depth), normal(seed, groups, columns, depth) * depth**-0.5
    w, bias = w.astype(np.float32), normal(seed, groups, columns)
    row_a, row_c = depth + 3, room.padded(columns) + room.tiles.LANES
    old = normal(seed, groups, rows, row_c) if add else np.full((groups, rows, row_c), np.nan)
    c = old.astype(np.float32).reshape(-1)
    packed = room.packing.pack_groups(w, bias)
    if groups == 1:
        packed = room.packing.pack(w[0], bias[0])
    assert (packed.depth, packed.columns, packed.groups) == (depth, room.padded(columns), groups)
    lowest = np.float32(0 if relu else -np.inf)
    room.run(
        members, room.kernels.panel_product,
        in_rows(a, row_a), row_a, rows, depth, packed.data, packed.panel, packed.columns,
        packed.bias, lowest, activation, c, row_c, add, groups, rows * row_a, rows * row_c, block,
    )  # fmt: skip
    got, n = c.reshape(old.shape), columns
    expected = wide(a) @ wide(w).swapaxes(1, 2) + wide(bias)[:, None]
    size = 1 + np.abs(wide(a)) @ np.abs(wide(w)).swapaxes(1, 2) + np.abs(bias)[:, None]
    if add:
        expected, size = expected + old[..., :n], size + np.abs(old[..., :n])
    expected = activations()[activation](np.maximum(expected, lowest))
    near("product", got[..., :n], expected, size)
    if not add:
        assert (got[..., n : room.padded(n)] == 0).all(), "padding is not 0"
    beyond = got[..., room.padded(n) :], old[..., room.padded(n) :].astype(np.float32)
    assert np.array_equal(*beyond, equal_nan=True), "written beyond the columns"


def check_pack_panels(room, columns, depth, vectors, members=1):
    """Column by column, panel after panel; what is missing to whole vectors is 0."""
    w, lanes = normal(0, columns, depth), room.tiles.LANES
    total, panel = room.padded(columns), vectors * lanes
    packed = np.full(total * depth, np.nan, np.float32)
    room.run(members, room.kernels.pack_panels, w.reshape(-1), *w.shape, panel, packed)
    columns_in_order = np.zeros((total, depth), np.float32)
    columns_in_order[:columns] = w
    expected = [
        columns_in_order[first : first + panel].T.reshape(-1) for first in range(0, total, panel)
    ]
    assert np.array_equal(packed, np.concatenate(expected))


def check_panel_width(room):
    """Whole vectors, as wide as a tile at most, and never a thin rest where it can be helped."""
    lanes, most = room.tiles.LANES, room.tiles.VECTORS
    for vectors in range(1, 100):
        width = room.packing.panel_width(vectors * lanes)
        assert width % lanes == 0
        assert 0 < width <= room.tiles.PANEL == most * lanes
        if vectors % most == 0:
            assert width == room.tiles.PANEL


# ---------------------------------------------------------------- rows


def check_layer_norm(room, rows, width, extra=0, eps=1e-5, in_place=False, members=1, seed=0):
    row = width + extra
    x = normal(seed, rows, width) * np.float32(2) + normal(seed, rows, 1) * np.float32(3)
    weight, bias = normal(seed, width), normal(seed + 1, width)
    flat = in_rows(x, row)
    y = flat if in_place else np.full(rows * row, np.nan, np.float32)
    room.run(
        members,
        room.kernels.layer_norm_rows,
        flat,
        rows,
        width,
        row,
        weight,
        bias,
        np.float32(eps),
        y,
    )
    centred = wide(x) - wide(x).mean(1, keepdims=True)
    std = np.sqrt((centred**2).mean(1, keepdims=True) + np.float32(eps))
    got, expected = y.reshape(rows, row), centred / std * weight + bias
    size = 4 * (1 + np.abs(x) / std) * np.abs(weight) + np.abs(bias)
    near("LayerNorm", got[:, :width], expected, size)
    assert np.isnan(got[:, width:]).all(), "written between the rows"


# ---------------------------------------------------------------- attention


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def check_attention(room, lengths, heads, width, causal=False, queries=48, members=1, seed=0):
    """Sequences of these lengths, one after the other; heads are padded with zeros."""
    rows, head, lanes = sum(lengths), room.padded(width), room.tiles.LANES
    qkv = normal(seed, rows, 3, heads, width)
    qkv[:, 0] *= np.float32(2 * width**-0.5)
    padded = np.zeros((rows, 3, heads, head), np.float32)
    padded[..., :width] = qkv
    row, row_y = 3 * heads * head + lanes, heads * head + lanes
    flat, y = in_rows(padded.reshape(rows, -1), row), np.full(rows * row_y, np.nan, np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    scratch = (head + queries) * room.padded(max(lengths))
    room.run(
        members, room.kernels.attend_all,
        flat, row, starts, heads, head, causal, y, row_y, queries, scratch=scratch,
    )  # fmt: skip
    got = y.reshape(rows, row_y)
    assert np.isnan(got[:, heads * head :]).all(), "written between the rows"
    got = got[:, : heads * head].reshape(rows, heads, head)
    assert (got[..., width:] == 0).all(), "padding is not 0"
    for first, last in itertools.pairwise(starts):
        q, k, v = wide(qkv[first:last]).transpose(1, 2, 0, 3)  # (heads, tokens, width) each
        scores = q @ k.swapaxes(1, 2)
        if causal:
            scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        weights, here = softmax(scores), got[first:last].swapaxes(0, 1)[..., :width]
        near("attention", here, weights @ v, 8 * weights @ np.abs(v) + 0.1)


def check_attend_once(room, lengths, heads, width, members=1, seed=0):
    """One query a sequence; the rows' padding is NaN and stays among itself."""
    rows, sequences, row = sum(lengths), len(lengths), room.padded(width)
    x = normal(seed, rows, width)
    r = normal(seed, sequences, heads, width) * np.float32(2 * width**-0.5)
    z = np.full(sequences * heads * row, 1234.5, np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    scratch = (row + max(lengths)) * room.padded(heads)
    room.run(
        members, room.kernels.attend_once,
        in_rows(r, row), in_rows(x, row), row, width, starts, heads, z, scratch=scratch,
    )  # fmt: skip
    got = z.reshape(sequences, heads, row)[..., :width]
    for i, (first, last) in enumerate(itertools.pairwise(starts)):
        tokens = wide(x[first:last])
        weights = softmax(wide(r[i]) @ tokens.T)  # (heads, tokens)
        near("attention", got[i], weights @ tokens, 8 * weights @ np.abs(tokens) + 0.1)


# ---------------------------------------------------------------- maps


def check_average_pool(room, images, height, width, channels, size, members=1, seed=0):
    x = normal(seed, images, height, width, channels)
    lines, columns = height // size, width // size
    y = np.full(images * lines * columns * channels + 1, np.nan, np.float32)
    room.run(
        members, room.kernels.average_pool, x.reshape(-1), images, height, width, channels, size, y
    )
    whole = wide(x)[:, : lines * size, : columns * size]
    squares = whole.reshape(images, lines, size, columns, size, channels)
    expected = squares.mean((2, 4)).reshape(-1)
    near("means", y[:-1], expected, np.abs(squares).mean((2, 4)).reshape(-1) + 0.1)
    assert np.isnan(y[-1])


def check_unfold(room, images, channels, height, width, size, stride, padding, members=1, seed=0):
    """Every number stands where im2col puts it, and there is no rounding."""
    x = normal(seed, images, channels, height, width)
    lines, columns = (
        (height + 2 * padding - size) // stride + 1,
        (width + 2 * padding - size) // stride + 1,
    )
    depth = channels * size * size
    y = np.full(images * lines * columns * depth + 1, np.nan, np.float32)
    room.run(members, room.kernels.unfold_images, x, size, stride, padding, lines, columns, y)
    expected = torch.nn.functional.unfold(torch.tensor(x), size, 1, padding, stride)
    expected = expected.numpy().transpose(0, 2, 1)  # (images, places, depth)
    assert np.array_equal(y[:-1].reshape(expected.shape), expected)
    assert np.isnan(y[-1])


# ---------------------------------------------------------------- 3x3 convolutions


def convolve(room, way, x, weight, bias, lowest=-np.inf, members=1):
    """max(x * weight + bias, lowest) by one of the engine's ways: Winograd's tiles of 4 or 2, or 0
    for gathered pixels. x: (B, C, H, W), weight: (N, C, 3, 3). Returns (B, N, H, W).
    """
    images, channels, height, width = x.shape
    wide_weight = room.resnet.widened(weight, room.padded(channels))
    inputs = room.padded(channels)
    maps = np.zeros((images, height, width, inputs), np.float32)
    maps[..., :channels] = x.transpose(0, 2, 3, 1)
    columns = room.padded(len(weight))
    y = np.full(images * height * width * columns + 1, np.nan, np.float32)
    shape = maps.reshape(-1), images, height, width, inputs
    lowest = np.float32(lowest)
    if way == 0:
        by_gathering(room, shape, wide_weight, bias, lowest, y, members)
    else:
        by_winograd(room, shape, wide_weight, bias, lowest, y, way, members)
    assert np.isnan(y[-1]), "written beyond the map"
    y = y[:-1].reshape(images, height, width, columns)
    assert lowest == 0 or (y[..., len(weight) :] == 0).all() or not np.isfinite(x).all()
    return y[..., : len(weight)].transpose(0, 3, 1, 2)


def by_gathering(room, shape, weight, bias, lowest, y, members):
    in_rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    w, block = room.packing.pack(in_rows, bias), 24
    room.run(
        members, room.kernels.convolve_gathered,
        *shape, 3, w.data, w.panel, w.columns, w.bias, lowest, y, block, scratch=block * w.depth,
    )  # fmt: skip


def by_winograd(room, shape, weight, bias, lowest, y, m, members):
    _, images, height, width, channels = shape
    w, n, some = room.resnet.pack_winograd(weight, bias, m), m + 2, room.winograd.TILES
    blocks = -(-images * -(-height // m) * -(-width // m) // some)
    v = np.full(blocks * n * n * some * channels, np.nan, np.float32)
    none = np.zeros(room.tiles.PANEL, np.float32)
    pixels = n * n * channels
    room.run(members, room.winograd.winograd_input, *shape, m, v, scratch=pixels)
    room.run(
        members, room.winograd.winograd_output,
        v, *shape[1:], m, w.data, w.panel, w.columns, w.bias, none, lowest, y,
        scratch=(n * n * some + m * m) * w.panel,
    )  # fmt: skip


def true_convolution(x, weight, bias, dtype=torch.float64):
    tensors = (torch.tensor(np.asarray(t)).to(dtype) for t in (x, weight, bias))
    return torch.nn.functional.conv2d(*tensors, padding=1).numpy()


# Of the L2 norm of what is added up without its signs: Winograd's points cost digits.
ROUNDING = {4: 6e-6, 2: 2e-6, 0: 1e-6}


def check_convolution(room, way, images, channels, columns, height, width, members=1, seed=0):
    """Close to float64, with ReLU too, for maps of any size."""
    x, weight = normal(seed, images, channels, height, width), normal(seed, columns, channels, 3, 3)
    bias = normal(seed, columns)
    expected = true_convolution(x, weight, bias)
    size = np.linalg.norm(true_convolution(np.abs(x), np.abs(weight), np.abs(bias)))
    got = convolve(room, way, x, weight, bias, members=members)
    error = np.linalg.norm(got - expected) / size
    assert error <= ROUNDING[way], f"way {way}: error {error:.1e}"
    with_relu = convolve(room, way, x, weight, bias, 0, members)
    assert np.array_equal(with_relu, np.maximum(got, 0)), "ReLU"


# ---------------------------------------------------------------- what else may go wrong


def check_nan_after_relu(room):
    """max(NaN, 0) is NaN: a damaged weight must not vanish."""
    w = room.packing.pack(np.full((5, 3), np.nan, np.float32))
    c = np.zeros(w.columns, np.float32)
    room.run(
        1, room.kernels.panel_product, np.ones(3, np.float32), 3, 1, 3, w.data, w.panel, w.columns,
        w.bias, np.float32(0), 0, c, w.columns, False, 1, 0, 0, 24,
    )  # fmt: skip
    assert np.isnan(c[:5]).all()


def check_meeting(room, members=3):
    """Nobody goes on before all have come, however late they are."""
    sync, late = room.team.make_sync(1), []
    room.team.meet(room.team.make_sync(1), 0, 1)  # compiled by now

    def job(member, of):
        if member:
            time.sleep(0.1 * member)
            late.append(member)
        room.team.meet(sync, 0, of)
        assert len(late) == members - 1, "gone on too early"

    workers = room.team.Team(members)
    workers.run(job, sync)
    workers.dismiss()


def check_kernels(package, where):
    """The checks in which the bugs planted in kernels show."""
    room = Room(package)
    if where == "attention":
        check_attention(room, [20, 3], 2, 10, causal=True, queries=8, members=2)
    elif where == "attend once":
        check_attend_once(room, [20, 3], 5, 10, members=2)
    elif where == "product":
        check_product(room, 9, 1030, 20, groups=2, members=2)
        check_product(room, 9, 30, 20, add=True, members=2)
    elif where == "unfold":
        check_unfold(room, 2, 3, 7, 9, 3, 2, 1, members=2)
    elif where == "layer norm":
        check_layer_norm(room, 9, 30, members=2)
    elif where == "average pool":
        check_average_pool(room, 2, 5, 4, 3, 2, members=2)
    elif where == "packing":
        check_pack_panels(room, 21, 9, 1, members=2)
    elif where == "convolution":
        for way in (4, 2):
            check_convolution(room, way, 2, 5, 7, 9, 10, members=2)
    elif where == "NaN":
        check_nan_after_relu(room)
    else:
        check_meeting(room)
