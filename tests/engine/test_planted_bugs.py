"""Planted bugs in the engine: the checks against the modules and against NumPy find each of them.

Bugs in Python are put in place in the running package. Bugs in kernels are planted in a copy of it
and checked in a process of their own: in one process two kernels of one name could be mixed up.
"""

import engine_checks
import pytest
from planting import planted_in_place, run_with

import miniclip
from miniclip.check import Bug, unchanged
from miniclip.engine import plan

CPU, PACKING, PROGRAM = "engine.plan", "engine.cpu.packing", "engine.cpu.program"
RESNET, TRANSFORMER, VIT = "engine.cpu.resnet", "engine.cpu.transformer", "engine.cpu.vit"
KERNELS, WINOGRAD = "engine.cpu.kernels", "engine.cpu.winograd"
ATTENTION, MAPS = "engine.cpu.attention_kernels", "engine.cpu.map_kernels"
WINOGRAD_KERNELS = "engine.cpu.winograd_kernels"
TILES, TEAM, ROW, TURN = "cpu.simd", "cpu.team", "cpu.rows", "cpu.transpose"

BUGS = [
    Bug("scale of the queries forgotten", "vit", TRANSFORMER, "scales = np.array([d**-0.5, 1, 1], np.float32)", "scales = np.ones(3, np.float32)"),
    Bug("scale forgotten where there is one query", "vit", TRANSFORMER, "scale = np.float32(d**-0.5)", "scale = np.float32(1)"),
    Bug("value bias forgotten", "vit", TRANSFORMER, "pack_groups(wv, bv)", "pack_groups(wv)"),
    Bug("query bias forgotten", "vit", TRANSFORMER, "bq * scale + 0 * bk", "0 * bk"),
    Bug("heads not padded in the projection", "narrow", TRANSFORMER, "out=pack(by_heads(attn.out_proj.weight.data, heads), ", "out=pack(attn.out_proj.weight.data, "),
    Bug("heads not padded behind the attention pool", "resnet for 96 pixels", RESNET, "pack(by_heads(linear.weight.data, heads), linear.bias.data)", "pack(linear.weight.data, linear.bias.data)"),
    Bug("query without LayerNorm", "vit", TRANSFORMER, 'last.pool, "one y", "y"', 'last.pool, "one x", "y"'),
    Bug("one activation for all", "narrow", TRANSFORMER, "activation=ACTIVATIONS[type(gelu)]", "activation=kernels.QUICK_GELU"),
    Bug("texts not causal", "vit", CPU, 'packed["blocks"], width, True, context)', 'packed["blocks"], width, False, context)'),
    Bug("images causal", "vit", VIT, 'packed["blocks"], numbers, False, tokens)', 'packed["blocks"], numbers, True, tokens)'),
    Bug("largest id for the end of the text", "narrow", CPU, "end_of_text(ids, tower.config.end_id)", "end_of_text(ids)"),
    Bug("first token speaks for a text", "vit", CPU, "np.nonzero(real)[1], starts[1:] - 1)", "np.nonzero(real)[1], starts[:-1])"),
    Bug("texts begin one token too late", "vit", CPU, "starts = np.concatenate([[0], np.cumsum(ends + 1)])", "starts = np.concatenate([[0], np.cumsum(ends + 1)])\n        starts[1:-1] += 1"),
    Bug("every word in the first place", "vit", CPU, "np.nonzero(real)[1]", "0 * np.nonzero(real)[1]"),
    Bug("a last, smaller chunk lost", "vit", CPU, "parts = -(-count // most)", "parts = count // most"),
    Bug("class token without positions", "vit", VIT, "float32(tower.class_embedding.data)", "float32(tower.class_embedding.data) - positions.reshape(-1)[:width]"),
    Bug("LayerNorm's eps", "narrow", PROGRAM, "eps = np.float32(norm.eps)", "eps = np.float32(1e-5)"),
    Bug("ln_pre's eps", "narrow", VIT, "eps = np.float32(tower.ln_pre.eps)", "eps = np.float32(1e-5)"),
    Bug("BatchNorm's mean not folded", "resnet", RESNET, "norm.bias.data - mean * scale", "norm.bias.data - 0 * mean"),
    Bug("BatchNorm's eps left out", "small variances", RESNET, "np.sqrt(var + norm.eps)", "np.sqrt(var)"),
    Bug("one scale for all channels", "resnet", RESNET, "conv.weight.data * scale[:, None, None, None]", "conv.weight.data * scale[0]"),
    Bug("shortcut not added", "resnet", RESNET, "y, w, z, relu=True, add=True)", "y, w, z, relu=True)"),
    Bug("ReLU lost behind the shortcut", "resnet", RESNET, "y, w, z, relu=True, add=True)", "y, w, z, add=True)"),
    Bug("ReLU lost behind a 1x1 convolution", "resnet", RESNET, "self.product(text, x, w, y, relu=True)", "self.product(text, x, w, y)"),
    Bug("ReLU in the shortcut", "resnet", RESNET, 'self.product(f"{name}.downsample", pooled, w, y)', 'self.product(f"{name}.downsample", pooled, w, y, relu=True)'),
    Bug("a map given back too early", "resnet", RESNET, "        w = self.weights((id(conv), m),", "        self.maps.give(x.name)\n        w = self.weights((id(conv), m),"),
    Bug("padded inputs not left out", "resnet of width 12", RESNET, "wide[:, : weight.shape[1]] = weight", "wide[:, -weight.shape[1] :] = weight"),
    Bug("kernel flipped", "resnet", WINOGRAD, "weight.reshape(n * c, 9)", "weight[:, :, ::-1, ::-1].reshape(n * c, 9)"),
    Bug("gathered pixels in the wrong order", "resnet with a plain mean", RESNET, "in_rows = weight.transpose(0, 2, 3, 1)", "in_rows = weight.transpose(0, 3, 2, 1)"),
    Bug("positions of the usual size kept", "other sizes", VIT, "tower.positions(height, width)[0]", "tower.positional_embedding.data"),
    Bug("positions resized as before", "antialias", CPU, 'getattr(self.tower, "antialias", True)', "True"),
    Bug("groups share the first bias", "vit", PACKING, "None if bias is None else bias[g], columns", "None if bias is None else bias[0], columns"),
    Bug("last block left out of the tokens", "tokens", VIT, "blocks = [*packed[\"blocks\"][:-1], packed[\"last block\"]]", "blocks = packed[\"blocks\"][:-1]"),
    Bug("one block's queries for the last one's", "tokens", VIT, "with_all_queries(packed[\"blocks\"][-1])", "packed[\"blocks\"][0]"),
    Bug("tokens of a picture in the next one's place", "tokens", CPU, "run, y[part].reshape(-1, program.width)", "run, y[part].swapaxes(0, 1).reshape(-1, program.width)"),
    Bug("steps for embeddings taken for those for tokens", "tokens", CPU, "key = (all_tokens, size,", "key = (False, size,"),
    Bug("tokens of the map before the last", "tokens", RESNET, "program.output, program.columns = x.name, x.channels", "program.output, program.columns = pooled.name, x.channels"),
    Bug("positions of a map turned", "wide maps", RESNET, "pool.positions(x.height, x.width)", "pool.positions(x.width, x.height)"),
    Bug("a new eps not noticed", "new eps", CPU, 'SETTINGS = ("eps", "heads",', 'SETTINGS = ("heads",'),
    Bug("a new number of heads not noticed", "new heads", CPU, 'SETTINGS = ("eps", "heads",', 'SETTINGS = ("eps",'),
    Bug("another kernel not noticed", "new kernel", CPU, '"padding", "kernel", "grid"', '"padding", "grid"'),
    Bug("out-of-date plan used", "new weights", CPU, "all(old() is new for", "any(True or old() is new for"),
    Bug("modules compared, not arrays", "new weights", CPU, "            yield parameter.data\n", "            yield parameter\n"),
    Bug("running statistics not compared", "new statistics", CPU, "        yield from module.buffers_.values()\n", ""),
    Bug("a recorded part not noticed", "recording", CPU, "    if module._recording() is not None:", "    if type(module) in TOWERS and module._recording() is not None:"),
]  # fmt: skip

