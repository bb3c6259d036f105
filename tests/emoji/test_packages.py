"""Packages of npm: fetched, held against their hash, or unpacked by the user."""

import io
import json
import shutil
import stat
import sys
import tarfile
from dataclasses import replace

import pytest
from emoji_packages import archive, package_files, write_packages

from miniclip.emoji import packages as module
from miniclip.emoji.packages import (
    PackageError,
    Packages,
    archive_of,
    fetched_packages,
    files_in,
    unpacked_packages,
)
from miniclip.emoji.sources import NAMES, PACKAGES, STYLES, Package, licence_table

NOTO = STYLES[0].package


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm, which packs what lies in a folder and notes what it was asked for."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        f"shelf = pathlib.Path({str(shelf)!r})\n"
        "what, place = sys.argv[2], pathlib.Path(sys.argv[-1])\n"
        "with open(shelf / 'asked', 'a') as asked: asked.write(' '.join(sys.argv[1:-1]) + '\\n')\n"
        "name = what.replace('/', '+') + '.tgz'\n"
        "if not (shelf / name).exists():\n"
        "    sys.exit('404 Not Found\\n' + what)\n"
        "shutil.copy(shelf / name, place / 'package.tgz')\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent))
    return shelf


def publish(shelf, package, files):
    """Put a package on the shelf; returns it with the hash of what lies there."""
    data, integrity = archive(files)
    (shelf / f"{package.name.replace('/', '+')}@{package.version}.tgz").write_bytes(data)
    return Package(package.name, package.version, integrity)


def test_a_package_is_fetched_in_its_version(npm):
    package = publish(npm, NOTO, package_files(NOTO))
    archive_of(package)
    (asked,) = (npm / "asked").read_text().splitlines()
    assert asked.startswith(f"pack @iconify-json/noto@{NOTO.version} ")
    assert "--ignore-scripts" in asked


def test_all_are_fetched_once(npm, tmp_path, monkeypatch):
    published = tuple(publish(npm, package, package_files(package)) for package in PACKAGES)
    monkeypatch.setattr(module, "PACKAGES", published)
    styles = [replace(s, package=p) for s, p in zip(STYLES, published, strict=False)]
    monkeypatch.setattr(module, "STYLES", styles)
    lines = []
    packages = fetched_packages(tmp_path / "out", ["en", "zh"], lines.append)
    assert len(lines) == len(PACKAGES)
    assert lines[-1] == f"fetching @iconify-json/noto {NOTO.version}"
    assert lines[0].startswith("fetching cldr-")  # a language may be unknown
    assert packages.json(published[0], "icons.json")["prefix"] == "noto"
    assert packages.json(published[-1], "annotationsDerived/zh/annotations.json")
    assert not packages.path(published[0], "info.json").exists()  # nobody reads it
    fetched_packages(tmp_path / "out", ["en", "zh"], lines.append)
    assert len(lines) == len(PACKAGES)  # nothing is missing
    (tmp_path / "out" / published[2].name / "icons.json").unlink()
    fetched_packages(tmp_path / "out", ["en", "zh"], lines.append)
    assert lines[len(PACKAGES) :] == [f"fetching {published[2].name} {published[2].version}"]


def test_another_archive_is_refused(npm):
    publish(npm, NOTO, package_files(NOTO))
    with pytest.raises(PackageError, match=r"noto@1.2.9: got an archive of hash sha512-\S+, expec"):
        archive_of(NOTO)


def test_what_npm_says_is_handed_on(npm):
    with pytest.raises(PackageError, match=r"noto@1.2.9: npm could not fetch it \(404 Not Found @"):
        archive_of(NOTO)


def test_npm_may_hang(npm, monkeypatch):
    (npm.parent / "bin" / "npm").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr(module, "SECONDS", 0.2)
    with pytest.raises(PackageError, match=r"noto@1.2.9: npm took more than 0.2 s"):
        archive_of(NOTO)


