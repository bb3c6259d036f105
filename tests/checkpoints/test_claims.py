"""What configurations claim, word for word: of transformers, of open_clip, of callers, of notes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_files import VIT, hf_config, open_clip_config, original_file, state_of
from model_checks import with_vision

from miniclip.checkpoints import CheckpointError, configs, notes, read_model, save_checkpoint
from miniclip.checkpoints.configs import Source, caller_source, check_value, decide_config
from miniclip.checkpoints.json_files import as_object, check_only, parse_json, read_json, square
from miniclip.checkpoints.open_clip_config import OPEN_CLIP_DEFAULTS, open_clip_claims
from miniclip.checkpoints.tensor_shapes import tensor_shapes
from miniclip.checkpoints.transformers_config import (
    HF_ACTIVATIONS,
    HF_DEFAULTS,
    hf_claims,
    to_hf_config,
)
from miniclip.models import CLIPConfig, TextConfig, VisionConfig

HERE = Path("c.json")
ODD = CLIPConfig(
    6,
    VisionConfig(40, 2, 8, 4, patch_size=10, mlp_width=9, activation="gelu", eps=1e-6),
    TextConfig(7, 30, 12, 3, 4, mlp_width=20, activation="gelu_tanh", eps=1e-4, end_id=0),
)


def said(call, *arguments, **options):
    with pytest.raises(CheckpointError) as error:
        call(*arguments, **options)
    return str(error.value)


# ---------------------------------------------------------------- transformers

THEIRS = {
    "vision_config": {
        "hidden_act": "gelu", "num_attention_heads": 4, "layer_norm_eps": 1e-6, "hidden_size": 8,
        "num_hidden_layers": 2, "intermediate_size": 9, "image_size": 40, "patch_size": 10,
    },
    "text_config": {
        "hidden_act": "gelu_new", "num_attention_heads": 3, "layer_norm_eps": 1e-4,
        "hidden_size": 12, "num_hidden_layers": 4, "intermediate_size": 20, "vocab_size": 30,
        "max_position_embeddings": 7, "eos_token_id": 0,
    },
    "projection_dim": 6,
}  # fmt: skip
VISION = {
    "vision.activation": "gelu", "vision.heads": 4, "vision.eps": 1e-6, "vision.width": 8,
    "vision.layers": 2, "vision.mlp_width": 9, "vision.image_resolution": 40,
    "vision.patch_size": 10,
}  # fmt: skip
TEXT = {
    "text.activation": "gelu_tanh", "text.heads": 3, "text.eps": 1e-4, "text.width": 12,
    "text.layers": 4, "text.mlp_width": 20, "text.vocab_size": 30, "text.context_length": 7,
    "text.end_id": 0,
}  # fmt: skip


def test_claims_of_transformers():
    assert hf_claims(HERE, THEIRS) == VISION | TEXT | {"embed_dim": 6}
    assert hf_claims(HERE, THEIRS | {"model_type": "clip"}) == hf_claims(HERE, THEIRS)
    for tower, claims in (("vision", VISION), ("text", TEXT)):
        alone = THEIRS[f"{tower}_config"] | {"model_type": f"clip_{tower}_model"}
        assert hf_claims(HERE, alone) == claims
        assert hf_claims(HERE, alone | {"projection_dim": 5}) == claims | {"embed_dim": 5}
    assert hf_claims(HERE, {}) == {}
    assert hf_claims(HERE, {"vision_config": None, "text_config": {"hidden_size": None}}) == {}
    old = {"text_config": {"hidden_size": 1}, "text_config_dict": {"hidden_size": 2}}
    assert hf_claims(HERE, old) == {"text.width": 2}
    assert hf_claims(HERE, {"text_config": {"eos_token_id": 2}}) == {"text.end_id": None}
    assert hf_claims(HERE, {"text_config": {"eos_token_id": 3}}) == {"text.end_id": 3}
    assert hf_claims(HERE, {"vision_config": {"eos_token_id": 3, "num_channels": 3}}) == {}
    sides = {"image_size": [40, 40], "patch_size": [10, 10]}
    claims = hf_claims(HERE, {"vision_config": sides})
    assert claims == {"vision.image_resolution": 40, "vision.patch_size": 10}


def test_activations_of_transformers():
    tanh = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh")
    for name in (*tanh, "gelu", "gelu_python", "quick_gelu"):
        ours = "gelu_tanh" if name in tanh else name.removesuffix("_python")
        claims = hf_claims(HERE, {"text_config": {"hidden_act": name}})
        assert claims == {"text.activation": ours}
    assert len(HF_ACTIVATIONS) == 6
    expected = "expected one of quick_gelu, gelu, gelu_python, gelu_new, gelu_pytorch_tanh, gelu_"
    for wrong, kind in (("relu", "str 'relu'"), (["gelu"], "list ['gelu']"), (1, "int 1")):
        message = said(hf_claims, HERE, {"text_config": {"hidden_act": wrong}})
        assert message.startswith(f"c.json: text_config.hidden_act is {kind}, {expected}")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "blip"}, "model_type is str 'blip', expected one of clip, clip_vision_model"
                                 ", clip_text_model"),
        ({"model_type": ["clip"]}, "model_type is list ['clip'], expected one of clip, clip_vision_"
                                   "model, clip_text_model"),
        ({"vision_config": {"num_channels": 1}}, "num_channels is int 1, expected 3"),
        ({"vision_config": {"image_size": [4, 5]}}, "vision_config.image_size is list [4, 5], "
                                                    "expected a square"),
        ({"vision_config": [1]}, "vision_config is list [1], expected an object"),
        ({"text_config": "x"}, "text_config is str 'x', expected an object"),
    ],
)  # fmt: skip
def test_configurations_of_transformers_that_are_none(config, message):
    assert said(hf_claims, HERE, config) == f"c.json: {message}"


def test_our_configuration_for_transformers():
    tanh = THEIRS["text_config"] | {"hidden_act": "gelu_pytorch_tanh"}
    written = to_hf_config(ODD)
    assert written["architectures"] == ["CLIPModel"]
    assert (written["model_type"], written["projection_dim"]) == ("clip", 6)
    vision = THEIRS["vision_config"] | {"model_type": "clip_vision_model", "projection_dim": 6}
    assert written["vision_config"] == vision
    text = written["text_config"]
    ends = {"bos_token_id": 0, "pad_token_id": 1}
    assert text == tanh | ends | {"model_type": "clip_text_model", "projection_dim": 6}
    usual = to_hf_config(replace(ODD, text=replace(ODD.text, end_id=None, mlp_width=None)))
    assert usual["text_config"]["eos_token_id"] == 2  # transformers' word for the largest id
    assert usual["text_config"]["intermediate_size"] == 48
    same = with_vision(ODD, stride=10, mlp_width=None)
    assert to_hf_config(same)["vision_config"]["intermediate_size"] == 32


@pytest.mark.parametrize("proj", [True, False])
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_one_tower_for_transformers(tower, proj):
    other = "text" if tower == "vision" else "vision"
    one = replace(getattr(ODD, tower), proj=proj)
    written = to_hf_config(replace(ODD, embed_dim=one.width, **{tower: one, other: None}))
    name = tower.title() + "Model" + ("WithProjection" if proj else "")
    assert written["architectures"] == [f"CLIP{name}"]
    assert written["model_type"] == f"clip_{tower}_model"
    assert written["hidden_size"] == one.width


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_both_projections_or_none_of_transformers(tower):
    config = replace(ODD, embed_dim=8, vision=replace(ODD.vision, proj=tower != "vision"))
    if tower == "text":
        config = replace(ODD, embed_dim=12, text=replace(ODD.text, proj=False))
    with pytest.raises(ValueError, match="CLIPModel always has both projections"):
        to_hf_config(config)


# ---------------------------------------------------------------- open_clip

OPEN = {
    "embed_dim": 6,
    "vision_cfg": {"layers": 2, "width": 8, "head_width": 2, "mlp_ratio": 1.125, "patch_size": 10,
                   "image_size": 40, "norm_kwargs": {"eps": 1e-6}},
    "text_cfg": {"layers": 4, "width": 12, "heads": 3, "mlp_ratio": 2, "context_length": 7,
                 "vocab_size": 30, "norm_kwargs": {"eps": 1e-4},
                 "act_kwargs": {"approximate": "tanh"}, "pool_type": "eos", "eos_id": 5},
}  # fmt: skip


def test_claims_of_open_clip():
    both = VISION | TEXT | {"embed_dim": 6, "vision.head_width": 2, "text.mlp_width": 24}
    both |= {"text.end_id": 5}
    for absent in ("vision.heads", "vision.activation"):
        del both[absent]
    assert open_clip_claims(HERE, OPEN) == both
    assert open_clip_claims(HERE, {}) == {}
    assert open_clip_claims(HERE, {"embed_dim": None, "text_cfg": None}) == {}
    towers = {"vision_cfg": {"layers": [1, 2, 3, 4], "width": 8, "mlp_ratio": 4}, "text_cfg": {}}
    for quick, name in ((True, "quick_gelu"), (False, "gelu")):
        claims = open_clip_claims(HERE, towers | {"quick_gelu": quick})
        assert claims == {
            "vision.layers": (1, 2, 3, 4),
            "vision.width": 8,
            "vision.activation": name,
            "text.activation": name,
        }
    assert open_clip_claims(HERE, {"text_cfg": {"pool_type": "eos"}}) == {"text.end_id": 2}
    assert open_clip_claims(HERE, {"text_cfg": {"pool_type": "argmax", "eos_id": 3}}) == {}
    plain = {"vision_cfg": {"act_kwargs": {"approximate": "none"}, "image_size": [4, 4]}}
    claims = open_clip_claims(HERE, plain)
    assert claims == {"vision.activation": "gelu", "vision.image_resolution": 4}


def test_options_of_open_clip_that_are_off_or_as_usual_pass():
    off = {"attentional_pool": False, "no_ln_pre": None, "ls_init_value": 0, "timm_model_name": ""}
    usual = {"pool_type": "tok", "pos_embed_type": "learnable", "block_type": "default"}
    neutral = {"patch_dropout": 0.5, "output_tokens": True, "timm_pool": "avg", "timm_proj": "x"}
    neutral |= {"attn_pooler_queries": 9, "attn_pooler_heads": 8, "timm_model_pretrained": True}
    text = {"pool_type": "argmax", "proj_type": "linear", "block_type": "default", "pad_id": 1}
    text |= {"hf_tokenizer_name": "openai/clip-vit-large-patch14-336", "hf_pooler_type": "x"}
    text |= {"hf_model_pretrained": True, "hf_proj_type": "mlp", "output_tokens": True}
    model = {"custom_text": True, "init_logit_scale": 3, "output_dict": True, "cast_dtype": "bf16"}
    for cfg in (off, usual, neutral):
        assert open_clip_claims(HERE, model | {"vision_cfg": cfg, "text_cfg": text}) == {}
    assert open_clip_claims(HERE, {"text_cfg": {"proj_type": "none"}}) == {}


@pytest.mark.parametrize(
    ("part", "option", "message"),
    [
        ("vision", {"attentional_pool": True}, "vision_cfg.attentional_pool is bool True: this "
                                               "option of open_clip is not supported"),
        ("vision", {"pool_type": "avg"}, "vision_cfg.pool_type is str 'avg': this option of "
                                         "open_clip is not supported (only tok)"),
        ("text", {"proj_type": "mlp"}, "text_cfg.proj_type is str 'mlp': this option of open_clip "
                                       "is not supported (only linear, none)"),
        ("text", {"norm_kwargs": {"eps": 1, "x": 2}}, "text_cfg.norm_kwargs is dict {'eps': 1, 'x':"
                                                      " 2}, expected only eps"),
        ("text", {"act_kwargs": {"approximate": "x"}}, "text_cfg.act_kwargs is dict {'approximate':"
         " 'x'}, expected approximate 'none' or 'tanh' and no quick_gelu"),
        ("text", {"act_kwargs": {"x": 1}}, "text_cfg.act_kwargs is dict {'x': 1}, expected only "
                                           "approximate"),
        ("text", {"mlp_ratio": True, "width": 4}, "text_cfg.mlp_ratio is bool True, expected about "
                                                  "4"),
        ("vision", {"mlp_ratio": 0, "width": 4}, "vision_cfg.mlp_ratio is int 0, expected about 4"),
        ("vision", {"mlp_ratio": 1000, "width": 4}, "vision_cfg.mlp_ratio is int 1000, expected "
                                                    "about 4"),
        ("vision", {"patch_size": [8, 9]}, "vision.patch_size is list [8, 9], expected a square"),
        ("vision", {"timm_model_name": "x"}, "vision_cfg.timm_model_name is str 'x': image towers "
                                             "of timm are not supported, only CLIP's own ViT and "
                                             "ResNet"),
        (None, {"vision_cfg": [3]}, "vision_cfg is list [3], expected an object"),
        (None, {"text_cfg": 3}, "text_cfg is int 3, expected an object"),
        (None, {"quick_gelu": 1}, "quick_gelu is int 1, expected true or false"),
        (None, {"coca": 1}, "model_cfg.coca is int 1: this option of open_clip is not supported"),
    ],
)  # fmt: skip
def test_options_of_open_clip_word_for_word(part, option, message):
    model = option if part is None else {f"{part}_cfg": option}
    assert said(open_clip_claims, HERE, model) == f"c.json: {message}"


def test_ratios_at_their_ends():
    def width(ratio, **more):
        sizes = {"mlp_ratio": ratio, "width": 100} | more
        return open_clip_claims(HERE, {"text_cfg": sizes}).get("text.mlp_width")

    assert (width(0.015), width(999.999), width(4.0079)) == (1, 99999, 400)
    assert width(4, width="x") is width(4, width=True) is width(None) is None


def test_defaults_of_others():
    """Of the classes of transformers, and of open_clip's CLIPVisionCfg and CLIPTextCfg."""
    import transformers

    vision, text = transformers.CLIPVisionConfig(), transformers.CLIPTextConfig()
    assert {
        "vision.activation": vision.hidden_act,
        "vision.heads": vision.num_attention_heads,
        "vision.eps": vision.layer_norm_eps,
        "text.activation": text.hidden_act,
        "text.heads": text.num_attention_heads,
        "text.eps": text.layer_norm_eps,
        "text.end_id": text.eos_token_id,
    } == HF_DEFAULTS
    gelu = dict.fromkeys(("vision.activation", "text.activation"), "gelu")
    eps = dict.fromkeys(("vision.eps", "text.eps"), 1e-5)
    heads = {"vision.head_width": 64, "text.heads": 8, "text.end_id": None}
    assert gelu | eps | heads == OPEN_CLIP_DEFAULTS


