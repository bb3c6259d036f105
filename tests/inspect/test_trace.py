"""Traces: every module by its PyTorch name, compared with hooks, and a planted error found."""

import numpy as np
import pytest
from model_checks import CONFIGS, VIT, inputs_for
from trace_checks import (
    check_comparison,
    check_hooks,
    check_left_as_it_was,
    check_own_methods,
    check_passes,
    check_threads,
    ours,
    traced,
)

from miniclip.inspect import trace
from miniclip.inspect.compare import measure


@pytest.mark.parametrize("kind", CONFIGS)
def test_whole_towers_agree_with_hooks(kind):
    """Forward and backward, every module that PyTorch's hooks see, to 1e-9."""
    check_hooks(kind)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_compared(tmp_path, dtype):
    t = traced(ours("vit", dtype))
    path = tmp_path / "monday.npz"
    t.save(path)
    result = t.compare(path)
    assert result.equal
    assert len(result.differences) == len(t.everything) > 2 * len(t)
    assert result.only_here == result.only_there == []
    with pytest.raises(ValueError, match=r"path: got .*monday', expected a name that ends in .npz"):
        t.save(tmp_path / "monday")


def test_precision_shows_as_precision():
    """float32 against float64: equal at the tolerance of float32, different at 1e-9."""
    single, double = traced(ours("vit", "float32")), traced(ours("vit"))
    assert single.compare(double).equal
    assert not single.compare(double, tolerance=1e-9).equal


def test_the_model_is_left_as_it_was():
    check_left_as_it_was()


def test_another_threads_passes_are_not_recorded():
    check_threads()


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
    check_passes()


def test_traces_nest_and_leave_own_methods_alone():
    check_own_methods()


def test_an_infinity_hides_nothing():
    check_comparison()


def test_nothing_in_common_is_not_equal():
    result = traced(ours("vit")).compare({"something": np.zeros(3)})
    assert not result.equal
    assert result.summary() == "no tensor has the same name on both sides"


def test_other_shapes_differ():
    t = traced(ours("vit"))
    result = t.compare({"visual.conv1": np.zeros((2, 2))})
    assert result.first.name == "visual.conv1"
    assert result.first.error == float("inf")


def test_arrays_without_an_entry_do_not_differ():
    empty = np.zeros((0, 3), np.float32)
    found = measure("x", empty, empty, 1e-5, 0.0)
    assert (found.error, found.got, found.expected) == (0.0, 0.0, 0.0)
