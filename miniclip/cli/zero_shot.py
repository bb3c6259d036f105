"""`miniclip zero-shot`: choose the label that fits a picture best."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

from miniclip.cli.options import AFTER_A_LIST, Commands, add_model_options


def add_zero_shot(commands: Commands) -> None:
    parser = commands.add_parser(
        "zero-shot",
        help="choose the label that fits a picture best",
        description="Choose among labels for each picture, without training on them.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="picture files, folders of them, or - for standard input",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        required=True,
        metavar="LABEL",
        help="labels to choose from; write them after the pictures, or -- between",
    )
    parser.add_argument(
        "--model",
        help="a name (miniclip weights list), folder or file; default: mini-vit",
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        metavar="TEMPLATE",
        help='sentences around a label: plain, imagenet7, imagenet80, or such as "a photo of a {}."'
        "; default: plain, the label alone",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        default=5,
        help="how many labels to show for each picture; default: %(default)s",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON with all labels instead of text"
    )
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="cut labels that are too long for the model; default: they are refused",
    )
    parser.add_argument(
        "--skip",
        action="store_true",
        help="go on without pictures that cannot be read and list them; default: stop at the first",
    )
    add_model_options(parser)
    parser.hints = {"IMAGE": AFTER_A_LIST.format(option="--labels", name="pictures")}
    parser.set_defaults(run=run_zero_shot)


def run_zero_shot(options: argparse.Namespace) -> int:
    from miniclip.checkpoints.shipped import DEFAULT
    from miniclip.pipeline import load
    from miniclip.tasks.zero_shot import build_prompts, zero_shot

    templates = options.templates
    if templates is not None and len(templates) == 1:
        templates = templates[0]  # may be a name
    refuse_pictures(options.labels)
    build_prompts(options.labels, templates)  # wrong labels are told before a model is loaded
    if options.top < 1:
        raise ValueError(f"--top: got {options.top}, expected at least 1")
    model = load(options.model or DEFAULT, options.backend, activation=options.activation)
    on_error = "skip" if options.skip else "raise"
    pictures = [standard_input() if name == "-" else name for name in options.images]
    result = zero_shot(pictures, options.labels, model, templates, None, options.truncate, on_error)
    if options.json:
        print(json.dumps(result.as_dicts(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(result.as_text(options.top))
    return 0


def refuse_pictures(labels: list[str]) -> None:
    """Raise ValueError for a label that is the file of a picture, which was meant as an IMAGE."""
    from miniclip.inputs.pictures import is_picture

    for label in labels:
        if is_picture(Path(label)):
            after = AFTER_A_LIST.format(option="--labels", name="pictures")
            raise ValueError(f"--labels: got the picture {label!r} as a label{after}")


def standard_input() -> io.BytesIO:
    """The picture that comes through a pipe. `./-` is a file of that name."""
    picture = io.BytesIO(sys.stdin.buffer.read())
    picture.name = "-"  # what the result calls it
    return picture
