"""`miniclip evaluate`: a model measured on fresh drawn scenes."""

from __future__ import annotations

import argparse
import json
from typing import Any

from miniclip.cli.options import Commands, add_model_options


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on fresh drawn scenes",
        description="Zero-shot on scenes that training never drew: seen and held-out pairs of "
        "shape and colour, counts, relations; robustness and linear probes on request.",
    )
    parser.add_argument("model", help="a name (miniclip weights list), folder or file")
    parser.add_argument(
        "--count",
        type=int,
        help="scenes of each kind (default: 1200; with --robustness 600, with --probe 100)",
    )
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="accuracy when pictures are darkened, blurred, covered",
    )
    parser.add_argument("--probe", action="store_true", help="linear probes on the embeddings")
    parser.add_argument(
        "--markdown", action="store_true", help="print Markdown tables, as in the model cards"
    )
    parser.add_argument("--json", action="store_true")
    add_model_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    from miniclip.pipeline import load

    model = load(options.model, options.backend, activation=options.activation)
    data, text, markdown = measured(options, model)
    if options.json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        print(markdown if options.markdown else text)
    return 0


def measured(options: argparse.Namespace, model: Any) -> tuple[Any, str, str]:
    """What was asked for: as plain data, as text, and as Markdown."""
    from miniclip.tasks import probe, robustness
    from miniclip.tasks.evaluate import evaluate

    count = {} if options.count is None else {"count": options.count}
    if options.probe:
        shots = probe.probe_report(model, **count)
        return [r.as_dict() for r in shots], probe.as_text(shots), probe.as_markdown(shots)
    if options.robustness:
        rows = robustness.robustness(model, **count)
        return [r.as_dict() for r in rows], robustness.as_text(rows), robustness.as_markdown(rows)
    result = evaluate(model, **count)
    return result.as_dict(), result.as_text(), result.as_markdown()
