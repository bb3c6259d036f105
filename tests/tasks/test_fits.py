"""The fit behind the probes: L-BFGS by the book, the objective, and what is refused."""

import inspect

import numpy as np
import pytest
import torch

from miniclip.tasks import lbfgs, linear_probe
from miniclip.tasks.linear_probe import LinearProbe, Standardised

# ------------------------------------------------------------------------ L-BFGS


def dense_inverse_hessian(history, size):
    """BFGS with whole matrices (Nocedal and Wright 2006, equations 6.17 and 7.20)."""
    step, change = history[-1]
    inverse = np.eye(size) * (step @ change) / (change @ change)
    for step, change in history:
        rho = 1 / (step @ change)
        left = np.eye(size) - rho * np.outer(step, change)
        inverse = left @ inverse @ left.T + rho * np.outer(step, step)
    return inverse


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_two_loops_are_bfgs(count):
    rng = np.random.default_rng(count)
    root = rng.standard_normal((6, 6))
    hessian = root @ root.T + np.eye(6)
    history = [(step, hessian @ step) for step in rng.standard_normal((count, 6))]
    gradient = rng.standard_normal(6)
    expected = dense_inverse_hessian(history, 6) @ gradient
    np.testing.assert_allclose(lbfgs.inverse_hessian_times(gradient, history), expected)
    np.testing.assert_array_equal(lbfgs.inverse_hessian_times(gradient, []), gradient)


def tries(values, value=1.0, slope=-1.0):
    """The sizes that the line search tries where the function has these values, and its answer."""
    sizes, answers = [], iter(values)

    def function(x):
        sizes.append(float(x[0]))
        return next(answers), np.array([7.0])

    found = lbfgs.line_search(
        function, np.array([0.0]), value, np.array([slope]), np.array([1.0])
    )  # fmt: skip
    return sizes, found


def test_a_step_is_halved_until_it_descends():
    sizes, (x, value, gradient) = tries([2.0, 1.0, 0.9])
    assert (sizes, x, value, gradient) == ([1, 0.5, 0.25], [0.25], 0.9, [7.0])
    sizes, found = tries([2.0] * 100)
    assert (sizes, found) == ([0.5**i for i in range(40)], None)


def test_a_step_descends_by_a_ten_thousandth_of_what_the_slope_promises():
    """On both sides of Armijo's bound, at a whole step and at half of one; slopes of another size.

    At the bottom 1e-14 of the value is rounding, also of a negative one; at the bound itself a step
    is taken.
    """
    for values, value, slope, taken in [
        ([1 - 1.1e-4], 1.0, -1.0, 1),
        ([1 - 0.9e-4, 0.0], 1.0, -1.0, 2),
        ([1.0, 1 - 0.55e-4], 1.0, -1.0, 2),
        ([1.0, 1 - 0.45e-4, 0.0], 1.0, -1.0, 3),
        ([1 - 3.9e-4, 0.0], 1.0, -4.0, 2),
        ([1 - 4.1e-4], 1.0, -4.0, 1),
        ([1e6 + 0.9e-8], 1e6, -1e-20, 1),
        ([1e6 + 1.4e-8, 0.0], 1e6, -1e-20, 2),
        ([-1e6 + 0.9e-8], -1e6, -1e-20, 1),
        ([-1e6 + 1.4e-8, -2e6], -1e6, -1e-20, 2),
        ([0.0], 0.0, 0.0, 1),
    ]:
        sizes, found = tries(values, value, slope)
        assert (len(sizes), found[1]) == (taken, values[-1])


def linear(slope):
    return lambda x: (float(slope * x[0]), np.array([slope, 0.0]))


def test_minimising_ends_where_the_gradient_is_small():
    """Of its numbers the largest counts, whatever its sign; at the tolerance it ends."""
    start = np.array([3.0, 5.0])
    for slope, tolerance, steps in [
        (1e-6, {}, 0), (-1e-6, {}, 0), (1.5e-6, {}, 1), (-1.5e-6, {}, 1),
        (0.5, {"tolerance": 0.5}, 0), (0.5, {"tolerance": 0.4}, 1), (-0.5, {"tolerance": 0.4}, 1),
    ]:  # fmt: skip
        found = lbfgs.minimise(linear(slope), start, steps=1, **tolerance)
        np.testing.assert_allclose(found, start - [steps * slope, 0], rtol=1e-12)


def test_minimising_ends_after_its_steps():
    """A straight slope has no end, and no curvature to learn from: each step is the gradient."""
    start = np.array([0.0, 1.0])
    for more, steps in (({}, 1000), ({"steps": 7}, 7), ({"steps": 0}, 0)):
        np.testing.assert_allclose(lbfgs.minimise(linear(-1.0), start, **more), [steps, 1])


def test_minimising_ends_where_nothing_descends():
    calls = []

    def rising(x):  # its gradient points the wrong way
        calls.append(x)
        return float(-x[0]), np.array([1.0])

    np.testing.assert_array_equal(lbfgs.minimise(rising, np.array([2.0])), [2.0])
    assert len(calls) == 41


