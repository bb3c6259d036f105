"""The only place that maps keys: from files of OpenAI, open_clip and Hugging Face to our names.

Our names are the original's, so for its files the map is the identity. `read_model` turns a file or
a folder into a configuration and a state that `CLIP.load_state_dict` takes; `to_hf` goes back.
Where a file has a key too many or too few, nothing is loaded and the key is named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniclip.checkpoints import notes, open_clip_config, transformers_config
from miniclip.checkpoints.configs import Source, caller_source, decide_config
from miniclip.checkpoints.errors import CheckpointError
from miniclip.checkpoints.preprocessing import read_preprocessing
from miniclip.checkpoints.reader import Checkpoint, open_checkpoint
from miniclip.checkpoints.tensor_shapes import Shapes, tensor_shapes
from miniclip.models import CLIPConfig
from miniclip.models.config import count_blocks
from miniclip.ops.array import Array

# ---------------------------------------------------------------- the map to Hugging Face's names

# Ours -> theirs, for whole tensors. {n} stands for weight and for bias.
HF_VISION = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.{n}": "vision_model.pre_layrnorm.{n}",  # their own spelling
    "visual.ln_post.{n}": "vision_model.post_layernorm.{n}",
    "visual.proj": "visual_projection.weight",
}
HF_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.{n}": "text_model.final_layer_norm.{n}",
    "text_projection": "text_projection.weight",
}
# Inside a block. The original keeps q, k and v in one tensor, one below the other.
HF_BLOCK = {
    "attn.in_proj_{n}": "self_attn.q_proj.{n} self_attn.k_proj.{n} self_attn.v_proj.{n}",
    "attn.out_proj.{n}": "self_attn.out_proj.{n}",
    "ln_1.{n}": "layer_norm1.{n}",
    "ln_2.{n}": "layer_norm2.{n}",
    "mlp.c_fc.{n}": "mlp.fc1.{n}",
    "mlp.c_proj.{n}": "mlp.fc2.{n}",
}
HF_BLOCKS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
TRANSPOSED = ("visual.proj", "text_projection")  # (width, embed) here, torch's [out, in] there
OPTIONAL = TRANSPOSED  # towers without a projection exist

# Counters, masks and ids that follow from the configuration, and the original's integer scalars.
DROPPED = ("num_batches_tracked", "attn_mask", "position_ids")
DROPPED_SCALARS = ("input_resolution", "context_length", "vocab_size")

KeyMap = dict[str, tuple[str, ...]]  # our name -> the file's keys: one, or those of q, k and v


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint under our names.

    state: name -> array, as `CLIP(config, seed=None).load_state_dict` takes them. Float32 arrays
    lie in the file (copy-on-write); joined and widened ones are copies; projections of Hugging
    Face's layout are transposed views of the file.
    preprocessing: fields of `Transform`, where the folder or the file's notes say so.
    layout: "openai", "custom_text" (open_clip's `text.` prefix), or "hf".
    keys: our name -> the keys in the file that it was made of.
    """

    config: CLIPConfig
    state: dict[str, Array]
    preprocessing: dict[str, Any]
    layout: str
    checkpoint: Checkpoint
    keys: KeyMap


