"""Where numbers end: huge logits, constant rows, zero vectors, one image, half precision."""

import math
from types import SimpleNamespace

import backends_here
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import BY_NAME, Sample
from op_checks import check_against_torch, to_backend

from miniclip import backends, ops

SDPA = "scaled_dot_product_attention"
BACKENDS = pytest.mark.parametrize("name", backends_here.NAMES)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def call(backend, op, *inputs, dtype, **options):
    """The op on arrays of this dtype; y and the cache."""
    arrays = [
        x if x is None or not np.issubdtype(np.asarray(x).dtype, np.floating)
        else np.asarray(x).astype(dtype)
        for x in inputs
    ]  # fmt: skip
    return getattr(backend, op)(*(to_backend(backend, a) for a in arrays), **options)


def gradients(backend, op, dy, cache, dtype):
    got = getattr(backend, f"{op}_backward")(to_backend(backend, np.asarray(dy, dtype)), cache)
    got = got if isinstance(got, tuple) else (got,)
    return [None if g is None else backend.to_numpy(g) for g in got]


@BACKENDS
@DTYPES
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_softmax_of_huge_logits(name, dtype, size):
    backend = backends_here.load(name)
    x = np.array([[size, 0.0, -size], [size, size, size], [0.0, size, size / 2]])
    y, cache = call(backend, "softmax", x, dtype=dtype)
    expected = F.softmax(torch.tensor(x), -1).numpy()
    np.testing.assert_allclose(backend.to_numpy(y), expected, atol=1e-7)
    (dx,) = gradients(backend, "softmax", np.ones((3, 3)), cache, dtype)
    np.testing.assert_allclose(dx, 0, atol=1e-6)  # ones: the sum of a softmax does not change


@BACKENDS
@DTYPES
def test_softmax_with_hidden_entries(name, dtype):
    backend = backends_here.load(name)
    x = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 3.0]])
    y, cache = call(backend, "softmax", x, dtype=dtype)
    np.testing.assert_allclose(backend.to_numpy(y), F.softmax(torch.tensor(x), -1), atol=1e-7)
    (dx,) = gradients(backend, "softmax", np.arange(6.0).reshape(2, 3), cache, dtype)
    assert np.isfinite(dx).all()
    assert dx[0, 1] == dx[1, 0] == dx[1, 1] == 0


@BACKENDS
@DTYPES
def test_rows_without_an_entry_above_eps_become_zero(name, dtype):
    backend = backends_here.load(name)
    x = np.array([[0.3, 0.4], [0.6, 0.8], [-0.6, 0.8], [0.5, 0.5]])
    y, cache = call(backend, "l2_normalize", x, 0.5, dtype=dtype)
    expected = [[0, 0], [0.6, 0.8], [-0.6, 0.8], [0, 0]]
    np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-6)
    (dx,) = gradients(backend, "l2_normalize", np.ones((4, 2)), cache, dtype)
    assert (dx[0] == 0).all()
    assert (dx[1] != 0).all()


@BACKENDS
@DTYPES
def test_losses_at_huge_logits(name, dtype):
    """At a scale of 1e4 a wrong answer costs 1e4 and a right one nothing; nothing is infinite."""
    backend = backends_here.load(name)
    logits = np.array([[1e4, -1e4], [1e4, -1e4]])
    loss, cache = call(backend, "cross_entropy", logits, np.array([0, 1]), dtype=dtype)
    np.testing.assert_allclose(float(loss), 1e4)  # (0 + 2e4) / 2
    (dlogits,) = gradients(backend, "cross_entropy", 1.0, cache, dtype)
    np.testing.assert_allclose(dlogits, [[0, 0], [0.5, -0.5]], atol=1e-7)

    for op, extra in (("contrastive_loss", []), ("sigmoid_loss", [np.array(0.0)])):
        features = np.array([[1.0, 0.0], [-1.0, 0.0]])
        for texts in (features, features[::-1]):
            inputs = [features, texts, np.array(np.log(1e4)), *extra]
            sample = Sample(dict(zip(names_of(op), [*inputs, None], strict=True)))
            loss, cache = call(backend, op, *inputs, dtype=dtype)
            expected = BY_NAME[op].torch(*(as_torch(x) for x in sample.inputs.values()))
            np.testing.assert_allclose(float(loss), float(expected), rtol=1e-5, atol=1e-6)
            assert all(np.isfinite(g).all() for g in gradients(backend, op, 1.0, cache, dtype))


