"""transformers' config.json, in and out.

Read into claims under the names of `CLIPConfig`'s fields (see configs.py). An option that this
package's CLIP does not have is refused by its name, never ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miniclip.checkpoints.errors import CheckpointError, kind_of
from miniclip.checkpoints.json_files import as_object, square
from miniclip.models import CLIPConfig, TextConfig, VisionConfig

HF_SHARED = {
    "hidden_act": "activation",
    "num_attention_heads": "heads",
    "layer_norm_eps": "eps",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "intermediate_size": "mlp_width",
}
HF_FIELDS = {
    "vision": HF_SHARED | {"image_size": "image_resolution", "patch_size": "patch_size"},
    "text": HF_SHARED | {"vocab_size": "vocab_size", "max_position_embeddings": "context_length"},
}
HF_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",  # all three: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
}
HF_TYPES = {"clip": None, "clip_vision_model": "vision", "clip_text_model": "text"}
LEGACY_END = 2  # transformers then reads the text at its largest id, as the original does
# What transformers takes where config.json, which leaves out what is usual, says nothing.
HF_DEFAULTS = {
    "vision.activation": "quick_gelu",
    "vision.heads": 12,
    "vision.eps": 1e-5,
    "text.activation": "quick_gelu",
    "text.heads": 8,
    "text.eps": 1e-5,
    "text.end_id": 49407,
}


def hf_claims(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Claims of a config.json: of both towers, or of one (`CLIPVisionModel`, `CLIPTextModel`)."""
    kind = config.get("model_type", "clip")
    if not isinstance(kind, str) or kind not in HF_TYPES:
        raise CheckpointError(
            f"{path}: model_type is {kind_of(kind)}, expected one of {', '.join(HF_TYPES)}"
        )
    if HF_TYPES[kind] is not None:
        return tower_claims(path, HF_TYPES[kind] or "", config) | embed_dim_claim(config)
    claims = embed_dim_claim(config)
    for tower in ("vision", "text"):
        # The first is from before 2023; where it is present, transformers lets it win.
        sizes = config.get(f"{tower}_config_dict")
        sizes = config.get(f"{tower}_config") if sizes is None else sizes
        claims |= tower_claims(path, tower, as_object(path, f"{tower}_config", sizes))
    return claims


def embed_dim_claim(config: dict[str, Any]) -> dict[str, Any]:
    size = config.get("projection_dim")
    return {} if size is None else {"embed_dim": size}


def tower_claims(path: Path, tower: str, sizes: dict[str, Any]) -> dict[str, Any]:
    claims = {}
    for theirs, ours in HF_FIELDS[tower].items():
        value = sizes.get(theirs)
        if value is None:
            continue
        if theirs == "hidden_act":
            value = activation_claim(path, tower, value)
        if theirs in ("image_size", "patch_size"):
            value = square(path, f"{tower}_config.{theirs}", value)
        claims[f"{tower}.{ours}"] = value
    if sizes.get("num_channels", 3) != 3:
        raise CheckpointError(
            f"{path}: num_channels is {kind_of(sizes['num_channels'])}, expected 3"
        )
    if tower == "text" and sizes.get("eos_token_id") is not None:
        end = sizes["eos_token_id"]
        claims["text.end_id"] = None if end == LEGACY_END else end
    return claims


def activation_claim(path: Path, tower: str, name: Any) -> str:
    if not isinstance(name, str) or name not in HF_ACTIVATIONS:
        raise CheckpointError(
            f"{path}: {tower}_config.hidden_act is {kind_of(name)}, expected one of "
            f"{', '.join(HF_ACTIVATIONS)}"
        )
    return HF_ACTIVATIONS[name]


def to_hf_config(config: CLIPConfig) -> dict[str, Any]:
    """The config.json of transformers. ValueError for a model that it cannot describe."""
    towers = {"vision": config.vision, "text": config.text}
    found = {name: to_hf_tower(name, t, config) for name, t in towers.items() if t is not None}
    if len(found) == 1:
        ((name, sizes),) = found.items()
        projects = "WithProjection" if towers[name].proj else ""  # type: ignore[union-attr]
        return {"architectures": [f"CLIP{name.title()}Model{projects}"], **sizes}
    if not (config.vision.proj and config.text.proj):  # type: ignore[union-attr]
        raise ValueError("layout 'hf': transformers' CLIPModel always has both projections")
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "vision_config": found["vision"],
        "text_config": found["text"],
    }


def to_hf_tower(name: str, tower: VisionConfig | TextConfig, config: CLIPConfig) -> dict[str, Any]:
    if isinstance(tower, VisionConfig) and tower.is_resnet:
        raise ValueError("layout 'hf': transformers' CLIP has no ResNet; expected layout 'openai'")
    if isinstance(tower, VisionConfig) and tower.stride not in (None, tower.patch_size):
        raise ValueError(
            f"layout 'hf': transformers' CLIP has no overlapping patches (stride {tower.stride}); "
            "expected layout 'openai'"
        )
    sizes = {theirs: getattr(tower, ours) for theirs, ours in HF_FIELDS[name].items()}
    sizes["intermediate_size"] = tower.mlp_width or 4 * tower.width
    if tower.activation == "gelu_tanh":
        sizes["hidden_act"] = "gelu_pytorch_tanh"
    sizes |= {"model_type": f"clip_{name}_model", "projection_dim": config.embed_dim}
    if isinstance(tower, TextConfig):
        if tower.end_id == LEGACY_END:
            raise ValueError(
                "layout 'hf': transformers takes text.end_id 2 for 'the largest id'; expected "
                "layout 'openai'"
            )
        # The start and the padding are the tokenizer's business; these ids are in any vocabulary.
        sizes |= {"bos_token_id": 0, "pad_token_id": 1}
        sizes["eos_token_id"] = LEGACY_END if tower.end_id is None else tower.end_id
    return sizes
