"""The door for pictures: what may come in, in which order, how lazily, and what is refused."""

import io
import os
import re
import weakref
from collections import deque

import numpy as np
import pytest
import torch
from door_checks import (
    GRAY,
    NAMES,
    check_folder,
    check_folders_without_pictures,
    check_taken_when_asked_for,
    drawing,
    make_folder,
    sources,
)
from PIL import features

from miniclip.inputs.pictures import ENDINGS, Picture, PictureError, pictures
from miniclip.inputs.preprocess import Transform


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def test_a_folder_is_its_pictures_in_the_order_of_their_names(folder, monkeypatch):
    check_folder(folder)
    named = [one.name for one in pictures([folder / "c.gif", folder])]
    assert named[0] == f"images[0] {str(folder / 'c.gif')!r}"
    assert named[2] == f"images[1][1] {str(folder / 'a.jpg')!r}"
    assert [one.name for one in pictures(folder)][3] == f"images[3] {str(folder / 'c.gif')!r}"
    monkeypatch.chdir(folder.parent)
    (entry,) = os.scandir(".")
    assert [os.fspath(path) for path in sources(entry)] == [f"photos/{name}" for name in NAMES]


def test_one_picture_of_each_kind(folder):
    path, file = folder / "a.jpg", io.BytesIO(b"x")
    picture = drawing()
    for one in (path, str(path), file, picture, GRAY, GRAY / 255, GRAY[..., None]):
        for images in (one, [one], (one,), iter([one])):
            (found,) = pictures(images)
            assert found.source is one
    assert pictures(GRAY)[0].name == "image"
    assert pictures([GRAY])[0].name == "images[0]"


def test_a_batch_is_its_pictures(folder):
    batch = np.arange(5 * 6 * 8 * 3).reshape(5, 6, 8, 3).astype(np.uint8)
    for found in (pictures(batch), pictures([GRAY, batch])[1:], list(pictures(iter([batch])))):
        assert len(found) == 5
        for one, expected in zip(found, batch, strict=True):
            np.testing.assert_array_equal(one.source, expected)
            assert np.shares_memory(one.source, batch)
    assert pictures(batch)[4].name == "images[4]"
    assert pictures([GRAY, batch])[4].name == "images[1][3]"
    assert len(pictures([batch, batch[:2], GRAY, folder])) == 5 + 2 + 1 + 4


@pytest.mark.parametrize(
    "several",
    [
        list, tuple, iter, deque,
        lambda items: (one for one in items),
        lambda items: map(items.__getitem__, range(len(items))),
        lambda items: dict(enumerate(items)).values(),
    ],
)  # fmt: skip
def test_several_of_every_kind(several):
    """Lists have a length; of everything else the pictures come when they are asked for."""
    items = [drawing(shade) for shade in range(5)]
    found = pictures(several(items))
    assert isinstance(found, list) == (several in (list, tuple))
    assert [one.source for one in found] == items


def test_pictures_that_went_through_the_door_stay_what_they_are(folder):
    once = pictures([GRAY, folder])
    assert pictures(once) == once
    assert list(pictures(iter(once))) == once
    assert pictures(once[1]) == [once[1]]


@pytest.mark.parametrize("ending", ENDINGS)
def test_pillow_reads_what_counts_in_a_folder(ending, tmp_path):
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    drawing(60).save(tmp_path / f"one{ending}")
    assert Transform(size=8)(tmp_path).shape == (1, 3, 8, 8)


# ------------------------------------------------------------------------ laziness


def test_a_generators_picture_is_taken_when_it_is_asked_for():
    check_taken_when_asked_for()


def check_one_alive(work):
    """However many pictures a generator makes, hardly more than one is there at a time."""
    made, alive = [], []

    def shown():
        for shade in range(40):
            picture = drawing(shade)
            made.append(weakref.ref(picture))
            alive.append(sum(one() is not None for one in made))
            yield picture
            del picture

    result = work(shown())
    assert len(result) == len(made) == 40
    assert max(alive) <= 3, alive
    return result


