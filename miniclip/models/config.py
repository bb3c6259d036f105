"""What a CLIP is made of: sizes of both towers, the nine originals, and inference from shapes.

Sizes that tensor shapes do not tell (the activation, the heads, an overlapping patch stride) are
fields like all others and are never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from miniclip.nn.layers import ACTIVATIONS

HEAD_WIDTH = 64  # of all nine original models; others differ (80 in ViT-H, 88 in g)


@dataclass(frozen=True)
class VisionConfig:
    """An image tower: a vision transformer, or a ResNet when `patch_size` is None.

    image_resolution: pixels along a side. layers: number of blocks, or blocks in each of the four
    ResNet stages. width: of the tokens, or of the ResNet's stem. heads: of attention, or of the
    attention pool. stride: pixels from patch to patch (None: patch_size). mlp_width: None is
    4 x width. proj: whether a projection to the embedding follows. pool: of a ResNet, "attention"
    or "average".
    """

    image_resolution: int
    layers: int | tuple[int, ...]
    width: int
    heads: int
    patch_size: int | None = None
    stride: int | None = None
    mlp_width: int | None = None
    activation: str = "quick_gelu"
    eps: float = 1e-5
    proj: bool = True
    pool: str = "attention"

    def __post_init__(self) -> None:
        check_sizes("vision", self, "image_resolution", "width", "heads")
        check_optional_sizes("vision", self, "patch_size", "stride", "mlp_width")
        check_choice("vision.activation", self.activation, ACTIVATIONS)
        check_eps("vision", self)
        check_choice("vision.pool", self.pool, ("attention", "average"))
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        if self.is_resnet:
            self._check_resnet()
        else:
            self._check_vit()

    @property
    def is_resnet(self) -> bool:
        return self.patch_size is None

    @property
    def grid(self) -> int:
        """Patches, or pixels of the last feature map, along a side."""
        if self.patch_size is None:
            return self.image_resolution // 32
        return (self.image_resolution - self.patch_size) // self.patch_stride + 1

    @property
    def patch_stride(self) -> int:
        if self.patch_size is None:
            raise ValueError("vision.stride: a ResNet has no patches")
        return self.stride or self.patch_size

    def _check_resnet(self) -> None:
        blocks = self.layers if isinstance(self.layers, tuple) else ()
        if len(blocks) != 4 or not all(is_size(n) for n in blocks):
            raise ValueError(
                f"vision.layers: got {self.layers!r}, expected four positive numbers of blocks for "
                "a ResNet (for a vision transformer set patch_size)"
            )
        if self.image_resolution % 32:
            raise ValueError(
                f"vision.image_resolution: got {self.image_resolution}, expected a multiple of 32 "
                "for a ResNet"
            )
        if self.width % 2:
            raise ValueError(f"vision.width: got {self.width}, expected an even stem width")
        check_heads("vision", 32 * self.width, self.heads)
        if self.stride is not None:
            raise ValueError(f"vision.stride: got {self.stride}, but a ResNet has no patches")
        if self.mlp_width is not None or not self.proj:
            field = "proj" if self.mlp_width is None else "mlp_width"
            value = getattr(self, field)
            raise ValueError(f"vision.{field}: got {value}, but a ResNet has no choice of it")

    def _check_vit(self) -> None:
        if self.pool != "attention":
            raise ValueError(
                f"vision.pool: got {self.pool!r}, but only a ResNet has a choice of it"
            )
        if not is_size(self.layers):
            raise ValueError(
                f"vision.layers: got {self.layers!r}, expected a positive number of blocks for a "
                "vision transformer (for a ResNet leave patch_size out)"
            )
        check_heads("vision", self.width, self.heads)
        if self.patch_size is not None and self.patch_size > self.image_resolution:
            raise ValueError(
                f"vision.patch_size: got {self.patch_size}, expected at most the image's "
                f"{self.image_resolution} pixels"
            )
        if self.patch_stride > (self.patch_size or 0):
            raise ValueError(
                f"vision.stride: got {self.stride}, expected at most patch_size {self.patch_size} "
                "(a larger one would leave pixels out)"
            )


@dataclass(frozen=True)
class TextConfig:
    """The text tower. end_id: the end-of-text token's id; None: the largest id of each text."""

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int
    mlp_width: int | None = None
    activation: str = "quick_gelu"
    eps: float = 1e-5
    end_id: int | None = None
    proj: bool = True

    def __post_init__(self) -> None:
        check_sizes("text", self, "context_length", "vocab_size", "width", "heads", "layers")
        check_optional_sizes("text", self, "mlp_width")
        check_eps("text", self)
        check_heads("text", self.width, self.heads)
        check_choice("text.activation", self.activation, ACTIVATIONS)
        if self.end_id is not None and not 0 <= self.end_id < self.vocab_size:
            raise ValueError(
                f"text.end_id: got {self.end_id}, expected an id below vocab_size {self.vocab_size}"
            )