def names_of(op):
    names = ["images", "texts", "log_scale", "bias", "targets"]
    return names if op == "sigmoid_loss" else [n for n in names if n != "bias"]


def as_torch(x):
    return None if x is None else torch.tensor(np.array(x))


@BACKENDS
@DTYPES
def test_contrastive_loss_of_one_pair_is_zero(name, dtype):
    """ln 1: with one image and one text there is nothing to choose, and nothing to learn."""
    backend = backends_here.load(name)
    one = np.array([[0.6, 0.8]])
    loss, cache = call(backend, "contrastive_loss", one, -one, np.array(4.6), dtype=dtype)
    assert float(loss) == 0
    assert all(np.all(g == 0) for g in gradients(backend, "contrastive_loss", 1.0, cache, dtype))


@BACKENDS
@pytest.mark.parametrize("op", ["contrastive_loss", "sigmoid_loss"])
def test_losses_need_to_know_what_belongs_together(name, op):
    """As many texts as images, or targets of the logits' shape; anything else is no number."""
    backend = backends_here.load(name)
    extra = [np.array(0.0)] if op == "sigmoid_loss" else []
    inputs = [np.eye(3, 4), np.eye(2, 4), np.array(1.0), *extra]
    with pytest.raises(ValueError, match=r"targets: got None for logits \(3, 2\), expected pairs"):
        call(backend, op, *inputs, dtype="float64")
    with pytest.raises(ValueError, match=r"targets: got \(2, 3\), expected \(3, 2\)"):
        call(backend, op, *inputs, np.ones((2, 3)), dtype="float64")


@BACKENDS
@DTYPES
@pytest.mark.parametrize("value", [0.0, 3.0, -1e4])
def test_layer_norm_of_constant_rows(name, dtype, value):
    """No variance: the row becomes the bias; the gradient is finite, as eps stands in the root."""
    backend = backends_here.load(name)
    x = np.full((2, 8), value)
    weight, bias = np.linspace(0.5, 2, 8), np.linspace(-1, 1, 8)
    y, cache = call(backend, "layer_norm", x, weight, bias, dtype=dtype)
    np.testing.assert_allclose(backend.to_numpy(y), [bias, bias], atol=1e-6)
    dx, _, _ = gradients(backend, "layer_norm", np.ones((2, 8)), cache, dtype)
    assert np.isfinite(dx).all()
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-3)


@BACKENDS
@DTYPES
@pytest.mark.parametrize("width", [1, 2, 3])
def test_layer_norm_of_short_rows(name, dtype, width):
    """Too few entries for a relative bound in float32: against float64 by absolute error."""
    backend = backends_here.load(name)
    x = np.random.default_rng(0).standard_normal((4, width))
    y, cache = call(backend, "layer_norm", x, np.ones(width), np.zeros(width), dtype=dtype)
    t = torch.tensor(x, requires_grad=True)
    expected = F.layer_norm(t, (width,))
    np.testing.assert_allclose(backend.to_numpy(y), expected.detach(), atol=1e-5)
    dy = np.random.default_rng(1).standard_normal((4, width))
    dx = gradients(backend, "layer_norm", dy, cache, dtype)[0]
    (wanted,) = torch.autograd.grad(expected, t, torch.tensor(dy))
    np.testing.assert_allclose(dx, wanted, atol=2e-5)


@BACKENDS
@DTYPES
def test_zero_vectors_stay_zero(name, dtype):
    """And tiny or huge ones get unit length, though their squares would leave float32."""
    backend = backends_here.load(name)
    big = 3e38 if dtype == "float32" else 1e308
    x = np.array([[0.0, 0.0, 0.0], [big, 0.0, -big], [3e-11, 4e-11, 0.0]])
    y, cache = call(backend, "l2_normalize", x, dtype=dtype)
    expected = [[0, 0, 0], [0.5**0.5, 0, -(0.5**0.5)], [0.6, 0.8, 0]]
    np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-6)
    (dx,) = gradients(backend, "l2_normalize", np.ones((3, 3)), cache, dtype)
    assert np.isfinite(dx).all()
    assert np.all(dx[0] == 0)


