"""How pictures are prepared, from the files beside a checkpoint: the same pixels, or refused."""

import json
import warnings
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_checks import noise, orientated
from pipelines import make_pipeline
from preprocessing_checks import (
    MODES,
    OPEN_CLIP_USUAL,
    OPEN_CLIP_VALUES,
    SIDE,
    USUAL,
    VALUES,
    ask_open_clip,
    ask_transformers,
    changed,
    shown,
)

import miniclip
from miniclip.checkpoints import CheckpointError, read_model
from miniclip.inputs.preprocess import PictureWarning, Transform

pytestmark = pytest.mark.filterwarnings("ignore::miniclip.inputs.preprocess.PictureWarning")


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    make_pipeline().save(folder, layout="hf")
    return folder


@pytest.fixture(scope="module")
def open_folder(tmp_path_factory):
    """The original's keys under open_clip's names; without notes, so that its file counts."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("open")
    make_pipeline().save(folder / "model.safetensors")
    save_file(load_file(folder / "model.safetensors"), folder / "open_clip_model.safetensors")
    (folder / "model.safetensors").unlink()
    return folder


def write_hf(folder, config, nested=False):
    """The configuration in one of its two files; the other is not there."""
    files = [folder / "preprocessor_config.json", folder / "processor_config.json"]
    files[not nested].unlink(missing_ok=True)
    content = {"image_processor": config, "processor_class": "CLIPProcessor"} if nested else config
    files[nested].write_text(json.dumps(content))


def write_open(folder, preprocess):
    text = {"context_length": 40, "vocab_size": 543, "width": 64, "heads": 1, "layers": 2}
    vision = {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 8}
    model = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def names_a_field(message, config, usual):
    """Whether an error names a field that is not as usual, or that is missing."""
    both = {name: (config.get(name, "gone"), usual.get(name, "gone")) for name in (*config, *usual)}
    odd = {name for name, (a, b) in both.items() if repr(a) != repr(b)}  # 1 is not True
    sizes = {"size", "crop_size", "use_square_size", "do_center_crop", "default_to_square"}
    if "gives pictures of" in message:
        return bool(odd & sizes)
    return any(name.removesuffix("_color") in message for name in odd)


def assert_close(got, expected):
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def check(load, config, usual, expected):
    """Loaded: the pixels of the oracle. Refused: an error that names a field."""
    error, pixels = None, None
    try:
        pixels = load()
    except CheckpointError as refusal:
        error = str(refusal)
    if pixels is None:
        assert names_a_field(error, config, usual), error
    else:
        assert expected is not None, f"loaded what the other library refuses: {config}"
        assert_close(pixels, expected)


@settings(max_examples=150)
@given(changed(USUAL, VALUES), shown(), st.booleans())
def test_transformers_fields_give_its_pixels_or_are_refused(hf_folder, config, picture, nested):
    write_hf(hf_folder, config, nested)

    def load():
        fields = read_model(hf_folder).preprocessing
        return Transform(**fields)(picture)[0]

    check(load, config, USUAL, ask_transformers(config, picture))


@settings(max_examples=150)
@given(changed(OPEN_CLIP_USUAL, OPEN_CLIP_VALUES), shown())
def test_open_clip_fields_give_its_pixels_or_are_refused(open_folder, config, picture):
    write_open(open_folder, config)

    def load():
        fields = read_model(open_folder, activation="quick_gelu").preprocessing
        return Transform(**fields)(picture)[0]

    try:
        expected = ask_open_clip(config, picture)
    except (TypeError, ValueError):
        expected = None  # a fill that Pillow does not take, three numbers that are two
    check(load, config, OPEN_CLIP_USUAL, expected)


HONOURED = [
    {"size": {"shortest_edge": 45}},
    {"size": {"shortest_edge": 24}},  # smaller than the crop: the rest is black
    {"size": {"shortest_edge": 25}},
    {"size": {"height": 40, "width": 40}},
    {"size": [SIDE, SIDE]},
    {"size": 40, "default_to_square": True},
    {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False, "crop_size": None},
    {"crop_size": SIDE},
    {"resample": 2},
    {"do_normalize": False},
    {"do_normalize": False, "do_rescale": False},
    {"do_rescale": False, "image_mean": [123.7, 116.8, 103.9], "image_std": 58.4},
    {"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": [1, 1, 1]},
    {"image_mean": 0.5, "image_std": 0.5},
    {"feature_extractor_type": "CLIPFeatureExtractor", "image_processor_type": None},
    {"_valid_processor_keys": ["images"], "do_pad": False},
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(61, 35), (34, 77)])
def test_what_transformers_says_is_honoured(hf_folder, mode, shape):
    """Through the front door, and nothing of this list is refused."""
    picture = noise(mode, *shape)
    for change in HONOURED:
        config = USUAL | change
        write_hf(hf_folder, config)
        fields = read_model(hf_folder).preprocessing
        assert_close(Transform(**fields)(picture)[0], ask_transformers(config, picture))
    model = miniclip.load(hf_folder, backend="numpy")
    assert_close(model.preprocess(picture)[0], ask_transformers(config, picture))


REFUSED = [
    ("do_flip_channel_order", True),  # of other processors; CLIP's would not heed it
    ("size_divisor", 32),
    ("miniclip", {"colour": 1}),
    ("image_processor_type", "SiglipImageProcessor"),
    ("feature_extractor_type", "ViTFeatureExtractor"),
    ("data_format", "channels_last"),
    ("do_resize", False),
    ("do_resize", None),
    ("do_convert_rgb", False),
    ("do_center_crop", False),
    ("do_pad", True),
    ("do_normalize", "no"),
    ("resample", "bicubic"),
    ("resample", True),
    ("resample", 0),
    ("size", {"shortest_edge": SIDE, "longest_edge": 40}),
    ("size", {"height": SIDE, "width": 40}),
    ("crop_size", {"height": SIDE, "width": 40}),
    ("rescale_factor", 0),
    ("image_std", [0, 1, 1]),
    ("image_mean", ["0.5"] * 3),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_is_not_honoured_is_refused_by_its_name(hf_folder, name, value):
    config = USUAL | {name: value}
    if name == "feature_extractor_type":
        del config["image_processor_type"]
    write_hf(hf_folder, config)
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {name}\b"):
        miniclip.load(hf_folder)


def test_a_file_of_transformers_that_says_little_means_its_defaults(hf_folder):
    """Also for the size: transformers would hand this model pictures of 224 pixels."""
    write_hf(hf_folder, {"image_mean": [0.5, 0.5, 0.5]})
    with pytest.raises(CheckpointError, match=r"pictures of 224 pixels, but .* shapes give 32"):
        miniclip.load(hf_folder)


def test_the_nested_file_wins_as_in_transformers(hf_folder):
    write_hf(hf_folder, USUAL | {"image_mean": 0.25}, nested=True)
    (hf_folder / "preprocessor_config.json").write_text(json.dumps(USUAL))
    assert miniclip.load(hf_folder).transform.mean == (0.25, 0.25, 0.25)
    (hf_folder / "processor_config.json").write_text('{"image_processor": [1]}')
    with pytest.raises(CheckpointError, match=r"processor_config\.json: image_processor"):
        miniclip.load(hf_folder)


@pytest.mark.parametrize("name", sorted(set(OPEN_CLIP_USUAL) | {"crop_pct"}))
def test_each_field_of_open_clip_counts(open_folder, name):
    """Every valid value is honoured and every other refused, field by field."""
    valid = {
        "size": [SIDE, [SIDE, SIDE]],
        "mode": ["RGB"],
        "mean": [[0.5, 0.5, 0.5], 0.5],
        "std": [[0.5, 0.4, 0.3], 0.25],
        "interpolation": ["bicubic", "bilinear", "random"],
        "resize_mode": ["shortest", "squash", "longest"],
        "fill_color": [0, 255, 99],
    }.get(name, [])
    picture = noise("RGB", 61, 35)
    for value in [*OPEN_CLIP_VALUES[name], *valid]:
        config = OPEN_CLIP_USUAL | {"resize_mode": "longest", name: value}
        write_open(open_folder, config)
        if value is None or any(value == v and type(value) is type(v) for v in valid):
            model = miniclip.load(open_folder, backend="numpy")
            assert_close(model.preprocess(picture)[0], ask_open_clip(config, picture))
        else:
            with pytest.raises(CheckpointError, match=name.removesuffix("_color")):
                miniclip.load(open_folder)


# ---------------------------------------------------------------- saved and loaded again

thirds = st.tuples(*[st.floats(0.1, 0.9)] * 3)
TRANSFORMS = {
    "size": st.just(SIDE),
    "mean": thirds,
    "std": thirds,
    "resize_mode": st.sampled_from(["shortest", "squash", "longest"]),
    "interpolation": st.sampled_from(["bicubic", "bilinear"]),
    "order": st.sampled_from(["openai", "hf"]),
    "fill": st.integers(0, 255),
    "apply_exif": st.booleans(),
    "alpha": st.sampled_from(["drop", "white"]),
    "resize_to": st.sampled_from([None, SIDE, 24, 25, 41]),
}


def test_every_field_of_a_transform_is_drawn():
    assert set(TRANSFORMS) == {field.name for field in fields(Transform)}


@settings(max_examples=60)
@given(st.fixed_dictionaries(TRANSFORMS), st.sampled_from(["openai", "hf"]), shown())
def test_what_is_saved_gives_the_same_pixels(tmp_path_factory, said, layout, picture):
    if said["resize_mode"] == "longest":
        said["resize_to"] = None
    folder = tmp_path_factory.mktemp("saved")
    model = make_pipeline()
    model._transform = Transform(**said)
    target = folder / "it" / ("model.safetensors" if layout == "openai" else ".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if layout == "hf" and said["resize_mode"] == "longest":
            with pytest.raises(ValueError, match="resize_mode 'longest'"):
                model.save(target, layout)
            assert not (folder / "it").exists()
            return
        model.save(target, layout)
        again = miniclip.load(folder / "it", backend="numpy")
        turned, exif = orientated()
        turned.getexif().update(exif)
        for shown_picture in (picture, turned):
            x, y = model.preprocess(shown_picture), again.preprocess(shown_picture)
            assert np.array_equal(x.view(np.uint32), y.view(np.uint32))
        assert again.transform == model.transform or said["resize_to"] == SIDE
        twice = folder / "twice" / ("model.safetensors" if layout == "openai" else ".")
        again.save(twice, layout)
    assert miniclip.load(folder / "twice", backend="numpy").transform == again.transform


def test_transformers_is_told_what_it_can_be_told(tmp_path):
    """The saved folder gives transformers the same pixels where it has the words for them."""
    model = make_pipeline()
    for said in (
        {"resize_to": 41, "order": "hf", "alpha": "white"},
        {"resize_mode": "squash", "interpolation": "bilinear", "order": "hf", "alpha": "white"},
        {"mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1), "order": "hf", "alpha": "white"},
    ):
        model._transform = Transform(size=SIDE, **said)
        model.save(tmp_path / "m", "hf")
        config = json.loads((tmp_path / "m" / "preprocessor_config.json").read_text())
        for mode in ("RGB", "LA", "P transparent"):
            picture = noise(mode, 61, 35)
            assert_close(model.preprocess(picture)[0], ask_transformers(config, picture))


def test_what_transformers_will_not_heed_is_warned_of(tmp_path):
    model = make_pipeline()
    model._transform = Transform(size=SIDE, apply_exif=True)
    with pytest.warns(UserWarning, match="layout 'hf'.*apply_exif"):
        model.save(tmp_path / "m", "hf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save(tmp_path / "m.safetensors")
        make_pipeline().save(tmp_path / "plain", "hf")


def test_a_note_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    make_pipeline().save(path)
    path.write_bytes(path.read_bytes().replace(b'\\"fill\\"', b'\\"fild\\"'))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: note .*: fild"):
        miniclip.load(path)


def test_warnings_of_clipping_are_not_lost(hf_folder):
    write_hf(hf_folder, USUAL)
    with pytest.warns(PictureWarning, match="I;16"):
        miniclip.load(hf_folder).preprocess(noise("I;16", 40, 40))