# ---------------------------------------------------------------- callers, notes, who is believed


def test_claims_of_a_caller():
    both, text = {"visual.proj": (1, 1), "ln_final.bias": (1,)}, {"ln_final.bias": (1,)}
    assert caller_source("x", both) == Source("x", {})
    assert caller_source("x", both, "gelu", 32, 4).claims == {
        "vision.activation": "gelu",
        "text.activation": "gelu",
        "vision.head_width": 32,
        "vision.stride": 4,
    }
    assert caller_source("x", text, None, 32).claims == {
        "vision.head_width": 32,
        "text.head_width": 32,
    }
    assert caller_source("x", both, ("gelu", None), (None, 8)).claims == {
        "vision.activation": "gelu",
        "text.head_width": 8,
    }
    for wrong in ((), ("gelu",), ("gelu",) * 3):
        with pytest.raises(ValueError) as error:
            caller_source("x", both, activation=wrong)
        assert str(error.value) == f"activation: got {wrong!r}, expected a name, or (image, text)"
    with pytest.raises(ValueError) as error:
        caller_source("x", both, head_width=(1,))
    assert str(error.value) == "head_width: got (1,), expected a number, or (image, text)"


def test_the_first_who_says_it_is_believed():
    shapes = tensor_shapes(ODD)
    whole = {"vision.activation": "gelu", "text.activation": "gelu", "vision.heads": 4}
    whole |= {"text.heads": 3, "text.eps": 1e-3}
    later = {"vision.heads": 1, "text.head_width": 12, "vision.eps": 1e-2, "text.eps": 1e-2}
    later |= {"text.end_id": 7, "text.activation": "quick_gelu"}
    found = decide_config(HERE, shapes, [Source("a", whole), Source("b", later)])
    assert (found.vision.heads, found.text.heads) == (4, 3)
    assert (found.vision.eps, found.text.eps) == (1e-2, 1e-3)
    assert (found.text.end_id, found.text.activation) == (7, "gelu")
    assert (found.vision.mlp_width, found.text.mlp_width) == (9, 20)
    found = decide_config(HERE, shapes, [Source("b", later), Source("a", whole)])
    assert (found.vision.heads, found.text.heads) == (1, 1)
    assert found.vision.stride is None
    four = replace(
        ODD, vision=replace(ODD.vision, mlp_width=32), text=replace(ODD.text, mlp_width=48)
    )
    found = decide_config(HERE, tensor_shapes(four), [Source("a", whole)])
    assert (found.vision.mlp_width, found.text.mlp_width) == (None, None)
    assert (found.vision.eps, found.text.end_id) == (1e-5, None)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("vision.activation", 3, "a name"),
        ("vision.pool", None, "a name"),
        ("text.eps", 0, "a number between 0 and 1"),
        ("text.eps", 1, "a number between 0 and 1"),
        ("text.eps", True, "a number between 0 and 1"),
        ("text.eps", "1e-5", "a number between 0 and 1"),
        ("text.proj", 1, "true or false"),
        ("vision.layers", (1, 2, 0, 4), "four numbers of blocks"),
        ("vision.layers", [1, 2, 3, 4], "a positive integer"),
        ("vision.layers", 0, "a positive integer"),
        ("vision.heads", 2**31, "a positive integer"),
        ("vision.heads", True, "a positive integer"),
        ("vision.heads", 4.0, "a positive integer"),
        ("vision.heads", None, "a positive integer"),
        ("text.end_id", -1, "a positive integer"),
        ("text.end_id", False, "a positive integer"),
        ("text.vocab_size", 0, "a positive integer"),
    ],
)
def test_claims_that_nothing_can_be(field, value, expected):
    kind = f"{type(value).__name__} {value!r}"
    message = f"w: {field} is {kind}, expected {expected}"
    assert said(check_value, "w", field, value) == message


