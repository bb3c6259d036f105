"""What a step asks of the network: CLIP's loss over all pairs, SigLIP's pair by pair, or another.

An objective is given the network and a batch, and adds the gradient of its loss to the network and
to a module of its own. The two here are functions of unit embeddings. Others need not be: a
captioner reads the image tower's tokens, a classifier has weights for its classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from miniclip.models import CLIP
from miniclip.nn.module import Module, Parameter
from miniclip.ops.array import Array
from miniclip.training.gradients import gradients
from miniclip.training.targets import contrastive_floor

SIGLIP_LOG_SCALE, SIGLIP_BIAS = math.log(10), -10.0  # where SigLIP starts


@dataclass(frozen=True)
class Batch:
    """What an objective is given, its arrays on the network's backend.

    pixels: (N, 3, H, W) in the network's dtype. ids: (N, T), T as the longest text needs it.
    captions: the N texts. targets: (N, N), positive where text j belongs to image i; None where
    only text i does (`targets.positives`). step: its number, 0 for the first.
    """

    pixels: Array
    ids: Array
    captions: Sequence[str] = ()
    targets: Array | None = None
    step: int = 0


@dataclass(frozen=True)
class Outcome:
    """loss: what the gradients belong to. measures: further numbers for the report, by name.

    Both may be given as arrays of 0 dimensions, of any backend; they are kept as Python's numbers.
    """

    loss: float
    measures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", float(self.loss))
        numbers = {name: float(value) for name, value in self.measures.items()}
        object.__setattr__(self, "measures", numbers)


class Objective:
    """What a network is trained for. `Contrastive` below is an example, docs/training.md another.

    name: for messages, and for the checkpoint, which only a run with the same objective resumes.
    module: what the objective learns of its own, or None. The trainer moves it to the network's
    backend and dtype, and treats its parameters and buffers as it does the network's.
    no_chunks: why the loss cannot be computed chunk by chunk (GradCache); None where it can.
    """

    name: str
    module: Module | None = None
    no_chunks: str | None = "is no function of independent image and text embeddings"

    def prepare(self, network: CLIP) -> None:
        """Called once, before the first step of a new run and before a checkpoint is resumed.

        Here a module is made whose sizes depend on the network, and the network's start is set.
        """

    def __call__(self, network: CLIP, batch: Batch, chunk: int | None = None) -> Outcome:
        """Adds the gradient of the loss to `.grad` of the network's and the module's parameters.

        chunk: pairs at a time, None for all. An objective without chunks calls `check_chunk`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def reference_lines(self, batch: Batch) -> dict[str, float]:
        """What to compare the loss of this batch with, where it is known.

        "chance": the loss of a model that only guesses. "floor": the least that it can be.
        """
        return {}

    def check_chunk(self, chunk: int | None) -> None:
        """Raise ValueError for a chunk that this objective cannot use."""
        if chunk is not None and self.no_chunks is not None:
            raise ValueError(
                f"chunk: got {chunk}, expected None: the objective {self.name!r} {self.no_chunks}, "
                "so it cannot be computed chunk by chunk"
            )


