"""The numba backend's ops against the textbook's: `python docs/benchmarks/ops.py [op ...]`.

The shapes are those of a training step: a small ResNet (64 x 64 pixels, batch 128, stem of 16
channels), a small ViT beside it, and their text tower; at the end the whole step. The backends
take turns. Times are medians of processor time, each backend on one thread, so that other programs
disturb little; the ratio is textbook / numba. What several threads gain, `miniclip bench
--training` shows.
"""

import statistics
import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits

from miniclip import backends, ops
from miniclip.cpu.team import set_threads
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig
from miniclip.training.objectives import Batch, Contrastive
from miniclip.training.optimizer import AdamW

ROUNDS = 11
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv(channels, size, out, kernel=3, stride=1):
    """A convolution of batch 128 that keeps the size, or halves it with stride 2."""
    inputs = [normal(128, channels, size, size), normal(out, channels, kernel, kernel), None]
    where = f"{channels} -> {out} channels, {size}x{size}, {kernel}x{kernel}"
    return (where + (", stride 2" if stride == 2 else ""), inputs, (stride, kernel // 2))


def norm(channels, size, statistics_too=False):
    inputs = [normal(128, channels, size, size), normal(channels), normal(channels)]
    if statistics_too:
        inputs += [normal(channels), RNG.uniform(0.5, 2, channels).astype(np.float32)]
    return f"{channels} channels, {size}x{size}", inputs, ()


def maps(channels, size, *options):
    return f"{channels} channels, {size}x{size}", [normal(128, channels, size, size)], options


def tokens(*shape):
    return " x ".join(map(str, shape)), [normal(*shape)], ()


def patches(size, patch, stride, width):
    inputs = [normal(128, 3, size, size), normal(width, 3, patch, patch)]
    return f"{size}x{size}, patches of {patch} every {stride}, width {width}", inputs, (stride,)


def words(batch, count, vocabulary, width):
    ids = np.minimum(RNG.zipf(1.3, (batch, count)), vocabulary) - 1  # some words are frequent
    return f"{batch} x {count} of {vocabulary}, width {width}", [ids, normal(vocabulary, width)], ()


def features(n, width, bias=False):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (normal(n, width) for _ in "ab")]
    scalars = [np.array(x, np.float32) for x in ([2.7, -10.0] if bias else [2.7])]
    return f"{n} pairs, width {width}", [*unit, *scalars], ()


def layer(rows, n_in, n_out):
    return (
        f"{rows} x {n_in} -> {n_out}",
        [normal(rows, n_in), normal(n_out, n_in), normal(n_out)],
        (),
    )


def classes(n, count):
    return f"{n} of {count} classes", [normal(n, count), RNG.integers(0, count, n)], ()


BATCH_NORM_SHAPES = [(8, 32), (16, 16), (64, 16), (128, 8), (256, 4), (512, 2)]
PAIRS = {
    "linear": [layer(6272, 128, 384), layer(6272, 128, 512), layer(6272, 512, 128)],
    "conv2d": [
        conv(3, 64, 8, stride=2),
        conv(8, 32, 8),
        conv(8, 32, 16),
        conv(16, 16, 16),
        conv(32, 16, 32),
        conv(64, 8, 64),
        conv(128, 4, 128),
        conv(16, 16, 64, kernel=1),
        conv(64, 16, 32, kernel=1),
        conv(64, 8, 128, kernel=1),
        conv(256, 4, 128, kernel=1),
        conv(256, 2, 512, kernel=1),
    ],
    "batch_norm": [norm(c, s) for c, s in BATCH_NORM_SHAPES],
    "batch_norm_inference": [norm(c, s, True) for c, s in BATCH_NORM_SHAPES],
    "relu": [maps(c, s) for c, s in BATCH_NORM_SHAPES],
    "avg_pool2d": [maps(16, 32, 2), maps(64, 16, 2), maps(64, 8, 2), maps(128, 4, 2)],
    "global_avg_pool": [maps(512, 2), maps(2048, 7)],
    "layer_norm": [("3072 x 128", [normal(3072, 128), normal(128), normal(128)], ())],
    "quick_gelu": [tokens(3072, 512)],
    "gelu": [tokens(3072, 512)],
    "gelu_tanh": [tokens(3072, 512)],
    "softmax": [tokens(128, 4, 24, 24), tokens(128, 128)],
    "l2_normalize": [tokens(128, 128)],
    "embedding": [words(128, 24, 800, 128), words(128, 32, 8000, 256)],
    "mean_token": [tokens(128, 4, 512), tokens(8, 49, 2048)],
    "patch_embedding": [patches(64, 8, 8, 128), patches(64, 8, 4, 128), patches(64, 16, 16, 192)],
    "scaled_dot_product_attention": [
        (f"128 x 4 x {t} x 32", [normal(128, 4, t, 32) for _ in "qkv"], ()) for t in (24, 65)
    ],
    "cosine_logits": [features(128, 128), features(1024, 128)],
    "cross_entropy": [classes(128, 128), classes(128, 1000)],
    "contrastive_loss": [features(128, 128), features(1024, 128)],
    "sigmoid_loss": [features(128, 128, bias=True), features(1024, 128, bias=True)],
}
PARAMETERS = [(128,), (128, 384), (512, 128), (2048, 512)]


def milliseconds(run):
    start = time.thread_time()
    run()
    return 1000 * (time.thread_time() - start)


def medians(textbook, numba):
    """The median time of each, taking turns; first calls, which compile, are left out."""
    times = [(milliseconds(textbook), milliseconds(numba)) for _ in range(ROUNDS + 1)][1:]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def report(op, where, textbook, numba):
    slow, fast = medians(textbook, numba)
    print(f"{op:37} {where:42} {slow:8.2f} ms {fast:8.2f} ms {slow / fast:6.2f}", flush=True)


def measure_pair(op, where, inputs, options):
    numba = backends.get("numba")
    calls = []
    for backend in (ops, numba):
        *y, cache = getattr(backend, op)(*inputs, *options)
        dy = np.ones((), y[0].dtype) if y[0].ndim == 0 else normal(*y[0].shape)
        forward, backward = getattr(backend, op), getattr(backend, f"{op}_backward")
        calls.append(
            (lambda f=forward: f(*inputs, *options), lambda b=backward, c=cache, d=dy: b(d, c))
        )
    (textbook, textbook_backward), (ours, ours_backward) = calls
    report(op, where, textbook, ours)
    report(f"{op}_backward", where, textbook_backward, ours_backward)


def measure_adamw(shape):
    arrays = [normal(*shape), normal(*shape), normal(*shape), normal(*shape) ** 2]
    calls = [lambda b=b: b.adamw(*arrays, 10, 1e-3) for b in (ops, backends.get("numba"))]
    report("adamw", " x ".join(map(str, shape)), *calls)


def measure_step(name, tower):
    """Loss, gradients and AdamW, from pixels and ids of batch 128 to new parameters."""
    config = CLIPConfig(128, tower, TextConfig(24, 800, 128, 4, 3))
    ids = RNG.integers(1, 799, (128, 24))
    ids[:, -1] = 799
    batch, objective = Batch(normal(128, 3, 64, 64), ids), Contrastive()

    def step(network, optimizer):
        network.zero_grad()
        objective(network, batch)
        optimizer.step(1e-4)

    calls = []
    for backend in ("numpy", "numba"):
        network = CLIP(config, seed=0).train().to(backend)
        optimizer = AdamW(network.ops, dict(network.named_parameters()))
        calls.append(lambda n=network, o=optimizer: step(n, o))
    report("training_step", name, *calls)


TOWERS = {
    "ResNet, layers 1 1 1 1, width 16": VisionConfig(64, (1, 1, 1, 1), 16, 8),
    "ViT, 4 layers, width 128, patches of 8": VisionConfig(64, 4, 128, 4, patch_size=8),
}


def main(wanted):
    def asked_for(op):
        return not wanted or op in wanted

    set_threads(1)
    with threadpool_limits(1, "blas"):
        for op, cases in PAIRS.items():
            for case in cases if asked_for(op) else []:
                measure_pair(op, *case)
        for shape in PARAMETERS if asked_for("adamw") else []:
            measure_adamw(shape)
        for name, tower in TOWERS.items() if asked_for("training_step") else []:
            measure_step(name, tower)


if __name__ == "__main__":
    main(sys.argv[1:])
