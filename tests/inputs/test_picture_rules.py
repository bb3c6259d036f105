"""The steps and limits of preprocessing, each by hand and at the ends of what it allows."""

import errno
import io
import math
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from picture_checks import encoded, noise, original_recipe
from PIL import Image, UnidentifiedImageError

from miniclip.inputs import opening, pictures, preprocess
from miniclip.inputs.pictures import PictureError
from miniclip.inputs.preprocess import MEAN, STD, PictureWarning, Transform


def said(call, *arguments, kind=PictureError, **options):
    with pytest.raises(kind) as error:
        call(*arguments, **options)
    return str(error.value)


# ---------------------------------------------------------------- sizes and crops


@pytest.mark.parametrize(
    ("size", "n", "mode", "expected"),
    [
        ((40, 30), 20, "shortest", (26, 20)),
        ((30, 40), 20, "shortest", (20, 26)),
        ((30, 30), 20, "shortest", (20, 20)),
        ((40, 30), 20, "squash", (20, 20)),
        ((40, 30), 20, "longest", (20, 15)),
        ((30, 40), 20, "longest", (15, 20)),
        ((7, 9), 3, "longest", (2, 3)),
        ((9, 7), 30, "longest", (30, 23)),
        ((9, 9), 30, "longest", (30, 30)),
        ((300, 1), 20, "longest", (20, 0)),
    ],
)
def test_sizes_after_resizing(size, n, mode, expected):
    assert preprocess.resized_size(size, n, mode) == expected


@pytest.mark.parametrize(
    ("side", "n", "openai", "hf"),
    [(8, 8, 0, 0), (9, 8, 0, 0), (10, 8, 1, 1), (11, 8, 2, 1), (13, 8, 2, 2), (7, 8, 0, -1),
     (6, 8, -1, -1), (5, 8, -1, -2), (3, 8, -2, -3)],
)  # fmt: skip
def test_the_first_pixel_that_is_kept(side, n, openai, hf):
    assert preprocess.crop_start(side, n, "openai") == openai
    assert preprocess.crop_start(side, n, "hf") == hf


def ramp(width, height):
    """A gray picture whose pixel at (x, y) is 10 y + x + 1."""
    return Image.fromarray(
        (10 * np.arange(height)[:, None] + np.arange(width) + 1).astype(np.uint8)
    )


def test_crops_pixel_by_pixel():
    picture = ramp(6, 4)
    got = np.asarray(preprocess.centre_crop(picture, 3, "hf"))
    assert got.tolist() == [[2, 3, 4], [12, 13, 14], [22, 23, 24]]
    got = np.asarray(preprocess.centre_crop(picture, 3, "openai"))  # 1.5 to 2, 0.5 to 0
    assert got.tolist() == [[3, 4, 5], [13, 14, 15], [23, 24, 25]]
    got = np.asarray(preprocess.centre_crop(ramp(3, 4), 4, "openai"))
    assert got[0].tolist() == [1, 2, 3, 0]
    got = np.asarray(preprocess.centre_crop(ramp(3, 4), 4, "hf"))
    assert got[0].tolist() == [0, 1, 2, 3]


def test_padding_pixel_by_pixel():
    got = np.asarray(preprocess.pad(ramp(2, 4), 5, 99))
    assert got.tolist() == [
        [99, 1, 2, 99, 99], [99, 11, 12, 99, 99], [99, 21, 22, 99, 99], [99, 31, 32, 99, 99],
        [99] * 5,
    ]  # fmt: skip
    picture = Image.new("RGBA", (1, 2), (1, 2, 3, 4))
    got = np.asarray(preprocess.pad(picture, 3, 7))
    assert got[0].tolist() == [[7] * 4, [1, 2, 3, 4], [7] * 4]
    assert got[2].tolist() == [[7] * 4] * 3


