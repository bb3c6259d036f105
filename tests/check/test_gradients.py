"""The gradient check of pairs and functions: what is right passes, at the error that it states."""

import subprocess
import sys

import numpy as np
import pytest
from cases import CASES, samples
from hypothesis import given, settings
from op_checks import CONSTANTS

from miniclip import check, ops
from miniclip.check.slopes import Point

LARGEST = 2e-8  # what docs/check.md says of right gradients; the tolerance is 1e-7
RNG = np.random.default_rng(0)
X, WEIGHT, BIAS = RNG.standard_normal((5, 4)), RNG.standard_normal((3, 4)), RNG.standard_normal(3)


def linear(**changes):
    """The result for ops.linear with other inputs or settings."""
    inputs = {"x": X, "weight": WEIGHT, "bias": BIAS} | changes
    arrays = [inputs.pop(name) for name in ("x", "weight", "bias")]
    return check.op_gradients(ops.linear, ops.linear_backward, *arrays, **inputs)


# ------------------------------------------------------------------------- what is right


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op)
def test_every_op_of_the_textbook_holds(case):
    pair = getattr(ops, case.op), getattr(ops, f"{case.op}_backward")

    @given(samples(case))
    @settings(max_examples=15)
    def run(sample):
        inputs = sample.inputs
        constants = [name for name in inputs if name in CONSTANTS]
        result = check.op_gradients(
            *pair, *inputs.values(), constants=constants, options=sample.options
        )
        assert result.holds, result
        assert result.error <= LARGEST, result
        wanted = [
            n for n, x in inputs.items()
            if n not in CONSTANTS and (x is None or x.dtype == np.float64)
        ]  # fmt: skip
        assert [one.name for one in result.inputs] == wanted
        assert result.wrong == []

    run()


def test_a_right_result_says_so():
    result = linear()
    assert result.holds
    assert result.diagnosis == str(result)
    start = "all 3 gradients agree with the measured slopes; the largest relative error is "
    assert str(result).startswith(start)
    worst = max(result.inputs, key=lambda one: one.error)
    assert str(result) == f"{start}{worst.error:.1e}, of d{worst.name}"
    assert repr(result) == f"GradientCheck(holds=True): {result}"
    assert str(result.inputs[1]) == "dweight is right"
    assert str(linear(bias=None)).startswith("all 3 gradients agree")
    assert str(check.op_gradients(ops.relu, ops.relu_backward, X)).startswith("the gradient agrees")


def test_the_same_seed_gives_the_same_numbers():
    assert linear(seed=3) == linear(seed=3)
    errors = {linear(seed=seed).error for seed in range(5)}
    assert len(errors) == 5


def test_inputs_are_only_read():
    """Views in any layout, read-only ones too; and nothing is written into them."""
    repeated = np.broadcast_to(X[:1], X.shape)
    for view in (X.T.copy().T, np.repeat(X, 2, axis=0)[::2], X[::-1], repeated):
        before = view.copy()
        view.flags.writeable = False
        assert linear(x=view).holds
        np.testing.assert_array_equal(view, before)


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1.0, 1e8, 1e100])
def test_the_scale_of_an_input_does_not_count(scale):
    """Steps are in proportion to it; also where the inputs of one call differ by 200 decades."""
    assert linear(x=scale * X).holds
    assert linear(weight=scale * WEIGHT, bias=scale * BIAS).holds
    normalised = check.op_gradients(
        ops.layer_norm, ops.layer_norm_backward, scale * X, WEIGHT[0], BIAS[:1].repeat(4),
        options={"eps": 0.0},
    )  # fmt: skip
    assert normalised.holds, normalised


def test_where_the_own_scale_of_an_input_says_nothing():
    """A bias of 1e-12 beside outputs of 1: steps in proportion to it would be rounding. GELU at
    1e4: steps in proportion would pass by its bend. Zeros have no scale.
    """
    assert linear(bias=1e-12 * BIAS).holds
    assert linear(bias=0 * BIAS, weight=0 * WEIGHT).holds
    far = np.array([-1e4, -0.5, 0.1, 0.7, 1e4])
    result = check.op_gradients(ops.gelu, ops.gelu_backward, far)
    assert result.holds, result
    assert linear(x=np.zeros((0, 4))).holds


