"""Untrained pipelines, small enough to make in a test."""

import drawn

from miniclip.inputs.bpe import train_merges
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig
from miniclip.pipeline import Pipeline
from miniclip.training.data import SceneData


def make_pipeline(dtype="float32", backend="numpy"):
    tokenizer = Tokenizer(train_merges(drawn.CAPTIONS, 560), context_length=40)
    config = CLIPConfig(
        16,
        VisionConfig(32, 2, 64, 1, patch_size=8),
        TextConfig(40, tokenizer.vocab_size, 64, 1, 2),
    )
    network = CLIP(config, seed=3).to(backend, dtype)
    return Pipeline(network, Transform(size=32), tokenizer, name="tiny")


def scene_pipeline():
    """One that has the words of the drawn scenes."""
    data = SceneData(None, 500)
    captions = [data.caption(i, 0) for i in range(len(data))]
    tokenizer = Tokenizer(train_merges(captions, 740), context_length=32)
    vision = VisionConfig(64, 1, 64, 1, patch_size=16)
    network = CLIP(CLIPConfig(16, vision, TextConfig(32, tokenizer.vocab_size, 64, 1, 1)), seed=2)
    return Pipeline(network, Transform(size=64), tokenizer, name="tiny")
