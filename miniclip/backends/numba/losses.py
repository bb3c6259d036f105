"""The Numba backend's losses: products by the team, and log-sum-exp in compiled rows.

Gradients are written from log-sum-exp as well, softmax(z) = e^(z - lse): a forward keeps the lse of
rows and columns, two vectors, and backward makes the logits again.
"""

from __future__ import annotations

import numpy as np

from miniclip.backends.numba import row_kernels as kernels
from miniclip.cpu.arrays import ready
from miniclip.cpu.products import product
from miniclip.cpu.share import in_pieces, rows_at_once
from miniclip.ops.activation import sigmoid
from miniclip.ops.array import Array, Cache, check_floats
from miniclip.ops.loss import pair_targets, target_shares, target_signs

OWN = ("cosine_logits", "cross_entropy", "contrastive_loss", "sigmoid_loss")
__all__ = [*OWN, *(f"{name}_backward" for name in OWN)]


def log_sum_exp(x: Array) -> Array:
    """ln sum e^x over the rows of a C-ordered matrix: (N, M) -> (N,)."""
    lse = np.empty(len(x), x.dtype)
    in_pieces(
        len(x),
        rows_at_once(x.shape[1]),
        2 * x.size,
        lambda _, at: kernels.log_sum_exp(x[at], lse[at]),
    )
    return lse


def cosine_logits(images: Array, texts: Array, log_scale: Array) -> tuple[Array, Cache]:
    """How well every image fits every text: exp(log_scale) times their cosine.

    images: (N, E). texts: (M, E). Both of unit length. log_scale: 0 dimensions.
    Returns logits (N, M), `logits_per_image` of the original, and the cache. float32 or float64.
    """
    check_floats("cosine_logits", images=images, texts=texts, log_scale=log_scale)
    return np.exp(log_scale) * product(images, texts.T), (images, texts, log_scale)  # (N, M)


