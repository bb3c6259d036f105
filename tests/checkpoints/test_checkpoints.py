"""Checkpoints in and out, against those who write them: the original, transformers, open_clip."""

import json
from dataclasses import replace
from pathlib import Path

import checkpoint_checks
import numpy as np
import pytest
import torch
import transformers
from checkpoint_files import (
    RESNET,
    VIT,
    ask_original,
    hf_config,
    inputs_of,
    open_clip_config,
    original_file,
    state_of,
    transformers_folder,
)
from model_checks import with_vision
from original import load_into_original, original_clip
from safetensors.torch import load_file, save_file

import miniclip
from miniclip.checkpoints import (
    CheckpointError,
    check_finite,
    layouts,
    read_model,
    save_checkpoint,
    to_hf,
)
from miniclip.checkpoints.tensor_shapes import tensor_shapes
from miniclip.models import CLIP, OPENAI_CONFIGS

ODD = with_vision(VIT, stride=4, heads=4, eps=1e-6, mlp_width=96, activation="gelu_tanh")
ODD = replace(ODD, text=replace(ODD.text, end_id=2, activation="gelu", heads=2))
AVERAGED = with_vision(RESNET, pool="average", image_resolution=96)


@pytest.mark.parametrize("check", checkpoint_checks.CHECKS.values(), ids=checkpoint_checks.CHECKS)
def test_it_holds(check):
    check(miniclip)


# ---------------------------------------------------------------- ours, read by others


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_original_loads_our_file(kind, tmp_path):
    config = {"vit": VIT, "resnet": RESNET}[kind]
    path = save_checkpoint(state_of(kind), config, tmp_path / "ours.safetensors")
    model = original_clip(config, torch.float32)
    load_into_original(model, {k: v.numpy() for k, v in load_file(path).items()})
    images, ids = (torch.tensor(x) for x in inputs_of(kind))
    with torch.no_grad():
        got = model.encode_image(images).numpy(), model.encode_text(ids).numpy()
    for ours, theirs in zip(got, ask_original(kind), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("config", [ODD, AVERAGED], ids=["odd ViT", "averaging ResNet"])
def test_our_file_keeps_what_shapes_do_not_tell(config, tmp_path):
    state = CLIP(config, seed=3).state_dict()
    preprocess = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0), "resize_mode": "longest"}
    path = save_checkpoint(state, config, tmp_path / "m.safetensors", preprocess=preprocess)
    loaded = read_model(path)
    assert loaded.config == config
    assert loaded.preprocessing == preprocess
    checkpoint_checks.check_state(loaded, state)


def test_preprocessing_of_a_transformers_folder(tmp_path):
    """Written by us, read, and written again by transformers: it says the same."""
    preprocess = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": 32, "resize_mode": "squash"}
    preprocess |= {"interpolation": "bilinear", "order": "openai", "alpha": "drop"}
    save_checkpoint(state_of("vit"), VIT, tmp_path / "m", "hf", preprocess)
    assert read_model(tmp_path / "m").preprocessing == preprocess
    theirs = transformers.CLIPImageProcessor.from_pretrained(tmp_path / "m")
    theirs.save_pretrained(tmp_path / "m")
    assert read_model(tmp_path / "m").preprocessing == preprocess
    content = json.loads((tmp_path / "m" / "preprocessor_config.json").read_text())
    content["crop_size"] = {"height": 64, "width": 64}
    checkpoint_checks.write_json(tmp_path / "m" / "preprocessor_config.json", content)
    with pytest.raises(CheckpointError, match=r"pictures of 64 pixels, but .* shapes give 32"):
        read_model(tmp_path / "m")
    content["image_mean"] = [1, 2]
    checkpoint_checks.write_json(tmp_path / "m" / "preprocessor_config.json", content)
    with pytest.raises(CheckpointError, match=r"r_config.json: image_mean is list \[1, 2\]"):
        read_model(tmp_path / "m")


