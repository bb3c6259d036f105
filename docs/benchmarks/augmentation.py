"""What loading and augmenting cost beside a step: `python docs/benchmarks/augmentation.py DATA`.

DATA: the set that `miniclip data emoji` made. A batch of the preset mini-emoji is loaded, changed
and worded, compiled and by NumPy, and trained on, turn by turn; medians of the rounds, and ratios.
Nothing is written.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from miniclip.backends import choose
from miniclip.tasks.settings import read_settings
from miniclip.tasks.train import assemble, shortened
from miniclip.training.augmented import apply_all
from miniclip.training.data import load_batch
from miniclip.training.loop import Trainer


def seconds_of(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(data, rounds):
    """The seconds of each part, a list a part."""
    settings = read_settings("mini-emoji", {"steps": 10 * rounds})
    pipeline, source, _ = assemble(settings, data, None, 2, "{}", print, 0.0, "numba")
    network = pipeline.network.to(choose("numba"), "float32")
    trainer = Trainer(network, source, shortened(pipeline), settings.recipe, progress=False)
    trainer.train_mode()
    batch, middle = settings.recipe.batch, settings.recipe.steps // 2  # where strength is 1
    found = {"load": [], "load, NumPy": [], "train": []}
    fast = source.data.make
    for step in range(middle, middle + rounds + 1):  # the first compiles
        took, loaded = seconds_of(lambda step=step: load_batch(source, step, batch, 0))
        source.data.make = apply_all
        slow, _ = seconds_of(lambda step=step: load_batch(source, step, batch, 0))
        source.data.make = fast
        trained, _ = seconds_of(lambda loaded=loaded: trainer.train_on(loaded))
        for name, value in (("load", took), ("load, NumPy", slow), ("train", trained)):
            found[name].append(value)
    return {name: values[1:] for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.data, options.rounds)
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {name: medians[name] / medians["train"] for name in ("load", "load, NumPy")}
    if options.json:
        print(json.dumps({"seconds": found, "medians": medians, "share of a step": ratios}))
        return
    for name, value in medians.items():
        share = f", {ratios[name]:.1%} of a step" if name in ratios else ""
        print(f"{name}: {1000 * value:.1f} ms{share}")


if __name__ == "__main__":
    main()
