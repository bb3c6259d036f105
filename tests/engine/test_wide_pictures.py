"""Pictures that are not square, through whole towers, against the original with its positions
resized by PyTorch: plans, modules on both backends, forward and backward. Plans and modules ask the
same function for their positions, so neither can vouch for the other.
"""

import numpy as np
import pytest
import torch
from model_checks import CONFIGS
from original import living_state, load_into_original, original_clip

from miniclip.engine.plan import Plan
from miniclip.models import CLIP

SIZES = {"vit": [(32, 64), (64, 32)], "resnet": [(64, 128), (128, 64)]}
STEP = 1e-7  # small: a longer one crosses the kinks of some ReLUs
CASES = [(kind, size) for kind in SIZES for size in SIZES[kind]]


def network_of(kind, backend, dtype):
    network = CLIP(CONFIGS[kind], seed=None).to(dtype=dtype)
    network.load_state_dict(living_state(CONFIGS[kind], 1))
    network.to(backend)
    network.visual.interpolate = True
    return network


def pixels_of(size):
    return np.random.default_rng(3).standard_normal((2, 3, *size))


def by_pytorch(kind, size):
    """The embeddings, and the gradients of pixels and positions for an output gradient."""
    original = original_clip(CONFIGS[kind], torch.float64)
    load_into_original(original, living_state(CONFIGS[kind], 1))
    tower = original.visual
    holder = tower if kind == "vit" else tower.attnpool
    table = holder.positional_embedding.detach().clone().requires_grad_()
    step = 8 if kind == "vit" else 32
    rows, columns = size[0] // step, size[1] // step
    side = round((len(table) - 1) ** 0.5)
    square = table[1:].T.reshape(1, -1, side, side)
    resized = torch.nn.functional.interpolate(
        square, (rows, columns), mode="bicubic", antialias=True, align_corners=False
    )
    del holder.positional_embedding
    holder.positional_embedding = torch.cat([table[:1], resized[0].flatten(1).T])
    pixels = torch.tensor(pixels_of(size), requires_grad=True)
    y = tower(pixels)
    (y * torch.tensor(output_gradient(y.shape))).sum().backward()
    return y.detach().numpy(), pixels.grad.numpy(), table.grad.numpy()


def output_gradient(shape):
    return np.random.default_rng(4).standard_normal(tuple(shape))


def error(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("kind", "size"), CASES)
def test_modules(kind, size, backend):
    network = network_of(kind, backend, "float64")
    tower = network.visual
    expected, dpixels, dpositions = by_pytorch(kind, size)
    with tower.record():
        y = tower(pixels_of(size))
        dx = tower.backward(output_gradient(y.shape))
    holder = tower if kind == "vit" else tower.attnpool
    assert error(y, expected) < 1e-9
    assert error(dx, dpixels) < 1e-9
    assert error(holder.positional_embedding.grad, dpositions) < 1e-9


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_plans(kind, size):
    network = network_of(kind, "numba", "float32")
    plan = Plan(network).of("image")
    expected, _, _ = by_pytorch(kind, size)
    other = by_pytorch(kind, size[::-1])[0]
    for _ in range(2):
        assert error(plan(pixels_of(size).astype("float32")), expected) < 1e-4
        turned = pixels_of(size[::-1]).astype("float32")
        assert error(plan(turned), other) < 1e-4  # as many tokens, other positions


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_backward_is_the_slope_of_forward(kind, size):
    """Along a random direction of the pixels, and of each parameter with positions in it."""
    tower = network_of(kind, "numpy", "float64").visual
    x, rng = pixels_of(size), np.random.default_rng(6)
    with tower.record():
        dy = output_gradient(tower(x).shape)
    with tower.record():
        tower(x)
        dx = tower.backward(dy)
    holder = tower if kind == "vit" else tower.attnpool
    table = holder.positional_embedding

    def loss():
        return float((tower(x) * dy).sum())

    for array, gradient in ((x, dx), (table.data, table.grad)):
        direction = rng.standard_normal(array.shape)
        was, losses = array.copy(), []
        for sign in (1, -1):
            array[...] = was + sign * STEP * direction
            losses.append(loss())
        array[...] = was
        slope = (losses[0] - losses[1]) / (2 * STEP)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4)