def test_a_transform_keeps_no_picture():
    result = check_one_alive(Transform(size=8))
    np.testing.assert_array_equal(result, Transform(size=8)([drawing(n) for n in range(40)]))


# ------------------------------------------------------------------------ what is refused


def test_no_pictures_at_all(tmp_path):
    for nothing in ([], (), iter([]), deque(), (one for one in ())):
        with pytest.raises(
            PictureError, match=r"^images: got none, expected at least one picture$"
        ):
            list(pictures(nothing))
        if not isinstance(nothing, list | tuple):
            with pytest.raises(PictureError, match=r"^images: got none"):
                Transform(size=8)(nothing)


def test_folders_without_pictures(tmp_path):
    check_folders_without_pictures(tmp_path)


WRONG = {
    "missing": ("no/such.png", r"'no/such\.png': no such file"),
    "URL": ("https://x.org/a.png", "'https.*': a URL, and nothing is ever fetched"),
    "list": ([GRAY], "got a list, expected a picture"),
    "nothing": (
        None,
        "got NoneType, expected a path, a binary file object, a PIL image",
    ),
    "number": (7, "got int, expected a path"),
    "bytes": (b"\x89PNG", r"got bytes, expected .*: wrap it in io\.BytesIO"),
    "text": (io.StringIO("x"), "got a file opened as text, expected .*: open it with mode 'rb'"),
    "tensor": (torch.zeros(3, 8, 8), "got Tensor, expected a path"),
    "rank 1": (np.zeros(8, np.uint8), r"got an array of shape \(8,\), expected \(H, W\)"),
    "rank 5": (np.zeros((1, 2, 4, 4, 3)), r"got an array of shape \(1, 2, 4, 4, 3\), expected"),
    "channels": (np.zeros((4, 4, 2), np.uint8), r"got an array of shape \(4, 4, 2\), expected"),
    "channels first": (np.zeros((3, 8, 8), np.uint8), r"uint8 \(3, 8, 8\) has its channels first"),
    "preprocessed": (
        np.zeros((2, 3, 8, 8), "f4"),
        r"float32 \(2, 3, 8, 8\) looks already preprocessed",
    ),
    "no pixels": (
        np.zeros((0, 5, 3), np.uint8),
        r"got an array of shape \(0, 5, 3\), which has no",
    ),
    "dtype": (np.zeros((4, 4), np.uint16), "got uint16, expected uint8 or float"),
    "a mapping": ({"a.png": 1}, "got dict, expected a path"),
    "a set": ({"a.png"}, "got set, expected a path"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_picture_is_named_by_its_place(kind):
    """Before anything is decoded, if it came in a list; in its turn, if it came in an iterable."""
    wrong, message = WRONG[kind]
    broken = io.BytesIO(b"no picture, but that shows only when it is opened")
    with pytest.raises(PictureError, match=rf"^images\[2\]:? {message}"):
        pictures([broken, GRAY, wrong])
    with pytest.raises(PictureError, match=rf"^images\[2\]:? {message}"):
        list(pictures(iter([broken, GRAY, wrong])))
    if kind != "list":
        with pytest.raises(PictureError, match=rf"^image:? {message}"):
            pictures(wrong)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("these are words")
    empty, text = tmp_path / "empty.png", tmp_path / "text.png"
    told = re.escape(f"images[0] {str(empty)!r}: an empty file")
    for images in ([empty], tmp_path):  # of a folder, too
        with pytest.raises(PictureError, match=told):
            pictures(images)
    empty.unlink()
    (found,) = pictures(tmp_path)
    told = re.escape(f"images[0] {str(text)!r}: not a picture, or none in a format Pillow reads")
    with pytest.raises(PictureError, match=told):
        Transform(size=8)([found])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match=r"pipe\.png': not a regular file"):
        pictures(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="a folder without pictures"):
        pictures(tmp_path)


def test_an_error_of_a_generator_is_its_own():
    def breaks():
        yield GRAY
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Transform(size=8)(breaks())


def test_a_picture_says_what_it_is():
    assert repr(Picture("images[3]", "a.png")) == "Picture(name='images[3]', source='a.png')"
