"""Do the tests notice a small slip anywhere? Mutants of the package, each against its room's tests.

    python tests/mutants --count 300 --seed 1              # the same number from every room
    python tests/mutants --rooms ops nn --count 40 --seed 2
    python tests/mutants --changed HEAD~10 --count 24 --minutes 6

Results are kept in --out line by line: the same command goes on where it stopped. Survivors that
change no answer stand in reasons.toml with the reason; any other makes the exit status 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, Queue

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import mutant_report as report
from mutant_run import Place, limit_of, usual_seconds
from mutant_sample import TESTS, changed_lines, sample

USUAL = Path(__file__).with_name("usual_seconds.json")


def parser():
    p = argparse.ArgumentParser(
        prog="python tests/mutants",
        description=__doc__.split("\n\n")[0],
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--count", type=int, default=300, help="mutants in all")
    p.add_argument("--seed", type=int, default=1, help="draws the sample")
    p.add_argument("--rooms", nargs="+", choices=list(TESTS), default=list(TESTS), metavar="ROOM",
                   help=f"of {', '.join(TESTS)}")  # fmt: skip
    p.add_argument("--changed", metavar="COMMIT", help="only lines changed since a commit")
    p.add_argument("--without", type=Path, nargs="+", default=[], metavar="FILE",
                   help="draw no mutant that stands in these results of earlier runs")  # fmt: skip
    p.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    p.add_argument("--minutes", type=float, help="stop after these; what runs then is left out")
    p.add_argument("--measure", action="store_true",
                   help="measure how long each room's tests take anew")  # fmt: skip
    p.add_argument("--out", type=Path, default=Path(".pytest_cache/mutants.jsonl"),
                   help="results, a line each; a run goes on from what stands there")  # fmt: skip
    p.add_argument("--json", type=Path, metavar="FILE", help="write shares and mutants there too")
    p.add_argument("--list", action="store_true", help="show the sample and run nothing")
    return p


class Run:
    """Workers that take mutants from one queue, each in its own copy of the project."""

    def __init__(self, mutants, options):
        self.options, self.count = options, len(mutants)
        self.done = report.read_rows(options.out)
        self.queue = Queue()
        for mutant in mutants:
            if mutant.key not in self.done:
                self.queue.put(mutant)
        self.end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
        self.lock, self.error = threading.Lock(), None
        self.usual = {} if options.measure else json.loads(USUAL.read_text())

    def work(self, folder):
        try:
            place = Place(folder)
            while time.monotonic() < self.end and self.error is None:
                mutant = self.queue.get_nowait()
                limit = limit_of(mutant, self.usual_of(mutant.room, place))
                left = self.end - time.monotonic()
                outcome, *rest = place.run(mutant.bug(), min(limit, left))
                if outcome != "late" or limit <= left:
                    self.keep(report.row_of(mutant, outcome, *rest))
        except Empty:
            return
        except BaseException as error:
            self.error = error

    def usual_of(self, room, place):
        """Measured once; two workers that ask at the same time both measure."""
        if room not in self.usual:
            seconds = usual_seconds(place, room)
            with self.lock:
                self.usual[room] = round(seconds, 1)
                USUAL.write_text(json.dumps(self.usual, indent=1, sort_keys=True) + "\n")
        return self.usual[room]

    def keep(self, row):
        with self.lock:
            self.done[row["key"]] = row
            with self.options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            mark = {"survived": "SURVIVED", "late": "found (time)"}.get(row["outcome"], "found")
            print(f"{row['seconds']:6.1f} s  {mark:12} {row['operator']:20} "
                  f"{row['file']}:{row['line']}", flush=True)  # fmt: skip

    def go(self):
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            workers = [
                threading.Thread(target=self.work, args=(Path(folder) / str(i),))
                for i in range(self.options.jobs)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        if self.error is not None:
            raise self.error


def main():
    options = parser().parse_args()
    lines = None
    if options.changed:
        try:
            lines = changed_lines(options.changed)
        except subprocess.CalledProcessError as error:
            print(f"--changed: {options.changed}: {error.stderr.strip()}", file=sys.stderr)
            return 2
    known = [key for path in options.without for key in report.read_rows(path)]
    mutants = sample(options.count, options.seed, options.rooms, lines, known)
    if options.list:
        for mutant in mutants:
            print(report.described(report.row_of(mutant, "", 0.0, "")))
        return 0
    run = Run(mutants, options)
    run.go()
    rows = [run.done[m.key] for m in mutants if m.key in run.done]
    for group in ("room", "operator"):
        print(f"\n{report.table(rows, group)}")
    left = report.survivors(rows)
    print(f"\n{len(rows)} of {len(mutants)} run; survivors without a reason: {len(left)}")
    for row in left:
        print(report.described(row))
    if options.json:
        chosen = {"seed": options.seed, "count": options.count, "changed": options.changed}
        options.json.write_text(report.as_json(rows, chosen), encoding="utf-8")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
