"""The ResNet image tower: CLIP's modified ResNet with attention pooling (RN50 to RN50x64)."""

from __future__ import annotations

from miniclip.models.checks import check_gradient, check_images, check_tokens
from miniclip.models.config import VisionConfig
from miniclip.nn.attention import AttentionPool2d
from miniclip.nn.blocks import Bottleneck
from miniclip.nn.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAveragePool2d,
    ReLU,
    map_to_tokens,
    tokens_to_map,
)
from miniclip.nn.module import Module, Sequential
from miniclip.ops.array import Array


class ModifiedResNet(Module):
    """Images to embeddings: (B, 3, R, R) -> (B, E).

    An embedding is `pool(tokens(images))`: `tokens` gives every pixel of the last map.
    Three things differ from the usual ResNet: a stem of three 3x3 convolutions with an average
    pool; averages before strided convolutions; and the last pool, which is attention by default.
    With pool="average" it is the plain mean of all pixels and a projection.
    interpolate: let in images of other sizes, resizing the pool's positions.
    Source: CLIP section 2.4; `ModifiedResNet` of the original model.py.
    """

    WAYS = ("tokens", "pool", "dense")

    def __init__(self, config: VisionConfig, embed_dim: int) -> None:
        super().__init__()
        if not isinstance(config.layers, tuple):
            raise ValueError(f"vision.layers: got {config.layers}, expected four numbers of blocks")
        width, half = config.width, config.width // 2
        self.config = config
        self.interpolate = False
        # the stem: (B, 3, R, R) -> (B, width, R/4, R/4)
        self.conv1 = Conv2d(3, half, 3, stride=2, padding=1)
        self.bn1, self.relu1 = BatchNorm2d(half), ReLU()
        self.conv2 = Conv2d(half, half, 3, padding=1)
        self.bn2, self.relu2 = BatchNorm2d(half), ReLU()
        self.conv3 = Conv2d(half, width, 3, padding=1)
        self.bn3, self.relu3 = BatchNorm2d(width), ReLU()
        self.avgpool = AvgPool2d(2)
        # four stages, each half as fine and twice as wide: -> (B, 32 * width, R/32, R/32)
        self.layer1 = make_stage(width, width, config.layers[0], stride=1)
        self.layer2 = make_stage(4 * width, 2 * width, config.layers[1], stride=2)
        self.layer3 = make_stage(8 * width, 4 * width, config.layers[2], stride=2)
        self.layer4 = make_stage(16 * width, 8 * width, config.layers[3], stride=2)
        channels = 32 * width
        if config.pool == "attention":
            self.attnpool: AttentionPool2d | GlobalAveragePool2d = AttentionPool2d(
                config.grid, channels, config.heads, embed_dim
            )
        else:
            self.attnpool = GlobalAveragePool2d(channels, embed_dim)

    def forward(self, images: Array) -> Array:
        tokens = self.tokens(images)
        return self.pool(tokens, self.grid_of(*images.shape[2:]))

    def backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns dimages (B, 3, R, R)."""
        return self.tokens_backward(self.pool_backward(dy))

    # ------------------------------------------------------------------ every pixel

    def path(self) -> list[Module]:
        """All modules before the pool, in the order in which an image passes through them."""
        stem = [self.conv1, self.bn1, self.relu1, self.conv2, self.bn2, self.relu2]
        stem += [self.conv3, self.bn3, self.relu3, self.avgpool]
        return [*stem, self.layer1, self.layer2, self.layer3, self.layer4]

    def feature_map(self, images: Array) -> Array:
        """The last feature map: (B, 3, R, R) -> (B, C, H, W), C = 32 * width."""
        check_images(self, images, self.config.image_resolution, self.interpolate, 32)
        x = images
        for module in self.path():
            x = module(x)
        return x

    def feature_map_backward(self, dx: Array) -> Array:
        """dx: (B, C, H, W). Returns dimages (B, 3, R, R)."""
        for module in reversed(self.path()):
            dx = module.backward(dx)
        return dx

    def tokens(self, images: Array) -> Array:
        """The pixels of the last feature map: (B, 3, R, R) -> (B, G*G, C).

        Row by row from the top left; `grid_of` gives rows and columns. A view of the map.
        """
        x = self.feature_map(images)
        self.save(tuple(x.shape), "tokens")
        return map_to_tokens(x)

    def tokens_backward(self, dtokens: Array) -> Array:
        """dtokens: (B, G*G, C). Returns dimages (B, 3, R, R)."""
        batch, channels, height, width = shape = self.saved("tokens")
        check_gradient("dtokens", dtokens, (batch, height * width, channels), self.dtype)
        return self.feature_map_backward(tokens_to_map(dtokens, shape))

    def dense(self, images: Array, positions: bool = False) -> Array:
        """An embedding of each pixel of the last map: (B, 3, R, R) -> (B, G*G, E), not normalised.

        By the pool's projections alone, v_proj and c_proj (positions=True adds each pixel's
        position first); with the plain mean, by its one projection. To be compared with texts.
        """
        y = self.attnpool.dense(self.feature_map(images), positions)
        self.save(tuple(y.shape), "dense")
        return y

    def dense_backward(self, dy: Array) -> Array:
        """dy: (B, G*G, E). Returns dimages (B, 3, R, R)."""
        check_gradient("dy", dy, self.saved("dense"), self.dtype)
        return self.feature_map_backward(self.attnpool.dense_backward(dy))

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the last map for an image of so many pixels.

        The first convolution rounds up, the four averages after it round down.
        """
        return (height + 1) // 32, (width + 1) // 32

    # ------------------------------------------------------------------ one embedding

    def pool(self, tokens: Array, grid: tuple[int, int] | None = None) -> Array:
        """One embedding of all pixels: (B, rows * columns, C) -> (B, E).

        grid: (rows, columns), as `grid_of` gives them. It may be left out for images of the model's
        own size; a tower that lets in others (`interpolate`) needs it.
        """
        if grid is None and self.interpolate:
            raise ValueError("grid: got None, expected (rows, columns) where `.interpolate` is set")
        rows, columns = grid or (self.config.grid, self.config.grid)
        channels = 32 * self.config.width
        check_tokens(tokens, (None, rows * columns, channels), self.dtype)
        y: Array = self.attnpool(tokens_to_map(tokens, (len(tokens), channels, rows, columns)))
        self.save(tuple(y.shape), "pool")
        return y

    def pool_backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns dtokens (B, rows * columns, C)."""
        check_gradient("dy", dy, self.saved("pool"), self.dtype)
        return map_to_tokens(self.attnpool.backward(dy))


def make_stage(n_in: int, planes: int, blocks: int, stride: int) -> Sequential:
    """The first block changes size and width, the others keep them."""
    first = Bottleneck(n_in, planes, stride)
    n_out = planes * Bottleneck.EXPANSION
    rest = [(str(i), Bottleneck(n_out, planes)) for i in range(1, blocks)]
    return Sequential([("0", first), *rest])
