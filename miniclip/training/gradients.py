"""One batch's loss and gradients, at once or chunk by chunk (GradCache).

The contrastive loss looks at all pairs of a batch, so the batch cannot simply be cut: half of it
has a quarter of the pairs. But the loss sees the embeddings only. So: first all embeddings without
keeping anything (small: N x E), then the loss and its gradient by the embeddings, and then each
chunk once more with a recording, to carry its share of that gradient down through the tower. It
costs one more forward pass and the memory of one chunk.

Source: Gao et al. 2021 (arXiv 2101.06983), "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from miniclip.models import CLIP
from miniclip.nn.module import Module
from miniclip.ops.array import Array
from miniclip.training.objectives import Contrastive, Objective


@dataclass(frozen=True)
class Outcome:
    """loss: a number. images, texts: the unit embeddings (N, E) that it was computed from."""

    loss: float
    images: Array
    texts: Array


def gradients(
    network: CLIP,
    pixels: Array,
    ids: Array,
    targets: Array | None = None,
    objective: Objective | None = None,
    chunk: int | None = None,
) -> Outcome:
    """Loss of a batch; its gradient is added to `.grad` of every parameter of the network.

    pixels: (N, 3, R, R). ids: (N, T). targets: (N, N) or None, see `targets.positives`.
    objective: the loss; None: CLIP's.
    chunk: samples at a time, None for all: the same loss, and the same gradients wherever samples
    do not see each other (BatchNorm in training takes its statistics from the chunk).
    """
    objective = objective or Contrastive()
    if chunk is None or chunk >= len(pixels):
        return in_one_pass(network, pixels, ids, targets, objective)
    return chunk_by_chunk(network, pixels, ids, targets, objective, chunk)


def in_one_pass(
    network: CLIP, pixels: Array, ids: Array, targets: Array | None, objective: Objective
) -> Outcome:
    ops = network.ops
    with network.record():
        images, image_cache = ops.l2_normalize(network.visual(pixels))  # (N, E)
        texts, text_cache = ops.l2_normalize(network.text(ids))  # (N, E)
        loss, dimages, dtexts = objective(network, images, texts, targets)
        network.text.backward(ops.l2_normalize_backward(dtexts, text_cache))
        network.visual.backward(ops.l2_normalize_backward(dimages, image_cache))
    return Outcome(float(loss), images, texts)


def chunk_by_chunk(
    network: CLIP,
    pixels: Array,
    ids: Array,
    targets: Array | None,
    objective: Objective,
    chunk: int,
) -> Outcome:
    # 1. all embeddings, nothing kept; running statistics are left to the replay
    with unchanged_buffers(network):
        images = embed(network, network.visual, pixels, chunk)  # (N, E)
        texts = embed(network, network.text, ids, chunk)  # (N, E)
    # 2. the loss over all pairs, and its gradient by the embeddings
    loss, dimages, dtexts = objective(network, images, texts, targets)
    # 3. each chunk once more, now with a recording
    replay(network, network.text, ids, dtexts, chunk)
    replay(network, network.visual, pixels, dimages, chunk)
    return Outcome(float(loss), images, texts)


def slices(n: int, chunk: int) -> Iterator[slice]:
    for start in range(0, n, chunk):
        yield slice(start, start + chunk)


def embed(network: CLIP, tower: Module, x: Array, chunk: int) -> Array:
    """Unit embeddings of all samples, (N, E)."""
    parts = [network.ops.l2_normalize(tower(x[at]))[0] for at in slices(len(x), chunk)]
    return np.concatenate(parts)


def replay(network: CLIP, tower: Module, x: Array, dy: Array, chunk: int) -> None:
    """Forward and backward of every chunk, given the gradient of its unit embeddings."""
    ops = network.ops
    for at in slices(len(x), chunk):
        with network.record():
            _, cache = ops.l2_normalize(tower(x[at]))
            tower.backward(ops.l2_normalize_backward(dy[at], cache))


@contextmanager
def unchanged_buffers(network: Module) -> Iterator[None]:
    """Whatever the block does to running statistics is undone after it."""
    before = [(module, dict(module.buffers_)) for module in network.modules()]
    try:
        yield
    finally:
        for module, buffers in before:
            module.buffers_.update(buffers)
