"""Modules: the textbook's ops with parameters, under the names of the original CLIP."""

from miniclip.nn.attention import AttentionPool2d, MultiheadAttention
from miniclip.nn.blocks import Bottleneck, ResidualAttentionBlock, Transformer
from miniclip.nn.layers import (
    ACTIVATIONS,
    GELU,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Embedding,
    GELUTanh,
    GlobalAveragePool2d,
    Identity,
    LayerNorm,
    Linear,
    PatchEmbedding,
    QuickGELU,
    ReLU,
)
from miniclip.nn.module import Module, Parameter, Recording, Sequential

__all__ = [
    "ACTIVATIONS",
    "GELU",
    "AttentionPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Bottleneck",
    "Conv2d",
    "Embedding",
    "GELUTanh",
    "GlobalAveragePool2d",
    "Identity",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiheadAttention",
    "Parameter",
    "PatchEmbedding",
    "QuickGELU",
    "ReLU",
    "Recording",
    "ResidualAttentionBlock",
    "Sequential",
    "Transformer",
]
