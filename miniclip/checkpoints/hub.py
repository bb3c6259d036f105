"""From a name to files on this machine: known names, hub repositories, folders and files.

What was downloaded once is used again without asking the network. The settings of huggingface_hub
hold: HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniclip.checkpoints import downloads, integrity
from miniclip.checkpoints.hub_errors import HubError, NoSuchRepository
from miniclip.checkpoints.integrity import FileReport, WeightsReport
from miniclip.checkpoints.known import (
    Known,
    available_models,
    find_known,
    is_mistyped,
    known,
    nearest_names,
)
from miniclip.checkpoints.shipped import HASHES, shipped_path, weights_folder
from miniclip.checkpoints.shipped import NAMES as SHIPPED
from miniclip.files import as_path, cache_folder

__all__ = [
    "FileReport",
    "HubError",
    "Known",
    "Resolved",
    "WeightsReport",
    "available_models",
    "cache_folder",
    "cached_path",
    "check_weights",
    "download",
    "download_tokenizer",
    "find_known",
    "known",
    "resolve",
    "weights_table",
]

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
ACCEPTED = (
    "a name (miniclip weights list), a hub repository (org/name), a folder or a .safetensors file"
)


@dataclass(frozen=True)
class Resolved:
    """Where a checkpoint is. path: a file, or a folder with shards or one that the user named.

    known: what the table says of it, None for what is not in the table.
    """

    path: Path
    known: Known | None
    name: str


def resolve(
    what: str | os.PathLike[str], revision: str | None = None, offline: bool | None = None
) -> Resolved:
    """Find a checkpoint, downloading it if it is not in the cache.

    what is taken for, in this order:
    1. a path, if it is a Path object or is written as one (./x, ../x, ~/x, /x, x.safetensors);
    2. the name of a shipped model ("mini-vit"), or a known name, its alias or its repository, even
       even if the working directory has a folder of that name (write ./ViT-B/32 for the folder);
    3. a path, if there is something;
    4. a hub repository, "org/name".

    revision: a branch, tag or commit of the repository; None: its main branch.
    offline: True: never use the network; None: as HF_HUB_OFFLINE says.
    Raises ValueError naming what came if it is none of these, TypeError if it is no name or path,
    HubError if it cannot be downloaded.
    """
    if not isinstance(what, str | os.PathLike):
        raise TypeError(f"model: got {type(what).__name__}, expected {ACCEPTED}")
    if is_local(what):
        if revision is not None:
            raise ValueError(f"revision: got {revision!r}, but {what} is no hub repository")
        return Resolved(local_path(what), None, str(what))
    shipped = shipped_path(str(what))
    if shipped is not None:
        return Resolved(shipped, None, str(what))
    entry, repository = repository_of(str(what), ACCEPTED)
    try:
        path = downloads.fetch(repository, entry, revision, offline)
    except NoSuchRepository as error:
        raise HubError(f"{error}{did_you_mean(str(what))}") from None
    except HubError as error:
        raise HubError(f"{error}{or_a_folder(str(what))}") from None
    return Resolved(path, entry, repository if entry is None else entry.name)


def is_local(what: str | os.PathLike[str]) -> bool:
    """Whether this means a file or folder of this machine (rules 1 and 3 of `resolve`)."""
    if not isinstance(what, str):
        return True
    written_as_path = what.startswith((".", "~", "/", os.sep)) or what.endswith(
        (".safetensors", ".safetensors.index.json")
    )
    is_known = what in SHIPPED or find_known(what) is not None
    return written_as_path or (not is_known and os.path.exists(what))


def local_path(what: str | os.PathLike[str]) -> Path:
    path = as_path(what)
    if not os.path.exists(path):
        raise ValueError(f"model: there is no file or folder {str(what)!r}, expected {ACCEPTED}")
    return path


def repository_of(
    name: str, expected: str = "a name of the table, or a hub repository (org/name)"
) -> tuple[Known | None, str]:
    """What the table says of a name, and its hub repository. ValueError if it has none."""
    entry = find_known(name)
    if entry is not None:
        return entry, entry.repository
    if not REPOSITORY.fullmatch(name) or is_mistyped(name):
        raise ValueError(f"model: got {name!r}, expected {expected}{did_you_mean(name)}")
    return None, name


def or_a_folder(what: str) -> str:
    """A hint for who meant a folder by what is a known name too."""
    return f". For the folder of that name here, write ./{what}" if os.path.isdir(what) else ""


def did_you_mean(what: str) -> str:
    names = nearest_names(what)
    return f"; did you mean {' or '.join(names)}?" if names else ""


def download_tokenizer(repository: str, offline: bool | None = None) -> Path:
    """A folder with the vocab.json and merges.txt of a repository. Raises HubError."""
    return downloads.fetch_vocabulary(repository, offline)


# ------------------------------------------------------------------------ for `miniclip weights`


def weights_table() -> list[dict[str, Any]]:
    """One row for each known checkpoint: name, repository, size_mb, activation, licence, note, and
    cached: its path in the cache, None if it is not there whole. The shipped ones come first."""
    fields = ("name", "repository", "size_mb", "activation", "licence", "note")
    return [shipped_row(name) for name in SHIPPED] + [
        {field: getattr(entry, field) for field in fields} | {"cached": cached_path(entry.name)}
        for entry in known().values()
    ]


def shipped_row(name: str) -> dict[str, Any]:
    """The row of a model that needs no download."""
    folder = weights_folder() / name
    megabytes = round((folder / "model.safetensors").stat().st_size / 1e6)
    row = {"name": name, "repository": "(shipped)", "size_mb": megabytes, "licence": "MIT"}
    return row | {"activation": "quick_gelu", "note": None, "cached": folder}


def download(name: str, revision: str | None = None) -> Resolved:
    """Fetch a known checkpoint or hub repository; if it changed there, the newer one.

    Raises ValueError if the name is neither, HubError if it cannot be downloaded.
    """
    if name in SHIPPED:
        return resolve(name)  # it is part of miniclip
    entry, repository = repository_of(name)
    path = downloads.fetch(repository, entry, revision, refresh=True)
    return Resolved(path, entry, repository if entry is None else entry.name)


def cached_path(name: str, revision: str | None = None) -> Path | None:
    """Where a known checkpoint or hub repository is in the cache, None if it is not complete there.

    Raises ValueError if the name is neither.
    """
    if name in SHIPPED:
        return shipped_path(name)
    entry, repository = repository_of(name)
    return downloads.cached_weights(repository, entry, revision)


def check_weights(what: str | os.PathLike[str]) -> WeightsReport:
    """Hash every safetensors file of a checkpoint, and look for values that are not finite.

    what: as for `resolve`; a name must have been downloaded. Hashes are compared where one is
    known: from the table, or from the hub; the files of a folder must make up one checkpoint, as
    for `load`. Raises HubError if it is not in the cache.
    """
    entry, path, shipped = None, None, None
    if is_local(what):
        path = local_path(what)
    else:
        entry = None if what in SHIPPED else repository_of(str(what), ACCEPTED)[0]
        path, shipped = cached_path(str(what)), HASHES.get(str(what))
    if path is None:
        raise HubError(f"{what}: not in the cache; first: miniclip weights download {what}")
    files = [path]
    if path.is_dir() or path.name.endswith(downloads.INDEX):
        files = sorted((path if path.is_dir() else path.parent).glob("*.safetensors"))
    hashes = [shipped or downloads.expected_hash(file, entry, None) for file in files]
    checked = tuple(map(integrity.check_file, files, hashes))
    # what is wrong with a file by itself, its own report says
    readable = all(file.error is None for file in checked)
    return WeightsReport(str(what), checked, integrity.error_of_whole(path) if readable else None)
