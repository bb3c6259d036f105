"""Which tensors a CLIP has: names (the original's) and shapes, from nothing but its configuration.

A file is compared with this table before any array is made: a header may claim shapes that would
fill all memory, and a model of that size must not be built to find out. A test keeps the table
equal to what `CLIP(config).state_dict()` holds.
"""

from __future__ import annotations

from miniclip.models import CLIPConfig, TextConfig, VisionConfig

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(config: CLIPConfig) -> Shapes:
    """Name -> shape of every parameter and buffer, without allocating any of them."""
    shapes: Shapes = {}
    if config.vision is not None and config.text is not None:
        shapes["logit_scale"] = ()
    if config.vision is not None:
        tower = resnet_shapes if config.vision.is_resnet else vit_shapes
        found = tower(config.vision, config.embed_dim)
        shapes |= {f"visual.{name}": shape for name, shape in found.items()}
    if config.text is not None:
        shapes |= text_shapes(config.text, config.embed_dim)
    return shapes


def vit_shapes(c: VisionConfig, embed: int) -> Shapes:
    patch, layers = c.patch_size, c.layers
    assert patch is not None
    assert isinstance(layers, int)
    shapes: Shapes = {
        "conv1.weight": (c.width, 3, patch, patch),
        "class_embedding": (c.width,),
        "positional_embedding": (c.grid**2 + 1, c.width),
        **norm_shapes("ln_pre", c.width),
        **transformer_shapes(layers, c.width, c.mlp_width or 4 * c.width),
        **norm_shapes("ln_post", c.width),
    }
    if c.proj:
        shapes["proj"] = (c.width, embed)
    return shapes


def text_shapes(c: TextConfig, embed: int) -> Shapes:
    shapes: Shapes = {
        "token_embedding.weight": (c.vocab_size, c.width),
        "positional_embedding": (c.context_length, c.width),
        **transformer_shapes(c.layers, c.width, c.mlp_width or 4 * c.width),
        **norm_shapes("ln_final", c.width),
    }
    if c.proj:
        shapes["text_projection"] = (c.width, embed)
    return shapes


def transformer_shapes(layers: int, width: int, mlp: int) -> Shapes:
    block: Shapes = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        **linear_shapes("attn.out_proj", width, width),
        **norm_shapes("ln_1", width),
        **linear_shapes("mlp.c_fc", width, mlp),
        **linear_shapes("mlp.c_proj", mlp, width),
        **norm_shapes("ln_2", width),
    }
    return {
        f"transformer.resblocks.{i}.{name}": shape
        for i in range(layers)
        for name, shape in block.items()
    }


def resnet_shapes(c: VisionConfig, embed: int) -> Shapes:
    half, width, channels = c.width // 2, c.width, 32 * c.width
    shapes = {
        **conv_shapes("1", 3, half, 3),
        **conv_shapes("2", half, half, 3),
        **conv_shapes("3", half, width, 3),
    }
    assert isinstance(c.layers, tuple)
    n_in = width
    for stage, blocks in enumerate(c.layers):
        planes = width * 2**stage
        for block in range(blocks):
            found = bottleneck_shapes(n_in, planes, first=block == 0)
            shapes |= {f"layer{stage + 1}.{block}.{name}": s for name, s in found.items()}
            n_in = 4 * planes
    shapes |= linear_shapes("attnpool.c_proj", channels, embed)
    if c.pool == "attention":
        shapes["attnpool.positional_embedding"] = (c.grid**2 + 1, channels)
        for name in ("q_proj", "k_proj", "v_proj"):
            shapes |= linear_shapes(f"attnpool.{name}", channels, channels)
    return shapes


def bottleneck_shapes(n_in: int, planes: int, first: bool) -> Shapes:
    n_out = 4 * planes
    shapes = {
        **conv_shapes("1", n_in, planes, 1),
        **conv_shapes("2", planes, planes, 3),
        **conv_shapes("3", planes, n_out, 1),
    }
    if first:
        shapes["downsample.0.weight"] = (n_out, n_in, 1, 1)
        shapes |= batch_norm_shapes("downsample.1", n_out)
    return shapes


def conv_shapes(number: str, n_in: int, n_out: int, kernel: int) -> Shapes:
    """A convolution without bias, and the BatchNorm after it."""
    shape = (n_out, n_in, kernel, kernel)
    return {f"conv{number}.weight": shape, **batch_norm_shapes(f"bn{number}", n_out)}


def batch_norm_shapes(name: str, channels: int) -> Shapes:
    statistics: Shapes = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return norm_shapes(name, channels) | statistics


def norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear_shapes(name: str, n_in: int, n_out: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}
