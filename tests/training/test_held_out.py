"""Pictures that a run does not train on: which and how many, and that no side sees the other's."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from PIL import Image

from miniclip.training.held_out import RECORD, HeldOut, hold_out, read_held_out
from miniclip.training.listing import Listing, read_listing
from miniclip.training.pictures import read_pictures
from miniclip.training.table_rows import Row


def table(folder, rows, name="data.csv"):
    folder.mkdir(exist_ok=True)
    text = "image,caption\n" + "".join(f"{image},{caption}\n" for image, caption in rows)
    (folder / name).write_text(text)
    return folder / name


def split(source, share, template="{}"):
    return hold_out(read_listing(source, template), source, share)


def names(rows):
    return [row.path.name for row in rows]


PAIRS = [(f"{n}.png", f"c{n}") for n in range(20)]


@pytest.mark.parametrize(("share", "kept"), [(0, 0), (0.1, 2), (0.12, 2), (0.13, 3), (0.95, 19)])
def test_the_share_of_the_pictures(share, kept, tmp_path):
    training, held = split(table(tmp_path, PAIRS), share)
    assert (len(training.rows), len(held.rows)) == (20 - kept, kept)
    assert sorted(names(training.rows) + names(held.rows)) == sorted(name for name, _ in PAIRS)
    assert (held.share, held.classes) == (share, ())


def test_order_place_and_neighbours_do_not_matter(tmp_path):
    """The same names, elsewhere and in another order, are split alike; and not by the order."""
    _, held = split(table(tmp_path / "a", PAIRS), 0.25)
    mixed = random.Random(0).sample(PAIRS, len(PAIRS))
    _, moved = split(table(tmp_path / "b", mixed), 0.25)
    assert set(names(held.rows)) == set(names(moved.rows))
    assert names(held.rows) != [name for name, _ in PAIRS[:5]]
    assert names(held.rows) != [name for name, _ in PAIRS[-5:]]
    # a larger share keeps what a smaller one kept
    _, more = split(table(tmp_path / "a", PAIRS), 0.5)
    assert set(names(held.rows)) < set(names(more.rows))


def test_a_picture_is_on_one_side_with_all_its_captions(tmp_path):
    rows = [(f"{n % 10}.png", f"c{n}") for n in range(30)]
    training, held = split(table(tmp_path, rows), 0.3)
    assert len(held.rows) == 9
    assert not {row.path for row in training.rows} & {row.path for row in held.rows}
    data = read_pictures(tmp_path / "data.csv", None, held_out=0.3)
    assert data.summary() == "7 pictures in 21 rows, 3 more held out"


def test_every_class_gives_its_share(tmp_path):
    for name, count in (("cats", 10), ("dogs", 20), ("rare", 2)):
        (tmp_path / name).mkdir()
        for n in range(count):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{n}.png")
    training, held = split(tmp_path, 0.2, "a {}")
    folders = [row.path.parent.name for row in held.rows]
    assert [folders.count(name) for name in ("cats", "dogs", "rare")] == [2, 4, 0]
    assert held.classes == ("a cats", "a dogs", "a rare")
    assert len(training.rows) == 26


def test_the_record_is_read_as_it_was_written(tmp_path):
    held = HeldOut("/data", 0.25, ("a cat",), (Row(tmp_path / "猫 \udcff.png", ("a", "猫")),))
    held.write(tmp_path)
    assert read_held_out(tmp_path) == held
    assert read_held_out(tmp_path / "elsewhere") is None
    assert read_held_out("mini-vit") is None
    for wrong in ("{", "{}", json.dumps({"rows": 3})):
        (tmp_path / RECORD).write_text(wrong)
        with pytest.raises(ValueError, match=f"{RECORD}: no record of pictures"):
            read_held_out(tmp_path)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), "a", True])
def test_what_is_no_share(share, tmp_path):
    with pytest.raises(ValueError, match=r"held_out: got .*, expected a share from 0 to below 1"):
        read_pictures(table(tmp_path, PAIRS), None, held_out=share)


def test_training_reads_the_others(tmp_path):
    data = read_pictures(table(tmp_path, PAIRS), None, held_out=0.1)
    assert len(data) == 18
    assert data.summary() == "18 pictures, 2 more held out"
    assert not set(data.rows) & set(data.held_out.rows)
    assert len(read_pictures(table(tmp_path, PAIRS), None)) == 20  # nothing, where nobody asks


def test_a_folder_that_holds_its_table(tmp_path):
    table(tmp_path, PAIRS, "captions.csv")
    assert names(read_listing(tmp_path, "{}").rows) == [name for name, _ in PAIRS]
    (tmp_path / "captions.jsonl").write_text('{"image": "a.png", "caption": "a"}\n')
    with pytest.raises(ValueError, match=r"holds captions\.csv and captions\.jsonl, expected one"):
        read_listing(tmp_path, "{}")
    (tmp_path / "captions.csv").unlink()
    assert names(read_listing(tmp_path, "{}").rows) == ["a.png"]
    assert not Listing().classes


def lowest(paths, number):
    """The paths with the lowest SHA-256: the rule, so that nobody's pictures change sides."""
    return set(sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())[:number])


