"""`miniclip course new FOLDER`: a learner's folder, with notebooks, data and models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from miniclip.course.build import check_seed, links_as_words, notebook
from miniclip.course.source import Part, read_parts, without_solution
from miniclip.files import made_folder, write_bytes
from miniclip.tasks.draw import draw_things

THINGS = ("red circle", "blue square", "green star", "yellow heart")
README = """\
# The miniclip course

`notebooks/` has one notebook for each part; begin with the first. `data/` has a few pictures to
look at, and is the place for your own. Put real checkpoints into `models/`.

    jupyter lab notebooks          # if it is missing: pip install jupyterlab
    miniclip course grade .        # which exercises are right

A check never says more than what is wrong: try as often as you like.
"""
MODELS = """\
Real checkpoints. Where there is a network, `miniclip weights download ViT-B/32` fetches one, and
`miniclip weights path ViT-B/32` says where it lies. Copy that folder here, and load it anywhere
with `miniclip.load("models/FOLDER", backend="numpy")`.
"""


@dataclass(frozen=True)
class Made:
    """What was written, and what was there already and has been left as it was."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def new(folder: Path, seed: int | None = None, source: Path | None = None) -> Made:
    """Lay out a folder. What is there already is kept: a learner's work is never overwritten.

    seed: of the numbers in checks and predictions; None: the sources'. Raises ValueError for a
    negative one.
    """
    check_seed(seed)
    parts = read_parts(source)
    contents = {
        folder / "README.md": README.encode(),
        folder / "models" / "README.md": MODELS.encode(),
        **{folder / "notebooks" / f"{part.name}.ipynb": handed_out(part, seed) for part in parts},
    }
    missing = {path: content for path, content in contents.items() if not path.exists()}
    with made_folder(folder / "notebooks"), made_folder(folder / "models"):
        write_bytes(missing)
    pictures = [] if (folder / "data").exists() else draw_things(THINGS, folder / "data")
    kept = [path for path in contents if path not in missing]
    return Made((*missing, *pictures), tuple(kept))


def handed_out(part: Part, seed: int | None) -> bytes:
    """The learner's notebook, whose links into the repository are words."""
    cells = [
        replace(cell, text=links_as_words(cell.text)) if cell.markdown else cell
        for cell in part.cells
    ]
    return notebook(Part(part.name, tuple(cells)), without_solution, seed)
