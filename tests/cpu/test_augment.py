"""Augmentation compiled: the pictures of the version to read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from miniclip.cpu.augment import apply_all
from miniclip.inputs.augment import Augment, apply


def picture(side, seed):
    """Smooth colours with transparent parts, premultiplied."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 4)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    alpha = smooth[..., 3:].astype(float) / 255
    square = np.concatenate([np.rint(smooth[..., :3] * alpha), smooth[..., 3:]], -1)
    return square.astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(1, 70), st.integers(1, 50))
def test_the_compiled_version_makes_the_same_pictures(seed, strength, size, side):
    """To 1/255, which nobody sees; in fact to rounding."""
    draw = Augment(blurred=0.5, covered=0.5).draw
    changes = [draw(strength, [seed, place]) for place in range(3)]
    squares = [picture(side, seed + place) for place in range(3)]
    got = apply_all(squares, changes, size)
    assert got.shape == (3, 3, size, size)
    assert got.dtype == np.float32
    expected = [apply(s, c, size).transpose(2, 0, 1) for s, c in zip(squares, changes, strict=True)]
    assert abs(got - np.stack(expected)).max() < 2e-4


def test_pictures_and_changes_are_as_many():
    with pytest.raises(ValueError, match="zip"):
        apply_all([picture(8, 0)] * 2, [Augment().draw(1.0, [0])], 8)
