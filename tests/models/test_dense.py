"""An embedding for every patch or pixel: exact against the original, forward and backward."""

import backends_here
import numpy as np
import pytest
from fake_gpu import FakeGpu
from model_checks import RESNET, VIT, close, variant
from original import living_state
from token_checks import (
    DENSE,
    WIDE,
    check_dense,
    odd_size,
    ours,
    own_size,
    pictures,
)

import miniclip
from miniclip.models import CLIP, CLIPConfig, VisionConfig

BACKENDS = pytest.mark.parametrize("name", [n for n in backends_here.NAMES if n != "cupy"])
CASES = [(kind, options) for kind, several in DENSE.items() for options in several]
SIZES = {"own": own_size, "wide": lambda kind: WIDE, "odd": odd_size}


@BACKENDS
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_dense(kind, options, size, name):
    """Every path and option, at other sizes and not square too."""
    place = FakeGpu if name == "fake_gpu" else np.asarray
    of = "resnet" if kind == "average" else "vit" if kind == "one block" else kind
    check_dense(miniclip, kind, SIZES[size](of), options, backends_here.load(name), place)


def test_the_mean_pools_pixels_have_the_embedding_for_mean():
    model = ours(miniclip, "average")
    for size in (own_size("average"), WIDE):
        images = pictures(size)
        close("embedding", model.visual.dense(images).mean(axis=1), model.visual(images))


def test_what_is_chosen_if_nothing_is_said():
    """The value path without the last block's shortcuts; pixels without positions."""
    vit, resnet = ours(miniclip, "vit").visual, ours(miniclip, "resnet").visual
    images = pictures((64, 64))
    expected = vit.dense(images, path="value", residual=False)
    assert np.array_equal(vit.dense(images), expected)
    assert not np.allclose(vit.dense(images, residual=True), expected, atol=0.1)
    assert np.array_equal(resnet.dense(images), resnet.dense(images, positions=False))
    assert not np.allclose(resnet.dense(images, True), resnet.dense(images), atol=0.01)


def test_without_a_projection_it_has_the_width_of_the_tokens():
    config = CLIPConfig(128, VisionConfig(**{**vars(VIT.vision), "proj": False}), None)
    state = living_state(VIT, 1)
    proj = state["visual.proj"]
    model = CLIP(config, seed=None).to(dtype="float64")
    model.load_state_dict(
        {n: x for n, x in state.items() if n.startswith("visual.") and n != "visual.proj"}
    )
    images = pictures((32, 32))
    for options in DENSE["vit"]:
        with model.record():
            y = model.visual.dense(images, **options)
            dpixels = model.visual.dense_backward(np.ones_like(y))
        assert y.shape == (2, 16, 128)
        assert dpixels.shape == images.shape
        close("dense", y @ proj.astype("f8"), ours(miniclip, "vit").visual.dense(images, **options))


def test_passes_unwind_in_reverse():
    """An embedding and a dense map in one recording share ln_post and the projection."""
    model = ours(miniclip, "vit")
    tower, images = model.visual, pictures((32, 32))
    dy, dense = np.ones((2, 24)), np.ones((2, 16, 24))
    with model.record():
        tower(images)
        expected = tower.backward(dy)
    with model.record():
        tower.dense(images)
        expected_dense = tower.dense_backward(dense)
    with model.record():
        tower(images)
        tower.dense(images[::-1])
        tower.dense(images)
        close("last", tower.dense_backward(dense), expected_dense)
        close("the one before", tower.dense_backward(dense), expected_dense[::-1])
        close("first", tower.backward(dy), expected)


def test_the_trace_shows_it():
    """The map, and the modules that made it, with their gradients."""
    for kind, inside in (
        (
            "vit",
            ["transformer.resblocks.2.attn.out_proj", "transformer.resblocks.2.values", "ln_post"],
        ),
        ("resnet", ["attnpool.v_proj", "attnpool.c_proj", "attnpool.dense", "layer4"]),
        ("average", ["attnpool.c_proj", "attnpool.dense"]),
    ):
        model = ours(miniclip, kind)
        with miniclip.trace(model) as t, model.record():
            y = model.visual.dense(pictures(WIDE))
            model.visual.dense_backward(np.ones_like(y))
        assert t["visual.dense"] is y
        for name in ("dense", *inside):
            assert t[f"visual.{name}.grad"].shape == t[f"visual.{name}"].shape
        assert "visual" not in t
        assert "forward" not in model.visual.__dict__
        assert "dense" not in model.visual.__dict__


def test_wrong_choices():
    vit, resnet = CLIP(VIT, seed=0).visual, CLIP(RESNET, seed=0).visual
    average = CLIP(variant("resnet", pool="average"), seed=0).visual
    image, large = np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 3, 64, 64), np.float32)
    cases = [
        (lambda: vit.dense(image, "values"), "path: got 'values', expected one of value, tokens"),
        (lambda: vit.dense(image, "tokens", True), "residual: got True, but only path 'value' has"),
        (lambda: vit.dense(image, "tokens", False), "residual: got False, but only path 'value' has"),
        (lambda: average.dense(large, positions=True), "positions: got True, but the plain mean"),
        (lambda: vit.dense(large), r"images: got shape \(1, 3, 64, 64\), expected \(B, 3, 32, 32\)"),
        (lambda: resnet.dense(image), r"images: got shape \(1, 3, 32, 32\), expected \(B, 3, 64, 64\)"),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    for tower, x in ((vit, image), (resnet, large)):
        with tower.record():
            y = tower.dense(x)
            with pytest.raises(ValueError, match="dy: got shape"):
                tower.dense_backward(y[:, 1:])
