"""Planted bugs: in ops and blocks, where the check names each; in the check, where a test finds it.

Wrong gradients are refused with the input that they belong to and what is wrong with them.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from planting import is_caught, planted_in_place

from miniclip import check, nn, ops
from miniclip.check import Bug, planted, slopes, unchanged

RNG = np.random.default_rng(0)
X, WEIGHT, BIAS = RNG.standard_normal((5, 4)), RNG.standard_normal((3, 4)), RNG.standard_normal(3)
SQUARE = RNG.standard_normal((4, 4))
Q, K, V = RNG.standard_normal((3, 1, 2, 5, 4))
INPUTS = {
    "linear": (X, WEIGHT, BIAS),
    "square linear": (X, SQUARE, BIAS[:1].repeat(4)),
    "linear without bias": (X, WEIGHT, None),
    "deep linear": (RNG.standard_normal((2, 5, 4)), WEIGHT, BIAS),
    "layer_norm": (RNG.standard_normal((3, 8)), RNG.standard_normal(8), RNG.standard_normal(8)),
    "batch_norm": (RNG.standard_normal((2, 3, 4, 5)), *RNG.standard_normal((2, 3))),
    "l2_normalize": (X,),
    "relu": (X,),
    "quick_gelu": (X,),
    "global_avg_pool": (RNG.standard_normal((2, 3, 4, 5)),),
    "add_positions": (RNG.standard_normal((6, 4, 3)), RNG.standard_normal((4, 3))),
    "scaled_dot_product_attention": (Q, K, V),
    "cross_entropy": (RNG.standard_normal((6, 5)), np.array([0, 3, 1, 4, 2, 2])),
    "conv2d": (RNG.standard_normal((2, 3, 6, 5)), RNG.standard_normal((4, 3, 3, 3)), None),
}
LINEAR, NORM, ATTENTION = "ops.linear", "ops.norm", "ops.attention"
SDPA = "scaled_dot_product_attention"
DWEIGHT = "    dweight = drows.T @ rows  # (out, R) @ (R, in) -> (out, in)\n"

# (planted bug, inputs whose gradients are wrong, the diagnosis)
NAMED = [
    # sign and factor
    (Bug("sign of x", "linear", LINEAR, "return dx, dweight", "return -dx, dweight"),
     ["x"], "dx has the opposite sign"),
    (Bug("a factor of 2", "linear", LINEAR, DWEIGHT, "    dweight = 2 * drows.T @ rows\n"),
     ["weight"], "dweight is 2 times the right one"),
    (Bug("a half", "linear", LINEAR, "dbias = sum_to_last(dy)", "dbias = 0.5 * sum_to_last(dy)"),
     ["bias"], "dbias is 1/2 of the right one"),
    (Bug("mean for sum", "linear", LINEAR, DWEIGHT, "    dweight = drows.T @ rows / len(rows)\n"),
     ["weight"], "dweight is 1/5 of the right one (5 is x.shape[0])"),
    (Bug("averaged", "add_positions", "ops.embedding", "dy.sum(axis=0)\n    return dy, dpositions", "dy.mean(axis=0)\n    return dy, dpositions"),
     ["positions"], "dpositions is 1/6 of the right one (6 is x.shape[0])"),
    (Bug("not shared out", "global_avg_pool", "ops.pool", "share = (dy / (height * width))", "share = dy"),
     ["x"], "dx is 20 times the right one (20 is prod(x.shape[2:]))"),
    (Bug("no scale", SDPA, ATTENTION, "softmax_backward(dweights, softmax_cache) * q.shape[-1] ** -0.5", "softmax_backward(dweights, softmax_cache) * 3**-0.5"),
     ["q", "k"], "dq is 1.1547 times the right one; also wrong: dk"),
    (Bug("sign and factor", "linear", LINEAR, "return dx, dweight", "return -0.3 * dx, dweight"),
     ["x"], "dx has the opposite sign and is 0.3 times the right one"),
    (Bug("dy ignored", "cross_entropy", "ops.loss", "* (dy / logits.shape[0])", "/ logits.shape[0]"),
     ["logits"], "dlogits is right for dy = 1 only: it does not depend on dy"),
    # order: of axes, of numbers, of inputs
    (Bug("transposed", "linear", LINEAR, DWEIGHT, "    dweight = rows.T @ drows\n"),
     ["weight"], "dweight has shape (4, 3), expected (3, 4): it is transposed"),
    (Bug("transposed", "square linear", LINEAR, DWEIGHT, "    dweight = rows.T @ drows\n"),
     ["weight"], "dweight is transposed"),
    (Bug("transposed, negative", "square linear", LINEAR, DWEIGHT, "    dweight = -rows.T @ drows\n"),
     ["weight"], "dweight is transposed and has the opposite sign"),
    (Bug("reshaped", "linear", LINEAR, DWEIGHT, "    dweight = (rows.T @ drows).reshape(weight.shape)\n"),
     ["weight"], "dweight has its numbers in the order of the transpose, reshaped"),
    (Bug("kernel flipped", "conv2d", "ops.conv", "return dx, dkernels.reshape(weight.shape)", "return dx, dkernels.reshape(weight.shape)[..., ::-1]"),
     ["weight"], "dweight is reversed along axis 3"),
    (Bug("axes", "conv2d", "ops.conv", "return dx, dkernels.reshape(weight.shape)", "return dx, dkernels.reshape(weight.shape).transpose(0, 1, 3, 2)"),
     ["weight"], "dweight is transposed (axes (0, 1, 3, 2))"),
    (Bug("swapped", SDPA, ATTENTION, "return dq, dk, dv", "return dq, dv, dk"),
     ["k", "v"], "dk is exchanged with dv; also wrong: dv"),
    (Bug("swapped", "layer_norm", NORM, "return dx, dweight, dbias\n\n\ndef per_channel(", "return dx, dbias, dweight\n\n\ndef per_channel("),
     ["weight", "bias"], "dweight is exchanged with dbias; also wrong: dbias"),
    # a term
    (Bug("no mean", "layer_norm", NORM, "(dx_hat - along_one - x_hat * along_x_hat)", "(dx_hat - x_hat * along_x_hat)"),
     ["x"], "dx is off by a constant along axis 1, as if a sum or a mean over it were missing"),
    (Bug("no variance", "layer_norm", NORM, "(dx_hat - along_one - x_hat * along_x_hat)", "(dx_hat - along_one)"),
     ["x"], "dx differs by more than a sign, a factor, an order of axes or an offset: a term is missing or wrong; most at"),
    (Bug("no length", "l2_normalize", NORM, "return inv_norm * (dy", "return (dy"),
     ["x"], "dx is off by a factor along axis 1, from"),
    (Bug("no second term", "quick_gelu", "ops.activation", "dy * (s + x * (QUICK_GELU_SLOPE * s * (1.0 - s)))", "dy * s"),
     ["x"], "dx differs by more than a sign, a factor, an order of axes or an offset: a term is missing or wrong; most at"),
    (Bug("an offset", "linear", LINEAR, "return dx, dweight", "return dx + 0.25, dweight"),
     ["x"], "dx is off by the constant 0.25"),
    (Bug("nothing", "linear", LINEAR, "return dx, dweight", "return 0 * dx, dweight"),
     ["x"], "dx is zero everywhere, though y depends on x"),
    # not an array, or another one
    (Bug("None", "linear", LINEAR, "return dx, dweight, dbias", "return dx, None, dbias"),
     ["weight"], "dweight is None, expected an array of shape (3, 4)"),
    (Bug("a list", "linear", LINEAR, "return dx, dweight, dbias", "return dx, dweight.tolist(), dbias"),
     ["weight"], "dweight is a list, expected an array of shape (3, 4)"),
    (Bug("no None", "linear without bias", LINEAR, "sum_to_last(dy) if has_bias else None", "sum_to_last(dy)"),
     ["bias"], "dbias is an array of shape (3,), expected None like its input"),
    (Bug("not summed", "linear", LINEAR, "dbias = sum_to_last(dy)", "dbias = dy"),
     ["bias"], "dbias has shape (5, 3), expected (3,): it is not summed over axis 0"),
    (Bug("not summed", "deep linear", LINEAR, "dbias = sum_to_last(dy)", "dbias = dy"),
     ["bias"], "dbias has shape (2, 5, 3), expected (3,): it is not summed over its first 2 axes"),
    (Bug("rows kept", "deep linear", LINEAR, ".reshape(x.shape)  # (R, out)", "  # (R, out)"),
     ["x"], "dx has shape (10, 4), expected (2, 5, 4)"),
    (Bug("float32", "linear", LINEAR, "return dx, dweight", "return dx.astype('float32'), dweight"),
     ["x"], "dx is float32, expected float64 like its input"),
    (Bug("NaN", "linear", LINEAR, "return dx, dweight", "return dx / (0 * dx), dweight"),
     ["x"], "dx has values that are not finite"),
    # the whole
    (Bug("nothing at all", "linear", LINEAR, "    return dx, dweight, dbias\n", ""),
     [], "backward returned None, expected 3: dx, dweight, dbias"),
    (Bug("two of three", "linear", LINEAR, "return dx, dweight, dbias", "return dx, dweight"),
     [], "backward returned 2 gradients, expected 3: dx, dweight, dbias"),
    (Bug("no cache", "linear", LINEAR, ", (x, weight, bias is not None)", ""),
     [], "forward returned an array of shape (5, 3), expected (y, cache)"),
    (Bug("no output", "relu", "ops.activation", "return np.maximum(x, 0.0), x", "np.maximum(x, 0.0)"),
     [], "forward returned None, expected (y, cache)"),
    (Bug("float32", "relu", "ops.activation", "return np.maximum(x, 0.0), x", "return np.maximum(x, 0).astype('float32'), x"),
     [], "y is float32, expected float64 like the inputs"),
    (Bug("infinite", "relu", "ops.activation", "return np.maximum(x, 0.0), x", "return np.maximum(x, 0) / 0.0, x"),
     [], "y has values that are not finite"),
    (Bug("in place", "relu", "ops.activation", "return np.maximum(x, 0.0), x", "return np.maximum(x, 0, out=x), x"),
     [], "x was written into: a pass leaves its inputs as they are"),
    (Bug("in dy", "relu", "ops.activation", "    return dy * (x > 0)", "    dy *= x > 0\n    return dy"),
     [], "dy was written into: a pass leaves its inputs as they are"),
]  # fmt: skip


def result_for(bug, seed=0):
    """The check of the planted op at the inputs that it is listed with."""
    op = bug.where.removeprefix("square ").removeprefix("deep ").removesuffix(" without bias")
    module = planted(bug)
    pair = getattr(module, op), getattr(module, f"{op}_backward")
    return check.op_gradients(*pair, *INPUTS[bug.where], seed=seed)


def check_name(bug, wrong, words, seed=0):
    """The check says just this; or, where numbers follow, begins with it."""
    result = result_for(bug, seed)
    assert not result.holds
    assert result.wrong == wrong
    said = str(result)
    assert said.startswith(words) if words.endswith((" at", " from")) else said == words
    # where nothing could be compared, no error could be measured
    unmeasured = ("expected", "not finite", "written into")
    assert (result.error == float("inf")) == any(part in words for part in unmeasured)


@pytest.mark.planted
@pytest.mark.parametrize(
    ("bug", "wrong", "words"), NAMED, ids=[f"{bug.where}: {bug.name}" for bug, _, _ in NAMED]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_it_is_named(bug, wrong, words):
    for seed in range(5):
        check_name(bug, wrong, words, seed)


@pytest.mark.parametrize(
    ("module", "where"), sorted({(bug.module, bug.where) for bug, _, _ in NAMED})
)
def test_without_a_bug_nothing_is_named(module, where):
    """The control: the same op executed anew, nothing changed."""
    result = result_for(unchanged(module, where))
    assert result.holds, result


def block_with(bug):
    """A block of a transformer in float64, and the result of its check."""
    rng = np.random.default_rng(0)
    block = planted(bug).ResidualAttentionBlock(8, 2, 16, "gelu", 1e-5, False).to(dtype="float64")
    for _, parameter in block.named_parameters():
        parameter.data = rng.standard_normal(parameter.data.shape)
    return block, check.module_gradients(block, rng.standard_normal((2, 5, 8)))


@pytest.mark.planted
def test_a_forgotten_shortcut_is_refused():
    """Everything before the shortcut is wrong, and nothing behind it; as it is, nothing."""
    right = "\n        dy = dy + self.ln_2.backward(self.mlp.backward(dy))"
    bug = Bug("no shortcut", "block", "nn.blocks", right, right.replace("dy + ", ""))
    _, unharmed = block_with(unchanged("nn.blocks"))
    assert unharmed.holds, unharmed
    block, result = block_with(bug)
    before = {name for name, _ in block.named_parameters() if name.startswith(("attn", "ln_1"))}
    assert set(result.wrong) == {"x", *before}
    named = ["attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight"]
    listed = ", ".join(f"the gradient of {name}" for name in named)
    assert str(result).endswith(f"; also wrong: {listed}, {len(before) - 3} more")


# ------------------------------------------------------------------------- in the check itself

SLOPES, GRADIENTS, DIAGNOSIS = "check.slopes", "check.gradients", "check.diagnosis"
ANSWERS, MODULES, RESULT = "check.answers", "check.modules", "check.result"
BUGS = [
    Bug("the coarse difference for both", "slopes", SLOPES, "Slope((4 * fine - coarse) / 3", "Slope(coarse"),
    Bug("extrapolated the wrong way", "slopes", SLOPES, "(4 * fine - coarse) / 3", "(4 * coarse - fine) / 3"),
    Bug("step for twice the step", "slopes", SLOPES, "fine = (loss(h) - loss(-h)) / (2 * h)", "fine = (loss(h) - loss(-h)) / h"),
    Bug("one step length", "steps", SLOPES, "FACTORS = (1.0, 1 / 16, 16.0, 1 / 256, 256.0, 1 / 4096)", "FACTORS = (1.0,)"),
    Bug("no longer steps", "steps", SLOPES, "1 / 16, 16.0, 1 / 256, 256.0, 1 / 4096", "1 / 16, 1 / 256, 1 / 4096"),
    Bug("steps whatever the scale", "steps", SLOPES, "own = spread or 1.0", "own = 1.0"),
    Bug("steps by the own scale only", "steps", SLOPES, "        if own != 1.0:\n            yield STEP * factor\n", ""),
    Bug("rounding forgotten", "zero", SLOPES, "ROUNDING * self.size / h)", "0.0)"),
    Bug("kinks not seen", "kink", SLOPES, "return abs(ahead - behind) > least", "return False"),
    Bug("everything is a kink", "named", SLOPES, "return abs(ahead - behind) > least", "return True"),
    Bug("dy of ones", "ones", GRADIENTS, "dy = np.asarray(rng.standard_normal(np.shape(y)))", "dy = np.ones(np.shape(y))"),
    Bug("the caller's own random numbers", "stream", GRADIENTS, "default_rng([seed, 1])", "default_rng(seed)"),
    Bug("only the last direction counts", "directions", GRADIENTS, "worst = max(worst, error)", "worst = error"),
    Bug("half the tolerance", "tolerance", GRADIENTS, "        if error > tolerance:\n            return", "        if error > tolerance / 2:\n            return"),
    Bug("twice the tolerance", "tolerance", GRADIENTS, "        if error > tolerance:\n            return", "        if error > 2 * tolerance:\n            return"),
    Bug("constants differentiated", "constants", GRADIENTS, "if n not in constant and answers", "if answers"),
    Bug("options not passed on", "constants", GRADIENTS, ", **(options or {})", ""),
    Bug("None accepted", "named", ANSWERS, 'return f"is {kind_of(gradient)}, expected an array of shape {x.shape}"', 'return ""'),
    Bug("array for None accepted", "named", ANSWERS, 'return "" if gradient is None else', 'return "" if True else'),
    Bug("gradients of any dtype", "named", ANSWERS, "    if np.asarray(gradient).dtype != np.float64:", "    if False:"),
    Bug("outputs of any dtype", "named", ANSWERS, "    if np.asarray(y).dtype != np.float64:", "    if False:"),
    Bug("NaN accepted", "named", ANSWERS, 'return "" if np.isfinite(gradient).all() else', 'return "" if True else'),
    Bug("infinite outputs accepted", "named", ANSWERS, "    if not np.isfinite(y).all():", "    if False:"),
    Bug("any number of gradients", "named", ANSWERS, "    if len(gradients) != len(names):", "    if len(gradients) > len(names):"),
    Bug("written inputs not noticed", "named", ANSWERS, "        if not np.array_equal(x,", "        if False and not np.array_equal(x,"),
    Bug("float32 let in", "callers", ANSWERS, 'x.dtype.kind not in "iub"', 'x.dtype.kind not in "iubf"'),
    Bug("signs not told apart", "named", DIAGNOSIS, "if ratio < 0 else []", "if ratio > 1e9 else []"),
    Bug("factor and share exchanged", "named", DIAGNOSIS, 'f"{times} times" if size > 1 else', 'f"{times} times" if size < 1 else'),
    Bug("any factor fits", "named", DIAGNOSIS, "return ratio if fits and ratio else None", "return ratio"),
    Bug("transposed shapes not tried", "named", DIAGNOSIS, 'yield "is transposed" + axes_words(order), gradient', 'yield "is transposed" + axes_words(order), 0 * gradient'),
    Bug("sums over the wrong axis", "named", DIAGNOSIS, "gradient.sum(axis).shape == shape:", "gradient.sum(0).shape == (0,):"),
    Bug("offsets not looked for", "named", DIAGNOSIS, "if wrong.size > 2 and np.ptp(difference)", "if wrong.size > 1e9 and np.ptp(difference)"),
    Bug("lines along the other axis", "named", DIAGNOSIS, "np.ptp(difference, axis=axis)", "np.ptp(difference, axis=axis - 1)"),
    Bug("the first entry for the largest difference", "entry", DIAGNOSIS, "difference.argmax()", "0"),
    Bug("a grid without the largest entry", "sparse", DIAGNOSIS, "        if c not in spread:", "        if False:"),
    Bug("the wrong one is called right", "named", RESULT, "if not check.holds]\n        if not wrong", "if check.holds]\n        if not wrong"),
    Bug("the smallest error reported", "directions", RESULT, "return max((check.error", "return min((check.error"),
    Bug("arrays not put back", "modules", MODULES, "parameter.data, parameter.grad = self.before[name]", "parameter.grad = self.before[name][1]"),
    Bug("gradients not put back", "modules", MODULES, "parameter.data, parameter.grad = self.before[name]", "parameter.data = self.before[name][0]"),
    Bug("statistics not put back", "modules", MODULES, "            module.load_state_dict(state)\n", "            pass\n"),
    Bug("overwriting not noticed", "modules", MODULES, "if check.holds and not added:", "if False:"),
    Bug("old gradients not cleared", "modules", MODULES, "            parameter.grad = None\n", "            pass\n"),
    Bug("parameters not moved", "modules", MODULES, "parameter.data = replaced.get(name, self.before[name][0])", "parameter.data = self.before[name][0]"),
]  # fmt: skip


def with_error(error, tolerance):
    def backward(dy, x):
        return dy * np.exp(x) * (1 + error)

    x = np.array(0.7)
    return check.function_gradients(np.exp, backward, x, names=["x"], tolerance=tolerance)


def check_slopes():
    for function, x, slope in ((np.exp, 2.0, np.exp(2.0)), (np.sin, 0.3, np.cos(0.3))):
        point = slopes.Point(
            {"x": np.array(x)}, lambda moved, f=function: float(f(moved["x"])), 1.0
        )
        found = point.slope("x", np.array(1.0), lambda s: s.doubt < 1e-6)
        assert abs(found.value / slope - 1) < 1e-10


def check_steps():
    near = X.copy()
    near[1, 2] = 2e-6
    far = np.array([-1e4, 0.1, 0.7, 1e4])
    for op, x in (("relu", near), ("gelu", far), ("l2_normalize", 1e-9 * X)):
        result = check.op_gradients(getattr(ops, op), getattr(ops, f"{op}_backward"), x)
        assert result.holds, result

    def backward(dy, cache):
        dx, dweight, dbias = ops.linear_backward(dy, cache)
        return dx, dweight, 1.0001 * dbias

    # a bias that counts for little in y, and one whose own scale says nothing
    for x, bias in ((1e6 * X, BIAS), (X, 1e-12 * BIAS)):
        assert check.op_gradients(ops.linear, ops.linear_backward, x, WEIGHT, bias).holds
        assert check.op_gradients(ops.linear, backward, x, WEIGHT, bias).wrong == ["bias"]


def check_zero():
    """A key's bias changes nothing, and its gradient is rounding."""
    rng = np.random.default_rng(0)
    x, bias = rng.standard_normal((1, 1, 5, 4)), rng.standard_normal(4)

    def forward(k_bias):
        y, cache = ops.scaled_dot_product_attention(x, x + k_bias, x)
        return y, cache

    def backward(dy, cache):
        return ops.scaled_dot_product_attention_backward(dy, cache)[1].sum(axis=(0, 1, 2))

    for seed in range(5):
        assert check.op_gradients(forward, backward, bias, seed=seed).holds


