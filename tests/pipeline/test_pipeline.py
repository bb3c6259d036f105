"""`load`: from names, files and folders to a model with its vocabulary, transform and backend."""

import json
import shutil

import drawn
import numpy as np
import pytest
from pipelines import make_pipeline

import miniclip
from miniclip import backends
from miniclip.checkpoints import CheckpointError, hub
from miniclip.inputs.bpe import train_merges
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.inputs.vocabulary import BPE_FILE
from miniclip.pipeline import find_tokenizer, vocabularies


@pytest.fixture
def folder(tmp_path):
    make_pipeline().save(tmp_path / "checkpoint" / "model.safetensors")
    return tmp_path / "checkpoint"


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without vocabularies: no cache, no packages that bring one, no hub."""
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(vocabularies, "find_spec", lambda name: None)

    def offline(repository):
        raise hub.HubError(f"{repository}: offline")

    monkeypatch.setattr(hub, "download_tokenizer", offline)
    return tmp_path / "cache"


def test_a_bare_file_needs_its_activation(folder, tmp_path):
    """Without notes and without a configuration beside it, the activation is never guessed."""
    from safetensors.numpy import load_file, save_file

    state = load_file(folder / "model.safetensors")
    bare = tmp_path / "bare.safetensors"
    save_file(state, bare)
    with pytest.raises(CheckpointError, match=r"bare\.safetensors.*activation.*quick_gelu"):
        miniclip.load(bare)
    model = miniclip.load(bare, activation="gelu", backend="numpy")
    assert model.config.vision.activation == model.config.text.activation == "gelu"
    assert model.config.vision.heads == 1  # 64 wide, by the usual head width


def test_the_vocabulary_beside_the_checkpoint_comes_first(folder, nowhere):
    model = miniclip.load(folder, backend="numpy")
    assert model.tokenizer.vocab_size == model.config.text.vocab_size == 543


def test_places_of_a_vocabulary_in_order(nowhere, monkeypatch, tmp_path):
    """Beside the checkpoint, in the cache, in an installed package; the first one wins."""
    found = {}
    for n, place in enumerate(("beside", "cache", "package")):
        merges = train_merges(drawn.CAPTIONS, 520 + n)
        found[place] = Tokenizer(merges, context_length=20)
    package = tmp_path / "package"
    spec = type("Spec", (), {"submodule_search_locations": [str(package)]})
    found["package"].save(package)
    specs = {"open_clip": spec}
    monkeypatch.setattr(vocabularies, "find_spec", specs.get)
    beside = tmp_path / "beside"
    for place, where in (("package", package), ("cache", nowhere), ("beside", beside)):
        found[place].save(where)
        assert find_tokenizer(beside).vocab_size == found[place].vocab_size


def test_no_vocabulary_anywhere_says_how_to_get_one(folder, nowhere):
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    model = miniclip.load(folder, backend="numpy")
    with pytest.raises(ValueError, match=rf"tokenizer: no vocabulary .*{BPE_FILE}.*pip install"):
        model.encode_text("a cat")
    ids = np.array([[541, 3, 542]])
    assert model.encode_text(ids).shape == (1, 16)  # ids need none


def test_a_vocabulary_of_another_size_is_refused(folder, tmp_path):
    Tokenizer(train_merges(drawn.CAPTIONS, 530)).save(folder)
    with pytest.raises(ValueError, match="has 530 words, expected 543 as in the model"):
        miniclip.load(folder, backend="numpy").tokenize("a cat")


def test_a_vocabulary_of_ones_own(folder):
    own = make_pipeline().tokenizer
    assert miniclip.load(folder, backend="numpy", tokenizer=own).tokenizer is own


def test_names_and_paths_that_do_not_exist(tmp_path):
    with pytest.raises(ValueError, match=r"model: got 'ViT-B/33'.*ViT-B/32"):
        miniclip.load("ViT-B/33")
    with pytest.raises(ValueError, match="there is no file or folder"):
        miniclip.load(tmp_path / "nothing")
    with pytest.raises(TypeError, match="model: got int"):
        miniclip.load(5)


def test_backend_and_dtype(folder):
    assert miniclip.load(folder).network.ops.name == backends.choose("auto")
    assert miniclip.load(folder, backend="numpy", dtype="float64").encode_text("a").dtype == "f8"
    with pytest.raises(ValueError, match="backend: got 'torch'"):
        miniclip.load(folder, backend="torch")
    with pytest.raises(TypeError, match="dtype: got float16"):
        miniclip.load(folder, dtype="float16")


def test_preprocessing_travels_with_the_checkpoint(tmp_path):
    """Mean, deviation and the way to resize come back from a saved file."""
    model = make_pipeline()
    other = miniclip.Transform(
        size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize_mode="squash"
    )
    model._transform = other
    model.save(tmp_path / "model.safetensors")
    assert miniclip.load(tmp_path, backend="numpy").transform == other


def test_a_wrong_picture_is_named_by_its_place_in_the_list(monkeypatch):
    """Also when the list is taken in chunks."""
    monkeypatch.setattr("miniclip.pipeline.pipeline.images_per_chunk", lambda config: 2)
    good = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ValueError, match=r"images\[3\]"):
        make_pipeline().encode_image([good, good, good, np.zeros((0, 4, 3), np.uint8)])


def test_one_tower_alone(folder, tmp_path):
    """A file with the image tower only: it encodes images, and says what it cannot do."""
    from safetensors.numpy import load_file, save_file

    state = load_file(folder / "model.safetensors")
    visual = {k: v for k, v in state.items() if k.startswith("visual.")}
    save_file(visual, tmp_path / "visual.safetensors")
    model = miniclip.load(tmp_path / "visual.safetensors", activation="quick_gelu", backend="numpy")
    assert model.encode_image(np.zeros((9, 9, 3), np.uint8)).shape == (1, 16)
    for call in (lambda: model.encode_text("a cat"), lambda: model.tokenize("a cat")):
        with pytest.raises(ValueError, match="this model has no text tower"):
            call()
    with pytest.raises(ValueError, match="no text tower"):
        miniclip.zero_shot(np.zeros((9, 9, 3), np.uint8), ["a cat"], model)


def test_tokenize_at_the_front_door():
    """The original's vocabulary, wherever it is found (the tests install openai-clip)."""
    ids = miniclip.tokenize(["Hello World!", "a photo of a cat"])
    assert ids.shape == (2, 77)
    assert ids[0, :5].tolist() == [49406, 3306, 1002, 256, 49407]
    with pytest.raises(ValueError, match="expected at most 77"):
        miniclip.tokenize("word " * 80)
    assert miniclip.tokenize("word " * 80, truncate=True)[0, -1] == 49407


