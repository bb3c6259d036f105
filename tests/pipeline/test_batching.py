"""Chunks: how many inputs fit the memory, by hand; what is skipped; what counts as preprocessed."""

from dataclasses import replace

import numpy as np
import pytest
from picture_checks import noise
from pipelines import make_pipeline

from miniclip.inputs.pictures import PictureError
from miniclip.inputs.preprocess import Transform
from miniclip.models import CLIPConfig, TextConfig, VisionConfig
from miniclip.pipeline import batching

VIT = CLIPConfig(16, VisionConfig(24, 2, 6, 1, patch_size=8), TextConfig(5, 9, 6, 1, 2))


def with_vision(**fields):
    return replace(VIT, vision=replace(VIT.vision, **fields))


def with_text(**fields):
    return replace(VIT, text=replace(VIT.text, **fields))


# ---------------------------------------------------------------- how many fit

# Floats of one input, counted by hand: eight times the MLP's hidden layer (tokens x width) or the
# scores (heads x tokens x tokens), whichever is larger; of a ResNet, im2col of the stem.
IMAGES = [
    (VIT, 8 * 10 * 24),  # 3 x 3 patches and the class: 10 tokens of 4 x 6
    (with_vision(mlp_width=11), 8 * 10 * 11),
    (with_vision(heads=3), 8 * 3 * 10 * 10),
    (with_vision(stride=4), 8 * 26 * 26),  # 5 x 5 patches and the class: more scores than hidden
    (with_vision(stride=4, mlp_width=27), 8 * 26 * 27),
    (
        replace(VIT, vision=VisionConfig(64, (1, 1, 1, 1), 10, 32)),
        9 * 5 * 32 * 32 * 2,
    ),
]
TEXTS = [
    (VIT, 8 * 5 * 24),
    (with_text(mlp_width=7), 8 * 5 * 7),
    (with_text(heads=6), 8 * 6 * 5 * 5),
    (with_text(context_length=30), 8 * 30 * 30),
]


@pytest.mark.parametrize(
    ("count", "config", "floats"),
    [(batching.images_per_chunk, *case) for case in IMAGES]
    + [(batching.texts_per_chunk, *case) for case in TEXTS],
)
def test_as_many_as_fit(count, config, floats):
    one = 4 * floats  # bytes: float32
    assert count(config, one) == count(config, 2 * one - 1) == 1
    assert count(config, 2 * one) == count(config, 3 * one - 1) == 2
    assert count(config, 3 * one) == 3
    assert count(config, one - 1) == count(config, 0) == 1  # never none
    assert count(config) == 2**30 // one
    assert type(count(config)) is int


def test_a_tower_that_is_not_there():
    assert batching.images_per_chunk(replace(VIT, vision=None)) == 1
    assert batching.texts_per_chunk(replace(VIT, text=None)) == 1


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
def test_in_chunks_of_a_list(step):
    """One call with all that was given where it fits, else slices of the right length."""
    for items in (list(range(4)), np.arange(4)):
        calls = []

        def compute(chunk, calls=calls):
            calls.append(chunk)
            return np.array(chunk) * 10

        parts = batching.in_chunks(compute, items, step, "things", False)
        assert np.concatenate(parts).tolist() == [0, 10, 20, 30]
        assert [len(call) for call in calls] == {1: [1] * 4, 2: [2, 2], 3: [3, 1]}.get(step, [4])
        assert (calls[0] is items) == (step >= 4)


def bar(capsys, items, step, progress):
    rows = batching.in_chunks(
        lambda chunk: np.zeros(len(list(chunk))), items, step, "cats", progress
    )
    assert sum(map(len, rows)) == 5
    return capsys.readouterr().err


def test_the_bar_counts_inputs_and_not_chunks(capsys):
    assert "5/5" in bar(capsys, [1] * 5, 2, True)
    assert "cats/s" in bar(capsys, [1] * 5, 2, True)
    shown = bar(capsys, iter([1] * 5), 2, True)
    assert "5 cats [" in shown
    assert "5/5" not in shown  # the number was not known before
    for progress in (None, False):
        assert bar(capsys, [1] * 5, 2, progress) == bar(capsys, iter([1] * 5), 2, progress) == ""
    assert bar(capsys, [1] * 5, 5, True) == ""


