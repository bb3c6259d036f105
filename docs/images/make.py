"""Draws zero-shot.png, the picture of the README: `python docs/images/make.py`.

Twelve drawings are asked with mini-vit, all 120 pairs of colour and shape as candidates. One half
of them shows pairs that training never drew or named. A wrong first answer is marked in red.
"""

import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import miniclip
from miniclip.tasks.draw import draw_things
from miniclip.world.captions import name_pair
from miniclip.world.scenes import COLOUR_SHAPE_PAIRS, HELD_OUT, SEEN

CELL, PICTURE, BAR = (236, 246), 128, 20
RIGHT, WRONG = "#9ecbff", "#ffa8a0"  # the bar of the first answer


def main():
    pairs = [*SEEN[::16], *HELD_OUT[::4]]
    labels = [name_pair(*pair) for pair in COLOUR_SHAPE_PAIRS]
    with tempfile.TemporaryDirectory() as folder:
        files = draw_things([" ".join(pair) for pair in pairs], Path(folder))
        draw_page(files, miniclip.zero_shot(files, labels), [name_pair(*pair) for pair in pairs])


def draw_page(files, result, names):
    page = Image.new("RGB", (6 * CELL[0] + 12, 2 * CELL[1]), "white")
    for n, answers in enumerate(result.top(4)):
        x, y = 12 + (n % 6) * CELL[0], 10 + (n // 6) * CELL[1]
        draw_cell(page, (x, y), Image.open(files[n]), answers, names[n])
    page.save(Path(__file__).with_name("zero-shot.png"), optimize=True)


def draw_cell(page, at, picture, answers, truth):
    """A picture, and under it the labels that fit best, with bars as long as they are probable."""
    x, y = at
    page.paste(picture.resize((PICTURE, PICTURE)), at)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    if answers[0].label != truth:
        pen.text((x + PICTURE + 8, y), f"wrong:\nthis is\n{truth}", "#c02020", font)
    for i, answer in enumerate(answers):
        top = y + PICTURE + 10 + i * (BAR + 4)
        length = max(2, round(216 * answer.probability))
        first = RIGHT if answer.label == truth else WRONG
        pen.rectangle((x, top, x + length, top + BAR), first if i == 0 else "#dddddd")
        text = f"{answer.label}  {answer.probability:.0%}"
        pen.text((x + 5, top + 2), text, "black", font)


if __name__ == "__main__":
    main()
