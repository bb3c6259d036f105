"""Traces: every module by its PyTorch name, compared with hooks, and a planted error found."""

import threading

import numpy as np
import pytest
import torch
from model_checks import CONFIGS, VIT, inputs_for
from original import living_state, load_into_original, original_clip

import miniclip
from miniclip.inspect import trace, watch
from miniclip.models import CLIP


def ours(kind, dtype="float64"):
    model = CLIP(CONFIGS[kind], seed=None).to(dtype=dtype)
    model.load_state_dict(living_state(CONFIGS[kind], 1))
    return model


def traced(model, backward=True):
    pictures, ids, dlogits = inputs_for(model.config)
    with trace(model) as t, model.record():
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
    with watch(original) as activations:
        per_image, _ = original(pixels, torch.tensor(ids))
        (per_image * torch.tensor(dlogits)).sum().backward()
    return activations


@pytest.mark.parametrize("kind", CONFIGS)
def test_whole_towers_agree_with_hooks(kind):
    """Forward and backward, every module that PyTorch's hooks see, to 1e-9."""
    activations = watched(kind)
    result = traced(ours(kind)).compare(activations)
    assert result.equal, result
    names = {d.name for d in result.differences}
    never_called = ("attn.out_proj", "attnpool.", "visual.transformer.resblocks.0.attn.out_proj")
    missing = {n for n in activations if n not in names and not any(x in n for x in never_called)}
    assert missing == set()
    outputs = {n for n in names if not n.endswith(".grad")}
    gradients = {n.removesuffix(".grad") for n in names - outputs}
    assert outputs == gradients
    assert len(outputs) > 30


def test_a_planted_error_in_block_3_is_found_as_block_3():
    """One bias of block 3 changed by 1e-3 there: the comparison names it, not what follows."""
    config = CONFIGS["vit"]
    deep = miniclip.CLIPConfig(
        24, miniclip.VisionConfig(**{**vars(config.vision), "layers": 6}), config.text
    )
    model = CLIP(deep, seed=0).to(dtype="float64")
    state = living_state(deep, 1)
    model.load_state_dict(state)
    original = original_clip(deep, torch.float64)
    load_into_original(original, state)
    pictures, _, _ = inputs_for(deep)
    with torch.no_grad():
        original.visual.transformer.resblocks[3].mlp.c_fc.bias[5] += 1e-3
    with watch(original) as activations:
        original.visual(torch.tensor(pictures)).sum().backward()
    with trace(model) as t, model.record():
        y = model.visual(pictures)
        model.visual.backward(np.ones_like(y))
    result = t.compare(activations)
    assert result.first.name == "visual.transformer.resblocks.3.mlp.c_fc"
    assert result.first.where[-1] == 5
    assert "first difference: visual.transformer.resblocks.3.mlp.c_fc" in result.summary()
    assert "<- differs" in repr(result)


def test_a_planted_error_in_a_backward_is_found():
    """Gradients come in the order of the backward pass: the first wrong one is named."""
    model = ours("vit")
    good = traced(model)
    block = model.visual.transformer.resblocks.children_["1"]
    right = block.ln_2.backward
    block.ln_2.backward = lambda dy: 1.001 * right(dy)
    result = traced(model).compare(good)
    assert result.first.name == "visual.transformer.resblocks.1.attn.grad"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_compared(tmp_path, dtype):
    t = traced(ours("vit", dtype))
    path = tmp_path / "monday.npz"
    t.save(path)
    result = t.compare(path)
    assert result.equal
    assert len(result.differences) == len(t)
    assert result.only_here == result.only_there == []
    with pytest.raises(ValueError, match=r"path: got .*monday', expected a name that ends in .npz"):
        t.save(tmp_path / "monday")


def test_precision_shows_as_precision():
    """float32 against float64: equal at the tolerance of float32, different at 1e-9."""
    single, double = traced(ours("vit", "float32")), traced(ours("vit"))
    assert single.compare(double).equal
    assert not single.compare(double, tolerance=1e-9).equal


def test_the_model_is_left_as_it_was():
    model = ours("vit")
    before = {id(m): dict(m.__dict__) for m in model.modules()}
    with pytest.raises(ValueError, match="images"), trace(model):
        model.visual(np.zeros((1, 3, 5, 5)))
    assert {id(m): dict(m.__dict__) for m in model.modules()} == before


