"""The oracle: the original CLIP's own model.py, run in float32 or float64, and states that live.

`clip/model.py` is loaded by its path, because importing the package would need torchvision. In the
original's own initialisation the signal dies (every bn3.weight is zero), so that a wrong tower
would pass a comparison: `living_state` randomises every tensor and keeps the activations' size.
"""

import importlib.util
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from miniclip.models import CLIP, CLIPConfig


def original_module():
    """The original model.py as a fresh module, which the caller may change."""
    folder = importlib.util.find_spec("clip").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("original_clip_model", Path(folder) / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Its LayerNorm computes in float32 whatever comes in, which would spoil a float64 truth.
    module.LayerNorm.forward = torch.nn.LayerNorm.forward
    return module


def original_clip(config: CLIPConfig, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """The original in inference mode, for a configuration that it can express. Its weights are
    not initialised (that takes long and means nothing here): load a state into it."""
    module = original_module()
    with torch.device("meta"):
        model = _construct(module, config).to(dtype)
    model = model.to_empty(device="cpu")
    for block in model.transformer.resblocks:  # the mask is no buffer, so it stayed on "meta"
        block.attn_mask = model.build_attention_mask().to(dtype)
    return model.eval()


def original_initialised(config: CLIPConfig, seed: int) -> torch.nn.Module:
    """The original with its own random initialisation, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _construct(original_module(), config).eval()


def _construct(module, config):
    vision, text = config.vision, config.text
    _check_expressible(vision)
    _check_expressible(text)
    name = "ModifiedResNet" if vision.is_resnet else "VisionTransformer"
    setattr(module, name, _with_heads(getattr(module, name), vision.heads))
    return module.CLIP(
        config.embed_dim,
        vision.image_resolution,
        vision.layers,
        vision.width,
        vision.patch_size,
        text.context_length,
        text.vocab_size,
        text.width,
        text.heads,
        text.layers,
    )


def _with_heads(tower, heads):
    """The original takes width / 64 for the image tower's heads; take the configuration's."""

    class WithHeads(tower):
        def __init__(self, **sizes):
            super().__init__(**{**sizes, "heads": heads})

    return WithHeads


def _check_expressible(tower):
    same = tower.activation == "quick_gelu" and tower.eps == 1e-5 and tower.proj
    same = same and tower.mlp_width in (None, 4 * tower.width)
    same = same and getattr(tower, "stride", None) is None
    same = same and getattr(tower, "pool", "attention") == "attention"
    if not same:
        raise ValueError(f"the original has no such tower: {tower}")


def load_into_original(model: torch.nn.Module, state: dict[str, np.ndarray]) -> None:
    """Copy a state into the original: every key must match. Counters of batches start at zero."""
    tensors = {name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}
    for name in model.state_dict():
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, torch.tensor(0))
    model.load_state_dict(tensors, strict=True)


def pictures(config: CLIPConfig, count: int, seed: int) -> np.ndarray:
    """Random float32 pictures (count, 3, R, R): coarse patches and noise.

    Noise alone averages out in a ResNet's pools, and all pictures of it then look much alike.
    """
    rng = np.random.default_rng([seed, 1])
    side = config.vision.image_resolution
    coarse = rng.standard_normal((count, 3, 4, 4), np.float32)
    coarse = coarse.repeat(side // 4, axis=2).repeat(side // 4, axis=3)
    return coarse + np.float32(0.5) * rng.standard_normal((count, 3, side, side), np.float32)


def texts(config: CLIPConfig, count: int, seed: int) -> np.ndarray:
    """Random ids (count, T) of different lengths: words, one end-of-text (the largest id), zeros.

    The last text fills the whole context.
    """
    rng = np.random.default_rng([seed, 2])
    end, context = config.text.vocab_size - 1, config.text.context_length
    ids = np.zeros((count, context), np.int64)
    for row, length in zip(ids, np.linspace(4, context, count, dtype=int), strict=True):
        row[: length - 1] = rng.integers(1, end, length - 1)
        row[length - 1] = end
    return ids


def living_state(config: CLIPConfig, seed: int) -> dict[str, np.ndarray]:
    """Random float32 values for every parameter and buffer, under the original's names.

    No gain, bias or statistic is zero or one, and activations keep their size through all blocks,
    so two pictures (or texts) get clearly different embeddings. Each tensor is drawn by itself:
    its values depend on the seed and its name alone.
    """
    shapes = {name: x.shape for name, x in CLIP(config, seed=None).state_dict().items()}
    return {name: _draw(name, shape, seed) for name, shape in shapes.items()}


def _draw(name, shape, seed):
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    low, high = _range(name, shape)
    values = rng.random(shape, np.float32)
    values = np.asarray(values, np.float32)  # a scalar shape gives a plain number
    values *= np.float32(high - low)
    values += np.float32(low)
    if values.ndim == 4 and name.startswith("visual.layer"):
        # What follows a ReLU has a mean, which is much alike for all pictures: weights that add
        # up to zero leave it out, otherwise all pictures would look the same after many blocks.
        values -= values.mean(axis=(1, 2, 3), keepdims=True)
    return values


def _range(name, shape):
    """The lowest and the highest value of the tensor of this name."""
    if name == "logit_scale":
        return 3.5, 3.5
    if name.endswith("running_var"):
        return 0.5, 1.5
    if name.endswith("bn3.weight") and "layer" in name:
        return 0.1, 0.4  # a branch adds a little: the stream keeps its size over 36 blocks
    if name.endswith(".weight") and len(shape) == 1:
        return 0.5, 1.5  # gains of BatchNorm and LayerNorm
    if len(shape) == 1 and not name.endswith("class_embedding"):
        return -0.1, 0.1  # biases and running means
    half = math.sqrt(3) * _deviation(name, shape)
    return -half, half


def _deviation(name, shape):
    """The standard deviation of a weight that keeps the size of what it is multiplied with."""
    if name.endswith(("positional_embedding", "class_embedding")):
        return 0.3
    if name == "token_embedding.weight":
        return 1.0
    if name.endswith("proj") or name == "text_projection":  # (in, out): the other way round
        return shape[0] ** -0.5
    fan_in = math.prod(shape[1:])
    relu_halves = 2.0 if len(shape) == 4 and shape[-1] in (1, 3) else 1.0  # He et al. 2015
    return math.sqrt(relu_halves / fan_in)


def transformers_clip(
    config: CLIPConfig, state: dict[str, np.ndarray], dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """transformers' CLIPModel with the same weights, for a configuration with patches."""
    import transformers

    with torch.device("meta"):
        model = transformers.CLIPModel(_transformers_config(config, transformers))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in to_hf(state).items()}
    model.load_state_dict({n: t.to(dtype) for n, t in tensors.items()}, strict=True, assign=True)
    for tower in (model.text_model, model.vision_model):  # not in files, so still on "meta"
        count = tower.embeddings.position_embedding.weight.shape[0]
        tower.embeddings.position_ids = torch.arange(count)[None]
    return model.eval()


def _transformers_config(config, transformers):
    vision, text = config.vision, config.text
    return transformers.CLIPConfig(
        text_config={
            **_transformer_sizes(text),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "eos_token_id": 2,  # the legacy rule: the end is where the largest id stands
            "projection_dim": config.embed_dim,
        },
        vision_config={
            **_transformer_sizes(vision),
            "image_size": vision.image_resolution,
            "patch_size": vision.patch_size,
            "projection_dim": config.embed_dim,
        },
        projection_dim=config.embed_dim,
    )


def _transformer_sizes(tower):
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width or 4 * tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": tower.activation,
        "layer_norm_eps": tower.eps,
    }


HF_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
HF_PARTS = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}


def to_hf(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under transformers' names."""
    renamed = {}
    for name, x in state.items():
        if name == "logit_scale":
            renamed[name] = x
        elif name in ("visual.proj", "text_projection"):
            tower = "visual" if name == "visual.proj" else "text"
            renamed[f"{tower}_projection.weight"] = x.T
        else:
            renamed |= _split(_rename(name), x)
    return renamed


def _rename(name):
    start = next(start for start in HF_NAMES if name.startswith(start))
    name = HF_NAMES[start] + name[len(start) :]
    for ours, theirs in HF_PARTS.items():
        name = name.replace(ours, theirs)
    return name


def _split(name, x):
    """The original keeps the projections of q, k and v in one tensor, transformers in three."""
    if ".attn.in_proj_" not in name:
        return {name: x}
    block, kind = name.split(".attn.in_proj_")
    return {
        f"{block}.self_attn.{n}_proj.{kind}": part
        for n, part in zip("qkv", np.split(x, 3), strict=True)
    }
