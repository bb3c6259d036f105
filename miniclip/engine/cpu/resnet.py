"""The ResNets' part of a plan: convolutions with BatchNorm folded in, on (B, H, W, C) maps.

BatchNorm in inference is y = (x - mean) / sqrt(var + eps) w + b, a scale and a shift for each
channel. The scale goes into the convolution's weights, the shift becomes its bias. ReLU is done
while the result is still in registers, and the shortcut is where the last product of a block starts
adding. With the channels of a pixel next to each other, a 1x1 convolution is a matrix product as it
stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniclip.cpu.simd import PANEL
from miniclip.engine.cpu.map_kernels import (
    average_pool,
    convolve_gathered,
    mean_pixel,
    pool_tokens,
    unfold_images,
)
from miniclip.engine.cpu.packing import Weights, pack, pack_groups, padded, vector_of
from miniclip.engine.cpu.program import ZERO, Member, Program, Run, all_sequences, float32
from miniclip.engine.cpu.transformer import Pool, add_pool, by_heads, pack_pool
from miniclip.engine.cpu.winograd import transform_weights
from miniclip.engine.cpu.winograd_kernels import TILES, winograd_input, winograd_output
from miniclip.ops.array import Array

EXPANDED = 40 << 20  # bytes that one layer's transformed weights may take


def fold(conv: Any, norm: Any) -> tuple[Array, Array]:
    """The weight (N, C, k, k) and bias (N,) of a convolution and the BatchNorm after it."""
    mean, var = (norm.buffers_[k].astype(np.float64) for k in ("running_mean", "running_var"))
    with np.errstate(invalid="ignore"):  # a damaged checkpoint gives NaN, as by the modules
        scale = norm.weight.data.astype(np.float64) / np.sqrt(var + norm.eps)
        weight = conv.weight.data * scale[:, None, None, None]
        return weight, norm.bias.data - mean * scale


def widened(weight: Array, channels: int) -> Array:
    """(N, C, ...) -> (N, channels, ...): inputs that are padding have weight 0."""
    wide = np.zeros((weight.shape[0], channels, *weight.shape[2:]), weight.dtype)
    wide[:, : weight.shape[1]] = weight
    return wide


def pack_1x1(conv: Any, norm: Any) -> Weights:
    weight, bias = fold(conv, norm)
    flat = widened(weight, padded(weight.shape[1]))[:, :, 0, 0]
    return pack(flat.astype(np.float32), bias)


def pack_first(conv: Any, norm: Any) -> Weights:
    """The first convolution, which reads (B, 3, H, W)."""
    weight, bias = fold(conv, norm)
    return pack(weight.reshape(len(weight), -1).astype(np.float32), bias)


def pack_3x3(conv: Any, norm: Any, m: int) -> Weights:
    """For Winograd's tiles of m, or for m = 0 for a product with gathered pixels."""
    weight, bias = fold(conv, norm)
    weight = widened(weight, padded(weight.shape[1]))
    if m:
        return pack_winograd(weight, bias, m)
    in_rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)  # (N, 3 3 C)
    return pack(in_rows.astype(np.float32), bias)


def tile_of(height: int, width: int, channels: int, columns: int) -> int:
    """The way for a 3x3 convolution: 4 or 2 for Winograd's tiles, 0 for the plain product.

    Large tiles save most, but their weights are four times as many, which on a small map is more
    to read than to compute.
    """
    if min(height, width) < 3:
        return 0
    return 4 if 36 * channels * columns * 4 <= EXPANDED else 2


def pack_winograd(weight: Array, bias: Array, m: int) -> Weights:
    """G g Gᵀ: a matrix (N, C) for each point, as panels."""
    return replace(
        pack_groups(transform_weights(weight, m)), bias=vector_of(bias, padded(len(bias)))
    )


