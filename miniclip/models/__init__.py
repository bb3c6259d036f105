"""The models: image towers, text tower, CLIP and their configurations. Arrays in and out."""

from miniclip.models.clip import CLIP
from miniclip.models.config import (
    OPENAI_CONFIGS,
    CLIPConfig,
    TextConfig,
    VisionConfig,
    get_config,
    infer_config,
)
from miniclip.models.init import initialize
from miniclip.models.resnet import ModifiedResNet
from miniclip.models.text import TextTransformer
from miniclip.models.vit import VisionTransformer

__all__ = [
    "OPENAI_CONFIGS",
    "CLIP",
    "CLIPConfig",
    "ModifiedResNet",
    "TextConfig",
    "TextTransformer",
    "VisionConfig",
    "VisionTransformer",
    "get_config",
    "infer_config",
    "initialize",
]