def check_kink():
    x = X.copy()
    x[1, 2] = 0
    assert "cannot be measured" in str(check.op_gradients(ops.relu, ops.relu_backward, x))


def check_named():
    for case in NAMED:
        check_name(*case)


def check_ones():
    """A softmax's gradient is zero for dy of ones, whatever else is wrong with it."""
    result = check.op_gradients(ops.softmax, lambda dy, cache: 0 * dy, X)
    assert result.wrong == ["x"]


def check_stream():
    """dy is not the input again, though both are drawn with one seed."""
    x = np.random.default_rng(7).standard_normal((5, 4))
    seen = []

    def backward(dy, cache):
        seen.append(dy)
        return ops.relu_backward(dy, cache)

    assert check.op_gradients(ops.relu, backward, x, seed=7).holds
    assert abs(np.corrcoef(seen[0].ravel(), x.ravel())[0, 1]) < 0.9


def check_directions():
    """The largest error of all directions and inputs is reported."""
    errors = [
        check.op_gradients(ops.linear, ops.linear_backward, X, WEIGHT, BIAS, directions=n)
        for n in (1, 9)
    ]
    assert errors[1].inputs[0].error >= errors[0].inputs[0].error
    assert errors[1].error == max(one.error for one in errors[1].inputs)


def check_tolerance():
    for tolerance in (1e-7, 1e-4):
        assert with_error(0.7 * tolerance, tolerance).holds
        assert not with_error(1.5 * tolerance, tolerance).holds


