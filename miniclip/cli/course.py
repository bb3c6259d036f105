"""`miniclip course`: a learner's folder, grades, and the notebooks from their sources."""

from __future__ import annotations

import argparse
import json

from miniclip.cli.options import Commands, excludes
from miniclip.cli.parser import Parser, show_help
from miniclip.files import as_path


def add_course(commands: Commands) -> None:
    parser = commands.add_parser(
        "course",
        help="the course: lay out a folder, grade it; for teachers: build and prove",
        description="The course from pixels to a CLIP of one's own: notebooks with exercises.",
    )
    parser.set_defaults(run=show_help)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    add_new(actions)
    add_grade(actions)
    add_build(actions)
    add_prove(actions)


def add_new(actions: Commands) -> None:
    parser = actions.add_parser(
        "new",
        help="lay out a learner's folder",
        description="Write notebooks, some pictures and a place for models into a folder. What is "
        "there already stays as it is.",
    )
    parser.add_argument(
        "folder", type=as_path, metavar="FOLDER", help="the folder to lay out; made if missing"
    )
    add_seed(parser, "of the numbers in predictions and checks")
    parser.set_defaults(run=run_new)


def add_grade(actions: Commands) -> None:
    parser = actions.add_parser(
        "grade",
        help="grade the exercises in a learner's folder",
        description="Exercises come from the notebooks in the folder, everything else from the "
        "installed course. Each runs in a process of its own; this is no sandbox. Exits with 1 if "
        "an exercise is not right.",
    )
    parser.add_argument(
        "folder", type=as_path, metavar="FOLDER", help="a folder with notebooks of the course"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="time for each exercise; default: %(default)s",
    )
    add_seed(parser, "of the inputs that answers are checked on")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run_grade)


def add_build(actions: Commands) -> None:
    parser = actions.add_parser(
        "build",
        help="derive the notebooks from their sources",
        description="Write each part's notebook and its solution. The same source gives the same "
        "bytes.",
    )
    add_source(parser)
    parser.add_argument(
        "--out",
        type=as_path,
        default="notebooks",
        metavar="FOLDER",
        help="folder for the notebooks, solutions inside it; default: %(default)s",
    )
    add_seed(parser, "of the numbers in predictions and checks")
    parser.add_argument(
        "--nbgrader", action="store_true", help="add the metadata that nbgrader works with"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; say which notebook is not what its source gives, and exit with 1",
    )
    parser.set_defaults(run=run_build)


def add_prove(actions: Commands) -> None:
    parser = actions.add_parser(
        "prove",
        help="show that each grader accepts right answers and rejects wrong ones",
        description="Try each exercise's solution, other right ways and planted wrong answers on "
        "its grader. Exits with 1 if one of them is taken for the other.",
    )
    add_source(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--messages", action="store_true", help="show every answer and what its grader says"
    )
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run_prove)


def add_seed(parser: Parser, what: str) -> None:
    parser.add_argument(
        "--seed", type=int, metavar="N", help=f"seed {what}; default: that of the course"
    )


def add_source(parser: Parser) -> None:
    parser.add_argument(
        "--source",
        type=as_path,
        metavar="FOLDER",
        help="folder with sources of parts; default: those that come with miniclip",
    )


# ------------------------------------------------------------------------ runs


def run_new(options: argparse.Namespace) -> int:
    from miniclip.course.new import new

    made = new(options.folder, options.seed)
    for path in made.written:
        print(path)
    for path in made.kept:
        print(f"{path}: kept as it is")
    return 0


def run_grade(options: argparse.Namespace) -> int:
    from miniclip.course.grade import grade

    grades = grade(options.folder, options.seed or 0, options.limit, options.source)
    print(json.dumps(grades.as_dict(), indent=2) if options.json else grades.as_text())
    return 0 if grades.ok else 1


def run_build(options: argparse.Namespace) -> int:
    from miniclip.course.build import build, differing
    from miniclip.course.source import read_parts

    excludes(options, "check", "seed", "nbgrader")
    parts = read_parts(options.source)
    if options.check:
        found = differing(parts, options.out)
        print("\n".join(found) or f"{options.out}: every notebook is what its source gives")
        return 1 if found else 0
    print("\n".join(map(str, build(parts, options.out, options.seed, options.nbgrader))))
    return 0


def run_prove(options: argparse.Namespace) -> int:
    from miniclip.course.prove import prove
    from miniclip.course.source import read_parts

    proofs = prove(read_parts(options.source))
    if options.json:
        print(json.dumps(proofs.as_dict(), indent=2))
    else:
        print(proofs.as_text(options.messages))
    return 0 if proofs.ok else 1
