"""The compiled steps of a plan on a CPU. Every member of the team runs the same call.

All arrays are flat float32 (float64 in no plan), with offsets and strides in numbers, because one
array serves many shapes. Each kernel divides its work into pieces that the members take one after
the other (`claim`), and ends when all are done (`meet`); `sync`, `step`, `members` are for that.
A kernel that needs room of its own gets `scratch` and where its member's part begins, `at`.

"rows" are tokens or pixels, "depth" is the axis that a product sums over. Weights come packed in
panels (packing.py): `panel` columns next to each other for every k, panel after panel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from miniclip.backends.numba_kernels import (
    AS_WRITTEN,
    SUMS,
    erfcx,
    exp_of_negative,
    order,
    unorder,
)
from miniclip.backends.numba_team import claim, meet
from miniclip.backends.numba_tiles import LANES, PANEL, ROWS, tile_product
from miniclip.ops.array import Array

kernel = njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
entries = njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")

DEPTH = 1024  # of one pass: PANEL x DEPTH numbers of B are 256 KiB, and stay in the second cache

# what follows a product; ReLU is a lowest value of 0 and costs nothing
NOTHING, QUICK_GELU, GELU, GELU_TANH = 0, 1, 2, 3
SLOPE = np.float32(1.702)
ROOT_HALF = np.float32(0.5**0.5)
TANH_SCALE = np.float32(2 * (2 / np.pi) ** 0.5)
TANH_CUBE = np.float32(0.044715)
ONE, HALF = np.float32(1), np.float32(0.5)


# --- Activations, in place on a row of a tile -----------------------------------------------------


@entries
def quick_gelu_row(x: Array) -> None:
    """x = x sigmoid(1.702 x)."""
    for j in range(x.shape[0]):
        small = exp_of_negative(-abs(SLOPE * x[j]))
        x[j] = x[j] * (ONE if x[j] >= 0 else small) / (ONE + small)


@entries
def gelu_row(x: Array) -> None:
    """x = x Phi(x)."""
    for j in range(x.shape[0]):
        tail = HALF * exp_of_negative(-HALF * x[j] * x[j]) * erfcx(abs(x[j]) * ROOT_HALF)
        x[j] = x[j] * (tail if x[j] < 0 else ONE - tail)


@entries
def gelu_tanh_row(x: Array) -> None:
    """x = x (1 + tanh u) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    for j in range(x.shape[0]):
        u2 = TANH_SCALE * (x[j] + TANH_CUBE * x[j] * x[j] * x[j])
        small = exp_of_negative(-abs(u2))
        x[j] = x[j] * (ONE if x[j] >= 0 else small) / (ONE + small)


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


# --- Products -------------------------------------------------------------------------------------


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
    """A block of rows times one panel of weights, tile by tile. columns: those of the panel."""
    vectors = columns // LANES
    tiles = (rows + ROWS - 1) // ROWS
    for k in range(0, depth, DEPTH):
        some = min(DEPTH, depth - k)
        last = k + some == depth
        row = 0
        for tile in range(tiles):
            height = (rows - row + tiles - tile - 1) // (tiles - tile)  # all nearly alike
            here = at_c + row * row_c
            tile_product(
                height, vectors,
                a, at_a + row * row_a + k, row_a, 1,
                w, at_w + k * columns, columns,
                c, here, row_c,
                some, add or k > 0, last, bias, at_bias, lowest,
            )  # fmt: skip
            if last and activation != NOTHING:
                activate(activation, c, here, row_c, height, columns)
            row += height


