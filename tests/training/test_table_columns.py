"""What a table may say beside path and caption: a label, names, keywords, columns to choose by."""

import json
from pathlib import Path

import pytest

from miniclip.training.listing import read_listing
from miniclip.training.pictures import read_pictures
from miniclip.training.table_rows import Row, labels_of
from miniclip.training.wording import Named

TEMPLATE = "a photo of a {}"


def jsonl(folder, *rows, name="x.jsonl"):
    path = folder / name
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


def row(**more):
    return {"image": "1.png", "caption": "one", **more}


def test_labels(tmp_path):
    """Texts and numbers; whatever else stands there is none, and the row is used all the same."""
    values = ["cat", 3, 1.5, None, " ", True, ["a"], {}]
    listing = read_listing(
        jsonl(tmp_path, *(row(label=v) for v in values), row(Label="x")), TEMPLATE
    )
    assert [r.label for r in listing.rows] == ["cat", "3", "1.5", *[None] * 5, "x"]
    assert listing.skips == []
    assert labels_of(listing.rows[:2]) == ("cat", "3")
    one, other = labels_of(listing.rows[2:4])
    assert (one, other) == ("1.5", f"the picture {tmp_path / '1.png'}")  # a thing of its own
    assert labels_of(listing.rows[3:8]) is None
    assert labels_of([]) is None


def test_labels_of_a_csv(tmp_path):
    (tmp_path / "x.csv").write_text("label,image,caption,label\ncat,1.png,one,dog\n,2.png,two,\n")
    listing = read_listing(tmp_path / "x.csv", TEMPLATE)
    assert [r.label for r in listing.rows] == ["cat", None]  # of two columns, the first


def test_names_and_keywords(tmp_path):
    words = {"names": {"en": "dog", "zh": "狗"}, "keywords": {"en": ["pet"]}}
    table = jsonl(
        tmp_path, row(**words), row(), row(names="dog"), row(names={"en": "a", "zh": None}),
        {"image": "2.png", **words},
    )  # fmt: skip
    listing = read_listing(table, TEMPLATE)
    dog = Named({"en": "dog", "zh": "狗"}, {"en": ("pet",)})
    assert [r.named for r in listing.rows] == [dog, None, None, Named({"en": "a"}, {}), dog]
    assert listing.rows[4].captions == ("dog", "狗")  # names are captions where there are none
    assert listing.skips == []


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_only_some_rows(tmp_path, ending):
    rows = [(n, style, split) for n, style in enumerate("abc") for split in ("train", "test")]
    if ending == "csv":
        lines = [f"{n}.png,text,{style},{split}" for n, style, split in rows]
        path = tmp_path / "x.csv"
        path.write_text("\n".join(["image,caption,Style,split", *lines]))
    else:
        path = jsonl(
            tmp_path,
            *({"image": f"{n}.png", "caption": "t", "style": s, "split": p} for n, s, p in rows),
        )
    only = {"style": ["a", "c"], "split": ["train"]}
    listing = read_listing(path, TEMPLATE, only)
    assert [r.path.name for r in listing.rows] == ["0.png", "2.png"]
    assert listing.unwanted == 4
    assert len(read_listing(path, TEMPLATE).rows) == 6
    with pytest.raises(ValueError, match=r"6 rows, none of which has the values that are asked"):
        read_listing(path, TEMPLATE, {"style": ["d"]})
    with pytest.raises(ValueError, match=r"6 rows skipped; .*: no column 'colour', which is asked"):
        read_listing(path, TEMPLATE, {"colour": ["red"]})
    data = read_pictures(path, Path, only=only, report=print)
    assert len(data) == 2


def test_broken_rows_are_told_before_unwanted_ones(tmp_path):
    path = jsonl(tmp_path, {"image": "1.png", "style": "a"}, row(style="b"))
    with pytest.raises(ValueError, match="no usable row, 1 row skipped"):
        read_listing(path, TEMPLATE, {"style": ["a"]})


def test_a_row_without_the_column_is_skipped_by_its_line(tmp_path):
    listing = read_listing(jsonl(tmp_path, row(n=1), row()), TEMPLATE, {"n": ["1"]})
    assert len(listing.rows) == 1  # numbers are compared as they are written
    assert [(s.where, s.reason) for s in listing.skips] == [
        ("line 2", "no column 'n', which is asked for")
    ]


def test_class_folders_have_no_columns(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="class folders have no column 'style'"):
        read_listing(tmp_path, TEMPLATE, {"style": ["a"]})
    assert len(read_listing(tmp_path, TEMPLATE, {}).rows) == 1


def test_an_image_folder_of_hugging_face(tmp_path):
    jsonl(tmp_path, {"file_name": "a/1.png", "text": "one"}, name="metadata.jsonl")
    assert read_listing(tmp_path, TEMPLATE).rows == [Row(tmp_path / "a/1.png", ("one",))]
    (tmp_path / "captions.csv").write_text("image,caption\n2.png,two")
    with pytest.raises(ValueError, match=r"holds captions\.csv and metadata\.jsonl, expected one"):
        read_listing(tmp_path, TEMPLATE)
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,text\n3.png,three\n")
    assert read_listing(tmp_path, TEMPLATE).rows == [Row(tmp_path / "3.png", ("three",))]
