"""Augmentation in one loop for each picture: what `miniclip.inputs.augment.apply` does, compiled.

A batch of NumPy's whole-array steps writes and reads each picture a dozen times; here a pixel is
sampled, recoloured, laid on its ground and normalised while it is in registers. Blur and patch,
which few pictures draw, follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniclip.cpu.jit import entry_kernel
from miniclip.inputs.augment import Change, blur_weights


def apply_all(squares: Sequence[Any], changes: Sequence[Change], size: int) -> np.ndarray:
    """Pictures under their changes: float32 (N, 3, size, size) from 0 to 1.

    squares: N arrays, uint8 (S, S, 4), premultiplied.
    """
    pictures = np.empty((len(squares), 3, size, size), np.float32)
    scratch = np.empty((size, size), np.float32)
    for square, change, picture in zip(squares, changes, pictures, strict=True):
        sample_picture(square, change.matrix, change.colour, change.ground, picture)
        if change.sigma > 0:
            blur_picture(picture, blur_weights(float(change.sigma)), scratch)
        left, top, right, bottom = (int(edge * size + 0.5) for edge in change.box)
        picture[:, top:bottom, left:right] = change.patch[:, None, None]
    return pictures


@entry_kernel
def sample_picture(square, matrix, colour, ground, picture):  # type: ignore[no-untyped-def]
    """square: (S, S, 4) uint8. picture: (3, R, R), written."""
    n, size = square.shape[0], picture.shape[1]
    one, half = np.float32(1), np.float32(0.5)
    step, unit = np.float32(2.0 / size), np.float32(1.0 / 255)
    wide = np.float32(n) * half
    last = np.float32(n)
    for i in range(size):
        y = (np.float32(i) + half) * step - one
        for j in range(size):
            x = (np.float32(j) + half) * step - one
            u = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + one) * wide - half
            v = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + one) * wide - half
            u, v = min(max(u, -one), last), min(max(v, -one), last)
            column, row = int(np.floor(u)), int(np.floor(v))
            across, down = u - np.float32(column), v - np.float32(row)
            red = green = blue = alpha = np.float32(0)
            for a in range(2):
                for b in range(2):
                    r, c = row + a, column + b
                    if 0 <= r < n and 0 <= c < n:
                        weight = (down if a else one - down) * (across if b else one - across)
                        weight *= unit
                        red += weight * np.float32(square[r, c, 0])
                        green += weight * np.float32(square[r, c, 1])
                        blue += weight * np.float32(square[r, c, 2])
                        alpha += weight * np.float32(square[r, c, 3])
            for k in range(3):
                value = colour[k, 0] * red + colour[k, 1] * green + colour[k, 2] * blue
                value = min(max(value + colour[k, 3] * alpha, np.float32(0)), alpha)
                picture[k, i, j] = value + (one - alpha) * ground[k]


@entry_kernel
def blur_picture(picture, weights, scratch):  # type: ignore[no-untyped-def]
    """picture: (3, R, R), in place. weights: (2 RADIUS + 1,). scratch: (R, R)."""
    size, reach = picture.shape[1], weights.shape[0] // 2
    for k in range(3):
        for i in range(size):
            for j in range(size):
                total = np.float32(0)
                for d in range(-reach, reach + 1):
                    total += weights[d + reach] * picture[k, i, min(max(j + d, 0), size - 1)]
                scratch[i, j] = total
        for i in range(size):
            for j in range(size):
                total = np.float32(0)
                for d in range(-reach, reach + 1):
                    total += weights[d + reach] * scratch[min(max(i + d, 0), size - 1), j]
                picture[k, i, j] = total