class Maps:
    """Buffers for feature maps: one that is given back is used again."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.free: list[str] = []
        self.made = 0

    def take(self, numbers: int) -> str:
        """A buffer for so many numbers a picture: of those that are free the largest."""
        if not self.free:
            self.free.append(f"map {self.made}")
            self.made += 1
        largest = max(self.free, key=self._size)
        self.free.remove(largest)
        return self.program.buffer(largest, per_sequence=numbers)

    def _size(self, name: str) -> int:
        sizes = self.program.buffers.get(name)
        return 0 if sizes is None else sizes.per_sequence

    def give(self, name: str) -> None:
        self.free.append(name)


@dataclass(frozen=True)
class Map:
    """A feature map in a buffer."""

    name: str
    height: int
    width: int
    channels: int

    @property
    def pixels(self) -> int:
        return self.height * self.width


class ResNetSteps:
    """Walks through the tower as a picture does, and writes down the steps."""

    def __init__(self, program: Program, packed: dict[Any, Any]) -> None:
        self.program, self.packed = program, packed
        self.maps = Maps(program)

    def weights(self, key: Any, make: Any) -> Any:
        """Packed once, whatever the sizes of the pictures."""
        if key not in self.packed:
            self.packed[key] = make()
        return self.packed[key]

    def first(self, conv: Any, norm: Any, height: int, width: int) -> Map:
        """The first convolution, with stride 2: pixels to rows, and a product."""
        w = self.weights(id(conv), lambda: pack_first(conv, norm))
        size, stride, padding = conv.weight.data.shape[2], conv.stride, conv.padding
        out_height = (height + 2 * padding - size) // stride + 1
        out_width = (width + 2 * padding - size) // stride + 1
        pixels = out_height * out_width
        rows = self.maps.take(pixels * w.depth)

        def step(run: Run, member: Member) -> None:
            unfold_images(
                run.x, size, stride, padding, out_height, out_width, run.space[rows],
                *member.meeting,
            )  # fmt: skip

        self.program.add(f"conv1: pixels under each place, {out_height} x {out_width}", step)
        y = Map(self.maps.take(pixels * w.columns), out_height, out_width, w.columns)
        self.product("conv1", Map(rows, out_height, out_width, w.depth), w, y, relu=True)
        self.maps.give(rows)
        return y

    def product(
        self, text: str, x: Map, w: Weights, y: Map, relu: bool = False, add: bool = False
    ) -> None:
        pixels = x.pixels
        self.program.product(
            text, x.name, x.channels, w, y.name, y.channels,
            rows=lambda run: run.sequences * pixels, relu=relu, add=add,
        )  # fmt: skip

    def conv_1x1(self, text: str, conv: Any, norm: Any, x: Map) -> Map:
        w = self.weights(id(conv), lambda: pack_1x1(conv, norm))
        y = Map(self.maps.take(x.pixels * w.columns), x.height, x.width, w.columns)
        self.product(text, x, w, y, relu=True)
        return y

    def conv_3x3(self, text: str, conv: Any, norm: Any, x: Map) -> Map:
        """With ReLU; the buffer of x is given back."""
        m = tile_of(x.height, x.width, x.channels, padded(conv.weight.data.shape[0]))
        w = self.weights((id(conv), m), lambda: pack_3x3(conv, norm, m))
        y = Map(self.maps.take(x.pixels * w.columns), x.height, x.width, w.columns)
        if m:
            self.winograd_3x3(text, x, m, w, y)
        else:
            self.plain_3x3(text, x, w, y)
        self.maps.give(x.name)
        return y

    def plain_3x3(self, text: str, x: Map, w: Weights, y: Map) -> None:
        block = max(24, min(96, x.pixels // 4 // 6 * 6))
        self.program.need_scratch(block * w.depth)

        def step(run: Run, member: Member) -> None:
            convolve_gathered(
                run.space[x.name], run.sequences, x.height, x.width, x.channels, 3,
                w.data, w.panel, w.columns, w.bias, ZERO, run.space[y.name], block,
                run.scratch, member.at, *member.meeting,
            )  # fmt: skip

        self.program.add(f"{text}: 3x3 {x.channels} -> {w.columns}, gathered pixels", step)

    def winograd_3x3(self, text: str, x: Map, m: int, w: Weights, y: Map) -> None:
        n, tiles = m + 2, -(-x.height // m) * -(-x.width // m)
        v = self.maps.take(n * n * x.channels * (tiles + TILES))  # a last block is not full
        none = vector_of(None, PANEL)
        self.program.need_scratch(n * n * x.channels)
        self.program.need_scratch(n * n * TILES * w.panel + m * m * w.panel)

        def to_points(run: Run, member: Member) -> None:
            winograd_input(
                run.space[x.name], run.sequences, x.height, x.width, x.channels, m,
                run.space[v], run.scratch, member.at, *member.meeting,
            )  # fmt: skip

        def from_points(run: Run, member: Member) -> None:
            winograd_output(
                run.space[v], run.sequences, x.height, x.width, x.channels, m,
                w.data, w.panel, w.columns, w.bias, none, ZERO, run.space[y.name],
                run.scratch, member.at, *member.meeting,
            )  # fmt: skip

        self.program.add(f"{text}: 3x3 {x.channels} -> {w.columns}, to {n} x {n} points", to_points)
        self.program.add(f"{text}: products at the points, tiles of {m} x {m}", from_points)
        self.maps.give(v)

    def pool(self, text: str, x: Map, size: int) -> Map:
        """Means over squares; the buffer of x stays."""
        height, width = x.height // size, x.width // size
        y = Map(self.maps.take(height * width * x.channels), height, width, x.channels)

        def step(run: Run, member: Member) -> None:
            average_pool(
                run.space[x.name], run.sequences, x.height, x.width, x.channels, size,
                run.space[y.name], *member.meeting,
            )  # fmt: skip

        self.program.add(f"{text}: means of {size} x {size} pixels", step)
        return y

    def bottleneck(self, name: str, block: Any, x: Map) -> Map:
        y = self.conv_1x1(f"{name}.conv1", block.conv1, block.bn1, x)
        y = self.conv_3x3(f"{name}.conv2", block.conv2, block.bn2, y)
        size = getattr(block.avgpool, "kernel", 1)
        if size > 1:
            pooled = self.pool(f"{name}.avgpool", y, size)
            self.maps.give(y.name)
            y = pooled
        z = x if block.downsample is None else self.shortcut(name, block.downsample, x)
        w = self.weights(id(block.conv3), lambda: pack_1x1(block.conv3, block.bn3))
        self.product(f"{name}.conv3, onto the shortcut", y, w, z, relu=True, add=True)
        self.maps.give(y.name)
        return z

    def shortcut(self, name: str, downsample: Any, x: Map) -> Map:
        """Means of pixels, 1x1 convolution, BatchNorm; the buffer of x is given back."""
        pool, conv, norm = downsample
        size = getattr(pool, "kernel", 1)
        pooled = self.pool(f"{name}.downsample", x, size) if size > 1 else x
        if size > 1:
            self.maps.give(x.name)
        w = self.weights(id(conv), lambda: pack_1x1(conv, norm))
        y = Map(self.maps.take(pooled.pixels * w.columns), pooled.height, pooled.width, w.columns)
        self.product(f"{name}.downsample", pooled, w, y)
        self.maps.give(pooled.name)
        return y

    def attention_pool(self, pool: Any, x: Map) -> None:
        width = pool.k_proj.weight.data.shape[0]
        positions = float32(pool.positions(x.height, x.width)[0])
        weights: Pool = self.weights(id(pool), lambda: pack_attention_pool(pool))
        tokens = self.maps.take((1 + x.pixels) * x.channels)
        mean = self.program.buffer("mean pixel", per_sequence=x.channels)

        def step(run: Run, member: Member) -> None:
            pool_tokens(
                run.space[x.name], run.sequences, x.pixels, x.channels, positions,
                run.space[tokens], run.space[mean], *member.meeting,
            )  # fmt: skip

        self.program.tokens = 1 + x.pixels
        self.program.add("attnpool: mean pixel, pixels, positions", step)
        mixed = add_pool(
            self.program, "attnpool", weights, mean, tokens, padded(width), 1 + x.pixels
        )
        c_proj = self.weights(id(pool.c_proj), lambda: pack_by_heads(pool.c_proj, pool.heads))
        self.last_product(mixed, c_proj, pool.c_proj)

    def average_pool(self, pool: Any, x: Map) -> None:
        mean = self.program.buffer("mean pixel", per_sequence=x.channels)

        def step(run: Run, member: Member) -> None:
            mean_pixel(
                run.space[x.name], run.sequences, x.pixels, x.channels, run.space[mean],
                *member.meeting,
            )  # fmt: skip

        self.program.add("attnpool: mean pixel", step)
        c_proj = self.weights(
            id(pool.c_proj), lambda: pack(pool.c_proj.weight.data, pool.c_proj.bias.data)
        )
        self.last_product(mean, c_proj, pool.c_proj)

    def last_product(self, x: str, w: Weights, c_proj: Any) -> None:
        program = self.program
        program.buffer("out", per_sequence=w.columns)
        row = program.buffers[x].per_sequence
        program.product("attnpool.c_proj", x, row, w, "out", w.columns, rows=all_sequences)
        program.output, program.columns = "out", w.columns
        program.width = c_proj.weight.data.shape[0]


def pack_by_heads(linear: Any, heads: int) -> Weights:
    return pack(by_heads(linear.weight.data, heads), linear.bias.data)


def pack_attention_pool(pool: Any) -> Pool:
    heads = pool.heads
    projections = (pool.q_proj, pool.k_proj, pool.v_proj)
    width = pool.k_proj.weight.data.shape[0]
    weights = np.stack([p.weight.data for p in projections])
    biases = np.stack([p.bias.data for p in projections])
    shape = (3, heads, width // heads)
    return pack_pool(weights.reshape(*shape, -1), biases.reshape(shape))


def add_resnet(
    program: Program,
    tower: Any,
    packed: dict[Any, Any],
    height: int,
    width: int,
    all_tokens: bool = False,
) -> None:
    """The whole tower for pictures of one size, or what gives the pixels of its last map."""
    steps = ResNetSteps(program, packed)
    x = steps.first(tower.conv1, tower.bn1, height, width)
    x = steps.conv_3x3("conv2", tower.conv2, tower.bn2, x)
    x = steps.conv_3x3("conv3", tower.conv3, tower.bn3, x)
    pooled = steps.pool("avgpool", x, tower.avgpool.kernel)
    steps.maps.give(x.name)
    x = pooled
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(tower, stage)):
            x = steps.bottleneck(f"{stage}.{number}", block, x)
    if all_tokens:
        program.output, program.columns = x.name, x.channels
        program.width = block.conv3.weight.data.shape[0]  # the last block's channels, not padded
        program.tokens = program.outputs = x.pixels
    elif hasattr(tower.attnpool, "heads"):
        steps.attention_pool(tower.attnpool, x)
    else:
        steps.average_pool(tower.attnpool, x)
