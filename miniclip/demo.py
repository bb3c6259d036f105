"""`miniclip demo`: a small checkpoint that the project makes itself, and pictures to try it on.

Until trained models are shipped, this is what can be run with nothing downloaded: a CLIP of 0.2
million parameters (a ViT with overlapping patches), trained for some seconds on drawings of twelve
things ("a red circle"), by the hand-written backward pass and a dozen lines of Adam. It knows these
twelve captions and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from miniclip.inputs.bpe import train_merges
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 210),
    "yellow": (235, 200, 40),
}
SHAPES = ("circle", "square", "triangle")
CAPTIONS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
RESOLUTION, CONTEXT, VOCABULARY = 32, 12, 560
STEPS, WARM_UP, LEARNING_RATE = 400, 20, 1.5e-3
DRAWINGS = 60  # of each caption; drawn once, before training


def make_demo(folder: Path, report: Callable[[str], None] = print, steps: int = STEPS) -> Path:
    """Write a trained checkpoint and one picture of each kind into `folder`; returns the folder.

    Raises ValueError if the folder holds other files, so that nothing is overwritten.
    """
    names = {"model.safetensors", "vocab.json", "merges.txt"} | {picture_name(c) for c in CAPTIONS}
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder: {folder} is a file, expected a new or empty folder")
    if folder.exists() and {f.name for f in folder.iterdir()} - names:
        raise ValueError(f"folder: {folder} holds other files, expected a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1, "blas"):  # so small products only lose by a second thread
        pipeline = train(steps, report)
    pipeline.save(folder / "model.safetensors")
    rng = np.random.default_rng(1234)  # other drawings than those of training
    for caption in CAPTIONS:
        draw(caption, rng, 128).save(folder / picture_name(caption))
    return folder


def picture_name(caption: str) -> str:
    return caption.removeprefix("a ").replace(" ", "-") + ".png"


def draw(caption: str, rng: np.random.Generator, size: int = 2 * RESOLUTION) -> Image:
    """A picture of one caption: place, size and background by chance. RGB, size x size pixels."""
    from PIL import Image, ImageDraw

    _, colour, shape = caption.split()
    background = tuple(int(v) for v in rng.integers(200, 256, 3))
    picture = Image.new("RGB", (4 * size, 4 * size), background)  # drawn large, then smoothed
    radius = size * rng.uniform(1.0, 1.6)
    x, y = rng.uniform(radius, 4 * size - radius, 2)
    pen, box = ImageDraw.Draw(picture), (x - radius, y - radius, x + radius, y + radius)
    jitter = rng.integers(-25, 26, 3)
    fill = tuple(int(v) for v in np.clip(np.array(COLOURS[colour]) + jitter, 0, 255))
    if shape == "circle":
        pen.ellipse(box, fill)
    elif shape == "square":
        pen.rectangle(box, fill)
    else:
        pen.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def train(steps: int, report: Callable[[str], None]) -> Pipeline:
    """Train on drawings: each batch holds every caption once, so no two of its texts are alike."""
    tokenizer = Tokenizer(train_merges(CAPTIONS, VOCABULARY), context_length=CONTEXT)
    config = CLIPConfig(
        64,
        VisionConfig(RESOLUTION, 2, 64, 4, patch_size=8, stride=4),
        TextConfig(CONTEXT, tokenizer.vocab_size, 64, 4, 1),
    )
    network, rng = CLIP(config, seed=0), np.random.default_rng(0)
    pipeline = Pipeline(network, Transform(size=RESOLUTION), tokenizer, name="demo")
    pools = [pipeline.preprocess([draw(c, rng) for _ in range(DRAWINGS)]) for c in CAPTIONS]
    ids, adam = pipeline.tokenize(CAPTIONS), Adam(network)
    for step in range(steps):
        pixels = np.stack([pool[rng.integers(DRAWINGS)] for pool in pools])  # (12, 3, R, R)
        loss = loss_and_gradients(network, pixels, ids)
        adam.step(LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (1.02 - step / steps))
        if step % 100 == 0 or step == steps - 1:
            guess = math.log(len(CAPTIONS))
            report(f"step {step:3d}  loss {loss:.3f}  (guessing: ln {len(CAPTIONS)} = {guess:.3f})")
    return pipeline


def loss_and_gradients(network: CLIP, pixels: Array, ids: Array) -> float:
    """One forward and backward pass of the contrastive loss; leaves `.grad` on every parameter."""
    ops = network.ops
    network.zero_grad()
    with network.record():
        images, image_cache = ops.l2_normalize(network.visual(pixels))
        texts, text_cache = ops.l2_normalize(network.text(ids))
        loss, cache = ops.contrastive_loss(images, texts, network.logit_scale.data)
        dimages, dtexts, dscale = ops.contrastive_loss_backward(1.0, cache)
        network.logit_scale.add_grad(dscale)
        network.text.backward(ops.l2_normalize_backward(dtexts, text_cache))
        network.visual.backward(ops.l2_normalize_backward(dimages, image_cache))
    return float(loss)


class Adam:
    """Kingma & Ba 2014 (arXiv 1412.6980), algorithm 1, for all parameters of a network."""

    def __init__(self, network: CLIP, decay: tuple[float, float] = (0.9, 0.98)) -> None:
        self.parameters = [p for _, p in network.named_parameters()]
        self.means = [np.zeros_like(p.data) for p in self.parameters]
        self.squares = [np.zeros_like(p.data) for p in self.parameters]
        self.decay, self.steps = decay, 0

    def step(self, rate: float, eps: float = 1e-6) -> None:
        self.steps += 1
        b1, b2 = self.decay
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            self.means[i] = b1 * self.means[i] + (1 - b1) * p.grad
            self.squares[i] = b2 * self.squares[i] + (1 - b2) * p.grad**2
            mean = self.means[i] / (1 - b1**self.steps)
            root = np.sqrt(self.squares[i] / (1 - b2**self.steps))
            p.data = p.data - rate * mean / (root + eps)
