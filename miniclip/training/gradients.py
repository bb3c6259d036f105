"""The gradient of a loss over unit embeddings, at once or chunk by chunk (GradCache).

The contrastive loss looks at all pairs of a batch, so the batch cannot simply be cut: half of it
has a quarter of the pairs. But the loss sees the embeddings only. So: first all embeddings without
keeping anything (small: N x E), then the loss and its gradient by the embeddings, and then each
chunk once more with a recording, to carry its share of that gradient down through the tower. It
costs one more forward pass and the memory of one chunk.

Source: Gao et al. 2021 (arXiv 2101.06983), "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from miniclip.models import CLIP
from miniclip.nn.module import Module
from miniclip.ops.array import Array

# Unit embeddings of N images and N texts, (N, E) each -> the loss, and its gradient by both.
EmbeddingLoss: TypeAlias = Callable[[Array, Array], tuple[Array, Array, Array]]


def gradients(
    network: CLIP, pixels: Array, ids: Array, loss: EmbeddingLoss, chunk: int | None = None
) -> tuple[Array, Array, Array]:
    """A loss over unit embeddings; its gradient is added to `.grad` of both towers' parameters.

    pixels: (N, 3, H, W). ids: (N, T). loss: called once, with the embeddings of the whole batch.
    chunk: samples at a time, None for all: the same loss, and the same gradients wherever samples
    do not see each other (BatchNorm in training takes its statistics from the chunk).
    Returns the loss, a number of 0 dimensions, and the unit embeddings of images and texts, (N, E).
    """
    if chunk is None or chunk >= len(pixels):
        return in_one_pass(network, pixels, ids, loss)
    return chunk_by_chunk(network, pixels, ids, loss, chunk)


def in_one_pass(
    network: CLIP, pixels: Array, ids: Array, loss: EmbeddingLoss
) -> tuple[Array, Array, Array]:
    ops = network.ops
    with network.record():
        images, image_cache = ops.l2_normalize(network.visual(pixels))  # (N, E)
        texts, text_cache = ops.l2_normalize(network.text(ids))  # (N, E)
        value, dimages, dtexts = loss(images, texts)
        network.text.backward(ops.l2_normalize_backward(dtexts, text_cache))
        network.visual.backward(ops.l2_normalize_backward(dimages, image_cache))
    return value, images, texts


def chunk_by_chunk(
    network: CLIP, pixels: Array, ids: Array, loss: EmbeddingLoss, chunk: int
) -> tuple[Array, Array, Array]:
    # 1. all embeddings, nothing kept; running statistics are left to the replay
    with unchanged_buffers(network):
        images = embed(network, network.visual, pixels, chunk)  # (N, E)
        texts = embed(network, network.text, ids, chunk)  # (N, E)
    # 2. the loss over all pairs, and its gradient by the embeddings
    value, dimages, dtexts = loss(images, texts)
    # 3. each chunk once more, now with a recording
    replay(network, network.text, ids, dtexts, chunk)
    replay(network, network.visual, pixels, dimages, chunk)
    return value, images, texts


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
