"""What training reads: batches in a reproducible order, loaded while the last one is learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from miniclip.ops.array import Array
from miniclip.world.captions import caption
from miniclip.world.drawing import RESOLUTION, draw_scene
from miniclip.world.scenes import TRAINING_WORLD, Scene, World, make_scene


class Dataset(Protocol):
    """Pairs of picture and caption by number.

    One that changes on the way of a run, as augmentation does, sets `by_step` to True, and its
    `load` is given the step too. One may have `labels(indices)`: those of the pairs that `load` did
    not leave out.
    """

    def __len__(self) -> int: ...

    def load(self, indices: Sequence[int], epoch: int) -> tuple[Array, list[str]]:
        """Pixels (n, 3, R, R), preprocessed, and n captions. Broken pictures are left out."""
        ...


@dataclass(frozen=True)
class LoadedBatch:
    """A step's pairs as the dataset gave them, in host memory.

    step: the step it belongs to. pixels: (N, 3, R, R). captions: N texts. labels: N names of what
    is shown, where pictures of one thing have different captions; None where there are none.
    """

    step: int
    epoch: int
    indices: tuple[int, ...]
    pixels: Array
    captions: list[str]
    labels: tuple[str, ...] | None = None


class SceneData:
    """Scenes of a world as a dataset: drawn when asked for, never stored.

    count: scenes of an epoch. transform: a list of pictures -> (n, 3, R, R), such as
    `miniclip.Transform`. wrong: share of the captions that belong to another scene. language:
    "en", "zh" or None for both. Captions are worded anew in every epoch.
    """

    def __init__(
        self,
        transform: Callable[[Any], Array],
        count: int,
        seed: int = 0,
        world: World = TRAINING_WORLD,
        wrong: float = 0.0,
        language: str | None = None,
        size: int = RESOLUTION,
    ) -> None:
        if not 0 <= wrong <= 1:
            raise ValueError(f"wrong: got {wrong}, expected a share from 0 to 1")
        self.transform, self.count, self.seed = transform, count, seed
        self.world, self.wrong, self.language, self.size = world, wrong, language, size

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        return make_scene(self.world, self.seed, index)

    def described(self, index: int) -> int:
        """The scene that this scene's caption speaks of: itself, or any, if the caption is wrong.

        It is the same in every epoch: a wrong label stays wrong.
        """
        rng = np.random.default_rng([self.seed, index, 2])
        is_wrong, other = rng.random() < self.wrong, int(rng.integers(self.count))
        return other if is_wrong else index

    def caption(self, index: int, epoch: int) -> str:
        rng = np.random.default_rng([self.seed, index, 3, epoch])
        return caption(self.scene(self.described(index)), rng, self.language)

    def load(self, indices: Sequence[int], epoch: int) -> tuple[Array, list[str]]:
        pictures = [draw_scene(self.scene(i), self.size) for i in indices]
        return self.transform(pictures), [self.caption(i, epoch) for i in indices]


@lru_cache(2)
def shuffled(count: int, seed: int, epoch: int) -> Array:
    """The order of an epoch: every number below count once."""
    return np.random.default_rng([seed, epoch, 4]).permutation(count)


def place_of(step: int, count: int, batch_size: int) -> tuple[int, int]:
    """Epoch and first position in its order for a step; what does not fill a batch is left out."""
    per_epoch = count // batch_size
    return step // per_epoch, step % per_epoch * batch_size


def load_batch(data: Dataset, step: int, batch_size: int, seed: int) -> LoadedBatch:
    """The batch of a step: it depends on the step's number alone, so that a run can be resumed."""
    epoch, start = place_of(step, len(data), batch_size)
    order = shuffled(len(data), seed, epoch)
    indices = tuple(int(i) for i in order[start : start + batch_size])
    place: Any = (epoch, step) if getattr(data, "by_step", False) else (epoch,)
    pixels, captions = data.load(indices, *place)
    labels = data.labels(indices) if hasattr(data, "labels") else None
    return LoadedBatch(step, epoch, indices, pixels, captions, labels)


def batches(data: Dataset, steps: range, batch_size: int, seed: int) -> Iterator[LoadedBatch]:
    """The batches of these steps, each loaded in a second thread while the last one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="miniclip-batch") as loader:
        coming = None
        for step in steps:
            ready = coming or loader.submit(load_batch, data, step, batch_size, seed)
            following = step + 1
            coming = (
                loader.submit(load_batch, data, following, batch_size, seed)
                if following < steps.stop
                else None
            )
            yield ready.result()
