"""A training step against PyTorch's: `python docs/benchmarks/training_step.py [model[@batch] ...]`.

A step is forward, loss, backward and AdamW, on random pictures and texts, from the same weights:
ours on the numba backend, PyTorch's with the original's own model.py, autograd and
torch.optim.AdamW. Each runs in a process of its own, so that neither meets the other's threads or
its memory, with the same number of threads. They take turns; the ratio ours / PyTorch's is that of
the medians, in brackets the quartiles of the ratios of neighbouring turns.
"""

import multiprocessing
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import miniclip
from miniclip.backends.numba_team import usable_cores
from miniclip.models import CLIP, get_config
from miniclip.training.gradients import gradients
from miniclip.training.optimizer import AdamW

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from original import living_state, load_into_original, original_clip, pictures, texts

STEPS = ["mini-vit@128", "mini-vit@16", "mini-rn@128", "mini-rn@16", "ViT-B/32@16"]
SECONDS = 8.0  # for each model, about
RATE = 1e-4


def configuration(name):
    return miniclip.load(name).network.config if name.startswith("mini-") else get_config(name)


def our_step(config, state, pixels, ids):
    network = CLIP(config, seed=None)
    network.load_state_dict(state)
    network.to("numba").train()
    optimizer = AdamW(network.ops, dict(network.named_parameters()))

    def step():
        network.zero_grad()
        loss = gradients(network, pixels, ids).loss
        optimizer.step(RATE)
        return loss

    return step


def original(config, state):
    """The original CLIP; its patches do not overlap, those of mini-vit do."""
    stride = config.vision.stride
    model = original_clip(
        replace(config, vision=replace(config.vision, stride=None)), torch.float32
    )
    if stride is not None:
        model.visual.conv1.stride = (stride, stride)
        positions = torch.empty(state["visual.positional_embedding"].shape)
        model.visual.positional_embedding = torch.nn.Parameter(positions)
    load_into_original(model, state)
    return model


def torch_step(config, state, pixels, ids):
    model = original(config, state)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), RATE, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1
    )
    pixels, ids, pairs = torch.tensor(pixels), torch.tensor(ids), torch.arange(len(ids))

    def step():
        optimizer.zero_grad()
        per_image, per_text = model(pixels, ids)
        entropy = torch.nn.functional.cross_entropy
        loss = (entropy(per_image, pairs) + entropy(per_text, pairs)) / 2
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def serve(pipe, make, name, batch):
    """In a process of its own: one step for every message, answered by its loss and its time."""
    torch.set_num_threads(usable_cores())
    config = configuration(name)
    step = make(
        config, living_state(config, 0), pictures(config, batch, 0), texts(config, batch, 0)
    )
    while pipe.recv():
        start = time.perf_counter()
        loss = step()
        pipe.send((loss, time.perf_counter() - start))


@contextmanager
def process(make, name, batch):
    """A function that makes a step in another process and returns its loss and its seconds."""
    context = multiprocessing.get_context("spawn")  # a fresh interpreter, no threads inherited
    here, there = context.Pipe()
    worker = context.Process(target=serve, args=(there, make, name, batch), daemon=True)
    worker.start()

    def step():
        here.send(True)
        return here.recv()

    yield step
    here.send(False)
    worker.join()


def measure(name, batch):
    with process(our_step, name, batch) as ours, process(torch_step, name, batch) as theirs:
        losses = [step()[0] for step in (ours, theirs)]  # of the first calls, which compile
        assert abs(losses[0] - losses[1]) < 1e-3 * losses[1], losses
        for _ in range(2):
            once = ours()[1] + theirs()[1]
        rounds = max(5, min(100, round(SECONDS / once)))
        times = [(ours()[1], theirs()[1]) for _ in range(rounds)]
    mine, other = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    low, _, high = statistics.quantiles([a / b for a, b in times], n=4)
    print(
        f"{name:9} batch {batch:3} {mine:8.1f} ms, PyTorch {other:8.1f} ms, "
        f"ratio {mine / other:.2f} ({low:.2f} to {high:.2f})",
        flush=True,
    )


def main(wanted):
    print(f"{usable_cores()} threads; PyTorch {torch.__version__}; ours / PyTorch")
    for step in wanted or STEPS:
        name, _, batch = step.partition("@")
        measure(name, int(batch or 128))


if __name__ == "__main__":
    main(sys.argv[1:])
