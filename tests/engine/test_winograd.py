"""3x3 convolutions: Winograd's matrices exactly, and each of the engine's ways against float64."""

import itertools
from fractions import Fraction

import engine_kernel_checks as checks
import numpy as np
import pytest
import torch
from engine_kernel_checks import convolve, normal, true_convolution
from hypothesis import given
from hypothesis import strategies as st

import miniclip
from miniclip.engine.cpu.resnet import EXPANDED, tile_of
from miniclip.engine.cpu.winograd import POINTS, matrices, transform_weights

ROOM = checks.Room(miniclip)
WAYS = {4: "Winograd, tiles of 4", 2: "Winograd, tiles of 2", 0: "gathered pixels"}


def times(a, b):
    """The product of two matrices of fractions."""
    return [
        [sum(x * y for x, y in zip(row, column, strict=True)) for column in transposed(b)]
        for row in a
    ]


def transposed(a):
    return [list(column) for column in zip(*a, strict=True)]


@pytest.mark.parametrize("m", POINTS)
def test_the_identity_holds_exactly_in_one_dimension(m):
    """A^T [(G g) * (B^T d)] is the correlation of d with g, for every pair of unit vectors: both
    sides are linear in g and in d, so it holds for all.
    """
    at, g, bt = matrices(m)
    n = m + 2
    assert (len(at), len(at[0])) == (m, n)
    assert (len(g), len(g[0])) == (n, 3)
    assert (len(bt), len(bt[0])) == (n, n)
    for k, i in itertools.product(range(3), range(n)):
        products = [[g[p][k] * bt[p][i]] for p in range(n)]
        y = times(at, products)
        assert y == [[Fraction(int(j + k == i))] for j in range(m)]  # y_j = sum_k d_(j + k) g_k


@pytest.mark.parametrize("m", POINTS)
def test_the_identity_holds_exactly_in_two_dimensions(m):
    at, g, bt = matrices(m)
    rng = np.random.default_rng(m)
    kernel = [[Fraction(int(x)) for x in row] for row in rng.integers(-9, 9, (3, 3))]
    tile = [[Fraction(int(x)) for x in row] for row in rng.integers(-9, 9, (m + 2, m + 2))]
    points = times(times(g, kernel), transposed(g))
    values = times(times(bt, tile), transposed(bt))
    products = [
        [x * y for x, y in zip(a, b, strict=True)] for a, b in zip(points, values, strict=True)
    ]
    expected = [
        [
            sum(tile[i + k][j + q] * kernel[k][q] for k in range(3) for q in range(3))
            for j in range(m)
        ]
        for i in range(m)
    ]
    assert times(times(at, products), transposed(at)) == expected


@pytest.mark.parametrize("m", POINTS)
def test_transformed_weights(m):
    weight = np.random.default_rng(0).standard_normal((5, 3, 3, 3))
    g = np.array([[float(x) for x in row] for row in matrices(m)[1]])
    expected = np.einsum("ik,nckl,jl->ijnc", g, weight, g).reshape(-1, 5, 3)
    got = transform_weights(weight, m)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("way", WAYS)
@given(
    st.integers(1, 3), st.integers(1, 37), st.integers(1, 70), st.integers(1, 13),
    st.integers(1, 11), st.integers(1, 3), st.integers(0, 9),
)  # fmt: skip
def test_convolutions_of_all_sizes(way, images, channels, columns, height, width, members, seed):
    checks.check_convolution(ROOM, way, images, channels, columns, height, width, members, seed)


@pytest.mark.parametrize("way", WAYS)
def test_every_map_from_1x1_to_13x11(way):
    for height, width in itertools.product(range(1, 14), range(1, 12)):
        checks.check_convolution(ROOM, way, 2, 3, 5, height, width, 2)


