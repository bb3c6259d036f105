"""Draws augmentation.png: `python docs/images/augmentation.py data/emoji`.

Each row is one change alone, drawn ten times for one picture; the last rows are all together,
as training sees it. The picture is Noto's dog (Google, Apache-2.0).
"""

import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from miniclip.inputs.augment import PLAIN, Augment, apply
from miniclip.inputs.square import visible_square

SIZE, GAP, LEFT, COLUMNS = 64, 6, 128, 10
NOTHING = {field.name: 0.0 for field in fields(Augment)} | {"smallest": PLAIN, "largest": PLAIN}
USUAL = {field.name: getattr(Augment(), field.name) for field in fields(Augment)}
ROWS = {
    "size": ("smallest", "largest"),
    "aspect": ("aspect",),
    "rotation": ("rotation",),
    "shear": ("shear",),
    "shift": ("shift",),
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "saturation": ("saturation",),
    "hue": ("hue",),
    "ground": ("ground",),
    "blurred": ("blurred",),
    "covered": ("covered",),
    "all, strength 0.3": tuple(USUAL),
    "all, strength 1": tuple(USUAL),
}
ALWAYS = {"ground": 1.0, "blurred": 1.0, "covered": 1.0}  # else most columns would show nothing


def row_of(title, names, square):
    """The pictures of a row: other random numbers in each column."""
    together = len(names) == len(USUAL)
    chosen = {name: USUAL[name] if together else ALWAYS.get(name, USUAL[name]) for name in names}
    augment = Augment(**(NOTHING | chosen))
    strength = 0.3 if "0.3" in title else 1.0
    return [apply(square, augment.draw(strength, [7, n]), SIZE) for n in range(COLUMNS)]


def main():
    path = Path(sys.argv[1]) / "pictures" / "noto" / "1f415.png"
    square = visible_square(Image.open(path), 80)
    step = SIZE + GAP
    page = Image.new("RGB", (LEFT + COLUMNS * step, len(ROWS) * step), "#eeeeee")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for y, (title, names) in enumerate(ROWS.items()):
        pen.text((6, y * step + SIZE // 2 - 6), title, "black", font)
        for x, picture in enumerate(row_of(title, names, square)):
            pixels = np.rint(255 * picture).clip(0, 255).astype(np.uint8)
            page.paste(Image.fromarray(pixels), (LEFT + x * step, y * step + GAP // 2))
    page.quantize(256).save(Path(__file__).with_name("augmentation.png"), optimize=True)


if __name__ == "__main__":
    main()
