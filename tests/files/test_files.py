"""Files are whole or not there; the cache is where the environment says; tables line up."""

import errno
import os
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from miniclip.files import as_path, cache_folder, made_folder, write_bytes, write_files, writer
from miniclip.tables import html_table, markdown_table, text_table


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_files_are_written(tmp_path):
    write_files({tmp_path / "a": writer(b"one"), tmp_path / "b": writer(b"")})
    write_bytes({tmp_path / "c": b"three"})
    assert [(tmp_path / n).read_bytes() for n in "abc"] == [b"one", b"", b"three"]
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_none_is_written_if_one_fails(tmp_path, error):
    """Neither the first, which was complete, nor the second; what stood there stays."""
    (tmp_path / "a").write_bytes(b"old")
    partly = []

    def fail(file):
        file.write(b"half")
        file.flush()
        partly.extend(names(tmp_path))
        raise error

    with pytest.raises(type(error)):
        write_files({tmp_path / "a": writer(b"new"), tmp_path / "b": fail})
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    temporary = [name for name in partly if name != "a"]
    assert [name.split(".")[1] for name in temporary] == ["a", "b"]
    assert all(name.startswith(".") and name.endswith(".tmp") for name in temporary)


def test_no_file_has_its_name_before_all_are_complete(tmp_path):
    seen = []
    write_files({
        tmp_path / "a": writer(b"1"),
        tmp_path / "b": lambda file: seen.append((tmp_path / "a").exists()),
    })  # fmt: skip
    assert seen == [False]


def test_a_file_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """In this order, or a crash leaves a name without content."""
    done, fsync, replace = [], os.fsync, os.replace

    def sync(handle):
        done.append(os.fstat(handle).st_size)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(b.name), replace(a, b)))
    write_bytes({tmp_path / "a": b"one", tmp_path / "b": b"second"})
    assert done == [3, 6, "a", "b"]


def test_two_writers_do_not_share_a_temporary_name(tmp_path):
    seen = set()
    for _ in range(20):
        write_files({tmp_path / "a": lambda file: seen.add(file.name)})
    assert len(seen) == 20


def test_a_file_has_the_usual_permissions(tmp_path):
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    write_bytes({tmp_path / "ours": b""})
    assert (tmp_path / "ours").stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_a_folder_is_made_and_goes_again_if_the_work_fails(tmp_path, monkeypatch, error):
    """Only those that were made, and only while they are empty; named from anywhere."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "a" / "b" / "c", Path("d") / "e", Path("f")):
        with nullcontext() if error is None else pytest.raises(type(error)), made_folder(folder):
            assert folder.is_dir()
            if error is not None:
                raise error
        assert folder.is_dir() == (error is None)
    assert names(tmp_path) == ([] if error is not None else ["a", "d", "f"])


def test_a_folder_that_was_there_or_is_not_empty_stays(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(ValueError), made_folder(there):
        raise ValueError
    with suppress(KeyError), made_folder(there / "a" / "b"):
        (there / "a" / "kept").write_bytes(b"")
        raise KeyError
    assert names(there) == ["a"]
    assert names(there / "a") == ["kept"]


@pytest.mark.parametrize("inside", ["", "b", "b/c"])
def test_what_is_in_a_folders_way_is_named(tmp_path, inside):
    (tmp_path / "a").write_bytes(b"")
    message = f"path: {tmp_path / 'a'} is there and no folder, expected a folder"
    with pytest.raises(NotADirectoryError) as error, made_folder(tmp_path / "a" / inside):
        pass
    assert str(error.value) == message


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MINICLIP_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == tmp_path / ".cache" / "miniclip"
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # set to nothing means not set
    assert cache_folder() == tmp_path / ".cache" / "miniclip"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert cache_folder() == tmp_path / "caches" / "miniclip"
    monkeypatch.setenv("MINICLIP_CACHE_DIR", "")
    assert cache_folder() == tmp_path / "caches" / "miniclip"
    monkeypatch.setenv("MINICLIP_CACHE_DIR", "~/mine")
    assert cache_folder() == tmp_path / "mine"


def test_a_tilde_is_the_home_of_who_has_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/a/b") == tmp_path / "a" / "b"
    assert as_path(Path("~")) == tmp_path
    assert as_path("./~") == Path("./~")
    assert as_path("a/~") == Path("a/~")
    assert as_path("~nobody's.png") == Path("~nobody's.png")
    monkeypatch.setattr(os.path, "expanduser", os.fspath)  # as it is without HOME and passwd
    with pytest.raises(FileNotFoundError, match="path: got '~/a', but this user has no home"):
        as_path("~/a")
    monkeypatch.delenv("MINICLIP_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(FileNotFoundError):
        cache_folder()
    assert as_path("a/b") == Path("a/b")


HEADINGS = ["name", "share"]
LINES = [["a <b>", "5 %"], ["long name", "100 %"], ["", ""]]


def test_a_text_table_lines_up():
    assert text_table(HEADINGS, LINES).split("\n") == [
        "name       share",
        "a <b>        5 %",
        "long name  100 %",
        "",
    ]


def test_an_html_table_escapes_what_it_shows():
    assert html_table(["<name>"], [["a & b"], ["<script>"]], ["", "color: red"]) == (
        "<table><thead><tr><th>&lt;name&gt;</th></tr></thead><tbody>"
        '<tr style=""><td>a &amp; b</td></tr>'
        '<tr style="color: red"><td>&lt;script&gt;</td></tr></tbody></table>'
    )


def test_an_html_table_has_a_style_for_each_line():
    with pytest.raises(ValueError):
        html_table(HEADINGS, LINES, [""])


def test_a_markdown_table():
    assert markdown_table([*HEADINGS, "n"], [["a", "b", "c"]]) == (
        "| name | share | n |\n| :-- | --: | --: |\n| a | b | c |"
    )
