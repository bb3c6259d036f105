"""Robustness of both shipped models, side by side: `python docs/benchmarks/robustness.py`.

Prints the tables of `miniclip evaluate MODEL --robustness`, and draws docs/images/robustness.png.
With names of models or folders as arguments: those instead (`... runs/vit runs/vit-wrong`); the
picture is then called after --picture.
"""

import argparse
from pathlib import Path

from miniclip.checkpoints.shipped import NAMES
from miniclip.pipeline import load
from miniclip.tasks.robustness import as_markdown, plot_robustness, robustness

IMAGES = Path(__file__).parents[1] / "images"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=NAMES)
    parser.add_argument("--picture", default="robustness.png")
    parser.add_argument("--count", type=int, default=600)
    options = parser.parse_args()
    rows = {Path(name).name: robustness(load(name), options.count) for name in options.models}
    for name, own in rows.items():
        print(f"{name}\n\n{as_markdown(own)}\n")
    plot_robustness(rows, IMAGES / options.picture)


if __name__ == "__main__":
    main()