def test_claims_that_may_be():
    for field, value in (
        ("vision.activation", "any name"), ("text.eps", 0.999), ("text.eps", 1e-12),
        ("text.proj", False), ("vision.layers", (1, 2, 3, 4)), ("vision.heads", 1),
        ("vision.heads", 2**31 - 1), ("text.end_id", None), ("text.end_id", 0),
    ):  # fmt: skip
        check_value("w", field, value)


def test_wide_image_towers_and_the_last_that_is_not_wide():
    for width, needed in ((1024, False), (1088, True)):
        config = with_vision(ODD, width=width, heads=width // 64, mlp_width=None)
        names = [Source("a", {"vision.activation": "gelu", "text.activation": "gelu",
                              "text.heads": 3})]  # fmt: skip
        if needed:
            message = said(decide_config, HERE, tensor_shapes(config), names)
            assert message.startswith(
                f"c.json: no source says how many heads an image tower of width {width} has"
            )
            for claim in ({"vision.heads": 17}, {"vision.head_width": 64}):
                more = [*names, Source("b", claim)]
                assert decide_config(HERE, tensor_shapes(config), more).vision.heads == 17
        else:
            assert decide_config(HERE, tensor_shapes(config), names).vision.heads == 16


def test_wide_resnets_tell_their_heads(tmp_path):
    """A ResNet's heads are of the pool, whose width is 32 times the stem's."""
    resnet = VisionConfig(32, (1, 1, 1, 1), 40, 20)
    config = CLIPConfig(6, resnet, TextConfig(7, 30, 64, 1, 1))
    source = Source("a", {"vision.activation": "quick_gelu", "text.activation": "quick_gelu"})
    assert decide_config(HERE, tensor_shapes(config), [source]) == config


def test_an_averaging_resnet_says_its_resolution():
    resnet = VisionConfig(96, (1, 2, 1, 1), 8, 4, pool="average")
    config = CLIPConfig(6, resnet, TextConfig(7, 30, 64, 1, 1))
    claims = {"vision.activation": "quick_gelu", "text.activation": "quick_gelu"}
    claims |= {"vision.pool": "average", "vision.image_resolution": 96}
    assert decide_config(HERE, tensor_shapes(config), [Source("a", claims)]) == config
    del claims["vision.image_resolution"]
    with pytest.raises(CheckpointError):
        decide_config(HERE, tensor_shapes(config), [Source("a", claims)])
    with pytest.raises(CheckpointError, match=r"visual\.attnpool\.positional_embedding"):
        decide_config(HERE, tensor_shapes(config), [Source("a", {})])


def test_what_a_source_says_of_sizes_is_compared():
    shapes = tensor_shapes(ODD)
    good = {"vision.activation": "gelu", "text.activation": "gelu", "vision.head_width": 2,
            "text.head_width": 4}  # fmt: skip
    for field, wrong, found in (
        ("embed_dim", 7, 6), ("vision.width", 9, 8), ("text.layers", 3, 4),
        ("vision.proj", False, True),
        ("text.context_length", 8, 7),
    ):  # fmt: skip
        sources = [Source("a", good), Source("the other", {field: wrong})]
        assert said(decide_config, HERE, shapes, sources) == (
            f"c.json: the other says {field} = {wrong}, but the tensors' shapes give {found}"
        )
        decide_config(HERE, shapes, [Source("a", good), Source("the other", {field: found})])
    text_only = {name: shape for name, shape in shapes.items() if "visual" not in name}
    text_only.pop("logit_scale")
    alone = decide_config(HERE, text_only, [Source("a", {**good, "vision.width": 99})])
    assert alone.vision is None  # what is said of the other tower is not compared
    text_only.pop("text_projection")
    alone = decide_config(HERE, text_only, [Source("a", {**good, "embed_dim": 99})])
    assert not alone.text.proj


def test_notes_keep_a_configuration():
    for config in (ODD, replace(ODD, text=None), replace(ODD, vision=None)):
        kept = {notes.CONFIG: notes.config_note(config)}
        (source,) = notes.noted_config(HERE, kept)
        assert source.name == "its note miniclip_config"
        claims = {"embed_dim": 6}
        for name in ("vision", "text"):
            tower = getattr(config, name)
            for field, value in {} if tower is None else vars(tower).items():
                if value is not None:
                    claims[f"{name}.{field}"] = value
        assert source.claims == claims
    assert notes.noted_config(HERE, {}) == []
    (source,) = notes.noted_config(HERE, {notes.CONFIG: '{"text": {"end_id": null}}'})
    assert source.claims == {"text.end_id": None}
    (source,) = notes.noted_config(HERE, {notes.CONFIG: '{"vision": {"layers": [1, 2, 3, 4]}}'})
    assert source.claims == {"vision.layers": (1, 2, 3, 4)}
    for note, message in (
        ('{"text": {"pool": 1}}', "text has no field 'pool'"),
        ('{"vision": {"end_id": 1}}', "vision has no field 'end_id'"),
        ('{"vision": 1}', "vision is int 1, expected an object"),
        ("[]", "its JSON is list [], expected an object"),
    ):
        assert said(notes.noted_config, HERE, {notes.CONFIG: note}) == (
            f"c.json: its note miniclip_config: {message}"
        )
    assert notes.noted_preprocessing(HERE, {}) == {}
    kept = {notes.PREPROCESSING: notes.preprocessing_note({"fill": 3})}
    assert notes.noted_preprocessing(HERE, kept) == {"fill": 3}


def test_notes_come_after_a_configuration_and_before_a_known_name(tmp_path):
    path = save_checkpoint(state_of("vit"), VIT, tmp_path / "model.safetensors")
    assert read_model(path).config == VIT
    config = open_clip_config(VIT, quick_gelu=True)
    config["model_cfg"]["text_cfg"]["norm_kwargs"] = {"eps": 0.25}
    for name in ("config.json", "open_clip_config.json"):
        (tmp_path / name).write_text(json.dumps(config))
        assert read_model(path).config == replace(VIT, text=replace(VIT.text, eps=0.25))
        (tmp_path / name).write_text(json.dumps({"model_cfg": [1]}))
        assert read_model(path).config == VIT
        (tmp_path / name).unlink()
    known = {"activation": "gelu", "head_width": 32, "stride": 8}
    assert read_model(original_file("vit"), defaults=known).config.vision.activation == "gelu"
    assert read_model(original_file("vit"), defaults=known).config.text.eps == configs.EPS


# ---------------------------------------------------------------- JSON


def test_json_within_bounds(tmp_path, monkeypatch):
    from miniclip.checkpoints import json_files

    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    monkeypatch.setattr(json_files, "MAX_JSON", 8)
    assert read_json(path) == {"a": 1}
    monkeypatch.setattr(json_files, "MAX_JSON", 7)
    assert said(read_json, path) == f"{path}: 8 bytes, expected at most 7"
    gone = tmp_path / "gone.json"
    assert said(read_json, gone) == f"{gone}: cannot be read: No such file or directory"


def test_what_json_should_hold():
    assert parse_json("x", b'{"a": {"b": [1, {"c": null}]}}') == {"a": {"b": [1, {"c": None}]}}
    for text, message in (
        (b'{"a": {"b": 1, "b": 1}}', "x: the key 'b' occurs twice in one JSON object"),
        (b'{"a": -Infinity}', "x: its JSON is not valid: -Infinity is no JSON number"),
        (b'"a"', "x: its JSON is str 'a', expected an object"),
    ):
        assert said(parse_json, "x", text) == message
    assert as_object("x", "f", None) == {}
    assert as_object("x", "f", {"a": 1}) == {"a": 1}
    assert said(as_object, "x", "f", [1]) == "x: f is list [1], expected an object"
    long = said(as_object, "x", "f", "y" * 99)
    assert long == f"x: f is str '{'y' * 59}..., expected an object"
    exact = said(as_object, "x", "f", "y" * 58)
    assert exact == f"x: f is str '{'y' * 58}', expected an object"
    check_only("x", "f", {"a": 1}, {"a"})
    assert said(check_only, "x", "f", {}, {"a"}) == "x: f is dict {}, expected only a"


def test_squares():
    for value, side in ((7, 7), ([7, 7], 7), ("7", "7"), (None, None)):
        assert square("x", "f", value) == side
    assert type(square("x", "f", [7, 7.0])) is int
    for wrong in ([7, 8], [7], [7, 7, 7], []):
        assert said(square, "x", "f", wrong) == f"x: f is list {wrong}, expected a square"


def test_a_folder_of_transformers_without_its_configuration(tmp_path):
    """hf_config and the notes: who is not there says nothing."""
    from checkpoint_files import transformers_folder

    (tmp_path / "model.safetensors").symlink_to(transformers_folder()[0] / "model.safetensors")
    with pytest.raises(CheckpointError, match="neither a configuration beside it"):
        read_model(tmp_path)
    known = {"activation": "gelu", "head_width": (32, 16)}
    found = read_model(tmp_path, defaults=known).config
    assert (found.vision.heads, found.text.heads, found.text.end_id) == (4, 4, None)
    config = hf_config(VIT)
    del config["text_config"]["hidden_act"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_model(tmp_path, defaults=known).config.text.activation == "gelu"
    assert read_model(tmp_path).config.text.activation == "quick_gelu"
