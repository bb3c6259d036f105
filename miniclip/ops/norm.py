"""Normalisation: LayerNorm, BatchNorm (training and inference), unit length. docs/ops/norm.md."""

from __future__ import annotations

import numpy as np

from miniclip.ops.array import Array, Cache, check_floats, sum_to_last

CHANNEL_AXES = (0, 2, 3)  # all axes of (B, C, H, W) but the channels


def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Give every row mean 0 and variance 1, then scale and shift: y = x̂ w + b.

    x: (..., D). weight, bias: (D,). eps is added to the (biased) variance.
    Returns y (..., D) and the cache. float32 or float64, the same for all.
    Source: Ba, Kiros & Hinton 2016 (arXiv 1607.06450); `torch.nn.LayerNorm`.
    """
    check_floats("layer_norm", x=x, weight=weight, bias=bias)
    mean = x.mean(axis=-1, keepdims=True)  # (..., 1)
    centred = x - mean  # (..., D)
    var = (centred * centred).mean(axis=-1, keepdims=True)  # (..., 1)
    inv_std = 1.0 / np.sqrt(var + eps)
    y = centred * inv_std * weight + bias
    return y, (x, weight, mean, inv_std)


def layer_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (..., D). Returns dx (..., D), dweight (D,), dbias (D,)."""
    x, weight, mean, inv_std = cache
    x_hat = (x - mean) * inv_std  # (..., D)
    # y = x_hat * weight + bias
    dweight = sum_to_last(dy * x_hat)
    dbias = sum_to_last(dy)
    dx_hat = dy * weight
    # x_hat = (x - mean(x)) / std(x): moving x along 1 does not change x_hat, and along x_hat only
    # as far as eps lets it, so both directions are projected out of the gradient
    along_one = dx_hat.mean(axis=-1, keepdims=True)
    along_x_hat = (dx_hat * x_hat).mean(axis=-1, keepdims=True)
    dx = inv_std * (dx_hat - along_one - x_hat * along_x_hat)
    return dx, dweight, dbias


def per_channel(v: Array) -> Array:
    """(C,) -> (1, C, 1, 1), to meet (B, C, H, W)."""
    return v.reshape(1, -1, 1, 1)


def batch_norm(
    x: Array, weight: Array, bias: Array, eps: float = 1e-5
) -> tuple[Array, Array, Array, Cache]:
    """BatchNorm in training: every channel gets mean 0 and variance 1 over the whole batch.

    x: (B, C, H, W). weight, bias: (C,). The normalisation divides by the biased variance.
    Returns y (B, C, H, W), mean (C,), var (C,) and the cache. The returned `var` is the unbiased
    one (divided by n - 1), which is what running statistics average. float32 or float64.
    Raises ValueError for one value per channel, whose variance does not exist.
    Source: Ioffe & Szegedy 2015 (arXiv 1502.03167); `torch.nn.BatchNorm2d`.
    """
    check_floats("batch_norm", x=x, weight=weight, bias=bias)
    n = x.shape[0] * x.shape[2] * x.shape[3]  # values per channel
    if n < 2:
        raise ValueError(
            f"batch_norm: x of shape {tuple(x.shape)} has {n} value per channel, expected at least "
            "2 in training (use a larger batch or batch_norm_inference)"
        )
    mean = x.mean(axis=CHANNEL_AXES)  # (C,)
    centred = x - per_channel(mean)
    var = (centred * centred).mean(axis=CHANNEL_AXES)  # (C,), biased
    inv_std = 1.0 / np.sqrt(var + eps)  # (C,)
    y = centred * per_channel(inv_std * weight) + per_channel(bias)
    return y, mean, var * (n / (n - 1)), (x, weight, mean, inv_std)


def batch_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (B, C, H, W). Returns dx (B, C, H, W), dweight (C,), dbias (C,).

    The gradient flows through the batch's mean and variance too; it does not flow through the
    `mean` and `var` that were returned for the running statistics.
    """
    x, weight, mean, inv_std = cache
    n = x.shape[0] * x.shape[2] * x.shape[3]
    x_hat = (x - per_channel(mean)) * per_channel(inv_std)
    # y = x_hat * weight + bias
    dweight = (dy * x_hat).sum(axis=CHANNEL_AXES)
    dbias = dy.sum(axis=CHANNEL_AXES)
    # x_hat = (x - mean(x)) / std(x), as in layer_norm_backward. dx_hat = dy * weight, so its means
    # are dbias * weight / n and dweight * weight / n, and weight stands before the whole.
    inside = dy - per_channel(dbias / n) - x_hat * per_channel(dweight / n)
    dx = per_channel(weight * inv_std) * inside
    return dx, dweight, dbias


def batch_norm_inference(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    eps: float = 1e-5,
) -> tuple[Array, Cache]:
    """BatchNorm with fixed statistics: a scale and a shift for every channel.

    x: (B, C, H, W). weight, bias, running_mean, running_var: (C,).
    Returns y (B, C, H, W) and the cache. float32 or float64, the same for all.
    Source: Ioffe & Szegedy 2015, algorithm 2; `torch.nn.BatchNorm2d.eval()`.
    """
    check_floats(
        "batch_norm_inference",
        x=x,
        weight=weight,
        bias=bias,
        running_mean=running_mean,
        running_var=running_var,
    )
    inv_std = 1.0 / np.sqrt(running_var + eps)  # (C,)
    y = (x - per_channel(running_mean)) * per_channel(inv_std * weight) + per_channel(bias)
    return y, (x, weight, running_mean, inv_std)


def batch_norm_inference_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (B, C, H, W). Returns dx (B, C, H, W), dweight (C,), dbias (C,).

    The running statistics are constants and have no gradient.
    """
    x, weight, running_mean, inv_std = cache
    # y = (x - running_mean) * (inv_std * weight) + bias
    dx = dy * per_channel(inv_std * weight)
    x_hat = (x - per_channel(running_mean)) * per_channel(inv_std)
    dweight = (dy * x_hat).sum(axis=CHANNEL_AXES)
    dbias = dy.sum(axis=CHANNEL_AXES)
    return dx, dweight, dbias


def l2_normalize(x: Array, eps: float = 1e-12) -> tuple[Array, Cache]:
    """Scale every row to unit length: y = x / |x|. A row with no entry above eps becomes zero.

    x: (..., D). Returns y (..., D) and the cache. float32 or float64. The row is first divided by
    its largest entry, so that squares neither overflow nor vanish.
    Source: CLIP section 2.3 (features are normalised before the cosine).
    """
    check_floats("l2_normalize", x=x)
    largest = np.abs(x).max(axis=-1, keepdims=True)  # (..., 1)
    has_direction = largest > eps
    inv_largest = has_direction / (largest + ~has_direction)  # 1 / largest, or 0
    scaled = x * inv_largest  # entries in [-1, 1], one of them +-1; or all zero
    length = np.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))  # 1 to sqrt(D); or 0
    y = scaled / (length + ~has_direction)
    return y, (y, inv_largest / (length + ~has_direction))  # the second is 1 / |x|, or 0


def l2_normalize_backward(dy: Array, cache: Cache) -> Array:
    """dy: (..., D). Returns dx (..., D), zero for rows that became zero (PyTorch: dy / eps)."""
    y, inv_norm = cache
    # y = x / |x|: lengthening x does not change y, so the part of dy along y is projected out
    along_y = (dy * y).sum(axis=-1, keepdims=True)
    return inv_norm * (dy - y * along_y)
