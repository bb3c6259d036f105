"""`miniclip verify`: published answers computed again on your weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from miniclip.cli.options import Commands, add_model_options


def add_verify(commands: Commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="compare real weights with known answers",
        description="Compute published answers again on your weights, row by row.",
    )
    parser.add_argument("model", help="a name, folder or file")
    parser.add_argument(
        "--pictures", default=".", metavar="FOLDER", help="where CLIP.png and others lie"
    )
    add_model_options(parser)
    parser.set_defaults(run=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    from miniclip.pipeline import load
    from miniclip.tasks.verify import report, verify, weights_were_tested

    model = load(options.model, options.backend, activation=options.activation)
    verdicts = verify(model, Path(options.pictures))
    print(report(verdicts))
    count = {s: sum(o.status == s for o in verdicts) for s in ("pass", "fail", "skip")}
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    if not weights_were_tested(verdicts):
        print("nothing is verified: no row that depends on the weights could be computed")
        return 1
    return 1 if count["fail"] else 0
