"""`miniclip doctor`: is this installation in order?"""

from __future__ import annotations

import argparse
import json

from miniclip.cli.options import Commands


def add_doctor(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="look whether this installation works",
        description="Versions, processor, backends, folders, and a known answer computed on each "
        "backend. Exits with 1 if something that should work does not.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    try:
        from miniclip.tasks.doctor import examine
    except Exception as error:  # the tasks cannot even be imported: there is no more to be found
        problems = [f"problem: miniclip cannot be imported: {error}"]
        print(json.dumps({"ok": False, "problems": problems}) if options.json else problems[0])
        return 1
    report = examine()
    print(json.dumps(report.as_dict(), indent=2) if options.json else report.as_text())
    return 0 if report.ok else 1