@kernel
def product(
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
def pack_panels(w: Array, panel: int, packed: Array, sync: Array, step: int, members: int) -> None:
    """(columns, depth) -> panels of (depth, columns), a transposition. Missing columns are 0."""
    columns, depth = w.shape
    padded = packed.shape[0] // depth
    while True:
        piece = claim(sync, step)
        first = piece * panel
        if first >= padded:
            break
        width = min(panel, padded - first)
        to = packed[depth * first : depth * (first + width)]
        for k0 in range(0, depth, LANES):  # a cache line of each row at a time
            for j in range(width):
                if first + j < columns:
                    row = w[first + j]
                    for k in range(k0, min(k0 + LANES, depth)):
                        to[k * width + j] = row[k]
                else:
                    for k in range(k0, min(k0 + LANES, depth)):
                        to[k * width + j] = 0
    meet(sync, step, members)


# --- Rows -----------------------------------------------------------------------------------------


@kernel
def normalize_row(x: Array, weight: Array, bias: Array, eps: Any, y: Array) -> None:
    """y = (x - mean) / sqrt(var + eps) weight + bias."""
    width = np.float32(x.shape[0])
    total = np.float32(0)
    for j in range(x.shape[0]):
        total += x[j]
    mean = total / width
    squares = np.float32(0)
    for j in range(x.shape[0]):
        squares += (x[j] - mean) * (x[j] - mean)
    inv_std = ONE / np.sqrt(squares / width + eps)
    for j in range(x.shape[0]):
        y[j] = (x[j] - mean) * inv_std * weight[j] + bias[j]


@kernel
def layer_norm(
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
            normalize_row(x[begin : begin + width], weight, bias, eps, y[begin : begin + width])
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
        normalize_row(to, weight, bias, eps, to)
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


# --- Attention ------------------------------------------------------------------------------------


@entries
def exponentials(row: Array, largest: Any) -> None:
    """row = e^(row - largest)."""
    for j in range(row.shape[0]):
        row[j] = exp_of_negative(row[j] - largest)


@kernel
def softmax_row(row: Array) -> None:
    """In place; see numba_kernels for the maximum of integers."""
    place = order(np.float32(-np.inf))
    for j in range(row.shape[0]):
        place = max(place, order(row[j]))
    exponentials(row, unorder(place))
    total = np.float32(0)
    for j in range(row.shape[0]):
        total += row[j]
    share = ONE / total
    for j in range(row.shape[0]):
        row[j] *= share


@kernel
def transpose_keys(
    x: Array, at: int, row: int, tokens: int, width: int, kt: Array, at_kt: int, padded: int
) -> None:
    """kt[j, t] = x[t, j], for a row of `padded` tokens, zero beyond the last."""
    for j in range(width):
        to = kt[at_kt + j * padded : at_kt + (j + 1) * padded]
        for t in range(tokens):
            to[t] = x[at + t * row + j]
        for t in range(tokens, padded):
            to[t] = 0


@kernel
def tiles_of(
    a: Array,
    at_a: int,
    row_a: int,
    rows: int,
    depth: int,
    b: Array,
    at_b: int,
    row_b: int,
    columns: int,
    c: Array,
    at_c: int,
    row_c: int,
    none: Array,
) -> None:
    """C = A B, where B is not packed: its rows are row_b apart. columns: a multiple of LANES."""
    for column in range(0, columns, PANEL):
        vectors = min(PANEL, columns - column) // LANES
        for row in range(0, rows, ROWS):
            tile_product(
                min(ROWS, rows - row), vectors,
                a, at_a + row * row_a, row_a, 1,
                b, at_b + column, row_b,
                c, at_c + row * row_c + column, row_c,
                depth, False, False, none, 0, none[0],
            )  # fmt: skip


@kernel
def attention(
    qkv: Array,
    row: int,
    starts: Array,
    heads: int,
    width: int,
    causal: bool,
    y: Array,
    row_y: int,
    queries: int,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """Self-attention of every head in every sequence: a head is a piece.

    qkv: rows of q, k and v, of `heads` heads of `width` numbers each (a multiple of LANES); q is
    scaled already. starts: (sequences + 1,), where each sequence's rows begin. y: rows of heads.
    `queries` rows of scores are in work at once; scratch has room for them and for the keys.
    """
    while True:
        piece = claim(sync, step)
        if piece >= heads * (starts.shape[0] - 1):
            break
        sequence, head = piece // heads, piece % heads
        start = starts[sequence]
        tokens = starts[sequence + 1] - start
        padded = (tokens + LANES - 1) // LANES * LANES
        at_q = start * row + head * width
        at_k, at_v = at_q + heads * width, at_q + 2 * heads * width
        at_scores = at + width * padded
        transpose_keys(qkv, at_k, row, tokens, width, scratch, at, padded)
        for first in range(0, tokens, queries):
            some = min(queries, tokens - first)
            seen = first + some if causal else tokens  # the keys that these queries look at
            columns = (seen + LANES - 1) // LANES * LANES
            tiles_of(
                qkv, at_q + first * row, row, some, width,
                scratch, at, padded, columns,
                scratch, at_scores, padded, scratch,
            )  # fmt: skip
            for q in range(some):
                own = first + q + 1 if causal else tokens
                begin = at_scores + q * padded
                softmax_row(scratch[begin : begin + own])
                scratch[begin + own : begin + columns] = 0
            tiles_of(
                scratch, at_scores, padded, some, seen,
                qkv, at_v, row, width,
                y, (start + first) * row_y + head * width, row_y, scratch,
            )  # fmt: skip
    meet(sync, step, members)


@kernel
def attend_once(
    r: Array,
    x: Array,
    row: int,
    width: int,
    starts: Array,
    heads: int,
    z: Array,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """One query a sequence: each head's weighted mean of the tokens themselves.

    r: (sequences, heads, row), what each head's query looks for in a token. x: the tokens, of
    `width` numbers. z: (sequences, heads, row). A sequence is a piece. scratch holds r transposed,
    (width, padded heads), and the scores, (tokens, padded heads).
    """
    padded = (heads + LANES - 1) // LANES * LANES
    while True:
        sequence = claim(sync, step)
        if sequence >= starts.shape[0] - 1:
            break
        start = starts[sequence]
        tokens = starts[sequence + 1] - start
        at_r = sequence * heads * row
        at_scores = at + width * padded
        transpose_keys(r, at_r, row, heads, width, scratch, at, padded)
        tiles_of(
            x, start * row, row, tokens, width,
            scratch, at, padded, padded,
            scratch, at_scores, padded, scratch,
        )  # fmt: skip
        softmax_columns(scratch[at_scores : at_scores + tokens * padded], tokens, padded)
        for column in range(0, row, PANEL):
            vectors = min(PANEL, row - column) // LANES
            for head in range(0, heads, ROWS):
                tile_product(
                    min(ROWS, heads - head), vectors,
                    scratch, at_scores + head, 1, padded,  # transposed: a head is a column
                    x, start * row + column, row,
                    z, at_r + head * row + column, row,
                    tokens, False, False, scratch, 0, ONE,
                )  # fmt: skip
    meet(sync, step, members)


@kernel
def softmax_columns(scores: Array, tokens: int, heads: int) -> None:
    """Softmax along the tokens, for all heads at once; (tokens, heads), in place."""
    largest = scores[:heads].copy()
    for t in range(1, tokens):
        row = scores[t * heads : (t + 1) * heads]
        for h in range(heads):
            largest[h] = row[h] if not row[h] <= largest[h] else largest[h]  # NaN stays
    total = np.zeros(heads, np.float32)
    for t in range(tokens):
        row = scores[t * heads : (t + 1) * heads]
        for h in range(heads):
            row[h] = exp_of_negative(row[h] - largest[h])
            total[h] += row[h]
    for t in range(tokens):
        row = scores[t * heads : (t + 1) * heads]
        for h in range(heads):
            row[h] /= total[h]


# --- Feature maps, (images, height, width, channels) ----------------------------------------------


@kernel
def unfold_images(
    images: Array,
    size: int,
    stride: int,
    padding: int,
    height: int,
    width: int,
    y: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """The pixels under each place of a size x size kernel, as rows: (B, C, H, W) ->
    (B, height, width, C size size). A piece is a line of places.
    """
    channels = images.shape[1]
    depth = channels * size * size
    while True:
        piece = claim(sync, step)
        if piece >= images.shape[0] * height:
            break
        image, line = piece // height, piece % height
        for place in range(width):
            begin = (piece * width + place) * depth
            unfold_place(
                images[image], line * stride - padding, place * stride - padding, size,
                y[begin : begin + depth],
            )  # fmt: skip
    meet(sync, step, members)


@kernel
def unfold_place(image: Array, top: int, left: int, size: int, y: Array) -> None:
    """What lies under a kernel whose corner is (top, left), zero outside: (C size size,)."""
    first, last = max(0, -left), min(size, image.shape[2] - left)
    for channel in range(image.shape[0]):
        for i in range(size):
            to = y[(channel * size + i) * size : (channel * size + i + 1) * size]
            if top + i < 0 or top + i >= image.shape[1]:
                to[:] = 0
                continue
            line = image[channel, top + i]
            to[:first] = 0
            for j in range(first, last):
                to[j] = line[left + j]
            to[last:] = 0


@kernel
def gather_places(
    x: Array,
    image: int,
    height: int,
    width: int,
    channels: int,
    size: int,
    first: int,
    count: int,
    scratch: Array,
    at: int,
) -> None:
    """Rows of a size x size convolution with stride 1: for `count` pixels from the first on, the
    pixels around each, (size, size, channels), zero outside.
    """
    around = size // 2
    depth = size * size * channels
    for n in range(count):
        line, column = (first + n) // width, (first + n) % width
        for i in range(size):
            above = line + i - around
            for j in range(size):
                beside = column + j - around
                begin = at + n * depth + (i * size + j) * channels
                to = scratch[begin : begin + channels]
                if 0 <= above < height and 0 <= beside < width:
                    where = ((image * height + above) * width + beside) * channels
                    to[:] = x[where : where + channels]
                else:
                    to[:] = 0


@kernel
def convolve(
    x: Array,
    images: int,
    height: int,
    width: int,
    channels: int,
    size: int,
    w: Array,
    panel: int,
    columns: int,
    bias: Array,
    lowest: Any,
    y: Array,
    block: int,
    scratch: Array,
    at: int,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """A size x size convolution with stride 1 and full padding: y = max(x * w + bias, lowest).

    x: (images, height, width, channels), y: the same with `columns` channels. A piece is `block`
    pixels of one image: their surroundings are gathered in scratch, then multiplied.
    """
    depth = size * size * channels
    pixels = height * width
    blocks = (pixels + block - 1) // block
    while True:
        piece = claim(sync, step)
        if piece >= images * blocks:
            break
        image, first = piece // blocks, piece % blocks * block
        count = min(block, pixels - first)
        gather_places(x, image, height, width, channels, size, first, count, scratch, at)
        for column in range(0, columns, panel):
            multiply(
                scratch, at, depth, count, depth,
                w, depth * column, min(panel, columns - column), bias, column, lowest, NOTHING,
                y, (image * pixels + first) * columns + column, columns, False,
            )  # fmt: skip
    meet(sync, step, members)


@kernel
def average_pool(
    x: Array,
    images: int,
    height: int,
    width: int,
    channels: int,
    size: int,
    y: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """Means over size x size pixels; rows and columns beyond the last whole square are left out."""
    lines, columns = height // size, width // size
    share = ONE / np.float32(size * size)
    while True:
        piece = claim(sync, step)
        if piece >= images * lines:
            break
        image, line = piece // lines, piece % lines
        for column in range(columns):
            begin = (piece * columns + column) * channels
            to = y[begin : begin + channels]
            to[:] = 0
            for i in range(size):
                for j in range(size):
                    where = (image * height + line * size + i) * width + column * size + j
                    pixel = x[where * channels : (where + 1) * channels]
                    for c in range(channels):
                        to[c] += pixel[c]
            for c in range(channels):
                to[c] *= share
    meet(sync, step, members)


@kernel
def pool_tokens(
    x: Array,
    images: int,
    pixels: int,
    channels: int,
    positions: Array,
    tokens: Array,
    mean: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """The attention pool's tokens: the mean pixel and the pixels, plus positions.

    positions: (1 + pixels, channels). tokens: images x (1 + pixels) rows. mean: the first of each
    image, once more, (images, channels): they are the queries.
    """
    share = ONE / np.float32(pixels)
    while True:
        image = claim(sync, step)
        if image >= images:
            break
        first = mean[image * channels : (image + 1) * channels]
        first[:] = 0
        for p in range(pixels):
            begin = (image * pixels + p) * channels
            pixel = x[begin : begin + channels]
            position = positions[(1 + p) * channels : (2 + p) * channels]
            begin = (image * (1 + pixels) + 1 + p) * channels
            to = tokens[begin : begin + channels]
            for c in range(channels):
                first[c] += pixel[c]
                to[c] = pixel[c] + position[c]
        position = positions[:channels]
        for c in range(channels):
            first[c] = first[c] * share + position[c]
        begin = image * (1 + pixels) * channels
        tokens[begin : begin + channels] = first
    meet(sync, step, members)


@kernel
def mean_pixel(
    x: Array,
    images: int,
    pixels: int,
    channels: int,
    y: Array,
    sync: Array,
    step: int,
    members: int,
) -> None:
    """The mean of all pixels of each image: (images, channels)."""
    share = ONE / np.float32(pixels)
    while True:
        image = claim(sync, step)
        if image >= images:
            break
        to = y[image * channels : (image + 1) * channels]
        to[:] = 0
        for p in range(pixels):
            begin = (image * pixels + p) * channels
            pixel = x[begin : begin + channels]
            for c in range(channels):
                to[c] += pixel[c]
        for c in range(channels):
            to[c] *= share
    meet(sync, step, members)