def test_another_threads_passes_are_not_recorded():
    model = ours("vit")
    pictures, ids, _ = inputs_for(VIT)
    with trace(model) as t:
        other = threading.Thread(target=model.visual, args=(pictures,))
        other.start()
        other.join()
        assert len(t) == 0
        model.text(ids)
    assert "token_embedding" in t
    assert "visual.conv1" not in t


def test_names_order_and_repeats():
    model = ours("vit")
    t = traced(model, backward=False)
    names = list(t)
    assert names[0] == "visual.conv1"
    assert names.index("visual.ln_pre") < names.index("visual.transformer.resblocks.0")
    assert "model[0]" in names
    assert "text" in names
    pictures, _, _ = inputs_for(VIT)
    with trace(model) as t:
        model.visual(pictures)
        model.visual(pictures)
    assert "visual.conv1#2" in t
    with pytest.raises(
        KeyError, match=r"nothing was recorded under 'conv1'; near it: visual\.conv1"
    ):
        t["conv1"]


def test_the_table():
    model = ours("vit", "float32")
    model.visual.ln_post.weight.data[0] = np.nan
    t = traced(model, backward=False)
    head, *lines = repr(t).splitlines()
    assert head.split() == [
        "name", "shape", "dtype", "mean", "deviation", "largest", "zeros", "nonfinite",
    ]  # fmt: skip
    assert len(lines) == len(t)
    row = next(row for row in t.rows() if row.name == "visual.ln_post")
    assert (row.shape, row.dtype, row.nonfinite) == ((3, 128), "float32", 3)
    relu = next(r for r in traced(ours("resnet")).rows() if r.name == "visual.relu1")
    assert 0.2 < relu.zeros < 0.8
    page = t._repr_html_()
    assert page.count("<tr") == len(t) + 1
    assert "background: #fdd" in page
    comparison = t.compare(traced(ours("vit", "float32"), backward=False))
    assert comparison.first.name == "visual.ln_post"
    assert "<table>" in comparison._repr_html_()


def test_gradients_go_to_their_own_pass():
    """Two passes, unwound in reverse: each gradient stands beside the output it belongs to."""
    model = ours("vit")
    pictures, _, _ = inputs_for(VIT)
    with trace(model) as t, model.record():
        model.visual(pictures[:1])
        model.visual(pictures[1:3])
        model.visual.backward(np.full((2, 24), 5.0))
        model.visual.backward(np.full((1, 24), 7.0))
    assert t["visual#2.grad"].shape == (2, 24)
    assert t["visual.grad"][0, 0] == 7
    assert all(t[n].shape == t[n.removesuffix(".grad")].shape for n in t if n.endswith(".grad"))


def test_traces_nest_and_leave_own_methods_alone():
    model = ours("vit")
    _, ids, _ = inputs_for(VIT)

    def own(x, forward=model.text.ln_final.forward):
        return forward(x)

    model.text.ln_final.forward = own
    with trace(model) as outer:
        with trace(model.text.transformer):
            pass
        model.text(ids)
    assert model.text.ln_final.forward is own
    assert "transformer.resblocks.1" in outer
    assert "ln_final" in outer


def test_an_infinity_hides_nothing():
    result = traced(ours("vit")).compare({})
    assert not result.equal
    from miniclip.inspect.compare import compare

    here = {"x": np.array([np.inf, 1.0, 5.0])}
    assert compare(here, {"x": np.array([np.inf, 1.0, 5.0])}, None).equal
    assert compare(here, {"x": np.array([np.inf, 100.0, 7.0])}, None).first.where == (1,)
    assert not compare(here, {"x": np.array([1.0, 1.0, 5.0])}, None).equal


def test_nothing_in_common_is_not_equal():
    result = traced(ours("vit")).compare({"something": np.zeros(3)})
    assert not result.equal
    assert result.summary() == "no tensor has the same name on both sides"


def test_other_shapes_differ():
    t = traced(ours("vit"))
    result = t.compare({"visual.conv1": np.zeros((2, 2))})
    assert result.first.name == "visual.conv1"
    assert result.first.error == float("inf")
