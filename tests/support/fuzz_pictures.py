"""Broken pictures by the thousand: each gives pixels or one clear error, and nothing else.

    python tests/support/fuzz_pictures.py --count 5000 --seed 0

writes small pictures with Pillow, damages each in a few ways and hands it to preprocessing. A
picture counts as accepted (finite float32 of the right shape) or refused (one PictureError).
Everything else is a failure that is printed with its number: another exception, a warning other
than ours, a picture that takes longer than --limit seconds. The exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import io
import random
import signal
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from miniclip.inputs.preprocess import PictureError, PictureWarning, Transform

TRANSFORMS = [
    Transform(size=16, order=order, resize_mode=mode, apply_exif=exif)
    for order in ("openai", "hf")
    for mode in ("shortest", "squash", "longest")
    for exif in (False, True)
]
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


class TooSlow(BaseException):
    """Not an Exception, so that nothing on the way turns it into a PictureError."""


@dataclass
class Figures:
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "-")


# Whole pictures ----------------------------------------------------------------------------------


def picture(mode: str, width: int = 19, height: int = 13) -> Image.Image:
    """A small picture with some structure, so that every format has something to compress."""
    y, x = np.mgrid[:height, :width]
    gray = ((x * 13 + y * 7 + x * y) % 256).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257)
    return Image.fromarray(np.stack([gray, gray[::-1], gray[:, ::-1]], -1)).convert(mode)


def written(file_format: str, image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def originals() -> list[tuple[str, bytes]]:
    """(format, file) of undamaged pictures, several kinds of each format."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    more: dict[str, Any] = {
        "save_all": True,
        "append_images": [picture("RGB").rotate(90), picture("RGB")],
    }
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        *[("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "RGB", {"exif": exif}),
        ("PNG", "RGB", more),
        *[("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")],
        ("JPEG", "RGB", {"progressive": True, "exif": exif}),
        ("GIF", "P", {}),
        ("GIF", "P", {"transparency": 3}),
        ("GIF", "RGB", more),
        *[("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")],
        *[("TIFF", mode, {}) for mode in ("1", "P", "RGBA", "CMYK", "I;16")],
        *[("TIFF", "RGB", {"compression": kind}) for kind in ("tiff_lzw", "tiff_adobe_deflate")],
        ("TIFF", "RGB", {"compression": "jpeg"}),
    ]
    if features.check("webp"):
        kinds += [("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", more)]
    return [(kind, written(kind, picture(mode), **options)) for kind, mode, options in kinds]


# Damage ------------------------------------------------------------------------------------------


def flip_bits(data: bytearray, rng: random.Random, other: bytes) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def replace_bytes(data: bytearray, rng: random.Random, other: bytes) -> None:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 16))
    data[start:end] = rng.randbytes(end - start)


def truncate(data: bytearray, rng: random.Random, other: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def splice(data: bytearray, rng: random.Random, other: bytes) -> None:
    """The beginning of another picture, of any format, before the rest of this one."""
    data[: rng.randrange(len(data))] = other[: rng.randrange(len(other))]


def set_number(data: bytearray, rng: random.Random, other: bytes) -> None:
    """An extreme number, of any width and byte order: sizes, lengths and offsets among others."""
    kind = rng.choice(["<H", ">H", "<I", ">I"])
    width = struct.calcsize(kind)
    if len(data) > width:
        near_start = rng.random() < 0.5  # where headers are
        start = rng.randrange(min(len(data) - width, 64) if near_start else len(data) - width)
        number = rng.choice(EXTREMES) & (256**width - 1)
        data[start : start + width] = struct.pack(kind, number)


def remove(data: bytearray, rng: random.Random, other: bytes) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, 32)]


def repeat(data: bytearray, rng: random.Random, other: bytes) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randint(1, 64)] * rng.randint(1, 4)


DAMAGES: list[Callable[[bytearray, random.Random, bytes], None]] = [
    flip_bits,
    replace_bytes,
    truncate,
    splice,
    set_number,
    set_number,
    remove,
    repeat,
]


def mend_checksums(data: bytearray) -> None:
    """Make a PNG's checksums right again, so that the damage gets past them."""
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4


def damaged(data: bytes, rng: random.Random, other: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if result:
            rng.choice(DAMAGES)(result, rng, other)
    if rng.random() < 0.7:
        mend_checksums(result)
    return bytes(result)


def mutants(count: int, seed: int) -> Iterator[tuple[int, str, bytes, Transform]]:
    """Numbered damaged pictures; each depends on the seed and its own number only."""
    whole = originals()
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")
        kind, data = whole[number % len(whole)]
        yield number, kind, damaged(data, rng, rng.choice(whole)[1]), rng.choice(TRANSFORMS)


# The check ---------------------------------------------------------------------------------------


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TooSlow after so many seconds, where the system has such an alarm."""

    def ring(*_: object) -> None:
        raise TooSlow(f"longer than {seconds} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_accepted(data: bytes, transform: Transform) -> bool:
    """Whether it gave pixels; False for one PictureError; AssertionError for wrong pixels."""
    try:
        pixels = transform(io.BytesIO(data))
    except PictureError as error:
        if not str(error).startswith("image: "):
            raise AssertionError(f"an error without a name: {error}") from error
        return False
    assert pixels.dtype == np.float32
    assert pixels.shape == (1, 3, transform.size, transform.size)
    assert np.isfinite(pixels).all()
    return True


def fuzz(count: int, seed: int, limit: float = 30.0) -> Figures:
    """Hand that many damaged pictures to preprocessing and count what happens."""
    figures = Figures()
    for number, kind, data, transform in mutants(count, seed):
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                with time_limit(limit):
                    accepted = is_accepted(data, transform)
                (figures.accepted if accepted else figures.refused)[kind] += 1
            except (Exception, TooSlow) as error:
                figures.failures.append(f"{number} {kind}: {type(error).__name__}: {error}")
        foreign = [w for w in heard if not issubclass(w.category, PictureWarning)]
        figures.failures += [f"{number} {kind}: warned {w.message}" for w in foreign]
        figures.slowest = max(figures.slowest, (time.perf_counter() - start, f"{number} {kind}"))
    return figures


def report(figures: Figures, seconds: float) -> str:
    lines = [f"{'format':<8}{'accepted':>10}{'refused':>10}"]
    for kind in sorted(figures.accepted.keys() | figures.refused.keys()):
        lines.append(f"{kind:<8}{figures.accepted[kind]:>10}{figures.refused[kind]:>10}")
    accepted, refused = figures.accepted.total(), figures.refused.total()
    lines.append(f"{'all':<8}{accepted:>10}{refused:>10}")
    lines.append(f"failures: {len(figures.failures)}")
    lines += figures.failures[:20]
    slowest, which = figures.slowest
    lines.append(f"{seconds:.1f} s in all; the slowest, number {which}, {slowest * 1000:.0f} ms")
    lines.append(f"Pillow {PIL.__version__}, NumPy {np.__version__}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="how many damaged pictures")
    parser.add_argument("--seed", type=int, default=0, help="another one, other damage")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds for one picture")
    options = parser.parse_args()
    start = time.perf_counter()
    figures = fuzz(options.count, options.seed, options.limit)
    print(report(figures, time.perf_counter() - start))
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
