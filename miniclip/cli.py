"""The command line: `miniclip zero-shot`, `draw`, `train`, `evaluate`, `verify`, `weights`,
`bench`.

Exit codes: 0 done, 1 a check failed, 2 the input was wrong (one line on standard error says what).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import miniclip
from miniclip.checkpoints.shipped import DEFAULT

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
        print(f"miniclip: error: {error or type(error).__name__}", file=sys.stderr)
        return 2
    return code


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="miniclip", description="CLIP written from scratch: ask pictures what they show."
    )
    parser.add_argument("--version", action="version", version=f"miniclip {miniclip.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_zero_shot(commands)
    add_draw(commands)
    add_train(commands)
    add_evaluate(commands)
    add_verify(commands)
    add_weights(commands)
    add_bench(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What every command that loads a model takes."""
    add_backend_option(parser)
    add_activation_option(parser)


def add_activation_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--activation",
        choices=["quick_gelu", "gelu", "gelu_tanh"],
        help="for a bare .safetensors file that does not tell",
    )


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "numpy", "numba", "cupy"],
        help="default: auto",
    )


# ------------------------------------------------------------------------ zero-shot


def add_zero_shot(commands: Commands) -> None:
    parser = commands.add_parser(
        "zero-shot",
        help="choose the label that fits a picture best",
        description="Choose among labels for each picture, without training on them.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument(
        "--labels", nargs="+", required=True, metavar="LABEL", help="after the pictures"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT,
        help=f"a name (miniclip weights list), folder or file; default: {DEFAULT}",
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        metavar="TEMPLATE",
        help='plain, imagenet7, imagenet80, or sentences such as "a photo of a {}."',
    )
    parser.add_argument("--top", type=int, default=5, help="labels to show (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON, with all labels")
    add_model_options(parser)
    parser.set_defaults(run=run_zero_shot)


def run_zero_shot(options: argparse.Namespace) -> int:
    from miniclip.pipeline import load
    from miniclip.tasks.zero_shot import build_prompts, zero_shot

    templates = options.templates
    if templates is not None and len(templates) == 1:
        templates = templates[0]  # may be a name
    build_prompts(options.labels, templates)  # wrong labels are told before a model is loaded
    if options.top < 1:
        raise ValueError(f"--top: got {options.top}, expected at least 1")
    model = load(options.model, options.backend, activation=options.activation)
    result = zero_shot(options.images, options.labels, model, templates)
    if options.json:
        print(json.dumps(result.as_dicts(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(result.as_text(options.top))
    return 0


# ------------------------------------------------------------------------ draw


def add_draw(commands: Commands) -> None:
    parser = commands.add_parser(
        "draw",
        help="draw pictures to try models on",
        description="Draw things by name, or scenes with captions (a data set for train --data).",
    )
    parser.add_argument("things", nargs="*", metavar="THING", help='such as "red circle"')
    parser.add_argument("--scenes", type=int, metavar="N", help="N scenes and captions.csv instead")
    parser.add_argument("--folder", default="pictures", help="default: pictures")
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


# ------------------------------------------------------------------------ train


def add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a CLIP from scratch, or go on from a checkpoint",
        description="Train on drawn scenes or on your own pictures. A run that was stopped goes on "
        "where it was when the same command is given again.",
    )
    parser.add_argument("preset", help="nano, mini-vit, mini-rn, or a .toml file")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the model goes")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a .csv or .jsonl of pictures and captions, or a folder of class folders; "
        "default: drawn scenes",
    )
    parser.add_argument(
        "--template", default="a photo of a {}", help="caption of a class folder's pictures"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that decode pictures")
    parser.add_argument("--init", metavar="MODEL", help="start from this model's weights")
    parser.add_argument(
        "--freeze", nargs="+", default=[], metavar="PATTERN", help='such as "visual.*"'
    )
    for name, kind, help_text in RECIPE_OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=help_text)
    parser.add_argument("--loss", choices=["contrastive", "sigmoid"])
    add_backend_option(parser)
    parser.set_defaults(run=run_train)


RECIPE_OPTIONS = (
    ("steps", int, "of the optimiser"),
    ("batch", int, "pairs in a step"),
    ("chunk", int, "pairs at a time, where the batch does not fit the memory (GradCache)"),
    ("learning_rate", float, "the peak"),
    ("warm_up", int, "steps"),
    ("weight_decay", float, "of matrices and kernels"),
    ("seed", int, "of weights and order"),
    ("save_every", int, "steps between checkpoints"),
)


def run_train(options: argparse.Namespace) -> int:
    from miniclip.tasks.train import train

    names = [name for name, _, _ in RECIPE_OPTIONS] + ["loss"]
    changes = {name: getattr(options, name) for name in names}
    changes["frozen"] = tuple(options.freeze) or None
    train(
        options.preset,
        options.out,
        options.data,
        options.init,
        options.backend,
        changes=changes,
        workers=options.workers,
        template=options.template,
    )
    return 0


# ------------------------------------------------------------------------ evaluate


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on fresh drawn scenes",
        description="Zero-shot on scenes that training never drew: seen and held-out pairs of "
        "shape and colour, counts, relations; robustness and linear probes on request.",
    )
    parser.add_argument("model", help="a name (miniclip weights list), folder or file")
    parser.add_argument("--count", type=int, help="scenes of each kind")
    parser.add_argument("--robustness", action="store_true", help="under changes of the picture")
    parser.add_argument("--probe", action="store_true", help="linear probes on the embeddings")
    parser.add_argument("--markdown", action="store_true", help="as in the model cards")
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


