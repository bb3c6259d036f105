"""What comes in through the front doors: taken rightly, or refused in one clear line."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from picture_checks import noise
from PIL import Image
from pipelines import make_pipeline
from safetensors.numpy import load_file, save_file

import miniclip
from miniclip.checkpoints import CheckpointError, open_checkpoint, read_model, save_checkpoint
from miniclip.inputs.pictures import PictureError
from miniclip.inputs.preprocess import Transform, preprocess
from miniclip.inputs.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model():
    return make_pipeline()


@pytest.fixture(scope="module")
def pixels(model):
    return model.preprocess([noise("RGB", 40, 50, 1), noise("RGB", 50, 40, 2)])


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A home, and a working directory beside it in which no `~` may appear."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "home"
    assert not list((tmp_path / "work").iterdir())


# ---------------------------------------------------------------- preprocessed arrays


def test_rows_and_lists_of_preprocessed_arrays(model, pixels):
    whole = model.encode_image(pixels)
    first, second = (pixels[i] for i in range(2))
    for images, rows in (
        (first, [0]),
        (second, [1]),
        ([second, first], [1, 0]),
        ((pixels, first), [0, 1, 0]),
        ([pixels[:1], second], [0, 1]),
        (pixels.astype(np.float64), [0, 1]),
    ):
        np.testing.assert_allclose(model.encode_image(images), whole[rows], atol=1e-6)
    result = miniclip.zero_shot([first, second], ["a", "b"], model)
    assert result.cosine.shape == (2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: np.zeros((2, 3, 48, 48)), r"image: preprocessed for 48 x 48 .* 32 x"),
        (lambda x: np.zeros((3, 48, 32), np.float32), "image: preprocessed for 48 x 32 pixels"),
        (lambda x: [x[0], np.zeros((3, 8, 8), np.float32)], r"images\[1\]: preprocessed for 8 x 8"),
        (lambda x: [x[0], noise("RGB", 9, 9)], r"images\[1\]: a picture among preprocessed arrays"),
        (lambda x: ["a.png", x[0]], r"images\[0\]: a picture among preprocessed arrays"),
        (lambda x: np.full((2, 3, 32, 32), 200.0), r"image: got floats up to 200 .*most 2\.15"),
        (lambda x: -np.full((3, 32, 32), 99.0), "image: got floats up to 99"),
        (lambda x: (x * 100).astype(np.uint8), "has its channels first"),
        (lambda x: x[:0], r"image: got an array of shape \(0, 3, 32, 32\)"),
        (lambda x: iter(x), r"images\[0\]: .* looks already preprocessed: .* in a list of such"),
    ],
)
def test_arrays_that_are_not_pixels_for_this_model(model, pixels, make, message):
    with pytest.raises(PictureError, match=message) as error:
        model.encode_image(make(pixels))
    assert "\n" not in str(error.value)


def test_what_counts_as_normalised_follows_the_transform(pixels):
    """A model whose pixels are 0 to 255 is given them, and no more than a few times that."""
    model = make_pipeline()
    model._transform = Transform(size=32, mean=(0, 0, 0), std=(1 / 255,) * 3)
    x = model.preprocess(noise("RGB", 40, 50))
    assert x.max() > 200
    assert model.encode_image(x).shape == (1, 16)
    with pytest.raises(PictureError, match=r"at most 255"):
        model.encode_image(x * 255)


def test_closed_pictures_and_files(model, tmp_path):
    path = tmp_path / "a.png"
    noise("RGB", 9, 9).save(path)
    with Image.open(path) as picture:
        pass  # closes the file before the pixels were read
    with pytest.raises(PictureError, match="image: a closed picture, expected one that is open"):
        model.encode_image(picture)
    with path.open("rb") as file:
        pass
    for closed in (file, Image.open(path)):
        closed.close()
        with pytest.raises(PictureError, match=r"image: .*closed"):
            model.encode_image(closed)
    with Image.open(path) as picture:
        picture.load()
    assert model.encode_image(picture).shape == (1, 16)


def test_paths_in_an_array_are_paths_as_texts_are_texts(model, tmp_path):
    noise("RGB", 9, 9).save(tmp_path / "a.png")
    paths = np.array([str(tmp_path / "a.png")] * 2)
    assert model.encode_image(paths).shape == model.encode_text(np.array(["a", "b"])).shape


@pytest.mark.parametrize(
    "several", [iter, lambda x: (y for y in x), lambda x: dict(enumerate(x)).values()]
)
def test_iterables_of_pictures_wherever_iterables_of_texts(model, several):
    pictures = [noise("RGB", 9, 12), noise("L", 12, 9)]
    texts = ["a cat", "a dog"]
    assert model.preprocess(several(pictures)).shape == (2, 3, 32, 32)
    assert model.similarity(several(pictures), several(texts)).cosine.shape == (2, 2)
    assert miniclip.zero_shot(several(pictures), several(texts), model).cosine.shape == (2, 2)


@pytest.mark.filterwarnings("ignore::miniclip.inputs.preprocess.PictureWarning")
def test_sixteen_bits_in_either_order_of_bytes():
    """The same numbers in a TIFF of Intel's and of Motorola's order, resized in between."""
    levels = np.random.default_rng(0).integers(0, 400, (40, 50))
    expected = preprocess(Image.fromarray(levels.astype(np.uint16)), 32)
    for mode, dtype in (("I;16", "<u2"), ("I;16B", ">u2")):
        picture = Image.frombytes(mode, (50, 40), levels.astype(dtype).tobytes())
        file = io.BytesIO()
        picture.save(file, "TIFF")
        assert file.getvalue()[:2] == (b"II" if mode == "I;16" else b"MM")
        file.seek(0)
        for source in (picture, file):
            np.testing.assert_array_equal(preprocess(source, 32), expected)


# ---------------------------------------------------------------- paths


def test_every_path_may_begin_at_home(home, model):
    """Written and read under `~`, by everything that takes a path."""
    noise("RGB", 9, 9).save(home / "a.png")
    (home / "photos").mkdir()
    noise("RGB", 9, 9).save(home / "photos" / "b.png")
    model.save("~/one/x.safetensors")
    model.save(Path("~/two"), layout="hf")
    assert (home / "one" / "x.safetensors").is_file()
    assert (home / "two" / "config.json").is_file()
    state = model.network.state_dict()
    assert save_checkpoint(state, model.config, "~/three.safetensors").parent == home
    for path in ("~/one/x.safetensors", Path("~/one"), "~/two", Path("~/two")):
        assert miniclip.load(path, backend="numpy").config.embed_dim == 16
        assert read_model(path).config == open_and_read(path)
    for images in ("~/a.png", Path("~/a.png"), "~/photos", ["~/a.png"], iter(["~/a.png"])):
        assert model.encode_image(images).shape == (1, 16)
    model.tokenizer.save("~/words")
    assert Tokenizer.from_folder("~/words").merges == model.tokenizer.merges
    files = ("~/words/merges.txt", Path("~/words/vocab.json"))
    assert Tokenizer.from_merges_file(*files).vocab == model.tokenizer.vocab
    assert miniclip.checkpoints.hub.check_weights("~/one").ok


def open_and_read(path):
    return read_model(open_checkpoint(path).path).config


def test_an_unknown_home_stays_a_name(model):
    with pytest.raises(PictureError, match=r"~nobody-of-this-name/a\.png': no such file"):
        model.encode_image("~nobody-of-this-name/a.png")


# ---------------------------------------------------------------- saving


def folders_below(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


@pytest.mark.parametrize("layout", ["openai", "hf"])
def test_a_save_that_fails_leaves_nothing(layout, model, tmp_path, monkeypatch):
    """No folder of those that were made for it, however deep; what was there stays."""

    def no_space(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    (tmp_path / "old").mkdir()
    for place in ("new", "new/deep/er", "old", "old/new"):
        target = tmp_path / place / ("model.safetensors" if layout == "openai" else ".")
        with pytest.raises(OSError, match="No space"):
            model.save(target, layout)
        assert folders_below(tmp_path) == ["old"]
        with pytest.raises(OSError, match="No space"):
            model.tokenizer.save(tmp_path / place)
        assert folders_below(tmp_path) == ["old"]
    with pytest.raises(ValueError, match=r"expected a \.safetensors file"):
        model.save(tmp_path / "bad" / "model.pt")
    assert folders_below(tmp_path) == ["old"]


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_file_in_the_way_is_named(place, model, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for save in (
        lambda: model.save(tmp_path / place / "model.safetensors"),
        lambda: model.save(tmp_path / place, "hf"),
        lambda: model.tokenizer.save(tmp_path / place),
    ):
        with pytest.raises(NotADirectoryError, match=r"path: .*taken is there and no folder"):
            save()
    assert (tmp_path / "taken").read_text() == "mine"


# ---------------------------------------------------------------- one length of rows


def test_rows_of_the_tokenizer_are_as_long_as_the_checkpoint_says(model, tmp_path):
    """Also where the vocabulary's file says nothing, and where a tokenizer is passed."""
    model.save(tmp_path / "m.safetensors")
    loaded = miniclip.load(tmp_path, backend="numpy")
    passed = miniclip.load(tmp_path, backend="numpy", tokenizer=Tokenizer(model.tokenizer.merges))
    for one in (loaded, passed):
        ids = one.tokenizer(["a red circle"])
        assert ids.shape == (1, 40)
        assert np.array_equal(ids, one.tokenize(["a red circle"]))
        assert one.network.encode_text(ids).shape == (1, 16)
        assert "of 40 with start and end" in repr(one.tokenizer.steps("a red circle"))
        with pytest.raises(ValueError, match="expected at most 40"):
            one.tokenizer("a " * 50)
    own = Tokenizer(model.tokenizer.merges)
    assert own.context_length == 77
    assert own.with_context_length(40).context_length == 40
    assert own.context_length == 77  # a copy


