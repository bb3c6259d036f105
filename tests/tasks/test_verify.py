"""`verify`: passes on the weights whose answers it knows, fails on any others."""

from dataclasses import replace

import numpy as np
import pytest
from original import living_state

from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP, get_config
from miniclip.pipeline import Pipeline, find_tokenizer
from miniclip.tasks.verify import KNOWN, report, verify, weights_were_tested

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("heavy")]


@pytest.fixture(scope="module")
def pipeline():
    """A ViT-B/32 with random weights that live, and the real vocabulary."""
    config = get_config("ViT-B/32")
    network = CLIP(config, seed=None)
    network.load_state_dict(living_state(config, 1))
    tokenizer = find_tokenizer()  # the one of openai-clip, which the tests install
    assert isinstance(tokenizer, Tokenizer)
    return Pipeline(network, Transform(size=224), tokenizer)


def test_random_weights_fail(pipeline, tmp_path):
    outcomes = verify(pipeline, tmp_path)
    status = {o.known.title: o.status for o in outcomes}
    assert [s for t, s in status.items() if "pixels" in t or "ids" in t] == ["fail"] * 4
    assert status["tokenizer: 'a photo of a cat'"] == "pass"
    assert [o.status for o in outcomes[-2:]] == ["skip", "skip"]
    text = report(outcomes)
    assert "needs" in text
    assert "github.com/openai/CLIP" in text
    assert "expected 0.3602 0.3658 -0.2337" in text


@pytest.mark.parametrize("name", ["RN50", "ViT-B/16"])
def test_random_weights_of_other_models_do_not_pass(name, tmp_path):
    """Without a picture nothing that depends on the weights can be computed: that is no pass."""
    network = CLIP(get_config(name), seed=None)
    other = Pipeline(network, Transform(size=224), find_tokenizer())
    if name == "ViT-B/16":
        with pytest.raises(
            ValueError, match="no known answers for ViT-B/16, only for ViT-B/32, RN50"
        ):
            verify(other, tmp_path)
    else:
        outcomes = verify(other, tmp_path)
        assert {o.known.weights: o.status for o in outcomes} == {False: "pass", True: "skip"}
        assert not weights_were_tested(outcomes)


@pytest.fixture(scope="module")
def answers(pipeline, tmp_path_factory):
    """The table as it would be if these weights were the published ones."""
    folder = tmp_path_factory.mktemp("pictures")
    from PIL import Image

    rng = np.random.default_rng(0)
    for known in KNOWN:
        if known.picture and known.model == "ViT-B/32":
            pixels = rng.integers(0, 256, (90, 130, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / known.picture[0])
    rows = [k for k in KNOWN if k.model == "ViT-B/32"]
    return folder, [
        replace(
            k, expected=k.compute(pipeline, folder / k.picture[0] if k.picture else None).tolist()
        )
        for k in rows
    ]


def test_the_right_weights_pass(pipeline, answers):
    folder, known = answers
    assert [o.status for o in verify(pipeline, folder, known)] == ["pass"] * len(known)


def test_the_wrong_activation_fails(pipeline, answers):
    """Forced GELU on QuickGELU weights: every row that runs a tower fails."""
    folder, known = answers
    config = pipeline.config
    wrong = replace(
        config,
        vision=replace(config.vision, activation="gelu"),
        text=replace(config.text, activation="gelu"),
    )
    network = CLIP(wrong, seed=None)
    network.load_state_dict(pipeline.network.state_dict())
    forced = Pipeline(network, pipeline.transform, pipeline.tokenizer)
    for outcome in verify(forced, folder, known):
        expected = "pass" if outcome.known.title.startswith("tokenizer") else "fail"
        assert outcome.status == expected, outcome


def test_a_slightly_wrong_weight_fails(pipeline, answers):
    folder, known = answers
    state = {n: np.array(x) for n, x in pipeline.network.state_dict().items()}
    # every second entry: LayerNorm would take out what all have in common
    state["visual.transformer.resblocks.11.mlp.c_proj.bias"][::2] += 0.01
    network = CLIP(pipeline.config, seed=None)
    network.load_state_dict(state)
    outcomes = verify(Pipeline(network, pipeline.transform, pipeline.tokenizer), folder, known)
    assert [o.status for o in outcomes[:2]] == ["fail", "fail"]
    assert [o.status for o in outcomes[2:4]] == ["pass", "pass"]
