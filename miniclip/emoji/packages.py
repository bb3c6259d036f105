"""Packages of npm as files on this machine: fetched by npm, or where the user has unpacked them.

A package is fetched as the archive that npm publishes, held against the hash in sources.toml, and
only the files that are read here are taken out of it. Nothing of a package is ever run.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from miniclip.emoji.sources import GROUPS_OF, PACKAGES, STYLES, Package
from miniclip.files import write_bytes

ICON_FILES = ("package.json", "icons.json")
NAME_FILES = ("package.json", "LICENSE")
SECONDS = 600  # that npm may take for one package
Report = Callable[[str], Any]


class PackageError(ValueError):
    """A package that is not there, is another one, or cannot be read."""


class Packages:
    """The packages that lie below a folder as npm installs them: FOLDER/@iconify-json/noto/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, package: Package, file: str) -> Path:
        return self.folder / package.name / file

    def json(self, package: Package, file: str) -> dict[str, Any]:
        """A JSON file of a package. PackageError if it is missing, broken or no object."""
        path = self.path(package, file)
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise PackageError(f"{path}: missing in {package.name}") from error
        except (ValueError, RecursionError) as error:
            raise PackageError(f"{path}: not JSON ({error})") from error
        if not isinstance(content, dict):
            raise PackageError(f"{path}: got {type(content).__name__}, expected a JSON object")
        return content

    def part(self, package: Package, file: str, *keys: str) -> dict[str, Any]:
        """An object inside a JSON file. PackageError naming the key that is missing."""
        content = self.json(package, file)
        for key in keys:
            inner = content.get(key)
            if not isinstance(inner, dict):
                raise PackageError(f"{self.path(package, file)}: has no object {key!r}")
            content = inner
        return content

    def has(self, package: Package, files: Iterable[str]) -> bool:
        """Whether a package is there in its version, with these files."""
        if not self.path(package, "package.json").is_file():
            return False
        version = self.json(package, "package.json").get("version")
        files_there = all(self.path(package, file).is_file() for file in files)
        return version == package.version and files_there


def wanted(package: Package, languages: Iterable[str]) -> list[str]:
    """The files that are read of a package."""
    style = next((style for style in STYLES if style.package == package), None)
    if style is not None:
        lists = ["chars.json"] if style.lists_characters else []
        return [*ICON_FILES, *lists, *(["metadata.json"] if style.name == GROUPS_OF else [])]
    return [*NAME_FILES, *(names_file(package, language) for language in languages)]


def names_file(package: Package, language: str) -> str:
    """Where a package keeps the names in a language."""
    folder = "annotationsDerived" if "derived" in package.name else "annotations"
    return f"{folder}/{language}/annotations.json"


# ------------------------------------------------------------------------ where they come from


def unpacked_packages(folder: Path, languages: Iterable[str] = ()) -> Packages:
    """Those that the user has unpacked into a folder. PackageError names the first that is not.

    Their versions are compared, and the files that are read must be there; hashes are npm's, of
    whole archives, and cannot be.
    """
    roots = (folder, folder / "node_modules")
    root = next((r for r in roots if (r / PACKAGES[0].name).is_dir()), folder)
    packages = Packages(root)
    for package in PACKAGES:
        place = packages.path(package, "package.json")
        if not place.is_file():
            raise PackageError(
                f"{place}: missing; expected {package.name} {package.version}, unpacked as "
                f"npm install {package.name}@{package.version} does it"
            )
        got = packages.json(package, "package.json").get("version")
        if got != package.version:
            raise PackageError(f"{place}: got version {got}, expected {package.version}")
        for file in wanted(package, languages):
            if not packages.path(package, file).is_file():
                raise missing_file(packages.path(package, file), package)
    return packages


def fetched_packages(folder: Path, languages: Iterable[str], report: Report) -> Packages:
    """All packages, from npm's registry into a folder; those that are there already stay."""
    packages, languages = Packages(folder), list(languages)
    for package in reversed(PACKAGES):  # the names first: a language may be unknown
        files = wanted(package, languages)
        if not packages.has(package, files):
            report(f"fetching {package.name} {package.version}")
            contents = files_in(archive_of(package), package, files)
            for path in contents:
                packages.path(package, path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes({packages.path(package, p): data for p, data in contents.items()})
    return packages


def archive_of(package: Package) -> bytes:
    """The package's archive, by `npm pack`. PackageError where npm fails, or the hash differs."""
    npm = shutil.which("npm")
    if npm is None:
        raise PackageError(
            f"npm: not found, expected it to fetch {package.name} {package.version}: install "
            "Node.js, or unpack the packages into a folder elsewhere and name it (--from)"
        )
    with tempfile.TemporaryDirectory() as place:
        what = f"{package.name}@{package.version}"
        command = [npm, "pack", what, "--silent", "--ignore-scripts", "--pack-destination", place]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise PackageError(f"{what}: npm took more than {SECONDS} s to fetch it") from error
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = " ".join((done.stderr or done.stdout).split()) or "and said nothing"
            raise PackageError(f"{what}: npm could not fetch it ({said[:300]})")
        data = archives[0].read_bytes()
    got = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if got != package.integrity:
        raise PackageError(f"{what}: got an archive of hash {got}, expected {package.integrity}")
    return data


def files_in(archive: bytes, package: Package, files: Iterable[str]) -> dict[str, bytes]:
    """These files of an archive, by name. PackageError for one that is missing and needed."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix("package/")
            if member.isfile() and name in files:
                content = tar.extractfile(member)
                assert content is not None
                found[name] = content.read()
    missing = [file for file in files if file not in found]
    if missing:
        raise missing_file(Path(missing[0]), package)
    return found


def missing_file(path: Path, package: Package) -> PackageError:
    """What to say of a file that a package does not have: names may miss a language."""
    if path.name == "annotations.json":
        return PackageError(
            f"languages: got {path.parent.name!r}, which {package.name} has no names in"
        )
    return PackageError(f"{path}: missing in {package.name} {package.version}")
