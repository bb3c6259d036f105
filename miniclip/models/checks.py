"""What comes in at a tower's door: one clear error for a wrong shape, dtype or id."""

from __future__ import annotations

from typing import Any

from miniclip.nn.module import Module
from miniclip.ops.array import Array


def check_images(tower: Module, images: Any, side: int, interpolate: bool, least: int) -> None:
    """Raise unless images is (B, 3, side, side) of the tower's dtype.

    With interpolate any other size from `least` pixels on is let in.
    """
    expected = f"(B, 3, {side}, {side})"
    shape = check_array("images", images, f"a {tower.dtype} array {expected}")
    if len(shape) != 4 or shape[1] != 3 or shape[0] == 0:
        raise ValueError(f"images: got shape {shape}, expected {expected} with B > 0")
    if shape[2:] != (side, side) and not interpolate:
        raise ValueError(
            f"images: got shape {shape}, expected {expected} (for other sizes set "
            "`.interpolate = True` on the image tower, which resizes its positions)"
        )
    if min(shape[2:]) < least:
        raise ValueError(f"images: got shape {shape}, expected at least {least} x {least} pixels")
    if images.dtype != tower.dtype:
        raise TypeError(
            f"images: got {images.dtype}, expected {tower.dtype}, the model's dtype (preprocessed "
            "pixels; raw uint8 pictures go through preprocess first)"
        )


def check_ids(ids: Any, context: int, vocab: int) -> None:
    """Raise unless ids is (B, T) integers in [0, vocab) with T at most the context length."""
    shape = check_array("ids", ids, f"an integer array (B, {context})")
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"ids: got shape {shape}, expected (B, T) with B and T > 0")
    if shape[1] > context:
        raise ValueError(f"ids: got {shape[1]} tokens, expected at most {context}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids: got {ids.dtype}, expected integers")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab:
        wrong = low if low < 0 else high
        raise ValueError(f"ids: got {wrong}, expected ids from 0 to {vocab - 1}")


def check_ends(ids: Array, end_id: int | None) -> None:
    """Raise unless every text has its end-of-text token, where that is not just the largest id."""
    if end_id is None:
        return
    has_end = (ids == end_id).any(axis=-1)  # (B,)
    if not bool(has_end.all()):
        row = int(has_end.argmin())
        raise ValueError(f"ids[{row}]: has no {end_id}, expected the end-of-text id in every text")


def check_tokens(tokens: Any, expected: tuple[int | None, ...], dtype: Any) -> None:
    """Raise unless tokens is (B, T, D) of this dtype. expected: each size, None for any but 0."""
    wanted = ", ".join(str(n or letter) for n, letter in zip(expected, "BTD", strict=True))
    shape = check_array("tokens", tokens, f"a {dtype} array ({wanted})")
    right = len(shape) == 3 and 0 not in shape
    if not right or any(m not in (None, n) for n, m in zip(shape, expected, strict=True)):
        raise ValueError(f"tokens: got shape {shape}, expected ({wanted})")
    if tokens.dtype != dtype:
        raise TypeError(f"tokens: got {tokens.dtype}, expected {dtype}, the model's dtype")


def check_gradient(name: str, got: Array, expected: tuple[int, ...], dtype: Any) -> None:
    """Raise unless a gradient has the shape and dtype of the output it belongs to."""
    shape = check_array(name, got, f"an array {expected}")
    if shape != expected:
        raise ValueError(f"{name}: got shape {shape}, expected {expected}")
    if got.dtype != dtype:
        raise TypeError(f"{name}: got {got.dtype}, expected {dtype}, the model's dtype")


def check_array(name: str, x: Any, expected: str) -> tuple[int, ...]:
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"{name}: got {type(x).__name__}, expected {expected}")
    return tuple(x.shape)
