"""Planted bugs in modules and towers: the checks against the original find each of them."""

import sys

import model_checks
import pytest
import token_checks
from hypothesis import given
from op_checks import few
from planting import Bug, planted_package
from pool_checks import check_pool, poolings

BLOCKS, LAYERS, ATTENTION = "nn.blocks", "nn.layers", "nn.attention"
VIT, RESNET, TEXT, CLIP = "models.vit", "models.resnet", "models.text", "models.clip"

BUGS = [
    Bug("attention pool over the pixels only", "pool", ATTENTION, "k, k_cache = project(self.k_proj, tokens)", "k, k_cache = project(self.k_proj, tokens - ops.take_class_token_backward(tokens[:, 0], tokens.shape))"),
    Bug("values of the pixels only", "resnet", ATTENTION, "v, v_cache = project(self.v_proj, tokens)", "v, v_cache = project(self.v_proj, tokens - ops.take_class_token_backward(tokens[:, 0], tokens.shape))"),
    Bug("the pool's query without its position", "pool", ATTENTION, "project(self.q_proj, tokens[:, :1])", "project(self.q_proj, tokens[:, :1] - positions[:1])"),
    Bug("first pixel for the pool's query", "resnet", ATTENTION, "project(self.q_proj, tokens[:, :1])", "project(self.q_proj, tokens[:, 1:2])"),
    Bug("the query's gradient not in the mean token's", "pool", ATTENTION, "        dtokens[:, :1] += dquery  # the mean token is query, key and value\n", ""),
    Bug("mean token as query only", "resnet", ATTENTION, "dtokens[:, :1] += dquery", "dtokens[:, :1] = dquery"),
    Bug("resized positions' gradient not brought back", "pool", ATTENTION, "        if resized is not None:\n            dpos", "        if False:\n            dpos"),
    Bug("rows and columns of the pool's grid swapped", "pool", ATTENTION, "positions, resized = self.positions(x.shape[2], x.shape[3])", "positions, resized = self.positions(x.shape[3], x.shape[2])"),
    Bug("ln_post before the token is taken, over all tokens' mean", "vit", VIT, "pooled, cache = self.ops.take_class_token(tokens)", "pooled, cache = self.ops.take_class_token(tokens)\n        pooled = tokens.mean(axis=1)"),
    Bug("class token's output not normalised", "vit", VIT, "y = self.project(self.ln_post(pooled))", "self.ln_post(pooled)\n        y = self.project(pooled)"),
    Bug("text read at the last token", "vit", TEXT, "ops.gather_end_of_text(tokens, ids, self.config.end_id)", "ops.gather_end_of_text(tokens, ids * 0 + __import__('numpy').arange(ids.shape[1]))"),
    Bug("text read at the first token", "vit", TEXT, "ops.gather_end_of_text(tokens, ids, self.config.end_id)", "ops.gather_end_of_text(tokens, -ids * 0)"),
    Bug("downsample convolves before it pools", "resnet", BLOCKS, '[("-1", pool), ("0", Conv2d(n_in, n_out, 1)), ("1", BatchNorm2d(n_out))]', '[("0", Conv2d(n_in, n_out, 1)), ("1", BatchNorm2d(n_out)), ("-1", pool), ("r", ReLU())]'),
    Bug("pool before the second convolution", "resnet", BLOCKS, "y = self.relu1(self.bn1(self.conv1(x)))", "y = self.avgpool(self.relu1(self.bn1(self.conv1(x))))"),
    Bug("stride in the convolution instead of the pool", "resnet", BLOCKS, "y = self.bn3(self.conv3(self.avgpool(y)))", "y = self.bn3(self.conv3(y[:, :, :: self.avgpool.kernel, :: self.avgpool.kernel] if hasattr(self.avgpool, 'kernel') else y))"),
    Bug("ReLU before the shortcut is added", "resnet", BLOCKS, "z: Array = self.relu3(y + shortcut)", "z: Array = self.relu3(y) + shortcut"),
    Bug("post-LayerNorm", "vit", BLOCKS, "x = x + self.attn(self.ln_1(x))", "x = self.ln_1(x + self.attn(x))"),
    Bug("MLP's shortcut forgotten", "vit", BLOCKS, "return x + self.mlp(self.ln_2(x))", "return self.mlp(self.ln_2(x))"),
    Bug("shortcut's gradient forgotten", "vit", BLOCKS, "and past it\n        dy = dy + self.ln_2", "and past it\n        dy = self.ln_2"),
    Bug("downsample's gradient forgotten", "resnet", BLOCKS, "return dx + dshortcut", "return dx if self.downsample is not None else dx + dshortcut"),
    Bug("image tower causal", "vit", VIT, "config.activation, config.eps\n        )\n        self.ln_post", "config.activation, config.eps, True\n        )\n        self.ln_post"),
    Bug("text tower not causal", "vit", TEXT, ", causal=True", ", causal=False"),
    Bug("k and v swapped", "vit", ATTENTION, "q, k, v = ops.split_qkv(qkv, self.heads)", "q, v, k = ops.split_qkv(qkv, self.heads)"),
    Bug("one head only", "vit", ATTENTION, "self.heads, self.causal = heads, causal", "self.heads, self.causal = 1, causal"),
    Bug("projection not transposed back", "vit", VIT, "self.proj.add_grad(dproj.T)", "self.proj.add_grad(dproj.reshape(self.proj.data.shape))"),
    Bug("ln_pre forgotten", "vit", VIT, "y: Array = self.ln_pre(tokens)", "self.ln_pre(tokens)\n        y: Array = tokens"),
    Bug("positions before the class token", "vit", VIT, "tokens, positions_cache = ops.add_positions(tokens, positions)", "tokens, positions_cache = ops.add_positions(tokens, positions[::-1])"),
    Bug("gradient of a parameter overwritten by its second use", "vit", "nn.module", "self.grad = grad if self.grad is None else self.grad + grad", "self.grad = grad"),
    Bug("running statistics moved nine tenths", "resnet", LAYERS, "old + self.momentum * (new - old)", "new + self.momentum * (old - new)"),
    Bug("training ignored by BatchNorm", "resnet", LAYERS, "if self.training:", "if False:"),
    Bug("QuickGELU's name bound to GELU", "vit", LAYERS, '"quick_gelu": QuickGELU', '"quick_gelu": GELU'),
    Bug("LayerNorm's eps", "vit", VIT, "self.ln_pre = LayerNorm(width, config.eps)", "self.ln_pre = LayerNorm(width, 1e-4)"),
    Bug("stem without its last ReLU", "resnet", RESNET, "stem += [self.conv3, self.bn3, self.relu3, self.avgpool]", "stem += [self.conv3, self.bn3, self.avgpool]"),
    Bug("features not normalised", "vit", CLIP, "image_features, image_cache = ops.l2_normalize(self.encode_image(images))", "_, image_cache = ops.l2_normalize(self.encode_image(images))\n        image_features = self.encode_image(images)"),
    Bug("gradient of the transposed logits lost", "both outputs", CLIP, "dlogits = dlogits + dper_text.T", "dlogits = dlogits"),
    Bug("temperature without gradient", "vit", CLIP, "self.logit_scale.add_grad(dscale)", "self.logit_scale.add_grad(0 * dscale)"),
    Bug("first cache taken first", "twice", "nn.module", "return stack.pop()", "return stack.pop(0)"),
    Bug("tokens column by column", "tokens", LAYERS, "return x.reshape(batch, channels, height * width)", "return x.swapaxes(2, 3).reshape(batch, channels, height * width)"),
    Bug("rows and columns of the map swapped", "tokens", RESNET, "(len(tokens), channels, rows, columns)", "(len(tokens), channels, columns, rows)"),
    Bug("odd sides rounded down", "grid", RESNET, "return (height + 1) // 32", "return height // 32"),
    Bug("rows of patches counted across", "tokens", VIT, "return (height - patch) // stride + 1, (width - patch) // stride + 1", "return (width - patch) // stride + 1, (height - patch) // stride + 1"),
    Bug("gradient of the ViT's resized positions not brought back", "tokens", VIT, "if resized is not None:", "if False:"),
    Bug("tokens already normalised", "tokens", VIT, "tokens: Array = self.transformer(self.embed(images))", "tokens: Array = self.ln_post(self.transformer(self.embed(images)))"),
    Bug("value path without the values' bias", "dense", ATTENTION, "self.in_proj_bias.data[first:]", "0 * self.in_proj_bias.data[first:]"),
    Bug("gradient of the values in the queries' rows", "dense", ATTENTION, "y[shape[0] - x.shape[0] :] = x", "y[: x.shape[0]] = x"),
    Bug("value path without its LayerNorm", "dense", BLOCKS, "y = self.attn.values(self.ln_1(x))", "self.ln_1(x)\n        y = self.attn.values(x)"),
    Bug("value path's shortcut forgotten", "dense", BLOCKS, "            y = x + y\n", ""),
    Bug("value path's MLP without its gradient", "dense", BLOCKS, "        if residual:\n            dy = dy + self.ln_2", "        if residual:\n            self.ln_2"),
    Bug("gradient of the value path's shortcut forgotten", "dense", BLOCKS, "return dy + dx if residual else dx", "return dx"),
    Bug("last block whole, and its values after it", "dense", BLOCKS, "for block in blocks[:-1]:\n            x = block(x)", "for block in blocks:\n            x = block(x)"),
    Bug("class token for the first patch", "dense", VIT, "self.ln_post(tokens[:, 1:])", "self.ln_post(tokens[:, :-1])"),
    Bug("patches' gradient one place too early", "dense", VIT, "dtokens[:, 1:] = self.ln_post", "dtokens[:, :-1] = self.ln_post"),
    Bug("the mean's position for the first pixel", "dense", ATTENTION, "table[1:])  # the first", "table[:-1])  # the first"),
    Bug("rows and columns of the pixels' positions swapped", "dense", ATTENTION, "table, resized = self.positions(x.shape[2], x.shape[3])", "table, resized = self.positions(x.shape[3], x.shape[2])"),
    Bug("positions added unasked", "dense", ATTENTION, "        if positions:\n            table", "        if True:\n            table"),
    Bug("pixels through the keys", "dense", ATTENTION, "y: Array = self.c_proj(self.v_proj(tokens))", "self.v_proj(tokens)\n        y: Array = self.c_proj(self.k_proj(tokens))"),
    Bug("resized positions' gradient not brought back from dense", "dense", ATTENTION, "            if resized is not None:\n                dpos", "            if False:\n                dpos"),
    Bug("tokens of texts before the last LayerNorm", "text tokens", TEXT, "tokens = self.ln_final(self.transformer(tokens))", "self.ln_final(tokens := self.transformer(tokens))"),
]  # fmt: skip