def cosine_logits_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (N, M). Returns dimages (N, E), dtexts (M, E), dlog_scale (0 dimensions)."""
    return from_logits(dy, cosine_logits(*cache)[0], cache)


def from_logits(dlogits: Array, logits: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """As cosine_logits_backward, with the logits at hand."""
    images, texts, log_scale = cache
    # logits = scale * images @ texts.T, and scale is its own derivative by log_scale
    dcosines = np.exp(log_scale) * dlogits  # (N, M)
    return product(dcosines, texts), product(dcosines.T, images), (dlogits * logits).sum()


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Cache]:
    """The mean of -ln softmax(logits)[target] over the rows.

    logits: (N, C). targets: (N,) integers in [0, C). Returns the loss, a number of 0 dimensions,
    and the cache. float32 or float64.
    """
    check_floats("cross_entropy", logits=logits)
    lse = log_sum_exp(ready(logits, logits.shape, logits.dtype))
    loss = (lse - logits[np.arange(len(logits)), targets]).mean()
    return loss, (logits, targets, lse)


def cross_entropy_backward(dy: Array, cache: Cache) -> Array:
    """dy: a number. Returns dlogits (N, C); the targets have no gradient."""
    logits, targets, lse = cache
    # d lse / d logits = softmax(logits)
    dlogits = softmax_from(ready(logits, logits.shape, logits.dtype), lse)
    dlogits[np.arange(len(logits)), targets] -= 1
    dlogits *= dy / logits.shape[0]
    return dlogits


def softmax_from(x: Array, lse: Array) -> Array:
    """e^(x - lse), row by row."""
    y = np.empty(x.shape, x.dtype)
    in_pieces(
        len(x),
        rows_at_once(x.shape[1]),
        2 * x.size,
        lambda _, at: kernels.softmax_from(x[at], lse[at], y[at]),
    )
    return y


def contrastive_loss(
    images: Array, texts: Array, log_scale: Array, targets: Array | None = None
) -> tuple[Array, Cache]:
    """CLIP's symmetric loss: each image should choose its text and each text its image.

    images: (N, E). texts: (M, E). Both of unit length (`l2_normalize`). log_scale: 0 dimensions.
    targets: None when text i belongs to image i (then M = N), or (N, M) with a positive number
    where image and text belong together, 0 elsewhere: captions that occur more than once. Each row
    is divided by its sum for the images' choice, each column for the texts'; every row and
    column needs one positive.
    Returns the loss, a number of 0 dimensions, and the cache. float32 or float64.
    """
    check_floats("contrastive_loss", images=images, texts=texts, log_scale=log_scale)
    logits, logits_cache = cosine_logits(images, texts, log_scale)  # (N, M)
    by_image, by_text = log_sum_exp(logits), log_sum_exp(np.ascontiguousarray(logits.T))
    if targets is None:
        if len(images) != len(texts):
            pair_targets(targets, logits)  # says what is wrong
        wanted = wanted_by_texts = np.diagonal(logits)
    else:
        pairs = pair_targets(targets, logits)
        chosen = pairs * logits  # (N, M)
        wanted = chosen.sum(axis=1) / pairs.sum(axis=1)
        wanted_by_texts = chosen.sum(axis=0) / pairs.sum(axis=0)
    loss = 0.5 * ((by_image - wanted).mean() + (by_text - wanted_by_texts).mean())
    return loss, (logits_cache, targets, by_image, by_text)


def contrastive_loss_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: a number. Returns dimages (N, E), dtexts (M, E), dlog_scale (0 dimensions)."""
    logits_cache, targets, by_image, by_text = cache
    logits, _ = cosine_logits(*logits_cache)  # (N, M), made again
    n, m = logits.shape
    # loss = 1/2 mean_i(lse_i - wanted_i . logits_i) + 1/2 mean_j(the same down the columns)
    dlogits = softmax_from(logits, by_image) / n
    dlogits += softmax_from(np.ascontiguousarray(logits.T), by_text).T / m
    if targets is None:
        dlogits[np.arange(n), np.arange(n)] -= 1 / n + 1 / m
    else:
        per_image, per_text = target_shares(targets, logits)  # (N, M) each
        dlogits -= per_image / n
        dlogits -= per_text / m
    dlogits *= 0.5 * dy
    return from_logits(dlogits, logits, logits_cache)


def sigmoid_loss(
    images: Array, texts: Array, log_scale: Array, bias: Array, targets: Array | None = None
) -> tuple[Array, Cache]:
    """SigLIP's loss: every pair for itself is asked, do you belong together?

    images: (N, E). texts: (M, E). Both of unit length. log_scale, bias: 0 dimensions.
    targets: None for text i with image i (M = N), or (N, M), positive where they belong together.
    The sum of -ln sigmoid(+-(scale cosine + bias)) over all pairs, divided by N.
    Returns the loss, a number of 0 dimensions, and the cache. float32 or float64.
    """
    check_floats("sigmoid_loss", images=images, texts=texts, log_scale=log_scale, bias=bias)
    scaled, scaled_cache = cosine_logits(images, texts, log_scale)  # (N, M)
    wrongness = -target_signs(targets, scaled) * (scaled + bias)  # (N, M)
    # -ln sigmoid(-w) = ln(1 + e^w) = max(w, 0) + ln(1 + e^-|w|)
    terms = np.maximum(wrongness, 0.0) + np.log1p(np.exp(-np.abs(wrongness)))
    return terms.sum() / images.shape[0], (scaled_cache, bias, targets)


def sigmoid_loss_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array, Array]:
    """dy: a number. Returns dimages (N, E), dtexts (M, E), dlog_scale, dbias (0 dimensions)."""
    scaled_cache, bias, targets = cache
    scaled, _ = cosine_logits(*scaled_cache)  # (N, M), made again
    sign = target_signs(targets, scaled)
    # terms = ln(1 + e^w), w = -sign (scaled + bias)
    dlogits = -sign * sigmoid(-sign * (scaled + bias)) * (dy / scaled.shape[0])  # (N, M)
    return *from_logits(dlogits, scaled, scaled_cache), dlogits.sum()
