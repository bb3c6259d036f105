"""`miniclip check`: is the backward pass of an operation right?"""

from __future__ import annotations

import argparse

from miniclip.cli.options import Commands


def add_check(commands: Commands) -> None:
    parser = commands.add_parser(
        "check",
        help="check the backward pass of an operation that you have edited",
        description="Compare an operation's backward pass with slopes measured on its forward "
        "pass, on drawn inputs of several shapes, and say what is wrong. Exits with 1 if it is.",
    )
    parser.add_argument("op", metavar="OP", help="an operation of miniclip/ops, such as layer_norm")
    parser.add_argument(
        "--backend",
        default="numpy",
        choices=["numpy", "numba", "cupy"],
        help="whose pair to check; default: %(default)s, the textbook",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="draw other inputs; default: %(default)s"
    )
    parser.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    from miniclip import backends
    from miniclip.check.examples import check_op, examples_of

    examples_of(options.op, options.seed)  # names an unknown op before a backend is loaded
    backend = backends.get(options.backend)
    pair = getattr(backend, options.op), getattr(backend, f"{options.op}_backward")
    results = check_op(options.op, *pair, seed=options.seed)
    for example, result in results:
        print(f"{'ok   ' if result.holds else 'WRONG'} {example.shapes}: {result}")
    return 0 if all(result.holds for _, result in results) else 1
