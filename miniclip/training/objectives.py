"""What a batch's embeddings are asked for: CLIP's loss over all pairs, or SigLIP's pair by pair."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from miniclip.models import CLIP
from miniclip.nn.module import Parameter
from miniclip.ops.array import Array
from miniclip.training.targets import contrastive_floor

SIGLIP_LOG_SCALE, SIGLIP_BIAS = math.log(10), -10.0  # where SigLIP starts


class Objective(Protocol):
    """A loss over unit embeddings, and what it has learned of its own."""

    parameters: dict[str, Parameter]

    def prepare(self, network: CLIP) -> None:
        """Called once, before the first step of a new run."""
        ...

    def __call__(
        self, network: CLIP, images: Array, texts: Array, targets: Array | None
    ) -> tuple[Array, Array, Array]:
        """images, texts: (N, E) of unit length. targets: (N, N) or None.

        Returns the loss, dimages and dtexts (N, E); the gradient of the temperature and of the
        objective's own parameters is added to their `.grad`.
        """
        ...

    def chance(self, n: int) -> float:
        """The loss of a model that cannot tell n pairs apart."""
        ...

    def floor(self, targets: Array | None, n: int) -> float:
        """The least that the loss of these targets can be."""
        ...


class Contrastive:
    """CLIP's symmetric cross-entropy: every image chooses its text, every text its image."""

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}

    def prepare(self, network: CLIP) -> None:
        """Nothing: the original's initialisation is made for this loss."""

    def __call__(
        self, network: CLIP, images: Array, texts: Array, targets: Array | None
    ) -> tuple[Array, Array, Array]:
        ops = network.ops
        loss, cache = ops.contrastive_loss(images, texts, network.logit_scale.data, targets)
        dimages, dtexts, dscale = ops.contrastive_loss_backward(1.0, cache)
        network.logit_scale.add_grad(dscale)
        return loss, dimages, dtexts

    def chance(self, n: int) -> float:
        return math.log(n)

    def floor(self, targets: Array | None, n: int) -> float:
        return contrastive_floor(targets)


class Sigmoid:
    """SigLIP's loss: every pair by itself is asked whether it belongs together.

    Its bias is learned with the network and serves training alone: zero-shot compares logits, and
    a bias that is the same for all changes no comparison.
    Source: Zhai et al. 2023 (arXiv 2303.15343).
    """

    def __init__(self) -> None:
        self.bias = Parameter(np.zeros((), np.float32))
        self.parameters = {"logit_bias": self.bias}

    def prepare(self, network: CLIP) -> None:
        """SigLIP's start: nearly all pairs do not belong together, and the bias says so."""
        scale = network.logit_scale
        scale.data = 0 * scale.data + SIGLIP_LOG_SCALE
        self.bias.data = 0 * scale.data + SIGLIP_BIAS

    def __call__(
        self, network: CLIP, images: Array, texts: Array, targets: Array | None
    ) -> tuple[Array, Array, Array]:
        ops = network.ops
        scale, bias = network.logit_scale, self.bias
        loss, cache = ops.sigmoid_loss(images, texts, scale.data, bias.data, targets)
        dimages, dtexts, dscale, dbias = ops.sigmoid_loss_backward(1.0, cache)
        scale.add_grad(dscale)
        bias.add_grad(dbias)
        return loss, dimages, dtexts

    def chance(self, n: int) -> float:
        """All logits alike, at the bias that suits one pair in n best."""
        share = 1 / n
        return -n * (share * math.log(share) + (1 - share) * math.log(1 - share))

    def floor(self, targets: Array | None, n: int) -> float:
        return 0.0


OBJECTIVES: dict[str, type[Contrastive] | type[Sigmoid]] = {
    "contrastive": Contrastive,
    "sigmoid": Sigmoid,
}
