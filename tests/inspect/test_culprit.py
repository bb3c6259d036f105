"""Whatever module is broken, forward or backward, a comparison of traces names that module."""

import numpy as np
import pytest
from model_checks import VIT, inputs_for
from trace_checks import KINDS, culprit_of, ours, traced, watched

from miniclip.inspect import compare, trace
from miniclip.inspect.trace import named_for_trace
from miniclip.models import CLIP
from miniclip.nn import Embedding


def scaled(y):
    """Slightly wrong, whatever it is."""
    if isinstance(y, tuple):
        return tuple(map(scaled, y))
    return None if y is None else 1.001 * y


def broken(module, method):
    right = getattr(module, method)
    setattr(module, method, lambda *inputs: scaled(right(*inputs)))


EVERYWHERE = {"CLIP", "Embedding", "LayerNorm", "Linear", "MultiheadAttention", "Sequential"}
EVERYWHERE |= {"ResidualAttentionBlock", "TextTransformer", "Transformer"}
CLASSES = {
    "vit": EVERYWHERE | {"PatchEmbedding", "QuickGELU", "VisionTransformer"},
    "resnet": {"AttentionPool2d", "AvgPool2d", "BatchNorm2d", "Bottleneck", "Conv2d", "ReLU"}
    | {"ModifiedResNet", "Identity", "Sequential"},
    "mean": {"GlobalAveragePool2d", "Linear"},
    "gelu": {"GELU", "GELUTanh"},
}


def one_of_each(kind, known):
    """Names of modules: of each class one in each tower, the last but one or the only one."""
    found = {}
    for name, module in named_for_trace(ours(kind)):
        if name in known or f"{name}[0]" in known:  # the attention pool calls no projection
            key = type(module).__name__, name.startswith("visual")
            found.setdefault(key, []).append(name)
    assert {name for name, _ in found} >= CLASSES[kind]
    return [
        names[max(0, len(names) - 2)] for key, names in found.items() if key[0] in CLASSES[kind]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_is_named_when_it_is_broken(kind):
    """Forward; backward; and a backward that is wrong in its parameters' gradients only."""
    good = traced(ours(kind))
    for name in one_of_each(kind, good):
        for way in (broken_forward, broken_backward, wrong_shares):
            model = ours(kind)
            if way(dict(named_for_trace(model))[name]):
                direction = "forward" if way is broken_forward else "backward"
                assert culprit_of(model, good) == f"{direction} of {name}"


def broken_forward(module):
    broken(module, "forward")
    return True


def broken_backward(module):
    broken(module, "backward")
    return not isinstance(module, Embedding)  # which gives nothing back


def wrong_shares(module):
    """Wrong in the gradients of its own parameters; the towers have theirs from their ways."""
    right = module.backward

    def backward(*gradients):
        dx = right(*gradients)
        for parameter in module.parameters_.values():
            parameter.grad = 1.001 * parameter.grad
        return dx

    module.backward = backward
    return bool(module.parameters_) and not hasattr(module, "pool")


# What PyTorch cannot show (it has no `visual.pool`) is laid to the module around it.
AGAINST_PYTORCH = {
    "visual.ln_post": "visual.ln_post",
    "visual.transformer.resblocks.1.ln_2": "visual.transformer.resblocks.1.ln_2",
    "visual.transformer.resblocks.1.mlp": "visual.transformer.resblocks.1.mlp",
    "visual.transformer.resblocks.1": "visual.transformer.resblocks.1",
    "visual.conv1": "visual.conv1",
    "visual": "visual",
    "ln_final": "ln_final",
    "transformer.resblocks.0.attn": "transformer.resblocks.0.attn",
}


@pytest.mark.parametrize("name", AGAINST_PYTORCH)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_against_pytorch(name, direction):
    activations = watched("vit")
    assert traced(ours("vit")).compare(activations).culprit is None
    model = ours("vit")
    broken(dict(named_for_trace(model))[name], direction)
    assert culprit_of(model, activations) == f"{direction} of {AGAINST_PYTORCH[name]}"


@pytest.mark.parametrize("name", ["visual.layer2.0.relu2", "visual.layer2.0", "visual.attnpool"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_resnet_against_pytorch(name, direction):
    """Whose ReLUs work in place."""
    activations = watched("resnet")
    model = ours("resnet")
    broken(dict(named_for_trace(model))[name], direction)
    assert culprit_of(model, activations) == f"{direction} of {name}"


def test_what_was_handed_in_is_nobodys_fault():
    good = traced(ours("vit"))
    pictures, ids, dlogits = inputs_for(VIT)
    for change in ("pictures", "ids", "gradient"):
        model = ours("vit")
        other_ids = ids.copy()
        other_ids[0, 0] += 1 if change == "ids" else 0
        with trace(model) as t, model.record():
            model(pictures * (2 if change == "pictures" else 1), other_ids)
            model.backward(dlogits * (2 if change == "gradient" else 1))
        result = t.compare(good)
        assert not result.equal
        assert result.culprit is None
        assert "it arose" not in result.summary()
        assert result.first.name.startswith("model.")


def test_another_word_is_a_difference():
    """However small beside the largest id."""
    here, there = {"ids": np.array([49406, 1])}, {"ids": np.array([49407, 1])}
    assert not compare.compare(here, there, None).equal
    assert compare.compare(here, here, None).equal


def test_outputs_alone_name_no_culprit_forward():
    """Of a dictionary without what went in: the first difference, and no more than that."""
    good = {name: x for name, x in traced(ours("vit")).items() if not name.endswith(".grad")}
    model = ours("vit")
    broken(model.visual.ln_pre, "forward")
    result = traced(model, backward=False).compare(good)
    assert result.first.name == "visual.ln_pre"
    assert result.culprit is None


def test_gradients_are_kept_beside_what_was_there_before():
    """A trace leaves the parameters' gradients as a pass without it does, to the last bit."""
    pictures, ids, dlogits = inputs_for(VIT)
    gradients = []
    for watch in (False, True):
        model = ours("vit")
        for _ in range(2):
            with model.record():
                if watch:
                    with trace(model) as t:
                        model(pictures, ids)
                        model.backward(dlogits)
                else:
                    model(pictures, ids)
                    model.backward(dlogits)
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    without, with_trace = gradients
    assert all(np.array_equal(without[name], with_trace[name]) for name in without)
    # the trace has the second pass's own share: both passes are the same
    assert set(without) == {n.removesuffix(".grad") for n in t.everything} & set(without)
    for name, grad in without.items():
        assert np.allclose(t.everything[f"{name}.grad"] * 2, grad, rtol=1e-12, atol=0)


def test_an_error_inside_a_backward_leaves_the_gradients_of_before():
    model = CLIP(VIT, seed=0)
    pictures, ids, _ = inputs_for(VIT)
    for parameter in model.visual.parameters_.values():
        parameter.grad = np.ones_like(parameter.data)
    with trace(model) as t, model.record():
        model(pictures.astype("float32"), ids)
        with pytest.raises(TypeError, match="dy: got float64"):
            model.visual.backward(np.zeros((3, 24)))
        assert t.calls == []
    assert all((p.grad == 1).all() for p in model.visual.parameters_.values())
