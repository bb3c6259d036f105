"""Plans that hand out all tokens: made when asked for, and the embeddings' plan is as it was."""

import numpy as np
import pytest
from engine_checks import (
    CONFIGS,
    check_tokens,
    engine_of,
    network_of,
    pictures,
    relative,
    scale_parameters,
    texts,
)

import miniclip
from miniclip.engine.cpu import transformer
from miniclip.engine.plan import Plan

IMAGE_TOWERS = [name for name, config in CONFIGS.items() if config.vision is not None]
LARGER = {"vit": (64, 128), "narrow": (33, 60), "resnet": (64, 128), "resnet of width 12": (96, 63)}


@pytest.mark.parametrize("name", IMAGE_TOWERS)
def test_tokens(name):
    """Against the modules in float64; their pool against the embeddings."""
    check_tokens(miniclip, name)


@pytest.mark.parametrize("name", LARGER)
def test_tokens_of_pictures_that_are_not_square(name):
    check_tokens(miniclip, name, LARGER[name])


def usual(config, count=7):
    return pictures(count, *(config.vision.image_resolution,) * 2)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_several_chunks_give_the_bits_of_one(name, monkeypatch):
    config, engine = CONFIGS[name], engine_of(miniclip)
    plan, x = Plan(network_of(miniclip, config)), usual(CONFIGS[name])
    whole = plan.of("image").tokens(x)
    program = plan.of("image").program(x.shape[2:], all_tokens=True)
    for size in (1, 3 * program.memory(program.tokens, 1)):
        monkeypatch.setattr(engine, "CHUNK_BYTES", size)
        assert np.array_equal(plan.of("image").tokens(x), whole)
    assert np.array_equal(plan.of("image").tokens(x[2:3])[0], whole[2])


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_any_number_of_threads_gives_the_same_bits(name, threads):
    plan, x = Plan(network_of(miniclip, CONFIGS[name])), usual(CONFIGS[name], 3)
    threads(1)
    expected = plan.of("image").tokens(x)
    threads(3)
    assert np.array_equal(plan.of("image").tokens(x), expected)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_embeddings_plan_stays(name):
    """Before, between and after: its program, its bits, and nothing more is packed for it."""
    network = network_of(miniclip, CONFIGS[name])
    plan, x = Plan(network), usual(CONFIGS[name])
    before = plan.of("image")(x)
    program = plan.of("image").program(x.shape[2:])
    tokens = plan.of("image").tokens(x)
    assert plan.of("image").program(x.shape[2:]) is program
    assert np.array_equal(plan.of("image")(x), before)
    assert np.array_equal(plan.of("image").tokens(x), tokens)
    network.visual.interpolate = True
    wide = pictures(2, 64, 96)
    assert plan.of("image").tokens(wide).shape[0] == 2
    assert plan.of("image").program(x.shape[2:]) is program
    assert np.array_equal(plan.of("image").tokens(x), tokens)


def test_nothing_is_made_before_it_is_asked_for(monkeypatch):
    """Nor packed: only the last block's queries, keys and values come on top, and once."""
    packed = []
    pack = transformer.pack_qkv
    monkeypatch.setattr(transformer, "pack_qkv", lambda *x: packed.append(1) or pack(*x))
    network = network_of(miniclip, CONFIGS["vit"])
    plan, x = Plan(network), usual(CONFIGS["vit"])
    plan.of("image")(x)
    assert "all tokens" not in plan.describe().partition("text tower")[0]
    network.visual.interpolate = True
    count = len(packed)
    for size in ((32, 32), (32, 64), (32, 32)):
        plan.of("image").tokens(pictures(2, *size))
    assert len(packed) == count + 1
    (line,) = (line for line in plan.describe().splitlines() if "all tokens" in line)
    assert "steps for 32 x 32 pixels, all tokens" in line
    attention = [line for line in plan.describe().splitlines() if "attention, 2 heads" in line]
    assert len(attention) == 2 + 3


def test_new_weights_are_seen():
    network = network_of(miniclip, CONFIGS["vit"])
    plan, x = Plan(network), usual(CONFIGS["vit"])
    old = plan.of("image").tokens(x)
    scale_parameters(network)
    got = plan.of("image").tokens(x)
    assert relative(got, old) > 1e-3
    assert relative(got, network.visual.tokens(x)) < 1e-5


def test_no_plan_while_the_tokens_are_traced_or_changed():
    network = network_of(miniclip, CONFIGS["vit"])
    plan = Plan(network)
    network.visual.tokens = lambda images: images
    assert "has a tokens of its own" in plan.why_not("image")
    del network.visual.tokens
    assert plan.why_not("image") is None
    with miniclip.trace(network):
        assert plan.of("image") is None


def test_texts_and_wrong_pictures_are_refused():
    plan = Plan(network_of(miniclip, CONFIGS["vit"]))
    with pytest.raises(ValueError, match="tokens: this is the plan of the text tower, expected"):
        plan.of("text").tokens(texts(CONFIGS["vit"].text, 2))
    with pytest.raises(ValueError, match=r"images: got shape \(1, 3, 64, 64\), expected"):
        plan.of("image").tokens(pictures(1, 64, 64))
