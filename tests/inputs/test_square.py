"""Pictures as squares with transparency."""

import numpy as np
import pytest
from PIL import Image

from miniclip.inputs.square import is_opaque, on_ground, visible_square


def rgba(height, width, box, colour=(255, 0, 0, 255)):
    """A transparent picture with a box (top, left, bottom, right) of one colour."""
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., :3] = 77  # under transparent pixels, where nobody sees it
    pixels[box[0] : box[2], box[1] : box[3]] = colour
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("box", "filled"),
    [
        ((10, 20, 30, 40), np.s_[:, :]),  # a square, wherever it lies
        ((0, 0, 40, 20), np.s_[:, 4:12]),  # high
        ((7, 3, 17, 43), np.s_[6:10, :]),  # wide
    ],
)
def test_what_is_seen_fills_the_square(box, filled):
    square = visible_square(rgba(48, 64, box), 16)
    expected = np.zeros((16, 16), np.uint8)
    expected[filled] = 255
    assert square.dtype == np.uint8
    np.testing.assert_array_equal(square[..., 3], expected)
    np.testing.assert_array_equal(square[..., 0], expected)  # red, times alpha
    assert not square[..., 1:3].any()


@pytest.mark.parametrize(("alpha", "seen"), [(8, False), (9, True)])
def test_what_is_nearly_transparent_is_not_cut_out(alpha, seen):
    picture = rgba(32, 32, (8, 8, 24, 24))
    picture.putpixel((0, 0), (255, 255, 255, alpha))
    whole = visible_square(picture, 32)[..., 3] == 255
    assert whole.all() != seen


def test_colours_under_transparent_pixels_do_not_come_out():
    """Half a picture of red beside hidden green, column by column."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, ::2] = 255, 0, 0, 255
    pixels[:, 1::2] = 0, 255, 0, 0
    square = visible_square(Image.fromarray(pixels), 8)
    assert not square[..., 1].any()
    assert (square[:, 1:-1, 0] == square[:, 1:-1, 3]).all()
    assert abs(square[:, 2:-2, 3].astype(int) - 127).max() < 12


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (40, 40)])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK"])
def test_pictures_without_transparency_are_cropped_in_the_middle(size, mode):
    picture = Image.new("RGB", size, "black")
    n = min(size)
    left, top = ((length - n) // 2 for length in size)
    picture.paste("white", (left, top, left + n, top + n))
    square = visible_square(picture.convert(mode), 20)
    assert (square == 255).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_other_ways_to_make_an_opaque_picture_square(mode):
    """An alpha channel that says nothing makes no difference."""
    picture = Image.new(mode, (40, 20), "white")
    assert is_opaque(picture)
    assert (visible_square(picture, 8, "shortest") == 255).all()
    assert (visible_square(picture, 8, "squash") == 255).all()
    longest = visible_square(picture, 8, "longest")[..., 3]
    assert [bool(row.any()) for row in longest] == [False] * 2 + [True] * 4 + [False] * 2
    assert not is_opaque(rgba(4, 4, (0, 0, 4, 3)))


def test_a_palette_with_a_transparent_colour():
    picture = Image.new("P", (20, 20), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.info["transparency"] = 0
    picture.paste(1, (5, 5, 15, 15))
    square = visible_square(picture, 10)
    assert (square == (255, 0, 0, 255)).all()


def test_a_picture_of_nothing_stays_nothing():
    assert not visible_square(rgba(9, 9, (0, 0, 0, 0)), 8).any()


def test_a_line_is_one_pixel_wide_at_least():
    square = visible_square(rgba(64, 64, (0, 31, 64, 32)), 16)
    assert (square[..., 3] > 0).sum() == 16


def test_on_a_ground():
    square = np.zeros((4, 4, 4), np.uint8)
    square[1, 2] = 255, 0, 0, 255
    square[2, 2] = 50, 0, 0, 100  # premultiplied
    page = np.asarray(on_ground(square, 7))
    assert page.shape == (7, 7, 3)
    assert tuple(page[2, 3]) == (255, 0, 0)
    np.testing.assert_array_equal(page[3, 3], np.rint([50 + 155, 155, 155]))
    assert (page == 255).all(axis=2).sum() == 47
    assert (np.asarray(on_ground(np.zeros((2, 2, 4), np.uint8), 3, 9)) == 9).all()