def check_constants():
    pair = ops.scaled_dot_product_attention, ops.scaled_dot_product_attention_backward
    mask = np.zeros((5, 5))
    assert check.op_gradients(*pair, Q, K, V, mask, constants=["mask"]).holds
    assert check.op_gradients(*pair, Q, K, V, None, constants=["mask"]).holds
    x = INPUTS["conv2d"]
    result = check.op_gradients(
        ops.conv2d, ops.conv2d_backward, *x, options={"stride": 2, "padding": 1}
    )
    strides = []

    def forward(x, weight, bias, stride=1):
        strides.append(stride)
        return ops.conv2d(x, weight, bias, stride)

    assert result.holds
    assert check.op_gradients(forward, ops.conv2d_backward, *x, options={"stride": 3}).holds
    assert set(strides) == {3}


def check_callers():
    with pytest.raises(TypeError, match="x is float32"):
        check.op_gradients(ops.relu, ops.relu_backward, X.astype("float32"))


def check_entry():
    def backward(dy, cache):
        dx = ops.gelu_backward(dy, cache)
        dx[2, 3] += 1
        dx[1, 1] += 0.1
        return dx

    assert "most at [2, 3]:" in str(check.op_gradients(ops.gelu, backward, X))


def check_sparse():
    """One row of many is used: the entries that are looked at pass through it."""
    table, ids = np.random.default_rng(0).standard_normal((500, 3)), np.array([[331]])
    result = check.op_gradients(
        ops.embedding, lambda dy, cache: 2 * ops.embedding_backward(dy, cache), ids, table
    )
    assert str(result) == "dtable is 2 times the right one"


