"""open_clip's configuration, the `model_cfg` of an open_clip_config.json.

Read into claims under the names of `CLIPConfig`'s fields (see configs.py). An option that this
package's CLIP does not have is refused by its name, never ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miniclip.checkpoints.errors import CheckpointError, kind_of
from miniclip.checkpoints.json_files import as_object, check_only, square

# Options that say what we read, and those that change nothing in a forward pass. Any other option
# must be off (null, false, 0, empty), or have the value given here.
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
    refuse_options(path, "model", model)
    claims: dict[str, Any] = {}
    if model.get("embed_dim") is not None:
        claims["embed_dim"] = model["embed_dim"]
    for tower in ("vision", "text"):
        sizes = as_object(path, f"{tower}_cfg", model.get(f"{tower}_cfg"))
        if sizes.get("timm_model_name"):
            raise CheckpointError(
                f"{path}: vision_cfg.timm_model_name is {kind_of(sizes['timm_model_name'])}: image "
                "towers of timm are not supported, only CLIP's own ViT and ResNet"
            )
        refuse_options(path, tower, sizes)
        claims |= tower_claims(path, tower, sizes, model.get("quick_gelu"))
    return claims


def refuse_options(path: Path, part: str, options: dict[str, Any]) -> None:
    known = OPEN_CLIP_READ[part] | OPEN_CLIP_NEUTRAL[part]
    for name, value in options.items():
        usual = OPEN_CLIP_USUAL[part].get(name, ())
        if name not in known and value and value not in usual:
            raise CheckpointError(
                f"{path}: {part}_cfg.{name} is {kind_of(value)}: this option of open_clip is not "
                f"supported{' (only ' + ', '.join(usual) + ')' if usual else ''}"
            )


def tower_claims(path: Path, tower: str, sizes: dict[str, Any], quick: Any) -> dict[str, Any]:
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
    claims |= mlp_claim(path, tower, sizes)
    norm = as_object(path, f"{tower}_cfg.norm_kwargs", sizes.get("norm_kwargs"))
    if norm:
        check_only(path, f"{tower}_cfg.norm_kwargs", norm, {"eps"})
        claims[f"{tower}.eps"] = norm["eps"]
    if tower == "text" and sizes.get("pool_type") == "eos":
        claims["text.end_id"] = sizes.get("eos_id", 2)  # here 2 is a token, not a legacy
    return claims | activation_claim(path, tower, sizes, quick)


def mlp_claim(path: Path, tower: str, sizes: dict[str, Any]) -> dict[str, Any]:
    ratio, width = sizes.get("mlp_ratio"), sizes.get("width")
    if ratio is None or type(width) is not int or isinstance(sizes.get("layers"), list):
        return {}
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1000:
        raise CheckpointError(
            f"{path}: {tower}_cfg.mlp_ratio is {kind_of(ratio)}, expected about 4"
        )
    return {f"{tower}.mlp_width": int(width * ratio)}


def activation_claim(path: Path, tower: str, sizes: dict[str, Any], quick: Any) -> dict[str, Any]:
    """QuickGELU takes no options, so act_kwargs are of the plain GELU."""
    if quick is not None and not isinstance(quick, bool):
        raise CheckpointError(f"{path}: quick_gelu is {kind_of(quick)}, expected true or false")
    where = f"{tower}_cfg.act_kwargs"
    options = as_object(path, where, sizes.get("act_kwargs"))
    if options:
        check_only(path, where, options, {"approximate"})
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
