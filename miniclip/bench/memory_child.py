"""The process whose memory is measured: `python -m miniclip.bench.memory_child JOB`.

Prints its peak as JSON. See memory.py.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import numpy as np

from miniclip.bench import peers, subjects, threads
from miniclip.bench.inputs import pictures
from miniclip.bench.memory import Job, Peak, own_memory
from miniclip.ops.array import Array
from miniclip.pipeline import load

EVERY = 0.002  # seconds
REPEATS = 3  # of a batch: the first call packs weights and fills pools, later ones reuse them


class Sampler:
    """Reads the process's own memory every 2 ms, in a thread, while its block runs."""

    def __init__(self) -> None:
        self.samples = [own_memory()]  # MiB
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self.stop.wait(EVERY):
            self.samples.append(own_memory())

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop.set()
        self.thread.join()
        self.samples.append(own_memory())

    def peak(self) -> Peak:
        samples = self.samples
        quarter = max(1, len(samples) // 4)
        first, last = max(samples[:quarter]), max(samples[-quarter:])
        return Peak(samples[0], max(samples), first, last)


def make_work(job: Job) -> Callable[[], Any]:
    """Load the weights, each in its usual way, make the pictures, and return what is measured.

    Ours come from the file as it is mapped, the original's are its own copy.
    """
    if job.subject == "torch":
        config, state, _ = subjects.load_weights(job.model, job.activation)
        model = peers.original_clip(config, state, copy=True)
        return peers.inference(
            model.visual, peers.need("torch").from_numpy(job_pictures(config, job))
        )
    pipeline = load(job.model, "numba", activation=job.activation)
    x = job_pictures(pipeline.config, job)
    return lambda: pipeline.encode_image(x, progress=False)


def job_pictures(config: Any, job: Job) -> Array:
    if not job.repeated:
        return pictures(config, job.count)
    one = pictures(config, 1)
    return np.broadcast_to(one, (job.count, *one.shape[1:]))


def run(job: Job) -> Peak:
    """Do the work under the sampler's eyes."""
    torch = peers.need("torch") if job.subject == "torch" else None
    with threads.limited(job.threads, torch):
        work = make_work(job)
        time.sleep(10 * EVERY)
        with Sampler() as sampler:
            for _ in range(1 if job.repeated else REPEATS):
                work()
    return sampler.peak()


if __name__ == "__main__":
    print(json.dumps(asdict(run(Job(**json.loads(sys.argv[1]))))))
