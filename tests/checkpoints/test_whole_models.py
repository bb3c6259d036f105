"""A tensor that is missing, or has no place: `load` and `weights check` say the same of it."""

import json
import shutil

import numpy as np
import pytest
from checkpoint_files import VIT, original_file, transformers_folder
from model_checks import with_vision
from safetensors.numpy import load_file, save_file

from miniclip import cli
from miniclip.checkpoints import CheckpointError, read_model
from miniclip.checkpoints.hub import check_weights
from miniclip.models import CLIP

SOME = {
    "vit": ["visual.class_embedding", "visual.transformer.resblocks.2.mlp.c_proj.bias",
            "transformer.resblocks.0.ln_2.weight", "positional_embedding", "logit_scale"],
    "resnet": ["visual.bn3.running_var", "visual.layer2.1.conv2.weight", "ln_final.weight",
               "visual.layer1.0.downsample.1.bias", "visual.attnpool.k_proj.bias"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, keys in SOME.items() for key in keys]
)
def test_a_missing_tensor_of_the_original(kind, key, tmp_path):
    tensors = load_file(original_file(kind))
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    whole = check_weights(path)  # though nothing says its activation
    assert (whole.error, whole.ok) == (None, True)
    del tensors[key]
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as error:
        read_model(path, activation="quick_gelu")
    assert key in str(error.value)
    for what in (path, tmp_path):
        report = check_weights(what)
        assert report.error == str(error.value)
        assert not report.ok
        assert report.files[0].problem is None


def test_a_missing_tensor_of_transformers(tmp_path, capsys):
    shutil.copytree(transformers_folder()[0], tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    assert check_weights(tmp_path / "m").ok
    assert cli.main(["weights", "check", str(path)]) == 0
    tensors = load_file(path)
    del tensors["text_model.encoder.layers.1.self_attn.v_proj.bias"]
    save_file(tensors, path)
    said = f"{path}: missing 'text_model.encoder.layers.1.self_attn.v_proj.bias'"
    with pytest.raises(CheckpointError) as error:
        read_model(tmp_path / "m")
    assert str(error.value) == check_weights(path).error == said
    capsys.readouterr()
    assert cli.main(["weights", "check", str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == said


@pytest.mark.parametrize("half", ["visual.", ""])
def test_one_tower_is_whole(half, tmp_path):
    tensors = {
        k: v
        for k, v in load_file(original_file("vit")).items()
        if k.startswith("visual.") == bool(half) and k != "logit_scale"
    }
    save_file(tensors, tmp_path / "m.safetensors")
    assert check_weights(tmp_path).ok
    save_file(tensors | {"extra": np.zeros(2, np.float32)}, tmp_path / "m.safetensors")
    assert check_weights(tmp_path).error == (
        f"{tmp_path / 'm.safetensors'}: 'extra' belongs to no tensor of this model"
    )


def test_what_load_has_to_be_told_is_no_fault_of_a_file(tmp_path):
    """Its activation, the heads of a wide tower, and how far its patches overlap."""
    for config in (with_vision(VIT, width=1280, heads=16, layers=1), with_vision(VIT, stride=4)):
        state = CLIP(config, seed=1).state_dict()
        save_file(state, tmp_path / "m.safetensors")
        assert check_weights(tmp_path).error is None


def test_what_stands_beside_a_file_counts(tmp_path):
    """A configuration that does not fit is refused by both."""
    shutil.copytree(transformers_folder()[0], tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["text_config"]["vocab_size"] = 51
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as error:
        read_model(tmp_path / "m")
    assert check_weights(tmp_path / "m").error == str(error.value)


def test_damage_of_one_file_is_told_once(tmp_path):
    tensors = load_file(original_file("vit"))
    tensors["ln_final.bias"][1] = np.inf
    save_file(tensors, tmp_path / "m.safetensors")
    report = check_weights(tmp_path)
    assert (report.error, report.ok) == (None, False)
    assert report.files[0].problem == "ln_final.bias holds values that are not finite"
    (tmp_path / "m.safetensors").write_bytes(b"\0" * 20)
    report = check_weights(tmp_path)
    assert (report.error, report.ok) == (None, False)
    assert report.files[0].problem.startswith(str(tmp_path / "m.safetensors"))