def test_the_table_gives_what_the_file_does_not_say(folder, monkeypatch, tmp_path):
    """A known name: its activation and preprocessing fill the gaps, and never overrule the file."""
    from safetensors.numpy import load_file, save_file

    from miniclip.checkpoints.hub import Resolved
    from miniclip.checkpoints.known import find_known

    known = find_known("ViT-L-14/laion2b_s32b_b82k")
    assert known.preprocessing["mean"] == (0.5, 0.5, 0.5)
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(folder / "model.safetensors"), bare)
    monkeypatch.setattr(hub, "resolve", lambda *a: Resolved(bare, known, known.name))
    model = miniclip.load(known.name, backend="numpy")
    assert model.config.vision.activation == known.activation == "gelu"
    assert model.transform.mean == (0.5, 0.5, 0.5)
    (tmp_path / "open").mkdir()
    shutil.copy(bare, tmp_path / "open" / "open_clip_model.safetensors")
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 40, "vocab_size": 543, "width": 64, "heads": 1, "layers": 2}
    model = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}
    (tmp_path / "open" / "open_clip_config.json").write_text(json.dumps(config))
    resolved = Resolved(tmp_path / "open", known, known.name)
    monkeypatch.setattr(hub, "resolve", lambda *a: resolved)
    model = miniclip.load(known.name, backend="numpy")
    assert model.config.vision.activation == "quick_gelu"
    assert model.transform.mean == (0.1, 0.2, 0.3)
