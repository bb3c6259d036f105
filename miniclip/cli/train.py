"""`miniclip train`: a CLIP from scratch, or from a checkpoint on your own pictures."""

from __future__ import annotations

import argparse

from miniclip.cli.options import Commands, add_backend_option


def add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a CLIP from scratch or from a checkpoint",
        description="Train on drawn scenes or on your own pictures. Run the same "
        "command again to continue a run that was stopped.",
    )
    parser.add_argument("preset", help="nano, mini-vit, mini-rn, or a .toml file")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="folder for the model and its log"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a .csv or .jsonl of pictures and captions, or a folder of class folders; "
        "default: drawn scenes",
    )
    parser.add_argument(
        "--template",
        default="a photo of a {}",
        help="caption of a class folder's pictures; default: %(default)s",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="threads that decode pictures; default: %(default)s"
    )
    parser.add_argument("--init", metavar="MODEL", help="start from this model's weights")
    parser.add_argument(
        "--freeze",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help='parameters to leave as they are, by name, such as "visual.*"',
    )
    for name, kind, help_text in RECIPE_OPTIONS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help=f"{help_text}; default: the preset's"
        )
    parser.add_argument("--loss", choices=["contrastive", "sigmoid"], help="default: the preset's")
    add_backend_option(parser)
    parser.set_defaults(run=run_train)


RECIPE_OPTIONS = (
    ("steps", int, "number of optimiser steps"),
    ("batch", int, "pairs of a picture and a caption in a step"),
    ("chunk", int, "pairs at a time, where the batch does not fit the memory (GradCache)"),
    ("learning_rate", float, "peak learning rate"),
    ("warm_up", int, "steps over which the learning rate rises to its peak"),
    ("weight_decay", float, "weight decay (matrices and kernels only)"),
    ("seed", int, "seed of the initial weights and of the order of the pairs"),
    ("save_every", int, "steps between checkpoints"),
)


def run_train(options: argparse.Namespace) -> int:
    from miniclip.tasks.train import train

    names = [name for name, _, _ in RECIPE_OPTIONS] + ["loss"]
    changes = {name: getattr(options, name) for name in names}
    changes["frozen"] = tuple(options.freeze) or None
    train(
        options.preset,
        options.out,
        options.data,
        options.init,
        options.backend,
        changes=changes,
        workers=options.workers,
        template=options.template,
    )
    return 0
