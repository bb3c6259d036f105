"""Tar files of pictures with captions, as img2dataset and webdataset write them: read in place.

Members that share a name up to its ending are a sample: `000000012.jpg` with `000000012.txt` (its
caption) or `000000012.json` (whose `caption` counts, and whose other fields are the row's columns).
Such a picture is called `shards/00000.tar/000000012.jpg`, as if the file were a folder.

Nothing is extracted, unpickled or run: only the bytes of pictures, .txt and .json are read, where
they lie. Links and all other members are counted as ignored.

Source: the files as github.com/rom1504/img2dataset describes them.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from miniclip.inputs.pictures import ENDINGS, is_hidden

ENDING = ".tar"
LONGEST_TEXT = 1 << 20  # bytes of a .txt or .json; a caption is no longer


@dataclass
class Sample:
    """What a shard has of one name: its picture's member, and its columns."""

    picture: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""  # why it cannot be used


@dataclass
class Shard:
    """members: name of a picture -> where its bytes begin, and how many there are. samples: by
    name. ignored: members that are neither pictures nor texts, and those whose names lead out of
    the file. broken: why the file ends early."""

    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)
    ignored: int = 0
    broken: str = ""


def read_shard(file: Path) -> Shard:
    """What is in a tar file. ValueError naming one that is none, or is compressed."""
    shard, size = Shard(), os.stat(file).st_size
    try:
        with tarfile.open(file, "r:") as tar:  # no compression: members are read where they lie
            for member in members_of(tar, shard):
                take(member, tar, size, shard)
            if not shard.broken and what_follows(file, tar.offset):
                shard.broken = "the file ends early, or is damaged from here on"
    except tarfile.ReadError as error:
        raise ValueError(f"{file}: no tar file, or a compressed one: expected plain tar") from error
    _places[file] = (state_of(file), shard.members)
    return shard


# Of every shard that was read, where its pictures are; captions are not kept here.
_places: dict[Path, tuple[tuple[int, int], dict[str, tuple[int, int]]]] = {}


def state_of(file: Path) -> tuple[int, int]:
    """Another one as soon as the file is written anew."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def members_in(file: Path) -> dict[str, tuple[int, int]]:
    """Where the pictures of a shard are; it is read again where it has changed."""
    if file not in _places or _places[file][0] != state_of(file):
        read_shard(file)
    return _places[file][1]


def members_of(tar: tarfile.TarFile, shard: Shard) -> Any:
    """The members, up to where a file that was cut off ends."""
    while True:
        try:
            member = tar.next()
        except tarfile.ReadError as error:
            if not shard.samples:
                raise
            shard.broken = f"the file ends early, or is damaged from here on ({error})"
            return
        if member is None:
            return
        yield member


def what_follows(file: Path, end: int) -> bytes:
    """What stands where tarfile found no further member: zeros or nothing, if all is well."""
    with open(file, "rb") as raw:
        raw.seek(end)
        return raw.read(tarfile.BLOCKSIZE).strip(b"\0")


def take(member: tarfile.TarInfo, tar: tarfile.TarFile, size: int, shard: Shard) -> None:
    """Note a member: a picture by its place, a text by its content."""
    name = PurePosixPath(member.name)
    kind = name.suffix.lower()
    picture = kind in ENDINGS and not is_hidden(Path(name))
    if not member.isreg() or leads_out(member.name) or not (picture or kind in (".txt", ".json")):
        shard.ignored += not member.isdir()
        return
    sample = shard.samples.setdefault(str(name.with_suffix("")), Sample())
    if member.offset_data + member.size > size:
        sample.wrong = "cut off: the file ends before it"
    elif picture:
        sample.picture = sample.picture or str(name)  # of several, the first
        shard.members.setdefault(str(name), (member.offset_data, member.size))
    elif member.size > LONGEST_TEXT:
        sample.wrong = f"a text of {member.size:,} bytes, more than {LONGEST_TEXT:,}"
    else:
        content = tar.extractfile(member)
        assert content is not None
        read_text(content.read(), kind, sample)


def leads_out(name: str) -> bool:
    """Whether a member's name, as a path beside the shard, could mean a file outside of it."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in name


def read_text(data: bytes, kind: str, sample: Sample) -> None:
    """The columns that a .txt or .json says; of a caption in both, the .txt's counts."""
    try:
        text = data.decode("utf-8-sig")
        if kind == ".txt":
            sample.values["caption"] = text.strip()
            return
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        sample.wrong = f"its {kind} cannot be read ({error})"
        return
    if not isinstance(content, dict):
        sample.wrong = f"its .json is {type(content).__name__}, expected an object"
        return
    columns = {key.strip().lower(): value for key, value in content.items()}
    sample.values = columns | sample.values


# ------------------------------------------------------------------------ opening a member


def shard_of(path: Path) -> Path | None:
    """The tar file that a picture lies in; None for a file of its own."""
    for parent in path.parents:
        if parent.suffix.lower() == ENDING and parent.is_file():
            return parent
    return None


def source_of(path: Path) -> Path | io.BytesIO:
    """What to open: the path itself, or a picture's bytes in its shard.

    FileNotFoundError for a member that the shard does not have.
    """
    shard = shard_of(path)
    if shard is None:
        return path
    place = members_in(shard).get(path.relative_to(shard).as_posix())
    if place is None:
        raise FileNotFoundError(2, "No such file in the tar", str(path))
    start, length = place
    with open(shard, "rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(length))
