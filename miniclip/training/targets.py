"""Which images and texts of a batch belong together, and how low the loss can get."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from miniclip.ops.array import Array


def positives(captions: Sequence[str], labels: Sequence[str] | None = None) -> Array | None:
    """(N, N): 1 where the text of column j fits the image of row i; None if only its own fits each.

    A caption that occurs twice in a batch fits both images. The sigmoid loss would otherwise call
    right pairs wrong. For equal captions the contrastive loss is the same number with and without:
    equal texts have equal embeddings, so their logits are equal and so is their mean. But it cannot
    reach zero, and these targets say how low it can get. labels: N names of what is shown; the
    caption of another picture with the same label fits as well, in whatever words, and there the
    targets change both losses.
    """
    same = equal(captions) if labels is None else equal(captions) | equal(labels)
    return None if same.sum() == len(captions) else same.astype(np.float64)


def equal(texts: Sequence[str]) -> Array:
    """(N, N): whether text i is text j."""
    numbers = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    which = np.array([numbers[text] for text in texts])
    same: Array = which[:, None] == which[None, :]
    return same


def contrastive_floor(targets: Array | None) -> float:
    """The least that the contrastive loss of these targets can be: the targets' own entropy.

    An image with k right texts wants 1/k of each; the cross-entropy to that is at least ln k.
    targets: (N, N) on any backend, or None.
    """
    if targets is None:
        return 0.0
    targets = targets.astype(np.float64)
    return 0.5 * float(np.log(targets.sum(axis=1)).mean() + np.log(targets.sum(axis=0)).mean())
