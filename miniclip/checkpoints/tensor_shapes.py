"""Which tensors a CLIP has: names (the original's) and shapes, from its configuration alone.

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
        tower = _resnet if config.vision.is_resnet else _vit
        found = tower(config.vision, config.embed_dim)
        shapes |= {f"visual.{name}": shape for name, shape in found.items()}
    if config.text is not None:
        shapes |= _text(config.text, config.embed_dim)
    return shapes


def _vit(c: VisionConfig, embed: int) -> Shapes:
    patch, layers = c.patch_size, c.layers
    assert patch is not None
    assert isinstance(layers, int)
    shapes: Shapes = {
        "conv1.weight": (c.width, 3, patch, patch),
        "class_embedding": (c.width,),
        "positional_embedding": (c.grid**2 + 1, c.width),
        **_norm("ln_pre", c.width),
        **_transformer(layers, c.width, c.mlp_width or 4 * c.width),
        **_norm("ln_post", c.width),
    }
    if c.proj:
        shapes["proj"] = (c.width, embed)
    return shapes


def _text(c: TextConfig, embed: int) -> Shapes:
    shapes: Shapes = {
        "token_embedding.weight": (c.vocab_size, c.width),
        "positional_embedding": (c.context_length, c.width),
        **_transformer(c.layers, c.width, c.mlp_width or 4 * c.width),
        **_norm("ln_final", c.width),
    }
    if c.proj:
        shapes["text_projection"] = (c.width, embed)
    return shapes


def _transformer(layers: int, width: int, mlp: int) -> Shapes:
    block: Shapes = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        **_linear("attn.out_proj", width, width),
        **_norm("ln_1", width),
        **_linear("mlp.c_fc", width, mlp),
        **_linear("mlp.c_proj", mlp, width),
        **_norm("ln_2", width),
    }
    return {
        f"transformer.resblocks.{i}.{name}": shape
        for i in range(layers)
        for name, shape in block.items()
    }


def _resnet(c: VisionConfig, embed: int) -> Shapes:
    half, width, channels = c.width // 2, c.width, 32 * c.width
    shapes = {
        **_conv("1", 3, half, 3),
        **_conv("2", half, half, 3),
        **_conv("3", half, width, 3),
    }
    assert isinstance(c.layers, tuple)
    n_in = width
    for stage, blocks in enumerate(c.layers):
        planes = width * 2**stage
        for block in range(blocks):
            found = _bottleneck(n_in, planes, first=block == 0)
            shapes |= {f"layer{stage + 1}.{block}.{name}": s for name, s in found.items()}
            n_in = 4 * planes
    shapes |= _linear("attnpool.c_proj", channels, embed)
    if c.pool == "attention":
        shapes["attnpool.positional_embedding"] = (c.grid**2 + 1, channels)
        for name in ("q_proj", "k_proj", "v_proj"):
            shapes |= _linear(f"attnpool.{name}", channels, channels)
    return shapes


def _bottleneck(n_in: int, planes: int, first: bool) -> Shapes:
    n_out = 4 * planes
    shapes = {
        **_conv("1", n_in, planes, 1),
        **_conv("2", planes, planes, 3),
        **_conv("3", planes, n_out, 1),
    }
    if first:
        shapes["downsample.0.weight"] = (n_out, n_in, 1, 1)
        shapes |= _batch_norm("downsample.1", n_out)
    return shapes


def _conv(number: str, n_in: int, n_out: int, kernel: int) -> Shapes:
    """A convolution without bias, and the BatchNorm after it."""
    shape = (n_out, n_in, kernel, kernel)
    return {f"conv{number}.weight": shape, **_batch_norm(f"bn{number}", n_out)}


def _batch_norm(name: str, channels: int) -> Shapes:
    statistics: Shapes = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return _norm(name, channels) | statistics


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, n_in: int, n_out: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}