def check_modules():
    layer = nn.BatchNorm2d(3).to(dtype="float64").train()
    x = INPUTS["batch_norm"][0]
    old = np.full(3, 5.0)
    layer.weight.grad = old
    before = layer.state_dict()
    assert check.module_gradients(layer, x).holds
    assert layer.weight.grad is old
    assert all(np.array_equal(layer.state_dict()[name], data) for name, data in before.items())
    methods = ("record", "forward", "backward", "named_parameters")
    stranger = SimpleNamespace(**{name: getattr(layer, name) for name in methods})
    assert check.module_gradients(stranger, x).holds
    assert all(p.data is before[name] for name, p in layer.named_parameters())
    layer.bias.add_grad = lambda grad: setattr(layer.bias, "grad", grad)
    assert "overwritten" in str(check.module_gradients(layer, x))


CHECKS = {
    "slopes": check_slopes,
    "steps": check_steps,
    "zero": check_zero,
    "kink": check_kink,
    "named": check_named,
    "ones": check_ones,
    "stream": check_stream,
    "directions": check_directions,
    "tolerance": check_tolerance,
    "constants": check_constants,
    "callers": check_callers,
    "entry": check_entry,
    "sparse": check_sparse,
    "modules": check_modules,
}


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_it_is_found(bug):
    with planted_in_place(bug, "check"):
        assert is_caught(CHECKS[bug.where], also=(TypeError,)), f"not found: {bug.name}"


@pytest.mark.parametrize("where", CHECKS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_without_a_bug_nothing_is_found(where):
    """The control: the same functions in the same places, nothing planted."""
    for module in sorted({bug.module for bug in BUGS}):
        with planted_in_place(unchanged(module), "check") as planted_module:
            public = [n for n in check.__all__ if hasattr(planted_module, n)]
            assert all(vars(check)[n] is vars(planted_module)[n] for n in public)
            CHECKS[where]()


def test_there_are_enough():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 40
    assert {bug.where for bug in BUGS} == set(CHECKS)
    assert len(NAMED) >= 35
