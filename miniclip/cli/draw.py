"""`miniclip draw`: pictures to try models on."""

from __future__ import annotations

import argparse
from pathlib import Path

from miniclip.cli.options import Commands


def add_draw(commands: Commands) -> None:
    parser = commands.add_parser(
        "draw",
        help="draw pictures to try models on",
        description="Draw things by name, or scenes with captions (a data set for train --data).",
    )
    parser.add_argument("things", nargs="*", metavar="THING", help='such as "red circle"')
    parser.add_argument(
        "--scenes", type=int, metavar="N", help="draw N scenes and write captions.csv instead"
    )
    parser.add_argument("--folder", default="pictures", help="where to put them; default: pictures")
    parser.set_defaults(run=run_draw)


def run_draw(options: argparse.Namespace) -> int:
    from miniclip.tasks.draw import draw_scenes, draw_things

    if bool(options.things) == (options.scenes is not None):
        raise ValueError('things: expected names such as "red circle", or --scenes N')
    if options.things:
        paths = draw_things(options.things, Path(options.folder))
    else:
        paths = [draw_scenes(options.scenes, Path(options.folder))]
    print("\n".join(str(path) for path in paths))
    return 0