def test_the_side_that_is_resized_to():
    """A larger one crops more, with a smaller one the rest is black: against Pillow by hand."""
    picture = noise("RGB", 40, 60)
    for side, box in ((20, (4, 9, 16, 21)), (10, (-1, 2, 11, 14))):
        by_hand = picture.resize((side, side * 3 // 2), Image.Resampling.BICUBIC).crop(box)
        got = Transform(size=12, resize_to=side)(picture)
        expected = preprocess.normalize(np.asarray(by_hand), MEAN, STD)
        np.testing.assert_array_equal(got[0], expected)
    squashed = picture.resize((20, 20), Image.Resampling.BICUBIC).crop((4, 4, 16, 16))
    got = Transform(size=12, resize_to=20, resize_mode="squash")(picture)
    np.testing.assert_array_equal(got[0], preprocess.normalize(np.asarray(squashed), MEAN, STD))


def test_normalising_by_hand():
    pixels = np.array([[[0, 51, 255], [255, 0, 102]]], np.uint8)  # 1 high, 2 wide
    got = preprocess.normalize(pixels, (0.5, 0.25, 0.125), (0.5, 0.25, 2.0))
    assert (got.shape, got.dtype) == ((3, 1, 2), np.float32)
    expected = [[[-1, 1]], [[-0.2, -1]], [[0.4375, 0.1375]]]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_transparent_pictures_on_white():
    see_through = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half = Image.new("LA", (8, 8), (0, 128))
    palette = noise("P", 8, 8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    for picture, transparent in (
        (see_through, True), (half, True), (palette, True), (noise("P", 8, 8), False),
        (noise("RGB", 8, 8), False), (noise("L", 8, 8), False),
    ):  # fmt: skip
        assert preprocess.is_transparent(picture) == transparent
        drop, white = (Transform(size=8, alpha=alpha) for alpha in ("drop", "white"))
        assert np.array_equal(drop(picture), white(picture)) != transparent
    white = (1 - np.array(MEAN)) / STD
    got = Transform(size=8, alpha="white")(see_through)
    np.testing.assert_allclose(got, np.broadcast_to(white[:, None, None], (1, 3, 8, 8)), rtol=1e-5)
    assert np.asarray(preprocess.on_white(half))[0, 0].tolist() == [127] * 3


def test_the_front_door_hands_everything_on():
    picture = noise("RGB", 30, 40)
    given = {"resize_mode": "longest", "fill": 9, "mean": (0.1,) * 3, "std": (2,) * 3}
    expected = Transform(size=16, order="hf", **given)(picture)
    np.testing.assert_array_equal(preprocess.preprocess(picture, 16, "hf", **given), expected)
    assert preprocess.preprocess(picture).shape == (1, 3, 224, 224)
    odd = noise("RGB", 30, 45)
    for order in ("openai", "hf"):
        got = preprocess.preprocess(odd, 16, order)
        np.testing.assert_array_equal(got, Transform(size=16, order=order)(odd))
    np.testing.assert_array_equal(preprocess.preprocess(odd, 16), Transform(size=16)(odd))
    np.testing.assert_array_equal(preprocess.preprocess(odd, 16)[0], original_recipe(odd, 16)[0])


# ---------------------------------------------------------------- fields

DEFAULTS = {
    "size": 224, "mean": MEAN, "std": STD, "resize_mode": "shortest", "interpolation": "bicubic",
    "order": "openai", "fill": 0, "apply_exif": False, "alpha": "drop", "resize_to": None,
}  # fmt: skip


def test_defaults_and_the_ends_of_fields():
    assert vars(Transform()) == DEFAULTS
    made = Transform(size=np.int64(1), fill=255, resize_to=1, std=[1, 2, 3], mean=np.zeros(3))
    assert (made.fill, made.resize_to, made.std, made.mean) == (255, 1, (1.0, 2.0, 3.0), (0.0,) * 3)
    assert {type(number) for number in made.mean + made.std} == {float}
    assert Transform(resize_to=3, resize_mode="squash").resize_to == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size: got 0, expected a whole number at least 1"),
        ({"size": True}, "size: got True, expected a whole number at least 1"),
        ({"fill": 256}, "fill: got 256, expected a whole number from 0 to 255"),
        ({"fill": -1}, "fill: got -1, expected a whole number from 0 to 255"),
        ({"resize_to": 0}, "resize_to: got 0, expected a whole number at least 1"),
        ({"resize_to": 5, "resize_mode": "longest"}, "resize_to: got 5, expected None for "
                                                     "'longest'"),
        ({"mean": (1, 2)}, "mean: got (1, 2), expected three numbers (red, green, blue)"),
        ({"mean": (1, 2, math.nan)}, "mean: got (1, 2, nan), expected three numbers (red, green, "
                                     "blue)"),
        ({"std": 3}, "std: got 3, expected three numbers (red, green, blue)"),
        ({"std": (1, 0, 1)}, "std: got (1.0, 0.0, 1.0), expected three positive numbers"),
        ({"order": "x"}, "order: got 'x', expected one of openai, hf"),
        ({"alpha": 1}, "alpha: got 1, expected one of drop, white"),
        ({"resize_mode": "x"}, "resize_mode: got 'x', expected one of shortest, squash, longest"),
        ({"interpolation": "x"}, "interpolation: got 'x', expected one of bicubic, bilinear"),
        ({"apply_exif": 0}, "apply_exif: got 0, expected True or False"),
    ],
)  # fmt: skip
def test_fields_word_for_word(fields, message):
    assert said(Transform, kind=ValueError, **fields) == message


# ---------------------------------------------------------------- opening


def test_floats_become_the_nearest_of_256_levels():
    given = np.array([0, 0.4 / 255, 0.6 / 255, 1.5 / 255, 254.4 / 255, 1])
    for dtype in (np.float64, np.float32):
        got = opening.to_uint8(given.astype(dtype), "it")
        assert got.tolist() == [0, 0, 1, 2, 254, 255]
        assert got.dtype == np.uint8
    whole = np.arange(256, dtype=np.uint8)
    assert opening.to_uint8(whole, "it") is whole
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(opening.to_uint8((whole / 255).astype(dtype), "it"), whole)


@pytest.mark.parametrize(
    ("values", "told"),
    [([-0.001, 1], "-0.001 to 1"), ([0, 1.001], "0 to 1"), ([0.5, 2], "0.5 to 2"),
     ([-1, 2], "-1 to 2")],
)  # fmt: skip
def test_floats_that_are_no_pixels(values, told):
    assert said(opening.to_uint8, np.array(values, np.float64), "it") == (
        f"it: got floats from {told}, expected them in [0, 1]; if this is already preprocessed, "
        "pass it to encode_image as it is, alone or in a list of such arrays; pixels from 0 to 255 "
        "are expected as uint8"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_floats_that_are_not_finite(bad):
    expected = "it: got values that are not finite, expected them in [0, 1]"
    assert said(opening.to_uint8, np.array([0.5, bad]), "it") == expected


def test_as_many_pixels_as_pillow_allows(monkeypatch):
    data = encoded(noise("RGB", 10, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80)
    assert Transform(size=4)(io.BytesIO(data)).shape == (1, 3, 4, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 79)
    assert said(Transform(size=4), io.BytesIO(data)) == (
        "image: 10 x 8 pixels, more than the limit of 79 pixels (PIL.Image.MAX_IMAGE_PIXELS)"
    )
    thin = np.zeros((40, 4), np.uint8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    assert Transform(size=5)(thin).shape == (1, 3, 5, 5)  # through 5 x 50
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 249)
    assert said(Transform(size=5), thin) == (
        "image: 4 x 40 pixels would be resized to 5 x 50 pixels, more than the limit of 249 pixels "
        "(PIL.Image.MAX_IMAGE_PIXELS); crop it first"
    )
    assert said(Transform(size=4, resize_mode="longest"), np.zeros((40, 1), np.uint8)) == (
        "image: 1 x 40 pixels would be resized to 0 x 4 pixels, which has none; use another "
        "resize_mode"
    )


def closed_picture(tmp_path):
    path = tmp_path / "a.png"
    noise("RGB", 9, 9).save(path)
    with Image.open(path) as picture:
        pass
    return picture


def test_pictures_without_pixels(tmp_path):
    expected = "image: a closed picture, expected one that is open: load() it before"
    assert said(Transform(size=8), closed_picture(tmp_path)) == expected
    for size in ((0, 5), (5, 0)):
        told = f"image: got a picture of {size[0]} x {size[1]} pixels, expected some"
        assert said(Transform(size=8), Image.new("RGB", size)) == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PictureError("my own"), "my own"),
        (UnidentifiedImageError("x"), "it: not a picture, or none in a format Pillow reads"),
        (MemoryError(), "it: not enough memory for this picture"),
        (KeyError("x"), "it: broken, truncated or unreadable: 'x'"),
        (EOFError(), "it: broken, truncated or unreadable: EOFError"),
        (Image.DecompressionBombError("Image size (77 pixels) exceeds"),
         "it: 77 pixels, more than the limit of 89478485 pixels (PIL.Image.MAX_IMAGE_PIXELS)"),
        (Image.DecompressionBombError("far too large"),
         "it: far too large, more than the limit of 89478485 pixels (PIL.Image.MAX_IMAGE_PIXELS)"),
    ],
)  # fmt: skip
def test_what_pillow_says_becomes_one_error(error, told):
    def work():
        with opening.pillow_errors("it"):
            raise error

    assert said(work) == told


