"""The configuration files of others: transformers' config.json, open_clip's, and our own notes.

Each is read into claims under the names of `CLIPConfig`'s fields (see configs.py). An option that
this package's CLIP does not have is refused by its name, never ignored.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from miniclip.checkpoints.configs import Source
from miniclip.checkpoints.safetensors_header import CheckpointError, kind_of, parse_json
from miniclip.models import CLIPConfig, TextConfig, VisionConfig

NOTE = "miniclip_config"  # the key in a safetensors header under which we keep a configuration

# ---------------------------------------------------------------- transformers

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
        return _hf_tower(path, HF_TYPES[kind] or "", config) | _embed_dim(config)
    claims = _embed_dim(config)
    for tower in ("vision", "text"):
        # The first is from before 2023; where it stands, transformers lets it win.
        sizes = config.get(f"{tower}_config_dict")
        sizes = config.get(f"{tower}_config") if sizes is None else sizes
        claims |= _hf_tower(path, tower, _object(path, f"{tower}_config", sizes))
    return claims


def _embed_dim(config: dict[str, Any]) -> dict[str, Any]:
    size = config.get("projection_dim")
    return {} if size is None else {"embed_dim": size}


def _hf_tower(path: Path, tower: str, sizes: dict[str, Any]) -> dict[str, Any]:
    claims = {}
    for theirs, ours in HF_FIELDS[tower].items():
        value = sizes.get(theirs)
        if value is None:
            continue
        if theirs == "hidden_act":
            value = _hf_activation(path, tower, value)
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


def _hf_activation(path: Path, tower: str, name: Any) -> str:
    if not isinstance(name, str) or name not in HF_ACTIVATIONS:
        raise CheckpointError(
            f"{path}: {tower}_config.hidden_act is {kind_of(name)}, expected one of "
            f"{', '.join(HF_ACTIVATIONS)}"
        )
    return HF_ACTIVATIONS[name]


def to_hf_config(config: CLIPConfig) -> dict[str, Any]:
    """The config.json of transformers. ValueError for a model that it cannot describe."""
    towers = {"vision": config.vision, "text": config.text}
    found = {name: _to_hf_tower(name, t, config) for name, t in towers.items() if t is not None}
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


def _to_hf_tower(name: str, tower: VisionConfig | TextConfig, config: CLIPConfig) -> dict[str, Any]:
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


# ---------------------------------------------------------------- open_clip

# Options that say what we read, and those that change nothing in a forward pass. Any other option
# must be off (null, false, 0, empty), or have the value that stands here.
OPEN_CLIP_READ = {
    "model": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision": {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}
    | {"act_kwargs", "norm_kwargs"},
    "text": {"layers", "width", "heads", "mlp_ratio", "context_length", "vocab_size", "eos_id"}
    | {"act_kwargs", "norm_kwargs"},
}
OPEN_CLIP_NEUTRAL = {
    "model": {"custom_text", "init_logit_scale", "output_dict", "cast_dtype"},
    "vision": {"patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads"}
    | {"timm_model_pretrained", "timm_pool", "timm_proj"},
    "text": {"output_tokens", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "pad_id"},
}
OPEN_CLIP_USUAL: dict[str, dict[str, tuple[str, ...]]] = {
    "model": {},
    "vision": {"pool_type": ("tok",), "pos_embed_type": ("learnable",), "block_type": ("default",)},
    "text": {
        "pool_type": ("argmax", "eos"),
        "proj_type": ("linear", "none"),
        "block_type": ("default",),
        "hf_tokenizer_name": tuple(
            f"openai/clip-vit-{name}"
            for name in ("base-patch32", "base-patch16", "large-patch14", "large-patch14-336")
        ),
    },
}
# What open_clip takes where a configuration says nothing.
OPEN_CLIP_DEFAULTS = {
    "vision.activation": "gelu",
    "vision.head_width": 64,
    "vision.eps": 1e-5,
    "text.activation": "gelu",
    "text.heads": 8,
    "text.eps": 1e-5,
    "text.end_id": None,
}


def open_clip_claims(path: Path, model: dict[str, Any]) -> dict[str, Any]:
    """Claims of the `model_cfg` of an open_clip_config.json."""
    _refuse_options(path, "model", model)
    claims: dict[str, Any] = {}
    if model.get("embed_dim") is not None:
        claims["embed_dim"] = model["embed_dim"]
    for tower in ("vision", "text"):
        sizes = _object(path, f"{tower}_cfg", model.get(f"{tower}_cfg"))
        if sizes.get("timm_model_name"):
            raise CheckpointError(
                f"{path}: vision_cfg.timm_model_name is {kind_of(sizes['timm_model_name'])}: image "
                "towers of timm are not supported, only CLIP's own ViT and ResNet"
            )
        _refuse_options(path, tower, sizes)
        claims |= _open_clip_tower(path, tower, sizes, model.get("quick_gelu"))
    return claims


def _refuse_options(path: Path, part: str, options: dict[str, Any]) -> None:
    known = OPEN_CLIP_READ[part] | OPEN_CLIP_NEUTRAL[part]
    for name, value in options.items():
        usual = OPEN_CLIP_USUAL[part].get(name, ())
        if name not in known and value and value not in usual:
            where = "model_cfg" if part == "model" else f"{part}_cfg"
            raise CheckpointError(
                f"{path}: {where}.{name} is {kind_of(value)}: this option of open_clip is not "
                f"supported{' (only ' + ', '.join(usual) + ')' if usual else ''}"
            )


def _open_clip_tower(path: Path, tower: str, sizes: dict[str, Any], quick: Any) -> dict[str, Any]:
    names = {"layers": "layers", "width": "width", "head_width": "head_width", "heads": "heads"}
    names |= {"patch_size": "patch_size", "image_size": "image_resolution"}
    names |= {"context_length": "context_length", "vocab_size": "vocab_size"}
    claims = {
        f"{tower}.{ours}": sizes[theirs]
        for theirs, ours in names.items()
        if sizes.get(theirs) is not None
    }
    for field in ("vision.patch_size", "vision.image_resolution"):
        if field in claims:
            claims[field] = square(path, field, claims[field])
    layers = claims.get("vision.layers")
    if isinstance(layers, list):
        claims["vision.layers"] = tuple(layers)
    claims |= _open_clip_mlp(path, tower, sizes)
    norm = _object(path, f"{tower}_cfg.norm_kwargs", sizes.get("norm_kwargs"))
    if norm:
        _only(path, f"{tower}_cfg.norm_kwargs", norm, {"eps"})
        claims[f"{tower}.eps"] = norm["eps"]
    if tower == "text" and sizes.get("pool_type") == "eos":
        claims["text.end_id"] = sizes.get("eos_id", 2)  # here 2 is a token, not a legacy
    return claims | _open_clip_activation(path, tower, sizes, quick)


def _open_clip_mlp(path: Path, tower: str, sizes: dict[str, Any]) -> dict[str, Any]:
    ratio, width = sizes.get("mlp_ratio"), sizes.get("width")
    if ratio is None or type(width) is not int or isinstance(sizes.get("layers"), list):
        return {}
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1000:
        raise CheckpointError(
            f"{path}: {tower}_cfg.mlp_ratio is {kind_of(ratio)}, expected about 4"
        )
    return {f"{tower}.mlp_width": int(width * ratio)}


def _open_clip_activation(
    path: Path, tower: str, sizes: dict[str, Any], quick: Any
) -> dict[str, Any]:
    """QuickGELU takes no options, so act_kwargs are of the plain GELU."""
    if quick is not None and not isinstance(quick, bool):
        raise CheckpointError(f"{path}: quick_gelu is {kind_of(quick)}, expected true or false")
    where = f"{tower}_cfg.act_kwargs"
    options = _object(path, where, sizes.get("act_kwargs"))
    if options:
        _only(path, where, options, {"approximate"})
        if quick or options["approximate"] not in ("none", "tanh"):
            raise CheckpointError(
                f"{path}: {where} is {kind_of(options)}, expected approximate 'none' or 'tanh' and "
                "no quick_gelu"
            )
        name = "gelu_tanh" if options["approximate"] == "tanh" else "gelu"
        return {f"{tower}.activation": name}
    if quick is None:
        return {}
    return {f"{tower}.activation": "quick_gelu" if quick else "gelu"}


# ---------------------------------------------------------------- our own notes


def note_source(path: Path, metadata: dict[str, str]) -> list[Source]:
    """The configuration that our writer left in the file's header, if it did."""
    if NOTE not in metadata:
        return []
    where = f"{path}: its note {NOTE}"
    note = parse_json(where, metadata[NOTE].encode("utf-8", "replace"))
    claims = {"embed_dim": note["embed_dim"]} if "embed_dim" in note else {}
    for tower, kind in (("vision", VisionConfig), ("text", TextConfig)):
        known = {field.name for field in fields(kind)}
        for name, value in _object(where, tower, note.get(tower)).items():
            if name not in known:
                raise CheckpointError(f"{where}: {tower} has no field {name!r}")
            if value is not None or name == "end_id":
                claims[f"{tower}.{name}"] = tuple(value) if isinstance(value, list) else value
    return [Source(f"its note {NOTE}", claims)]


def to_note(config: CLIPConfig) -> str:
    """The note for a configuration."""
    towers = {
        name: None if tower is None else vars(tower)
        for name, tower in (("vision", config.vision), ("text", config.text))
    }
    return json.dumps({"embed_dim": config.embed_dim, **towers})


# ---------------------------------------------------------------- small things


def square(path: Path | str, field: str, value: Any) -> Any:
    """A side: a number, or a pair of equal ones."""
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    if isinstance(value, list):
        raise CheckpointError(f"{path}: {field} is {kind_of(value)}, expected a square")
    return value


def _object(path: Path | str, field: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {field} is {kind_of(value)}, expected an object")
    return value


def _only(path: Path, field: str, options: dict[str, Any], known: set[str]) -> None:
    if set(options) != known:
        raise CheckpointError(
            f"{path}: {field} is {kind_of(options)}, expected only {', '.join(known)}"
        )
