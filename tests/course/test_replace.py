"""A learner's functions inside a model, and a breakpoint by name."""

import io
import sys

import numpy as np
import pytest
from pipelines import make_pipeline

import miniclip
from miniclip import ops
from miniclip.backends import numpy as numpy_backend
from miniclip.course import predicted, replace, stop_at
from miniclip.models import CLIP

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return miniclip.load("mini-vit", backend="numpy")


@pytest.fixture(scope="module")
def image(model):
    size = model.config.vision.image_resolution
    return RNG.standard_normal((2, 3, size, size)).astype("float32")


def gradient(model, image):
    """The gradient of the pixels, and of a parameter of each kind."""
    network = model.network
    network.zero_grad()
    with network.record():
        y = network.visual(image)
        dimage = network.visual.backward(np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape))
    named = dict(network.named_parameters())
    block = "visual.transformer.resblocks.1"
    return [dimage, *(named[f"{block}.{n}"].grad for n in ("ln_1.weight", "mlp.c_fc.bias"))]


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


def layer_norm_backward(dy, x, weight, eps):
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=-1, keepdims=True)) / std
    d = dy * weight
    along = (d * x_hat).mean(axis=-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    dx = (d - d.mean(axis=-1, keepdims=True) - x_hat * along) / std
    return dx, (dy * x_hat).sum(rows), dy.sum(rows)


def linear_backward(dy, x, weight):
    drows, rows = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
    return dy @ weight, drows.T @ rows, drows.sum(0)


def softmax_backward(dy, y):
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize(
    ("name", "functions", "backward_runs"),
    [
        ("layer_norm", {"forward": layer_norm, "backward": layer_norm_backward}, True),
        ("layer_norm", {"backward": layer_norm_backward}, True),
        ("layer_norm", {"forward": layer_norm}, True),
        ("linear", {"backward": linear_backward}, True),
        ("softmax", {"backward": softmax_backward}, True),
        ("quick_gelu", {"forward": lambda x: x / (1 + np.exp(-1.702 * x))}, True),
    ],
)
def test_the_answer_stays_the_same(name, functions, backward_runs, model, image):
    ours = gradient(model, image)
    with replace(name, **functions) as used:
        theirs = gradient(model, image)
    assert used.forward > 1
    assert (used.backward > 1) == backward_runs
    for a, b in zip(ours, theirs, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, atol=1e-4 * np.abs(a).max())
    again = gradient(model, image)
    assert all(np.array_equal(a, b) for a, b in zip(ours, again, strict=True))


def test_a_wrong_one_changes_the_answer(model, image):
    ours = gradient(model, image)[0]
    with replace("layer_norm", backward=lambda dy, x, weight: (dy, 0 * weight, 0 * weight)):
        theirs = gradient(model, image)[0]
    assert not np.allclose(ours, theirs, atol=1e-2 * np.abs(ours).max())


def test_a_pair_with_a_cache_of_its_own(model, image):
    def forward(x):
        s = 1 / (1 + np.exp(-1.702 * x))
        return x * s, (x, s)

    def backward(dy, cache):
        x, s = cache
        return dy * (s + 1.702 * x * s * (1 - s))

    ours = gradient(model, image)[0]
    with replace("quick_gelu", forward, backward):
        theirs = gradient(model, image)[0]
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(ours).max())


def test_everything_is_as_before():
    before = ops.layer_norm, numpy_backend.layer_norm, ops.norm.layer_norm_backward
    with replace("layer_norm", layer_norm):
        assert numpy_backend.layer_norm is not before[1]
        numpy_backend.layer_norm(np.ones((2, 3)), np.ones(3), np.ones(3))
    assert (ops.layer_norm, numpy_backend.layer_norm, ops.norm.layer_norm_backward) == before
    with pytest.raises(ZeroDivisionError), replace("layer_norm", layer_norm):
        raise ZeroDivisionError
    assert (ops.layer_norm, numpy_backend.layer_norm, ops.norm.layer_norm_backward) == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("layernorm", layer_norm),
            ValueError,
            "name: got 'layernorm', expected.*layer_norm",
        ),
        (("layer_norm",), ValueError, "forward: got None, and so is backward"),
        (
            ("linear", layer_norm),
            ValueError,
            "layer_norm: has a parameter 'eps', expected",
        ),
    ],
)
def test_wrong_calls(arguments, error, message):
    with pytest.raises(error, match=message), replace(*arguments):
        pass


def test_a_block_that_does_not_use_it():
    with pytest.raises(RuntimeError, match=r"layer_norm was not called.*backend='numpy'"):  # noqa: SIM117
        with replace("layer_norm", layer_norm):
            pass


# ------------------------------------------------------------------------ stop_at


NAME = "visual.transformer.resblocks.1.attn"


def run_with_pdb(monkeypatch, capsys, commands, call):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(commands) + "\n"))
    call()
    return capsys.readouterr().out


def test_stops_at_the_first_line_of_forward_once(model, image, monkeypatch, capsys):
    stop_at(NAME, model)
    commands = ["p 'heads', self.heads", "w", "c"]
    out = run_with_pdb(monkeypatch, capsys, commands, lambda: model.network.visual(image))
    assert "attention.py" in out
    assert "-> ops = self.ops" in out
    assert "('heads', 4)" in out
    assert run_with_pdb(monkeypatch, capsys, [], lambda: model.network.visual(image)) == ""


def test_without_a_model_those_in_memory(model, image, monkeypatch, capsys):
    stop_at(NAME)
    out = run_with_pdb(monkeypatch, capsys, ["c"], lambda: model.network.visual(image))
    assert "-> ops = self.ops" in out


def test_wrong_names(model):
    with pytest.raises(ValueError, match=r"name: got 'visual.transformer.resblock.1.attn'"):
        stop_at("visual.transformer.resblock.1.attn", model)
    with pytest.raises(ValueError, match="model: got a str, expected what load returns"):
        stop_at(NAME, "mini-vit")


def test_a_model_with_plans_is_refused():
    pytest.importorskip("numba")
    network = CLIP(make_pipeline().config).to("numba")
    name = next(name for name, _ in network.named_modules() if name.endswith("ln_post"))
    with pytest.raises(ValueError, match="is on backend 'numba', expected 'numpy'"):
        stop_at(name, network)


# ------------------------------------------------------------------------ predicted


@pytest.mark.parametrize(
    ("guess", "right", "said"),
    [
        (..., 2.0, "It is 2.0. Next time write your own guess first.\n"),
        (2, 2.001, "Yes: 2.001.\n"),
        (1, 2, "You said 1; it is 2.\n"),
        ([1, 2], np.array([1, 2]), "Yes: [1.0, 2.0].\n"),
        ([1], np.array([1, 2]), "You said [1]; it is [1.0, 2.0].\n"),
        ("circle", "circle", "Yes: circle.\n"),
        (None, 2, "You said None; it is 2.\n"),
    ],
)
def test_predictions(guess, right, said, capsys):
    predicted(guess, right)
    assert capsys.readouterr().out == said
