"""Pictures for the tests of preprocessing, the recipes written a second time, and their check."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps

DEEP = ("I;16", "I", "F")  # Pillow clips these


def noise(mode, width, height, seed=0):
    """A random picture of a mode; a palette is random as well."""
    rng = np.random.default_rng(seed)
    if mode in DEEP:
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        # mostly within 8 bits, so that not everything is clipped
        return Image.fromarray(rng.integers(0, 400, (height, width)).astype(dtype))
    if mode.startswith("P"):
        picture = Image.frombytes("P", (width, height), rng.bytes(width * height))
        picture.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
        if "alphas" in mode:
            picture.info["transparency"] = rng.integers(0, 256, 256, np.uint8).tobytes()
        elif "transparent" in mode:
            picture.info["transparency"] = int(rng.integers(256))
        return picture
    bands = len(Image.new(mode, (1, 1)).getbands())
    size = (width + 7) // 8 * height if mode == "1" else width * height * bands
    return Image.frombytes(mode, (width, height), rng.bytes(size))


def pattern(mode, width, height):
    """A picture from arithmetic alone: the same for every version of everything."""
    y, x = np.mgrid[:height, :width]
    bands = [(x * (7 + 4 * c) + y * (13 + 2 * c) + x * y // (3 + c)) % 256 for c in range(4)]
    planes = [Image.fromarray(band.astype(np.uint8)) for band in bands]
    if mode == "1":
        return planes[0].point([255 * (level > 100) for level in range(256)], "1")
    if mode == "P":
        picture = Image.frombytes("P", (width, height), planes[0].tobytes())
        picture.putpalette([(level * k) % 256 for level in range(256) for k in (3, 5, 7)])
        return picture
    count = len(Image.new(mode, (1, 1)).getbands())
    return planes[0] if count == 1 else Image.merge(mode, planes[:count])


def encoded(picture, file_format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def orientated():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    return pattern("RGB", 40, 30), exif


# The recipe, written a second time ---------------------------------------------------------------


def original_recipe(picture, n):
    """clip.py's `_transform`: Resize, CenterCrop, convert, ToTensor, Normalize."""
    w, h = picture.size
    size = (n, int(n * h / w)) if w <= h else (int(n * w / h), n)
    picture = picture.resize(size, Image.BICUBIC)
    top = int(round((size[1] - n) / 2.0))  # noqa: RUF046
    left = int(round((size[0] - n) / 2.0))  # noqa: RUF046
    return pixels_of(picture.crop((left, top, left + n, top + n)))


def hugging_face_recipe(picture, n):
    picture = picture.convert("RGB")
    short, long = min(picture.size), max(picture.size)
    long = int(n * long / short)
    picture = picture.resize((n, long) if picture.width <= picture.height else (long, n), 3)
    x, y = (picture.width - n) // 2, (picture.height - n) // 2
    return pixels_of(picture.crop((x, y, x + n, y + n)))


def on_white(picture):
    """What newer transformers does first: colours mixed with white by their alpha."""
    rgba = np.asarray(picture.convert("RGBA")).astype(int)  # (H, W, 4)
    alpha = rgba[..., 3:]
    mixed = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return Image.fromarray(mixed.astype(np.uint8))


def larger_recipe(picture, side, n):
    """The shorter side becomes `side`, then the middle n x n, black where there is too little."""
    w, h = picture.size
    size = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
    picture = picture.resize(size, Image.BICUBIC)
    edges = [(max(n - one, 0) // 2, (max(n - one, 0) + 1) // 2) for one in picture.size]
    border = (edges[0][0], edges[1][0], edges[0][1], edges[1][1])
    picture = ImageOps.expand(picture, border, 0)
    left, top = (round((one - n) / 2) for one in picture.size)
    return pixels_of(picture.crop((left, top, left + n, top + n)))


def longest_recipe(picture, n, fill):
    """open_clip: ResizeKeepRatio(longest=1), CenterCropOrPad(fill)."""
    w, h = picture.size
    ratio = max(h / n, w / n)
    picture = picture.resize((round(w / ratio), round(h / ratio)), Image.BICUBIC)
    dx, dy = n - picture.width, n - picture.height
    border = (dx // 2, dy // 2, (dx + 1) // 2, (dy + 1) // 2)
    bands = len(picture.getbands())
    fills = fill if bands == 1 else (fill,) * bands
    palette = picture.getpalette() if picture.mode == "P" else None
    picture = ImageOps.expand(picture, border, fills)
    if palette is not None:
        picture.putpalette(palette)
    return pixels_of(picture)


def pixels_of(picture):
    """ToTensor and Normalize, with PyTorch's own arithmetic."""
    hwc = torch.from_numpy(np.array(picture.convert("RGB")))
    x = hwc.permute(2, 0, 1).contiguous().float().div(255)
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
    return x.sub_(mean).div_(std).numpy()[None]


def assert_same_bits(got, expected):
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    wrong = got.view(np.uint32) != np.ascontiguousarray(expected).view(np.uint32)
    assert not wrong.any(), f"{wrong.mean():.2%} of the values differ"


def check_recipes(module):
    """A few dozen pictures through all the recipes, without drawing anything."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        mode = ("RGB", "RGBA", "L", "P", "LA", "CMYK")[seed % 6]
        picture = noise(mode, *map(int, rng.integers(9, 90, 2)), seed)
        n = 16 + seed % 2
        assert_same_bits(module.preprocess(picture, n), original_recipe(picture, n))
        assert_same_bits(module.preprocess(picture, n, "hf"), hugging_face_recipe(picture, n))
        longest = module.preprocess(picture, n, resize_mode="longest", fill=99)
        assert_same_bits(longest, longest_recipe(picture, n, 99))
    clear = noise("RGBA", 40, 29)
    on_it = module.preprocess(clear, 16, "hf", alpha="white")
    assert np.abs(on_it - hugging_face_recipe(on_white(clear), 16)).max() < 0.03  # a level or two
    plain = noise("RGB", 40, 29)
    for side in (13, 14, 16, 21, 22):  # less than the crop by an odd and by an even number, more
        got = module.preprocess(plain, 16, resize_to=side)
        assert_same_bits(got, larger_recipe(plain, side, 16))
    square = noise("RGB", 55, 55)  # int(224 / 55 * 55) is 223
    assert_same_bits(module.preprocess(square), original_recipe(square, 224))
    floats = np.maximum(np.asarray(square) - 0.4, 0) / 255  # to be rounded, not cut off
    assert_same_bits(module.preprocess(floats, 16), original_recipe(square, 16))
    picture, exif = orientated()
    file = io.BytesIO(encoded(picture, exif=exif))
    assert_same_bits(module.preprocess(file, 16), original_recipe(picture, 16))
    turned = original_recipe(picture.transpose(Image.ROTATE_270), 16)
    assert_same_bits(module.preprocess(file, 16, apply_exif=True), turned)
