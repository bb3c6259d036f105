"""What models are timed on: weights by what they are for, pictures, ids; the same ones for ever."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from bench_checks import RN, TEXT, VIT

from miniclip.bench import flops, inputs
from miniclip.models import CLIPConfig, TextConfig, VisionConfig

# Mean and deviation by hand, of shapes whose sizes all differ. He et al. 2015: sqrt(2 / fan-in)
# behind a ReLU, sqrt(1 / fan-in) elsewhere.
CENTERS = [
    ("visual.class_embedding", (48,), 0, 0.3),
    ("visual.positional_embedding", (17, 48), 0, 0.3),
    ("positional_embedding", (12, 32), 0, 0.3),
    ("visual.attnpool.positional_embedding", (5, 256), 0, 0.3),
    ("token_embedding.weight", (40, 32), 0, 1),
    ("visual.proj", (48, 24), 0, math.sqrt(1 / 48)),
    ("text_projection", (32, 24), 0, math.sqrt(1 / 32)),
    ("visual.conv1.weight", (48, 3, 8, 8), 0, math.sqrt(1 / 192)),  # patches
    ("visual.conv1.weight", (4, 3, 3, 3), 0, math.sqrt(2 / 27)),  # a stem
    ("visual.layer1.0.conv1.weight", (6, 8, 1, 1), 0, math.sqrt(2 / 8)),
    ("visual.layer2.0.conv2.weight", (6, 8, 3, 3), 0, math.sqrt(2 / 72)),
    ("visual.layer1.0.bn3.weight", (32,), 0.25, 0.03),
    ("visual.layer1.0.bn3.bias", (32,), 0, 0.1),
    ("visual.layer1.0.bn1.weight", (8,), 1, 0.1),
    ("visual.layer1.0.downsample.1.weight", (32,), 1, 0.1),
    ("visual.bn3.weight", (8,), 1, 0.1),  # of the stem, which adds to nothing
    ("visual.bn1.running_mean", (4,), 0, 0.1),
    ("visual.bn1.running_var", (4,), 1, 0.1),
    ("visual.layer4.0.bn3.running_var", (4,), 1, 0.1),
    ("visual.transformer.resblocks.0.ln_1.weight", (48,), 1, 0.1),
    ("transformer.resblocks.0.ln_1.bias", (32,), 0, 0.1),
    ("transformer.resblocks.0.attn.in_proj_weight", (96, 32), 0, math.sqrt(1 / 32)),
    ("transformer.resblocks.1.mlp.c_proj.weight", (32, 128), 0, math.sqrt(1 / 128)),
    ("visual.attnpool.c_proj.weight", (24, 256), 0, math.sqrt(1 / 256)),
    ("visual.attnpool.c_proj.bias", (24,), 0, 0.1),
]


@pytest.mark.parametrize(("name", "shape", "mean", "deviation"), CENTERS)
def test_weights_are_as_large_as_their_use_asks(name, shape, mean, deviation):
    assert inputs.center_and_spread(name, shape) == pytest.approx((mean, deviation))
    many = (20 * shape[0] + 2000, *shape[1:])
    if name not in ("visual.proj", "text_projection"):  # whose deviation is of the first axis
        values = inputs.draw(name, many, np.random.default_rng(0))
        assert values.dtype == np.float32
        assert values.mean() == pytest.approx(mean, abs=0.1 * deviation)
        assert values.std() == pytest.approx(deviation, rel=0.1)


def test_kernels_of_blocks_look_at_differences():
    """Inputs behind a ReLU have a mean, which each of their kernels leaves out; no other does."""
    state = inputs.living_state(RN)
    for name, x in state.items():
        if x.ndim == 4:
            own = np.abs(x.reshape(len(x), -1).mean(axis=1))
            assert (own.max() < 1e-6) == name.startswith("visual.layer"), name
    assert float(state["logit_scale"]) == pytest.approx(math.log(20))
    assert state["logit_scale"].shape == ()
    matrix = inputs.living_state(VIT)["visual.transformer.resblocks.0.attn.in_proj_weight"]
    assert np.abs(matrix.mean(axis=1)).max() > 1e-3


def test_seeds_differ_and_the_first_is_the_usual_one():
    for make in (inputs.living_state, named(inputs.pictures), named(inputs.token_ids)):
        usual, first, second = make(VIT), make(VIT, seed=0), make(VIT, seed=1)
        for name, x in usual.items():
            if name != "logit_scale":
                np.testing.assert_array_equal(x, first[name])
                assert not np.array_equal(x, second[name]), name


def named(make):
    return lambda config, **seed: {"x": make(config, 3, **seed)}


def test_what_is_timed_is_what_was_timed():
    """Records of years are comparable: a seed gives the same numbers for ever."""
    assert inputs.pictures(VIT, 2)[1, 2, 3:5, 4:6].ravel().tolist() == pytest.approx(
        [-0.3814011514, -0.1910828948, -0.6157774329, 0.2294214815]
    )
    assert inputs.token_ids(VIT, 3).tolist() == [
        [38, 15, 9, 23, 34, 6, 17, 5, 2, 13, 36, 39],
        [38, 5, 36, 14, 3, 39, 0, 0, 0, 0, 0, 0],
        [38, 18, 15, 10, 15, 18, 13, 39, 0, 0, 0, 0],
    ]
    state = inputs.living_state(VIT)
    assert float(state["visual.proj"][0, 0]) == pytest.approx(0.22228586674)
    assert float(state["text_projection"][0, 0]) == pytest.approx(-0.03060480952)


def test_pictures_are_squares_and_noise():
    """Sixteen squares, the last ones cut where the side is no multiple of four."""
    vision = dataclasses.replace(VIT.vision, image_resolution=38, patch_size=19, stride=19)
    x = inputs.pictures(CLIPConfig(24, vision, None), 60)
    assert (x.shape, x.dtype, x.flags.c_contiguous) == ((60, 3, 38, 38), np.float32, True)
    edges = [0, 10, 20, 30, 38]
    squares = np.array([
        [x[:, :, a:b, c:d].mean(axis=(2, 3)) for c, d in itertools.pairwise(edges)]
        for a, b in itertools.pairwise(edges)
    ])  # fmt: skip
    assert squares.std() == pytest.approx(1, abs=0.06)
    assert (x[:, :, :10, 10:20] - squares[0, 1][:, :, None, None]).std() == pytest.approx(
        0.5, abs=0.01
    )
    assert (x[:, :, 30:, 30:] - squares[3, 3][:, :, None, None]).std() == pytest.approx(
        0.5, abs=0.01
    )
    # noise of every channel is its own
    flat = (x - x.mean(axis=(2, 3), keepdims=True))[:, :, :10, :10].reshape(60, 3, -1)
    assert abs(np.corrcoef(flat[:, 0].ravel(), flat[:, 1].ravel())[0, 1]) < 0.3
    with pytest.raises(ValueError, match=r"^towers: this model has no image tower, expected text$"):
        inputs.pictures(CLIPConfig(24, None, TEXT), 1)


def test_words_are_all_words():
    """From 1 to below the start of text; the lengths that a context of 12 allows equally often."""
    ids = inputs.token_ids(VIT, 700)
    assert (ids.shape, ids.dtype) == ((700, 12), np.int64)
    ends = ids.argmax(axis=1)
    lengths, often = np.unique(ends + 1, return_counts=True)
    assert lengths.tolist() == [6, 7, 8, 9, 10, 11, 12]
    assert often.min() > 60
    assert set(ids[:, 0]) == {38}
    assert set(ids[np.arange(700), ends]) == {39}
    words = {i for row, end in zip(ids.tolist(), ends, strict=True) for i in row[1:end]}
    assert words == set(range(1, 38))


@pytest.mark.parametrize("context", [3, 5])
def test_a_context_shorter_than_any_caption_is_filled(context):
    ids = inputs.token_ids(CLIPConfig(24, None, TextConfig(context, 40, 32, 2, 1)), 20)
    assert (ids[:, 0] == 38).all()
    assert (ids[:, -1] == 39).all()
    assert ((ids[:, 1:-1] > 0) & (ids[:, 1:-1] < 38)).all()


def test_the_end_of_text_is_the_configurations():
    """Its own, below which the start and all words lie; three are enough."""
    own = TextConfig(12, 40, 32, 2, 1, end_id=20)
    ids = inputs.token_ids(CLIPConfig(24, None, own), 50)
    assert ids.max(axis=1).tolist() == [20] * 50
    assert set(ids[:, 0]) == {19}
    three = inputs.token_ids(CLIPConfig(24, None, TextConfig(6, 4, 32, 2, 1)), 1)
    assert three.tolist() == [[2, 1, 1, 1, 1, 3]]
    with pytest.raises(ValueError) as error:
        inputs.last_id(TextConfig(6, 3, 32, 2, 1))
    assert str(error.value) == ("models: got an end-of-text id of 2, expected room for words below")
    with pytest.raises(ValueError, match=r"^towers: this model has no text tower, expected image$"):
        inputs.token_ids(CLIPConfig(24, VIT.vision, None), 1)


# ------------------------------------------------------------------------ operations


def test_a_tower_without_a_projection_saves_it():
    """The second case of each tower: no projection, and an MLP as wide as usual."""
    whole = CLIPConfig(32, VIT.vision, None)
    bare = CLIPConfig(32, dataclasses.replace(VIT.vision, proj=False), None)
    assert flops.image_flops(whole) - flops.image_flops(bare) == 2 * 32 * 32
    for proj, more in ((True, 4 * 4), (False, 0)):
        text = TextConfig(3, 10, 4, 2, 2, mlp_width=None, proj=proj)
        # a block: 3 tokens, width 4, MLP 16
        by_hand = 3 * 4 * 16 + 2 * 3 * 3 * 4 + 3 * 2 * 4 * 16
        count = flops.text_flops(CLIPConfig(4, None, text))
        assert (count, type(count)) == (2 * (2 * by_hand + more), int)


def test_operations_of_a_small_residual_network_by_hand():
    """Layer by layer: (side of the output)^2 * inputs * outputs * (side of the kernel)^2."""
    config = CLIPConfig(24, VisionConfig(64, (1, 2, 1, 1), 8, 4), None)
    layers = [(32, 3, 4, 3), (32, 4, 4, 3), (32, 4, 8, 3)]  # the stem, then its pool: 16
    channels, side = 8, 16
    for planes, blocks, stride in ((8, 1, 1), (16, 2, 2), (32, 1, 2), (64, 1, 2)):
        for block in range(blocks):
            out = side // (stride if block == 0 else 1)
            layers += [(side, channels, planes, 1), (side, planes, planes, 3)]
            layers += [(out, planes, 4 * planes, 1)]
            layers += [(out, channels, 4 * planes, 1)] if block == 0 else []
            channels, side = 4 * planes, out
    convolutions = sum(s * s * a * b * k * k for s, a, b, k in layers)
    tokens, width = side * side + 1, channels  # keys and values of all, one query; scores and mix
    pool = 2 * tokens * width * width + width * width + 2 * tokens * width + width * 24
    assert (tokens, width) == (5, 256)
    count = flops.image_flops(config)
    assert (count, type(count)) == (2 * (convolutions + pool), int)


def test_towers_that_are_missing_are_named():
    for count, config, message in [
        (flops.image_flops, CLIPConfig(24, None, TEXT), "no image tower, expected text"),
        (flops.text_flops, CLIPConfig(24, VIT.vision, None), "no text tower, expected image"),
    ]:
        with pytest.raises(ValueError) as error:
            count(config)
        assert str(error.value) == f"towers: this model has {message}"
