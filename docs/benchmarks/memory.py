"""Peak memory of a recording pass against an inference pass: `python docs/benchmarks/memory.py`."""

import tracemalloc

import numpy as np

from miniclip.models import CLIP, get_config


def peak(run):
    """The most that NumPy held at once during run(), in MiB (weights not counted)."""
    tracemalloc.start()
    run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def record(tower, images):
    with tower.record():
        tower(images)


if __name__ == "__main__":
    for name in ("ViT-B/32", "RN50"):
        tower = CLIP(get_config(name), seed=None).visual
        images = np.zeros((8, 3, 224, 224), np.float32)
        tower(images)
        inference = peak(lambda tower=tower, images=images: tower(images))
        recording = peak(lambda tower=tower, images=images: record(tower, images))
        print(f"{name}, 8 images: inference {inference:.0f} MiB, recording {recording:.0f} MiB")
