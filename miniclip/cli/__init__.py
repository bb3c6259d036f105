"""The command line: `miniclip zero-shot`, `draw`, `data`, `train`, `evaluate`, `verify`, `weights`,
`bench`, `doctor`, `course`, `check`.

Exit codes: 0 done, 1 a check failed, 2 the input was wrong (one line on standard error says what).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import miniclip
from miniclip.cli.bench import add_bench
from miniclip.cli.check import add_check
from miniclip.cli.course import add_course
from miniclip.cli.data import add_data
from miniclip.cli.doctor import add_doctor
from miniclip.cli.draw import add_draw
from miniclip.cli.evaluate import add_evaluate
from miniclip.cli.parser import Parser, show_help
from miniclip.cli.train import add_train
from miniclip.cli.verify import add_verify
from miniclip.cli.weights import add_weights
from miniclip.cli.zero_shot import add_zero_shot
from miniclip.notes import in_one_line

# What wrong input raises; anything else is a bug of ours and shows its traceback.
EXPECTED = (ValueError, TypeError, ArithmeticError, RuntimeError, OSError, ImportError, MemoryError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = make_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a letter shows its code
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("miniclip: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except EXPECTED as error:
        message = options.parser.typed(in_one_line(error), options)
        print(f"miniclip: error: {message}", file=sys.stderr)
        return 2
    return code


def make_parser() -> Parser:
    parser = Parser(
        prog="miniclip", description="CLIP written from scratch: ask pictures what they show."
    )
    parser.add_argument("--version", action="version", version=f"miniclip {miniclip.__version__}")
    parser.set_defaults(run=show_help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_zero_shot(commands)
    add_draw(commands)
    add_data(commands)
    add_train(commands)
    add_evaluate(commands)
    add_verify(commands)
    add_weights(commands)
    add_bench(commands)
    add_doctor(commands)
    add_course(commands)
    add_check(commands)
    return parser
