"""The table of CONTRIBUTING.md: tests and seconds of each folder of tests.

    python -m pytest -n 2 --dist loadgroup -vv --durations=0 > durations.txt
    python tests/support/seconds_by_room.py durations.txt

Seconds are those of one worker, so two workers need about half of the sum. `-vv` makes pytest list
the short ones too.
"""

import re
import sys
from collections import Counter
from pathlib import Path

LINE = re.compile(r"\s*([\d.]+)s (call|setup|teardown)\s+tests/(\w+)/")


def table(text):
    """The Markdown table from what pytest printed, the longest folder first."""
    seconds, tests = Counter(), Counter()
    for line in text.splitlines():
        found = LINE.match(line)
        if found:
            seconds[found[3]] += float(found[1])
            tests[found[3]] += found[2] == "call"
    rows = [f"| `tests/{name}` | {tests[name]} | {s:.0f} |" for name, s in seconds.most_common()]
    return "\n".join(["| folder | tests | seconds |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text(encoding="utf-8")))
