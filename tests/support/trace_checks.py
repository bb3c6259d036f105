"""What must hold of traces and their comparison; planted bugs go through the very same checks."""

import threading

import numpy as np
import pytest
import torch
from model_checks import CONFIGS, VIT, inputs_for
from original import living_state, load_into_original, original_clip

from miniclip import inspect
from miniclip.models import CLIP


def ours(kind, dtype="float64"):
    model = CLIP(CONFIGS[kind], seed=None).to(dtype=dtype)
    model.load_state_dict(living_state(CONFIGS[kind], 1))
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


def check_hooks(kind="vit"):
    """Forward and backward of every module that PyTorch's hooks see, to 1e-9."""
    activations = watched(kind)
    t = traced(ours(kind))
    assert {"model[0]", "text"} <= set(t)  # which have no name in the original
    result = t.compare(activations)
    assert result.equal, result
    names = {d.name for d in result.differences}
    never_called = ("attn.out_proj", "attnpool.", "visual.transformer.resblocks.0.attn.out_proj")
    missing = {n for n in activations if n not in names and not any(x in n for x in never_called)}
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
        other = threading.Thread(target=model.visual, args=(pictures,))
        other.start()
        other.join()
        assert len(t) == 0
        model.text(ids)
    assert "token_embedding" in t
    assert "visual.conv1" not in t


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
