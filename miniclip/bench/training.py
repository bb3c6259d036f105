"""Training steps: forward, backward, clipping, AdamW; ours as the loop does them, and PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from miniclip.bench.flops import FORWARD_AND_BACKWARD, image_flops, text_flops
from miniclip.bench.inputs import living_state, pictures, token_ids
from miniclip.bench.measure import Subject
from miniclip.bench.peers import need, original_clip
from miniclip.bench.subjects import load_weights
from miniclip.cpu.memory import keep_freed_memory
from miniclip.models import CLIP, CLIPConfig
from miniclip.ops.array import Array
from miniclip.ops.embedding import end_of_text
from miniclip.training.objectives import Batch, Contrastive
from miniclip.training.optimizer import (
    LOG_SCALE_CLAMP,
    AdamW,
    clamp_log_scale,
    clip_gradients,
    is_decayed,
)

RATE, BETAS, EPS, DECAY, CLIP_AT = 1e-5, (0.9, 0.98), 1e-6, 0.1, 1.0
FULL = "numba-full-texts"
TOLERANCE = 1e-4  # of losses, relative


def load(model: str, activation: str | None = None) -> tuple[CLIPConfig, dict[str, Array]]:
    """The model's configuration with random weights: trained ones would have little left to do."""
    config, state, weights = load_weights(model, activation)
    return config, state if weights == "random" else living_state(config)


def training_flops(config: CLIPConfig) -> int:
    """Of one pair: both towers, forward and backward."""
    return FORWARD_AND_BACKWARD * (image_flops(config) + text_flops(config))


def our_training(config: CLIPConfig, state: Mapping[str, Array], batch: int) -> list[Subject]:
    """The step of training/loop.py on numba, in a process that keeps freed memory, as the loop's
    does (PyTorch's steps gain by it, too). The loop cuts ids behind the batch's longest text;
    the second subject does not, like the original."""
    keep_freed_memory()
    images, ids = pictures(config, batch), token_ids(config, batch)
    assert config.text is not None  # `token_ids` has refused it
    longest = int(end_of_text(ids, config.text.end_id).max()) + 1
    return [
        Subject("numba", our_step(config, state, images, ids[:, :longest])),
        Subject(FULL, our_step(config, state, images, ids)),
    ]


def our_step(config: CLIPConfig, state: Mapping[str, Array], images: Array, ids: Array) -> Any:
    """A function that makes one step of a network of its own, and returns the loss before it."""
    network = CLIP(config, seed=None)
    network.load_state_dict({name: np.array(x) for name, x in state.items()})
    network.to("numba").train()
    parameters = dict(network.named_parameters())
    optimizer = AdamW(network.ops, parameters, BETAS, EPS, DECAY)
    objective, pairs = Contrastive(), Batch(images, ids)

    def run() -> float:
        network.zero_grad()
        loss = objective(network, pairs).loss
        clip_gradients(parameters.values(), CLIP_AT)
        optimizer.step(RATE)
        clamp_log_scale(parameters)
        return loss

    return run


def torch_training(config: CLIPConfig, state: Mapping[str, Array], batch: int) -> Iterator[Subject]:
    """The same step by autograd; a ResNet's in both memory layouts, of which the better counts."""
    torch = need("torch")
    images = torch.from_numpy(pictures(config, batch))
    ids = torch.from_numpy(token_ids(config, batch))
    yield Subject("torch", torch_step(config, state, images, ids))
    if config.vision is not None and config.vision.is_resnet:
        layout = torch.channels_last
        images = images.to(memory_format=layout)
        yield Subject("torch channels_last", torch_step(config, state, images, ids, layout))


def torch_step(
    config: CLIPConfig, state: Mapping[str, Array], images: Any, ids: Any, layout: Any = None
) -> Any:
    torch = need("torch")
    model = original_clip(config, state, copy=True).train()
    if layout is not None:
        model.visual.to(memory_format=layout)
    groups = parameter_groups(model, config)
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPS, fused=True)
    parameters = list(model.parameters())
    targets = torch.arange(len(images))

    def run() -> float:
        optimizer.zero_grad()
        per_image, per_text = model(images, ids)
        entropy = torch.nn.functional.cross_entropy
        loss = (entropy(per_image, targets) + entropy(per_text, targets)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_AT)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, LOG_SCALE_CLAMP)
        return float(loss.detach())

    return run


def parameter_groups(model: Any, config: CLIPConfig) -> list[dict[str, Any]]:
    """Who decays and who does not, by the same rule as ours."""
    ours = dict(CLIP(config, seed=None).named_parameters())
    groups: dict[float, list[Any]] = {DECAY: [], 0.0: []}
    for name, p in model.named_parameters():
        groups[DECAY if is_decayed(name, ours[name]) else 0.0].append(p)
    return [{"params": params, "weight_decay": decay} for decay, params in groups.items()]


def check_losses(subjects: list[Subject]) -> dict[str, float]:
    """The largest relative difference, from the first subject, of the losses of two steps.

    Raises ValueError naming the subject where they do not agree; the second loss proves gradients
    and optimiser.
    """
    losses = {s.name: np.array([s.run(), s.run()]) for s in subjects}
    reference = losses[subjects[0].name]
    errors = {}
    for name, values in losses.items():
        errors[name] = float(np.abs(values / reference - 1).max())
        if not errors[name] < TOLERANCE:
            raise ValueError(
                f"{name}: losses {values.tolist()} of the first two steps, expected "
                f"{reference.tolist()} as {subjects[0].name} has; it is not timed"
            )
    return errors
