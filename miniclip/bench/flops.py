"""Floating-point operations of a forward pass, counted from the configuration.

Two for every multiply-add of a convolution, a matrix product or attention. Norms, activations, sums
and look-ups are left out: they are below a hundredth. What an implementation saves by a cleverer
algorithm (Winograd, a text cut at its end) is not subtracted: the count is the work asked for.
"""

from __future__ import annotations

from miniclip.models import CLIPConfig, VisionConfig

FORWARD_AND_BACKWARD = 3  # a backward pass multiplies twice: by the input and by the weights


def image_flops(config: CLIPConfig) -> int:
    """Of one image through the image tower."""
    vision = config.vision
    if vision is None:
        raise ValueError("towers: this model has no image tower, expected text")
    count = resnet_products if vision.is_resnet else vit_products
    return 2 * count(vision, config.embed_dim)


def text_flops(config: CLIPConfig) -> int:
    """Of one text that fills the whole context (77 tokens in the originals)."""
    text = config.text
    if text is None:
        raise ValueError("towers: this model has no text tower, expected image")
    mlp = text.mlp_width or 4 * text.width
    blocks = text.layers * block_products(text.context_length, text.width, mlp)
    return 2 * (blocks + (text.width * config.embed_dim if text.proj else 0))


def block_products(tokens: int, width: int, mlp: int) -> int:
    """Multiply-adds of one residual attention block."""
    projections = 4 * width * width  # q, k, v, out
    scores_and_mix = 2 * tokens * width  # of each token with all tokens, over all heads
    return tokens * (projections + scores_and_mix + 2 * width * mlp)


def vit_products(vision: VisionConfig, embed: int) -> int:
    """Multiply-adds of a vision transformer for one image."""
    assert isinstance(vision.layers, int)
    assert vision.patch_size is not None
    patches = vision.grid**2
    first = patches * 3 * vision.patch_size**2 * vision.width
    mlp = vision.mlp_width or 4 * vision.width
    blocks = vision.layers * block_products(patches + 1, vision.width, mlp)
    return first + blocks + (vision.width * embed if vision.proj else 0)


def resnet_products(vision: VisionConfig, embed: int) -> int:
    """Multiply-adds of a modified ResNet for one image."""
    assert isinstance(vision.layers, tuple)
    width, half, side = vision.width, vision.width // 2, vision.image_resolution // 2
    total = 9 * side**2 * (3 * half + half * half + half * width)  # the stem
    side, channels = side // 2, width
    for stage, blocks in enumerate(vision.layers):
        planes, side_in = width * 2**stage, side
        side = side_in if stage == 0 else side_in // 2
        total += bottleneck_products(channels, planes, side_in, side)
        total += side**2 * channels * 4 * planes  # the first block's shortcut has a convolution
        channels = 4 * planes
        total += (blocks - 1) * bottleneck_products(channels, planes, side, side)
    if vision.pool == "average":
        return total + channels * embed
    return total + pool_products(vision.grid**2 + 1, channels, embed)


def bottleneck_products(channels: int, planes: int, side_in: int, side_out: int) -> int:
    """Multiply-adds of the three convolutions; a strided block averages before the third."""
    return side_in**2 * (channels * planes + 9 * planes**2) + side_out**2 * 4 * planes**2


def pool_products(tokens: int, width: int, embed: int) -> int:
    """Multiply-adds of the attention pool: one query, keys and values of all tokens.

    Only the pooled token is read. (The packaged original asks for all of them, 6.1 instead of 5.8
    billion multiply-adds for RN50; that is its own affair.)
    """
    return (2 * tokens + 1) * width**2 + 2 * tokens * width + width * embed
