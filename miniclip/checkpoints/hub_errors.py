"""What can go wrong at the hub, each said in one line that names the repository and a way out."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from miniclip.checkpoints.known import Known

T = TypeVar("T")

BY_HAND = "or fetch the files by hand and give their folder"
MIRROR = "set HF_ENDPOINT to a mirror"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")

# Names of exceptions in requests, httpx and urllib3: huggingface_hub changed its client twice.
BROKEN = {"ReadError", "RemoteProtocolError", "ProtocolError", "ChunkedEncodingError"}
UNREACHABLE = {"TransportError", "ConnectionError", "Timeout"}


class HubError(RuntimeError):
    """A checkpoint could not be had. The message names the repository and what can be done."""


class NoSuchRepository(HubError):
    """The hub knows no repository of this name, or shows it to its owners only."""


class BrokenConnection(HubError):
    """A connection ended before all of a file had come: worth another try."""


def asking(request: Callable[[], T], repository: str, revision: str | None = None) -> T:
    """Do what request does, and turn whatever goes wrong in it into one HubError."""
    try:
        return request()
    except Exception as error:  # which kinds there are depends on the hub library's version
        text = message_for(error, repository, revision)
        if is_missing(error):
            raise NoSuchRepository(text) from None
        raise (BrokenConnection if is_broken(error) else HubError)(text) from None


def is_broken(error: BaseException) -> bool:
    """Whether a connection ended before all of a file had come."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & BROKEN) or str(error).startswith("Consistency check failed")


def is_missing(error: BaseException) -> bool:
    from huggingface_hub import errors

    gated = isinstance(error, errors.GatedRepoError)  # which is a kind of the other
    return isinstance(error, errors.RepositoryNotFoundError) and not gated


def message_for(error: BaseException, repository: str, revision: str | None = None) -> str:
    """What went wrong, and what can be done about it."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return message_for(error.__cause__, repository, revision)  # not cached, and not to be had
    where, endpoint = at_revision(repository, revision), constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{where}: its owner asks for consent first: accept the terms on its page of the hub, "
            "then log in (hf auth login) or set HF_TOKEN"
        )
    if is_missing(error):
        return f"{where}: no such repository at {endpoint}, or a private one (then set HF_TOKEN)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: the repository has no such branch, tag or commit"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return not_cached(repository, revision)
    return disk_message(error, where) or network_message(error, where, endpoint)


def disk_message(error: BaseException, where: str) -> str | None:
    """The same for a full or locked disk, None if it is neither."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: no space left in {hub_cache()}; free some, or set HF_HOME to another disk"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}: cannot write to {hub_cache()}; set HF_HOME to a folder of yours"
    return None


def network_message(error: BaseException, where: str, endpoint: str) -> str:
    """The same for answers of a server, and for none."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{where}: {endpoint} answered {status}; try later, {MIRROR}, {BY_HAND}"
    if is_broken(error):
        return f"{where}: the connection broke during the download; start it again"
    if {kind.__name__ for kind in type(error).__mro__} & UNREACHABLE:
        return f"{where}: {endpoint} cannot be reached; check the network, {MIRROR}, {BY_HAND}"
    said = re.split(r"[.\n]", str(error) or type(error).__name__)[0]
    return f"{where}: the download failed ({said}); start it again, {BY_HAND}"


def not_cached(name: str, revision: str | None = None) -> str:
    """For a checkpoint that would have to be downloaded."""
    return (
        f"{at_revision(name, revision)}: not (whole) in the cache {hub_cache()}, and no network is "
        f"allowed (HF_HUB_OFFLINE); with it, once: miniclip weights download {name}; {BY_HAND}"
    )


def no_weights(repository: str, listed: Collection[str], expected: str, entry: Known | None) -> str:
    """For a repository without the file, or without any safetensors."""
    found = sorted(name for name in listed if name.endswith((".safetensors", *PICKLES)))
    note = f". {entry.note}" if entry is not None and entry.note else ""
    return (
        f"{repository}: holds {', '.join(found[:5]) or 'no weights'}, expected {expected} "
        f"(pickles are never opened; docs/weights.md says how to convert one){note}"
    )


def at_revision(name: str, revision: str | None) -> str:
    return name if revision is None else f"{name}@{revision}"


def hub_cache() -> Path:
    """huggingface_hub's cache: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
