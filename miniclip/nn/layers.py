"""The simple layers: parameters around one op each, under the names that PyTorch gives them."""

from __future__ import annotations

import numpy as np

from miniclip.nn.module import Module, Parameter
from miniclip.ops.array import Array


def zeros(*shape: int) -> Parameter:
    """A parameter to be filled by an initialisation or a checkpoint; no memory is touched yet."""
    return Parameter(np.zeros(shape, np.float32))


def ones(*shape: int) -> Parameter:
    return Parameter(np.ones(shape, np.float32))


class Linear(Module):
    """y = x Wᵀ + b: (..., in) -> (..., out)."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = zeros(n_out, n_in)
        self.bias = zeros(n_out) if bias else None

    def forward(self, x: Array) -> Array:
        bias = None if self.bias is None else self.bias.data
        y, cache = self.ops.linear(x, self.weight.data, bias)
        self.save(cache)
        return y

    def backward(self, dy: Array) -> Array:
        dx, dweight, dbias = self.ops.linear_backward(dy, self.saved())
        self.weight.add_grad(dweight)
        if self.bias is not None:
            self.bias.add_grad(dbias)
        return dx


class Conv2d(Module):
    """Convolution without bias: (B, C, H, W) -> (B, O, Ho, Wo)."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.weight = zeros(n_out, n_in, kernel, kernel)
        self.stride, self.padding = stride, padding

    def describe(self) -> str:
        return f"stride={self.stride}, padding={self.padding}"

    def forward(self, x: Array) -> Array:
        y, cache = self.ops.conv2d(x, self.weight.data, None, self.stride, self.padding)
        self.save(cache)
        return y

    def backward(self, dy: Array) -> Array:
        dx, dweight, _ = self.ops.conv2d_backward(dy, self.saved())
        self.weight.add_grad(dweight)
        return dx


class PatchEmbedding(Module):
    """Images to patch tokens, row by row: (B, C, H, W) -> (B, Gh * Gw, D). `conv1` of the ViTs."""

    def __init__(self, channels: int, width: int, patch: int, stride: int) -> None:
        super().__init__()
        self.weight = zeros(width, channels, patch, patch)
        self.stride = stride

    def describe(self) -> str:
        return f"stride={self.stride}"

    def forward(self, x: Array) -> Array:
        y, cache = self.ops.patch_embedding(x, self.weight.data, self.stride)
        self.save(cache)
        return y

    def backward(self, dy: Array) -> Array:
        dx, dweight = self.ops.patch_embedding_backward(dy, self.saved())
        self.weight.add_grad(dweight)
        return dx


class BatchNorm2d(Module):
    """BatchNorm over (B, C, H, W): by the batch's statistics in training, else by running ones.

    In training the running statistics move a tenth of the way (`momentum`) to the batch's mean and
    unbiased variance, as in PyTorch.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight, self.bias = ones(channels), zeros(channels)
        self.add_buffer("running_mean", np.zeros(channels, np.float32))
        self.add_buffer("running_var", np.ones(channels, np.float32))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Array) -> Array:
        if self.training:
            return self.forward_training(x)
        mean, var = self.buffers_["running_mean"], self.buffers_["running_var"]
        y, cache = self.ops.batch_norm_inference(
            x, self.weight.data, self.bias.data, mean, var, self.eps
        )
        self.save((False, cache))
        return y

    def forward_training(self, x: Array) -> Array:
        y, mean, var, cache = self.ops.batch_norm(x, self.weight.data, self.bias.data, self.eps)
        for name, new in (("running_mean", mean), ("running_var", var)):
            old = self.buffers_[name]
            self.buffers_[name] = old + self.momentum * (new - old)
        self.save((True, cache))
        return y

    def backward(self, dy: Array) -> Array:
        by_batch, cache = self.saved()
        backward = (
            self.ops.batch_norm_backward if by_batch else self.ops.batch_norm_inference_backward
        )
        dx, dweight, dbias = backward(dy, cache)
        self.weight.add_grad(dweight)
        self.bias.add_grad(dbias)
        return dx


class LayerNorm(Module):
    """LayerNorm over the last axis: (..., D) -> (..., D)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = ones(width), zeros(width)
        self.eps = eps

    def forward(self, x: Array) -> Array:
        y, cache = self.ops.layer_norm(x, self.weight.data, self.bias.data, self.eps)
        self.save(cache)
        return y

    def backward(self, dy: Array) -> Array:
        dx, dweight, dbias = self.ops.layer_norm_backward(dy, self.saved())
        self.weight.add_grad(dweight)
        self.bias.add_grad(dbias)
        return dx


