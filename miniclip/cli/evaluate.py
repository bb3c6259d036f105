"""`miniclip evaluate`: a model measured on fresh drawn scenes, or on the user's own pictures."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from miniclip.cli.options import Commands, add_model_options, excludes, needs
from miniclip.files import as_path


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on fresh drawn scenes, or on your own pictures",
        description="Zero-shot on scenes that training never drew: seen and held-out pairs of "
        "shape and colour, counts, relations; robustness and linear probes on request. A model "
        "trained on your own pictures is asked about those that its training held out.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a name (miniclip weights list), folder or file"
    )
    parser.add_argument(
        "--data",
        type=as_path,
        metavar="PATH",
        help="your own pictures, as train --data takes them: accuracy for class folders, R@k for "
        "captions; default: what the model's training held out, or else drawn scenes",
    )
    parser.add_argument(
        "--template",
        help="caption of a class folder's pictures (--data); default: a photo of a {}",
    )
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="drawn scenes of each kind; default: 1200, with --robustness 600, with --probe 100",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--robustness",
        action="store_true",
        help="measure the accuracy on pictures that are darkened, blurred, covered instead",
    )
    kind.add_argument(
        "--probe", action="store_true", help="measure linear probes on the embeddings instead"
    )
    parser.add_argument(
        "--page",
        type=as_path,
        metavar="FILE",
        help="of a set of emoji (--data): write an HTML page of each picture with the names that "
        "fit it best; default: none",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--markdown", action="store_true", help="print Markdown tables, as in the model cards"
    )
    form.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_model_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    from miniclip.pipeline import load
    from miniclip.tasks.emoji_set import is_emoji_set
    from miniclip.tasks.own_pictures import own_data

    needs(options, "data", "template", "page")
    if options.data is not None and is_emoji_set(options.data):
        excludes(options, "data", "count", "probe", "template")
        model = load(options.model, options.backend, activation=options.activation)
        show(options, *measured_on_emoji(options, model))
        return 0
    if options.page is not None:
        raise ValueError(f"page: got {options.page}, expected --data to name a set of emoji")
    excludes(options, "data", "count", "robustness", "probe")
    drawn = options.robustness or options.probe or options.count is not None
    own = None if drawn else own_data(options.model, options.data)
    model = load(options.model, options.backend, activation=options.activation)
    if own is None:
        show(options, *measured_on_scenes(options, model))
    else:
        show(options, *measured_on_pictures(options, model, own))
    return 0


def show(options: argparse.Namespace, data: Any, text: str, markdown: str) -> None:
    """Print what was measured, in the form that was asked for."""
    if options.json:
        print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(markdown if options.markdown else text)


def measured_on_pictures(options: argparse.Namespace, model: Any, own: Any) -> tuple[Any, str, str]:
    """The scores on the user's pictures: as plain data, as text, and as Markdown."""
    from miniclip.tasks.own_pictures import evaluate_pictures

    def report(line: str) -> None:
        print(line, file=sys.stderr)  # the output may be JSON

    template = {} if options.template is None else {"template": options.template}
    result = evaluate_pictures(model, own, **template, report=report)
    return result.as_dict(), result.as_text(), result.as_markdown()


def measured_on_emoji(options: argparse.Namespace, model: Any) -> tuple[Any, str, str]:
    """What was asked for of a set of emoji, in the same three forms."""
    from miniclip.tasks import emoji_robustness as robustness
    from miniclip.tasks.emoji_evaluation import evaluate_emoji
    from miniclip.tasks.emoji_page import write_page
    from miniclip.tasks.emoji_set import read_questions

    questions = read_questions(options.data)
    if options.page is not None:
        print(f"wrote {write_page(model, questions, options.page)}", file=sys.stderr)
    if options.robustness:
        rows = robustness.emoji_robustness(model, questions)
        return [r.as_dict() for r in rows], robustness.as_text(rows), robustness.as_markdown(rows)
    result = evaluate_emoji(model, questions)
    return result.as_dict(), result.as_text(), result.as_markdown()


def measured_on_scenes(options: argparse.Namespace, model: Any) -> tuple[Any, str, str]:
    """What was asked for of drawn scenes, in the same three forms."""
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