# ------------------------------------------------------------------------ verify


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
    outcomes = verify(model, Path(options.pictures))
    print(report(outcomes))
    count = {s: sum(o.status == s for o in outcomes) for s in ("pass", "fail", "skip")}
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    if not weights_were_tested(outcomes):
        print("nothing is verified: no row that depends on the weights could be computed")
        return 1
    return 1 if count["fail"] else 0


# ------------------------------------------------------------------------ weights


def add_weights(commands: Commands) -> None:
    parser = commands.add_parser(
        "weights",
        help="list, download, find and check checkpoints",
        description="Known checkpoints: what there is, where it lies, whether it is whole.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    actions.add_parser("list", help="all known names").set_defaults(run=run_weights_list)
    for action, run, help_text in (
        ("download", run_weights_download, "download one now, and print where it lies"),
        ("path", run_weights_path, "print where a downloaded one lies"),
        ("check", run_weights_check, "check hashes and that all numbers are finite"),
    ):
        command = actions.add_parser(action, help=help_text)
        also = ", a folder or a file" if action == "check" else ""
        command.add_argument("model", help=f"a name or hub repository{also}")
        command.set_defaults(run=run)


def run_weights_list(options: argparse.Namespace) -> int:
    from miniclip.checkpoints import hub
    from miniclip.tables import text_table

    headings = ["name", "repository", "MB", "activation", "licence", "in the cache"]
    fields = ["name", "repository", "size_mb", "activation", "licence"]
    lines = [
        [*(str(row[f] or "") for f in fields), "yes" if row["cached"] else ""]
        for row in hub.weights_table()
    ]
    print(text_table(headings, lines))
    return 0


def run_weights_download(options: argparse.Namespace) -> int:
    from miniclip.checkpoints import hub

    print(hub.download(options.model).path)
    return 0


def run_weights_path(options: argparse.Namespace) -> int:
    from miniclip.checkpoints import hub

    path = hub.cached_path(options.model)
    if path is None:
        print(f"miniclip: {options.model} is not downloaded", file=sys.stderr)
        return 1
    print(path)
    return 0


def run_weights_check(options: argparse.Namespace) -> int:
    from miniclip.checkpoints import hub

    report = hub.check_weights(options.model)
    for file in report.files:
        known = "no known hash to compare with"
        if file.expected:
            known = "as expected" if file.sha256 == file.expected else "not the expected one"
        print(f"{file.path}: {file.size:,} bytes, {file.tensors} tensors")
        print(f"  sha256 {file.sha256} ({known})")
        print(f"  {file.problem or 'all values are finite'}")
    if not report.files:
        print(f"{report.name}: no .safetensors file there")
    return 0 if report.ok else 1


# ------------------------------------------------------------------------ bench


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
            help=f"measure {what} instead of embeddings",
        )
    for name, item, what in BENCH_LISTS:
        parser.add_argument(f"--{name}", type=item, nargs="+", help=what)
    for name, number, what in BENCH_NUMBERS:
        parser.add_argument(f"--{name}", type=number, metavar="N", help=what)
    parser.add_argument("--against", default="", metavar="PEERS", help="torch,onnxruntime")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the whole record")
    add_activation_option(parser)
    parser.set_defaults(run=run_bench)


BENCH_LISTS = (
    ("models", str, "names, folders or files; default: some that suit what is measured"),
    ("batches", int, "default: 1 8 32; training 16; memory 32"),
    ("towers", str, "image, text; default: both"),
    ("ours", str, "plan, numba, numpy; default: all that there are"),
)
BENCH_NUMBERS = (
    ("threads", int, "of everybody; default: the cores that this process may use"),
    ("rounds", int, "of turns; default: as many as fit into --seconds, at least 5"),
    ("seconds", float, "for each table (default: 20)"),
    ("pause", float, "seconds before every run (default: 0.02)"),
    ("pictures", int, "of the long run of --memory (default: 256)"),
)


def run_bench(options: argparse.Namespace) -> int:
    from miniclip.bench.measure import Limits
    from miniclip.bench.run import Options, bench

    def given(*names: str) -> dict[str, Any]:
        values = {name: getattr(options, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    limits = Limits(**given("rounds", "seconds", "pause"))
    asked = given("models", "batches", "towers", "ours", "threads", "pictures", "activation")
    against = [name for name in options.against.split(",") if name]
    bench(Options(options.kind, against=against, file=options.json, limits=limits, **asked))
    return 0
