"""Checkpoints of all nine CLIPs at full size, written by those who write the real ones.

Loading has no rounding, so that every tensor must come back bit for bit; then the embeddings of
three of them are compared with the writer's own float64 truth. The weights are random, and alive
(`original.living_state`). One model at a time, and every file is removed when it was read.
"""

import gc
import shutil

import numpy as np
import pytest
import torch
from original import (
    living_state,
    load_into_original,
    original_clip,
    pictures,
    texts,
    transformers_clip,
)
from safetensors.torch import save_file

from miniclip.checkpoints import read_model, save_checkpoint
from miniclip.models import CLIP, OPENAI_CONFIGS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("heavy")]

FACTOR, FLOOR = 3, 1e-5
VITS = [name for name in OPENAI_CONFIGS if name.startswith("ViT")]
SHARD_SIZES = {"ViT-L/14": "500MB", "ViT-L/14@336px": "500MB"}


@pytest.fixture(autouse=True)
def _alone_on_the_machine(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)
    shutil.rmtree(tmp_path)
    gc.collect()


def write_original(name, path):
    """The state_dict of the original, as published: with counters of batches and three scalars."""
    config = OPENAI_CONFIGS[name]
    state = living_state(config, seed=1)
    tensors = {key: torch.from_numpy(np.asarray(x)) for key, x in state.items()}
    counters = [key for key in state if key.endswith("running_mean")]
    for key in counters:
        tensors[key.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    for key, value in (
        ("input_resolution", config.vision.image_resolution),
        ("context_length", 77),
        ("vocab_size", 49408),
    ):
        tensors[key] = torch.tensor(value)
    save_file(tensors, path)
    return state


def check_exact(loaded, name, state):
    assert loaded.config == OPENAI_CONFIGS[name]
    assert loaded.state.keys() == state.keys()
    for key, array in state.items():
        assert np.array_equal(loaded.state[key], array), key


@pytest.mark.parametrize("name", OPENAI_CONFIGS)
def test_files_of_the_original(name, tmp_path):
    state = write_original(name, tmp_path / "model.safetensors")
    loaded = read_model(tmp_path / "model.safetensors", activation="quick_gelu")
    check_exact(loaded, name, state)
    CLIP(loaded.config, seed=None).load_state_dict(loaded.state)


@pytest.mark.parametrize("name", VITS)
def test_folders_of_transformers(name, tmp_path):
    config = OPENAI_CONFIGS[name]
    state = living_state(config, seed=1)
    model = transformers_clip(config, state)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=SHARD_SIZES.get(name, "50GB"))
    del model
    sharded = (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    assert sharded == (name in SHARD_SIZES)
    check_exact(read_model(tmp_path / "theirs"), name, state)


@pytest.mark.parametrize("name", ["RN50", "ViT-B/32"])
def test_our_own_files(name, tmp_path):
    config = OPENAI_CONFIGS[name]
    state = living_state(config, seed=1)
    save_checkpoint(state, config, tmp_path / "ours.safetensors")
    check_exact(read_model(tmp_path / "ours.safetensors"), name, state)
    if name in VITS:
        save_checkpoint(state, config, tmp_path / "ours", layout="hf")
        check_exact(read_model(tmp_path / "ours"), name, state)


@pytest.mark.parametrize("name", ["RN50", "ViT-B/32", "ViT-L/14@336px"])
def test_embeddings(name, tmp_path):
    """The file's embeddings are its writer's, as far as float32 goes."""
    config = OPENAI_CONFIGS[name]
    state = write_original(name, tmp_path / "model.safetensors")
    inputs = pictures(config, 1, seed=1), texts(config, 2, seed=1)
    truth = original_embeddings(config, state, inputs, torch.float64)
    own = errors(original_embeddings(config, state, inputs, torch.float32), truth)
    del state
    loaded = read_model(tmp_path / "model.safetensors", activation="quick_gelu")
    model = CLIP(loaded.config, seed=None)
    model.load_state_dict(loaded.state)
    got = model.encode_image(inputs[0]), model.encode_text(inputs[1])
    for what, error, allowed in zip(("image", "text"), errors(got, truth), own, strict=True):
        print(f"{name}: {what} error {error:.1e} (the original's own {allowed:.1e})")
        assert error <= max(FACTOR * allowed, FLOOR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype, tmp_path):
    """A file in half precision is the same rounded weights in float32."""
    state = living_state(OPENAI_CONFIGS["ViT-B/32"], seed=1)
    tensors = {key: torch.from_numpy(np.asarray(x)).to(dtype) for key, x in state.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = read_model(tmp_path / "model.safetensors", activation="quick_gelu")
    check_exact(loaded, "ViT-B/32", {key: x.float().numpy() for key, x in tensors.items()})


def original_embeddings(config, state, inputs, dtype):
    model = original_clip(config, dtype)
    load_into_original(model, state)
    with torch.no_grad():
        image = model.encode_image(torch.tensor(inputs[0], dtype=dtype))
        return image.numpy(), model.encode_text(torch.tensor(inputs[1])).numpy()


def errors(got, truth):
    pairs = zip(got, truth, strict=True)
    return [np.linalg.norm(x - true) / np.linalg.norm(true) for x, true in pairs]