def test_to_hf_copies_nothing():
    state = state_of("vit")
    tensors, described = to_hf(state, VIT)
    assert all(any(np.shares_memory(t, x) for x in state.values()) for t in tensors.values())
    assert described["vision_config"]["num_attention_heads"] == 2
    assert described["text_config"]["eos_token_id"] == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RESNET, "transformers' CLIP has no ResNet; expected layout 'openai'"),
        (with_vision(VIT, stride=4), "no overlapping patches"),
        (replace(VIT, text=replace(VIT.text, end_id=2)), "end_id 2"),
        (replace(VIT, embed_dim=64, text=replace(VIT.text, proj=False)), "both projections"),
    ],
)
def test_what_transformers_cannot_hold(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_checkpoint(CLIP(config).state_dict(), config, tmp_path / "m", layout="hf")
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------- one tower alone


@pytest.mark.parametrize("tower", ["Vision", "Text"])
@pytest.mark.parametrize("projection", ["", "WithProjection"])
def test_transformers_tower(tower, projection, tmp_path):
    source, _ = transformers_folder()
    kind = getattr(transformers, f"CLIP{tower}Model{projection}")
    model = kind.from_pretrained(source).eval()
    model.save_pretrained(tmp_path)
    loaded = read_model(tmp_path)
    ours = checkpoint_checks.model_of(miniclip, loaded)
    images, ids = inputs_of("vit")
    with torch.no_grad():
        if tower == "Vision":
            got, theirs = ours.encode_image(images), model(pixel_values=torch.tensor(images))
        else:
            got, theirs = ours.encode_text(ids), model(input_ids=torch.tensor(ids))
    embeds = "image_embeds" if tower == "Vision" else "text_embeds"
    theirs = (theirs[embeds] if projection else theirs.pooler_output).numpy()
    assert np.linalg.norm(got - theirs) <= 1e-5 * np.linalg.norm(theirs)
    other = "text" if tower == "Vision" else "image"
    with pytest.raises(ValueError, match=f"no {other} tower: its checkpoint holds the other one"):
        ours.encode_text(ids) if tower == "Vision" else ours.encode_image(images)
    # and back: what we write of one tower, transformers reads again
    save_checkpoint(loaded.state, loaded.config, tmp_path / "ours", layout="hf")
    again = kind.from_pretrained(tmp_path / "ours").eval()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert read_model(tmp_path / "ours").config == loaded.config


@pytest.mark.parametrize("visual", [True, False])
def test_half_of_an_original(visual, tmp_path):
    """The logit scale may stand in the file of one tower: it then has nothing to scale."""
    tensors = {
        k: v
        for k, v in load_file(original_file("vit")).items()
        if k.startswith("visual.") == visual or k == "logit_scale"
    }
    save_file(tensors, tmp_path / "half.safetensors")
    loaded = read_model(tmp_path / "half.safetensors", activation="quick_gelu", head_width=64)
    assert loaded.config == replace(VIT, **{"text" if visual else "vision": None})
    CLIP(loaded.config, seed=None).load_state_dict(loaded.state)


def test_custom_text_prefix(tmp_path):
    """open_clip's CustomTextCLIP: `text.` before all that belongs to the text tower."""
    tensors = load_file(original_file("vit"))
    renamed = {
        k if k.startswith("visual.") or k in ("logit_scale", "input_resolution") else f"text.{k}": v
        for k, v in tensors.items()
    }
    renamed["text.attn_mask"] = torch.zeros(9, 9)
    renamed = {
        k: v for k, v in renamed.items() if k not in ("text.vocab_size", "text.context_length")
    }
    save_file(renamed, tmp_path / "open_clip_model.safetensors")
    checkpoint_checks.write_json(
        tmp_path / "open_clip_config.json", open_clip_config(VIT, quick_gelu=True, custom_text=True)
    )
    loaded = read_model(tmp_path)
    assert loaded.layout == "custom_text"
    assert loaded.keys["ln_final.bias"] == ("text.ln_final.bias",)
    checkpoint_checks.check_state(loaded, state_of("vit"))
    save_file(
        renamed | {"ln_final.bias": renamed["text.ln_final.bias"].clone()},
        tmp_path / "two.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"both '(text\.)?ln_final.bias' and"):
        read_model(tmp_path / "two.safetensors")


# ---------------------------------------------------------------- the configuration


def test_the_activation_is_never_guessed():
    with pytest.raises(
        CheckpointError, match=r"pass activation='quick_gelu'.*or activation='gelu'"
    ):
        read_model(original_file("vit"))
    with pytest.raises(CheckpointError, match=r"vision.activation: got 'relu'"):
        read_model(original_file("vit"), activation="relu")


def test_a_wrong_activation_is_seen():
    """Why it is not guessed: the wrong one gives embeddings that look right and are not."""
    images, _ = inputs_of("vit")
    expected = ask_original("vit")[0]
    loaded = read_model(original_file("vit"), activation="gelu")
    got = checkpoint_checks.model_of(miniclip, loaded).encode_image(images)
    assert np.linalg.norm(got - expected) > 1e-3 * np.linalg.norm(expected)


def test_who_is_believed(tmp_path):
    """Arguments, then the configuration beside the file, then its notes, then the known name."""
    path = save_checkpoint(state_of("vit"), VIT, tmp_path / "model.safetensors")
    known = {"activation": "gelu_tanh", "head_width": 32}
    assert read_model(path, defaults=known).config == VIT
    checkpoint_checks.write_json(
        tmp_path / "open_clip_config.json", open_clip_config(VIT, quick_gelu=False)
    )
    assert read_model(path, defaults=known).config.text.activation == "gelu"
    loaded = read_model(path, activation="gelu_tanh", head_width=(32, 16))
    assert (loaded.config.vision.heads, loaded.config.text.heads) == (4, 4)
    assert loaded.config.vision.activation == "gelu_tanh"
    assert read_model(original_file("vit"), defaults=known).config.vision.heads == 4


def test_an_overlapping_stride_comes_from_outside(tmp_path):
    config = with_vision(VIT, stride=4)
    save_file(tensors_of(config), tmp_path / "m.safetensors")
    loaded = read_model(tmp_path / "m.safetensors", activation="quick_gelu", stride=4)
    assert loaded.config == config


def test_wide_towers_do_not_tell_their_heads(tmp_path):
    config = with_vision(VIT, width=1280, heads=16, layers=1)  # ViT-H's: heads of 80
    save_file(tensors_of(config), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"width 1280 has.*pass head_width= \(ViT-H: 80"):
        read_model(tmp_path / "m.safetensors", activation="quick_gelu")
    loaded = read_model(tmp_path / "m.safetensors", activation="quick_gelu", head_width=80)
    assert loaded.config == config
    with pytest.raises(CheckpointError, match=r"head_width: got 96, expected a divisor"):
        read_model(tmp_path / "m.safetensors", activation="quick_gelu", head_width=96)


@pytest.mark.parametrize(
    ("part", "options", "named"),
    [
        ("vision_cfg", {"attentional_pool": True}, "vision_cfg.attentional_pool"),
        ("vision_cfg", {"pool_type": "avg"}, r"vision_cfg.pool_type.*\(only tok\)"),
        ("vision_cfg", {"timm_model_name": "convnext_base"}, "image towers of timm"),
        ("vision_cfg", {"image_size": [32, 64]}, "expected a square"),
        ("vision_cfg", {"mlp_ratio": 3.0}, "vision.mlp_width = 384, but .* give 512"),
        ("vision_cfg", {"mlp_ratio": "4"}, "vision_cfg.mlp_ratio is str"),
        ("vision_cfg", {"head_width": 0}, "vision.head_width is int 0"),
        ("vision_cfg", {"act_kwargs": {"approximate": "tanh"}}, "no quick_gelu"),
        ("text_cfg", {"no_causal_mask": True}, "text_cfg.no_causal_mask"),
        ("text_cfg", {"pool_type": "last"}, "text_cfg.pool_type"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "text_cfg.hf_model_name"),
        ("text_cfg", {"hf_tokenizer_name": "bert-base-uncased"}, "text_cfg.hf_tokenizer_name"),
        ("text_cfg", {"heads": "8"}, "text.heads is str '8'"),
        ("text_cfg", {"heads": 3}, "text.heads: got 3, expected a divisor"),
        ("text_cfg", {"norm_kwargs": {"eps": 0}}, "text.eps is int 0"),
        ("text_cfg", {"vocab_size": 51}, "text.vocab_size = 51, but the tensors' shapes give 50"),
        (None, {"multimodal_cfg": {"width": 3}}, "model_cfg.multimodal_cfg"),
        (None, {"init_logit_bias": -10}, "model_cfg.init_logit_bias"),
        (None, {"embed_dim": 25}, "embed_dim = 25, but the tensors' shapes give 24"),
        (None, {"quick_gelu": "yes"}, "quick_gelu is str 'yes'"),
        (None, {"vision_cfg": 3}, "vision_cfg is int 3"),
    ],
)
def test_options_of_open_clip_that_we_lack(part, options, named, tmp_path):
    save_file(load_file(original_file("vit")), tmp_path / "open_clip_model.safetensors")
    config = open_clip_config(VIT, quick_gelu=True)
    (config["model_cfg"] if part is None else config["model_cfg"][part]).update(options)
    checkpoint_checks.write_json(tmp_path / "open_clip_config.json", config)
    with pytest.raises(CheckpointError, match=named) as caught:
        read_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_options_of_open_clip_that_we_have(tmp_path):
    save_file(load_file(original_file("vit")), tmp_path / "open_clip_model.safetensors")
    config = open_clip_config(VIT)
    config["model_cfg"]["vision_cfg"] |= {"head_width": 32, "mlp_ratio": 4.0007, "pool_type": "tok"}
    config["model_cfg"]["vision_cfg"] |= {"image_size": [32, 32], "patch_dropout": 0.5}
    config["model_cfg"]["text_cfg"] |= {"pool_type": "eos", "eos_id": 2}
    config["model_cfg"]["text_cfg"] |= {"act_kwargs": {"approximate": "tanh"}}
    config["model_cfg"]["text_cfg"] |= {"norm_kwargs": {"eps": 1e-6}, "output_tokens": True}
    checkpoint_checks.write_json(tmp_path / "open_clip_config.json", config)
    loaded = read_model(tmp_path).config
    assert loaded.vision == replace(VIT.vision, heads=4, activation="gelu")
    assert loaded.text == replace(VIT.text, activation="gelu_tanh", eps=1e-6, end_id=2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "siglip"}, "model_type is str 'siglip', expected one of clip"),
        ({"projection_dim": 25}, "config.json says embed_dim = 25"),
        ({"vision_config": {"hidden_act": "relu"}}, "vision_config.hidden_act is str 'relu'"),
        ({"vision_config": {"num_channels": 4}}, "num_channels is int 4"),
        ({"vision_config": {"patch_size": [8, 4]}}, "patch_size is list"),
        ({"vision_config": {"image_size": 64}}, "image_resolution = 64, but .* give 32"),
        ({"vision_config": {"layer_norm_eps": "x"}}, "vision.eps is str 'x'"),
        ({"text_config": {"num_attention_heads": 5}}, "text.heads: got 5"),
        ({"text_config": {"eos_token_id": 50}}, "text.end_id: got 50, expected an id below"),
        ({"text_config": {"eos_token_id": [2]}}, "text.end_id is list"),
        ({"text_config": 1}, "text_config is int 1"),
        ({"text_config_dict": {"hidden_size": 3, "eos_token_id": 2}}, "text.width = 3"),
    ],
)
def test_configurations_of_transformers_that_do_not_fit(change, named, tmp_path):
    (tmp_path / "model.safetensors").symlink_to(transformers_folder()[0] / "model.safetensors")
    config = hf_config(VIT)
    for name, value in change.items():
        if isinstance(value, dict) and name in config:
            config[name].update(value)
        else:
            config[name] = value
    checkpoint_checks.write_json(tmp_path / "config.json", config)
    with pytest.raises(CheckpointError, match=named):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("visual.trunk.blocks.0.norm1.weight", "image tower is timm's"),
        ("patch_embed.proj.weight", "timm's own layout.*open_clip_model.safetensors"),
        ("layer1.0.conv1.weight", "ResNet in timm's or torchvision's"),
        ("logit_bias", "sigmoid loss"),
        ("vision_model.head.probe", "SigLIP"),
        ("model.layers.0.weight", "of no layout known here"),
    ],
)
def test_strangers_are_refused_by_name(key, named, tmp_path):
    save_file({key: torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=named) as caught:
        read_model(tmp_path)
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("visual.proj", torch.zeros(128, 25), r"shape \(128, 25\).*expected \(128, 24\)"),
        ("ln_final.bias", torch.zeros(65), r"\(65,\) \(as ln_final.bias\), expected \(64,\)"),
        ("visual.conv1.weight", torch.zeros(128, 3, 8), "expected 4 dimensions"),
        ("visual.positional_embedding", torch.zeros(18, 128), r"18 rows, expected 1 \+ a square"),
        ("token_embedding.weight", torch.zeros(0, 64), "text.vocab_size"),
        ("ln_final.bias", torch.zeros(64, dtype=torch.int32), "dtype I32, expected floats"),
        ("transformer.resblocks.0.mlp.c_fc.weight", None, "missing transformer.resblocks.0.mlp"),
        ("visual.transformer.resblocks.1.ln_1.bias", None, "missing 'visual.transformer"),
        ("logit_scale", None, "missing 'logit_scale'"),
    ],
)
def test_tensors_that_do_not_fit(key, change, named, tmp_path):
    tensors = load_file(original_file("vit"))
    del tensors[key]
    save_file(tensors | ({} if change is None else {key: change}), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=named) as caught:
        read_model(tmp_path / "m.safetensors", activation="quick_gelu")
    assert "m.safetensors" in str(caught.value)
    assert key in str(caught.value) or named.startswith("text")