def test_slopes_are_those_of_analysis():
    """Functions whose derivative is known: nothing here comes from a backward pass."""
    for function, x, slope in (
        (np.sin, 0.3, np.cos(0.3)),
        (np.exp, 2.0, np.exp(2.0)),
        (lambda x: x**5, 1.5, 5 * 1.5**4),
        (np.log, 0.01, 100.0),
    ):
        point = Point({"x": np.array(x)}, lambda moved, f=function: float(f(moved["x"])), 1.0)
        found = point.slope("x", np.array(1.0), lambda s: s.doubt <= 1e-7 * abs(s.value))
        assert found.value == pytest.approx(slope, rel=1e-10)
        assert not point.is_kink("x", np.array(1.0))
    matrix = RNG.standard_normal((4, 4))
    point = Point({"x": X, "y": X[0]}, lambda moved: float((moved.get("x", X) @ matrix).sum()), 1.0)
    direction = RNG.standard_normal(X.shape)
    found = point.slope("x", direction, lambda s: True)
    assert found.value == pytest.approx((direction @ matrix).sum(), rel=1e-9)
    assert point.slope("y", X[1], lambda s: True).value == 0


# ------------------------------------------------------------------------- both ends of tolerance


@pytest.mark.parametrize("tolerance", [1e-7, 1e-6, 1e-3])
def test_both_ends_of_the_tolerance(tolerance):
    """One number, so that the relative error of the gradient is that along every direction."""

    def with_error(error):
        return check.function_gradients(
            np.exp, lambda dy, x: dy * np.exp(x) * (1 + error), np.array(0.7), names=["x"],
            tolerance=tolerance,
        )  # fmt: skip

    for sign in (1, -1):
        near, far = with_error(sign * 0.7 * tolerance), with_error(sign * 1.5 * tolerance)
        assert near.holds
        assert near.error == pytest.approx(0.7 * tolerance, rel=0.1)
        assert not far.holds
        assert far.error == pytest.approx(1.5 * tolerance, rel=0.1)
        assert far.wrong == ["x"]


@pytest.mark.parametrize("seed", range(10))
def test_one_wrong_entry_of_ten_thousand_is_found(seed):
    x = np.random.default_rng(seed).standard_normal((100, 100))

    def backward(dy, cache):
        dx = ops.gelu_backward(dy, cache)
        dx[31, 41] *= 1.1
        return dx

    assert check.op_gradients(ops.gelu, backward, x, seed=seed).wrong == ["x"]


def test_a_small_gradient_is_not_hidden_by_a_large_one():
    """Each input by itself: the bias counts for a millionth of the loss and is checked as well."""

    def backward(dy, cache):
        dx, dweight, dbias = ops.linear_backward(dy, cache)
        return dx, dweight, 1.001 * dbias

    result = check.op_gradients(ops.linear, backward, 1e6 * X, WEIGHT, BIAS)
    assert result.wrong == ["bias"]


# ------------------------------------------------------------------------- plain functions


def test_a_loss_and_its_gradient():
    target = RNG.standard_normal(4)

    def loss(x):
        return ((x - target) ** 2).sum()

    assert check.function_gradients(loss, lambda dy, x: dy * 2 * (x - target), X[0]).holds
    wrong = check.function_gradients(loss, lambda dy, x: dy * (x - target), X[0])
    assert str(wrong) == "dx is 1/2 of the right one"
    forgotten = check.function_gradients(loss, lambda dy, x: 2 * (x - target), X[0])
    assert str(forgotten) == "dx is right for dy = 1 only: it does not depend on dy"


def test_a_function_of_two_arrays_and_a_constant():
    def bend(x, y, power):
        return (x * y) ** power

    def backward(dy, x, y, power):
        inner = dy * power * (x * y) ** (power - 1)
        return inner * y, inner * x

    result = check.function_gradients(bend, backward, X, X + 1, 3)
    assert result.holds
    assert [one.name for one in result.inputs] == ["x", "y"]  # an integer has no gradient
    swapped = check.function_gradients(bend, lambda *all: backward(*all)[::-1], X, X + 1, 3)
    assert swapped.wrong == ["x", "y"]
    assert str(swapped) == "dx is exchanged with dy; also wrong: dy"
    assert check.function_gradients(
        bend, lambda *all: backward(*all)[:1], X, X + 1, 3.0, constants=["y", "power"]
    ).holds