@BACKENDS
@DTYPES
def test_activations_far_out(name, dtype):
    """At +-1e4 they are x or 0, their slopes 1 or 0, and nothing overflows on the way."""
    backend = backends_here.load(name)
    x = np.array([-1e4, -100.0, 100.0, 1e4])
    for op in ("relu", "quick_gelu", "gelu", "gelu_tanh"):
        y, cache = call(backend, op, x, dtype=dtype)
        np.testing.assert_allclose(backend.to_numpy(y), np.maximum(x, 0), atol=1e-30)
        (dx,) = gradients(backend, op, np.ones(4), cache, dtype)
        np.testing.assert_allclose(dx, [0, 0, 1, 1], atol=1e-30)


@BACKENDS
@DTYPES
def test_batch_norm_wants_two_values(name, dtype):
    backend = backends_here.load(name)
    inputs = np.ones((1, 3, 1, 1)), np.ones(3), np.zeros(3)
    with pytest.raises(ValueError, match="1 value per channel, expected at least 2"):
        call(backend, "batch_norm", *inputs, dtype=dtype)
    two = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    y, mean, var, _ = call(backend, "batch_norm", two, np.ones(1), np.zeros(1), dtype=dtype)
    np.testing.assert_allclose(backend.to_numpy(y).ravel(), [-1, 1], atol=1e-5)
    assert (float(mean[0]), float(var[0])) == (2, 2)  # the unbiased variance of 1 and 3


@BACKENDS
@pytest.mark.parametrize("op", ops.PAIRS)
@pytest.mark.parametrize("half", ["float16", "int64"])
def test_half_precision_is_refused(name, op, half):
    """By name, with what came and what was expected; integers where floats belong likewise."""
    backend = backends_here.load(name)
    inputs, options = example_of(op)
    first = next(n for n, x in inputs.items() if np.asarray(x).dtype.kind == "f")
    wrong = {n: x.astype(half) if np.asarray(x).dtype.kind == "f" else x for n, x in inputs.items()}
    with pytest.raises(TypeError, match=rf"{op}: {first} is {half}, expected a float32 or float64"):
        getattr(backend, op)(*(to_backend(backend, x) for x in wrong.values()), **options)


@BACKENDS
@pytest.mark.parametrize("op", ["linear", "conv2d", "layer_norm", "add_positions"])
def test_two_dtypes_are_refused(name, op):
    """They would silently become the wider one."""
    backend = backends_here.load(name)
    inputs, options = example_of(op)
    mixed = dict(inputs)
    second = list(inputs)[1]
    mixed[second] = inputs[second].astype(np.float32)
    with pytest.raises(TypeError, match=f"{op}: {second} is float32, expected float64 like x"):
        getattr(backend, op)(*(to_backend(backend, x) for x in mixed.values()), **options)


def example_of(op):
    """One valid call of the op: inputs in float64 by name, and options."""
    rng = np.random.default_rng(0)
    ids, image, vector = np.zeros((2, 3), int), rng.standard_normal((2, 4, 3, 3)), np.ones(4)
    tokens, unit, number = rng.standard_normal((2, 3, 4)), np.eye(3, 4), np.array(0.5)
    square, heads = rng.standard_normal((4, 4)), rng.standard_normal((2, 2, 3, 4))
    norm = {"x": image, "weight": vector, "bias": vector}
    examples = {
        "linear": {"x": tokens, "weight": square, "bias": vector},
        "conv2d": {"x": image, "weight": rng.standard_normal((4, 4, 3, 3)), "bias": vector},
        "batch_norm": norm,
        "batch_norm_inference": norm | {"running_mean": vector, "running_var": vector},
        "layer_norm": norm | {"x": tokens},
        "embedding": {"ids": ids, "table": square},
        "patch_embedding": {"x": image, "weight": rng.standard_normal((4, 4, 2, 2))},
        "prepend_class_token": {"x": tokens, "class_embedding": vector},
        "mean_token": {"x": tokens},
        "take_class_token": {"x": tokens},
        "add_positions": {"x": tokens, "positions": rng.standard_normal((3, 4))},
        "gather_end_of_text": {"x": tokens, "ids": ids},
        "interpolate_positions": {"positions": rng.standard_normal((5, 4))},
        SDPA: {"q": heads, "k": heads, "v": heads},
        "cosine_logits": {"images": unit, "texts": unit, "log_scale": number},
        "cross_entropy": {"logits": square, "targets": np.zeros(4, int)},
        "contrastive_loss": {"images": unit, "texts": unit, "log_scale": number},
        "sigmoid_loss": {"images": unit, "texts": unit, "log_scale": number, "bias": number},
    }
    options = {
        "patch_embedding": {"stride": 1},
        "interpolate_positions": {"grid": (3, 3)},
        "avg_pool2d": {"kernel": 2},
    }
    only_x = {"x": image}
    return examples.get(op, only_x), options.get(op, {})


