"""What must hold of traces and their comparison; planted bugs go through the very same checks."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from model_checks import CONFIGS, RESNET, VIT, inputs_for, with_vision
from original import living_state, load_into_original, original_clip

from miniclip import inspect, models
from miniclip.inspect.trace import as_host, named_for_trace

KINDS = {
    **CONFIGS,
    "mean": with_vision(RESNET, pool="average"),
    "gelu": dataclasses.replace(
        with_vision(VIT, activation="gelu"),
        text=dataclasses.replace(VIT.text, activation="gelu_tanh"),
    ),
}


def ours(kind, dtype="float64"):
    """By the class as `models` has it now, so that a planted one is taken."""
    model = models.clip.CLIP(KINDS[kind], seed=None).to(dtype=dtype)
    model.load_state_dict(living_state(KINDS[kind], 1))
    return model


def traced(model, backward=True):
    pictures, ids, dlogits = inputs_for(model.config)
    with inspect.trace(model) as t, model.record():
        model(pictures.astype(model.dtype), ids)
        if backward:
            model.backward(dlogits.astype(model.dtype))
    return t


def watched(kind, change=lambda model: None):
    """Activations and gradients of the original, by its hooks."""
    original = original_clip(CONFIGS[kind], torch.float64)
    load_into_original(original, living_state(CONFIGS[kind], 1))
    change(original)
    pictures, ids, dlogits = inputs_for(CONFIGS[kind])
    pixels = torch.tensor(pictures, requires_grad=True)
    with inspect.watch(original) as activations:
        per_image, _ = original(pixels, torch.tensor(ids))
        (per_image * torch.tensor(dlogits)).sum().backward()
    return activations


def culprit_of(model, good):
    result = traced(model).compare(good)
    assert not result.equal
    assert result.culprit is not None, result.summary()
    assert f"; it arose in the {result.culprit}" in result.summary()
    return str(result.culprit)


def check_hooks(kind="vit"):
    """Forward and backward of every module that PyTorch's hooks see, to 1e-9."""
    activations = watched(kind)
    t = traced(ours(kind))
    assert {"model[0]", "text"} <= set(t)  # which have no name in the original
    result = t.compare(activations)
    assert result.equal, result
    assert repr(result).split()[:3] == ["name", "shape", "error"]
    assert not any(n.startswith("model.input") and n.endswith(".grad") for n in activations)
    names = {d.name for d in result.differences}
    parameters = {f"{name}.grad" for name, _ in ours(kind).named_parameters()}
    assert parameters <= names
    went_in = {n for n in names if ".input" in n}
    assert len(went_in) > 60
    names -= parameters | went_in
    never_called = ("attn.out_proj", "attnpool.", "visual.transformer.resblocks.0.attn.out_proj")
    missing = set(activations) - names - parameters - went_in
    missing = {n for n in missing if not any(x in n for x in never_called)}
    assert missing == set()
    outputs = {n for n in names if not n.endswith(".grad")}
    gradients = {n.removesuffix(".grad") for n in names - outputs}
    assert outputs == gradients
    assert len(outputs) > 30


def check_passes():
    """Two passes, unwound in reverse: each gradient has the name of its own output."""
    model = ours("vit")
    pictures, _, _ = inputs_for(VIT)
    with inspect.trace(model) as t, model.record():
        model.visual(pictures[:1])
        model.visual(pictures[1:3])
        model.visual.backward(np.full((2, 24), 5.0))
        model.visual.backward(np.full((1, 24), 7.0))
    assert t["visual#2.grad"].shape == (2, 24)
    assert t["visual.grad"][0, 0] == 7
    assert all(t[n].shape == t[n.removesuffix(".grad")].shape for n in t if n.endswith(".grad"))


def check_left_as_it_was():
    """An error inside the block leaves no method behind."""
    model = ours("vit")
    before = {id(m): dict(m.__dict__) for m in model.modules()}
    with pytest.raises(ValueError, match="images"), inspect.trace(model):
        model.visual(np.zeros((1, 3, 5, 5)))
    assert {id(m): dict(m.__dict__) for m in model.modules()} == before


def check_own_methods():
    """A module's own forward is called, and is there afterwards; traces may nest."""
    model = ours("vit")
    _, ids, _ = inputs_for(VIT)

    def own(x, forward=model.text.ln_final.forward):
        return forward(x)

    model.text.ln_final.forward = own
    with inspect.trace(model) as outer:
        with inspect.trace(model.text.transformer):
            pass
        model.text(ids)
    assert model.text.ln_final.forward is own
    assert "transformer.resblocks.1" in outer
    assert "ln_final" in outer


def check_threads():
    """Only the thread that opened the trace is watched."""
    model = ours("vit")
    pictures, ids, _ = inputs_for(VIT)
    with inspect.trace(model) as t:
        in_another_thread(lambda: model.visual(pictures))
        assert len(t) == 0
        with model.record():
            y = model.text(ids)
            in_another_thread(lambda: forward_and_back(model.visual, pictures))
            model.text.backward(np.ones_like(y))
    assert "token_embedding" in t
    assert "token_embedding.grad" in t
    assert [name for name in t.everything if name.startswith("visual")] == []


