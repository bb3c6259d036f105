"""The engine's kernels against NumPy, for all kinds of sizes and one to three team members."""

import engine_kernel_checks as checks
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import miniclip

ROOM = checks.Room(miniclip)
MEMBERS = st.integers(1, 3)
SEEDS = st.integers(0, 9)
LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=4)


def sizes(most, least=1):
    return st.integers(least, most)


@given(
    sizes(40), sizes(2100), sizes(150), sizes(3), st.booleans(), st.booleans(), sizes(3, 0),
    st.sampled_from([6, 12, 24, 48]), MEMBERS, SEEDS,
)  # fmt: skip
@example(40, 1024, 64, 1, True, False, 0, 24, 2, 0)  # one pass along the depth
@example(7, 1025, 65, 2, True, True, 0, 12, 3, 0)  # two, the second one of length 1
@example(1, 1, 1, 1, False, False, 1, 6, 1, 0)
@example(13, 2049, 17, 3, False, False, 2, 6, 2, 0)
def test_product(rows, depth, columns, groups, add, relu, activation, block, members, seed):
    checks.check_product(
        ROOM, rows, depth, columns, groups, add, relu, activation, block, members, seed
    )


@given(sizes(200), sizes(90), st.integers(1, ROOM.tiles.VECTORS), MEMBERS)
def test_pack_panels(columns, depth, vectors, members):
    checks.check_pack_panels(ROOM, columns, depth, vectors, members)


def test_panel_width():
    checks.check_panel_width(ROOM)


@given(sizes(30), sizes(130), sizes(20, 0), st.sampled_from([1e-5, 1.0]), st.booleans(), MEMBERS)
def test_layer_norm(rows, width, extra, eps, in_place, members):
    checks.check_layer_norm(ROOM, rows, width, extra, eps, in_place, members)


@given(LENGTHS, sizes(4), sizes(40), st.booleans(), st.sampled_from([1, 5, 48]), MEMBERS, SEEDS)
@example([48, 49, 1], 2, 16, True, 48, 2, 0)
def test_attention(lengths, heads, width, causal, queries, members, seed):
    checks.check_attention(ROOM, lengths, heads, width, causal, queries, members, seed)


@given(LENGTHS, sizes(40), sizes(100), MEMBERS, SEEDS)
def test_attend_once(lengths, heads, width, members, seed):
    checks.check_attend_once(ROOM, lengths, heads, width, members, seed)


@given(sizes(3), sizes(9), sizes(9), sizes(40), sizes(4), MEMBERS)
def test_average_pool(images, height, width, channels, size, members):
    checks.check_average_pool(ROOM, images, height, width, channels, size, members)


@given(sizes(3), sizes(3), sizes(12), sizes(12), sizes(5), sizes(5), sizes(2, 0), MEMBERS)
def test_unfold_images(images, channels, height, width, size, stride, padding, members):
    size = min(size, height + 2 * padding, width + 2 * padding)
    padding = min(padding, size - 1)
    size = min(size, height + 2 * padding, width + 2 * padding)
    checks.check_unfold(ROOM, images, channels, height, width, size, stride, padding, members)


def test_large_scores_do_not_overflow():
    """Softmax takes the largest score out first; equal ones share."""
    for scale in (1e3, 1e30):
        row = np.array([0, -1, 0, -0.5, -2], np.float32) * np.float32(scale)
        ROOM.kernels.softmax_row(row)
        np.testing.assert_allclose(row, [0.5, 0, 0.5, 0, 0], atol=1e-7)
        columns = np.tile(np.array([0, -1, 0], np.float32)[:, None] * np.float32(scale), (1, 16))
        flat = columns.reshape(-1).copy()
        ROOM.kernels.softmax_columns(flat, 3, 16)
        np.testing.assert_allclose(flat.reshape(3, 16), [[0.5] * 16, [0] * 16, [0.5] * 16])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("place", [0, 3, 17, 33])
def test_nan_stays_visible(sign, place):
    """In softmax, activations, LayerNorm and products with ReLU, wherever in the vector it is."""
    nan = np.copysign(np.float32(np.nan), np.float32(sign))
    x = np.linspace(-3, 3, 34, dtype=np.float32)
    x[place] = nan
    row = x.copy()
    ROOM.kernels.softmax_row(row)
    assert np.isnan(row).all()
    for activation in (ROOM.kernels.quick_gelu_row, ROOM.kernels.gelu_row):
        row = x.copy()
        activation(row)
        assert np.isnan(row[place])
        assert np.isnan(row).sum() == 1
    row = x.copy()
    ROOM.kernels.gelu_tanh_row(row)
    assert np.isnan(row[place])
    one, y = np.ones(34, np.float32), np.empty(34, np.float32)
    ROOM.kernels.layer_norm_row(x, one, one, np.float32(1e-5), y)
    assert np.isnan(y).all()
    w = ROOM.packing.pack(np.eye(34, dtype=np.float32))
    c = np.zeros(w.columns, np.float32)
    ROOM.run(
        1, ROOM.kernels.panel_product, x, 34, 1, 34, w.data, w.panel, w.columns, w.bias,
        np.float32(0), 0, c, w.columns, False, 1, 0, 0, 24,
    )  # fmt: skip
    assert np.isnan(c[:34]).all()  # 0 * NaN is NaN, too


def test_scores_of_a_whole_column_that_are_nan():
    scores = np.zeros((4, 16), np.float32)
    scores[2, 5] = np.nan
    flat = scores.reshape(-1)
    ROOM.kernels.softmax_columns(flat, 4, 16)
    got = flat.reshape(4, 16)
    assert np.isnan(got[:, 5]).all()
    np.testing.assert_allclose(np.delete(got, 5, 1), 0.25)
