"""CLIP: an image tower, a text tower, and the scaled cosines between what they say."""

from __future__ import annotations

import numpy as np

from miniclip import backends
from miniclip.models.checks import check_gradient
from miniclip.models.config import CLIPConfig, VisionConfig
from miniclip.models.init import initialize
from miniclip.models.resnet import ModifiedResNet
from miniclip.models.text import TextTransformer
from miniclip.models.vit import VisionTransformer
from miniclip.nn.module import Module, Parameter
from miniclip.ops.array import Array


class CLIP(Module):
    """Images and token ids to logits: how well each image fits each text.

    config: sizes of both towers; one may be None, as in a file that holds a single tower.
    seed: of the original's random initialisation; None leaves all weights zero, for a checkpoint
    to fill. Parameters have the original's names; the text tower is registered under the empty
    name, so that its parameters stay at the top level.
    Source: Radford et al. 2021 (arXiv 2103.00020); `CLIP` of the original model.py.
    """

    def __init__(self, config: CLIPConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        if config.vision is not None and config.text is not None:
            self.logit_scale = Parameter(np.zeros((), np.float32))
        if config.vision is not None:
            self.add_child("visual", make_image_tower(config.vision, config.embed_dim))
        if config.text is not None:
            self.add_child("", TextTransformer(config.text, config.embed_dim))
        if seed is not None:
            initialize(self, seed)

    def __repr__(self) -> str:
        return f"{super().__repr__()}\n{self.dtype} on {backends.describe(self.ops)}"

    @property
    def visual(self) -> ModifiedResNet | VisionTransformer:
        """The image tower. ValueError if this model has none."""
        return self._tower("visual", "image")  # type: ignore[return-value]

    @property
    def text(self) -> TextTransformer:
        """The text tower. ValueError if this model has none."""
        return self._tower("", "text")  # type: ignore[return-value]

    def _tower(self, name: str, kind: str) -> Module:
        if name not in self.children_:
            raise ValueError(f"this model has no {kind} tower: its checkpoint holds the other one")
        return self.children_[name]

    def encode_image(self, images: Array) -> Array:
        """(B, 3, R, R) -> (B, E), not normalised."""
        y: Array = self.visual(images)
        return y

    def encode_text(self, ids: Array) -> Array:
        """(B, T) -> (B, E), not normalised."""
        y: Array = self.text(ids)
        return y

    def forward(self, images: Array, ids: Array) -> tuple[Array, Array]:
        """Returns logits_per_image (N, M) and its transpose, logits_per_text (M, N)."""
        ops = self.ops
        image_features, image_cache = ops.l2_normalize(self.encode_image(images))  # (N, E)
        text_features, text_cache = ops.l2_normalize(self.encode_text(ids))  # (M, E)
        logits, logits_cache = ops.cosine_logits(
            image_features, text_features, self.logit_scale.data
        )  # (N, M)
        self.save((image_cache, text_cache, logits_cache, tuple(logits.shape)))
        return logits, logits.T

    def backward(self, dper_image: Array, dper_text: Array | None = None) -> tuple[Array, Array]:
        """dper_image: (N, M). dper_text: (M, N), or None when no loss acts on the transpose.

        Returns dimages (N, 3, R, R) and dtoken_embeddings (M, T, D).
        """
        image_cache, text_cache, logits_cache, shape = self.saved()
        check_gradient("dper_image", dper_image, shape, self.dtype)
        dlogits = dper_image
        if dper_text is not None:
            check_gradient("dper_text", dper_text, shape[::-1], self.dtype)
            dlogits = dlogits + dper_text.T  # both outputs are one matrix
        ops = self.ops
        # logits = exp(logit_scale) * normalised images @ normalised texts.T
        dimage, dtext, dscale = ops.cosine_logits_backward(dlogits, logits_cache)
        self.logit_scale.add_grad(dscale)
        dtokens = self.text.backward(ops.l2_normalize_backward(dtext, text_cache))
        dimages = self.visual.backward(ops.l2_normalize_backward(dimage, image_cache))
        return dimages, dtokens


def make_image_tower(config: VisionConfig, embed_dim: int) -> ModifiedResNet | VisionTransformer:
    """A ResNet if the configuration has no patches, else a vision transformer."""
    if config.is_resnet:
        return ModifiedResNet(config, embed_dim)
    return VisionTransformer(config, embed_dim)
