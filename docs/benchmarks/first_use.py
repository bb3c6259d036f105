"""What compiling costs: `python docs/benchmarks/first_use.py`.

Runs everything that is compiled (the plans of a ViT, a ResNet and the text tower, a training step
of both models) in a process with an empty cache, as after an install, and in later processes that
find the compiled code on disk. In each, everything is done twice: what the first time takes longer
is compiling, or loading what was compiled, and making the plans.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

LATER = 5


def child():
    """Prints the seconds of importing Numba and the backend, and by how much the first time was
    longer than the second."""
    start = time.perf_counter()
    import numba  # noqa: F401

    from miniclip import backends

    backends.get("numba")
    importing = time.perf_counter() - start
    first, second = everything(), everything()
    print(importing, first - second)


def everything():
    """Seconds to load both models, embed a picture and a text, and train a step."""
    import numpy as np

    import miniclip

    start = time.perf_counter()
    for name in ("mini-vit", "mini-rn"):
        model = miniclip.load(name, backend="numba")
        pixels = np.zeros((2, 3, model.transform.size, model.transform.size), np.float32)
        model.encode_image(pixels)
        texts = ["a red circle", "a blue star"]
        model.encode_text(texts)
        train_a_step(model.network, pixels, model.tokenize(texts))
    return time.perf_counter() - start


def train_a_step(network, pixels, ids):
    from miniclip.training.objectives import Batch, Contrastive
    from miniclip.training.optimizer import AdamW

    parameters = dict(network.train().named_parameters())
    Contrastive()(network, Batch(pixels, ids))
    AdamW(network.ops, parameters).step(1e-4)
    network.eval()


def measure(cache):
    run = subprocess.run(
        [sys.executable, __file__, "child"],
        env={**os.environ, "MINICLIP_CACHE_DIR": cache},
        check=True,
        capture_output=True,
        text=True,
    )
    return [float(number) for number in run.stdout.split()]


def main():
    with tempfile.TemporaryDirectory() as cache:
        _, compiling = measure(cache)
        later = [measure(cache) for _ in range(LATER)]
    importing, loading = (statistics.median(column) for column in zip(*later, strict=True))
    print(f"first use: compiling {compiling:.1f} s")
    print(f"later: importing Numba and the backend {importing:.2f} s, ", end="")
    print(f"loading what was compiled, and the plans {loading:.2f} s")


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()
