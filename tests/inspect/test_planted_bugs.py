"""Planted bugs: in a network, where a trace names the place; in traces, where their checks fail."""

import numpy as np
import pytest
import torch
from model_checks import CONFIGS, inputs_for
from original import living_state, load_into_original, original_clip
from planting import is_caught, planted_in_place
from trace_checks import (
    check_comparison,
    check_hooks,
    check_left_as_it_was,
    check_own_methods,
    check_passes,
    check_statistics,
    check_threads,
    ours,
    traced,
)

import miniclip
from miniclip import inspect
from miniclip.check import Bug, unchanged
from miniclip.inspect import trace, watch
from miniclip.models import CLIP

TRACE, WATCH, COMPARE, STATISTICS = (
    "inspect.trace",
    "inspect.watch",
    "inspect.compare",
    "inspect.statistics",
)

BUGS = [
    Bug("all threads watched", "threads", TRACE, "            if threading.get_ident() == self.thread:\n                this_pass", "            if True:\n                this_pass"),
    Bug("a second pass over the first", "passes", TRACE, "        while this_pass + suffix in self.arrays:", "        while False:"),
    Bug("gradients to the first pass first", "passes", TRACE, "passes.pop() if passes", "passes.pop(0) if passes"),
    Bug("gradients without a name of their own", "hooks", TRACE, 'GRADIENT = ".grad"', 'GRADIENT = ""'),
    Bug("methods stay after the block", "left", TRACE, "                module.__dict__.pop(method, None)\n", "                pass\n"),
    Bug("a module's own methods lost", "own", TRACE, "                    module.__dict__[method] = before\n", "                    pass\n"),
    Bug("backward not watched", "hooks", TRACE, "                watched[backward] = self._watched_backward(shown, getattr(module, backward))\n", ""),
    Bug("nameless modules without a name", "hooks", TRACE, 'yield name or ("model" if module is model else "text"), module', "yield name, module"),
    Bug("activations not copied", "resnet hooks", WATCH, ".cpu().numpy().copy()", ".cpu().numpy()"),
    Bug("gradients not collected", "hooks", WATCH, "            if first.requires_grad:", "            if False:"),
    Bug("NaN does not differ", "comparison", COMPARE, "return not self.error <= self.tolerance", "return self.error > self.tolerance"),
    Bug("the last difference named", "comparison", COMPARE, "next((d for d in self.differences if d.differs)", "next((d for d in self.differences[::-1] if d.differs)"),
    Bug("nothing compared is equal", "comparison", COMPARE, "return bool(self.differences) and self.first is None", "return self.first is None"),
    Bug("equal infinities differ", "comparison", COMPARE, "    gap = np.where(got == expected, 0.0, gap)  # two equal infinities do not differ\n", ""),
    Bug("tokens in one layout", "comparison", COMPARE, "return [x, x.transpose(1, 0, 2)]", "return [x]"),
    Bug("maps in one layout", "comparison", COMPARE, "return [x, x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)]", "return [x]"),
    Bug("the smallest difference shown", "comparison", COMPARE, "np.argmax(np.where(np.isnan(gap), np.inf, gap))", "np.argmin(np.where(np.isnan(gap), np.inf, gap))"),
    Bug("the sharper tolerance of two", "comparison", COMPARE, "tolerance = max(TOLERANCE", "tolerance = min(TOLERANCE"),
    Bug("names of one side compared", "comparison", COMPARE, "[name for name in there if name not in here]", "[name for name in there if name in here]"),
    Bug("infinities in the mean", "statistics", STATISTICS, "values = x[finite].astype(np.float64)", "values = x[~np.isnan(x)].astype(np.float64)"),
    Bug("zeros among the finite only", "statistics", STATISTICS, "/ max(x.size, 1)", "/ max(values.size, 1)"),
    Bug("finite numbers counted", "statistics", STATISTICS, "int(x.size - finite.sum())", "int(finite.sum())"),
]  # fmt: skip

CHECKS = {
    "hooks": check_hooks,
    "resnet hooks": lambda: check_hooks("resnet"),
    "passes": check_passes,
    "left": check_left_as_it_was,
    "own": check_own_methods,
    "threads": check_threads,
    "comparison": check_comparison,
    "statistics": check_statistics,
}


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_it_is_found(bug):
    with planted_in_place(bug, "inspect"):
        assert is_caught(CHECKS[bug.where]), f"not found: {bug.name}"


@pytest.mark.parametrize(("module", "where"), sorted({(bug.module, bug.where) for bug in BUGS}))
def test_without_a_bug_nothing_is_found(module, where):
    """The control: the same functions in the same places, nothing planted."""
    with planted_in_place(unchanged(module), "inspect") as again:
        assert module != TRACE or inspect.trace is again.trace
        CHECKS[where]()


def test_there_are_enough():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20


@pytest.mark.planted
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


@pytest.mark.planted
def test_a_planted_error_in_a_backward_is_found():
    """Gradients come in the order of the backward pass: the first wrong one is named."""
    model = ours("vit")
    good = traced(model)
    block = model.visual.transformer.resblocks.children_["1"]
    right = block.ln_2.backward
    block.ln_2.backward = lambda dy: 1.001 * right(dy)
    result = traced(model).compare(good)
    assert result.first.name == "visual.transformer.resblocks.1.attn.grad"