def in_another_thread(do):
    failed = []

    def run():
        try:
            do()
        except Exception as error:  # raised again where the test sees it
            failed.append(error)

    other = threading.Thread(target=run)
    other.start()
    other.join()
    assert failed == []


def forward_and_back(tower, x):
    with tower.record():
        tower.backward(np.ones_like(tower(x)))


def check_shares():
    """What a pass adds to the gradients is kept by itself, and they become what they would be."""
    model = ours("vit")
    pictures, _, _ = inputs_for(VIT)
    forward_and_back(model.visual, pictures)
    once = {n: p.grad for n, p in model.visual.named_parameters()}
    with inspect.trace(model) as t:
        forward_and_back(model.visual, pictures)
    for name, parameter in model.visual.named_parameters():
        assert np.array_equal(t.everything[f"visual.{name}.grad"], once[name])
        assert np.array_equal(parameter.grad, 2 * once[name])


def with_broken(name, method, kind="vit"):
    """A model of which one module gives a thousandth too much."""
    model = ours(kind)
    module = dict(named_for_trace(model))[name]
    right = getattr(module, method)
    setattr(module, method, lambda x: 1.001 * right(x))
    return model


def check_culprits():
    """A module that makes wrong of right, forward and backward; one around that mixes its parts."""
    good = traced(ours("vit"))
    assert traced(ours("vit")).compare(good).culprit is None
    for name in ("visual.ln_post", "visual.transformer.resblocks.1"):
        for method in ("forward", "backward"):
            culprit = traced(with_broken(name, method)).compare(good).culprit
            assert str(culprit) == f"{method} of {name}"
    spoilt = {
        name: x * 2 if name == "visual.ln_post.grad" else x for name, x in as_host(good).items()
    }
    assert str(traced(ours("vit")).compare(spoilt).culprit) == "backward of visual.pool"


def check_culprits_by_hooks():
    """Against PyTorch, whose modules have inputs as well, and parameters with gradients."""
    activations = watched("vit")
    parameters = {name for name, _ in ours("vit").named_parameters()}
    assert {f"{name}.grad" for name in parameters} <= set(activations)
    for name in ("visual.ln_post", "visual.transformer.resblocks.1"):
        for method in ("forward", "backward"):
            culprit = traced(with_broken(name, method)).compare(activations).culprit
            assert str(culprit) == f"{method} of {name}"


def check_unknown():
    """Where the other side knows nothing of a module's input, the module around is named."""
    good = as_host(traced(ours("vit")))
    ours_alone = (".input", "visual.tokens", "visual.pool")
    outputs = {n: x for n, x in good.items() if not any(part in n for part in ours_alone)}
    result = traced(with_broken("visual.ln_post", "backward")).compare(outputs)
    assert result.first.name == "visual.transformer.grad"
    assert str(result.culprit) == "backward of visual"


def check_comparison():
    """Infinities, NaN, other layouts and shapes; the first difference and where it is."""
    compare = inspect.compare.compare
    here = {"x": np.array([np.inf, 1.0, 5.0]), "y": np.ones(3)}
    assert not compare(here, {}, None).equal
    assert compare(here, {"x": np.array([np.inf, 1.0, 5.0])}, None).equal
    first = compare(here, {"x": np.array([np.inf, 100.0, 7.0])}, None).first
    assert first is not None
    assert first.where == (1,)
    assert not compare(here, {"x": np.array([1.0, 1.0, 5.0])}, None).equal
    assert not compare(here, {"y": np.array([1, np.nan, 1])}, None).equal
    both = compare(here, {"x": np.zeros(3), "y": np.zeros(3), "z": np.zeros(3)}, None)
    assert both.first.name == "x"
    assert both.only_there == ["z"]
    tokens, maps = np.arange(24.0).reshape(2, 3, 4), np.arange(48.0).reshape(2, 4, 2, 3)
    here = {"tokens": tokens, "maps": maps.reshape(2, 4, 6).transpose(0, 2, 1)}
    assert compare(here, {"tokens": tokens.transpose(1, 0, 2), "maps": maps}, None).equal
    assert compare(here, {"tokens": np.zeros((5, 5))}, None).first.error == np.inf
    single = {"x": np.array([1.0], np.float32)}
    assert compare(single, {"x": np.array([1.00001])}, None).equal
    assert not compare({"x": np.array([1.0])}, {"x": np.array([1.00001])}, None).equal


def check_statistics():
    """Of the finite numbers; infinities and NaN are counted."""
    row = inspect.statistics.statistics("x", np.array([0.0, -3.0, np.nan, 1.0, np.inf, 0.0]))
    assert (row.mean, row.largest, row.zeros, row.nonfinite) == (-0.5, 3.0, 1 / 3, 2)
    assert row.deviation == pytest.approx(1.5)