# ------------------------------------------------------------------------- what cannot be measured


@pytest.mark.parametrize("at", [0.0, 1e-12, -1e-12])
def test_a_kink_is_called_a_kink(at):
    """At 0, and so near to it that no step stays on one side, the measured slope means nothing."""
    x = X.copy()
    x[1, 2] = at
    result = check.op_gradients(ops.relu, ops.relu_backward, x)
    assert not result.holds
    assert "cannot be measured at these inputs, as steps of different size disagree" in str(result)


def test_near_a_kink_smaller_steps_are_taken():
    x = X.copy()
    x[1, 2] = 2e-6
    assert check.op_gradients(ops.relu, ops.relu_backward, x).holds
    wrong = check.op_gradients(ops.relu, lambda dy, x: dy * (x > 1e-5), x)
    assert wrong.wrong == ["x"]
    assert "cannot be measured" not in str(wrong)


def test_the_edge_of_a_domain_cannot_be_measured():
    x = np.array([0.0, 1.0])
    with np.errstate(invalid="ignore"):
        result = check.function_gradients(np.sqrt, lambda dy, x: dy, x, names=["x"])
    assert not result.holds
    assert "cannot be measured" in str(result)


# ------------------------------------------------------------------------- what a caller does wrong


INFINITE = np.full((3, 4), np.inf)
CALLS = [
    (TypeError, "weight is float32, expected float64", {"weight": WEIGHT.astype("float32")}),
    (TypeError, "x is float16, expected float64", {"x": X.astype("float16")}),
    (TypeError, "x is complex128, expected float64", {"x": X.astype(complex)}),
    (TypeError, "x is object, expected float64", {"x": np.array([[None] * 4])}),
    (TypeError, "bias is <U3, expected float64", {"bias": "abc"}),
    (ValueError, "weight has values that are not finite", {"weight": INFINITE}),
    (ValueError, "inputs: got no float64 array", {"constants": ["x", "weight", "bias"]}),
    (ValueError, r"constants: got \['dx'\], expected names out of", {"constants": ["dx"]}),
    (ValueError, r"names: got \['a', 'b'\], expected 3 different", {"names": ["a", "b"]}),
    (ValueError, r"names: got .*, expected 3 different ones", {"names": ["a", "b", "a"]}),
    (ValueError, "directions: got 0, expected at least 1", {"directions": 0}),
    (ValueError, "tolerance: got 0, expected a positive number", {"tolerance": 0}),
    (ValueError, "tolerance: got nan, expected a positive number", {"tolerance": float("nan")}),
]


@pytest.mark.parametrize(("error", "message", "changes"), CALLS)
def test_what_a_caller_does_wrong_is_an_error(error, message, changes):
    with pytest.raises(error, match=message):
        linear(**changes)


def test_what_a_pass_raises_is_not_caught():
    with pytest.raises(ZeroDivisionError):
        check.op_gradients(ops.relu, lambda dy, cache: 1 / 0, X)
    with pytest.raises(TypeError, match="positional"):
        check.op_gradients(ops.linear, ops.linear_backward, X)


def test_names_without_a_signature():
    """Of a builtin, and of a function that takes any number of arrays."""
    result = check.function_gradients(lambda *xs: xs[0] * xs[1], lambda dy, a, b: (dy, dy), X, X)
    assert result.wrong == ["input_0", "input_1"]
    assert check.function_gradients(np.exp, lambda dy, x: dy * np.exp(x), X).holds


def test_only_numpy_and_the_textbook_are_imported():
    allowed = {"miniclip.check", "miniclip.ops", "miniclip.files"}
    code = "import sys, miniclip.check; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = run.stdout.split()
    ours = {".".join(n.split(".")[:2]) for n in names if n.startswith("miniclip.")}
    assert ours <= allowed
    assert not {"torch", "numba", "PIL", "matplotlib", "tqdm", "pytest"} & set(names)
