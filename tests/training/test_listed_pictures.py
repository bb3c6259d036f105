"""A user's pictures: what csv, jsonl and class folders may hold, and what becomes of odd ones."""

import csv
import io
import json
import os
import re
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from miniclip.inputs.preprocess import Transform
from miniclip.training import table_rows
from miniclip.training.listing import ENDINGS, label_of
from miniclip.training.pictures import read_pictures
from miniclip.training.table_rows import counted

CAPTIONS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def number_of(path):
    return int(re.sub(r"\D", "", Path(path).stem))


class Fake:
    """A transform that opens nothing: "7.png" -> pixels of 7, and ValueError for those in `bad`."""

    def __init__(self, bad=(), size=2):
        self.bad, self.size, self.calls = set(bad), size, []

    def __call__(self, paths):
        (path,) = paths
        self.calls.append(path)
        if number_of(path) in self.bad:
            raise ValueError(f"images[0] {str(path)!r}: torn")
        return np.full((1, 3, self.size, self.size), number_of(path), np.float32)


def write(folder, name, content):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def numbered(folder, n):
    """0.png to n - 1.png with the captions c0, c1, ..."""
    return write(
        folder, "data.csv", "image,caption\n" + "".join(f"{i}.png,c{i}\n" for i in range(n))
    )


