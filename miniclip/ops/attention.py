"""Scaled dot-product attention and what surrounds it. Derivations: docs/ops/attention.md."""

from __future__ import annotations

import numpy as np

from miniclip.ops.activation import softmax, softmax_backward
from miniclip.ops.array import Array, Cache, check_floats


def split_heads(x: Array, heads: int) -> Array:
    """(B, T, D) -> (B, H, T, D/H). A rearrangement: its backward is `merge_heads`."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """(B, H, T, d) -> (B, T, H * d). A rearrangement: its backward is `split_heads`."""
    batch, heads, tokens, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)


def split_qkv(qkv: Array, heads: int) -> tuple[Array, Array, Array]:
    """(B, T, 3D), q, k and v side by side -> three times (B, H, T, D/H). Backward: `join_qkv`."""
    width = qkv.shape[-1] // 3
    q, k, v = (qkv[..., i * width : (i + 1) * width] for i in range(3))  # (B, T, D) each
    return split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)


def join_qkv(q: Array, k: Array, v: Array) -> Array:
    """Three times (B, H, T, d) -> (B, T, 3 * H * d), side by side. Backward: `split_qkv`."""
    return np.concatenate([merge_heads(q), merge_heads(k), merge_heads(v)], axis=-1)


def causal_mask(tokens: int, like: Array) -> Array:
    """(T, T) in like's dtype: 0 on and below the diagonal, -inf above. Token t sees tokens <= t."""
    position = np.arange(tokens, like=like)
    future = position[None, :] > position[:, None]  # (T, T): key after query
    mask = np.zeros((tokens, tokens), like.dtype, like=like)
    mask[future] = -np.inf
    return mask


def attention_weights(q: Array, k: Array, mask: Array | None) -> tuple[Array, Cache]:
    """softmax(q kᵀ / sqrt(d) + mask), (B, H, Tq, T), and its cache. q, k: (B, H, T, d)."""
    scores = np.matmul(q, k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5  # (B, H, Tq, T)
    if mask is not None:
        scores = scores + mask
    return softmax(scores)


def scaled_dot_product_attention(
    q: Array, k: Array, v: Array, mask: Array | None = None
) -> tuple[Array, Cache]:
    """Every query takes the mean of the values, weighted by softmax(q kᵀ / sqrt(d) + mask).

    q: (B, H, Tq, d). k, v: (B, H, T, d). mask: (Tq, T), added to the scores before the softmax;
    0 keeps, -inf hides; no row may be hidden whole. It is a constant and has no gradient.
    Returns y (B, H, Tq, d) and the cache, which keeps no (Tq, T) array: the weights are made again
    in backward. float32 or float64, the same for all.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1.
    """
    check_floats("scaled_dot_product_attention", q=q, k=k, v=v, mask=mask)
    weights, _ = attention_weights(q, k, mask)  # (B, H, Tq, T)
    y = np.matmul(weights, v)  # (B, H, Tq, d)
    return y, (q, k, v, mask)


def scaled_dot_product_attention_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (B, H, Tq, d). Returns dq (B, H, Tq, d), dk and dv (B, H, T, d)."""
    q, k, v, mask = cache
    weights, softmax_cache = attention_weights(q, k, mask)  # (B, H, Tq, T)
    # y = weights @ v
    dv = np.matmul(weights.swapaxes(-1, -2), dy)  # (B, H, T, d)
    dweights = np.matmul(dy, v.swapaxes(-1, -2))  # (B, H, Tq, T)
    # weights = softmax(scores + mask); scores = q @ k.T / sqrt(d)
    dscores = softmax_backward(dweights, softmax_cache) * q.shape[-1] ** -0.5
    dq = np.matmul(dscores, k)  # (B, H, Tq, d)
    dk = np.matmul(dscores.swapaxes(-1, -2), q)  # (B, H, T, d)
    return dq, dk, dv
