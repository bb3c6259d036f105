"""From pixels and token ids to token vectors, and back to one vector. docs/ops/embedding.md."""

from __future__ import annotations

import math

import numpy as np

from miniclip.ops.array import Array, Cache, check_floats, one_hot_rows
from miniclip.ops.conv import col2im, im2col


def embedding(ids: Array, table: Array) -> tuple[Array, Cache]:
    """Look every id up in the table: (B, T) integers, (V, D) -> (B, T, D).

    ids must lie in [0, V): the caller sees to it. Returns y and the cache. table: float32 or
    float64. Source: `torch.nn.Embedding`.
    """
    check_floats("embedding", table=table)
    return table[ids], (ids, table.shape)


def embedding_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, T, D). Returns dtable (V, D); the ids have no gradient."""
    ids, shape = cache
    rows = dy.reshape(-1, shape[1])  # (R, D), R = B * T
    # y[r] = table[ids[r]]: a word's gradient is the sum of dy over the places where it occurs,
    # here as a product with a matrix of zeros and ones over the words that occur (U of them)
    words, place = np.unique(ids.reshape(-1), return_inverse=True)
    occurs = one_hot_rows(place.reshape(-1), words.shape[0], dy.dtype)  # (R, U)
    dtable = np.zeros(shape, dy.dtype, like=dy)
    dtable[words] = occurs.T @ rows  # (U, R) @ (R, D)
    return dtable


def patch_embedding(x: Array, weight: Array, stride: int) -> tuple[Array, Cache]:
    """Cut images into patches and project each to a vector, row by row from the top left.

    x: (B, C, H, W). weight: (D, C, P, P). stride: pixels from one patch to the next; P for
    patches that do not overlap, less for patches that do.
    Returns y (B, Gh * Gw, D) with Gh = (H - P) // stride + 1, and the cache. float32 or float64.
    It is the convolution `conv1` of the original's VisionTransformer, written as tokens.
    Source: Dosovitskiy et al. 2020 (arXiv 2010.11929), equation 1.
    """
    check_floats("patch_embedding", x=x, weight=weight)
    width, _, patch, _ = weight.shape
    patches = cut_patches(x, patch, stride)  # (B, Gh*Gw, C*P*P)
    y = patches @ weight.reshape(width, -1).T  # (B, Gh*Gw, D)
    return y, (x, weight, stride)


def patch_embedding_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dy: (B, Gh * Gw, D). Returns dx (B, C, H, W), dweight (D, C, P, P)."""
    x, weight, stride = cache
    batch, channels, height, width = x.shape
    _, _, patch, _ = weight.shape
    rows, cols = (height - patch) // stride + 1, (width - patch) // stride + 1
    patches = cut_patches(x, patch, stride)  # (B, Gh*Gw, C*P*P)
    kernels = weight.reshape(weight.shape[0], -1)  # (D, C*P*P)
    # y = patches @ kernels.T
    flat = dy.reshape(-1, dy.shape[-1])  # (B*Gh*Gw, D)
    dkernels = flat.T @ patches.reshape(flat.shape[0], -1)
    dpatches = dy @ kernels  # (B, Gh*Gw, C*P*P)
    # patches = im2col(x), with the patches' axis moved last
    dcolumns = dpatches.transpose(0, 2, 1).reshape(batch, channels, patch, patch, rows, cols)
    return col2im(dcolumns, x.shape, stride, 0), dkernels.reshape(weight.shape)


def cut_patches(x: Array, patch: int, stride: int) -> Array:
    """(B, C, H, W) -> (B, Gh * Gw, C * P * P), one row a patch."""
    columns = im2col(x, (patch, patch), stride, 0)  # (B, C, P, P, Gh, Gw)
    batch, channels, _, _, rows, cols = columns.shape
    return columns.reshape(batch, channels * patch * patch, rows * cols).transpose(0, 2, 1)


def prepend_class_token(x: Array, class_embedding: Array) -> tuple[Array, Cache]:
    """Put the learned class token first in every image: (B, T, D), (D,) -> (B, 1 + T, D)."""
    check_floats("prepend_class_token", x=x, class_embedding=class_embedding)
    batch, _, width = x.shape
    first = np.broadcast_to(class_embedding, (batch, 1, width))
    return np.concatenate([first, x], axis=1), None


def prepend_class_token_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dy: (B, 1 + T, D). Returns dx (B, T, D), dclass_embedding (D,)."""
    # y = [class_embedding; x]: one class token serves all images, so its gradient is their sum
    return dy[:, 1:], dy[:, 0].sum(axis=0)


def mean_token(x: Array) -> tuple[Array, Cache]:
    """Put the mean of all tokens first in every image: (B, T, D) -> (B, 1 + T, D).

    The first step of CLIP's attention pool, whose only query is that mean. float32 or float64.
    Source: `AttentionPool2d` in the original model.py.
    """
    check_floats("mean_token", x=x)
    mean = x.mean(axis=1, keepdims=True)  # (B, 1, D)
    return np.concatenate([mean, x], axis=1), None


def mean_token_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, 1 + T, D). Returns dx (B, T, D)."""
    # y = [mean; x]: a token is there itself, and with a share of 1 / T in the mean
    return dy[:, 1:] + dy[:, :1] / (dy.shape[1] - 1)


def take_class_token(x: Array) -> tuple[Array, Cache]:
    """The vector of the first token, which speaks for the image: (B, T, D) -> (B, D)."""
    check_floats("take_class_token", x=x)
    return x[:, 0], x.shape