def draw(path, colour, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def read(path, transform=None, **options):
    """PictureData, and the lines it reported."""
    lines = []
    options = {"report": lines.append, **options}
    return read_pictures(path, transform or Fake(), **options), lines


def as_pairs(data):
    return [(row.path, *row.captions) for row in data.rows]


# ------------------------------------------------------------------------ csv


def test_csv_to_pixels(tmp_path):
    """From files on the disk to what the network takes, the same as the transform gives alone."""
    draw(tmp_path / "a.png", "red")
    elsewhere = draw(tmp_path / "deeper" / "b.png", "blue")
    text = f"caption,image\na red one,a.png\n\na blue one,{elsewhere}\n"
    transform = Transform(size=8)
    data, lines = read(write(tmp_path, "x.csv", text), transform)
    batch, captions = data.load([1, 0, 1], 0)
    assert (len(data), lines, data.skipped) == (2, [], 0)  # an empty line is no row
    assert captions == ["a blue one", "a red one", "a blue one"]
    assert (batch.shape, batch.dtype) == ((3, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(batch[:2], transform([elsewhere, tmp_path / "a.png"]))
    np.testing.assert_array_equal(batch[2], batch[0])


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, "sets/x.csv", "path,text\n one.png ,1\n../two.png,2\n/three.png,3\n")
    monkeypatch.chdir(tmp_path)
    for name in (path, str(path), "sets/x.csv"):
        data, _ = read(name)
        folder = Path(name).parent
        expected = [folder / "one.png", folder / "../two.png", Path("/three.png")]
        assert [row.path for row in data.rows] == expected


@pytest.mark.parametrize("path", table_rows.PATH_NAMES)
@pytest.mark.parametrize("caption", table_rows.CAPTION_NAMES)
def test_the_names_of_columns(tmp_path, path, caption):
    header = f"id, {path.upper()} ,{caption.capitalize()}"
    data, _ = read(write(tmp_path, "x.CSV", header + "\n7,1.png,a cat\n"))
    assert as_pairs(data) == [(tmp_path / "1.png", "a cat")]
    row = {"id": 7, path.upper(): "1.png", caption.capitalize(): "a cat"}
    data, _ = read(write(tmp_path, "x.jsonl", json.dumps(row)))
    assert as_pairs(data) == [(tmp_path / "1.png", "a cat")]


def test_the_first_known_name_counts(tmp_path):
    data, _ = read(write(tmp_path, "x.csv", "title,filename,caption,image\nT,F,C,I\n"))
    assert as_pairs(data) == [(tmp_path / "I", "C")]


@given(st.lists(CAPTIONS, min_size=1), st.booleans(), st.booleans())
@example(['a "cat", a dog\r\nand, a \ufeffmouse', " 'x' ", "a\rb", "a\u2028b\x1cc"], True, True)
def test_any_caption_comes_back_from_csv_and_jsonl(captions, mark, quote_all):
    """Commas, quotes, line ends, signs of any script; with a byte order mark and without."""
    style = {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"} if quote_all else {}
    table = io.StringIO(newline="")
    writer = csv.writer(table, **style)
    writer.writerow(["image", "caption"])
    writer.writerows([f"{i}.png", caption] for i, caption in enumerate(captions))
    rows = [{"image": f"{i}.png", "caption": caption} for i, caption in enumerate(captions)]
    lines = "\n".join(json.dumps(row, ensure_ascii=quote_all) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("x.csv", table.getvalue()), ("x.jsonl", lines)):
            data, told = read(write(folder, name, text.encode("utf-8-sig" if mark else "utf-8")))
            assert [row.captions for row in data.rows] == [(caption,) for caption in captions]
            assert [row.path.name for row in data.rows] == [f"{i}.png" for i in range(len(data))]
            assert told == []


def test_rows_of_csv_that_are_skipped(tmp_path):
    """Each with the line where it begins, also behind captions of several lines."""
    text = (
        'image,caption,note\n1.png,"one\nand a half",\n2.png, \t\n,three\n4.png\n'
        "5.png,a cat, ok,a dog\n"
        '6.png,"six"6,\n7.png,"seven",,,\nhttps://a.b/8.png,eight\n9.png,5" nine\n'
    )
    data, lines = read(write(tmp_path, "x.csv", text))
    assert [row.path.name for row in data.rows] == ["1.png", "7.png", "9.png"]
    assert data.rows[2].captions == ('5" nine',)
    assert data.skipped == 6
    where = [
        "line 4, skipped: the caption is empty",
        "line 5, skipped: the path is empty",
        "line 6, skipped: got 1 column, expected 3",
        "line 7, skipped: got 4 columns, expected 3: put a text with commas in quotes",
        "line 8, skipped: not CSV (",
    ]
    assert len(lines) == 6
    for line, expected in zip(lines, where, strict=False):
        assert line.startswith(f"{tmp_path / 'x.csv'}, {expected}")
    assert lines[5] == f"{tmp_path / 'x.csv'}: 1 further row skipped"
    assert data.summary() == "3 pictures, 6 rows skipped"


def test_a_quote_that_nobody_closed(tmp_path):
    """What it swallows is counted line by line, and is no caption of a thousand lines."""
    rows = "".join(f"{i}.png,c{i}\n" for i in range(1000))
    data, lines = read(write(tmp_path, "x.csv", f'image,caption\na.png,a\nb.png,"b\n{rows}'))
    assert as_pairs(data) == [(tmp_path / "a.png", "a")]
    assert data.skipped == 1001
    assert "lines 3 to 1003, skipped: not CSV" in lines[0]


# ------------------------------------------------------------------------ jsonl


def test_jsonl(tmp_path):
    rows = [
        '{"image": "1.png", "caption": "one"}',
        "",
        '{"image": "2.png", "caption": ["two", "  ", "zwei"]}',
        '{"image": "3.png", "caption": "three"',
        '["4.png", "four"]',
        '{"image": "5.png"}',
        '{"caption": "six"}',
        '{"image": 7, "caption": "seven"}',
        '{"image": "8.png", "caption": ["eight", null]}',
        '{"image": "9.png", "caption": []}',
        '{"image": "10.png", "caption": ["", " "]}',
        '{"image": "", "caption": "eleven"}',
        "[" * 100_000,
        '{"image": ' + "1" * 10_000 + "}",
        '{"image": "15.png", "caption": "fifteen"}',
    ]
    data, lines = read(write(tmp_path, "x.jsonl", "\r\n".join(rows)))
    assert as_pairs(data) == [
        (tmp_path / "1.png", "one"),
        (tmp_path / "2.png", "two", "zwei"),
        (tmp_path / "15.png", "fifteen"),
    ]
    assert data.skipped == 11
    expected = [
        r"line 4, skipped: not JSON \(Expecting ',' delimiter\)",
        r"line 5, skipped: got JSON's list, expected an object",
        r"line 6, skipped: no caption, expected a key caption, text or title",
        r"line 7, skipped: no path, expected a key image, path, file, filepath, filename or \w+",
        r"line 8, skipped: the path is int, expected a text",
        r": 6 further rows skipped",
    ]
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern + "$", line), line


def test_why_rows_of_json_are_skipped(tmp_path):
    cases = [
        ('{"image": "8.png", "caption": ["a", null]}', "the caption is NoneType, expected a text"),
        ('{"image": "9.png", "caption": []}', "the caption is empty"),
        ('{"image": " ", "caption": "a"}', "the path is empty"),
        ('{"image": "http://a.b/c.png", "caption": "a"}', "the path is a URL"),
        ("[" * 100_000, r"not JSON \("),
        ("1" * 10_000, r"not JSON \("),
    ]
    for text, reason in cases:
        path = write(tmp_path, "x.jsonl", text)
        with pytest.raises(ValueError, match=f"no usable row, 1 row skipped; .*line 1: {reason}"):
            read(path)


def test_several_captions_are_chosen_by_seed_epoch_and_index(tmp_path):
    row = json.dumps({"image": "1.png", "caption": ["a", "b", "c"]})
    path = write(tmp_path, "x.jsonl", "\n".join([row] * 30))
    data, _ = read(path, seed=5)
    chosen = {epoch: data.load(range(30), epoch)[1] for epoch in range(4)}
    for epoch, captions in chosen.items():
        rngs = [np.random.default_rng([5, epoch, index]) for index in range(30)]
        assert captions == ["abc"[rng.integers(3)] for rng in rngs]
        assert set(captions) == {"a", "b", "c"}
    assert chosen[0] != chosen[1]
    again, _ = read(path, seed=5, workers=4)
    assert again.load([7, 3], 2)[1] == [chosen[2][7], chosen[2][3]]  # whatever else is in the batch
    other, _ = read(path, seed=6)
    assert other.load(range(30), 0)[1] != chosen[0]
    assert data.summary() == "1 picture in 30 rows"
    pair = json.dumps({"image": "1.png", "caption": ["a", "b"]})
    two, _ = read(write(tmp_path, "y.jsonl", "\n".join([pair] * 30)), seed=5)
    rngs = [np.random.default_rng([5, 0, index]) for index in range(30)]
    assert two.load(range(30), 0)[1] == ["ab"[rng.integers(2)] for rng in rngs]


# ------------------------------------------------------------------------ folders


def test_class_folders(tmp_path):
    draw(tmp_path / "red_panda" / "2.PNG", "red")
    draw(tmp_path / "red_panda" / "10.jpg", "orange")
    draw(tmp_path / "cats-and--dogs" / "1.webp", "blue")
    for name in ("readme.txt", ".hidden/1.png", "cats-and--dogs/.1.png", "red_panda/notes.md"):
        write(tmp_path, name, b"x")
    write(tmp_path, "red_panda/deeper/3.png", b"x")
    (tmp_path / "red_panda" / "4.png").mkdir()
    (tmp_path / "empty").mkdir()
    data, lines = read(tmp_path, Transform(size=8))
    assert as_pairs(data) == [
        (tmp_path / "cats-and--dogs" / "1.webp", "a photo of a cats and dogs"),
        (tmp_path / "red_panda" / "10.jpg", "a photo of a red panda"),
        (tmp_path / "red_panda" / "2.PNG", "a photo of a red panda"),
    ]
    assert data.ignored == 6
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path}: 6 other files ignored")
    assert data.load([0, 1, 2], 0)[0].shape == (3, 3, 8, 8)
    assert data.summary() == "3 pictures, 6 other files ignored"
    data, _ = read(tmp_path, template="{}, drawn: {}")
    assert data.rows[1].captions == ("red panda, drawn: red panda",)


def test_names_of_class_folders():
    assert label_of("Siamese_cat-") == "Siamese cat"
    assert label_of("_") == "_"


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_of_pictures(tmp_path, ending):
    write(tmp_path, f"cats/1{ending}", b"x")
    assert len(read(tmp_path)[0]) == 1


# ------------------------------------------------------------------------ nothing to use


WRONG_FILES = [
    ("x.txt", b"image,caption\n", r"x\.txt: ends in '\.txt', expected a \.csv, \.jsonl or"),
    ("x", b"image,caption\n", "x: has no ending, expected a .csv, .jsonl or"),
    ("x.csv", b"", "got an empty file, expected image, path, .* for the caption"),
    ("x.csv", b"image\tcaption\n1.png\tone\n", r"got the header 'image\\tcaption', expected image"),
    ("x.csv", b"id,caption\n1,one\n", "got the header 'id', 'caption', expected image, path"),
    (
        "x.csv",
        b"image,label\n1,one\n",
        "got the header 'image', 'label', expected .* caption, text",
    ),
    ("x.csv", b'"image,caption\n1,one\n', "the header cannot be read as CSV"),
    ("x.csv", b"image,caption\n", "x.csv: no rows, expected at least one picture"),
    (
        "x.csv",
        b"image,caption\n1.png\n\n,\n",
        "no usable row, 2 rows skipped; .* line 2: got 1 col",
    ),
    ("x.csv", b"image,caption\n1.png,caf\xe9\n", "line 2: got the byte 0xe9, expected UTF-8"),
    ("x.csv", b"\xef\xbb\xbfimage,caption\n\xe9\n", "line 2: got the byte 0xe9, expected UTF-8"),
    ("x.csv", "image,caption\n".encode("utf-16"), "line 1: got the byte 0xff, expected UTF-8"),
    ("x.jsonl", b"", "x.jsonl: no rows"),
    ("x.jsonl", b"\n\xff", "line 2: got the byte 0xff, expected UTF-8"),
    ("x.jsonl", b'{"a": 1}\n{"b": 2}', "no usable row, 2 rows skipped; the first, line 1: no path"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG_FILES)
def test_files_without_anything_to_use(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    lines = []
    with pytest.raises(ValueError, match=message) as raised:
        read_pictures(path, Fake(), report=lines.append)
    assert str(raised.value).startswith(f"{path}: ")
    assert lines == []  # the error says it all


def test_folders_without_anything_to_use(tmp_path):
    with pytest.raises(ValueError, match="got a folder of 0 files and no class folder, expected"):
        read(tmp_path)
    draw(tmp_path / "1.png", "red")
    write(tmp_path, ".git/1.png", b"x")
    with pytest.raises(ValueError, match="got a folder of 2 files and no class folder, expected"):
        read(tmp_path)
    draw(tmp_path / "train" / "cats" / "1.png", "red")  # "a photo of a train" would be worse
    with pytest.raises(
        ValueError, match=r"class folders without a picture, and 3 other files; .*cat"
    ):
        read(tmp_path)


def test_no_file_at_all(tmp_path):
    for name in ("none.csv", "none", "nu\0ll.csv", "n" * 300 + ".csv"):
        with pytest.raises(ValueError, match=r"no such file or folder|cannot be read: File name"):
            read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="not a regular file"):
        read(tmp_path / "x.csv")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"data\.csv: cannot be read: Permission denied$"):
        read(numbered(tmp_path, 1))


def test_wrong_arguments(tmp_path):
    path = numbered(tmp_path, 2)
    for options, message in [
        ({"template": "a photo"}, "template: got 'a photo', expected a sentence with {}"),
        ({"template": None}, "template: got None"),
        ({"workers": 0}, "workers: got 0, expected a whole number from 1"),
        ({"workers": 1.5}, "workers: got 1.5"),
        ({"workers": True}, "workers: got True"),
        ({"seed": -1}, "seed: got -1, expected a whole number from 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(path, **options)
    with pytest.raises(TypeError, match="source: got list, expected the path of a"):
        read([path])
    data, _ = read(path)
    for indices, epoch, error, message in [
        ([], 0, ValueError, "indices: got none"),
        ([2], 0, IndexError, "indices: got 2, expected whole numbers from 0 to 1"),
        ([0.5], 0, IndexError, "indices: got 0.5"),
        (np.array([True, False]), 0, IndexError, "indices: got True"),
        ([-1], 0, IndexError, "indices: got -1"),
        ([0], -1, ValueError, "epoch: got -1, expected a whole number from 0"),
    ]:
        with pytest.raises(error, match=message):
            data.load(indices, epoch)


@given(
    st.binary() | st.text('",\n\r{}[]:12abc\\').map(str.encode), st.sampled_from(["csv", "jsonl"])
)
def test_any_file_is_read_or_refused_with_its_name(content, ending):
    """Whatever is in it: usable rows, or one ValueError."""
    header = b"image,caption\n" if ending == "csv" else b""
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, f"x.{ending}", header + content)
        try:
            data, _ = read(path)
        except ValueError as error:
            message = str(error)
        else:
            message = f"{path}: "
            assert len(data) >= 1
            assert all(c.strip() for row in data.rows for c in row.captions)
        assert message.startswith(f"{path}: ")


# ------------------------------------------------------------------------ loading


@given(st.data(), st.integers(1, 12), st.sampled_from([1, 4]))
def test_a_batch_is_its_unbroken_pictures_in_order(data, n, workers):
    indices = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    bad = data.draw(st.sets(st.integers(0, n - 1)))
    good = [i for i in indices if i not in bad]
    met = list(dict.fromkeys(i for i in indices if i in bad))
    with tempfile.TemporaryDirectory() as folder:
        transform = Fake(bad)
        samples, lines = read(numbered(folder, n), transform, workers=workers)
        batch, captions = samples.load(indices, 0)
        assert captions == [f"c{i}" for i in good]
        assert batch.shape == ((len(good), 3, 2, 2) if good else (0, 3, 0, 0))
        assert batch[:, :1, :1, :1].ravel().tolist() == good
        assert [number_of(path) for path in samples.broken] == met
        assert set(samples.broken.values()) <= {"torn"}
        assert lines == [f"{str(path)!r} is left out: torn" for path in samples.broken]
        assert len(transform.calls) == len(set(indices))  # once each, however often it is asked for


def test_one_and_four_workers_give_the_same_pixels(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"{i}.png")
    for i in (3, 8):
        write(tmp_path, f"{i}.png", (tmp_path / f"{i}.png").read_bytes()[:200])
    path = numbered(tmp_path, 14)  # and two that are not there
    answers = []
    for workers in (1, 4):
        data, lines = read(path, Transform(size=16), workers=workers)
        answers.append((*data.load(range(14), 0), list(data.broken.items()), lines))
    one, four = answers
    np.testing.assert_array_equal(one[0], four[0])
    assert one[1:] == four[1:]
    assert one[1] == [f"c{i}" for i in (0, 1, 2, 4, 5, 6, 7, 9, 10, 11)]
    assert [number_of(path) for path, _ in one[2]] == [3, 8, 12, 13]


def test_the_order_is_the_askers_whoever_finishes_first(tmp_path):
    """The first picture waits until the last one is done."""
    done = []
    last = threading.Event()

    def transform(paths):
        n = number_of(paths[0])
        assert n != 0 or last.wait(timeout=20)
        done.append(n)
        if n == 4:
            last.set()
        return np.full((1, 3, 2, 2), n, np.float32)

    data, _ = read(numbered(tmp_path, 5), transform, workers=2)
    batch, captions = data.load([0, 1, 2, 3, 4], 0)
    assert done[-1] == 0
    assert batch[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert captions == ["c0", "c1", "c2", "c3", "c4"]


def test_as_many_threads_as_workers(tmp_path):
    """Three meet at a barrier: with fewer threads they would never all be there."""
    meeting = threading.Barrier(3)
    names = set()

    def transform(paths):
        meeting.wait(timeout=20)
        names.add(threading.current_thread().name)
        return np.zeros((1, 3, 2, 2), np.float32)

    data, _ = read(numbered(tmp_path, 9), transform, workers=3)
    data.load(range(9), 0)
    assert len(names) == 3


def test_no_thread_outlives_a_call(tmp_path):
    def buggy(paths):
        raise TypeError("a bug of the transform")

    before = set(threading.enumerate())
    path = numbered(tmp_path, 8)
    read(path)[0].load(range(8), 0)
    assert set(threading.enumerate()) == before
    data, lines = read(path, buggy)
    with pytest.raises(TypeError, match="a bug"):  # and no broken picture
        data.load(range(8), 0)
    assert set(threading.enumerate()) == before
    assert (data.broken, lines) == ({}, [])


def test_broken_pictures_are_told_and_tried_once(tmp_path):
    transform = Fake(bad=[1, 3])
    data, lines = read(numbered(tmp_path, 5), transform)
    for epoch in range(3):
        batch, captions = data.load(np.array([3, 0, 1, 4]), epoch)
        assert captions == ["c0", "c4"]
        assert batch[:, 0, 0, 0].tolist() == [0, 4]
    assert [number_of(path) for path in transform.calls].count(3) == 1
    assert [number_of(path) for path in transform.calls].count(0) == 3
    assert data.broken == {tmp_path / "3.png": "torn", tmp_path / "1.png": "torn"}
    assert lines == [f"{str(tmp_path / name)!r} is left out: torn" for name in ("3.png", "1.png")]
    assert data.summary() == "5 pictures, 2 broken"
    assert len(data) == 5


def test_a_batch_of_broken_pictures(tmp_path):
    data, lines = read(numbered(tmp_path, 5), Fake(bad=[1, 2, 3]))
    for _ in range(2):
        batch, captions = data.load([2, 1, 3, 2], 0)
        assert (batch.shape, batch.dtype, captions) == ((0, 3, 0, 0), np.float32, [])
    assert len(lines) == 3
    assert data.load([1, 4], 0)[1] == ["c4"]


def test_what_is_wrong_with_a_file(tmp_path):
    """Through the real transform; the path stands in front of the reason, not in it as well."""
    whole = draw(tmp_path / "0.png", "red", (64, 64)).read_bytes()
    write(tmp_path, "1.png", whole[:60])
    write(tmp_path, "2.png", b"")
    write(tmp_path, "3.png", b"<html>Not found</html>")
    (tmp_path / "4.png").mkdir()
    data, lines = read(numbered(tmp_path, 6), Transform(size=8))
    assert data.load(range(6), 0)[1] == ["c0"]
    reasons = ["broken, truncated", "an empty file", "not a picture", "a folder", "no such file"]
    for n, (reason, line) in enumerate(zip(reasons, lines, strict=True), 1):
        path = tmp_path / f"{n}.png"
        assert line.startswith(f"{str(path)!r} is left out: {reason}")
        assert line.count(path.name) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "0.png"), "No such file or directory"),
        (ValueError("torn"), "torn"),
        (SyntaxError("not a TIFF file"), "not a TIFF file"),
        (EOFError(), "EOFError"),
        (struct.error("unpack"), "unpack"),
        (zlib.error("Error -3"), "Error -3"),
        (Image.DecompressionBombError("too large"), "too large"),
    ],
)
def test_what_pillow_raises_is_a_broken_picture(tmp_path, error, reason):
    def transform(paths):
        if number_of(paths[0]) == 0:
            raise error
        return np.zeros((1, 3, 2, 2), np.float32)

    data, _ = read(numbered(tmp_path, 2), transform)
    assert data.load([0, 1], 0)[1] == ["c1"]
    assert data.broken == {tmp_path / "0.png": reason}


