"""Small models trained alike, one thing changed: `python docs/benchmarks/ablations.py FOLDER`.

Each row of the table is a run of `miniclip train` with its own configuration, written into FOLDER
(a run that is there already is gone on with, or only evaluated). Prints a Markdown table, and draws
docs/images/wrong-captions.png where its four runs are there: losses on clean and wrong captions.
"""

import argparse
import copy
from pathlib import Path

from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from miniclip.pipeline import load
from miniclip.tasks.evaluate import evaluate
from miniclip.tasks.settings import PRESETS
from miniclip.tasks.train import MODEL, train
from miniclip.training.report import LOG, read_log, smoothed

# name, preset, fields of the image tower, options of the scenes
RUNS = (
    ("ViT, overlapping patches (16, stride 8)", "vit", "mini-vit", {}, {}),
    ("ViT, patches side by side (8, stride 8)", "vit-plain", "mini-vit", {"patch_size": 8}, {}),
    ("ViT, 20 % wrong captions", "vit-wrong", "mini-vit", {}, {"wrong": 0.2}),
    ("ResNet, attention pool", "rn", "mini-rn", {}, {}),
    ("ResNet, average pool", "rn-average", "mini-rn", {"pool": "average"}, {}),
    ("ResNet, 20 % wrong captions", "rn-wrong", "mini-rn", {}, {"wrong": 0.2}),
)
PLOTTED = ("vit", "vit-wrong", "rn", "rn-wrong")
QUESTIONS = (
    ("pair", "en", "seen"),
    ("pair", "en", "held-out"),
    ("pair", "zh", "held-out"),
    ("shape", "en", "seen"),
    ("colour", "en", "seen"),
)


def configuration(preset, vision, scenes, steps):
    """A preset with these changes, as the content of a configuration file."""
    content = copy.deepcopy(PRESETS[preset])
    content["model"]["vision"] |= vision
    content["recipe"]["steps"] = steps
    content["scenes"] = scenes
    return content


def as_toml(content):
    """The few kinds of values that configurations hold."""
    lines, tables = [], []
    for key, value in content.items():
        if isinstance(value, dict):
            tables.append((key, value))
        else:
            lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}")
    for key, value in tables:
        inner = as_toml(value).replace("\n[", f"\n[{key}.")
        lines.append(f"\n[{key}]\n{inner}")
    return "\n".join(lines)


def run(folder, name, preset, vision, scenes, steps):
    """The trained model; from the folder if it is there."""
    out = folder / name
    if not (out / MODEL).exists():
        settings = folder / f"{name}.toml"
        settings.write_text(as_toml(configuration(preset, vision, scenes, steps)))
        train(settings, out, backend="numba")
    return load(out, "numba")


def plot_losses(folder, picture):
    """Smoothed loss over steps of those runs that the folder has, ViT beside ResNet."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, kind, title in zip(
        figure.subplots(1, 2, sharey=True), ("vit", "rn"), ("ViT", "ResNet"), strict=True
    ):
        for name, label in ((kind, "clean captions"), (f"{kind}-wrong", "20 % wrong")):
            rows = read_log(folder / name / LOG)
            axes.plot(smoothed([row["loss"] for row in rows]), label=label)
        axes.plot([row["chance"] for row in rows], "k--", linewidth=0.8, label="guessing, ln N")
        axes.set(title=title, xlabel="step", ylabel="contrastive loss", ylim=(0, None))
        axes.legend()
    figure.savefig(picture, dpi=110)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--only", nargs="+", help="names of runs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    headings = ["model", *(" ".join(question) for question in QUESTIONS)]
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}", flush=True)
    for title, name, preset, vision, scenes in RUNS:
        if options.only and name not in options.only:
            continue
        with threadpool_limits(1, "blas"):
            model = run(options.folder, name, preset, vision, scenes, options.steps)
            result = evaluate(model, options.count)
        shares = [f"{100 * result.find(*question).share:.1f}" for question in QUESTIONS]
        print(f"| {' | '.join([title, *shares])} |", flush=True)
    if all((options.folder / name / LOG).exists() for name in PLOTTED):
        plot_losses(options.folder, Path(__file__).parents[1] / "images" / "wrong-captions.png")


if __name__ == "__main__":
    main()