COMPILED = [
    Bug("hidden scores not zeroed", "attention", ATTENTION, "scratch[begin + own : begin + columns] = 0", "scratch[begin + own : begin] = 0"),
    Bug("all of a block's queries see alike", "attention", ATTENTION, "own = first + q + 1 if causal else tokens", "own = seen if causal else tokens"),
    Bug("only the last token counts", "attend once", ATTENTION, "total[h] += row[h]", "total[h] = row[h]"),
    Bug("only the last pass along the depth counts", "product", KERNELS, "add or k > 0, k + some == depth,", "add, k + some == depth,"),
    Bug("groups share the first one's bias", "product", KERNELS, "bias, group * columns + column, lowest, activation", "bias, column, lowest, activation"),
    Bug("pixels beyond the border not zeroed", "unfold", MAPS, "            to[last:] = 0\n", ""),
    Bug("variance with n - 1", "layer norm", ROW, "np.sqrt(squares / width + eps)", "np.sqrt(squares / (width - real(1)) + eps)"),
    Bug("images begin where the pooled ones end", "average pool", MAPS, "(image * height + line * size + i)", "(image * lines * size + line * size + i)"),
    Bug("missing columns not zeroed", "packing", TURN, "y[at_y + j * padded + rows : at_y + (j + 1) * padded] = 0", "pass"),
    Bug("rows for p and -p alike", "convolution", WINOGRAD, "results[j] = plus(builder, even, odd, -1)", "results[j] = plus(builder, even, odd, 1)"),
    Bug("border of the image before", "convolution", WINOGRAD_KERNELS, "if 0 <= top + i < height and 0 <= left + j < width:", "if 0 <= top + i < height and -image <= left + j < width:"),
    Bug("NaN lost in ReLU", "NaN", TILES, 'builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)', 'builder.select(builder.fcmp_ordered(">", x, lowest), x, lowest)'),
    Bug("what was there forgotten", "product", TILES, "self.values = self.choose(add, with_old, self.values)", "pass"),
    Bug("nobody waits", "meeting", TEAM, "while fetch(sync, here) < members and", "while fetch(sync, here) < 1 and"),
]  # fmt: skip