@pytest.mark.parametrize(("more", "longest"), [({}, 10), ({"memory": 3}, 3)])
def test_the_last_steps_are_remembered(monkeypatch, more, longest):
    """Each with the change of the gradient that it made."""
    seen = []
    two_loops = lbfgs.inverse_hessian_times

    def noted(gradient, history):
        seen.append([(step.copy(), change.copy()) for step, change in history])
        return two_loops(gradient, history)

    monkeypatch.setattr(lbfgs, "inverse_hessian_times", noted)
    hessian = np.diag(np.geomspace(1e-3, 1, 25))
    start = np.ones(25)
    lbfgs.minimise(lambda x: (float(x @ hessian @ x / 2), hessian @ x), start, steps=20, **more)
    assert [len(history) for history in seen] == [min(i, longest) for i in range(20)]
    for step, change in seen[-1]:
        np.testing.assert_allclose(change, hessian @ step, atol=1e-12)
    assert np.abs(seen[2][0][0]).max() > 0.1
    for older, newer in zip(seen[-2][1:], seen[-1], strict=False):
        np.testing.assert_array_equal(older[0], newer[0])


def test_small_curvature_is_learned_from():
    """Steps and changes whose product is far below 1."""
    scale = 1e-3
    calls = []

    def bowl(x):
        calls.append(x)
        return float(scale * (x @ x) / 2), scale * x

    found = lbfgs.minimise(bowl, np.full(3, 0.5), tolerance=1e-9)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    assert len(calls) < 5  # the second step is Newton's


# ------------------------------------------------------------------------ the objective


def test_the_loss_is_torchs():
    """At a point that is no optimum; x, weights and classes of unequal sizes."""
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((7, 4)), np.array([0, 2, 1, 1, 0, 2, 2])
    weight, bias = rng.standard_normal((4, 3)), rng.standard_normal(3)
    parameters = np.concatenate([weight.ravel(), bias])
    for got, expected in zip(linear_probe.split(parameters, 4, 3), (weight, bias), strict=True):
        np.testing.assert_array_equal(got, expected)
    w, b = (torch.tensor(v, requires_grad=True) for v in (weight, bias))
    loss = torch.nn.functional.cross_entropy(torch.tensor(x) @ w + b, torch.tensor(targets))
    loss = loss + 0.7 / 2 * (w**2).sum()
    loss.backward()
    value, gradient = linear_probe.loss_and_gradient(parameters, x, targets, 3, 0.7)
    assert value == pytest.approx(loss.item())
    assert type(value) is float
    np.testing.assert_allclose(gradient, np.concatenate([w.grad.ravel(), b.grad]))


def test_two_examples_have_their_solution_in_closed_form():
    """Standardised they are -1 and 1, and the weights of the two classes w and -w."""
    x, labels = np.array([[10.0], [30.0]]), np.array(["b", "a"])
    for l2 in (0.1, 1.0, 3.0):
        probe = LinearProbe(l2).fit(x, labels)
        w = float(probe.weight_[0, 0]) * 10  # of class "a", for the standardised feature
        # loss = log(1 + exp(-2 w)) + l2 / 2 * 2 w^2, whose slope is zero
        assert -2 / (1 + np.exp(2 * w)) + 2 * l2 * w == pytest.approx(0, abs=1e-5)
        np.testing.assert_allclose(probe.decision_function(np.array([[20.0]])), 0, atol=1e-6)
        assert probe.predict(x).tolist() == ["b", "a"]
        assert probe.weight_[0, 1] == pytest.approx(-w / 10)
    usual, one = LinearProbe(), LinearProbe(1.0)
    assert repr(usual) == repr(one) == "LinearProbe(l2=1.0)"
    np.testing.assert_array_equal(usual.fit(x, labels).weight_, one.fit(x, labels).weight_)


def test_examples_are_standardised():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8, 3)) * [1, 20, 0.1] + [5, -7, 0.3]
    labels = np.array([3, 1, 3, 1, 2, 2, 3, 1])
    found = Standardised.of(x, labels)
    np.testing.assert_allclose(found.mean, x.mean(axis=0))
    np.testing.assert_allclose(found.deviation, x.std(axis=0))
    whole = found.short @ found.basis.T
    np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(whole.std(axis=0), 1)
    assert found.classes.tolist() == [1, 2, 3]
    assert found.targets.tolist() == [2, 0, 2, 0, 1, 1, 2, 0]


def test_columns_that_hardly_change_are_constant():
    """Up to rounding, a trillionth of the largest number of the column."""
    column = np.array([[0.0, 5.0, 1 - 0.5e-12, 1 - 1.5e-12, -4.0 - 2e-12, -4 - 6e-12],
                       [0.0, 5.0, 1 + 0.5e-12, 1 + 1.5e-12, -4.0 + 2e-12, -4 + 6e-12]])  # fmt: skip
    found = linear_probe.spread(column)
    np.testing.assert_array_equal(found[[0, 1, 2, 4]], 1)
    np.testing.assert_allclose(found[[3, 5]], [1.5e-12, 6e-12], rtol=1e-3)
    np.testing.assert_allclose(linear_probe.spread(np.array([[1.0, 2], [3, 8]])), [1, 3])


