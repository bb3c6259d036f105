"""The compiled steps of a plan on a CPU. Every member of the team runs the same call.

All arrays are flat float32 (float64 in no plan), with offsets and strides in numbers, because one
array serves many shapes. Each kernel divides its work into pieces that the members take one after
the other (`claim`), and ends when all are done (`meet`); `sync`, `step`, `members` are for that.
A kernel that needs room of its own gets `scratch` and where its member's part begins, `at`.

"rows" are tokens or pixels, "depth" is the axis that a product sums over. Weights come packed in
panels (packing.py): `panel` columns next to each other for every k, panel after panel.

Here are products, activations and the rows of tokens; attention and feature maps have files of
their own.
"""

from __future__ import annotations

from typing import Any

from miniclip.cpu import scalars
from miniclip.cpu.jit import entry_kernel, kernel
from miniclip.cpu.matmul import pack_panel, tile_column
from miniclip.cpu.rows import layer_norm_row
from miniclip.cpu.simd import LANES
from miniclip.cpu.team import claim, meet
from miniclip.ops.array import Array

DEPTH = 1024  # of one pass: PANEL x DEPTH packed weights are 256 KiB, and stay in the second cache

# what follows a product; ReLU is a lowest value of 0 and costs nothing
NOTHING, QUICK_GELU, GELU, GELU_TANH = 0, 1, 2, 3


# --- Products -------------------------------------------------------------------------------------


@entry_kernel
def quick_gelu_row(x: Array) -> None:
    """In place, as the other two."""
    for j in range(x.shape[0]):
        x[j] = scalars.quick_gelu_of(x[j])


@entry_kernel
def gelu_row(x: Array) -> None:
    for j in range(x.shape[0]):
        x[j] = scalars.gelu_of(x[j])


@entry_kernel
def gelu_tanh_row(x: Array) -> None:
    for j in range(x.shape[0]):
        x[j] = scalars.gelu_tanh_of(x[j])


@kernel
def activate(which: int, c: Array, at: int, row: int, rows: int, columns: int) -> None:
    """One of the activations, on rows of c."""
    for i in range(rows):
        begin = at + i * row
        if which == QUICK_GELU:
            quick_gelu_row(c[begin : begin + columns])
        elif which == GELU:
            gelu_row(c[begin : begin + columns])
        else:
            gelu_tanh_row(c[begin : begin + columns])


@kernel
def multiply(
    a: Array,
    at_a: int,
    row_a: int,
    rows: int,
    depth: int,
    w: Array,
    at_w: int,
    columns: int,
    bias: Array,
    at_bias: int,
    lowest: Any,
    activation: int,
    c: Array,
    at_c: int,
    row_c: int,
    add: bool,
) -> None:
    """A block of rows times one panel of weights. columns: those of the panel."""
    for k in range(0, depth, DEPTH):
        some = min(DEPTH, depth - k)
        tile_column(
            a, at_a + k, row_a, 1, rows, some,
            w, at_w + k * columns, columns, columns // LANES,
            add or k > 0, k + some == depth, bias, at_bias, lowest,
            c, at_c, row_c,
        )  # fmt: skip
    if activation != NOTHING:  # while the block is in the cache
        activate(activation, c, at_c, row_c, rows, columns)


@kernel
def panel_product(
    a: Array,
    row_a: int,
    rows: int,
    depth: int,
    w: Array,
    panel: int,
    columns: int,
    bias: Array,
    lowest: Any,
    activation: int,
    c: Array,
    row_c: int,
    add: bool,
    groups: int,
    group_a: int,
    group_c: int,
    block: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """C (+)= A W + bias, then ReLU or another activation, in pieces of `block` rows x one panel.

    a: (rows, depth), row_a from row to row. w: panels of (depth, columns). bias: (columns,).
    groups: as many products of this kind, of consecutive weights and biases, that begin group_a
    and group_c further in a and c.
    """
    panels = (columns + panel - 1) // panel
    blocks = (rows + block - 1) // block
    while True:
        piece = claim(sync, step)
        if piece >= groups * blocks * panels:
            break
        group, piece = piece // (blocks * panels), piece % (blocks * panels)
        first = piece // panels * block
        column = piece % panels * panel
        multiply(
            a, first * row_a + group * group_a, row_a, min(block, rows - first), depth,
            w, depth * (group * columns + column), min(panel, columns - column),
            bias, group * columns + column, lowest, activation,
            c, first * row_c + column + group * group_c, row_c, add,
        )  # fmt: skip
    meet(sync, step, members)


@kernel
def pack_panels(
    w: Array,
    columns: int,
    depth: int,
    panel: int,
    packed: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """(columns, depth) -> panels of (depth, panel), a transposition. Missing columns are 0."""
    padded = packed.shape[0] // depth
    while True:
        first = claim(sync, step) * panel
        if first >= padded:
            break
        width = min(panel, padded - first)
        to = packed[depth * first : depth * (first + width)]
        pack_panel(w, first * depth, 1, depth, min(width, columns - first), width, depth, to)
    meet(sync, step, members)


# --- Rows -----------------------------------------------------------------------------------------


@kernel
def layer_norm_rows(
    x: Array,
    rows: int,
    width: int,
    row: int,
    weight: Array,
    bias: Array,
    eps: Any,
    y: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """LayerNorm of rows of `width` numbers, `row` apart, in pieces of 8 rows."""
    while True:
        first = claim(sync, step) * 8
        if first >= rows:
            break
        for r in range(first, min(first + 8, rows)):
            begin = r * row
            layer_norm_row(x[begin : begin + width], weight, bias, eps, y[begin : begin + width])
    meet(sync, step, members)


@kernel
def image_tokens(
    patches: Array,
    class_token: Array,
    positions: Array,
    images: int,
    tokens: int,
    width: int,
    row: int,
    weight: Array,
    bias: Array,
    eps: Any,
    x: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """Class token and patches, plus positions, through the first LayerNorm: the residual stream.

    patches: images x (tokens - 1) rows. x: images x tokens rows.
    """
    while True:
        piece = claim(sync, step)
        if piece >= images * tokens:
            break
        image, token = piece // tokens, piece % tokens
        to = x[piece * row : piece * row + width]
        position = positions[token * width : (token + 1) * width]
        if token == 0:
            for j in range(width):
                to[j] = class_token[j] + position[j]
        else:
            begin = (image * (tokens - 1) + token - 1) * row
            patch = patches[begin : begin + width]
            for j in range(width):
                to[j] = patch[j] + position[j]
        layer_norm_row(to, weight, bias, eps, to)
    meet(sync, step, members)


@kernel
def word_tokens(
    words: Array,
    places: Array,
    positions: Array,
    width: int,
    row: int,
    x: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """Each word's vector plus that of its place. words: (rows, width). places: (rows,)."""
    while True:
        first = claim(sync, step) * 8
        if first >= places.shape[0]:
            break
        for r in range(first, min(first + 8, places.shape[0])):
            word = words[r]
            position = positions[places[r] * width : (places[r] + 1) * width]
            to = x[r * row : r * row + width]
            for j in range(width):
                to[j] = word[j] + position[j]
    meet(sync, step, members)


@kernel
def gather_rows(
    x: Array, chosen: Array, row: int, y: Array, sync: Array, step: int, members: int
) -> None:
    """y's row i is x's row chosen[i]."""
    while True:
        i = claim(sync, step)
        if i >= chosen.shape[0]:
            break
        begin = chosen[i] * row
        y[i * row : (i + 1) * row] = x[begin : begin + row]
    meet(sync, step, members)