def test_pillow_is_quiet_and_others_are_not():
    """However deep the guards are nested, and after them everything is as it was."""

    def warn(module):
        warnings.warn_explicit("w", UserWarning, "f", 1, module=module, registry={})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet = opening.QuietPillow()
        with quiet:
            with quiet:
                warn("PIL.PngImagePlugin")
                assert quiet.users == 2
            warn("PIL.Image")
            assert (caught, quiet.users) == ([], 1)
        assert quiet.users == 0
        warn("PIL.Image")
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet, pytest.raises(UserWarning):
            warn("miniclip.x")


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_the_warning_of_clipping_points_at_the_caller(mode):
    picture = Image.new(mode, (8, 8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Transform(size=8)([noise("RGB", 8, 8), picture])
    assert [(one.category, one.filename) for one in caught] == [(PictureWarning, __file__)]
    assert str(caught[0].message) == (
        f"images[1]: pixels of mode {mode} are clipped to 0 and 255, as in the original, so that "
        "most become white; to see it all, pass a float array scaled to [0, 1]"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in ("L", "LA", "P", "RGB", "1", "CMYK"):
            Transform(size=8)(noise(other, 8, 8))


# ---------------------------------------------------------------- the door


def found(images, **more):
    return [(one.name, one.source) for one in pictures.pictures(images, **more)]


def test_what_cannot_be_used_may_be_handed_on(tmp_path):
    """Its error comes when it is opened, under its name; whoever does not ask is told at once."""
    (tmp_path / "empty.png").write_bytes(b"")
    noise("RGB", 8, 8).save(tmp_path / "good.png")
    given = [None, str(tmp_path / "no.png"), tmp_path, np.zeros(3), [1]]
    for several in (list, iter):
        names = [name for name, _ in found(several(given), later=True)]
        good = f"images[2][1] {str(tmp_path / 'good.png')!r}"
        assert names == ["images[0]", "images[1]", "images[2][0]", good, "images[3]", "images[4]"]
        sources = [source for _, source in found(several(given), later=True)]
        assert [isinstance(source, PictureError) for source in sources] == [
            True, True, True, False, True, True
        ]  # fmt: skip
        assert str(sources[2]) == f"images[2][0] {str(tmp_path / 'empty.png')!r}: an empty file"
        with pytest.raises(PictureError, match=r"^images\[0\]: got NoneType"):
            found(several(given))
    ((name, source),) = found(None, later=True)
    assert (name, type(source)) == ("image", PictureError)
    with pytest.raises(PictureError, match=r"^image: got NoneType"):
        Transform(size=8)(pictures.pictures(None, later=True))
    for nothing in ([], iter([])):
        assert said(found, nothing, later=True) == "images: got none, expected at least one picture"


def test_arrays_of_paths(tmp_path):
    for name in "ab":
        noise("RGB", 8, 8).save(tmp_path / f"{name}.png")
    paths = np.array([[str(tmp_path / "a.png")], [str(tmp_path / "b.png")]])
    names = [f"images[{n}] {str(tmp_path / f'{name}.png')!r}" for n, name in enumerate("ab")]
    assert [name for name, _ in found(paths)] == names


def test_homes_are_for_paths_that_begin_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    noise("RGB", 8, 8).save(tmp_path / "a.png")
    for path in ("~/a.png", Path("~/a.png")):
        assert found(path) == [(f"image {str(tmp_path / 'a.png')!r}", tmp_path / "a.png")]
    assert found("a.png") == [("image 'a.png'", "a.png")]
    assert found(Path("a.png")) == [("image 'a.png'", Path("a.png"))]
    assert said(found, "x~/a.png") == "image 'x~/a.png': no such file"


def test_which_files_of_a_folder_count(tmp_path):
    for name in ("b.PNG", "a.jpeg", "c.txt", ".d.png", "e.png.part", "png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "f.png").mkdir()
    assert [source.name for _, source in found(tmp_path)] == ["a.jpeg", "b.PNG"]
    for name in ("b.PNG", "a.jpeg"):
        (tmp_path / name).unlink()
    endings = ".avif, .bmp, .gif, .jpeg, .jpg, .png, .ppm, .tif, .tiff, .webp"
    assert said(found, tmp_path) == (
        f"image {str(tmp_path)!r}: a folder without pictures (5 other entries), expected files "
        f"directly in it that end in {endings}"
    )


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert said(found, tmp_path) == f"image {str(tmp_path)!r}: cannot be read: Permission denied"


EXPECTED = "a path, a binary file object, a PIL image or a NumPy array"
SHAPES = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a batch (B, H, W, 3)"
HANDED = "pass it to encode_image as it is, alone or in a list of such arrays"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (b"x", f"image: got bytes, expected {EXPECTED}: wrap it in io.BytesIO(...)"),
        (bytearray(b"x"), f"image: got bytearray, expected {EXPECTED}: wrap it in io.BytesIO(...)"),
        (memoryview(b"x"), f"image: got memoryview, expected {EXPECTED}: wrap it in "
                           "io.BytesIO(...)"),
        (io.StringIO(), f"image: got a file opened as text, expected {EXPECTED}: open it with mode "
                        "'rb'"),
        (3, f"image: got int, expected {EXPECTED}, or a list of them"),
        ([()], "images[0]: got a tuple, expected a picture"),
        (np.zeros((4, 4), np.int32), "image: got int32, expected uint8 or float in [0, 1]"),
        (np.zeros((4, 4), np.uint16), "image: got uint16, expected uint8 or float in [0, 1] "
                                      "(divide 16-bit pixels by 65535)"),
        (np.zeros((4, 0), np.uint8), "image: got an array of shape (4, 0), which has no pixels"),
        (np.zeros((2, 4, 4, 2)), f"image: got an array of shape (2, 4, 4, 2), expected {SHAPES}"),
        (np.zeros(4), f"image: got an array of shape (4,), expected {SHAPES}"),
        (np.zeros((1, 1, 4, 4, 3)), "image: got an array of shape (1, 1, 4, 4, 3), expected "
                                    f"{SHAPES}"),
        (np.zeros((3, 4, 5)), "image: float64 (3, 4, 5) looks already preprocessed: "
                              f"{HANDED}; pictures are {SHAPES}"),
        (np.zeros((2, 3, 4, 5)), "image: float64 (2, 3, 4, 5) looks already preprocessed: "
                                 f"{HANDED}; pictures are {SHAPES}"),
        (np.zeros((2, 3, 4, 5), np.uint8), "image: uint8 (2, 3, 4, 5) has its channels first; "
                                           f"pictures are {SHAPES}"),
        ("ftp://x/a.png", "image 'ftp://x/a.png': a URL, and nothing is ever fetched; download the "
                          "picture"),
        ("a.png", "image 'a.png': no such file"),
        (os.devnull, f"image {os.devnull!r}: not a regular file; open it and pass the file object"),
    ],
)  # fmt: skip
def test_refusals_word_for_word(images, message):
    assert said(found, images) == message


def test_paths_that_are_too_long_to_be_shown():
    for count, shown in ((118, True), (119, False)):
        text = pictures.shortened("x" * count)
        assert text == (repr("x" * count) if shown else "'" + "x" * 119 + "...")
    assert pictures.shortened(Path("a") / "b") == repr(os.path.join("a", "b"))
    assert pictures.shortened("abc", 4) == "'abc..."


def test_what_is_several():
    for several in (iter([]), {1: 2}.values(), range(3), (x for x in ())):
        assert pictures.is_iterable(several)
    for one in ("a", b"a", Path("a"), {}, set(), frozenset(), io.BytesIO(), np.zeros(3), 3, None,
                bytearray(), memoryview(b""), Image.new("L", (1, 1))):  # fmt: skip
        assert not pictures.is_iterable(one)


def test_a_batch_of_one_channel_and_of_four():
    for channels in (1, 3, 4):
        batch = np.zeros((2, 5, 6, channels), np.uint8)
        assert [source.shape for _, source in found(batch)] == [(5, 6, channels)] * 2
    assert re.fullmatch(r"images\[1\]", found(np.zeros((2, 5, 6, 1)))[1][0])
