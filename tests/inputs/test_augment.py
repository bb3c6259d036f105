"""Augmentation: each change against another way to make it."""

import colorsys
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from miniclip.inputs import augment as module
from miniclip.inputs.augment import (
    NO_CHANGE,
    PLAIN,
    RADIUS,
    Augment,
    apply,
    blur,
    box_of,
    colour_matrix,
    cover,
    recolour,
    sample,
)

NOTHING = Augment(
    PLAIN, PLAIN, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
)  # every range is nothing: strength makes no difference


def picture(side=40, seed=0):
    """Smooth colours with a transparent margin, premultiplied."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 4)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    alpha = smooth[..., 3:].astype(float) / 255
    square = np.concatenate([np.rint(smooth[..., :3] * alpha), smooth[..., 3:]], -1)
    return square.astype(np.uint8)


def changed(**fields):
    return dataclasses.replace(NO_CHANGE, **fields)


# ------------------------------------------------------------------------ geometry


def by_pillow(square, matrix, size):
    """The same affine map by Pillow, which counts places in pixels from corners."""
    n = len(square)
    to_unit = np.array([[2 / size, 0, -1], [0, 2 / size, -1], [0, 0, 1]])
    from_unit = np.array([[n / 2, 0, n / 2], [0, n / 2, n / 2], [0, 0, 1]])
    whole = from_unit @ np.vstack([matrix, [0, 0, 1]]) @ to_unit
    planes = [
        Image.fromarray(square[..., k].astype(np.float32)).transform(
            (size, size),
            Image.Transform.AFFINE,
            tuple(whole[:2].ravel()),
            Image.Resampling.BILINEAR,
        )
        for k in range(4)
    ]
    return np.stack([np.asarray(p) for p in planes], -1) / 255


@pytest.mark.parametrize(
    ("scale", "shear", "angle", "shift"),
    [
        ((0.8, 0.8), 0.0, 0.0, (0.0, 0.0)),
        ((0.9, 0.6), 0.0, 0.0, (0.1, -0.2)),
        ((0.7, 0.7), 0.3, 0.0, (0.0, 0.0)),
        ((0.7, 0.7), 0.0, 0.4, (0.0, 0.0)),
        ((0.6, 0.8), -0.2, -0.3, (0.15, 0.1)),
    ],
)
def test_an_affine_map_is_pillows(scale, shear, angle, shift):
    square = picture()
    square[[0, -1]] = square[:, [0, -1]] = 0  # Pillow does not mix the edge with what lies outside
    matrix = module.affine(scale, shear, angle, shift)
    got = sample(square, matrix.astype(np.float32), 48)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_pillow(square, matrix, 48), atol=2e-4)


def test_a_thing_that_is_turned_moved_and_scaled_is_where_it_should_be():
    """A dot in the upper right of the picture, followed by hand."""
    square = np.zeros((81, 81, 4), np.uint8)
    square[10, 60] = 255  # x = (60.5 / 81) * 2 - 1, y = (10.5 / 81) * 2 - 1
    x, y = 121 / 81 - 1, 21 / 81 - 1
    matrix = module.affine((0.5, 1.0), 0.0, math.pi / 2, (0.2, 0.0))
    seen = sample(square, matrix.astype(np.float32), 101)[..., 3]
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    # scaled to (x / 2, y); a quarter turn, y pointing down: (-y, x / 2); moved by 0.2 to the right
    assert abs((column + 0.5) / 101 * 2 - 1 - (-y + 0.2)) < 0.03
    assert abs((row + 0.5) / 101 * 2 - 1 - x / 2) < 0.03


def test_shear_moves_along_x_by_y():
    matrix = module.affine((1.0, 1.0), 0.5, 0.0, (0.0, 0.0))
    np.testing.assert_allclose(matrix, [[1, -0.5, 0], [0, 1, 0]], atol=1e-12)


def test_without_a_change_the_picture_is_where_questions_show_it():
    square = np.full((60, 60, 4), 255, np.uint8)
    square[..., 1] = 0
    page = apply(square, NO_CHANGE, 64)
    np.testing.assert_allclose(page[2:62, 2:62], np.broadcast_to([1, 0, 1], (60, 60, 3)), atol=1e-5)
    assert (page[:2] == 1).all()
    assert (page[:, 62:] == 1).all()


# ------------------------------------------------------------------------ colour


COLOURS = [(0.9, 0.2, 0.1), (0.2, 0.6, 0.3), (0.5, 0.5, 0.5), (0.1, 0.3, 0.8)]


@pytest.mark.parametrize("colour", COLOURS)
def test_colour_matrices(colour):
    c = np.array([*colour, 1.0])
    luma = 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]
    np.testing.assert_allclose(colour_matrix(0, 1, 1, 0) @ c, colour, atol=1e-12)
    np.testing.assert_allclose(colour_matrix(0, 0, 1, 0) @ c, [luma] * 3, atol=1e-12)
    np.testing.assert_allclose(colour_matrix(0, 1, 1, 0.2) @ c, c[:3] + 0.2, atol=1e-12)
    np.testing.assert_allclose(colour_matrix(0, 1, 1.5, 0) @ c, 0.5 + 1.5 * (c[:3] - 0.5))
    np.testing.assert_allclose(colour_matrix(0, 1.3, 1, 0) @ c, luma + 1.3 * (c[:3] - luma))
    turned = colour_matrix(1 / 3, 1, 1, 0) @ c  # a third of the wheel: red becomes green
    np.testing.assert_allclose(turned, [c[2], c[0], c[1]], atol=1e-12)


def test_a_hue_turns_as_colorsys_says():
    for turns in (0.05, -0.05):
        red = colour_matrix(turns, 1, 1, 0) @ [0.8, 0.3, 0.3, 1]
        hue = colorsys.rgb_to_hsv(*red)[0]
        assert abs((hue - turns + 0.5) % 1 - 0.5) < 0.015


def test_grey_is_applied_before_contrast_and_after_hue():
    both = colour_matrix(0.1, 0.0, 1.4, 0.0)[:, :3]
    hue, grey = colour_matrix(0.1, 1, 1, 0)[:, :3], colour_matrix(0, 0, 1, 0)[:, :3]
    np.testing.assert_allclose(both, 1.4 * grey @ hue, atol=1e-12)


def test_premultiplied_colours_change_as_opaque_ones_do():
    colour = colour_matrix(0.1, 0.7, 1.2, 0.1).astype(np.float32)
    opaque = np.array([[0.2, 0.5, 0.7, 1.0]], np.float32)
    half = opaque * np.float32(0.5)
    np.testing.assert_allclose(recolour(half, colour), 0.5 * recolour(opaque, colour), rtol=1e-6)
    bright = colour_matrix(0, 1, 1, 0.9).astype(np.float32)
    assert recolour(half, bright).max() == 0.5  # no brighter than it is opaque
    dark = colour_matrix(0, 1, 1, -0.9).astype(np.float32)
    assert recolour(half, dark).min() == 0


def test_the_ground_shows_where_the_picture_is_transparent():
    ground = np.array([0.2, 0.4, 0.6], np.float32)
    square = np.zeros((8, 8, 4), np.uint8)
    np.testing.assert_allclose(apply(square, changed(ground=ground), 4), np.tile(ground, (4, 4, 1)))
    square[...] = 51, 0, 0, 102  # red 0.5, alpha 0.4
    middle = apply(square, changed(ground=ground), 8)[4, 4]
    np.testing.assert_allclose(middle, [0.2 + 0.6 * 0.2, 0.6 * 0.4, 0.6 * 0.6], atol=1e-6)


# ------------------------------------------------------------------------ blur and patch


def test_blur_is_pillows_up_to_its_approximation():
    pixels = np.random.default_rng(0).random((24, 24, 3)).astype(np.float32)
    got = blur(pixels, 1.0)
    for k in range(3):
        plane = Image.fromarray(np.rint(255 * pixels[..., k]).astype(np.uint8))
        expected = np.asarray(plane.filter(ImageFilter.GaussianBlur(1.0))) / 255
        assert abs(got[..., k] - expected)[4:-4, 4:-4].max() < 0.04


def test_blur_spreads_a_dot_as_a_gaussian():
    pixels = np.zeros((15, 17, 3), np.float32)
    pixels[7, 8] = 1
    got = blur(pixels, 0.8)[..., 1]
    weights = [math.exp(-0.5 * (d / 0.8) ** 2) for d in range(-RADIUS, RADIUS + 1)]
    expected = np.outer(weights, weights) / sum(weights) ** 2
    np.testing.assert_allclose(got[4:11, 5:12], expected, rtol=1e-5)
    assert abs(got.sum() - 1) < 1e-6


def test_blur_keeps_the_edge():
    np.testing.assert_allclose(blur(np.full((9, 9, 3), 0.3, np.float32), 1.2), 0.3, rtol=1e-6)


def test_a_patch_covers_its_box():
    patch = np.array([0.1, 0.2, 0.3], np.float32)
    covered = cover(np.ones((20, 20, 3), np.float32), np.array([0.1, 0.25, 0.6, 0.55]), patch)
    assert (covered[5:11, 2:12] == patch).all()
    assert (covered != 1).any(axis=2).sum() == 60
    page = np.ones((20, 20, 3), np.float32)
    assert (cover(page, np.zeros(4), patch) == 1).all()
    cover(page, np.array([0.0, 0.0, 1.0, 1.0]), patch)
    assert (page == 1).all()  # not written into


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_box_is_a_square_inside(numbers):
    left, top, right, bottom = box_of(np.array(numbers))
    assert left >= 0
    assert top >= 0
    assert right <= 1 + 1e-9
    assert bottom <= 1 + 1e-9
    assert 0.15 - 1e-9 <= right - left <= 0.4 + 1e-9
    assert right - left == pytest.approx(bottom - top)


# ------------------------------------------------------------------------ drawing


def test_the_same_seed_draws_the_same_change_and_another_one_another():
    draw = Augment().draw
    same, other = draw(0.7, [1, 2, 3]), draw(0.7, [1, 2, 4])
    for field in dataclasses.fields(same):
        value = getattr(same, field.name)
        np.testing.assert_array_equal(value, getattr(draw(0.7, [1, 2, 3]), field.name))
        assert value.dtype == np.float32
    assert (same.matrix != other.matrix).all()


def test_at_strength_0_nothing_changes():
    for seed in range(20):
        drawn = Augment().draw(0.0, [seed])
        np.testing.assert_allclose(drawn.matrix, [[64 / 60, 0, 0], [0, 64 / 60, 0]], atol=1e-6)
        np.testing.assert_allclose(drawn.colour, np.eye(3, 4), atol=1e-6)
        assert (drawn.ground == 1).all()
        assert drawn.sigma == 0
        assert not drawn.box.any()
        full = NOTHING.draw(1.0, [seed])
        np.testing.assert_array_equal(full.matrix, drawn.matrix)
        np.testing.assert_allclose(full.colour, drawn.colour, atol=1e-6)


def many(**fields):
    values = {field.name: getattr(NOTHING, field.name) for field in dataclasses.fields(NOTHING)}
    return [Augment(**(values | fields)).draw(1.0, [seed]) for seed in range(400)]


def forward(change):
    """The map from the picture to the result."""
    linear = np.linalg.inv(change.matrix[:, :2].astype(np.float64))
    return linear, -linear @ change.matrix[:, 2]


def test_each_range_reaches_its_ends_and_no_further():
    sizes = [forward(c)[0][0, 0] for c in many(smallest=0.5, largest=1.2)]
    assert 0.5 <= min(sizes) < 0.51
    assert 1.19 < max(sizes) <= 1.2 + 1e-6
    assert 0.4 < np.mean(np.array(sizes) < PLAIN) < 0.6
    ratios = [forward(c)[0][0, 0] / forward(c)[0][1, 1] for c in many(aspect=0.5)]
    assert 1 / 1.5 - 1e-6 <= min(ratios) < 0.68
    assert 1.48 < max(ratios) <= 1.5 + 1e-6
    products = [np.prod(np.diag(forward(c)[0])) for c in many(aspect=0.5)]
    np.testing.assert_allclose(products, PLAIN**2, rtol=1e-5)  # as large as before
    turns = [math.degrees(math.atan2(*forward(c)[0][::-1, 0])) for c in many(rotation=20.0)]
    assert -20 - 1e-4 <= min(turns) < -19.5
    assert 19.5 < max(turns) <= 20 + 1e-4
    shears = [forward(c)[0][0, 1] / PLAIN for c in many(shear=0.3)]
    assert -0.3 - 1e-6 <= min(shears) < -0.29
    assert 0.29 < max(shears) <= 0.3 + 1e-6
    for axis in (0, 1):
        shifts = [forward(c)[1][axis] / 2 for c in many(shift=0.2)]
        assert -0.2 - 1e-6 <= min(shifts) < -0.195
        assert 0.195 < max(shifts) <= 0.2 + 1e-6
    added = [c.colour[0, 3] for c in many(brightness=0.25)]
    assert -0.25 - 1e-6 <= min(added) < -0.24
    assert 0.24 < max(added) <= 0.25 + 1e-6
    contrasts = [c.colour[:, :3].sum(axis=1)[0] for c in many(contrast=0.4)]
    assert 0.6 - 1e-6 <= min(contrasts) < 0.61
    assert 1.39 < max(contrasts) <= 1.4 + 1e-6
    greys = [c.colour[0, 1] for c in many(saturation=0.5)]  # what of green comes into red
    assert -0.5 * 0.587 - 1e-6 <= min(greys) < -0.28
    assert 0.28 < max(greys) <= 0.5 * 0.587 + 1e-6
    angles = [np.trace(c.colour[:, :3]) for c in many(hue=0.1)]
    assert min(angles) >= 1 + 2 * math.cos(0.2 * math.pi) - 1e-5
    assert min(angles) < 1 + 2 * math.cos(0.19 * math.pi)


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.5), (0.98, 1.2)])
def test_a_range_beside_the_plain_size_is_kept(low, high):
    sizes = [forward(c)[0][0, 0] for c in many(smallest=low, largest=high)]
    assert low - 1e-6 <= min(sizes)
    assert max(sizes) <= high + 1e-6
    assert np.ptp(sizes) > 0.9 * (high - low)
    one = Augment(**(vars(NOTHING) | {"smallest": low, "largest": high}))
    half, full = (forward(one.draw(s, [0]))[0][0, 0] for s in (0.5, 1.0))
    assert half == pytest.approx((PLAIN + full) / 2, rel=1e-5)


def test_another_plain_size():
    np.testing.assert_allclose(Augment().draw(0.0, [1], 1.0).matrix, np.eye(2, 3), atol=1e-6)


def test_shares():
    shares = {
        "grey": lambda c: abs(c.colour[0, 0] - 0.299) < 1e-6,
        "ground": lambda c: (c.ground != 1).all(),
        "blurred": lambda c: c.sigma > 0,
        "covered": lambda c: c.box.any(),
    }
    for name, has in shares.items():
        for wanted in (0.0, 0.3, 1.0):
            share = np.mean([has(c) for c in many(**{name: wanted})])
            assert abs(share - wanted) < 0.08, name
            others = [other for other in shares if other != name]
            assert not any(shares[o](c) for o in others for c in many(**{name: 1.0})[:20])
    grounds = np.array([c.ground for c in many(ground=1.0)])
    assert 0.4 <= grounds.min() < 0.42
    assert 0.98 < grounds.max() <= 1
    sigmas = [c.sigma for c in many(blurred=1.0)]
    assert 0.4 <= min(sigmas) < 0.41
    assert 1.19 < max(sigmas) <= 1.2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hue": -0.1}, "hue: got -0.1, expected a number from 0 on"),
        ({"shift": math.nan}, "shift: got nan"),
        ({"aspect": True}, "aspect: got True"),
        ({"rotation": "5"}, "rotation: got '5'"),
        ({"grey": 1.5}, "grey: got 1.5, expected a share up to 1"),
        ({"smallest": 0.0}, "smallest: got 0.0, expected above 0"),
        ({"smallest": 1.2, "largest": 1.1}, "smallest: got 1.2, expected above 0, up to `largest`"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Augment(**fields)