def read_model(
    path: str | os.PathLike[str],
    *,
    activation: str | tuple[str, str] | None = None,
    head_width: int | tuple[int, int] | None = None,
    stride: int | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Read a `.safetensors` file, or a folder that holds one or a sharded one.

    activation ("quick_gelu", "gelu", "gelu_tanh"; of both towers, or of image and text), head_width
    (of the image tower, or of image and text) and stride do not follow from the tensors. Given here
    they are believed; otherwise the configuration beside the file, the notes of our own writer in
    it, and then defaults (what a known name says: a mapping with the same three keys) are asked.
    The activation is never guessed.

    Raises CheckpointError that names the file and the key or field; nothing is unpickled.
    """
    checkpoint = open_checkpoint(path)
    layout = find_layout(checkpoint)
    key_map = map_keys(checkpoint, layout)
    shapes = {name: mapped_shape(checkpoint, name, keys, layout) for name, keys in key_map.items()}
    sources = [
        caller_source("the arguments", shapes, activation, head_width, stride),
        *config_sources(checkpoint, layout, caller_source("defaults", shapes, **(defaults or {}))),
    ]
    config = decide_config(checkpoint.path, shapes, sources)
    if config.vision is None or config.text is None:
        key_map.pop("logit_scale", None)  # one tower has nothing to scale
    check_shapes(checkpoint, key_map, shapes, tensor_shapes(config))
    preprocessing = read_preprocessing(checkpoint, layout)
    check_size(checkpoint, config, preprocessing)
    state = {name: mapped_array(checkpoint, name, keys, layout) for name, keys in key_map.items()}
    return LoadedModel(config, state, preprocessing, layout, checkpoint, key_map)


def check_finite(model: LoadedModel) -> None:
    """Raise CheckpointError for the first tensor with a NaN or an infinity, by file and key."""
    for name, array in model.state.items():
        if not np.isfinite(array).all():
            bad = int(np.size(array) - np.isfinite(array).sum())
            key = model.keys[name][0]
            raise CheckpointError(
                f"{model.checkpoint.file_of(key)}: {', '.join(map(repr, model.keys[name]))} holds "
                f"{bad} values that are not finite"
            )


# ---------------------------------------------------------------- which layout


def find_layout(checkpoint: Checkpoint) -> str:
    """ "openai", "custom_text" or "hf". CheckpointError for others, by name where known."""
    keys = checkpoint.keys()
    refuse_strangers(checkpoint, keys)
    if any(key.startswith(("vision_model.", "text_model.")) for key in keys) or is_bare_hf(keys):
        return "hf"
    if any(key.startswith("text.") for key in keys):
        return "custom_text"
    if any(key.startswith("visual.") for key in keys) or "token_embedding.weight" in keys:
        return "openai"
    prefix = common_prefix(keys)
    if prefix:
        raise CheckpointError(
            f"{checkpoint.path}: all its keys begin with {prefix!r}, which a wrapper such as "
            "DataParallel puts there: write the file again without it"
        )
    some = ", ".join(repr(key) for key in keys[:4]) or "none"
    raise CheckpointError(
        f"{checkpoint.path}: its keys ({some}, ...) are of no layout known here: OpenAI's, "
        "open_clip's or Hugging Face's CLIP"
    )


def common_prefix(keys: list[str]) -> str:
    """What stands before all keys, with its dot, if they would be CLIP's without it; else ""."""
    first = keys[0] if keys else ""
    prefixes = [first[: i + 1] for i, sign in enumerate(first) if sign == "."]
    starts = ("visual.", "token_embedding.", "text.", "vision_model.", "text_model.")
    for prefix in prefixes:  # the shortest first: of one tower, its own name is before all, too
        if not all(key.startswith(prefix) for key in keys):
            break
        if any(key.removeprefix(prefix).startswith(starts) for key in keys):
            return prefix
    return ""


def is_bare_hf(keys: Iterable[str]) -> bool:
    """transformers 5 saves `CLIPVisionModel` and `CLIPTextModel` without their prefix."""
    return any(key.startswith("embeddings.") for key in keys)


def refuse_strangers(checkpoint: Checkpoint, keys: list[str]) -> None:
    starts = {
        "visual.trunk.": "an open_clip model whose image tower is timm's",
        "patch_embed.": "an image tower in timm's own layout; beside it there may be "
        "open_clip_model.safetensors, which is the one to load",
        "blocks.": "an image tower in timm's own layout",
        "stem.": "an image tower in timm's own layout",
        "layer1.": "a ResNet in timm's or torchvision's own layout; beside it there may be "
        "open_clip_model.safetensors, which is the one to load",
        "logit_bias": "a model with a sigmoid loss (SigLIP)",
        "vision_model.head.": "SigLIP, or another model with an attention-pool head",
    }
    for start, what in starts.items():
        found = next((key for key in keys if key.startswith(start)), None)
        if found is not None:
            raise CheckpointError(
                f"{checkpoint.path}: {found!r} means {what}, which is not supported"
            )


# ---------------------------------------------------------------- from the file's keys to ours


def map_keys(checkpoint: Checkpoint, layout: str) -> KeyMap:
    """Our names and the file's keys for them. CheckpointError for a key that has no place."""
    kept = [key for key in checkpoint.shapes if not is_dropped(key)]
    key_map = map_hf(checkpoint, kept) if layout == "hf" else map_openai(checkpoint, kept)
    used = {key for keys in key_map.values() for key in keys}
    for key in kept:
        if key not in used:
            raise CheckpointError(
                f"{checkpoint.file_of(key)}: {key!r} belongs to no tensor of a CLIP in the layout "
                f"{layout!r}"
            )
    return key_map


def is_dropped(key: str) -> bool:
    return key in DROPPED_SCALARS or key.rpartition(".")[2] in DROPPED


def map_openai(checkpoint: Checkpoint, keys: list[str]) -> KeyMap:
    """The identity, but for the `text.` that open_clip's CustomTextCLIP puts before its text."""
    key_map: KeyMap = {}
    for key in keys:
        name = key.removeprefix("text.")
        if name in key_map:
            raise CheckpointError(
                f"{checkpoint.file_of(key)}: both {key_map[name][0]!r} and {key!r} name one tensor"
            )
        key_map[name] = (key,)
    return key_map


def map_hf(checkpoint: Checkpoint, keys: list[str]) -> KeyMap:
    """Look up each of our names' keys; a tower of which any tensor is there has to be whole."""
    present = set(keys)
    key_map: KeyMap = {"logit_scale": ("logit_scale",)} if "logit_scale" in present else {}
    found = with_their_spelling(present)
    for tower in ("vision", "text"):
        prefix = f"{tower}_model."
        bare = is_bare_hf(keys) and tower == bare_tower(keys)
        layers = count_blocks(
            dict.fromkeys(found, ()), ("" if bare else prefix) + "encoder.layers."
        )
        table = hf_table(tower, layers)
        if bare:
            table = {n: tuple(k.removeprefix(prefix) for k in ks) for n, ks in table.items()}
        if not any(key in found for ks in table.values() for key in ks):
            continue
        for name, theirs in table.items():
            missing = [key for key in theirs if key not in found]
            if missing and name not in OPTIONAL:
                raise CheckpointError(f"{checkpoint.path}: missing {missing[0]!r}")
            if not missing:
                key_map[name] = tuple(found[key] for key in theirs)
    return key_map


def with_their_spelling(keys: Iterable[str]) -> dict[str, str]:
    """The key as transformers spells it -> the key in the file: some files mend `pre_layrnorm`."""
    return {key.replace("pre_layernorm.", "pre_layrnorm."): key for key in keys}


def bare_tower(keys: Iterable[str]) -> str:
    return "text" if any("token_embedding" in key for key in keys) else "vision"


def hf_table(tower: str, layers: int) -> KeyMap:
    """Our names -> Hugging Face's keys, for one tower with so many blocks."""
    whole = HF_VISION if tower == "vision" else HF_TEXT
    blocks = next(pair for pair in HF_BLOCKS.items() if pair[1].startswith(tower))
    table: KeyMap = {}
    for ours, theirs in whole.items():
        table |= weight_and_bias(ours, theirs)
    for i in range(layers):
        for ours, theirs in HF_BLOCK.items():
            spread = " ".join(f"{blocks[1]}{i}.{part}" for part in theirs.split())
            table |= weight_and_bias(f"{blocks[0]}{i}.{ours}", spread)
    return table


def weight_and_bias(ours: str, theirs: str) -> KeyMap:
    kinds = ("weight", "bias") if "{n}" in ours else ("",)
    return {ours.replace("{n}", n): tuple(theirs.replace("{n}", n).split()) for n in kinds}


def mapped_shape(
    checkpoint: Checkpoint, name: str, keys: tuple[str, ...], layout: str
) -> tuple[int, ...]:
    """The shape that a tensor will have under our name."""
    shape = checkpoint.shape(keys[0])
    for key in keys:
        if checkpoint.dtype(key) not in ("F64", "F32", "F16", "BF16"):
            raise CheckpointError(
                f"{checkpoint.file_of(key)}: {key!r} has dtype {checkpoint.dtype(key)}, expected "
                "floats"
            )
        if checkpoint.shape(key) != shape or (len(keys) > 1 and not shape):
            raise CheckpointError(
                f"{checkpoint.file_of(key)}: {key!r} has shape {checkpoint.shape(key)}, expected "
                f"{shape}, that of {keys[0]!r}"
            )
    if len(keys) > 1:
        return (len(keys) * shape[0], *shape[1:])
    return shape[::-1] if layout == "hf" and name in TRANSPOSED else shape


def mapped_array(checkpoint: Checkpoint, name: str, keys: tuple[str, ...], layout: str) -> Array:
    """The tensor under our name: the file's own array wherever that is possible."""
    if len(keys) > 1:
        return np.concatenate([checkpoint.array(key) for key in keys])  # q, k, v: (3 * width, ...)
    array = checkpoint.array(keys[0])
    return array.T if layout == "hf" and name in TRANSPOSED else array


def check_shapes(checkpoint: Checkpoint, key_map: KeyMap, shapes: Shapes, expected: Shapes) -> None:
    """Every tensor of the configuration is there, in its shape, and no other."""
    for name, keys in key_map.items():
        where = f"{checkpoint.file_of(keys[0])}: {', '.join(map(repr, keys))}"
        if name not in expected:
            raise CheckpointError(f"{where} belongs to no tensor of this model")
        if shapes[name] != expected[name]:
            raise CheckpointError(
                f"{where} has shape {shapes[name]} (as {name}), expected {expected[name]}"
            )
    for name in expected:
        if name not in key_map:
            raise CheckpointError(f"{checkpoint.path}: missing {name!r}")


def check_size(checkpoint: Checkpoint, config: CLIPConfig, preprocessing: dict[str, Any]) -> None:
    """Pictures have to come out as large as the image tower takes them."""
    if config.vision is None or "size" not in preprocessing:
        return
    if preprocessing["size"] != config.vision.image_resolution:
        raise CheckpointError(
            f"{checkpoint.folder}: the size that is said beside {checkpoint.path.name} gives "
            f"pictures of {preprocessing['size']} pixels, but its tensors' shapes give "
            f"{config.vision.image_resolution}"
        )


# ---------------------------------------------------------------- and back


def to_hf(
    state: Mapping[str, Array], config: CLIPConfig
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors under Hugging Face's names, and the config.json of transformers for them.

    state: name -> NumPy array, as `state_dict` gives it. Nothing is copied: q, k and v are slices
    of the joined tensor, projections are transposed views. One tower alone becomes what
    `CLIPVisionModelWithProjection` or `CLIPTextModelWithProjection` read (or those without).
    Raises ValueError for what that model cannot be: a ResNet, an overlapping stride.
    """
    described = transformers_config.to_hf_config(config)
    tensors: dict[str, Array] = {}
    if config.vision is not None and config.text is not None:
        tensors["logit_scale"] = state["logit_scale"]
    for tower, sizes in (("vision", config.vision), ("text", config.text)):
        if sizes is None:
            continue
        assert isinstance(sizes.layers, int)  # no ResNet, as to_hf_config found
        for name, theirs in hf_table(tower, sizes.layers).items():
            if name in OPTIONAL and not sizes.proj:
                continue
            array = state[name].T if name in TRANSPOSED else state[name]
            parts = np.split(array, 3) if len(theirs) == 3 else [array]
            tensors |= dict(zip(theirs, parts, strict=True))
    return tensors, described


# ---------------------------------------------------------------- who says the rest


def config_sources(checkpoint: Checkpoint, layout: str, known: Source) -> list[Source]:
    """The configuration beside the file, the file's notes, the known name, the format's rules."""
    sources = notes.noted_config(checkpoint.path, checkpoint.metadata)
    if layout == "hf":
        config = checkpoint.beside("config.json")
        if config is None:
            return [*sources, known]
        claims = transformers_config.hf_claims(checkpoint.folder / "config.json", config)
        rest = Source("transformers' defaults", transformers_config.HF_DEFAULTS)
        return [Source("config.json", claims), *sources, known, rest]
    for name in ("open_clip_config.json", "config.json"):
        model = (checkpoint.beside(name) or {}).get("model_cfg")
        if isinstance(model, dict):
            claims = open_clip_config.open_clip_claims(checkpoint.folder / name, model)
            rest = Source("open_clip's defaults", open_clip_config.OPEN_CLIP_DEFAULTS)
            return [Source(name, claims), *sources, known, rest]
    return [*sources, known]
