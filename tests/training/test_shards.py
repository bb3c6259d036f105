"""Tar files as img2dataset writes them: read in place, whatever else is in them."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from miniclip.files import write_bytes
from miniclip.inputs.preprocess import Transform
from miniclip.pipeline import load
from miniclip.tasks.own_pictures import evaluate_pictures
from miniclip.training import shards as module
from miniclip.training.held_out import HeldOut, read_held_out
from miniclip.training.listing import read_listing
from miniclip.training.pictures import read_pictures
from miniclip.training.shards import members_in, shard_of, source_of
from miniclip.training.store import stored

COLOURS = ("red", "green", "blue", "white")
TRANSFORM = Transform(size=8)


def png(colour):
    raw = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(raw, "PNG")
    return raw.getvalue()


def shard(path, members, mode="w"):
    """members: (name, bytes), or a TarInfo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(n, colour="red", caption=None):
    """As img2dataset writes it: a picture, its caption twice, and where it came from."""
    caption = caption or f"caption {n}"
    about = {"caption": f"json {n}", "url": "http://a.b/c.jpg", "key": f"{n:09d}", "label": colour}
    return [
        (f"{n:09d}.png", png(colour)),
        (f"{n:09d}.txt", caption.encode()),
        (f"{n:09d}.json", json.dumps(about).encode()),
    ]


@pytest.fixture
def folder(tmp_path):
    shard(tmp_path / "data" / "00000.tar", [*sample(0, "red"), *sample(1, "green")])
    shard(tmp_path / "data" / "00001.tar", [*sample(10_000, "blue"), *sample(10_001, "white")])
    (tmp_path / "data" / "00000_stats.json").write_text("{}")
    (tmp_path / "data" / "00000.parquet").write_bytes(b"not read")
    return tmp_path / "data"


def listed(path, only=None):
    return read_listing(path, "{}", only)


def quiet(line):
    pass


def test_samples_of_a_folder_of_shards(folder):
    listing = listed(folder)
    assert [row.path for row in listing.rows] == [
        folder / "00000.tar" / "000000000.png",
        folder / "00000.tar" / "000000001.png",
        folder / "00001.tar" / "000010000.png",
        folder / "00001.tar" / "000010001.png",
    ]
    assert [row.captions for row in listing.rows][:2] == [("caption 0",), ("caption 1",)]
    assert [row.label for row in listing.rows] == list(COLOURS)
    assert (listing.skips, listing.ignored) == ([], 0)
    assert len(listed(folder / "00001.tar").rows) == 2
    assert [row.label for row in listed(folder, {"label": ["blue"]}).rows] == ["blue"]


def test_pictures_come_from_where_they_lie(folder):
    data = read_pictures(folder, TRANSFORM, report=quiet)
    pixels, captions = data.load([2, 0], 0)
    expected = TRANSFORM([Image.new("RGB", (8, 8), c) for c in ("blue", "red")])
    np.testing.assert_array_equal(pixels, expected)
    assert captions == ["caption 10000", "caption 0"]
    assert data.labels([3, 1]) == ("white", "green")


def test_the_store_reads_them_and_notices_a_changed_shard(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "cache"))
    paths = [row.path for row in listed(folder).rows]
    store = stored(paths, 6, TRANSFORM, report=quiet)
    assert (store[paths[1]] == (0, 128, 0, 255)).all()
    assert store.broken == {}
    shard(folder / "00000.tar", [*sample(0, "red"), *sample(1, "white", "another caption")])
    assert (stored(paths, 6, TRANSFORM, report=quiet)[paths[1]] == 255).all()


def test_held_out_members_are_found_again(folder, tmp_path):
    rows = tuple(listed(folder).rows)
    HeldOut(str(folder), 1.0, (), rows).write(tmp_path)
    again = read_held_out(tmp_path)
    assert [row.path for row in again.rows] == [row.path for row in rows]
    result = evaluate_pictures(load("mini-vit", backend="numpy"), again, report=quiet)
    assert result.pictures == 4


@pytest.mark.parametrize(
    ("members", "caption"),
    [
        ([("a.txt", b" from the txt \n"), ("a.json", b'{"caption": "json"}')], "from the txt"),
        ([("a.json", b'{"caption": "json"}'), ("a.txt", b"from the txt")], "from the txt"),
        ([("a.json", b'{"TEXT": "json"}')], "json"),
        ([("a.txt", b"\xef\xbb\xbfmarked")], "marked"),
    ],
)
def test_where_a_caption_stands(tmp_path, members, caption):
    path = shard(tmp_path / "x.tar", [("a.png", png("red")), *members])
    assert listed(path).rows[0].captions == (caption,)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.png", b"x")], "no caption, expected a key caption, text or title"),
        ([("a.txt", b"words")], "no picture"),
        ([("a.png", b"x"), ("a.txt", b" ")], "the caption is empty"),
        ([("a.png", b"x"), ("a.txt", b"\xff")], "its .txt cannot be read"),
        ([("a.png", b"x"), ("a.json", b"{")], "its .json cannot be read"),
        ([("a.png", b"x"), ("a.json", b"[" * 100_000)], "its .json cannot be read"),
        ([("a.png", b"x"), ("a.json", b"[]")], "its .json is list, expected an object"),
        ([("a.png", b"x"), ("a.txt", b"a" * 101)], "a text of 101 bytes, more than 100"),
    ],
)
def test_samples_that_cannot_be_used_are_named(tmp_path, monkeypatch, members, reason):
    monkeypatch.setattr(module, "LONGEST_TEXT", 100 if "101" in reason else 1 << 20)
    path = shard(tmp_path / "x.tar", [*members, *sample(7)])
    listing = listed(path)
    assert len(listing.rows) == 1
    (skip,) = listing.skips
    assert skip.where == "x.tar/a"
    assert skip.reason.startswith(reason)
    alone = shard(tmp_path / "y.tar", members)
    with pytest.raises(ValueError, match=r"no usable row, 1 row skipped; the first, y\.tar/a: "):
        listed(alone)


