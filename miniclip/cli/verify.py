"""`miniclip verify`: published answers computed again on your weights."""

from __future__ import annotations

import argparse
import json

from miniclip.cli.options import Commands, add_model_options
from miniclip.files import as_path


def add_verify(commands: Commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="compare real weights with known answers",
        description="Compute published answers again on your weights, row by row.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a name (miniclip weights list), folder or file"
    )
    parser.add_argument(
        "--pictures",
        default=".",
        type=as_path,
        metavar="FOLDER",
        help="folder with CLIP.png and the other pictures; default: %(default)s, this folder",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_model_options(parser)
    parser.set_defaults(run=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    from miniclip.pipeline import load
    from miniclip.tasks.verify import report, verify, weights_were_tested

    model = load(options.model, options.backend, activation=options.activation)
    verdicts = verify(model, options.pictures)
    count = {s: sum(o.status == s for o in verdicts) for s in ("pass", "fail", "skip")}
    tested = weights_were_tested(verdicts)
    if options.json:
        rows = [verdict.as_dict() for verdict in verdicts]
        data = {"count": count, "weights_were_tested": tested, "rows": rows}
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        print(report(verdicts))
        print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
        if not tested:
            print("nothing is verified: no row that depends on the weights could be computed")
    return 1 if count["fail"] or not tested else 0
