"""Reduced towers against the original, forward and backward, in float64.

`check_*` take the package to test, so that the planted bugs go through the very same checks.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
from original import living_state, load_into_original, original_clip

from miniclip.models import CLIPConfig, TextConfig, VisionConfig

TEXT = TextConfig(context_length=9, vocab_size=50, width=64, heads=1, layers=2)
VIT = CLIPConfig(24, VisionConfig(32, 3, 128, 2, patch_size=8), TEXT)
RESNET = CLIPConfig(24, VisionConfig(64, (1, 2, 1, 1), 8, 4), TEXT)


def with_vision(config, **changes):
    """The configuration with changed fields of its image tower: `with_vision(VIT, stride=4)`."""
    return replace(config, vision=replace(config.vision, **changes))


CONFIGS = {"vit": VIT, "resnet": RESNET}
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Truth:
    """What the original says in float64: outputs, gradients by name, statistics after the pass."""

    per_image: np.ndarray
    gradients: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]


def inputs_for(config, images=3, texts=3):
    """Pictures, ids with one end-of-text token each (not at the end), and a random gradient."""
    rng = np.random.default_rng(5)
    side = config.vision.image_resolution
    pictures = rng.standard_normal((images, 3, side, side))
    ids = rng.integers(1, config.text.vocab_size - 1, (texts, config.text.context_length))
    for row, end in zip(ids, rng.integers(2, config.text.context_length - 1, texts), strict=True):
        row[end], row[end + 1 :] = config.text.vocab_size - 1, 0
    return pictures, ids, rng.standard_normal((images, texts))


@functools.cache
def truth(kind, training):
    config = CONFIGS[kind]
    model = original_clip(config, torch.float64)
    load_into_original(model, living_state(config, 1))
    return ask_original(model.train(training), *inputs_for(config))


def ask_original(model, pictures, ids, loss):
    """Run the original forward and backward; gradients by name, of pixels and tokens too.

    loss: a function of both logits, or the gradient of the logits per image.
    """
    pixels = torch.tensor(pictures, requires_grad=True)
    tokens = {}

    def keep(module, inputs, y):
        y.retain_grad()
        tokens["y"] = y

    handle = model.token_embedding.register_forward_hook(keep)
    per_image, per_text = model(pixels, torch.tensor(ids))
    if callable(loss):
        loss(per_image, per_text).backward()
    else:
        (per_image * torch.tensor(loss)).sum().backward()
    handle.remove()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    gradients |= {"pixels": pixels.grad.numpy(), "tokens": tokens["y"].grad.numpy()}
    buffers = {n: b.numpy() for n, b in model.named_buffers() if "running" in n}
    return Truth(per_image.detach().numpy(), gradients, buffers)


def ask_ours(package, config, state, training, backend, pictures, ids, dlogits):
    """The same on our model; also checks that the two outputs are one matrix."""
    model = package.CLIP(config, seed=None).to(backend, "float64")
    model.load_state_dict(state)
    model.train(training)
    with model.record():
        per_image, per_text = model(pictures, ids)
        dimages, dtokens = model.backward(dlogits)
    assert np.array_equal(per_text, per_image.T)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    gradients |= {"pixels": dimages, "tokens": dtokens}
    return Truth(per_image, gradients, dict(model.named_buffers()))


def check_tower(package, kind, training=False, backend="numpy"):
    """Logits, every gradient and the running statistics equal the original's."""
    config = own_config(package, CONFIGS[kind])
    state = living_state(CONFIGS[kind], 1)
    inputs = inputs_for(CONFIGS[kind])
    got = ask_ours(package, config, state, training, backend, *inputs)
    compare_truths(got, truth(kind, training))


def compare_truths(got, expected):
    close("logits", got.per_image, expected.per_image)
    assert got.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        compare_gradient(name, got.gradients[name], gradient, expected.gradients)
    assert got.buffers.keys() == expected.buffers.keys()
    for name, buffer in expected.buffers.items():
        close(name, got.buffers[name], buffer)


def compare_gradient(name, got, expected, all_gradients):
    """Relative to the gradient itself; a key's bias, whose true gradient is zero, to its tower."""
    if name.endswith("k_proj.bias") or name.endswith("in_proj_bias"):
        parts = 3 if name.endswith("in_proj_bias") else 1
        tower = [
            g
            for n, g in all_gradients.items()
            if n.startswith("visual") == name.startswith("visual")
        ]
        largest = max(np.linalg.norm(g) for g in tower)
        third = len(expected) // parts
        key = slice(third, 2 * third) if parts == 3 else slice(None)
        assert np.linalg.norm(got[key]) <= 1e-12 * largest, f"d{name}: the key's part is not zero"
        if parts == 3:
            close(f"d{name} (q)", got[:third], expected[:third])
            close(f"d{name} (v)", got[2 * third :], expected[2 * third :])
        return
    close(f"d{name}", got, expected)


def close(name, got, expected, tolerance=TOLERANCE):
    assert np.shape(got) == expected.shape, f"{name}: shape {np.shape(got)}, not {expected.shape}"
    error = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-300)
    assert error <= tolerance, f"{name}: error {error:.1e}"


def own_config(package, config):
    """The configuration as an object of the package under test, which may be a planted copy."""
    models = __import__(f"{package.__name__}.models", fromlist=["models"])
    vision = None if config.vision is None else models.VisionConfig(**vars(config.vision))
    text = None if config.text is None else models.TextConfig(**vars(config.text))
    return models.CLIPConfig(config.embed_dim, vision, text)


def variant(kind, **vision):
    """A reduced configuration with other fields in its image tower."""
    return replace(CONFIGS[kind], vision=replace(CONFIGS[kind].vision, **vision))


def check_two_passes(package):
    """A tower that runs twice in one recording unwinds in reverse and adds both gradients up."""
    config, state = own_config(package, VIT), living_state(VIT, 1)
    pictures, _, _ = inputs_for(VIT)
    model = package.CLIP(config, seed=None).to(dtype="float64")
    model.load_state_dict(state)
    dy = np.random.default_rng(0).standard_normal((2, 1, VIT.embed_dim))
    alone = []
    for i in (0, 1):
        model.zero_grad()
        with model.record():
            model.visual(pictures[i : i + 1])
            dpixels = model.visual.backward(dy[i])
        alone.append((dpixels, {n: p.grad for n, p in model.named_parameters()}))
    model.zero_grad()
    with model.record():
        model.visual(pictures[:1])
        model.visual(pictures[1:2])
        second = model.visual.backward(dy[1])  # the last forward first
        first = model.visual.backward(dy[0])
    close("first", first, alone[0][0])
    close("second", second, alone[1][0])
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not name.endswith("in_proj_bias"):
            close(name, parameter.grad, alone[0][1][name] + alone[1][1][name])


def check_both_outputs(package):
    """A gradient may come through either output, or both."""
    config, state = own_config(package, VIT), living_state(VIT, 1)
    pictures, ids, dlogits = inputs_for(VIT)
    model = package.CLIP(config, seed=None).to(dtype="float64")
    model.load_state_dict(state)
    got = []
    for dper_image, dper_text in (
        (3 * dlogits, None),
        (0 * dlogits, 3 * dlogits.T),
        (dlogits, 2 * dlogits.T),
    ):
        with model.record():
            model(pictures, ids)
            got.append(model.backward(dper_image, dper_text))
    for dimages, dtokens in got[1:]:
        close("pixels", dimages, got[0][0])
        close("tokens", dtokens, got[0][1])