FOUND = (AssertionError, ValueError, IndexError, RuntimeError, RuntimeWarning, KeyError)


def check(where):
    """The checks that the real engine passes."""
    checks = engine_checks
    if where == "small variances":
        checks.check_towers(miniclip, "resnet", 2, small_variances=True)
    elif where == "tokens":
        for name, size in (("vit", (64, 128)), ("narrow", (33, 60)), ("resnet", (64, 128))):
            checks.check_tokens(miniclip, name, size)
    elif where == "other sizes":
        checks.check_sizes(miniclip, "vit", [(16, 16)])
    elif where == "wide maps":
        checks.check_sizes(miniclip, "resnet", [(64, 128)])
    elif where == "new eps":
        checks.check_new_weights_are_seen(miniclip, checks.change_eps)
    elif where == "new heads":
        checks.check_new_weights_are_seen(miniclip, checks.change_heads)
    elif where == "new kernel":
        checks.check_another_kernel(miniclip)
    elif where == "antialias":
        checks.check_antialias(miniclip)
    elif where == "new weights":
        checks.check_new_weights_are_seen(miniclip, checks.scale_parameters)
    elif where == "new statistics":
        checks.check_new_weights_are_seen(miniclip, checks.new_statistics, "resnet")
    elif where == "recording":
        checks.check_recording(miniclip)
    else:
        checks.check_towers(miniclip, where)


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_found(bug):
    with planted_in_place(bug, "engine"), pytest.raises(FOUND):
        check(bug.where)


@pytest.mark.parametrize(("module", "where"), sorted({(bug.module, bug.where) for bug in BUGS}))
def test_without_a_bug_nothing_is_found(module, where):
    """The control: the same functions in the same places, nothing planted."""
    with planted_in_place(unchanged(module, where), "engine") as planted:
        used = {value for value in vars(plan).values() if callable(value)}
        assert module != CPU or planted.Plan in used
        check(where)
    assert plan.Plan.__module__ == "miniclip.engine.plan"


KERNEL_CHECKS = """
import sys
import engine_kernel_checks, miniclip
for where in sys.argv[1:]:
    engine_kernel_checks.check_kernels(miniclip, where)
"""


@pytest.mark.slow
@pytest.mark.planted
@pytest.mark.parametrize("bug", COMPILED, ids=lambda bug: bug.name)
def test_it_is_found_in_a_kernel(bug, tmp_path):
    failed = run_with(bug, tmp_path, KERNEL_CHECKS, bug.where)
    assert failed.startswith(tuple(error.__name__ for error in FOUND)), failed


@pytest.mark.slow
def test_without_a_bug_kernels_pass(tmp_path):
    places = sorted({bug.where for bug in COMPILED})
    assert run_with(unchanged(KERNELS), tmp_path, KERNEL_CHECKS, *places) == ""


def test_there_are_enough():
    bugs = BUGS + COMPILED
    assert len({bug.name for bug in bugs}) == len(bugs)
    assert len(BUGS) >= 15
    assert len(COMPILED) >= 6
