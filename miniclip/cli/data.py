"""`miniclip data`: sets of pictures to train on and to ask about, made from what is public."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

from miniclip.cli.options import Commands
from miniclip.cli.parser import show_help
from miniclip.files import as_path


def add_data(commands: Commands) -> None:
    parser = commands.add_parser(
        "data",
        help="make a set of pictures to train on",
        description="Make a set of pictures with names, to train on and to ask about.",
    )
    parser.set_defaults(run=show_help)
    sets = parser.add_subparsers(title="sets", metavar="SET")
    add_emoji(sets)


def add_emoji(sets: Commands) -> None:
    parser = sets.add_parser(
        "emoji",
        help="some 1,650 things drawn by twelve artists, named in many languages",
        description="Draw the emoji of twelve sets that are published on npm, with names and "
        "keywords from Unicode's CLDR. 100 MB of pictures and 190 MB of packages; a run that was "
        "stopped goes on.",
    )
    parser.add_argument(
        "--out",
        type=as_path,
        default="data/emoji",
        metavar="FOLDER",
        help="folder for pictures, table and licences; default: %(default)s",
    )
    parser.add_argument(
        "--from",
        dest="packages",
        type=as_path,
        metavar="FOLDER",
        help="folder in which the packages lie unpacked, as npm install leaves them; default: npm "
        "fetches them",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="LANGUAGE",
        help="languages of the names, beside English, such as zh, de, pt; default: zh",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run_emoji)


def run_emoji(options: argparse.Namespace) -> int:
    from miniclip.emoji.making import LANGUAGES, make_emoji

    made = make_emoji(
        options.out,
        options.packages,
        options.languages or LANGUAGES,
        report=partial(print, file=sys.stderr),
        bar=drawing_bar,
    )
    if options.json:
        print(json.dumps(made.as_dict(), indent=2))
        return 0
    print(f"{made.folder}: {made.pictures:,} pictures ({made.drawn:,} drawn now)")
    print(f"{made.concepts:,} things, {made.held_out} of them held out")
    for style, count in made.styles.items():
        print(f"  {style:<28}{count:>6,}")
    return 0


def drawing_bar(icons: Iterable[Any]) -> Iterable[Any]:
    """A bar on a terminal."""
    from tqdm import tqdm

    return tqdm(icons, "drawing", unit=" pictures", disable=None)
