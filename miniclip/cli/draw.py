"""`miniclip draw`: pictures to try models on."""

from __future__ import annotations

import argparse

from miniclip.cli.options import Commands
from miniclip.files import as_path


def add_draw(commands: Commands) -> None:
    parser = commands.add_parser(
        "draw",
        help="draw pictures to try models on",
        description="Draw things by name, or scenes with captions (a data set for train --data).",
    )
    parser.add_argument(
        "things", nargs="*", metavar="THING", help='what to draw, such as "red circle"'
    )
    parser.add_argument(
        "--scenes",
        type=int,
        metavar="N",
        help="draw N scenes instead, and write captions.csv beside them; default: things by name",
    )
    parser.add_argument(
        "--folder",
        type=as_path,
        default="pictures",
        help="folder to put the pictures in; default: %(default)s",
    )
    parser.aliases = {"thing": "things"}
    parser.set_defaults(run=run_draw)


def run_draw(options: argparse.Namespace) -> int:
    from miniclip.tasks.draw import draw_scenes, draw_things

    if bool(options.things) == (options.scenes is not None):
        raise ValueError('THING: expected names such as "red circle", or --scenes N')
    if options.things:
        paths = draw_things(options.things, options.folder)
    else:
        paths = [draw_scenes(options.scenes, options.folder)]
    print("\n".join(str(path) for path in paths))
    return 0