def test_what_else_is_in_a_shard_is_counted_and_never_opened(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png("red"))
    link, hard, folder, device = (tarfile.TarInfo(n) for n in ("l.png", "h.png", "d", "v.png"))
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    hard.type, hard.linkname = tarfile.LNKTYPE, str(secret)
    folder.type, device.type = tarfile.DIRTYPE, tarfile.CHRTYPE
    others = [("a.pyd", b"pickle"), ("a.npy", b"x"), (".hidden.png", png("red"))]
    path = shard(tmp_path / "x.tar", [link, hard, folder, device, *others, *sample(1)])
    listing = listed(path)
    assert len(listing.rows) == 1
    assert listing.ignored == 6  # a folder is nothing that could be missed
    lines = []
    read_pictures(path, TRANSFORM, report=lines.append)
    assert lines == [
        f"{path}: 6 other files ignored (hidden, a link, without a picture's ending, or not "
        "directly in a class folder)"
    ]
    for name in ("l.png", "../secret.png", "gone.png"):
        with pytest.raises(FileNotFoundError, match="No such file in the tar"):
            source_of(path / name)
    assert shard_of(secret) is None
    assert source_of(secret) == secret


@pytest.mark.parametrize(
    "name", ["/secret", "../secret", "a/../../secret", "C:secret", "..\\secret", "\\secret"]
)
def test_names_that_lead_out_are_counted_and_never_opened(tmp_path, name):
    """As paths they could mean files outside, which a stranger's tar has no business with."""
    members = [(f"{name}.png", png("green")), (f"{name}.txt", b"up"), *sample(1)]
    listing = listed(shard(tmp_path / "x.tar", members))
    assert [row.captions for row in listing.rows] == [("caption 1",)]
    assert listing.ignored == 2
    assert listing.skips == []


def test_a_name_is_taken_as_it_is_written(tmp_path):
    path = shard(tmp_path / "x.tar", [(" sp.png", png("red")), (" sp.txt", b"a space")])
    data = read_pictures(path, TRANSFORM, report=quiet)
    assert data.rows[0].path == path / " sp.png"
    assert data.load([0], 0)[1] == ["a space"]


def test_class_folders_count_whatever_tar_lies_beside_them(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.png").write_bytes(png("red"))
    shard(tmp_path / "original.tar", sample(1))
    listing = listed(tmp_path)
    assert [row.captions for row in listing.rows] == [("cats",)]
    assert listing.ignored == 1


def test_a_shard_that_was_cut_off_gives_what_it_has(tmp_path):
    path = shard(tmp_path / "x.tar", [*sample(0), *sample(1), *sample(2)])
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        third = tar.getmember("000000002.png")
    path.write_bytes(whole[: third.offset_data + 10])
    listing = listed(path)
    assert [row.captions for row in listing.rows] == [("caption 0",), ("caption 1",)]
    assert listing.skips[0].where == "x.tar/000000002"
    assert "cut off" in listing.skips[0].reason
    path.write_bytes(whole[: third.offset + 100])
    listing = listed(path)
    assert len(listing.rows) == 2
    assert [(s.where, s.reason[:20]) for s in listing.skips] == [("x.tar", "the file ends early,")]


def test_compressed_or_broken_files_are_refused(tmp_path):
    packed = shard(tmp_path / "x.tar", sample(0), "w:gz")
    with pytest.raises(ValueError, match=r"x\.tar: no tar file, or a compressed one: expected pl"):
        listed(packed)
    write_bytes({tmp_path / "y.tar": b"nonsense" * 200})
    with pytest.raises(ValueError, match=r"y\.tar: no tar file"):
        listed(tmp_path / "y.tar")
    shard(tmp_path / "z.tar", [])
    with pytest.raises(ValueError, match=r"z\.tar: no rows, expected at least one picture"):
        listed(tmp_path / "z.tar")


def test_a_broken_picture_in_a_shard_is_left_out_by_name(tmp_path):
    path = shard(tmp_path / "x.tar", [*sample(0), ("b.png", b"broken"), ("b.txt", b"broken")])
    lines = []
    data = read_pictures(path, TRANSFORM, report=lines.append)
    pixels, captions = data.load([0, 1], 0)
    assert captions == ["caption 0"]
    assert len(pixels) == 1
    assert lines == [
        f"'{path / 'b.png'}' is left out: not a picture, or none in a format Pillow reads"
    ]


def test_a_shard_is_read_once_until_it_changes(tmp_path):
    path = shard(tmp_path / "x.tar", sample(0))
    first = members_in(path)
    assert members_in(path) is first
    shard(path, [*sample(0), *sample(1)])
    assert len(members_in(path)) == 2


def test_a_folder_called_tar_is_a_folder(tmp_path):
    (tmp_path / "x.tar" / "cats").mkdir(parents=True)
    (tmp_path / "x.tar" / "cats" / "1.png").write_bytes(png("red"))
    assert listed(tmp_path / "x.tar").rows[0].captions == ("cats",)
    assert shard_of(tmp_path / "x.tar" / "cats" / "1.png") is None
