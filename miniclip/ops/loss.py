"""Losses, all by log-sum-exp so that nothing under- or overflows. Derivations: docs/ops/loss.md.

The contrastive losses act on features of unit length and on the logarithm of the scale (inverse
temperature), `log_scale`: CLIP's parameter `logit_scale`, a number such as ln 100 = 4.6.
"""

from __future__ import annotations

import numpy as np

from miniclip.ops.activation import sigmoid, softmax
from miniclip.ops.array import Array, Cache, check_floats, one_hot_rows


def log_sum_exp(x: Array) -> Array:
    """ln sum e^x over the last axis, with the maximum taken out first: (..., N) -> (...)."""
    largest = x.max(axis=-1, keepdims=True)
    return np.log(np.exp(x - largest).sum(axis=-1)) + largest[..., 0]


def cosine_logits(images: Array, texts: Array, log_scale: Array) -> tuple[Array, Cache]:
    """How well every image fits every text: exp(log_scale) times their cosine.

    images: (N, E). texts: (M, E). Both of unit length. log_scale: 0 dimensions.
    Returns logits (N, M), `logits_per_image` of the original, and the cache. float32 or float64.
    Source: CLIP figure 3; `CLIP.forward` in the original model.py.
    """
    check_floats("cosine_logits", images=images, texts=texts, log_scale=log_scale)
    logits = np.exp(log_scale) * (images @ texts.T)  # (N, M)
    return logits, (images, texts, log_scale)


