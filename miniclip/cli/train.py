"""`miniclip train`: a CLIP from scratch, or from a checkpoint on your own pictures."""

from __future__ import annotations

import argparse

from miniclip.cli.options import AFTER_A_LIST, Commands, add_backend_option, needs
from miniclip.cli.parser import Parser
from miniclip.files import as_path


def add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a CLIP from scratch or from a checkpoint",
        description="Train on drawn scenes or on your own pictures. Run the same "
        "command again to continue a run that was stopped.",
    )
    parser.add_argument(
        "preset", metavar="PRESET", help="nano, mini-vit, mini-rn, mini-emoji, or a .toml file"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=as_path,
        metavar="FOLDER",
        help="folder for the model and its log; one that holds a run is gone on with",
    )
    add_data_options(parser)
    parser.add_argument(
        "--init", metavar="MODEL", help="start from this model's weights; default: random weights"
    )
    parser.add_argument(
        "--freeze",
        nargs="+",
        metavar="PATTERN",
        help='parameters to leave as they are, by name, such as "visual.*"; default: those that '
        "the preset or file names",
    )
    for name, kind, metavar, help_text in RECIPE_OPTIONS:
        option = f"--{name.replace('_', '-')}"
        what = f"{help_text}; default: the preset's or file's"
        parser.add_argument(option, type=kind, metavar=metavar, help=what)
    parser.add_argument(
        "--snapshots",
        type=int,
        metavar="N",
        help="keep the model N times on the way, for a learning curve; default: 0",
    )
    parser.add_argument(
        "--loss",
        choices=["contrastive", "sigmoid"],
        help="loss over a batch's pairs; default: the preset's or file's",
    )
    add_backend_option(parser)
    parser.hints = {"PRESET": AFTER_A_LIST.format(option="--freeze", name="PRESET")}
    parser.aliases = {"frozen": "freeze", "model": "init", "source": "data"}
    parser.set_defaults(run=run_train)


def add_data_options(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        type=as_path,
        metavar="PATH",
        help="a .csv or .jsonl of pictures and captions, a folder that holds it as captions.csv or "
        "captions.jsonl (or metadata.csv, metadata.jsonl), .tar files as img2dataset writes them, "
        "or a folder of class folders; default: drawn scenes",
    )
    parser.add_argument(
        "--template", help="caption of a class folder's pictures; default: a photo of a {}"
    )
    parser.add_argument(
        "--held-out",
        type=float,
        metavar="SHARE",
        help="share of the pictures of --data to keep for `miniclip evaluate`, never trained on; "
        f"default: the preset's or file's, or else {HELD_OUT_SHARE}; 0: none",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads that decode pictures; default: 2"
    )


HELD_OUT_SHARE = 0.1  # as in miniclip.training.held_out, whose import would slow down --help
DATA_OPTIONS = ("template", "held_out", "workers")  # which say something of --data
RECIPE_OPTIONS = (
    ("steps", int, "N", "number of optimiser steps"),
    ("batch", int, "N", "pairs of a picture and a caption in a step"),
    ("chunk", int, "N", "pairs at a time, where the batch does not fit the memory (GradCache)"),
    ("learning_rate", float, "RATE", "peak learning rate"),
    ("warm_up", int, "N", "steps over which the learning rate rises to its peak"),
    ("weight_decay", float, "DECAY", "weight decay (matrices and kernels only)"),
    ("seed", int, "N", "seed of the initial weights and of the order of the pairs"),
    ("save_every", int, "N", "steps between checkpoints"),
)


def run_train(options: argparse.Namespace) -> int:
    from miniclip.tasks.train import train

    needs(options, "data", *DATA_OPTIONS)
    names = [name for name, *_ in RECIPE_OPTIONS] + ["loss"]
    changes = {name: getattr(options, name) for name in names}
    changes["frozen"] = options.freeze  # None, as for every option that was not given
    given = {name: getattr(options, name) for name in (*DATA_OPTIONS, "snapshots")}
    train(
        options.preset,
        options.out,
        options.data,
        options.init,
        options.backend,
        changes=changes,
        **{name: value for name, value in given.items() if value is not None},
    )
    return 0