@pytest.mark.parametrize("way", WAYS)
def test_more_tiles_than_a_block(way):
    """Images whose tiles share blocks, the last of which is not full."""
    for images, side in ((3, 13), (1, 21), (5, 9)):
        checks.check_convolution(ROOM, way, images, 20, 36, side, side, 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_pixel_stays_visible(way, bad):
    """Also behind ReLU; images that have none are whole."""
    x, weight, bias = normal(0, 3, 5, 9, 10), normal(0, 7, 5, 3, 3), normal(0, 7)
    expected = convolve(ROOM, way, x, weight, bias, 0)
    for place in itertools.product((0, 4, 8), (0, 5, 9)):
        damaged = x.copy()
        damaged[1, 2, place[0], place[1]] = bad
        got = convolve(ROOM, way, damaged, weight, bias, 0)
        assert not np.isfinite(got[1, :, place[0], place[1]]).all()
        assert np.array_equal(got[[0, 2]], expected[[0, 2]])
        if np.isnan(bad):
            assert np.isnan(got[1, :, place[0], place[1]]).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_weight_stays_visible(way):
    x, weight, bias = normal(0, 1, 5, 9, 10), normal(0, 7, 5, 3, 3), normal(0, 7)
    weight[3, 2, 0, 1] = np.nan
    got = convolve(ROOM, way, x, weight, bias, 0)
    assert np.isnan(got[0, 3]).all() or way == 0  # gathered: where the zero beyond the edge is
    assert np.isnan(got[0, 3, 1:-1, 1:-1]).all()
    assert np.isfinite(np.delete(got[0], 3, 0)).all()


def test_the_choice_of_the_way():
    assert tile_of(56, 56, 64, 64) == 4
    assert tile_of(7, 7, 512, 512) == 4
    assert tile_of(2, 56, 64, 64) == tile_of(56, 1, 64, 64) == 0
    assert tile_of(14, 14, 1024, 1024) == 2
    assert EXPANDED < 36 * 1024 * 1024 * 4


# ---------------------------------------------------------------- errors as in RN50

# Relative L2 errors measured for (channels, side of the map): tiles of 4, of 2, plain product.
MEASURED = {
    (32, 112): (1.0e-6, 1.7e-7, 2.2e-7),
    (64, 56): (1.4e-6, 2.2e-7, 3.0e-7),
    (128, 28): (1.9e-6, 3.0e-7, 3.8e-7),
    (256, 14): (2.4e-6, 4.3e-7, 3.8e-7),
    (512, 7): (2.8e-6, 5.7e-7, 3.9e-7),
}
LEEWAY = 2  # for other processors, whose sums are cut into other vectors


def layer_errors(channels, side, seed=0):
    """Relative L2 errors of every way, and of PyTorch in float32, on what a ReLU lets through."""
    x = np.maximum(normal(seed, 1, channels, side, side), 0)
    weight = normal(seed, channels, channels, 3, 3) * np.float32((2 / (9 * channels)) ** 0.5)
    bias = normal(seed, channels) * np.float32(0.1)
    truth = true_convolution(x, weight, bias)
    got = {way: convolve(ROOM, way, x, weight, bias) for way in WAYS}
    got["PyTorch"] = true_convolution(x, weight, bias, torch.float32)
    return {way: np.linalg.norm(y - truth) / np.linalg.norm(truth) for way, y in got.items()}


@pytest.mark.parametrize(("channels", "side"), MEASURED)
def test_errors_of_rn50s_layers(channels, side):
    errors = layer_errors(channels, side)
    for way, measured in zip((4, 2, 0), MEASURED[channels, side], strict=True):
        assert errors[way] <= LEEWAY * measured, f"{WAYS[way]}: {errors[way]:.1e}"
    assert errors[2] < errors[4]  # large tiles cost digits, or something is not what it seems


def table():
    """For docs/: the errors of all layers."""
    yield "| channels, side | " + " | ".join([*WAYS.values(), "PyTorch float32"]) + " |"
    for channels, side in MEASURED:
        errors = layer_errors(channels, side)
        yield f"| {channels}, {side} | " + " | ".join(f"{e:.1e}" for e in errors.values()) + " |"


if __name__ == "__main__":
    print("\n".join(table()))