def take_class_token_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, D). Returns dx (B, T, D), zero at every other token."""
    # y = x[:, 0]
    dx = np.zeros(cache, dy.dtype, like=dy)
    dx[:, 0] = dy
    return dx


def add_positions(x: Array, positions: Array) -> tuple[Array, Cache]:
    """Add to token t of every sequence its position's vector: x + positions[:T].

    x: (B, T, D). positions: (N, D) with N >= T; a sequence shorter than N uses the first T rows.
    Returns y (B, T, D) and the cache. float32 or float64.
    """
    check_floats("add_positions", x=x, positions=positions)
    return x + positions[: x.shape[1]], positions.shape


def add_positions_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dy: (B, T, D). Returns dx (B, T, D), dpositions (N, D), zero for rows that were not used."""
    # y = x + positions[:T]: every sequence uses the same positions
    dpositions = np.zeros(cache, dy.dtype, like=dy)
    dpositions[: dy.shape[1]] = dy.sum(axis=0)
    return dy, dpositions


def end_of_text(ids: Array, end_id: int | None = None) -> Array:
    """Where the end-of-text token of each text is: (B, T) integers -> (B,) places in [0, T).

    end_id None: the first largest id, as in the original, whose end-of-text token is the last of
    the vocabulary. Otherwise the first place where ids == end_id; every text must have one, which
    the caller sees to. Source: `CLIP.encode_text` in the original model.py; with an id, `end_id` is
    what transformers calls `eos_token_id`.
    """
    return np.argmax(ids if end_id is None else ids == end_id, axis=-1)  # the first of equals


def gather_end_of_text(x: Array, ids: Array, end_id: int | None = None) -> tuple[Array, Cache]:
    """Pick the vector of each text's end-of-text token: (B, T, D), (B, T) -> (B, D).

    Where that token is: `end_of_text`. Source: `CLIP.encode_text` in the original model.py.
    """
    check_floats("gather_end_of_text", x=x)
    end = end_of_text(ids, end_id)  # (B,)
    return x[np.arange(x.shape[0], like=ids), end], (end, x.shape)


def gather_end_of_text_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, D). Returns dx (B, T, D), zero at every other token."""
    end, shape = cache
    # y[b] = x[b, end[b]]
    dx = np.zeros(shape, dy.dtype, like=dy)
    dx[np.arange(shape[0], like=end), end] = dy
    return dx


def interpolate_positions(
    positions: Array, grid: tuple[int, int], prefix: int = 1, antialias: bool = True
) -> tuple[Array, Cache]:
    """Resize a square grid of positional embeddings to another grid, by bicubic interpolation.

    positions: (prefix + G * G, D); the first `prefix` rows (the class token's) are kept as they
    are. grid: (rows, columns) wanted. antialias: True as in open_clip's `resize_pos_embed`, False
    as in transformers' `interpolate_pos_encoding`.
    Returns y (prefix + rows * columns, D) and the cache. float32 or float64.
    """
    check_floats("interpolate_positions", positions=positions)
    side = math.isqrt(positions.shape[0] - prefix)
    across = bicubic_matrix(side, grid[1], antialias, positions)  # (columns, G)
    down = bicubic_matrix(side, grid[0], antialias, positions)  # (rows, G)
    square = positions[prefix:].reshape(side, side, -1).transpose(2, 0, 1)  # (D, G, G)
    resized = down @ square @ across.T  # (D, rows, columns)
    tokens = resized.transpose(1, 2, 0).reshape(grid[0] * grid[1], -1)  # (rows*columns, D)
    return np.concatenate([positions[:prefix], tokens]), (down, across, prefix)


def interpolate_positions_backward(dy: Array, cache: Cache) -> Array:
    """dy: (prefix + rows * columns, D). Returns dpositions (prefix + G * G, D)."""
    down, across, prefix = cache
    (rows, side), cols = down.shape, across.shape[0]
    dresized = dy[prefix:].reshape(rows, cols, -1).transpose(2, 0, 1)  # (D, rows, columns)
    # resized = down @ square @ across.T
    dsquare = down.T @ dresized @ across  # (D, G, G)
    dtokens = dsquare.transpose(1, 2, 0).reshape(side * side, -1)
    return np.concatenate([dy[:prefix], dtokens])


def bicubic_matrix(n: int, m: int, antialias: bool, like: Array) -> Array:
    """The (m, n) matrix that resizes a line of n values to m, as torch's `interpolate` does.

    Output i looks at the input around (i + 1/2) n/m. Antialiased: the cubic is stretched by n/m
    when the line shrinks, and the weights of the inputs that exist are scaled to sum to 1 (cubic
    with a = -1/2, as in Pillow). Otherwise: four neighbours, the border's value repeated outside
    (a = -3/4).
    """
    source = np.arange(n, like=like).astype(like.dtype)  # (n,)
    centre = (np.arange(m, like=like).astype(like.dtype) + 0.5) * (n / m) - 0.5  # (m,), in pixels
    if antialias:
        stretch = max(n / m, 1.0)
        weights = cubic((source[None, :] - centre[:, None]) / stretch, -0.5)  # (m, n)
        return weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((m, n), like.dtype, like=like)
    for offset in (-1, 0, 1, 2):
        neighbour = np.floor(centre) + offset  # (m,)
        weight = cubic(neighbour - centre, -0.75)
        repeated = np.clip(neighbour, 0, n - 1)
        matrix = matrix + weight[:, None] * (repeated[:, None] == source[None, :])
    return matrix


def cubic(t: Array, a: float) -> Array:
    """Keys' cubic convolution kernel with parameter a, zero from |t| = 2 on (Keys 1981)."""
    t = np.abs(t)
    inner = ((a + 2) * t - (a + 3)) * t * t + 1  # |t| <= 1
    outer = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a  # 1 < |t| < 2
    return inner * (t <= 1) + outer * ((t > 1) & (t < 2))
