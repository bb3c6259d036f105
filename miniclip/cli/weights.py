"""`miniclip weights`: list, download, find and check checkpoints."""

from __future__ import annotations

import argparse
import sys

from miniclip.cli.options import Commands
from miniclip.cli.parser import show_help


def add_weights(commands: Commands) -> None:
    parser = commands.add_parser(
        "weights",
        help="list, download, find and check checkpoints",
        description="Known checkpoints: which exist, where they are stored, "
        "whether they are intact.",
    )
    parser.set_defaults(run=show_help)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    actions.add_parser("list", help="show all known names").set_defaults(run=run_weights_list)
    for action, run, help_text in (
        ("download", run_weights_download, "download a checkpoint now, and print its path"),
        ("path", run_weights_path, "print the path of a checkpoint that is downloaded"),
        ("check", run_weights_check, "check hashes and that all numbers are finite"),
    ):
        command = actions.add_parser(action, help=help_text)
        also = ", a folder or a file" if action == "check" else ""
        command.add_argument(
            "model", metavar="MODEL", help=f"a name (miniclip weights list) or hub repository{also}"
        )
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
    if report.error:
        print(report.error)
    return 0 if report.ok else 1