def test_without_npm_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("npm") is None
    with pytest.raises(PackageError, match=r"npm: not found.*install Node.js.*\(--from\)"):
        archive_of(NOTO)


def test_only_files_that_are_read_come_out_of_an_archive():
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name in ("package/package.json", "package/icons.json", "package/index.js"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"{}"))
        link = tarfile.TarInfo("package/info.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        outside = tarfile.TarInfo("../../info.json")
        outside.size = 2
        tar.addfile(outside, io.BytesIO(b"{}"))
    wanted = ["package.json", "icons.json"]
    assert files_in(raw.getvalue(), NOTO, wanted) == {"package.json": b"{}", "icons.json": b"{}"}
    with pytest.raises(PackageError, match=r"^info\.json: missing in @iconify-json/noto 1\.2\.9$"):
        files_in(raw.getvalue(), NOTO, [*wanted, "info.json"])
    names = "annotations/xx/annotations.json"
    with pytest.raises(
        PackageError, match=r"^languages: got 'xx', which cldr-annotations-full has"
    ):
        files_in(raw.getvalue(), NAMES[0], [names])


# ------------------------------------------------------------------------ unpacked by the user


@pytest.mark.parametrize("inside", [".", "node_modules"])
def test_unpacked_packages(tmp_path, inside):
    write_packages(tmp_path / inside)
    packages = unpacked_packages(tmp_path)
    assert packages.json(NOTO, "icons.json")["prefix"] == "noto"


def test_a_missing_package_is_named(tmp_path):
    write_packages(tmp_path)
    shutil.rmtree(tmp_path / NAMES[1].name)
    message = r"derived-full/package.json: missing; expected cldr-annotations-derived-full 48.2.0, "
    with pytest.raises(PackageError, match=message + "unpacked as npm install"):
        unpacked_packages(tmp_path)


def test_another_version_is_named(tmp_path):
    write_packages(tmp_path)
    (tmp_path / NOTO.name / "package.json").write_text(json.dumps({"version": "1.0.0"}))
    with pytest.raises(PackageError, match=r"package.json: got version 1.0.0, expected 1.2.9"):
        unpacked_packages(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    packages = Packages(write_packages(tmp_path))
    packages.path(NOTO, "icons.json").write_text("{")
    with pytest.raises(PackageError, match=r"noto/icons.json: not JSON"):
        packages.json(NOTO, "icons.json")
    with pytest.raises(PackageError, match=r"nothing.json: missing in @iconify-json/noto"):
        packages.json(NOTO, "nothing.json")
    packages.path(NOTO, "chars.json").write_text("[]")
    with pytest.raises(PackageError, match=r"chars\.json: got list, expected a JSON object"):
        packages.json(NOTO, "chars.json")
    packages.path(NOTO, "icons.json").write_text("{}")
    packages.path(NOTO, "chars.json").unlink()
    with pytest.raises(PackageError, match=r"chars\.json: missing in @iconify-json/noto 1\.2\.9"):
        unpacked_packages(tmp_path)  # without it, other icons would be found by their names
    with pytest.raises(PackageError, match=r"^languages: got 'xx', which cldr-"):
        unpacked_packages(write_packages(tmp_path / "whole"), ["xx"])


def test_every_source_has_its_licence_and_hash():
    assert len(STYLES) == 12
    assert [s.name for s in STYLES if not s.trained] == ["emojione-v1", "openmoji"]
    assert {s.licence for s in STYLES if s.trained} == {"Apache-2.0", "MIT", "CC-BY-4.0"}
    assert all(p.integrity.startswith("sha512-") and len(p.integrity) == 95 for p in PACKAGES)
    table = licence_table()
    assert len(table.splitlines()) == 2 + len(PACKAGES)
    assert "| openmoji | [OpenMoji](https://openmoji.org) | [CC-BY-SA-4.0](https://" in table
    assert "[Unicode-3.0](https://www.unicode.org/license.txt)" in table