@pytest.mark.parametrize("op", ops.PAIRS)
def test_examples_are_valid(op):
    """The control for the refusals above: the same calls in float64 work."""
    inputs, options = example_of(op)
    getattr(ops, op)(*inputs.values(), **options)


@pytest.mark.parametrize("name", backends.available())
@pytest.mark.parametrize("dtype", ["float16", "int32", "complex128"])
def test_backends_refuse_other_model_dtypes(name, dtype):
    with pytest.raises(TypeError, match=f"dtype: got {dtype}, expected float32 or float64"):
        backends.get(name).asarray([1, 2], dtype)


@BACKENDS
@DTYPES
@pytest.mark.parametrize("tokens", [1, 5])
def test_causal_mask(name, dtype, tokens):
    backend = backends_here.load(name)
    mask = backend.causal_mask(tokens, like=to_backend(backend, np.zeros(1, dtype)))
    expected = torch.full((tokens, tokens), -torch.inf).triu(1).numpy()
    assert mask.dtype == dtype
    np.testing.assert_array_equal(backend.to_numpy(mask), expected)


@BACKENDS
@DTYPES
def test_splitting_heads_and_merging_them(name, dtype):
    backend = backends_here.load(name)
    x = np.random.default_rng(0).standard_normal((2, 5, 12)).astype(dtype)
    split = backend.split_heads(to_backend(backend, x), 3)
    host = backend.to_numpy(split)
    np.testing.assert_array_equal(host[1, 2, 4], x[1, 4, 8:12])
    np.testing.assert_array_equal(backend.to_numpy(backend.merge_heads(split)), x)


@BACKENDS
@DTYPES
def test_splitting_qkv_and_joining_it(name, dtype):
    backend = backends_here.load(name)
    x = np.random.default_rng(0).standard_normal((2, 5, 36)).astype(dtype)
    q, k, v = backend.split_qkv(to_backend(backend, x), 3)
    np.testing.assert_array_equal(backend.to_numpy(k)[1, 2, 4], x[1, 4, 20:24])
    np.testing.assert_array_equal(backend.to_numpy(backend.join_qkv(q, k, v)), x)


@BACKENDS
@pytest.mark.parametrize("largest_is_last", [True, False])
def test_end_of_text(name, largest_is_last):
    """First, last or in the middle; padding may repeat the end token, or hold any other id."""
    backend = backends_here.load(name)
    end_id = None if largest_is_last else 3
    end, word = (9, 3) if largest_is_last else (3, 9)  # by id: a larger one may come before
    ids = [
        [end, 0, 0, 0],
        [word, word, word, end],
        [word, end, 0, word],
        [word, end, end, end],
        [1, 2, end, end],
    ]
    places = backend.end_of_text(to_backend(backend, np.array(ids)), end_id)
    assert backend.to_numpy(places).tolist() == [0, 3, 1, 1, 2]


@BACKENDS
def test_erf(name):
    """Within 1e-14 of the C library's, everywhere."""
    backend = backends_here.load(name)
    x = np.concatenate([np.linspace(-8, 8, 4001), [0, 1e-12, -1e-300, 1e9, np.inf, -np.inf]])
    y = backend.to_numpy(backend.erf(to_backend(backend, x)))
    np.testing.assert_allclose(y, [math.erf(v) for v in x], atol=1e-14, rtol=0)


def test_a_single_sample_through_the_harness():
    """The property test's harness itself: it accepts the truth and rejects a changed number."""
    sample = Sample({"x": np.array([[0.3, -1.0, 2.0, 0.1]])})
    check_against_torch(backends_here.load("numpy"), BY_NAME["quick_gelu"], "float64", sample)
    wrong = SimpleNamespace(
        quick_gelu=lambda x: (ops.quick_gelu(x)[0] * (1 + 1e-8), x), to_numpy=lambda x: x
    )
    with pytest.raises(AssertionError, match="y: error"):
        check_against_torch(wrong, BY_NAME["quick_gelu"], "float64", sample)
