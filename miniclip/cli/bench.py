"""`miniclip bench`: speed and memory, here and beside PyTorch and ONNX Runtime."""

from __future__ import annotations

import argparse
from typing import Any

from miniclip.cli.options import Commands, add_activation_option, excludes, needs
from miniclip.files import as_path


def add_bench(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure speed and memory, here and beside PyTorch and ONNX Runtime",
        description="Time models on this machine, all subjects in turns, as a share of what its "
        "matrix products reach. Weights are random for the originals' names; nothing is "
        "downloaded.",
    )
    kind = parser.add_mutually_exclusive_group()
    for name, what in (("training", "training steps"), ("memory", "peaks of memory")):
        kind.add_argument(
            f"--{name}",
            dest="kind",
            action="store_const",
            const=name,
            default="inference",
            help=f"measure {what}; default: the time of embeddings",
        )
    for name, item, one, what in BENCH_LISTS:
        parser.add_argument(f"--{name}", type=item, nargs="+", metavar=one, help=what)
    for name, number, what in BENCH_NUMBERS:
        parser.add_argument(f"--{name}", type=number, metavar="N", help=what)
    parser.add_argument(
        "--against",
        default="",
        metavar="PEERS",
        help="measure these too, separated by a comma: torch,onnxruntime; default: none",
    )
    parser.add_argument(
        "--json",
        type=as_path,
        metavar="FILE",
        help="write everything that is measured to this file; default: only tables are printed",
    )
    add_activation_option(parser)
    parser.aliases = {"file": "json", "model": "models"}
    parser.set_defaults(run=run_bench)


BENCH_LISTS = (
    ("models", str, "MODEL", "names, folders or files; default: some that suit what is measured"),
    ("batches", int, "N", "batch sizes; default: 1 8 32; with --training 16, with --memory 32"),
    ("towers", str, "TOWER", "image or text; default: both"),
    ("ours", str, "ENGINE", "which of plan, numba, numpy to time; default: all installed"),
)
BENCH_NUMBERS = (
    ("threads", int, "threads for each subject; default: the cores that this process may use"),
    ("rounds", int, "turns of each subject; default: as many as fit into --seconds, at least 5"),
    ("seconds", float, "seconds for each table; default: 20"),
    ("pause", float, "seconds to wait before every run; default: 0.02"),
    ("pictures", int, "pictures in the long run of --memory; default: 256"),
)


def run_bench(options: argparse.Namespace) -> int:
    from miniclip.bench.measure import Limits
    from miniclip.bench.run import Options, bench

    def given(*names: str) -> dict[str, Any]:
        values = {name: getattr(options, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    check_kind(options)
    limits = Limits(**given("rounds", "seconds", "pause"))
    asked = given("models", "batches", "towers", "ours", "threads", "pictures", "activation")
    against = [name for name in options.against.split(",") if name]
    bench(Options(options.kind, against=against, file=options.json, limits=limits, **asked))
    return 0


def check_kind(options: argparse.Namespace) -> None:
    """Raise ValueError for an option that does nothing where this is measured."""
    options.memory = options.kind == "memory"
    options.training = options.kind == "training"
    needs(options, "memory", "pictures")
    excludes(options, "memory", "towers", "ours", "rounds", "seconds", "pause")
    excludes(options, "training", "towers", "ours")
