"""The gradient check of modules: parameters and inputs, on layers, towers and strangers."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from model_checks import inputs_for
from original import living_state

from miniclip import check, nn
from miniclip.check.diagnosis import factor_words, offset_words
from miniclip.check.slopes import Point
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig

RNG = np.random.default_rng(0)
TOKENS, MAPS = RNG.standard_normal((2, 5, 8)), RNG.standard_normal((3, 4, 6, 5))
IDS = np.array([[3, 1, 3], [0, 6, 2]])


def alive(module):
    """In float64, every parameter and buffer drawn at random (a variance stays positive)."""
    module.to(dtype="float64")
    for _, parameter in module.named_parameters():
        parameter.data = RNG.standard_normal(parameter.data.shape)
    for part in module.modules():
        for name, data in part.buffers_.items():
            part.buffers_[name] = RNG.uniform(0.5, 2, data.shape)
    return module


LAYERS = [
    (nn.Linear(8, 3), TOKENS),
    (nn.LayerNorm(8), TOKENS),
    (nn.Conv2d(4, 3, 3, padding=1), MAPS),
    (nn.BatchNorm2d(4), MAPS),
    (nn.BatchNorm2d(4).train(), MAPS),
    (nn.Embedding(7, 4), IDS),
    (nn.QuickGELU(), TOKENS),
    (nn.AvgPool2d(2), MAPS),
    (nn.MultiheadAttention(8, 2, causal=True), TOKENS),
    (nn.AttentionPool2d(6, 4, 2, 3), MAPS),  # another size than its grid: positions are resized
    (nn.Bottleneck(4, 2, 2), MAPS),
    (nn.Bottleneck(4, 2, 2).train(), MAPS),
    (nn.ResidualAttentionBlock(8, 2, 16, "gelu", 1e-5, True), TOKENS),
]


@pytest.mark.parametrize(("module", "x"), LAYERS, ids=lambda v: type(v).__name__)
def test_layers_hold(module, x):
    module = alive(module)
    result = check.module_gradients(module, x)
    assert result.holds, result
    assert result.error <= 2e-8
    names = [name for name, _ in module.named_parameters()]
    assert [one.name for one in result.inputs] == (["x"] if x is not IDS else []) + names


TEXT = TextConfig(context_length=5, vocab_size=20, width=64, heads=1, layers=1)
CONFIGS = {
    "vit": CLIPConfig(8, VisionConfig(16, 1, 64, 1, patch_size=8), TEXT),
    "resnet": CLIPConfig(8, VisionConfig(32, (1, 1, 1, 1), 4, 2), TEXT),
}


def tower(kind, training=False):
    model = CLIP(CONFIGS[kind], seed=None).to(dtype="float64")
    model.load_state_dict(living_state(CONFIGS[kind], 1))
    return model.train(training)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_text_tower_and_both_logits_hold(kind):
    """Ids are integers: what backward returns for them (the embeddings' gradient) is not compared.
    CLIP has two outputs, and its backward takes a gradient of each.
    """
    pictures, ids, _ = inputs_for(CONFIGS[kind], 2, 2)
    model = tower(kind)
    assert check.module_gradients(model.text, ids, directions=1).holds
    result = check.module_gradients(model, pictures, ids, directions=1)
    assert result.holds, result
    assert len(result.inputs) == 1 + len(list(model.named_parameters()))


def test_a_resnet_in_training_is_left_as_it_was():
    """Every forward pass moves running statistics: they are put back, gradients and arrays too."""
    pictures, _, _ = inputs_for(CONFIGS["resnet"], 2)
    model = tower("resnet", training=True).visual
    for i, (_, parameter) in enumerate(model.named_parameters()):
        parameter.grad = None if i % 2 else np.full(parameter.data.shape, 7.0)
    kept = [(p.data, p.data.copy(), p.grad) for _, p in model.named_parameters()]
    buffers = {name: data.copy() for name, data in model.named_buffers()}
    result = check.module_gradients(model, pictures, directions=1)
    assert result.holds, result
    assert result.error <= 2e-8
    for (_, p), (data, values, grad) in zip(model.named_parameters(), kept, strict=True):
        assert p.data is data
        assert p.grad is grad
        np.testing.assert_array_equal(data, values)
    assert [name for name, _ in model.named_buffers()] == list(buffers)
    for name, data in model.named_buffers():
        np.testing.assert_array_equal(data, buffers[name])
    assert all(np.all(p.grad == 7) for _, p in model.named_parameters() if p.grad is not None)


def test_it_is_left_as_it_was_after_an_error():
    module = alive(nn.Sequential([("0", nn.BatchNorm2d(4).train()), ("1", nn.ReLU())])).train()
    before = {name: data.copy() for name, data in module.state_dict().items()}
    arrays = [p.data for _, p in module.named_parameters()]
    module.children_["1"].backward = lambda dy: 1 / 0
    with pytest.raises(ZeroDivisionError):
        check.module_gradients(module, MAPS)
    assert all(p.data is x for (_, p), x in zip(module.named_parameters(), arrays, strict=True))
    for name, data in module.state_dict().items():
        np.testing.assert_array_equal(data, before[name])


# ------------------------------------------------------------------------- what is wrong


def broken_block(**methods):
    block = alive(nn.ResidualAttentionBlock(8, 2, 16, "gelu", 1e-5, True))
    for name, method in methods.items():
        setattr(block, name, method.__get__(block))
    return block


def test_the_wrong_parameter_is_named():
    block = broken_block()
    right = block.ln_1.backward
    block.ln_1.backward = lambda dy: 2 * right(dy)
    assert check.module_gradients(block, TOKENS).wrong == ["x"]
    linear = block.mlp.children_["c_fc"]
    linear.bias.add_grad = lambda grad: nn.Parameter.add_grad(linear.bias, -grad)
    result = check.module_gradients(block, TOKENS)
    assert result.wrong == ["x", "mlp.c_fc.bias"]
    found = {one.name: str(one) for one in result.inputs}
    assert found["mlp.c_fc.bias"] == "the gradient of mlp.c_fc.bias has the opposite sign"
    assert "; also wrong: the gradient of mlp.c_fc.bias" in str(result)


def test_a_parameter_without_a_gradient():
    """Wrong where y depends on it; right where it does not."""
    layer = alive(nn.Linear(8, 3))
    layer.bias.add_grad = lambda grad: None
    result = check.module_gradients(layer, TOKENS)
    assert result.wrong == ["bias"]
    assert str(result) == "dbias is None: backward adds nothing to it"
    layer = alive(nn.Linear(8, 3))
    layer.unused = nn.Parameter(np.ones(3))
    assert check.module_gradients(layer, TOKENS).holds


def test_a_gradient_that_is_overwritten():
    layer = alive(nn.Linear(8, 3))
    layer.weight.add_grad = lambda grad: setattr(layer.weight, "grad", grad)
    result = check.module_gradients(layer, TOKENS)
    assert str(result) == "dweight is overwritten by a second backward pass"
    assert result.wrong == ["weight"]
    assert result.error == float("inf")


def test_a_parameter_under_two_names_counts_once():
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    pair = alive(nn.Sequential([("0", first), ("1", second)]))
    second.weight = first.weight
    result = check.module_gradients(pair, TOKENS)
    assert result.holds, result
    assert [one.name for one in result.inputs] == ["x", "0.weight", "0.bias", "1.bias"]


# ------------------------------------------------------------------------- strangers, and callers


class Stranger:
    """Not a Module: only what the check asks for. y = a x + b, and its caches on itself."""

    def __init__(self, wrong=False):
        self.a, self.b = (SimpleNamespace(data=RNG.standard_normal(4), grad=None) for _ in "ab")
        self.wrong, self.recording = wrong, False

    def record(self):
        self.recording = True
        return nullcontext()

    def named_parameters(self):
        return iter([("a", self.a), ("b", self.b)])

    def forward(self, x):
        if self.recording:
            self.x, self.recording = x, False
        return self.a.data * x + self.b.data

    def backward(self, dy):
        for parameter, grad in ((self.a, (dy * self.x).sum(0)), (self.b, dy.sum(0))):
            parameter.grad = grad + (0 if parameter.grad is None else parameter.grad)
        return self.a.data * dy * (2 if self.wrong else 1)


def test_any_object_with_the_four_methods():
    assert check.module_gradients(Stranger(), TOKENS[0, :, :4]).holds
    result = check.module_gradients(Stranger(wrong=True), TOKENS[0, :, :4])
    assert str(result) == "dx is 2 times the right one"


@pytest.mark.parametrize(
    ("forward", "backward", "message"),
    [
        (lambda self, x: None, None, "y is None, expected a float64 array"),
        (lambda self, x: (x, x.astype("float32")), None, "output 1 is float32, expected float64"),
        (None, lambda self, dy: (dy, dy), "backward returned 2 gradients, expected 1: dx"),
        (None, lambda self, dy: dy.fill(0), "dy 0 was written into"),
    ],
)
def test_what_cannot_be_compared(forward, backward, message):
    methods = {"forward": forward, "backward": backward}
    block = broken_block(**{name: method for name, method in methods.items() if method})
    result = check.module_gradients(block, TOKENS)
    assert not result.holds
    assert str(result).startswith(message)
    assert result.error == float("inf")


def test_an_input_that_is_written_into_is_the_copy():
    def forward(self, x):
        x *= 2
        return x

    x = TOKENS.copy()
    block = broken_block(forward=forward, backward=lambda self, dy: 2 * dy)
    result = check.module_gradients(block, x)
    assert str(result) == "x was written into: a pass leaves its inputs as they are"
    np.testing.assert_array_equal(x, TOKENS)


def test_the_seed_draws_the_directions():
    """Another seed measures along others: another error, of rounding; the same seed the same."""
    module = alive(nn.Linear(3, 4))
    x = np.random.default_rng(0).standard_normal((2, 3))
    errors = [check.module_gradients(module, x, seed=seed).error for seed in (0, 0, 1, 2, 3)]
    assert errors[0] == errors[1]
    assert len(set(errors)) > 2


def test_what_a_caller_does_wrong():
    layer = nn.Linear(8, 3)
    message = r"^weight is float32, expected float64: call module.to\(dtype='float64'\) first$"
    with pytest.raises(TypeError, match=message):
        check.module_gradients(layer, TOKENS)
    layer.to(dtype="float64")
    with pytest.raises(TypeError, match="x is float32, expected float64"):
        check.module_gradients(layer, TOKENS.astype("float32"))
    with pytest.raises(ValueError, match="directions: got 0"):
        check.module_gradients(layer, TOKENS, directions=0)
    with pytest.raises(ValueError, match="tolerance: got -1"):
        check.module_gradients(layer, TOKENS, tolerance=-1)
    layer.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match="weight has values that are not finite"):
        check.module_gradients(layer, TOKENS)
    with pytest.raises(ValueError, match="got no float64 array"):
        check.module_gradients(nn.Identity(), IDS)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (7**-0.5, "is 1/2.6458 of the right one (the square root of 7; 7 is x.shape[1])"),
        (7**0.5, "is 2.6458 times the right one (the square root of 7; 7 is x.shape[1])"),
        (11**0.5, "is 3.3166 times the right one (the square root of 11)"),
        (1 / 3, "is 1/3 of the right one (3 is x.shape[0])"),
    ],
)
def test_a_factor_is_told_with_the_sizes_that_it_may_come_from(ratio, words):
    point = Point({"x": np.zeros((3, 7))}, lambda values: 0.0, 1.0)
    assert factor_words(ratio, point) == [words]


def test_an_offset_of_few_entries():
    """Of two numbers every difference could be one."""
    right = np.array([1.0, 2.0, 4.0])
    assert offset_words(right + 0.5, right) == "is off by the constant 0.5"
    assert offset_words(right[:2] + 0.5, right[:2]) == ""
