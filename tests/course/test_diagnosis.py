"""Which term is wrong: exact words for wrong numbers of every kind."""

import numpy as np
import pytest

from miniclip.course import check


def parts(x, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    inv_std = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return centred * inv_std, inv_std


def mean(x):
    return x.mean(axis=-1, keepdims=True)


def rows(x):
    return tuple(range(x.ndim - 1))


def layer_norm_with(dx):
    """A backward pass whose dx is a function of (dx_hat, x_hat, inv_std, dy, weight)."""

    def answer(dy, x, weight, eps):
        x_hat, inv_std = parts(x, eps)
        wrong = dx(dy * weight, x_hat, inv_std, dy, weight)
        return wrong, (dy * x_hat).sum(rows(x)), dy.sum(rows(x))

    return answer


MEAN, VARIANCE = (
    "the path through the mean (- mean(dx_hat))",
    "the path through the variance (- x_hat mean(dx_hat x_hat))",
)


@pytest.mark.parametrize(
    ("dx", "words"),
    [
        (lambda d, h, s, dy, w: s * (d - h * mean(d * h)), f"{MEAN} is missing"),
        (lambda d, h, s, dy, w: s * (d - mean(d)), f"{VARIANCE} is missing"),
        (lambda d, h, s, dy, w: s * (d + mean(d) - h * mean(d * h)), f"{MEAN} has the opposite"),
        (lambda d, h, s, dy, w: s * d, f"{MEAN} is missing and {VARIANCE} is missing"),
        (lambda d, h, s, dy, w: s * (d - mean(d) - 0.5 * h * mean(d * h)), f"{VARIANCE} is 1/2 of"),
        (lambda d, h, s, dy, w: s * (d - mean(d) - s * h * mean(d * h)), f"{VARIANCE} is off by a"),
        (lambda d, h, s, dy, w: 2 * s * (d - mean(d) - h * mean(d * h)), ": it is 2 times the rig"),
        (lambda d, h, s, dy, w: -s * (d - mean(d) - h * mean(d * h)), ": it has the opposite sign"),
        (lambda d, h, s, dy, w: 0 * d, ": it is zero everywhere"),
        (lambda d, h, s, dy, w: s * (dy - mean(dy) - h * mean(dy * h)), "comes out without weight"),
        (
            lambda d, h, s, dy, w: s * (dy / w - mean(dy / w) - h * mean(dy / w * h)),
            "with dy / weight for dy * weight",
        ),
        (lambda d, h, s, dy, w: d - mean(d), "not divided by the standard deviation, and the path"),
        (lambda d, h, s, dy, w: s * np.sin(d), "no single term, sign or factor explains it; most"),
    ],
)
def test_layer_norm(dx, words):
    message = check.verdict("layer_norm_backward", layer_norm_with(dx))
    assert words in message
    assert message.startswith("dx disagrees with measured slopes by ")


def test_right_is_right():
    right = layer_norm_with(lambda d, h, s, dy, w: s * (d - mean(d) - h * mean(d * h)))
    assert check.verdict("layer_norm_backward", right) == ""


def linear_with(dx=lambda dy, x, w: dy @ w, dweight=None, dbias=None):
    def answer(dy, x, weight):
        drows, flat = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        right = drows.T @ flat
        return (
            dx(dy, x, weight),
            right if dweight is None else dweight(drows, flat, weight),
            drows.sum(0) if dbias is None else dbias(drows, flat, weight),
        )

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (linear_with(dweight=lambda d, x, w: x.T @ d), "(3, 8), expected (8, 3): it is transposed"),
        (linear_with(dbias=lambda d, x, w: d.mean(0)), "it is 1/7 of the right one (7 is dy.shape"),
        (
            linear_with(dbias=lambda d, x, w: d),
            "has shape (7, 8), expected (8,): it is not summed",
        ),
        (linear_with(dbias=lambda d, x, w: d[0]), "it is the first row of dy"),
        (linear_with(lambda dy, x, w: dy @ w + x), "it has 1 times x too much"),
        (linear_with(lambda dy, x, w: np.abs(dy) @ w), "it is what comes out with |dy| for dy"),
        (linear_with(lambda dy, x, w: np.ones_like(dy) @ w), "right for dy = 1 only: it does not"),
        (linear_with(lambda dy, x, w: dy @ w[:, ::-1]), "it is reversed along axis 1"),
        (linear_with(lambda dy, x, w: (dy @ w)[..., None]), "it has the right numbers in another"),
        (linear_with(dweight=lambda d, x, w: d[1:].T @ x[1:]), "without the first row"),
    ],
)
def test_linear(answer, words):
    assert words in check.verdict("linear_backward", answer)


def test_several_outputs_are_named():
    answer = linear_with(lambda dy, x, w: 2 * dy @ w, dbias=lambda d, x, w: -d.sum(0))
    message = check.verdict("linear_backward", answer)
    assert message.startswith("dx disagrees with measured slopes by ")
    assert ": it is 2 times the right one" in message
    assert message.endswith("; also wrong: dbias")


def test_exchanged_outputs():
    def answer(dy, x, weight, eps):
        x_hat, inv_std = parts(x, eps)
        d = dy * weight
        dx = inv_std * (d - mean(d) - x_hat * mean(d * x_hat))
        return dx, dy.sum(rows(x)), (dy * x_hat).sum(rows(x))

    assert "dweight disagrees" in check.verdict("layer_norm_backward", answer)
    assert "it is exchanged with dbias" in check.verdict("layer_norm_backward", answer)


def test_what_is_right_for_few_inputs_only():
    """A check looks at more than one shape: this one is right without leading axes."""

    def answer(dy, x, weight):
        return dy @ weight, dy.T @ x, dy.sum(0)

    message = check.verdict("linear_backward", answer)
    assert "raised ValueError" in message or "has shape" in message


def test_wrong_for_another_dy_only():
    """An answer that is right for the dy of the entries, but not for that of the slopes."""
    exercise = check.softmax_backward
    known = [exercise.arguments(values, 0)["dy"] for values in exercise.cases(0)]

    def answer(dy, y):
        seen = any(dy.shape == k.shape and np.allclose(dy, k) for k in known)
        dx = y * (dy - (dy * y).sum(-1, keepdims=True))
        return dx if seen else 2 * dx

    assert exercise.verdict(answer) == "dx is 2 times the right one"
