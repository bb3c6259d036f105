"""The ResNet image tower: CLIP's modified ResNet with attention pooling (RN50 to RN50x64)."""

from __future__ import annotations

from miniclip.models.checks import check_gradient, check_images
from miniclip.models.config import VisionConfig
from miniclip.nn.attention import AttentionPool2d
from miniclip.nn.blocks import Bottleneck
from miniclip.nn.layers import AvgPool2d, BatchNorm2d, Conv2d, GlobalAveragePool2d, ReLU
from miniclip.nn.module import Module, Sequential
from miniclip.ops.array import Array


class ModifiedResNet(Module):
    """Images to embeddings: (B, 3, R, R) -> (B, E).

    Three things differ from the usual ResNet: a stem of three 3x3 convolutions with an average
    pool; averages before strided convolutions; and the last pool, which is attention by default.
    With pool="average" it is the plain mean of all pixels and a projection.
    interpolate: let in images of other sizes, resizing the pool's positions.
    Source: CLIP section 2.4; `ModifiedResNet` of the original model.py.
    """

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
            self.attnpool: Module = AttentionPool2d(config.grid, channels, config.heads, embed_dim)
        else:
            self.attnpool = GlobalAveragePool2d(channels, embed_dim)

    def path(self) -> list[Module]:
        """All modules in the order in which an image passes through them."""
        stem = [self.conv1, self.bn1, self.relu1, self.conv2, self.bn2, self.relu2]
        stem += [self.conv3, self.bn3, self.relu3, self.avgpool]
        return [*stem, self.layer1, self.layer2, self.layer3, self.layer4, self.attnpool]

    def forward(self, images: Array) -> Array:
        check_images(self, images, self.config.image_resolution, self.interpolate, 32)
        x = images
        for module in self.path():
            x = module(x)
        self.save(tuple(x.shape))
        return x

    def backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns dimages (B, 3, R, R)."""
        check_gradient("dy", dy, self.saved(), self.dtype)
        for module in reversed(self.path()):
            dy = module.backward(dy)
        return dy


def make_stage(n_in: int, planes: int, blocks: int, stride: int) -> Sequential:
    """The first block changes size and width, the others keep them."""
    first = Bottleneck(n_in, planes, stride)
    n_out = planes * Bottleneck.EXPANSION
    rest = [(str(i), Bottleneck(n_out, planes)) for i in range(1, blocks)]
    return Sequential([("0", first), *rest])
