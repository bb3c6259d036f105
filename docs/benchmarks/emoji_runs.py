"""Runs of mini-emoji that differ in one thing: `docs/benchmarks/emoji_runs.py LIST DATA OUT`.

DATA: the set that `miniclip data emoji` made. OUT: each run has a folder of its own there; one that
is there already is gone on with, or only evaluated. LIST:

    choose   what the shipped recipe is chosen by: twemoji is not trained on, and asked about
    causes   styles x augmentation x captions, as shipped otherwise; asked in openmoji

Prints a Markdown table: top-1 and top-5 among all 1,652 names, of things that were trained on, by
names alone. `--only` runs some by name; `--pairs` decides how long each is.
"""

import argparse
import copy
from pathlib import Path

from ablations import as_toml
from threadpoolctl import threadpool_limits

from miniclip.pipeline import load
from miniclip.tasks.emoji_evaluation import score_names
from miniclip.tasks.emoji_set import embed_names, embed_style, read_questions
from miniclip.tasks.settings import PRESETS
from miniclip.tasks.train import MODEL, train

ALL = PRESETS["mini-emoji"]["data"]["only"]["style"]
NINE = [style for style in ALL if style != "twemoji"]
NAMES_ALONE = {"name": 1.0, "both": 0.0, "keywords": 0.0}  # in templates, as in the preset


def change(name, *path_and_value):
    """A run that differs from the preset in one value."""
    *path, value = path_and_value
    return name, [(tuple(path), value)]


CHOOSE = [
    ("preset", []),
    change("rate 1e-3", "recipe", "learning_rate", 1e-3),
    change("rate 4e-3", "recipe", "learning_rate", 4e-3),
    change("width 16", "model", "vision", "width", 16),
    change("no blur or patch", "data", "augment", {"blurred": 0.0, "covered": 0.0}),
    change("half as strong", "data", "augment", {
        "smallest": 0.75, "largest": 1.0, "aspect": 0.12, "rotation": 8.0, "shear": 0.08,
        "shift": 0.06, "brightness": 0.1, "contrast": 0.18, "saturation": 0.3, "hue": 0.03,
        "grey": 0.05, "ground": 0.25, "blurred": 0.1, "covered": 0.1}),
    change("more colour", "data", "augment", {"saturation": 1.0, "hue": 0.15, "grey": 0.25}),
    change("batch 256", "recipe", "batch", 256),
]  # fmt: skip
STYLES = {1: ["noto"], 3: ["noto", "fluent-emoji-flat", "emojione"], 10: ALL}


def causes():
    """Every combination."""
    runs = []
    for count, styles in STYLES.items():
        for augmented in (False, True):
            for keywords in (False, True):
                name = f"{count} styles, {'with' if augmented else 'without'} augmentation, "
                name += "names and keywords" if keywords else "names"
                changes = [(("data", "only", "style"), styles)]
                if not augmented:
                    changes.append((("data", "augment"), None))
                if not keywords:
                    changes += [(("data", "captions", k), v) for k, v in NAMES_ALONE.items()]
                runs.append((name, changes))
    return runs


LISTS = {"choose": (CHOOSE, NINE, "twemoji"), "causes": (causes(), ALL, "openmoji")}


def configuration(changes, styles, pairs, seed):
    """The preset with these changes."""
    content = copy.deepcopy(PRESETS["mini-emoji"])
    content["data"]["only"]["style"] = styles
    content["recipe"]["seed"] = seed
    for path, value in changes:
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    if content["data"]["augment"] is None:
        del content["data"]["augment"]
    content["recipe"]["steps"] = pairs // content["recipe"]["batch"]
    return content


def run(folder, name, content, data):
    """The trained model; from the folder if it is there."""
    out = folder / name.replace(", ", "-").replace(" ", "-")
    if not (out / MODEL).exists():
        settings = folder / f"{out.name}.toml"
        settings.write_text(as_toml(content), encoding="utf-8")
        train(settings, out, data, backend="numba")
    return load(out, "numba")


def shares(model, questions, styles):
    """Top-1 and top-5 of each style, in per cent."""
    texts = embed_names(model, questions.names("en"))
    found = []
    for style in styles:
        images = embed_style(model, questions, style)
        scores = score_names(questions, style, "en", images, texts)
        found += [
            f"{100 * s.share:.1f}"
            for s in scores
            if (s.split, s.group) == ("train", "all") and s.among in (1, 5)
        ]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("list", choices=list(LISTS))
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path, metavar="out")
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="names of runs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    runs, styles, unseen = LISTS[options.list]
    questions = read_questions(options.data)
    asked = ("noto", unseen)
    columns = [f"{style}, first {k}" for style in asked for k in (1, 5)]
    print(f"| run | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}", flush=True)
    for name, changes in runs:
        if options.only and name not in options.only:
            continue
        content = configuration(changes, styles, options.pairs, options.seed)
        with threadpool_limits(1, "blas"):
            whole = f"{options.list}, {name}, {options.pairs} pairs, seed {options.seed}"
            model = run(options.folder, whole, content, options.data)
            print(f"| {name} | {' | '.join(shares(model, questions, asked))} |", flush=True)


if __name__ == "__main__":
    main()