def test_transformers_is_told_the_length(model, tmp_path):
    from transformers import CLIPTokenizer

    model.save(tmp_path / "m", "hf")
    assert (
        json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())["model_max_length"] == 40
    )
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "m")
    assert theirs.model_max_length == 40
    text = "a red circle and a blue square"
    ids = theirs(text)["input_ids"]
    assert ids == model.tokenize(text)[0][: len(ids)].tolist()
    assert len(theirs("a " * 60, truncation=True)["input_ids"]) == 40


# ---------------------------------------------------------------- arguments and keys


def bare(model, path, prefix=""):
    model.save(path)
    save_file({prefix + k: v for k, v in load_file(path).items()}, path)
    return path


def test_an_activation_for_each_tower(model, tmp_path):
    path = bare(model, tmp_path / "bare.safetensors")
    both = miniclip.load(path, activation=("gelu", "quick_gelu"))
    assert both.config.vision.activation == "gelu"
    assert both.config.text.activation == "quick_gelu"
    for pair in (("gelu",), ("gelu", "gelu", "gelu"), ()):
        with pytest.raises(ValueError, match=r"activation: got .* expected a name, or"):
            miniclip.load(path, activation=pair)
    with pytest.raises(ValueError, match="which activation"):
        miniclip.load(path, activation=("gelu", None))
    with pytest.raises(ValueError, match="head_width: got"):
        miniclip.load(path, activation="gelu", head_width=(64, 64, 64))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.clip."])
def test_a_prefix_of_all_keys_is_named(prefix, model, tmp_path):
    path = bare(model, tmp_path / "bare.safetensors", prefix)
    with pytest.raises(CheckpointError, match=f"all its keys begin with '{prefix}'"):
        miniclip.load(path, activation="gelu")


def test_integers_are_not_taken_for_weights(model, tmp_path):
    """A quantised file: its numbers mean nothing without their scales, in either tower."""
    path = bare(model, tmp_path / "bare.safetensors")
    good = load_file(path)
    for key in ("visual.conv1.weight", "text_projection", "ln_final.bias"):
        for dtype in (np.int8, np.uint8, np.int32, np.bool_):
            save_file(good | {key: good[key].astype(dtype)}, path)
            with pytest.raises(CheckpointError, match=f"{key}' has dtype .*, expected floats"):
                miniclip.load(path, activation="gelu")