def test_as_many_rows_as_columns_are_left_as_they_are():
    for n, d in ((4, 4), (5, 4)):
        x = np.random.default_rng(0).standard_normal((n, d))
        short, axes = linear_probe.shortened(x)
        assert short is x
        np.testing.assert_array_equal(axes, np.eye(d))
    short, axes = linear_probe.shortened(np.random.default_rng(0).standard_normal((4, 5)))
    assert (short.shape, axes.shape) == ((4, 4), (5, 4))


# ------------------------------------------------------------------------ checks


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8])
def test_numbers_of_all_kinds_are_features(dtype):
    x = np.array([[1, 2], [3, 5], [0, 1]], dtype)
    found = linear_probe.check_features(x)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, x)
    wide = x.astype(np.float64)
    assert linear_probe.check_features(wide) is wide
    assert linear_probe.check_features(np.array([[3.0]])).tolist() == [[3.0]]  # one number


def message_of(call):
    with pytest.raises(ValueError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(3), "features: got float64 of shape (3,), expected numbers (N, D)"),
        (np.zeros((2, 3, 4)), "features: got float64 of shape (2, 3, 4), expected numbers (N, D)"),
        (np.zeros((0, 3)), "features: got float64 of shape (0, 3), expected numbers (N, D)"),
        (np.zeros((3, 0)), "features: got float64 of shape (3, 0), expected numbers (N, D)"),
        (np.zeros((2, 2), bool), "features: got bool of shape (2, 2), expected numbers (N, D)"),
        (np.zeros((2, 2), complex), "features: got complex128 of shape (2, 2), expected numbers "
         "(N, D)"),
        (np.array([["a"]]), "features: got <U1 of shape (1, 1), expected numbers (N, D)"),
        (np.array([[1.0, np.inf]]), "features: got numbers that are not finite, expected finite "
         "ones"),
        (np.array([[np.nan]]), "features: got numbers that are not finite, expected finite ones"),
    ],
)  # fmt: skip
def test_what_is_no_feature(features, message):
    assert message_of(lambda: linear_probe.check_features(features)) == message


def test_labels_are_integers_or_strings():
    x = np.array([[1.0], [2.0]])
    for labels in ([1, 2], ["a", "b"], np.array([1, 2], np.uint8), [True, False]):
        got, y = linear_probe.check_examples(x, labels)
        assert (got is x, y.tolist()) == (True, list(labels))
    for labels, what in [
        ([1], "int64 of shape (1,)"), ([1, 2, 3], "int64 of shape (3,)"),
        ([[1], [2]], "int64 of shape (2, 1)"), ([0.5, 1.5], "float64 of shape (2,)"),
        ([None, "a"], "object of shape (2,)"), (1, "int64 of shape ()"),
        ([b"a", b"b"], "|S1 of shape (2,)"), ([[0.5], [1.5]], "float64 of shape (2, 1)"),
    ]:  # fmt: skip
        assert message_of(lambda labels=labels: linear_probe.check_examples(x, labels)) == (
            f"labels: got {what}, expected 2 integers or strings"
        )
    for labels, one in (([4, 4], "4"), (["a", "a"], "'a'")):
        message = message_of(lambda labels=labels: LinearProbe().fit(x, labels))
        assert message.startswith("labels: got only ")
        assert message.endswith("expected two or more classes")
        assert one in message


@pytest.mark.parametrize("l2", [0, -1.0, np.inf, -np.inf, np.nan])
def test_a_penalty_is_positive(l2):
    message = f"l2: got {l2}, expected a positive number"
    assert message_of(lambda: linear_probe.check_l2(l2)) == message
    for fine in (1e-300, 0.5, 1, 3):
        assert linear_probe.check_l2(fine) == fine
    assert type(linear_probe.check_l2(1)) is float


def test_new_features_are_as_many_as_before():
    x = np.random.default_rng(0).standard_normal((9, 3))
    probe = LinearProbe().fit(x, np.arange(9) % 2)  # two classes, three features
    assert probe.decision_function(x[:1]).shape == (1, 2)
    for width in (2, 4):
        message = message_of(lambda width=width: probe.predict(np.zeros((5, width))))
        assert message == f"features: got {width} numbers a row, expected 3 as in fit"
    assert message_of(lambda: LinearProbe().predict(x)) == (
        "LinearProbe: nothing is learned yet, expected fit before this call"
    )
    # the share, of labels of its own
    labels = probe.predict(x)
    labels[:3] = 1 - labels[:3]
    assert (probe.score(x, labels), type(probe.score(x, labels))) == (6 / 9, float)


def test_the_defaults_are_those_of_the_documents():
    defaults = {name: p.default for name, p in inspect.signature(lbfgs.minimise).parameters.items()}
    assert (defaults["tolerance"], defaults["steps"], defaults["memory"]) == (1e-6, 1000, 10)