def test_which_pictures_are_held_out(tmp_path):
    """By the path inside the data, of a table or of class folders, and in full outside of it."""
    _, held = split(table(tmp_path / "a", PAIRS), 0.25)
    assert set(names(held.rows)) == lowest([name for name, _ in PAIRS], 5)
    assert names(held.rows) == [name for name, _ in PAIRS if name in set(names(held.rows))]
    for name in ("cats", "dogs"):
        (tmp_path / "b" / name).mkdir(parents=True)
        for n in range(8):
            Image.new("RGB", (4, 4)).save(tmp_path / "b" / name / f"{n}.png")
    _, held = split(tmp_path / "b", 0.5)
    inside = {path.relative_to(tmp_path / "b").as_posix() for path in (r.path for r in held.rows)}
    expected = [lowest([f"{name}/{n}.png" for n in range(8)], 4) for name in ("cats", "dogs")]
    assert inside == expected[0] | expected[1]
    outside = [(f"/pictures/{n}.png", "c") for n in range(10)]
    _, held = split(table(tmp_path / "c", outside), 0.3)
    assert {str(row.path) for row in held.rows} == lowest([path for path, _ in outside], 3)


def test_the_record_names_everything_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(Path("a"), PAIRS[:4])
    _, held = split(Path("a/data.csv"), 0.5)
    assert held.source == str(tmp_path / "a" / "data.csv")
    held.write(tmp_path)
    text = (tmp_path / RECORD).read_text()
    record = json.loads(text)
    rows = [
        {"image": str(tmp_path / row.path), "captions": list(row.captions)} for row in held.rows
    ]
    assert record == {"source": held.source, "share": 0.5, "classes": [], "rows": rows}
    assert text.startswith('{\n "source": ')  # a line for each thing: people look into it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_held_out("~").rows == tuple(
        Row(tmp_path / row.path, row.captions) for row in held.rows
    )


def test_what_training_reads_of_a_listing_that_is_split(tmp_path):
    """Skips, other files and classes are those of the whole."""
    (tmp_path / "cats").mkdir()
    for n in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / "cats" / f"{n}.png")
    (tmp_path / "notes.txt").write_text("")
    training, _ = split(tmp_path, 0.5)
    assert (training.ignored, training.classes, training.skips) == (1, True, [])
    file = table(tmp_path / "a", [*PAIRS, ("", "no path")])
    training, _ = split(file, 0.5)
    assert [skip.line for skip in training.skips] == [22]
    assert not training.classes


@pytest.mark.parametrize("rows", [4, 5, 6, 7])
def test_how_many_skipped_rows_are_told(rows, tmp_path):
    """Five one by one, the others as a number."""
    lines = []
    file = table(tmp_path, [("a.png", "a"), *[("", "c")] * rows])
    read_pictures(file, None, report=lines.append)
    assert (
        lines[:5]
        == [f"{file}, line {n}, skipped: the path is empty" for n in range(3, 3 + rows)][:5]
    )
    further = {6: "1 further row skipped", 7: "2 further rows skipped"}
    assert lines[5:] == ([f"{file}: {further[rows]}"] if rows in further else [])
