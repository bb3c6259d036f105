"""A new CLIP starts from the same distributions as the original's code, run here for real."""

import math
from itertools import pairwise

import numpy as np
import pytest
from original import original_initialised

from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig

TEXT = TextConfig(context_length=20, vocab_size=300, width=128, heads=2, layers=3)
CONFIGS = {
    "vit": CLIPConfig(96, VisionConfig(64, 2, 192, 3, patch_size=16), TEXT),
    "resnet": CLIPConfig(96, VisionConfig(64, (2, 1, 1, 2), 16, 8), TEXT),
}
SEEDS = range(6)  # of each side: small tensors alone would say little about their distribution
SIGMAS = 6  # how far chance may carry an estimate; some hundred tensors are compared


@pytest.fixture(scope="module", params=CONFIGS)
def samples(request):
    """All values that each tensor had over the seeds, by name: ours and the original's."""
    config = CONFIGS[request.param]
    ours = [CLIP(config, seed=seed).state_dict() for seed in SEEDS]
    originals = [original_initialised(config, seed).state_dict() for seed in SEEDS]
    theirs = [
        {n: x.numpy() for n, x in state.items() if x.ndim or n == "logit_scale"}
        for state in originals
    ]
    assert ours[0].keys() == theirs[0].keys()
    return gather(ours), gather(theirs)


def gather(states):
    return {n: np.concatenate([np.ravel(s[n]) for s in states]) for n in states[0]}


def test_constants_are_the_same(samples):
    ours, theirs = samples
    constant = {n for n, x in theirs.items() if np.ptp(x) == 0}
    assert constant == {n for n, x in ours.items() if np.ptp(x) == 0}
    for name in constant:
        assert ours[name][0] == pytest.approx(theirs[name][0], rel=1e-6, abs=0), name


def test_means_and_deviations_are_the_same(samples):
    for name, x, y in drawn(samples):
        chance = SIGMAS * math.sqrt(2 / x.size)  # of both estimates together, in deviations
        assert abs(x.mean() - y.mean()) <= chance * y.std(), f"{name}: mean"
        assert abs(x.std() / y.std() - 1) <= chance / math.sqrt(2), f"{name}: deviation"


def test_normal_stays_normal_and_uniform_uniform(samples):
    """By the fourth moment: 3 of a normal distribution, 1.8 of a uniform one."""
    for name, x, y in drawn(samples):
        expected = 3.0 if kurtosis(y) > 2.4 else 1.8
        chance = SIGMAS * math.sqrt(24 / x.size)
        assert abs(kurtosis(x) - expected) <= min(chance, 0.6), f"{name}: kurtosis {kurtosis(x)}"
        if expected < 2:  # a uniform distribution also has an edge
            assert np.abs(x).max() == pytest.approx(np.abs(y).max(), rel=30 / x.size), name


def drawn(samples):
    ours, theirs = samples
    for name, y in theirs.items():
        if np.ptp(y) > 0:
            yield name, ours[name].astype(np.float64), y.astype(np.float64)


def kurtosis(x):
    z = (x - x.mean()) / x.std()
    return (z**4).mean()


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_temperature_starts_at_its_published_value(kind):
    """CLIP section 2.5: the logits' factor starts at 1 / 0.07."""
    scale = CLIP(CONFIGS[kind], seed=0).state_dict()["logit_scale"]
    assert scale.shape == ()
    assert scale == np.float32(math.log(1 / 0.07))


def test_every_last_batchnorm_of_a_block_starts_at_zero():
    """So each block begins as its shortcut: a trap for comparisons, kept as the original has it."""
    state = CLIP(CONFIGS["resnet"], seed=0).state_dict()
    gains = [n for n in state if n.startswith("visual.layer") and n.endswith("bn3.weight")]
    assert len(gains) == sum(CONFIGS["resnet"].vision.layers)
    assert not any(state[n].any() for n in gains)
    assert state["visual.bn3.weight"].all()  # that of the stem does not


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_seed_decides_all_weights(kind):
    first, again, other = (CLIP(CONFIGS[kind], seed=seed).state_dict() for seed in (3, 3, 4))
    for name, x in first.items():
        assert x.dtype == np.float32
        assert np.array_equal(x, again[name]), name
        is_constant = x.ndim == 0 or np.ptp(x) == 0
        assert is_constant == np.array_equal(x, other[name]), name


def test_two_tensors_of_one_shape_differ():
    """Each tensor is drawn by itself, not from the same stream again."""
    state = CLIP(CONFIGS["vit"], seed=0).state_dict()
    blocks = [state[f"transformer.resblocks.{i}.mlp.c_fc.weight"] for i in range(TEXT.layers)]
    for a, b in pairwise(blocks):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < SIGMAS / math.sqrt(a.size)
