"""The original's random initialisation, by layer: what PyTorch's defaults and CLIP's own give.

Note what it does to the ResNets: every `bn3.weight` is zero, so each block starts as its shortcut
alone, and two different pictures get nearly the same embedding until training moves them apart.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from miniclip.nn import attention, blocks, layers
from miniclip.nn.module import Module, Parameter

LOGIT_SCALE = math.log(1 / 0.07)  # CLIP section 2.5


def initialize(model: Any, seed: int) -> None:
    """Fill all parameters of a CLIP (or a tower) anew from one seed.

    Source: `initialize_parameters` of the original model.py, and PyTorch's defaults for the rest.
    """
    rng = np.random.default_rng(seed)
    for module in model.modules():
        _default(module, rng)
    for name, module in model.named_modules():
        _original(name, module, rng)
    if "logit_scale" in model.parameters_:
        _set(model.logit_scale, np.full((), LOGIT_SCALE))


def _default(module: Module, rng: np.random.Generator) -> None:
    """PyTorch's own: uniform within +-1/sqrt(fan_in) for convolutions and linear layers."""
    match module:
        case layers.Linear() | layers.Conv2d() | layers.PatchEmbedding():
            bound = math.prod(module.weight.data.shape[1:]) ** -0.5
            _uniform(module.weight, bound, rng)
            if "bias" in module.parameters_:
                _uniform(module.parameters_["bias"], bound, rng)
        case attention.MultiheadAttention():
            width = module.in_proj_weight.data.shape[1]
            _uniform(module.in_proj_weight, math.sqrt(6 / (4 * width)), rng)  # Xavier
            _fill(module.in_proj_bias, 0)
        case layers.LayerNorm() | layers.BatchNorm2d():
            _fill(module.weight, 1)
            _fill(module.bias, 0)
        case layers.Embedding():
            _normal(module.weight, 0.02, rng)


def _original(name: str, module: Module, rng: np.random.Generator) -> None:
    """What CLIP sets itself, on top of the defaults."""
    match module:
        case attention.MultiheadAttention():
            _fill(module.out_proj.parameters_["bias"], 0)
        case attention.AttentionPool2d():
            std = module.positional_embedding.data.shape[1] ** -0.5
            _normal(module.positional_embedding, std, rng)
            for projection in (module.q_proj, module.k_proj, module.v_proj, module.c_proj):
                _normal(projection.weight, std, rng)
        case blocks.Bottleneck():
            _fill(module.bn3.weight, 0)
    if "class_embedding" in module.parameters_:  # the vision transformer
        std = module.parameters_["class_embedding"].data.shape[0] ** -0.5
        for part in ("class_embedding", "positional_embedding", "proj"):
            if part in module.parameters_:
                _normal(module.parameters_[part], std, rng)
    if "token_embedding" in module.children_:  # the text tower
        _text_tower(module, rng)


def _text_tower(tower: Any, rng: np.random.Generator) -> None:
    _normal(tower.positional_embedding, 0.01, rng)
    width, depth = tower.transformer.width, len(tower.transformer.resblocks)
    for block in tower.transformer.resblocks:
        _normal(block.attn.in_proj_weight, width**-0.5, rng)
        _normal(block.attn.out_proj.weight, width**-0.5 * (2 * depth) ** -0.5, rng)
        fc, _, proj = block.mlp
        _normal(fc.weight, (2 * width) ** -0.5, rng)
        _normal(proj.weight, width**-0.5 * (2 * depth) ** -0.5, rng)
    if tower.text_projection is not None:
        _normal(tower.text_projection, width**-0.5, rng)


def _set(parameter: Parameter, values: Any) -> None:
    parameter.data = values.astype(parameter.data.dtype)


def _fill(parameter: Parameter, value: float) -> None:
    _set(parameter, np.full(parameter.data.shape, value))


def _normal(parameter: Parameter, std: float, rng: np.random.Generator) -> None:
    values = rng.standard_normal(parameter.data.shape, np.float32)
    values *= np.float32(std)
    _set(parameter, values)


def _uniform(parameter: Parameter, bound: float, rng: np.random.Generator) -> None:
    values = rng.random(parameter.data.shape, np.float32)
    values *= np.float32(2 * bound)
    values -= np.float32(bound)
    _set(parameter, values)
