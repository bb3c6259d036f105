"""The nearest wrong names: a page that shows what a model takes for what, picture by picture.

For every thing its picture in a style and the names that fit it best; those that are named wrongly
first, grouped as Unicode groups emoji. One HTML file with the pictures inside.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np

from miniclip.files import as_path, write_bytes
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tasks.emoji_evaluation import rank
from miniclip.tasks.emoji_set import (
    UNSEEN,
    EmojiQuestions,
    embed_names,
    embed_style,
    picture_of,
)
from miniclip.tasks.evaluation_result import percent

SHOWN = 4  # names of each picture
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 76em; color: #222; }
h2 { margin: 1.6em 0 .4em; } .all { display: flex; flex-wrap: wrap; gap: 10px; }
.one { width: 168px; border: 1px solid #ddd; border-radius: 8px; padding: 8px; background: white; }
.one.wrong { border-color: #e0a0a0; background: #fff8f7; } img { display: block; margin: 0 auto; }
.name { font-weight: 600; text-align: center; } .answer { position: relative; padding: 0 4px; }
.bar { position: absolute; inset: 1px auto 1px 0; background: #dfe9f5; z-index: -1; }
.one { position: relative; z-index: 0; } .right { font-weight: 600; color: #14632a; }
.rank { color: #888; font-size: 13px; } .held { color: #7a5200; font-size: 13px; }
"""


def write_page(
    pipeline: Pipeline,
    questions: EmojiQuestions,
    file: str | Path,
    style: str = UNSEEN,
    language: str = "en",
) -> Path:
    """Write the page; returns its path. ValueError for a style that the set does not have."""
    if style not in questions.pictures:
        raise ValueError(f"style: got {style!r}, expected one of {', '.join(questions.pictures)}")
    images = embed_style(pipeline, questions, style)
    names = [thing.names.get(language, thing.names["en"]) for thing in questions.things]
    cosine = images @ embed_names(pipeline, names).T  # (N, K)
    page = page_of(questions, style, names, cosine, pipeline)
    path = as_path(file)
    write_bytes({path: page.encode()})
    return path


def page_of(
    questions: EmojiQuestions, style: str, names: list[str], cosine: Array, pipeline: Pipeline
) -> str:
    """The HTML; cosine: (N, K) of the style's pictures and all names."""
    numbers = questions.numbers(style)
    ranks = rank(cosine, np.array(numbers))  # (N,)
    probability = pipeline.scale(cosine).probability
    groups: dict[str, list[tuple[int, str]]] = {}
    for i, n in enumerate(numbers):
        order = np.argsort(-cosine[i], kind="stable")
        cell = cell_of(questions, style, n, names, probability[i], order[:SHOWN], int(ranks[i]))
        groups.setdefault(questions.things[n].group, []).append((-int(ranks[i]), cell))
    right = int((ranks == 1).sum())
    title = f"What {html.escape(pipeline.name)} sees in {html.escape(style)}"
    share = percent(right / len(numbers))
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE}</style><h1>{title}</h1>",
        f"<p>{share} of {len(numbers):,} pictures get their own name among {len(names):,}. Those "
        "that do not come first, the farthest off before the others.</p>",
    ]
    for group, cells in groups.items():
        inside = "".join(cell for _, cell in sorted(cells, key=lambda pair: pair[0]))
        parts.append(f'<h2>{html.escape(group)}</h2><div class="all">{inside}</div>')
    return "\n".join([*parts, "</html>\n"])


def cell_of(
    questions: EmojiQuestions,
    style: str,
    n: int,
    names: list[str],
    probability: Array,
    best: Array,
    place: int,
) -> str:
    """A picture with the names that fit it best."""
    buffer = io.BytesIO()
    picture_of(questions.pictures[style][n], 64).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    answers = ""
    for k in best:
        share, right = float(probability[k]), " right" if k == n else ""
        answers += (
            f'<div class="answer{right}"><span class="bar" style="width:{100 * share:.0f}%"></span>'
            f"{html.escape(names[k])}</div>"
        )
    held = ' <span class="held">held out</span>' if questions.things[n].split != "train" else ""
    own = f'<div class="rank">its own name comes as number {place:,}</div>' if place > 1 else ""
    wrong = " wrong" if place > 1 else ""
    return (
        f'<div class="one{wrong}"><img width="64" height="64" alt="" '
        f'src="data:image/png;base64,{data}"><div class="name">{html.escape(names[n])}{held}</div>'
        f"{answers}{own}</div>"
    )
