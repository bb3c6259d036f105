"""Tables as text, HTML and Markdown. Every table that miniclip prints is written here."""

from __future__ import annotations

import html


def text_table(headings: list[str], lines: list[list[str]]) -> str:
    """Columns as wide as their longest cell."""
    everything = [headings, *lines]
    widths = [max(len(line[i]) for line in everything) for i in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in everything
    )


def html_table(headings: list[str], lines: list[list[str]], styles: list[str]) -> str:
    """A table in HTML; styles: one for each line."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    body = "".join(
        f'<tr style="{style}">' + "".join(f"<td>{html.escape(c)}</td>" for c in line) + "</tr>"
        for line, style in zip(lines, styles, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def markdown_table(headings: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    rules = [":--"] + ["--:"] * (len(headings) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rules, *lines])
