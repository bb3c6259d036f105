"""Preprocessing: bit for bit the original's recipe, and one clear error for everything else."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from fuzz_pictures import fuzz
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_checks import (
    DEEP,
    assert_same_bits,
    encoded,
    hugging_face_recipe,
    longest_recipe,
    noise,
    orientated,
    original_recipe,
    pattern,
    pixels_of,
)
from PIL import Image

from miniclip.inputs import preprocess as ours
from miniclip.inputs.preprocess import PictureError, PictureWarning, Transform, preprocess

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", *DEEP)
DRAWN = (*MODES, "P with a transparent colour", "P with alphas")
CLIP_PNG = Path(__file__).parents[3] / "shared" / "reference" / "CLIP.png"

pytestmark = pytest.mark.filterwarnings("ignore::miniclip.inputs.preprocess.PictureWarning")


@st.composite
def sides(draw):
    """Width and height, 1 to 600, one at most 20 times the other."""
    short = draw(st.integers(1, 600))
    long = draw(st.integers(short, min(600, 20 * short)))
    return (short, long) if draw(st.booleans()) else (long, short)


@pytest.mark.parametrize("mode", DRAWN)
@given(size=sides(), n=st.sampled_from([16, 32, 33, 64, 224, 336]), seed=st.integers(0, 999))
@settings(max_examples=30)
def test_it_is_the_original_recipe_bit_for_bit(mode, size, n, seed):
    picture = noise(mode, *size, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, at transparent palettes
        expected = original_recipe(picture, n)
    assert_same_bits(preprocess(picture, n), expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK"])
@given(size=sides(), n=st.sampled_from([16, 33, 224]), fill=st.integers(0, 255))
@settings(max_examples=15)
def test_the_other_recipes_bit_for_bit(mode, size, n, fill):
    picture = noise(mode, *size)
    assert_same_bits(preprocess(picture, n, "hf"), hugging_face_recipe(picture, n))
    squashed = pixels_of(picture.resize((n, n), Image.BICUBIC))
    assert_same_bits(preprocess(picture, n, resize_mode="squash"), squashed)
    short, long = sorted(picture.size)
    if round(short / (long / n)) > 0:
        got = preprocess(picture, n, resize_mode="longest", fill=fill)
        assert_same_bits(got, longest_recipe(picture, n, fill))


def test_the_shorter_side_is_never_cut_short():
    """int(n / side * side) is n - 1 for some sides: then a row of the crop would be black."""
    sides_at_risk = [side for side in range(1, 601) if int(224 / side * side) == 223]
    assert len(sides_at_risk) > 20
    for side in range(1, 601):
        for long in {side, side + 1, 2 * side + 1, 20 * side - 1}:
            wanted = 224 * max(side, long) // min(side, long)
            size = ours.resized_size((side, long), 224, "shortest")
            assert sorted(size) == [224, wanted], (side, long)
    white = Image.new("RGB", (sides_at_risk[0], sides_at_risk[0]), "white")
    assert preprocess(white).min() > 1.9


def test_crops_round_halves_to_even_or_down():
    """The longer sides 34, 35, 36, 37, 38, 39 around a crop of 32."""
    assert [ours.crop_start(side, 32, "openai") for side in range(34, 40)] == [1, 2, 2, 2, 3, 4]
    assert [ours.crop_start(side, 32, "hf") for side in range(34, 40)] == [1, 1, 2, 2, 3, 3]


# Recorded: sha256 of the little-endian bytes of the result. Pillow 10.3, 11.3, 12.0 and 13.0 agree.
GOLDENS = {
    ("RGB", 300, 200, 224, ()): "bb0928cde36eb2da6b089b31eac908a9644ca5b0af5943696386a1e64cfe1b72",
    ("RGB", 61, 97, 32, ()): "18887769b4e8af1aa18879bcd49d83205a8db89d9c0ae48c88bd35838952b633",
    ("RGB", 224, 224, 224, ()): "735c31dafbf8bb85ca0438b69909d3ad5d6a6a2a92181ac2ff5afc448975e1ea",
    ("RGBA", 91, 60, 32, ()): "4f9cde71398f6f43f6bd18c8f1a6ff917231fc8cf885728de94b0fb37bafd7b1",
    ("LA", 45, 70, 32, ()): "78676f6940743975b2eab8d2fd23bb668a80787ec1c9f22ea7b69ffa96b716ac",
    ("L", 333, 100, 48, ()): "93f1317ed12d82c99ec520d2e7f9bcefc7510a3557f43acd4a6f11cb09162ea6",
    ("P", 77, 50, 32, ()): "61b28613aecfade3bf17dae1ff7b156e6999156540e71dfbbe323b5c2b64462b",
    ("1", 50, 77, 32, ()): "11c91f2e4cb241beff0fbd6bcfa7ac60ccd9adc08ddae0a58400e88828aa62f8",
    ("CMYK", 80, 81, 32, ()): "b189205230860bc35cd13da271821a8ea26a2a80e7661e45f2769a51c6a541ab",
    (
        "RGBA",
        91,
        61,
        32,
        (("order", "hf"),),
    ): "9a60334edd6203f79c902125e4ca8439b7638e3d07b5176c94fd8acdf475561f",
    (
        "RGB",
        91,
        60,
        32,
        (("resize_mode", "squash"),),
    ): "b7c91500296895129b5498a76ef975b6e123da91df59017fcb046bb0bf407a9e",
    (
        "RGB",
        90,
        61,
        33,
        (("resize_mode", "longest"), ("fill", 127)),
    ): "2a3103876f7d1a84f1bb1d536360b0d1e11a85eadc94de528dc013852d6820b4",
    (
        "RGB",
        90,
        60,
        32,
        (("interpolation", "bilinear"),),
    ): "b988dfa4df27f6b80c427a1a1afa36963c211816440da6508afc8a5879025d9e",
}


@pytest.mark.parametrize("key", GOLDENS, ids=lambda key: f"{key[0]}-{key[1]}x{key[2]}")
def test_recorded_results(key):
    mode, width, height, n, fields = key
    got = preprocess(pattern(mode, width, height), n, **dict(fields))
    digest = hashlib.sha256(got.astype("<f4").tobytes()).hexdigest()
    assert digest == GOLDENS[key], (
        f"not what was recorded (here: Pillow {PIL.__version__}). If the comparison with the "
        "recipe passes, Pillow's own resampling has changed: compare with Pillow 13.0.0"
    )


# Others' own words -------------------------------------------------------------------------------


def their_processor(n):
    """transformers' processor for CLIP that works on Pillow pictures, under its old or new name."""
    clip = pytest.importorskip("transformers.models.clip")
    name = "CLIPImageProcessorPil" if hasattr(clip, "CLIPImageProcessorPil") else None
    processor = getattr(clip, name or "CLIPImageProcessor")
    return processor(size={"shortest_edge": n}, crop_size={"height": n, "width": n})