class EmbeddingObjective(Objective):
    """A loss over the unit embeddings of images and texts, and the temperature."""

    no_chunks = None

    def loss(
        self, network: CLIP, images: Array, texts: Array, targets: Array | None
    ) -> tuple[Array, Array, Array]:
        """images, texts: (N, E) of unit length. targets: (N, N) or None.

        Returns the loss, dimages and dtexts (N, E); the gradient of the temperature and of the
        objective's own parameters is added to their `.grad`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def chance(self, n: int) -> float:
        """The loss of a model that cannot tell n pairs apart."""
        raise NotImplementedError(f"{type(self).__name__} has no chance")

    def floor(self, targets: Array | None) -> float:
        """The least that the loss of these targets can be."""
        raise NotImplementedError(f"{type(self).__name__} has no floor")

    def __call__(self, network: CLIP, batch: Batch, chunk: int | None = None) -> Outcome:
        def loss(images: Array, texts: Array) -> tuple[Array, Array, Array]:
            return self.loss(network, images, texts, batch.targets)

        value, images, texts = gradients(network, batch.pixels, batch.ids, loss, chunk)
        log_scale = network.ops.to_numpy(network.logit_scale.data)
        measures = {
            "scale": float(np.exp(log_scale, dtype=np.float64)),
            "image_cosine": mean_cosine(images),
            "text_cosine": mean_cosine(texts),
        }
        return Outcome(float(value), measures)

    def reference_lines(self, batch: Batch) -> dict[str, float]:
        return {"chance": self.chance(len(batch.pixels)), "floor": self.floor(batch.targets)}


class Contrastive(EmbeddingObjective):
    """CLIP's symmetric cross-entropy: every image chooses its text, every text its image."""

    name = "contrastive"  # its start is the original's initialisation, which is made for this loss

    def loss(
        self, network: CLIP, images: Array, texts: Array, targets: Array | None
    ) -> tuple[Array, Array, Array]:
        ops = network.ops
        loss, cache = ops.contrastive_loss(images, texts, network.logit_scale.data, targets)
        dimages, dtexts, dscale = ops.contrastive_loss_backward(1.0, cache)
        network.logit_scale.add_grad(dscale)
        return loss, dimages, dtexts

    def chance(self, n: int) -> float:
        return math.log(n)

    def floor(self, targets: Array | None) -> float:
        return contrastive_floor(targets)


class LogitBias(Module):
    """What SigLIP adds to every logit."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_bias = Parameter(np.full((), SIGLIP_BIAS, np.float32))


class Sigmoid(EmbeddingObjective):
    """SigLIP's loss: every pair by itself is asked whether it belongs together.

    Its bias is learned with the network and serves training alone: zero-shot compares logits, and
    a bias that is the same for all changes no comparison.
    Source: Zhai et al. 2023 (arXiv 2303.15343).
    """

    name = "sigmoid"

    def __init__(self) -> None:
        self.module: LogitBias = LogitBias()

    def prepare(self, network: CLIP) -> None:
        """SigLIP's start: nearly all pairs do not belong together, and the bias says so."""
        scale = network.logit_scale
        scale.data = 0 * scale.data + SIGLIP_LOG_SCALE

    def loss(
        self, network: CLIP, images: Array, texts: Array, targets: Array | None
    ) -> tuple[Array, Array, Array]:
        ops = network.ops
        scale, bias = network.logit_scale, self.module.logit_bias
        loss, cache = ops.sigmoid_loss(images, texts, scale.data, bias.data, targets)
        dimages, dtexts, dscale, dbias = ops.sigmoid_loss_backward(1.0, cache)
        scale.add_grad(dscale)
        bias.add_grad(dbias)
        return loss, dimages, dtexts

    def chance(self, n: int) -> float:
        """All logits alike, at the bias that suits one pair in n best."""
        share = 1 / n
        return -n * (share * math.log(share) + (1 - share) * math.log(1 - share))

    def floor(self, targets: Array | None) -> float:
        return 0.0


OBJECTIVES: dict[str, type[Objective]] = {kind.name: kind for kind in (Contrastive, Sigmoid)}


def mean_cosine(unit: Array) -> float:
    """The mean cosine between different rows of unit length, (N, E): 1 if all are alike.

    The sum over all pairs is the squared length of the rows' sum; N of it are each row with itself.
    NaN for a single row, which has no other to be compared with.
    """
    n = unit.shape[0]
    if n < 2:
        return math.nan
    total = unit.sum(axis=0)
    return (float((total * total).sum()) - n) / (n * (n - 1))


def named_parameters(network: CLIP, objective: Objective) -> dict[str, Parameter]:
    """Everything that can be learned, by the names that an optimiser and its checkpoint use.

    ValueError where the objective's module has a name, or a parameter, that the network has too.
    """
    named = dict(network.named_parameters())
    theirs = {id(p): name for name, p in named.items()}
    own = {} if objective.module is None else dict(objective.module.named_parameters())
    for name, p in own.items():
        if name in named:
            raise ValueError(
                f"objective: {objective.name!r} has a parameter {name!r}, and so has the network; "
                "expected another name, such as that of a child module around it"
            )
        if id(p) in theirs:
            raise ValueError(
                f"objective: {objective.name!r} holds the network's {theirs[id(p)]} as its own "
                f"{name}; expected a module without parts of the network"
            )
    return named | own