def test_two_loads_at_once(tmp_path):
    """All threads meet inside the transform, on the same broken pictures: each is told once."""
    meeting = threading.Barrier(4)
    fake = Fake(bad=range(0, 40, 2))

    def transform(paths):
        if number_of(paths[0]) == 0:
            meeting.wait(timeout=20)  # all four are in their first call
        return fake(paths)

    data, lines = read(numbered(tmp_path, 40), transform, workers=3)
    answers = []
    loaders = [
        threading.Thread(target=lambda: answers.append(data.load(range(40), 0))) for _ in range(4)
    ]
    for loader in loaders:
        loader.start()
    for loader in loaders:
        loader.join(timeout=30)
    assert len(answers) == 4
    for batch, captions in answers:
        assert batch[:, 0, 0, 0].tolist() == list(range(1, 40, 2))
        assert captions == [f"c{i}" for i in range(1, 40, 2)]
    assert len(lines) == len(set(lines)) == len(data.broken) == 20


class SlowDict(dict):
    """Lets other threads run between looking a key up and acting on it."""

    def __contains__(self, key):
        there = super().__contains__(key)
        time.sleep(0.05)
        return there


def test_the_same_broken_picture_met_at_the_same_moment(tmp_path):
    meeting = threading.Barrier(4)

    def transform(paths):
        if number_of(paths[0]) == 0:
            meeting.wait(timeout=20)
            raise ValueError("torn")
        return np.zeros((1, 3, 2, 2), np.float32)

    data, lines = read(numbered(tmp_path, 2), transform)
    data.broken = SlowDict()
    loaders = [threading.Thread(target=data.load, args=([1, 0], 0)) for _ in range(4)]
    for loader in loaders:
        loader.start()
    for loader in loaders:
        loader.join(timeout=30)
    assert lines == [f"{str(tmp_path / '0.png')!r} is left out: torn"]