def cosine_logits_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (N, M). Returns dimages (N, E), dtexts (M, E), dlog_scale (0 dimensions)."""
    images, texts, log_scale = cache
    scale = np.exp(log_scale)
    # logits = scale * images @ texts.T, and scale is its own derivative by log_scale
    dcosines = scale * dy  # (N, M)
    dlog_scale = (dcosines * (images @ texts.T)).sum()
    return dcosines @ texts, dcosines.T @ images, dlog_scale


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Cache]:
    """The mean of -ln softmax(logits)[target] over the rows.

    logits: (N, C). targets: (N,) integers in [0, C). Returns the loss, a number of 0 dimensions,
    and the cache. float32 or float64. Source: `torch.nn.functional.cross_entropy`.
    """
    check_floats("cross_entropy", logits=logits)
    wanted = one_hot_rows(targets, logits.shape[1], logits.dtype)  # (N, C)
    loss = (log_sum_exp(logits) - (wanted * logits).sum(axis=-1)).mean()
    return loss, (logits, targets)


def cross_entropy_backward(dy: Array, cache: Cache) -> Array:
    """dy: a number. Returns dlogits (N, C); the targets have no gradient."""
    logits, targets = cache
    wanted = one_hot_rows(targets, logits.shape[1], logits.dtype)  # (N, C)
    # d logsumexp(z) / dz = softmax(z)
    return (softmax(logits)[0] - wanted) * (dy / logits.shape[0])


def pair_targets(targets: Array | None, logits: Array) -> Array:
    """Which image and which text belong together: (N, M) numbers in the dtype of the logits.

    targets: (N, M), positive where they do and 0 elsewhere; None: text i belongs to image i.
    logits: (N, M). Raises ValueError for targets of another shape, and for None unless N = M.
    """
    if targets is None and logits.shape[0] != logits.shape[1]:
        raise ValueError(f"targets: got None for logits {tuple(logits.shape)}, expected pairs")
    if targets is not None and targets.shape != logits.shape:
        raise ValueError(f"targets: got {tuple(targets.shape)}, expected {tuple(logits.shape)}")
    if targets is None:
        return one_hot_rows(np.arange(logits.shape[0], like=logits), logits.shape[1], logits.dtype)
    return targets.astype(logits.dtype)


def target_shares(targets: Array | None, logits: Array) -> tuple[Array, Array]:
    """How each choice is shared out among its right answers: two matrices, (N, M) each.

    In the first every row sums to 1 (an image's choice among the texts), in the second every column
    (a text's choice among the images). targets, logits and errors as in `pair_targets`.
    Source: Khosla et al. 2020 (arXiv 2004.11362), the mean over positives outside the logarithm.
    """
    pairs = pair_targets(targets, logits)
    return pairs / pairs.sum(axis=1, keepdims=True), pairs / pairs.sum(axis=0, keepdims=True)


def target_signs(targets: Array | None, logits: Array) -> Array:
    """(N, M): +1 where image and text belong together, -1 elsewhere. Arguments: `pair_targets`."""
    return 2.0 * (pair_targets(targets, logits) > 0).astype(logits.dtype) - 1.0


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
    Source: CLIP figure 3; multi-positive targets as in Khosla et al. 2020 (arXiv 2004.11362).
    """
    check_floats("contrastive_loss", images=images, texts=texts, log_scale=log_scale)
    logits, logits_cache = cosine_logits(images, texts, log_scale)  # (N, M)
    per_image, per_text = target_shares(targets, logits)  # (N, M) each
    image_loss = (log_sum_exp(logits) - (per_image * logits).sum(axis=1)).mean()
    text_loss = (log_sum_exp(logits.T) - (per_text * logits).sum(axis=0)).mean()
    loss = 0.5 * (image_loss + text_loss)
    return loss, (logits_cache, targets)


def contrastive_loss_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: a number. Returns dimages (N, E), dtexts (M, E), dlog_scale (0 dimensions)."""
    logits_cache, targets = cache
    logits, _ = cosine_logits(*logits_cache)  # (N, M), made again
    n, m = logits.shape
    per_image, per_text = target_shares(targets, logits)
    # loss = 1/2 mean_i(lse_i - wanted_i . logits_i) + 1/2 mean_j(the same down the columns)
    dlogits = (softmax(logits)[0] - per_image) / n + (softmax(logits.T)[0].T - per_text) / m
    return cosine_logits_backward(dlogits * (0.5 * dy), logits_cache)


def sigmoid_loss(
    images: Array, texts: Array, log_scale: Array, bias: Array, targets: Array | None = None
) -> tuple[Array, Cache]:
    """SigLIP's loss: every pair for itself is asked, do you belong together?

    images: (N, E). texts: (M, E). Both of unit length. log_scale, bias: 0 dimensions.
    targets: None for text i with image i (M = N), or (N, M), positive where they belong together.
    The sum of -ln sigmoid(+-(scale cosine + bias)) over all pairs, divided by N.
    Returns the loss, a number of 0 dimensions, and the cache. float32 or float64.
    Source: Zhai et al. 2023 (arXiv 2303.15343), algorithm 1.
    """
    check_floats("sigmoid_loss", images=images, texts=texts, log_scale=log_scale, bias=bias)
    scaled, scaled_cache = cosine_logits(images, texts, log_scale)  # (N, M)
    sign = target_signs(targets, scaled)  # (N, M): +1 together, -1 not
    wrongness = -sign * (scaled + bias)  # (N, M)
    # -ln sigmoid(-w) = ln(1 + e^w) = max(w, 0) + ln(1 + e^-|w|)
    terms = np.maximum(wrongness, 0.0) + np.log1p(np.exp(-np.abs(wrongness)))
    loss = terms.sum() / images.shape[0]
    return loss, (scaled_cache, bias, targets)


def sigmoid_loss_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array, Array]:
    """dy: a number. Returns dimages (N, E), dtexts (M, E), dlog_scale, dbias (0 dimensions)."""
    scaled_cache, bias, targets = cache
    scaled, _ = cosine_logits(*scaled_cache)  # (N, M), made again
    sign = target_signs(targets, scaled)
    # terms = ln(1 + e^w), w = -sign (scaled + bias)
    dlogits = -sign * sigmoid(-sign * (scaled + bias)) * (dy / scaled.shape[0])  # (N, M)
    dimages, dtexts, dlog_scale = cosine_logits_backward(dlogits, scaled_cache)
    return dimages, dtexts, dlog_scale, dlogits.sum()