def by_transformers(processor, picture):
    return processor(picture, return_tensors="np")["pixel_values"]


def test_order_hf_is_transformers_bit_for_bit():
    processor = their_processor(33)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        mode = rng.choice(["1", "L", "P", "RGB", "CMYK"])
        picture = noise(mode, *map(int, rng.integers(5, 200, 2)), seed)
        assert_same_bits(preprocess(picture, 33, "hf"), by_transformers(processor, picture))


def test_order_hf_drops_alpha_where_newer_transformers_lay_it_on_white():
    processor, picture = their_processor(33), noise("RGBA", 71, 50)
    got = preprocess(picture, 33, "hf")
    assert_same_bits(got, by_transformers(processor, picture.convert("RGB")))
    white = Image.new("RGBA", picture.size, "white")
    on_white = Image.alpha_composite(white, picture)
    theirs = by_transformers(processor, picture)
    if not np.array_equal(theirs, got):  # since version 5
        assert_same_bits(preprocess(on_white, 33, "hf"), theirs)


def test_clip_png():
    if not CLIP_PNG.exists():
        pytest.skip("shared/reference/CLIP.png is not beside this checkout")
    openai, hf = preprocess(CLIP_PNG), preprocess(CLIP_PNG, order="hf")
    assert_same_bits(openai, original_recipe(Image.open(CLIP_PNG), 224))
    assert 0.15 < (openai != hf).mean() < 0.19


# What may come in --------------------------------------------------------------------------------