def test_a_missing_tensor_of_transformers_is_named_as_it_is_there(tmp_path):
    tensors = load_file(transformers_folder()[0] / "model.safetensors")
    del tensors["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"missing 'vision_model.*1.self_attn.k_proj.bias'"):
        read_model(tmp_path / "m.safetensors", activation="quick_gelu")


def test_values_that_are_not_finite(tmp_path):
    tensors = load_file(original_file("vit"))
    check_finite(read_model(original_file("vit"), activation="quick_gelu"))
    tensors["ln_final.bias"][3:5] = torch.tensor([torch.nan, torch.inf])
    save_file(tensors, tmp_path / "m.safetensors")
    loaded = read_model(tmp_path / "m.safetensors", activation="quick_gelu")
    with pytest.raises(CheckpointError, match=r"m.safetensors: 'ln_final.bias' holds 2 values"):
        check_finite(loaded)


@pytest.mark.parametrize("config", [*OPENAI_CONFIGS.values(), VIT, ODD, AVERAGED])
def test_the_table_of_shapes_is_true(config):
    """tensor_shapes says what the modules have (built small where only the depth is large)."""
    own = {name: x.shape for name, x in CLIP(config, seed=None).state_dict().items()}
    assert tensor_shapes(config) == own


def tensors_of(config):
    state = CLIP(config, seed=None).state_dict()
    return {name: torch.tensor(x) for name, x in state.items()}


def test_the_page_shows_the_whole_map():
    page = (Path(miniclip.__file__).parents[1] / "docs" / "checkpoints.md").read_text("utf-8")
    table = layouts.HF_VISION | layouts.HF_TEXT | layouts.HF_BLOCK
    for ours, theirs in table.items():
        for key in (ours, *theirs.split()):
            assert f"`{key}`" in page, key
