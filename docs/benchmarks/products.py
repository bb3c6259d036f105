"""Our matrix product beside NumPy's: `python docs/benchmarks/products.py`.

GFLOP/s of float32 products on one thread and on all, ours and OpenBLAS's in turns: medians, and the
best of each. Ours packs one of the matrices in every call, as a BLAS library does.
"""

import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

from miniclip.cpu.products import product
from miniclip.cpu.team import set_threads, usable_cores

SHAPES = [(400, 768, 3072), (1024, 1024, 1024), (2048, 2048, 2048)]  # rows, depth, columns
ROUNDS = 15


def rate(run, operations):
    start = time.perf_counter()
    run()
    return operations / (time.perf_counter() - start) / 1e9


def measure(rows, depth, columns):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, depth), np.float32)
    b = rng.standard_normal((depth, columns), np.float32)
    out = np.empty((rows, columns), np.float32)
    runs = {"ours": lambda: product(a, b), "OpenBLAS": lambda: np.matmul(a, b, out=out)}
    for run in runs.values():
        run()  # compiled, and threads awake
    rates = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            time.sleep(0.2)  # OpenBLAS's threads spin for a while after a product
            rates[name].append(rate(run, 2 * rows * depth * columns))
    return rates


if __name__ == "__main__":
    for threads in sorted({1, usable_cores()}):
        set_threads(threads)
        with threadpool_limits(threads, "blas"):
            for shape in SHAPES:
                for name, rates in measure(*shape).items():
                    middle = statistics.median(rates)
                    title = f"{threads} threads, {' x '.join(map(str, shape))}, {name}"
                    print(f"{title:45} {middle:5.0f} GFLOP/s (best {max(rates):.0f})")