class Pipe:
    """A stream that can only be read once, from the beginning to the end."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


def test_every_kind_of_input_gives_the_same_bits(tmp_path, monkeypatch):
    picture = noise("RGB", 40, 31)
    path, pixels = tmp_path / "a picture.png", np.asarray(picture)
    path.write_bytes(encoded(picture))
    monkeypatch.chdir(tmp_path)
    expected = preprocess(picture, 32)
    with open(path, "rb") as file:
        kinds = {
            "str": str(path),
            "relative": "a picture.png",
            "Path": path,
            "bytes path in a PathLike": next(iter(os.scandir(tmp_path))),
            "file": file,
            "BytesIO": io.BytesIO(path.read_bytes()),
            "pipe": Pipe(path.read_bytes()),
            "PIL, not yet loaded": Image.open(path),
            "array": pixels,
            "strided array": np.asarray(picture.transpose(Image.TRANSPOSE)).swapaxes(0, 1),
            "RGBA": np.dstack([pixels, np.full((31, 40), 255, np.uint8)]),
            "float32": pixels.astype(np.float32) / 255,
            "float64": pixels / 255,
            "float16": (pixels / 255).astype(np.float16),
            "list": [picture],
            "tuple": (path,),
            "batch": pixels[None],
            "batch in a list": [pixels[None]],
        }
        for kind, images in kinds.items():
            assert np.array_equal(preprocess(images, 32), expected), kind
        assert not file.closed


def test_gray_arrays():
    gray = np.asarray(noise("L", 40, 31))
    expected = preprocess(Image.fromarray(gray), 32)
    for same in (gray, gray[..., None], gray / 255, gray[None, ..., None]):
        assert np.array_equal(preprocess(same, 32), expected)


def test_a_batch_is_its_pictures_one_by_one():
    pictures = [noise(mode, 20 + i, 30, i) for i, mode in enumerate(["RGB", "L", "P", "RGBA"])]
    batch = np.stack([np.asarray(noise("RGB", 25, 18, seed)) for seed in range(3)])
    together = preprocess([*pictures, batch], 32)
    alone = [preprocess(picture, 32) for picture in [*pictures, *batch]]
    assert_same_bits(together, np.concatenate(alone))


def test_inputs_stay_as_they_are():
    array = np.asarray(noise("RGB", 40, 31)).copy()
    picture, before = noise("P with alphas", 40, 31), array.copy()
    bytes_before, info = picture.tobytes(), dict(picture.info)
    preprocess([array, array / 255, picture], 32, resize_mode="longest", fill=9)
    assert np.array_equal(array, before)
    assert (picture.tobytes(), picture.info, picture.mode) == (bytes_before, info, "P")


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (600, 20), (30, 600), (2, 1)])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_small_and_thin_pictures(size, resize_mode):
    got = preprocess(noise("RGB", *size), 32, resize_mode=resize_mode)
    assert got.shape == (1, 3, 32, 32)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_counts_only_when_asked(file_format):
    """The original opens with PIL.Image.open, which does not turn these."""
    picture, exif = orientated()
    data = encoded(picture, file_format, exif=exif)
    as_stored = Image.open(io.BytesIO(encoded(picture, file_format)))
    turned = as_stored.transpose(Image.ROTATE_270)
    assert_same_bits(preprocess(io.BytesIO(data), 32), preprocess(as_stored, 32))
    got = preprocess(io.BytesIO(data), 32, apply_exif=True)
    assert_same_bits(got, preprocess(turned, 32))
    assert not np.array_equal(got, preprocess(as_stored, 32))


def test_tiff_is_turned_by_pillow_itself():
    picture, exif = orientated()
    data = encoded(picture, "TIFF", exif=exif)
    turned = preprocess(picture.transpose(Image.ROTATE_270), 32)
    assert_same_bits(preprocess(io.BytesIO(data), 32), turned)
    assert_same_bits(preprocess(io.BytesIO(data), 32, apply_exif=True), turned)


@pytest.mark.parametrize("mode", DEEP)
def test_deep_pixels_are_clipped_with_a_warning(mode, tmp_path):
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(dtype)
    path = tmp_path / "deep.tif"
    Image.fromarray(ramp).save(path)
    with pytest.warns(PictureWarning, match=rf"image '.*deep.tif': pixels of mode {mode} are cl"):
        got = preprocess(path, 32)
    white = (1 - np.float32(ours.MEAN)) / np.float32(ours.STD)
    assert (np.abs(got[0, :, 1:] - white[:, None, None]) < 1e-6).all()
    # As the warning says: scaled floats show all of it.
    whole = preprocess(np.clip(ramp / 65535, 0, 1), 32)
    assert len(np.unique(whole)) == 3 * 256


def test_sixteen_bits_of_colour_lose_only_their_lower_byte():
    """PNG with 3 x 16 bits: Pillow itself reads the upper byte, so nothing is clipped."""
    high = np.asarray(pattern("RGB", 8, 8))
    rows = np.dstack([high, 255 - high]).reshape(8, 8, 2, 3).swapaxes(2, 3)
    scanlines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(rows))
    data = png_file(8, 8, scanlines, depth=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(preprocess(io.BytesIO(data), 8), preprocess(high, 8))


@pytest.mark.parametrize("file_format", ["GIF", "PNG"])
def test_the_first_frame_counts_even_before_broken_ones(file_format):
    frames = [pattern("RGB", 40, 30), noise("RGB", 40, 30, 1), noise("RGB", 40, 30, 2)]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    first = preprocess(io.BytesIO(encoded(frames[0], file_format)), 32)
    assert_same_bits(preprocess(io.BytesIO(data), 32), first)
    broken = bytearray(data)
    broken[len(data) * 3 // 4 :] = b"\xff" * (len(data) - len(data) * 3 // 4)
    assert_same_bits(preprocess(io.BytesIO(bytes(broken)), 32), first)


# What is refused ---------------------------------------------------------------------------------


def png_file(width, height, scanlines, depth=8):
    """A PNG file, RGB, with the given size in its header and whatever pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