FOUND = (AssertionError, ValueError, IndexError, RuntimeError, RuntimeWarning)


def check(package, where):
    """The checks that the real package passes, on a copy of it."""
    if where == "twice":
        model_checks.check_two_passes(package)
    elif where == "both outputs":
        model_checks.check_both_outputs(package)
    elif where == "tokens":
        for kind in ("vit", "resnet"):
            token_checks.check_tokens(package, kind, token_checks.WIDE)
            token_checks.check_pool(package, kind, token_checks.WIDE)
    elif where == "dense":
        for kind, several in token_checks.DENSE.items():
            for options in several:
                token_checks.check_dense(package, kind, token_checks.WIDE, options)
    elif where == "grid":
        token_checks.check_tokens(package, "resnet", token_checks.odd_size("resnet"))
    elif where == "text tokens":
        token_checks.check_text_tokens(package)
    elif where == "pool":
        few(given(poolings())(lambda pooling: check_pool(package, pooling)))()
    else:
        model_checks.check_tower(package, where, training=where == "resnet")
        if where == "vit":
            model_checks.check_two_passes(package)


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_found(bug, tmp_path):
    with planted_package(bug, tmp_path) as package, pytest.raises(FOUND):
        check(package, bug.where)


WHERE = sorted({bug.where for bug in BUGS})


@pytest.mark.parametrize("where", WHERE)
def test_without_a_bug_nothing_is_found(where, tmp_path):
    """The control: the same copying and importing, nothing planted."""
    harmless = Bug(
        "none", where, "models.clip", "import numpy as np\n", "import numpy as np  # no\n"
    )
    with planted_package(harmless, tmp_path) as package:
        assert str(tmp_path) in package.__file__
        check(package, where)
    assert str(tmp_path) not in sys.modules["miniclip"].__file__


def test_there_are_enough():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25
