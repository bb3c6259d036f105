"""miniclip: CLIP written from scratch, every layer forward and backward, to be read and run."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names and the rooms they live in. They are imported when first used, so that
# `import miniclip` stays light.
_HOME = {
    "CLIP": "miniclip.models",
    "CLIPConfig": "miniclip.models",
    "TextConfig": "miniclip.models",
    "VisionConfig": "miniclip.models",
    "get_config": "miniclip.models",
    "Pipeline": "miniclip.pipeline",
    "Tokenizer": "miniclip.inputs.tokenizer",
    "Transform": "miniclip.inputs.preprocess",
    "available_models": "miniclip.checkpoints.known",
    "load": "miniclip.pipeline",
    "preprocess": "miniclip.inputs.preprocess",
    "tokenize": "miniclip.pipeline",
    "trace": "miniclip.inspect",
    "watch": "miniclip.inspect",
    "zero_shot": "miniclip.tasks.zero_shot",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'miniclip' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
