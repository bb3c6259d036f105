"""Tokens of the towers, pooled by hand or used by themselves: exact against the original."""

import backends_here
import numpy as np
import pytest
from fake_gpu import FakeGpu
from model_checks import RESNET, VIT, close, inputs_for
from token_checks import (
    IMAGES,
    WIDE,
    check_pool,
    check_text_tokens,
    check_tokens,
    gradient_for,
    odd_size,
    ours,
    own_size,
    pictures,
)

import miniclip
from miniclip.models import CLIP

BACKENDS = pytest.mark.parametrize("name", [n for n in backends_here.NAMES if n != "cupy"])
KINDS = pytest.mark.parametrize("kind", ["vit", "resnet", "average"])
SIZES = pytest.mark.parametrize(
    "size_of", [own_size, lambda kind: WIDE, odd_size], ids=["own", "wide", "odd"]
)


def on(name):
    """A backend, and what brings an array there."""
    return backends_here.load(name), FakeGpu if name == "fake_gpu" else np.asarray


@BACKENDS
@KINDS
@SIZES
def test_tokens(kind, size_of, name):
    check_tokens(miniclip, kind, size_of(kind), *on(name))


@BACKENDS
@KINDS
@SIZES
def test_tokens_and_pool_by_hand(kind, size_of, name):
    check_pool(miniclip, kind, size_of(kind), *on(name))


@BACKENDS
def test_tokens_of_texts(name):
    check_text_tokens(miniclip, *on(name))


@KINDS
def test_a_resnets_tokens_are_a_view(kind):
    model = ours(miniclip, kind)
    with miniclip.trace(model) as trace:
        tokens = model.visual.tokens(pictures(own_size(kind)))
    assert trace["visual.tokens"] is tokens
    if kind != "vit":
        assert np.shares_memory(tokens, trace["visual.layer4"])
        last = trace["visual.layer4"][:, :, 1, 0]  # (B, C): second row, first column
        assert np.array_equal(tokens[:, model.visual.grid_of(*own_size(kind))[1]], last)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_grid_is_as_large_as_the_tower_makes_it(kind):
    """Sizes that no patch or pixel divides, too."""
    model = ours(miniclip, kind)
    least = 8 if kind == "vit" else 32
    for side in range(least, 100, 3):
        size = (side, least)
        tokens = model.visual.tokens(np.zeros((1, 3, *size)))
        rows, columns = model.visual.grid_of(*size)
        assert columns == 1
        assert tokens.shape[1] == rows + (kind == "vit")


@KINDS
def test_only_the_tokens_go_back(kind):
    """The pool ran as well, before or after, and its cache is left: nothing is mixed up."""
    model = ours(miniclip, kind)
    tower, images = model.visual, pictures(own_size(kind))
    grid = () if kind == "vit" else (tower.grid_of(*own_size(kind)),)
    with model.record():
        tokens = tower.tokens(images)
        expected = tower.tokens_backward(gradient_for(tokens.shape))
    with model.record():
        tower.pool(tower.tokens(images[::-1]), *grid)
        tower.pool(tower.tokens(images), *grid)
        assert np.array_equal(tower.tokens_backward(gradient_for(tokens.shape)), expected)


def test_several_passes_unwind_in_reverse():
    """Tokens of two batches first, then their pools: every way keeps its own order."""
    model = ours(miniclip, "resnet")
    tower, dy = model.visual, gradient_for((IMAGES, 24))
    batches, grid = [pictures((64, 64), seed) for seed in (0, 1)], (2, 2)
    alone = []
    for images in batches:
        with model.record():
            tower(images)
            alone.append(tower.backward(dy))
    with model.record():
        tokens = [tower.tokens(images) for images in batches]
        for t in tokens:
            tower.pool(t, grid)
        dtokens = [tower.pool_backward(dy) for _ in batches]  # of the second batch first
        got = [tower.tokens_backward(d) for d in dtokens]
    close("second", got[0], alone[1])
    close("first", got[1], alone[0])


def test_the_trace_shows_tokens_and_pools():
    model = CLIP(VIT, seed=0)
    images, ids, _ = inputs_for(VIT)
    with miniclip.trace(model) as t, model.record():
        model.visual.pool(model.visual.tokens(images.astype("f4")))
        model.text.tokens(ids)
        dtokens = model.visual.pool_backward(np.ones((3, 24), np.float32))
        model.visual.tokens_backward(dtokens)
    assert "visual" not in t
    for name in ("visual.tokens", "visual.pool"):
        assert t[f"{name}.grad"].shape == t[name].shape
    assert np.array_equal(t["visual.tokens"], t["visual.transformer"])
    assert np.array_equal(t["text.tokens"], t["ln_final"])
    assert "text.tokens.grad" not in t
    with miniclip.trace(model) as t, model.record():
        model.visual(images.astype("f4"))
    assert t["visual.pool"] is t["visual"]


def test_wrong_tokens():
    vit, resnet = CLIP(VIT, seed=0), CLIP(RESNET, seed=0)
    ids = np.full((2, 9), 49)
    x = {n: np.zeros((2, n, 128), np.float32) for n in (0, 5)}
    pixels = np.zeros((2, 4, 256), np.float32)
    cases = [
        (lambda: vit.visual.pool(x[5][0]), ValueError, r"tokens: got shape \(5, 128\), expected \(B, T, 128\)"),
        (lambda: vit.visual.pool(x[0]), ValueError, r"tokens: got shape \(2, 0, 128\)"),
        (lambda: vit.visual.pool(x[5][..., 1:]), ValueError, r"\(2, 5, 127\), expected \(B, T, 128\)"),
        (lambda: vit.visual.pool(x[5].astype("f8")), TypeError, "tokens: got float64, expected float32"),
        (lambda: vit.visual.pool([1]), TypeError, r"tokens: got list, expected a float32 array \(B, T, 128\)"),
        (lambda: vit.text.pool(x[5][..., :64], ids), ValueError, r"\(2, 5, 64\), expected \(2, 9, 64\)"),
        (lambda: resnet.visual.pool(pixels[:, :3]), ValueError, r"\(2, 3, 256\), expected \(B, 4, 256\)"),
        (lambda: resnet.visual.pool(pixels, (2, 3)), ValueError, r"\(2, 4, 256\), expected \(B, 6, 256\)"),
    ]  # fmt: skip
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()
    assert resnet.visual.pool(pixels).shape == (2, 24)
    resnet.visual.interpolate = True  # 32 x 128 pixels would be as many
    with pytest.raises(ValueError, match=r"grid: got None, expected \(rows, columns\)"):
        resnet.visual.pool(pixels)
    assert resnet.visual.pool(pixels, (1, 4)).shape == (2, 24)


def test_backward_names_the_way():
    model = CLIP(RESNET, seed=0)
    with pytest.raises(
        RuntimeError, match="ModifiedResNet: tokens_backward outside of a recording"
    ):
        model.visual.tokens_backward(np.zeros((1, 4, 256), np.float32))
    with model.record():
        tokens = model.visual.tokens(np.zeros((1, 3, 64, 64), np.float32))
        with pytest.raises(RuntimeError, match="visual: pool_backward without a pool pass of its"):
            model.visual.pool_backward(np.zeros((1, 24), np.float32))
        with pytest.raises(ValueError, match=r"dtokens: got shape \(1, 3, 256\), expected \(1, 4"):
            model.visual.tokens_backward(tokens[:, :3])
