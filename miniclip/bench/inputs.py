"""What models are timed on, made from seeds, never downloaded: weights, pictures, token ids."""

from __future__ import annotations

import math

import numpy as np

from miniclip.models import CLIP, CLIPConfig, TextConfig
from miniclip.ops.array import Array

SHORTEST, LONGEST = 6, 22  # tokens of a caption of about 4 to 18 words, with start and end


def living_state(config: CLIPConfig, seed: int = 0) -> dict[str, Array]:
    """Random float32 weights and statistics by name, with which activations keep their size.

    Zeros would be timed wrongly (and the original's own initialisation makes a ResNet's blocks add
    nothing), so that a comparison of outputs would prove nothing.
    """
    rng = np.random.default_rng(seed)
    shapes = {name: x.shape for name, x in CLIP(config, seed=None).state_dict().items()}
    return {name: draw(name, shape, rng) for name, shape in shapes.items()}


def draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Values of one tensor."""
    if name == "logit_scale":
        return np.full(shape, math.log(20), np.float32)
    mean, deviation = center_and_spread(name, shape)
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(deviation)
    values += np.float32(mean)
    if len(shape) == 4 and name.startswith("visual.layer"):
        # Inputs behind a ReLU have a mean, which is the same for all pictures: leave it out.
        values -= values.mean(axis=(1, 2, 3), keepdims=True)
    return values


def center_and_spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values, by what it is for."""
    if name.endswith(("class_embedding", "positional_embedding")):
        return 0.0, 0.3
    if name == "token_embedding.weight":
        return 0.0, 1.0
    if name.endswith("bn3.weight") and name.startswith("visual.layer"):
        return 0.25, 0.03  # each block adds a little to the stream, which so keeps its size
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return 1.0, 0.1  # far enough above zero for a variance
    if len(shape) == 1:
        return 0.0, 0.1
    if name in ("visual.proj", "text_projection"):
        return 0.0, shape[0] ** -0.5  # (in, out), the other way round than all others
    fan_in = math.prod(shape[1:])
    behind_relu = len(shape) == 4 and shape[-1] in (1, 3)
    return 0.0, math.sqrt((2.0 if behind_relu else 1.0) / fan_in)  # He et al. 2015


def pictures(config: CLIPConfig, count: int, seed: int = 0) -> Array:
    """Preprocessed pictures (count, 3, R, R), float32: coarse squares and noise."""
    if config.vision is None:
        raise ValueError("towers: this model has no image tower, expected text")
    rng = np.random.default_rng([seed, 1])
    side = config.vision.image_resolution
    coarse = rng.standard_normal((count, 3, 4, 4), np.float32)
    tile = math.ceil(side / 4)
    coarse = coarse.repeat(tile, axis=2).repeat(tile, axis=3)[:, :, :side, :side]
    noise = rng.standard_normal((count, 3, side, side), np.float32)
    return np.ascontiguousarray(coarse + np.float32(0.5) * noise)


def token_ids(config: CLIPConfig, count: int, seed: int = 0) -> Array:
    """Ids (count, context), int64, as long as ordinary captions, so that no vocabulary is needed.

    Start of text, random words, end of text, and zeros up to the context: 6 to 22 tokens, all
    lengths equally often.
    """
    text = config.text
    if text is None:
        raise ValueError("towers: this model has no text tower, expected image")
    rng = np.random.default_rng([seed, 2])
    end = last_id(text)
    ids = np.zeros((count, text.context_length), np.int64)
    longest = min(LONGEST, text.context_length)
    lengths = rng.integers(min(SHORTEST, longest), longest + 1, count)
    for row, length in zip(ids, lengths, strict=True):
        row[0] = end - 1
        row[1 : length - 1] = rng.integers(1, end - 1, length - 2)
        row[length - 1] = end
    return ids


def last_id(text: TextConfig) -> int:
    """The end-of-text id: the configuration's, or the vocabulary's last."""
    end = text.vocab_size - 1 if text.end_id is None else text.end_id
    if end < 3:
        raise ValueError(f"models: got an end-of-text id of {end}, expected room for words below")
    return end
