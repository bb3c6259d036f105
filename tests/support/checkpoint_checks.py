"""What must hold of reading and writing checkpoints. The checks take the package to test, so that
planted bugs go through the very same ones."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_files import (
    BROKEN,
    CONFIGS,
    END,
    VIT,
    ask_original,
    ask_transformers,
    folder,
    hf_config,
    inputs_of,
    open_clip_config,
    original_file,
    pack,
    state_of,
    tensor,
    transformers_folder,
    with_activation,
)
from model_checks import own_config
from safetensors.torch import load_file, save_file

BOUND = 1e-5


def model_of(package, loaded):
    model = package.models.CLIP(loaded.config, seed=None)
    model.load_state_dict(loaded.state)
    return model


def check_embeddings(package, loaded, kind, expected):
    model = model_of(package, loaded)
    images, ids = inputs_of(kind)
    for got, truth in zip(
        (model.encode_image(images), model.encode_text(ids)), expected, strict=True
    ):
        error = np.linalg.norm(got - truth) / np.linalg.norm(truth)
        assert error <= BOUND, f"embeddings differ by {error:.1e}"


def check_state(loaded, state):
    assert loaded.state.keys() == state.keys()
    for name, array in state.items():
        assert loaded.state[name].shape == array.shape, name
        assert np.array_equal(loaded.state[name], array), name


def check_transformers(package):
    """Folders of transformers: whole, sharded, with each activation and both end-of-text rules."""
    cases = [{}, {"shards": True}, {"activation": "gelu"}, {"activation": "gelu_new"}]
    cases += [{"end": END}, {"eps": 1e-3}]
    for case in cases:
        path, expected = transformers_folder(**case)
        loaded = package.checkpoints.read_model(path)
        assert loaded.layout == "hf"
        check_state(loaded, state_of("vit"))
        check_embeddings(package, loaded, "vit", expected)


def check_other_spelling(package):
    """Some files mend the misspelt pre_layrnorm."""
    path, _ = transformers_folder()
    mended = folder("hf-mended")
    tensors = load_file(path / "model.safetensors")
    save_file(
        {k.replace("pre_layrnorm", "pre_layernorm"): v for k, v in tensors.items()},
        mended / "model.safetensors",
    )
    shutil.copy(path / "config.json", mended)
    check_state(package.checkpoints.read_model(mended), state_of("vit"))


def check_original(package):
    """Bare files of the original: the state bit for bit, and its embeddings."""
    for kind, config in CONFIGS.items():
        path = original_file(kind)
        loaded = package.checkpoints.read_model(path, activation="quick_gelu")
        assert loaded.config == own_config(package, config)
        check_state(loaded, state_of(kind))
        check_embeddings(package, loaded, kind, ask_original(kind))


def check_halves(package):
    """F16, BF16 and mixed files hold the same rounded numbers as float32 files of them."""
    whole = load_file(original_file("vit"))
    mixed = {
        k: v.half() if v.ndim == 2 and v.is_floating_point() and "ln" not in k else v
        for k, v in whole.items()
    }
    for name, tensors in {
        "half": {k: v.half() if v.is_floating_point() else v for k, v in whole.items()},
        "bfloat16": {k: v.bfloat16() if v.is_floating_point() else v for k, v in whole.items()},
        "mixed": mixed,
        "double": {k: v.double() if v.is_floating_point() else v for k, v in whole.items()},
    }.items():
        path = folder("halves") / f"{name}.safetensors"
        save_file(tensors, path)
        loaded = package.checkpoints.read_model(path, activation="quick_gelu")
        check_state(loaded, {k: tensors[k].float().numpy() for k in state_of("vit")})
        wanted = np.float64 if name == "double" else np.float32
        assert {x.dtype for x in loaded.state.values()} == {np.dtype(wanted)}


def check_halves_joined(package):
    """Hugging Face's layout in half precision: widened and joined."""
    path, _ = transformers_folder()
    tensors = {k: v.bfloat16() for k, v in load_file(path / "model.safetensors").items()}
    place = folder("hf-bfloat16")
    save_file(tensors, place / "model.safetensors")
    shutil.copy(path / "config.json", place)
    expected = {k: torch.tensor(v).bfloat16().float().numpy() for k, v in state_of("vit").items()}
    check_state(package.checkpoints.read_model(place), expected)


