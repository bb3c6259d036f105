"""Planted bugs: in a network, where a trace names the place; in traces, where their checks fail."""

import numpy as np
import pytest
import torch
from model_checks import CONFIGS, inputs_for
from original import living_state, load_into_original, original_clip
from planting import is_caught, planted_in_place
from trace_checks import (
    check_comparison,
    check_culprits,
    check_culprits_by_hooks,
    check_hooks,
    check_left_as_it_was,
    check_own_methods,
    check_passes,
    check_shares,
    check_statistics,
    check_threads,
    check_unknown,
    culprit_of,
    ours,
    traced,
)

import miniclip
from miniclip import inspect
from miniclip.check import Bug, unchanged
from miniclip.inspect import trace, watch
from miniclip.models import CLIP

TRACE, WATCH, COMPARE, CULPRIT, STATISTICS = (
    "inspect.trace",
    "inspect.watch",
    "inspect.compare",
    "inspect.culprit",
    "inspect.statistics",
)

BUGS = [
    Bug("all threads watched", "threads", TRACE, "            if threading.get_ident() != self.thread:\n                return forward", "            if False:\n                return forward"),
    Bug("all threads' gradients watched", "threads", TRACE, "            if threading.get_ident() != self.thread:\n                return backward", "            if False:\n                return backward"),
    Bug("a second pass over the first", "passes", TRACE, "                self.counts[name] = self.counts.get(name, 0) + 1\n", ""),
    Bug("what was there before is lost", "shares", TRACE, "                    parameter.grad = grad + parameter.grad\n", "                    pass\n"),
    Bug("gradients of before in the share", "shares", TRACE, "            parameter.grad = None\n", "            pass\n"),
    Bug("the module before the culprit", "culprit", CULPRIT, "    suspect = origin.call.parent if origin.went_in else origin.call\n", "    suspect = origin.call\n"),
    Bug("the module around the culprit", "culprit", CULPRIT, "    suspect = origin.call.parent if origin.went_in else origin.call\n", "    suspect = origin.call.parent\n"),
    Bug("a neighbour of the unknown", "unknown", CULPRIT, "    while suspect is not None and id(suspect) not in known:\n", "    while False:\n"),
    Bug("what goes in not collected", "culprit hooks", WATCH, "                self.keep(label, tensor)\n", "                pass\n"),
    Bug("the sum of all uses' gradients", "hooks", WATCH, "copies[key] = tensor.clone()", "copies[key] = tensor"),
    Bug("parameters' gradients not collected", "culprit hooks", WATCH, "        if parameter.requires_grad:\n", "        if False:\n"),
    Bug("gradients to the first pass first", "passes", TRACE, "passes.pop() if passes", "passes.pop(0) if passes"),
    Bug("gradients without a name of their own", "hooks", TRACE, 'GRADIENT = ".grad"', 'GRADIENT = ""'),
    Bug("methods stay after the block", "left", TRACE, "                module.__dict__.pop(method, None)\n", "                pass\n"),
    Bug("a module's own methods lost", "own", TRACE, "                    module.__dict__[method] = before\n", "                    pass\n"),
    Bug("backward not watched", "hooks", TRACE, "                watched[backward] = self._watched_backward(shown, getattr(module, backward), module)\n", ""),
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
    "shares": check_shares,
    "culprit": check_culprits,
    "culprit hooks": check_culprits_by_hooks,
    "unknown": check_unknown,
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
    assert "it arose in the forward of visual.transformer.resblocks.3.mlp.c_fc" in result.summary()
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
    assert str(result.culprit) == "backward of visual.transformer.resblocks.1.ln_2"
    assert result.first.name == "visual.transformer.resblocks.1.ln_2.input.grad"


BLOCKS, ATTENTION, VISION, TEXT, RESNETS, WHOLE = (
    "nn.blocks", "nn.attention", "models.vit", "models.text", "models.resnet", "models.clip",
)  # fmt: skip
BLOCK, BOTTLENECK = "visual.transformer.resblocks.0", "visual.layer1.0"

# What a module does between and around its parts. `where`: the kind of model, and the culprit.
INSIDE = [
    Bug("shortcut doubled", f"vit forward of {BLOCK}", BLOCKS, "        x = x + self.attn(self.ln_1(x))\n", "        x = x + x + self.attn(self.ln_1(x))\n"),
    Bug("the other shortcut doubled", f"vit forward of {BLOCK}", BLOCKS, "        return x + self.mlp(self.ln_2(x))", "        return x + x + self.mlp(self.ln_2(x))"),
    Bug("past the MLP only", "vit backward of transformer.resblocks.1", BLOCKS, "        # y = x + mlp(ln_2(x)): the gradient goes along the branch and past it\n        dy = dy + ", "        dy = 0 * dy + "),
    Bug("not past the attention", "vit backward of transformer.resblocks.1", BLOCKS, "        return dy + self.ln_1.backward(self.attn.backward(dy))", "        return self.ln_1.backward(self.attn.backward(dy))"),
    Bug("the stack from its end", "vit forward of visual.transformer", BLOCKS, "        y: Array = self.resblocks(x)", "        y: Array = self.resblocks(x[::-1])"),
    Bug("queries for keys", f"vit forward of {BLOCK}.attn", ATTENTION, "scaled_dot_product_attention(q, k, v, mask)", "scaled_dot_product_attention(k, q, v, mask)"),
    Bug("gradients swapped", "vit backward of transformer.resblocks.1.attn", ATTENTION, "ops.join_qkv(dq, dk, dv)", "ops.join_qkv(dk, dq, dv)"),
    Bug("no mask", "vit forward of transformer.resblocks.0.attn", ATTENTION, "if self.causal else None", "if False else None"),
    Bug("no shortcut", f"resnet forward of {BOTTLENECK}", BLOCKS, "self.relu3(y + shortcut)", "self.relu3(y)"),
    Bug("no gradient of the shortcut", "resnet backward of visual.layer4.0", BLOCKS, "        return dx + dshortcut", "        return dx"),
    Bug("positions not added", "resnet forward of visual.attnpool", ATTENTION, "        tokens, positions_cache = ops.add_positions(tokens, positions)", "        _, positions_cache = ops.add_positions(tokens, positions)"),
    Bug("the mean is no query", "resnet backward of visual.attnpool", ATTENTION, "        dtokens[:, :1] += dquery", "        dtokens[:, :1] += 0"),
    Bug("no gradient of the positions", "resnet backward of visual.attnpool", ATTENTION, "        self.positional_embedding.add_grad(dpositions)\n        return tokens_to_map(ops", "        self.positional_embedding.add_grad(2 * dpositions)\n        return tokens_to_map(ops"),
    Bug("a stage left out", "resnet forward of visual.tokens", RESNETS, "            x = module(x)\n", "            x = module(x * 1.01)\n"),
    Bug("stages in the wrong order", "resnet backward of visual.tokens", RESNETS, "            dx = module.backward(dx)\n", "            dx = module.backward(dx * 1.01)\n"),
    Bug("pooled transposed", "resnet forward of visual.pool", RESNETS, "self.attnpool(tokens_to_map(tokens, (len", "self.attnpool(tokens_to_map(tokens[:, ::-1], (len"),
    Bug("class token in the middle", "vit forward of visual.tokens", VISION, "        tokens, positions_cache = ops.add_positions(tokens, positions)", "        tokens, positions_cache = ops.add_positions(tokens, positions[::-1])"),
    Bug("class token's gradient", "vit backward of visual.tokens", VISION, "self.class_embedding.add_grad(dclass)", "self.class_embedding.add_grad(dclass * 2)"),
    Bug("the patches' gradient", "vit backward of visual.tokens", VISION, "self.conv1.backward(dpatches)", "self.conv1.backward(dpatches * 2)"),
    Bug("not projected right", "vit forward of visual.pool", VISION, "ops.linear(x, self.proj.data.T)", "ops.linear(x[::-1], self.proj.data.T)"),
    Bug("the projection's gradient", "vit backward of visual.pool", VISION, "self.proj.add_grad(dproj.T)", "self.proj.add_grad(-dproj.T)"),
    Bug("pool to tokens", "vit backward of visual", VISION, "self.tokens_backward(self.pool_backward(dy))", "self.tokens_backward(2 * self.pool_backward(dy))"),
    Bug("text positions", "vit forward of text.tokens", TEXT, "self.ops.add_positions(tokens, self.pos", "self.ops.add_positions(tokens * 2, self.pos"),
    Bug("text positions' gradient", "vit backward of text.tokens", TEXT, "self.positional_embedding.add_grad(dpositions)", "self.positional_embedding.add_grad(2 * dpositions)"),
    Bug("words' gradient", "vit backward of text.tokens", TEXT, "self.token_embedding.backward(dtokens)", "self.token_embedding.backward(2 * dtokens)"),
    Bug("text projected", "vit forward of text.pool", TEXT, "self.ops.linear(y, self.text_projection.data.T)", "self.ops.linear(2 * y, self.text_projection.data.T)"),
    Bug("text's gradient", "vit backward of text.pool", TEXT, "gather_end_of_text_backward(dy, end", "gather_end_of_text_backward(2 * dy, end"),
    Bug("not normalised", "vit forward of model", WHOLE, "ops.cosine_logits(\n            image_features,", "ops.cosine_logits(\n            2 * image_features,"),
    Bug("the other tower's gradient", "vit backward of model", WHOLE, "l2_normalize_backward(dtext, text_cache)", "l2_normalize_backward(2 * dtext, text_cache)"),
    Bug("the scale's gradient", "vit backward of model", WHOLE, "self.logit_scale.add_grad(dscale)", "self.logit_scale.add_grad(2 * dscale)"),
]  # fmt: skip


@pytest.mark.planted
@pytest.mark.parametrize("bug", INSIDE, ids=lambda bug: bug.name)
def test_a_module_is_named_for_what_it_does_between_its_parts(bug):
    kind, expected = bug.where.split(" ", 1)
    good = traced(ours(kind))
    with planted_in_place(bug, "models"), planted_in_place(bug, "nn"):
        model = ours(kind)
    assert culprit_of(model, good) == expected