class Embedding(Module):
    """A vector for each id: (B, T) integers -> (B, T, D)."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.weight = zeros(words, width)

    def forward(self, ids: Array) -> Array:
        y, cache = self.ops.embedding(ids, self.weight.data)
        self.save(cache)
        return y

    def backward(self, dy: Array) -> None:
        """Ids have no gradient; the table gets its own."""
        self.weight.add_grad(self.ops.embedding_backward(dy, self.saved()))


class _Activation(Module):
    """One op without parameters; subclasses name it."""

    op: str

    def forward(self, x: Array) -> Array:
        y, cache = getattr(self.ops, self.op)(x)
        self.save(cache)
        return y

    def backward(self, dy: Array) -> Array:
        dx: Array = getattr(self.ops, f"{self.op}_backward")(dy, self.saved())
        return dx


class ReLU(_Activation):
    op = "relu"


class QuickGELU(_Activation):
    op = "quick_gelu"


class GELU(_Activation):
    op = "gelu"


class GELUTanh(_Activation):
    op = "gelu_tanh"


ACTIVATIONS: dict[str, type[_Activation]] = {
    "quick_gelu": QuickGELU,
    "gelu": GELU,
    "gelu_tanh": GELUTanh,
}


class AvgPool2d(Module):
    """Means over squares of kernel x kernel pixels: (B, C, H, W) -> (B, C, H // k, W // k)."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def describe(self) -> str:
        return f"kernel={self.kernel}"

    def forward(self, x: Array) -> Array:
        y, cache = self.ops.avg_pool2d(x, self.kernel)
        self.save(cache)
        return y

    def backward(self, dy: Array) -> Array:
        dx: Array = self.ops.avg_pool2d_backward(dy, self.saved())
        return dx


class Identity(Module):
    """y = x: takes the place of a layer that other blocks have."""

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Array) -> Array:
        return dy


class GlobalAveragePool2d(Module):
    """The mean of all pixels, projected: (B, C, H, W) -> (B, E). The plain choice of pooling."""

    WAYS = ("dense",)

    def __init__(self, channels: int, embed: int) -> None:
        super().__init__()
        self.c_proj = Linear(channels, embed)

    def forward(self, x: Array) -> Array:
        pooled, cache = self.ops.global_avg_pool(x)  # (B, C)
        self.save(cache)
        y: Array = self.c_proj(pooled)
        return y

    def backward(self, dy: Array) -> Array:
        dpooled = self.c_proj.backward(dy)
        dx: Array = self.ops.global_avg_pool_backward(dpooled, self.saved())
        return dx

    def dense(self, x: Array, positions: bool = False) -> Array:
        """Each pixel through the projection: (B, C, H, W) -> (B, H * W, E). Their mean is the
        embedding. There are no positions to add: ValueError if they are asked for.
        """
        if positions:
            raise ValueError("positions: got True, but the plain mean of all pixels has none")
        self.save(tuple(x.shape), "dense")
        y: Array = self.c_proj(map_to_tokens(x))
        return y

    def dense_backward(self, dy: Array) -> Array:
        """dy: (B, H * W, E). Returns dx (B, C, H, W)."""
        return tokens_to_map(self.c_proj.backward(dy), self.saved("dense"))


def map_to_tokens(x: Array) -> Array:
    """A feature map's pixels as tokens, row by row: (B, C, H, W) -> (B, H * W, C).

    A rearrangement (of a map in one piece a view): its backward is `tokens_to_map`.
    """
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height * width).transpose(0, 2, 1)


def tokens_to_map(tokens: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `map_to_tokens`: (B, H * W, C) -> shape, (B, C, H, W)."""
    return tokens.transpose(0, 2, 1).reshape(shape)
