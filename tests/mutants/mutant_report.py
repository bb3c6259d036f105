"""Results of mutants: kept line by line, so that a run can go on; shown as tables and as JSON."""

import json
import math
import tomllib
from collections import Counter
from pathlib import Path

REASONS = Path(__file__).with_name("reasons.toml")


def reasons(path=REASONS):
    """{(file, before, after): reason} of mutants that change no answer."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])
    return {(e["file"], e["before"], e["after"]): e["reason"] for e in entries}


def row_of(mutant, outcome, seconds, failure):
    return {
        "key": mutant.key,
        "room": mutant.room,
        "file": mutant.file,
        "line": mutant.line,
        "operator": mutant.operator,
        "before": mutant.before,
        "after": mutant.after,
        "outcome": outcome,
        "seconds": round(seconds, 1),
        "by": failure,
    }


def read_rows(path):
    """What an earlier run found, by the mutants' keys. A line that was cut short is left out."""
    rows = {}
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows[row["key"]] = row
    return rows


def interval(found, of):
    """The share and its 95 % interval (Wilson), as three numbers from 0 to 1; NaN of nothing."""
    if not of:
        return (math.nan,) * 3
    z, p = 1.959964, found / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return p, max(middle - half, 0.0), min(middle + half, 1.0)


def counted(rows, group):
    """[(name, found, equivalent, survived)] of the rows by one of their columns, and of all."""
    known = reasons()
    counts = {}
    for row in rows:
        for name in (row[group], "all"):
            count = counts.setdefault(name, Counter())
            if row["outcome"] != "survived":
                count["found"] += 1
            elif (row["file"], row["before"], row["after"]) in known:
                count["equivalent"] += 1
            else:
                count["survived"] += 1
    order = sorted(counts, key=lambda name: (name == "all", name))
    return [(n, *(counts[n][c] for c in ("found", "equivalent", "survived"))) for n in order]


def table(rows, group):
    lines = [
        f"| {group} | mutants | equivalent | found | share | 95 % interval |",
        "|---|" + "---|" * 5,
    ]
    for name, found, equivalent, survived in counted(rows, group):
        share, low, high = interval(found, found + survived)
        lines.append(
            f"| {name} | {found + equivalent + survived} | {equivalent} | {found} "
            f"| {share:.0%} | {low:.0%} to {high:.0%} |"
        )
    return "\n".join(lines)


def survivors(rows):
    """Those that lived and have no reason beside them."""
    known = reasons()
    return [
        row
        for row in rows
        if row["outcome"] == "survived" and (row["file"], row["before"], row["after"]) not in known
    ]


def described(row):
    place = f"miniclip/{row['file']}:{row['line']}"
    return f"{place}: {row['operator']}\n    - {row['before']}\n    + {row['after']}"


def as_json(rows, options):
    shares = {
        group: {
            name: {
                "found": found,
                "equivalent": equivalent,
                "survived": survived,
                "share, low, high": interval(found, found + survived),
            }
            for name, found, equivalent, survived in counted(rows, group)
        }
        for group in ("room", "operator")
    }
    return json.dumps({"options": options, **shares, "mutants": rows}, indent=1)