def check_open_clip(package):
    """The activation follows the flag quick_gelu; without it, the known name; else GELU."""
    place = folder("open_clip")
    shutil.copy(original_file("vit"), place / "open_clip_model.safetensors")
    save_file({"cls_token": torch.zeros(3)}, place / "model.safetensors")  # timm's, not to be taken
    (place / "config.json").write_text('{"architecture": "vit_base_patch32_clip_224"}')
    read = package.checkpoints.read_model
    known = {"activation": "gelu_tanh"}
    for flag, activation in (({"quick_gelu": True}, "quick_gelu"), ({"quick_gelu": False}, "gelu")):
        write_json(place / "open_clip_config.json", open_clip_config(VIT, **flag))
        assert read(place, defaults=known).config == own_config(
            package, with_activation(VIT, activation)
        )
        assert read(place, activation="gelu_tanh").config.text.activation == "gelu_tanh"
    write_json(place / "open_clip_config.json", open_clip_config(VIT))
    assert read(place, defaults=known).config.vision.activation == "gelu_tanh"
    loaded = read(place)
    assert loaded.config.text.activation == "gelu"
    assert loaded.preprocessing == {
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "size": 32,
        "resize_mode": "squash",
        "interpolation": "bicubic",
    }


def check_disagreement(package):
    """What a configuration says about sizes must be what the tensors have."""
    place = folder("disagreement")
    shutil.copy(original_file("vit"), place / "open_clip_model.safetensors")
    config = open_clip_config(VIT, quick_gelu=True)
    config["model_cfg"]["vision_cfg"]["width"] = 96
    write_json(place / "open_clip_config.json", config)
    with pytest.raises(
        package.checkpoints.CheckpointError,
        match=r"open_clip_config.json says vision.width = 96, but the tensors' shapes give 128",
    ):
        package.checkpoints.read_model(place)


def check_missing(package):
    """A key too few, or too many, is named, and nothing is loaded."""
    tensors = load_file(original_file("vit"))
    path = folder("missing") / "model.safetensors"
    theirs = load_file(transformers_folder()[0] / "model.safetensors")
    extra = torch.zeros(3)
    for changed, named in (
        ({k: v for k, v in tensors.items() if k != "ln_final.bias"}, "missing 'ln_final.bias'"),
        (tensors | {"visual.extra": extra}, "'visual.extra' belongs to no"),
        (tensors | {"head.weight": extra}, "'head.weight' belongs to no"),
        (theirs | {"vision_model.extra": extra}, "'vision_model.extra' belongs to no"),
        (theirs | {"text_model.encoder.layers.1.x": extra}, "'text_model.encoder.layers.1.x' bel"),
    ):
        save_file(changed, path)
        with pytest.raises(package.checkpoints.CheckpointError) as caught:
            package.checkpoints.read_model(path, activation="quick_gelu")
        assert named in str(caught.value)
        assert str(path) in str(caught.value)


def check_broken(package):
    """Every broken file is refused with one error that names file, key, and what is wrong."""
    place = folder("broken")
    for name, (content, expected) in BROKEN.items():
        path = place / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(package.checkpoints.CheckpointError) as caught:
            package.checkpoints.open_checkpoint(path)
        message = str(caught.value)
        assert str(path) in message, name
        assert expected in message, f"{name}: {message}"


