"""Checks of the door that pictures come in through, and of chunks: for tests and planted bugs."""

import numpy as np
import pytest
from PIL import Image

from miniclip.inputs import pictures as door
from miniclip.pipeline import batching

GRAY = np.full((6, 8), 99, np.uint8)


def drawing(shade=0, width=8, height=6):
    return Image.new("RGB", (width, height), (shade, 2 * shade, 255 - shade))


def make_folder(tmp_path):
    """b.png, B.PNG, a.jpg, c.gif, made in no order; and entries that are no pictures."""
    photos = tmp_path / "photos"
    (photos / "deeper").mkdir(parents=True)
    for shade, name in enumerate(["c.gif", "b.png", "a.jpg", "B.PNG", "deeper/z.png", "._d.png"]):
        drawing(shade).save(photos / name)
    (photos / "notes.txt").write_text("no picture")
    (photos / "captions.csv").write_text("image,caption\n")
    (photos / "e.png").mkdir()  # a folder, whatever it is called
    return photos


NAMES = ["B.PNG", "a.jpg", "b.png", "c.gif"]  # as `sorted` orders them


def sources(images):
    return [one.source for one in door.pictures(images)]


# ------------------------------------------------------------------------ what may come in


def check_folder(photos):
    assert [path.name for path in sources(photos)] == NAMES
    assert sources(str(photos)) == sources(photos) == [photos / name for name in NAMES]
    between = sources([photos / "c.gif", photos, photos / "a.jpg"])
    assert [path.name for path in between] == ["c.gif", *NAMES, "a.jpg"]


def check_taken_when_asked_for():
    taken = []

    def shown():
        for shade in range(9):
            taken.append(shade)
            yield drawing(shade)

    found = iter(door.pictures(shown()))
    assert taken == []
    next(found)
    next(found)
    assert taken == [0, 1]


def check_folders_without_pictures(tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "texts" / ".hidden.png").write_bytes(b"x")
    for name, count in (("bare", 0), ("texts", 2)):
        told = rf"'.*{name}': a folder without pictures \({count} other entries\), expected files"
        for images, place in (
            (tmp_path / name, "image"),
            ([GRAY, tmp_path / name], r"images\[1\]"),
        ):
            with pytest.raises(door.PictureError, match=rf"^{place} {told}.*\.jpg, \.png"):
                door.pictures(images)


def check_chunks():
    assert [list(part) for part in batching.chunks(iter(range(7)), 3)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
    assert [list(part) for part in batching.chunks(list(range(7)), 3)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
    assert [list(part) for part in batching.chunks(iter(range(6)), 3)] == [[0, 1, 2], [3, 4, 5]]
    assert list(batching.chunks(iter(()), 3)) == []
