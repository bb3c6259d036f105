"""The blocks that the towers stack: bottlenecks in the ResNets, attention in the transformers."""

from __future__ import annotations

from typing import Any

from miniclip.nn.attention import MultiheadAttention
from miniclip.nn.layers import (
    ACTIVATIONS,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Identity,
    LayerNorm,
    Linear,
    ReLU,
)
from miniclip.nn.module import Module, Sequential
from miniclip.ops.array import Array


class Bottleneck(Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut: (B, C, H, W) -> (B, 4P, H/s, W/s).

    All convolutions have stride 1: a strided block averages s x s pixels after the second one and,
    in the shortcut (`downsample`), before its convolution. Source: CLIP section 2.4, anti-aliasing
    by Zhang 2019 (arXiv 1904.11486); `Bottleneck` of the original model.py.
    """

    EXPANSION = 4

    def __init__(self, n_in: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        n_out = planes * self.EXPANSION
        self.conv1, self.bn1, self.relu1 = Conv2d(n_in, planes, 1), BatchNorm2d(planes), ReLU()
        self.conv2 = Conv2d(planes, planes, 3, padding=1)
        self.bn2, self.relu2 = BatchNorm2d(planes), ReLU()
        self.avgpool = AvgPool2d(stride) if stride > 1 else Identity()
        self.conv3, self.bn3, self.relu3 = Conv2d(planes, n_out, 1), BatchNorm2d(n_out), ReLU()
        self.downsample: Sequential | None = None
        if stride > 1 or n_in != n_out:
            pool = AvgPool2d(stride) if stride > 1 else Identity()
            self.downsample = Sequential(
                [("-1", pool), ("0", Conv2d(n_in, n_out, 1)), ("1", BatchNorm2d(n_out))]
            )

    def forward(self, x: Array) -> Array:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.avgpool(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        z: Array = self.relu3(y + shortcut)
        return z

    def backward(self, dz: Array) -> Array:
        # z = relu3(y + shortcut): both get the same gradient
        dy = self.relu3.backward(dz)
        dshortcut = dy if self.downsample is None else self.downsample.backward(dy)
        dy = self.avgpool.backward(self.conv3.backward(self.bn3.backward(dy)))
        dy = self.conv2.backward(self.bn2.backward(self.relu2.backward(dy)))
        dx: Array = self.conv1.backward(self.bn1.backward(self.relu1.backward(dy)))
        return dx + dshortcut


class ResidualAttentionBlock(Module):
    """x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)): (B, T, D) -> (B, T, D).

    Source: `ResidualAttentionBlock` of the original model.py (pre-LayerNorm transformer).
    """

    WAYS = ("values",)

    def __init__(
        self, width: int, heads: int, mlp: int, activation: str, eps: float, causal: bool
    ) -> None:
        super().__init__()
        self.attn = MultiheadAttention(width, heads, causal)
        self.ln_1 = LayerNorm(width, eps)
        self.mlp = Sequential(
            [
                ("c_fc", Linear(width, mlp)),
                ("gelu", ACTIVATIONS[activation]()),
                ("c_proj", Linear(mlp, width)),
            ]
        )
        self.ln_2 = LayerNorm(width, eps)

    def forward(self, x: Array) -> Array:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

    def backward(self, dy: Array) -> Array:
        # y = x + mlp(ln_2(x)): the gradient goes along the branch and past it
        dy = dy + self.ln_2.backward(self.mlp.backward(dy))
        # x = x + attn(ln_1(x))
        return dy + self.ln_1.backward(self.attn.backward(dy))

    def values(self, x: Array, residual: bool) -> Array:
        """The block with attention by which every token looks at itself only; (B, T, D) twice.

        residual: with both shortcuts and the MLP, as in forward; False: the attention's part alone.
        """
        y = self.attn.values(self.ln_1(x))
        if residual:
            y = x + y
            y = y + self.mlp(self.ln_2(y))
        self.save(residual, "values")
        return y

    def values_backward(self, dy: Array) -> Array:
        residual = self.saved("values")
        if residual:
            dy = dy + self.ln_2.backward(self.mlp.backward(dy))
        dx = self.ln_1.backward(self.attn.values_backward(dy))
        return dy + dx if residual else dx


class Transformer(Module):
    """A stack of residual attention blocks: (B, T, D) -> (B, T, D)."""

    WAYS = ("values",)

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp: int,
        activation: str,
        eps: float = 1e-5,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        blocks = [
            (str(i), ResidualAttentionBlock(width, heads, mlp, activation, eps, causal))
            for i in range(layers)
        ]
        self.resblocks = Sequential(blocks)

    def forward(self, x: Array) -> Array:
        y: Array = self.resblocks(x)
        return y

    def backward(self, dy: Array) -> Array:
        return self.resblocks.backward(dy)

    def values(self, x: Array, residual: bool) -> Array:
        """All blocks, but in the last one every token looks at itself only; see the block's."""
        blocks: list[Any] = list(self.resblocks)
        for block in blocks[:-1]:
            x = block(x)
        y: Array = blocks[-1].values(x, residual)
        return y

    def values_backward(self, dy: Array) -> Array:
        blocks: list[Any] = list(self.resblocks)
        dx: Array = blocks[-1].values_backward(dy)
        for block in reversed(blocks[:-1]):
            dx = block.backward(dx)
        return dx