def test_what_a_transform_returns(tmp_path):
    path = numbered(tmp_path, 3)
    for answer in (np.zeros((3, 4, 4)), np.zeros((1, 3, 4, 5)), np.zeros((1, 3, 4, 4), np.uint8)):
        data, _ = read(path, lambda paths, answer=answer: answer)
        with pytest.raises(ValueError, match=r"transform: got \w+ \(.*\), expected a float array"):
            data.load([0], 0)
    data, _ = read(path, lambda paths: np.zeros((1, 3, *(4 + number_of(paths[0]),) * 2)))
    with pytest.raises(
        ValueError, match=r"got \(1, 3, 4, 4\) and \(1, 3, 5, 5\), expected one size"
    ):
        data.load([0, 1], 0)
    assert data.load([1], 0)[0].dtype == np.float64


# ------------------------------------------------------------------------ words


def test_the_summary(tmp_path):
    text = "image,caption\n" + "".join(f"{i}.png,c\n" for i in range(1203)) + "x\n,\n"
    data, _ = read(write(tmp_path, "x.csv", text), Fake(bad=range(4)))
    assert data.summary() == "1,203 pictures, 2 rows skipped"
    data.load(range(6), 0)
    assert data.summary() == "1,203 pictures, 4 broken, 2 rows skipped"
    one, _ = read(write(tmp_path, "y.csv", "image,caption\n1.png,a\nx\n"))
    assert one.summary() == "1 picture, 1 row skipped"
    assert counted(1000, "row") == "1,000 rows"


def test_it_prints_where_nobody_listens(tmp_path, capsys):
    data = read_pictures(numbered(tmp_path, 2), Fake(bad=[0]))
    assert (data._workers, data._seed) == (2, 0)
    data.load([0, 1], 0)
    assert capsys.readouterr().out == f"{str(tmp_path / '0.png')!r} is left out: torn\n"


def test_names_that_no_terminal_can_print(tmp_path):
    """Half a surrogate pair in a path ends no run by being reported."""
    row = json.dumps({"image": "0\ud800.png", "caption": "a"})
    data, lines = read(write(tmp_path, "x.jsonl", row), Fake(bad=[0]))
    assert data.load([0], 0)[1] == []
    assert lines[0].encode("utf-8")