def test_a_terminal_has_a_bar_unless_it_is_not_wanted(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    assert "5/5" in bar(capsys, [1] * 5, 2, None)
    assert bar(capsys, [1] * 5, 2, False) == ""


# ---------------------------------------------------------------- skipping


def only_good(chunk):
    if "bad" in chunk:
        raise PictureError("no picture")
    if "worse" in chunk:
        raise KeyError("not a picture's fault")
    return np.array([[len(name)] for name in chunk])


def test_places_are_counted_over_all_chunks():
    skipped = {}
    skipping = batching.Skipping(only_good, skipped)
    assert skipping(["a", "bad", "ccc"]).tolist() == [[1], [3]]
    assert skipping(iter(["bad", "bad"])).shape == (0,)
    assert skipping(["dddd"]).tolist() == [[4]]
    assert skipping(["bad"]).shape == (0,)
    assert skipped == dict.fromkeys([1, 3, 4, 6], "no picture")
    with pytest.raises(KeyError, match="not a picture's fault"):
        skipping(["worse"])


def test_an_array_is_taken_whole():
    skipping = batching.Skipping(lambda chunk: chunk + 1, {})
    assert skipping(np.arange(3)).tolist() == [1, 2, 3]


def test_encoding_goes_on_without_what_cannot_be_used(monkeypatch):
    monkeypatch.setattr("miniclip.pipeline.pipeline.images_per_chunk", lambda config: 2)
    model = make_pipeline("float64")
    good = [noise("RGB", 20, 30, seed) for seed in range(2)]
    given = ["no such.png", "nor this.png", good[0], "nor that.png", good[1]]
    expected = model.encode_image(good)
    for images in (given, iter(given)):
        skipped = {}
        got = model.encode_image(images, skipped=skipped)
        np.testing.assert_allclose(got, expected, atol=1e-12)
        assert got.dtype == np.float64
        assert sorted(skipped) == [0, 1, 3]
        assert skipped[3] == "images[3] 'nor that.png': no such file"
    skipped = {}
    none = model.encode_image(["no such.png"], skipped=skipped)
    assert (none.shape, none.dtype, len(skipped)) == ((0, 16), np.float64, 1)
    with pytest.raises(PictureError, match=r"images\[0\] 'no such\.png'"):
        model.encode_image(given)
    pixels = model.preprocess(good)
    np.testing.assert_allclose(model.encode_image(pixels, skipped={}), expected, atol=1e-12)


# ---------------------------------------------------------------- what is preprocessed


@pytest.mark.parametrize(
    ("shape", "dtype", "is_it"),
    [
        ((3, 8, 8), "f4", True),
        ((3, 8, 8), "f8", True),
        ((2, 3, 8, 8), "f4", True),
        ((3, 2, 2), "f4", True),  # too small for the model, and no picture: its channels are first
        ((3, 8, 8), "u1", False),
        ((3, 8, 8), "i8", False),
        ((3, 8, 3), "f4", False),  # a picture three pixels high
        ((3, 8, 1), "f4", False),
        ((3, 8, 4), "f4", False),
        ((3, 8), "f4", False),
        ((1, 2, 3, 8, 8), "f4", False),
        ((4, 8, 8), "f4", False),
        ((3, 4, 8, 8), "f4", False),
    ],
)
def test_floats_with_their_channels_first(shape, dtype, is_it):
    assert batching.looks_preprocessed(np.zeros(shape, dtype)) == is_it


def test_only_arrays_look_preprocessed():
    assert not batching.looks_preprocessed(np.zeros((3, 8, 8)).tolist())
    assert not batching.looks_preprocessed("a.png")


SMALL = Transform(size=8, mean=(0.5, 0.25, 0.5), std=(0.5, 0.25, 0.1))


def test_the_largest_pixel():
    """Black or white, in the channel that goes farthest."""
    assert batching.largest_pixel(SMALL) == pytest.approx(5)  # blue: 0.5 / 0.1
    assert batching.largest_pixel(replace(SMALL, std=(0.5, 0.25, 0.5))) == pytest.approx(3)  # white
    assert batching.largest_pixel(replace(SMALL, mean=(0.5, 0.75, 0.5), std=(1, 0.25, 1))) == 3
    assert batching.largest_pixel(replace(SMALL, mean=(2, 0.5, 0.5), std=(0.5, 1, 1))) == 4


def test_five_times_the_largest_pixel_are_enough():
    at_most = np.full((3, 8, 8), 25.0)
    at_most[0, 0, 1] = np.nan  # found later, with its cause
    assert batching.as_preprocessed(at_most, SMALL).shape == (1, 3, 8, 8)
    for end in (25.1, -25.1):
        above = np.zeros((2, 3, 8, 8))
        above[1, 2, 3, 4] = end
        with pytest.raises(PictureError) as error:
            batching.as_preprocessed([above[0], above[1]], SMALL)
        assert str(error.value) == (
            "images[1]: got floats up to 25.1 in (3, 8, 8), expected normalised pixels (at most "
            "5): pass pictures as uint8 (H, W, 3), or through preprocess"
        )


def test_pictures_are_left_to_the_door():
    for images in ("a.png", [], (), [noise("RGB", 9, 9)], iter([np.zeros((3, 8, 8))]), {}):
        assert batching.as_preprocessed(images, SMALL) is None