def check_index(package):
    """An index must name files of its own folder, and hold exactly their keys."""
    place = folder("index")
    (place / "one.safetensors").write_bytes(pack({"a": tensor()}, bytes(8)))
    (place / "two.safetensors").write_bytes(pack({"b": tensor()}, bytes(8)))
    index = place / "model.safetensors.index.json"
    good = {"a": "one.safetensors", "b": "two.safetensors"}
    for weight_map, expected in (
        (
            {"a": "one.safetensors"} | {"b": "three.safetensors"},
            "'three.safetensors', which is not",
        ),
        ({"a": "two.safetensors", "b": "two.safetensors"}, "'a' is in two.safetensors, but"),
        ({"b": "two.safetensors", "c": "one.safetensors"}, "'c' is in one.safetensors, but"),
        ({"b": "one.safetensors", "a": "two.safetensors"}, "'b' is in one.safetensors, but"),
        (good | {"b": "../index/two.safetensors"}, "of the same folder"),
        (good | {"b": str(place / "two.safetensors")}, "of the same folder"),
        (good | {"b": "..\\two.safetensors"}, "of the same folder"),
        (good | {"b": "two.bin"}, "expected a .safetensors file"),
        (good | {"b": 3}, "expected a .safetensors file"),
        ({}, "expected key -> file"),
        ([], "expected key -> file"),
    ):
        write_json(index, {"metadata": {}, "weight_map": weight_map})
        with pytest.raises(package.checkpoints.CheckpointError) as caught:
            package.checkpoints.open_checkpoint(place)
        assert expected in str(caught.value)
        assert str(place) in str(caught.value)
    (place / "two.safetensors").write_bytes(pack({"b": tensor(), "x": tensor(8, 16)}, bytes(16)))
    write_json(index, {"weight_map": good})
    with pytest.raises(
        package.checkpoints.CheckpointError, match=r"holds 'x', but model.*not list"
    ):
        package.checkpoints.open_checkpoint(index)
    (place / "two.safetensors").write_bytes(pack({"b": tensor()}, bytes(8)))
    assert package.checkpoints.open_checkpoint(place).keys() == ["a", "b"]


def check_copy_on_write(package):
    """Arrays lie in the file, can be written into, and never change it."""
    path = folder("written") / "model.safetensors"
    package.checkpoints.save_checkpoint(state_of("vit"), own_config(package, VIT), path)
    before = path.read_bytes()
    loaded = package.checkpoints.read_model(path)
    for name, array in loaded.state.items():
        assert not array.flags.owndata, f"{name} was copied"
        assert array.flags.aligned, name
        array += 1
    assert path.read_bytes() == before
    check_state(package.checkpoints.read_model(path), state_of("vit"))


def check_writer(package):
    """Our own files come back as they went, with their configuration, in both layouts."""
    path = folder("ours") / "model.safetensors"
    for kind, config in CONFIGS.items():
        config = own_config(package, with_activation(config, "gelu"))
        package.checkpoints.save_checkpoint(state_of(kind), config, path)
        loaded = package.checkpoints.read_model(path, defaults={"activation": "quick_gelu"})
        assert loaded.config == config
        check_state(loaded, state_of(kind))


def check_writer_hf(package):
    """transformers loads our folder and gives the embeddings of the model in it."""
    import transformers

    path, expected = transformers_folder(activation="gelu_new", end=END)
    loaded = package.checkpoints.read_model(path)
    place = folder("ours-hf")
    state = {name: np.array(x, order="C") for name, x in loaded.state.items()}
    package.checkpoints.save_checkpoint(state, loaded.config, place, layout="hf")
    model = transformers.CLIPModel.from_pretrained(place)
    for got, truth in zip(ask_transformers(model, *inputs_of("vit")), expected, strict=True):
        assert np.linalg.norm(got - truth) <= BOUND * np.linalg.norm(truth)
    assert package.checkpoints.read_model(place).config == loaded.config


def check_beside_a_hub_file(package):
    """Hugging Face's keys with a config.json by hand, where transformers' usual values stay out."""
    place = folder("hf-by-hand")
    shutil.copy(transformers_folder()[0] / "model.safetensors", place)
    config = replace(VIT, vision=replace(VIT.vision, heads=4), text=replace(VIT.text, heads=2))
    write_json(place / "config.json", hf_config(config))
    assert package.checkpoints.read_model(place).config == own_config(package, config)


def write_json(path, content):
    path.write_text(json.dumps(content))


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_") and check.__code__.co_varnames[:1] == ("package",)
    if check.__code__.co_argcount == 1
}
