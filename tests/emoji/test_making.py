"""The set as a whole: the same bytes every time, gone on with, or one error and no half files."""

import hashlib
import json

import pytest
from emoji_packages import CAT, HEART, write_packages
from full_disk import Disk
from PIL import Image

from miniclip.emoji import making
from miniclip.emoji.making import EmojiSet, make_emoji
from miniclip.emoji.packages import PackageError
from miniclip.emoji.sources import STYLES


@pytest.fixture
def packages(tmp_path):
    return write_packages(tmp_path / "packages")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(folder):
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_set(packages, tmp_path):
    out = tmp_path / "data"
    made = make_emoji(out, packages, report=print)
    styles = {style.name: 4 for style in STYLES} | {"fluent-emoji-flat": 3}
    assert made == EmojiSet(out, 47, 47, 4, 1, styles)
    assert made.as_dict()["folder"] == str(out)
    rows = rows_of(out)
    assert len(rows) == 47
    assert rows[0] == {
        "file_name": "pictures/noto/2764.png",
        "label": "red heart",
        "text": "red heart",
        "character": "\u2764",
        "code_point": HEART.removesuffix("-fe0f"),
        "style": "noto",
        "number": 0,
        "split": "held-out",
        "group": "Symbols",
        "names": {"en": "red heart", "zh": "红心"},
        "keywords": {"en": ["love"], "zh": []},
    }
    assert [row["split"] for row in rows[:4]] == ["held-out", "train", "train", "train"]
    for row in rows:
        picture = Image.open(out / row["file_name"])
        assert (picture.mode, max(picture.size)) == ("RGBA", 128)
    licences = (out / "licences.md").read_text()
    assert all(f"| {style.name} |" in licences for style in STYLES)
    assert (out / "unicode-licence.txt").read_bytes() == b"the licence of the names"


def test_it_is_the_same_every_time_and_goes_on_where_it_stopped(packages, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make_emoji(first, packages)

    class Stopped(Exception):
        pass

    def stop(icons):
        for n, icon in enumerate(icons):
            if n == 20:
                raise Stopped
            yield icon

    with pytest.raises(Stopped):
        make_emoji(second, packages, bar=stop)
    assert not (second / "metadata.jsonl").exists()
    assert make_emoji(second, packages).drawn == 27
    assert contents(first) == contents(second)
    assert make_emoji(second, packages).drawn == 0
    assert contents(first) == contents(second)


def test_languages(packages, tmp_path):
    make_emoji(tmp_path / "data", packages, ["en"])
    assert rows_of(tmp_path / "data")[1]["names"] == {"en": "cat"}
    make_emoji(tmp_path / "data", packages, ["zh"])  # English is always among them
    assert list(rows_of(tmp_path / "data")[1]["names"]) == ["en", "zh"]


def test_pictures_of_other_versions_are_not_mixed(packages, tmp_path):
    out = tmp_path / "data"
    make_emoji(out, packages)
    note = out / "made.json"
    content = json.loads(note.read_text())
    content["packages"]["@iconify-json/noto"] = "1.0.0"
    note.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="data: holds pictures made from other versions"):
        make_emoji(out, packages)
    note.write_text("{")
    with pytest.raises(ValueError, match=r"made.json: not JSON .*begin anew"):
        make_emoji(out, packages)
    note.unlink()
    with pytest.raises(ValueError, match=r"data: holds pictures but no made\.json"):
        make_emoji(out, packages)


@pytest.mark.parametrize("name", ["metadata.jsonl", "licences.md", "unicode-licence.txt"])
def test_a_persons_own_files_are_not_overwritten(packages, tmp_path, name):
    out = tmp_path / "mine"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(
        ValueError, match=rf"mine: holds {name} but no made\.json, expected a folder"
    ):
        make_emoji(out, packages)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_with_a_missing_file_nothing_is_begun(packages, tmp_path):
    (packages / "cldr-annotations-full" / "LICENSE").unlink()
    with pytest.raises(PackageError, match="LICENSE: missing in cldr-annotations-full"):
        make_emoji(tmp_path / "data", packages)
    assert not (tmp_path / "data").exists()


def test_while_pictures_are_missing_there_is_no_table(packages, tmp_path):
    out = tmp_path / "data"
    make_emoji(out, packages)
    (out / "pictures/noto/2764.png").unlink()

    def stop(icons):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_emoji(out, packages, bar=stop)
    assert not (out / "metadata.jsonl").exists()
    assert make_emoji(out, packages).drawn == 1


def test_a_broken_svg_ends_it_with_one_error(tmp_path):
    def change(package, files):
        if package.name == "@iconify-json/twemoji":
            content = json.loads(files["icons.json"])
            content["icons"]["cat"]["body"] = "<path"
            files["icons.json"] = json.dumps(content).encode()

    out = tmp_path / "data"
    with pytest.raises(PackageError, match=r"^twemoji: cat: cannot be drawn"):
        make_emoji(out, write_packages(tmp_path / "packages", change))
    assert not (out / "metadata.jsonl").exists()
    assert not (out / f"pictures/twemoji/{CAT}.png").exists()
    assert not list(out.rglob("*.tmp"))


def test_a_full_disk_is_told_with_the_file(packages, tmp_path, monkeypatch):
    out = tmp_path / "data"
    disk = Disk(out, lambda number: number == 9)
    monkeypatch.setattr("builtins.open", disk)
    with pytest.raises(OSError, match="No space left on device") as error:
        make_emoji(out, packages)
    assert str(out / "pictures") in error.value.filename
    monkeypatch.undo()
    assert not list(out.rglob("*.tmp"))
    assert make_emoji(out, packages).pictures == 47


def test_the_last_set_of_icons_is_kept_in_memory(packages, tmp_path):
    making.icons_of.cache_clear()
    make_emoji(tmp_path / "data", packages)
    assert making.icons_of.cache_info().misses == len(STYLES)