WHOLE = encoded(noise("RGB", 64, 64))
NORMALISED = preprocess(noise("RGB", 40, 40), 32)
REFUSED = {
    "missing": ("no/such.png", r"image 'no/such.png': no such file"),
    "null byte": ("a\0b.png", r"no such file"),
    "overlong": ("x" * 100_000, r"image 'x{100,130}\.\.\.: no such file"),
    "folder": ("/", r"image '/': a folder without pictures \(\d+ other entries\), expected files"),
    "http": ("http://x.org/a.png", r"'http://x.org/a.png': a URL, and nothing is ever fetched"),
    "https": ("HTTPS://x.org/a.png", r"a URL, and nothing is ever fetched; download"),
    "bytes": (WHOLE, r"image: got bytes, expected a path.*: wrap it in io.BytesIO"),
    "text file": (io.StringIO("x"), r"opened as text, expected .*: open it with mode 'rb'"),
    "None": (None, r"image: got NoneType, expected a path, a binary file object, a PIL image or"),
    "tensor": (torch.zeros(3, 8, 8), r"image: got Tensor, expected a path"),
    "empty list": ([], r"images: got none, expected at least one picture"),
    "list in a list": ([[NORMALISED]], r"images\[0\]: got a list, expected a picture"),
    "numbers": ([1, 2], r"images\[0\]: got int"),
    "not a picture": (io.BytesIO(b"hello " * 100), r"image: not a picture, or none in a format"),
    "empty": (io.BytesIO(), r"image: not a picture"),
    "truncated": (io.BytesIO(WHOLE[:5000]), r"image: broken, truncated or unreadable: .*trunc"),
    "corrupt": (
        io.BytesIO(WHOLE[:900] + bytes(100) + WHOLE[1000:]),
        r"image: broken, truncated or unreadable: ",
    ),
    "no pixels (array)": (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\), which has no pixels"),
    "no pixels (PIL)": (Image.new("RGB", (0, 5)), r"a picture of 0 x 5 pixels, expected some"),
    "empty batch": (np.zeros((0, 5, 5, 3), np.uint8), r"has no pixels"),
    "normalised": (NORMALISED, r"float32 \(1, 3, 32, 32\) looks already preprocessed: pass it to"),
    "one normalised": ([NORMALISED[0]], r"images\[0\]: float32 \(3, 32, 32\) looks already prep"),
    "channels last": (NORMALISED[0].transpose(1, 2, 0), r"floats from -1.* already preprocessed"),
    "0 to 255": (np.full((4, 4, 3), 200.0), r"from 200 to 200.* expected as uint8"),
    "nan": (np.full((4, 4, 3), np.nan), r"image: got values that are not finite"),
    "channels first": (np.zeros((3, 8, 8), np.uint8), r"uint8 \(3, 8, 8\) has its channels first"),
    "two channels": (np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\), expected \(H, W\), \(H"),
    "flat": (np.zeros(8, np.uint8), r"got an array of shape \(8,\), expected \(H, W\)"),
    "uint16": (np.zeros((8, 8), np.uint16), r"got uint16, expected uint8 or .*divide 16-bit"),
    "bool": (np.zeros((8, 8), bool), r"got bool, expected uint8 or float in \[0, 1\]$"),
    "objects": (np.array([[None]]), r"got object, expected uint8 or float"),
    "bomb": (
        io.BytesIO(png_file(30_000, 30_000, b"")),
        r"image: 900000000 pixels, more than the l",
    ),
    "half a bomb": (io.BytesIO(png_file(10_000, 10_000, b"")), r"image: 10000 x 10000 pixels, mo"),
    "needle": (
        np.zeros((100_000, 1), np.uint8),
        r"image: 1 x 100000 pixels would be resized to 224 x 22400000 pixels, more than the limit "
        r"of 89478485 pixels \(PIL.Image.MAX_IMAGE_PIXELS\); crop it first",
    ),
    "EPS": (
        io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
        r"EPS is a program that Ghostscript runs",
    ),
    "mode without RGB": (Image.new("La", (8, 8)), r"image: broken, truncated or unreadable: conv"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_name_the_picture_and_what_was_expected(kind):
    images, message = REFUSED[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError, match=message):
            preprocess(images)


def test_files_that_are_not_pictures(tmp_path):
    for name, data in {"empty.png": b"", "text.png": b"hello", "cut.png": WHOLE[:2000]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PictureError, match=name):
            preprocess(tmp_path / name)
    if not hasattr(os, "mkfifo"):
        return
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PictureError, match="not a regular file"):
        preprocess(tmp_path / "pipe")


def test_a_batch_names_its_broken_picture(tmp_path):
    (tmp_path / "good.png").write_bytes(WHOLE)
    (tmp_path / "bad.png").write_bytes(WHOLE[:2000])
    images = [tmp_path / "good.png", noise("RGB", 8, 8), tmp_path / "bad.png"]
    with pytest.raises(PictureError, match=r"images\[2\] '.*bad.png': broken, truncated"):
        preprocess(images)


def test_too_thin_for_longest():
    with pytest.raises(PictureError, match="600 x 1 pixels would be resized to 32 x 0 pixels"):
        preprocess(noise("RGB", 600, 1), 32, resize_mode="longest")


def test_the_limit_is_pillows_own(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(PictureError, match="64 x 64 pixels, more than the limit of 4000 pixels"):
        preprocess(io.BytesIO(WHOLE), 32)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert preprocess(io.BytesIO(WHOLE), 32).shape == (1, 3, 32, 32)


def test_bombs_and_needles_take_no_memory(tmp_path):
    for name, side in {"a": 30_000, "b": 10_000}.items():
        (tmp_path / name).write_bytes(png_file(side, side, b""))
    code = (
        "import resource, sys, numpy as np\n"
        "from miniclip.inputs.preprocess import PictureError, preprocess\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for picture in ('a', 'b', np.zeros((100_000, 1), np.uint8)):\n"
        "    try: preprocess(picture)\n"
        "    except PictureError: pass\n"
        "    else: sys.exit('accepted')\n"
        "print(peak() - before)\n"
    )
    run = [sys.executable, "-c", code]
    printed = subprocess.run(run, cwd=tmp_path, capture_output=True, check=True).stdout
    assert int(printed) < 20_000  # kB; the second would take 300 MB


def test_files_are_closed_and_pillow_keeps_quiet(tmp_path):
    """Whether it goes well or not; damaged EXIF makes Pillow warn, which is nothing to us."""
    damaged_exif = encoded(noise("RGB", 8, 8), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    alphas = encoded(noise("P with alphas", 40, 30))
    for name, data in {"good": WHOLE, "cut": WHOLE[:2000], "exif": damaged_exif}.items():
        (tmp_path / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess([tmp_path / "good", tmp_path / "exif", io.BytesIO(alphas)], 8)
        with pytest.raises(PictureError):
            preprocess(tmp_path / "cut", 8)
        if Path("/proc/self/fd").exists():
            still_open = [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]
            assert not [path for path in still_open if str(tmp_path) in path]


def test_threads_leave_the_warning_filters_as_they_were():
    before = list(warnings.filters)
    expected, results = preprocess(io.BytesIO(WHOLE), 32), []

    def work():
        for _ in range(20):
            results.append(np.array_equal(preprocess(io.BytesIO(WHOLE), 32), expected))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results)
    assert len(results) == 120
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("size", value) for value in (0, -1, 2.0, True, "224", None)],
        *[("fill", value) for value in (-1, 256, 0.5)],
        *[("mean", value) for value in (0.5, (0.5, 0.5), (0, 0, np.inf), "abc", None)],
        *[("std", value) for value in ((1, 1, 0), (1, 1, -1), (1, 1))],
        ("resize_mode", "crop"),
        ("interpolation", "nearest"),
        ("order", "HF"),
        ("apply_exif", 1),
    ],
)
def test_wrong_fields_are_named(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got .*, expected "):
        Transform(**{field: value})


def test_lists_become_tuples_so_that_equal_transforms_are_equal():
    assert Transform(mean=[0.5] * 3, std=np.ones(3)) == Transform(mean=(0.5,) * 3, std=(1, 1, 1))
    assert len({Transform(), Transform(size=224), Transform(size=336)}) == 2


def test_two_hundred_damaged_pictures():
    figures = fuzz(200, seed=1)
    assert figures.failures == []
    assert min(figures.accepted.total(), figures.refused.total()) > 20