@dataclass(frozen=True)
class CLIPConfig:
    """Both towers and the width of the embedding they share. A tower may be None, not both."""

    embed_dim: int
    vision: VisionConfig | None
    text: TextConfig | None

    def __post_init__(self) -> None:
        check_sizes("config", self, "embed_dim")
        if self.vision is None and self.text is None:
            raise ValueError("config: got neither vision nor text, expected at least one tower")
        for name, tower in (("vision", self.vision), ("text", self.text)):
            if tower is not None and not tower.proj and tower.width != self.embed_dim:
                raise ValueError(
                    f"{name}.proj: without a projection the width {tower.width} must be embed_dim "
                    f"{self.embed_dim}"
                )


def is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_sizes(where: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not is_size(value):
            raise ValueError(f"{where}.{name}: got {value!r}, expected a positive integer")


def check_optional_sizes(where: str, config: Any, *names: str) -> None:
    check_sizes(where, config, *(name for name in names if getattr(config, name) is not None))


def check_eps(where: str, config: Any) -> None:
    """A positive number; kept as a Python float, as NumPy's would widen float32 to float64."""
    value = config.eps
    if not isinstance(value, float | int) or not 0 < value < math.inf:
        raise ValueError(f"{where}.eps: got {value!r}, expected a small positive number")
    object.__setattr__(config, "eps", float(value))


def check_heads(where: str, width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"{where}.heads: got {heads}, expected a divisor of the width {width}")


def check_choice(where: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{where}: got {value!r}, expected one of {', '.join(choices)}")


def _text(width: int) -> TextConfig:
    return TextConfig(77, 49408, width, width // HEAD_WIDTH, 12)


def _vit(embed: int, pixels: int, layers: int, width: int, patch: int, text: int) -> CLIPConfig:
    vision = VisionConfig(pixels, layers, width, width // HEAD_WIDTH, patch_size=patch)
    return CLIPConfig(embed, vision, _text(text))


def _resnet(embed: int, pixels: int, layers: tuple[int, ...], width: int, text: int) -> CLIPConfig:
    vision = VisionConfig(pixels, layers, width, 32 * width // HEAD_WIDTH)
    return CLIPConfig(embed, vision, _text(text))


# The nine models of Radford et al. 2021 (table 20 of the paper; sizes of the published files).
OPENAI_CONFIGS = {
    "RN50": _resnet(1024, 224, (3, 4, 6, 3), 64, 512),
    "RN101": _resnet(512, 224, (3, 4, 23, 3), 64, 512),
    "RN50x4": _resnet(640, 288, (4, 6, 10, 6), 80, 640),
    "RN50x16": _resnet(768, 384, (6, 8, 18, 8), 96, 768),
    "RN50x64": _resnet(1024, 448, (3, 15, 36, 10), 128, 1024),
    "ViT-B/32": _vit(512, 224, 12, 768, 32, 512),
    "ViT-B/16": _vit(512, 224, 12, 768, 16, 512),
    "ViT-L/14": _vit(768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": _vit(768, 336, 24, 1024, 14, 768),
}


def get_config(name: str) -> CLIPConfig:
    """The configuration of one of the nine originals. ValueError that lists them otherwise."""
    if name not in OPENAI_CONFIGS:
        raise ValueError(f"model: got {name!r}, expected one of {', '.join(OPENAI_CONFIGS)}")
    return OPENAI_CONFIGS[name]


Shapes = Mapping[str, tuple[int, ...]]


def infer_config(
    shapes: Shapes, *, activation: str, head_width: int = HEAD_WIDTH, stride: int | None = None
) -> CLIPConfig:
    """The configuration of a checkpoint under the original's keys, from its tensors' shapes.

    shapes: key -> shape. activation, head_width and stride do not follow from shapes and are given.
    Either tower may be missing. Raises ValueError naming the key that is missing or impossible.
    Source: `build_model` of the original model.py.
    """
    vision = text = None
    if any(key.startswith("visual.") for key in shapes):
        infer = _infer_resnet if "visual.layer1.0.conv1.weight" in shapes else _infer_vit
        vision, embed = infer(shapes, activation, head_width, stride)
    if "token_embedding.weight" in shapes:
        text, embed = _infer_text(shapes, activation, head_width)
    if vision is None and text is None:
        raise ValueError("checkpoint: no key of an image or a text tower under OpenAI's names")
    return CLIPConfig(embed, vision, text)


def _infer_vit(
    shapes: Shapes, activation: str, head_width: int, stride: int | None
) -> tuple[VisionConfig, int]:
    width, _, patch, _ = shape_of(shapes, "visual.conv1.weight", 4)
    positions, _ = shape_of(shapes, "visual.positional_embedding", 2)
    grid = square_root("visual.positional_embedding", positions - 1)
    config = VisionConfig(
        image_resolution=(grid - 1) * (stride or patch) + patch,
        layers=count_blocks(shapes, "visual.transformer.resblocks."),
        width=width,
        heads=max(width // head_width, 1),
        patch_size=patch,
        stride=stride,
        mlp_width=shape_of(shapes, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        activation=activation,
        proj="visual.proj" in shapes,
    )
    embed = shape_of(shapes, "visual.proj", 2)[1] if config.proj else width
    return config, embed


def _infer_resnet(
    shapes: Shapes, activation: str, head_width: int, stride: int | None
) -> tuple[VisionConfig, int]:
    width = shape_of(shapes, "visual.layer1.0.conv1.weight", 4)[0]
    positions, channels = shape_of(shapes, "visual.attnpool.positional_embedding", 2)
    grid = square_root("visual.attnpool.positional_embedding", positions - 1)
    stages = tuple(count_blocks(shapes, f"visual.layer{i}.") for i in range(1, 5))
    config = VisionConfig(
        image_resolution=32 * grid,
        layers=stages,
        width=width,
        heads=max(channels // head_width, 1),
        stride=stride,
        activation=activation,
    )
    return config, shape_of(shapes, "visual.attnpool.c_proj.weight", 2)[0]


def _infer_text(shapes: Shapes, activation: str, head_width: int) -> tuple[TextConfig, int]:
    vocab, width = shape_of(shapes, "token_embedding.weight", 2)
    config = TextConfig(
        context_length=shape_of(shapes, "positional_embedding", 2)[0],
        vocab_size=vocab,
        width=width,
        heads=max(width // head_width, 1),
        layers=count_blocks(shapes, "transformer.resblocks."),
        mlp_width=shape_of(shapes, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        activation=activation,
        proj="text_projection" in shapes,
    )
    return config, shape_of(shapes, "text_projection", 2)[1] if config.proj else width


def shape_of(shapes: Shapes, key: str, dimensions: int) -> tuple[int, ...]:
    """The shape under a key. ValueError naming it if it is missing or has other dimensions."""
    if key not in shapes:
        raise ValueError(f"checkpoint: missing {key}")
    if len(shapes[key]) != dimensions:
        raise ValueError(
            f"checkpoint: {key} has shape {tuple(shapes[key])}, expected {dimensions} dimensions"
        )
    return tuple(shapes[key])


def square_root(key: str, n: int) -> int:
    """The side of a square grid of n positions. ValueError naming the key if there is none."""
    side = math.isqrt(max(n, 0))
    if n < 1 or side * side != n:
        raise ValueError(f"checkpoint: {key} has {n + 1} rows, expected 1 + a square number")
    return side


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """How many numbered blocks there are under a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in shapes if key.startswith(prefix)})
