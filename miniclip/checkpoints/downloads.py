"""Repositories of the hub, into its cache: complete, of one commit, verified, and then remembered.

Downloads go through huggingface_hub, which resumes broken connections, draws the progress bar and
writes no half file under its name. Only safetensors, configurations and vocabularies are fetched.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection
from pathlib import Path

from miniclip.checkpoints import integrity
from miniclip.checkpoints.hub_errors import (
    BrokenConnection,
    HubError,
    asking,
    hub_cache,
    no_weights,
    not_cached,
)
from miniclip.checkpoints.known import Known

# The weights of a repository are the first of these that it lists. Where it has open_clip's file,
# its `model.safetensors` may be timm's image tower alone, under other keys.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
INDEX = ".safetensors.index.json"
VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt")
# The config.json beside open_clip's file is timm's or transformers', so it stays where it is.
BESIDE_OPEN_CLIP = ("open_clip_config.json", *VOCABULARY)
BESIDE_HF = ("config.json", "preprocessor_config.json", "processor_config.json", *VOCABULARY)

MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(
    repository: str,
    entry: Known | None,
    revision: str | None = None,
    offline: bool | None = None,
    refresh: bool = False,
) -> Path:
    """The weights of a repository, from the cache or else from the hub: a file, or a folder of
    shards.

    entry: what the table knows of it. offline: None: as HF_HUB_OFFLINE says. refresh: ask the hub
    even if the cache has them. Raises HubError.
    """
    snapshot = cached_snapshot(repository, revision)
    if snapshot is not None and not refresh:
        path = verified_before(snapshot, entry, revision)
        if path is not None:
            return path
    if is_offline() if offline is None else offline:
        if snapshot is None or whole(snapshot, entry) is None:
            raise HubError(not_cached(repository if entry is None else entry.name, revision))
        return verify(snapshot, repository, entry, revision)
    try:
        snapshot = download_snapshot(repository, entry, revision)
    except HubError:
        if refresh or snapshot is None or whole(snapshot, entry) is None:
            raise  # otherwise another program has fetched them, and they will do
    return verify(snapshot, repository, entry, revision)


def fetch_vocabulary(repository: str, offline: bool | None = None) -> Path:
    """A folder with the vocab.json and merges.txt of a repository. Raises HubError."""
    names = ["vocab.json", "merges.txt"]
    folder = cached_snapshot(repository, None)
    if folder is not None and all((folder / name).is_file() for name in names):
        return folder
    if is_offline() if offline is None else offline:
        raise HubError(not_cached(repository))
    folder = download_files(repository, names, None)
    for name in names:
        if not (folder / name).is_file():
            raise HubError(f"{repository}: holds no {name}")
    return folder


# ------------------------------------------------------------------------ downloading


def download_snapshot(repository: str, entry: Known | None, revision: str | None) -> Path:
    """Fetch the weights of a revision and what belongs to them; returns the folder in the cache."""
    listed = list_files(repository, revision)
    weights = choose_weights(listed, entry)
    if weights is None:
        expected = WEIGHTS[0] if entry is None or entry.file is None else entry.file
        raise HubError(no_weights(repository, listed, expected, entry))
    beside = BESIDE_OPEN_CLIP if weights[0].startswith("open_clip") else BESIDE_HF
    return download_files(
        repository, [*weights, *(name for name in beside if name in listed)], revision
    )


def list_files(repository: str, revision: str | None) -> list[str]:
    from huggingface_hub import HfApi

    def request() -> list[str]:
        files = HfApi().model_info(repository, revision=revision or MAIN).siblings
        return [file.rfilename for file in files or []]

    return asking(request, repository, revision)


def download_files(repository: str, names: list[str], revision: str | None) -> Path:
    """Fetch files by their names, all of one commit; returns the folder in the cache."""
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(name) for name in names]

    def request() -> Path:
        revised = revision or MAIN
        return Path(snapshot_download(repository, revision=revised, allow_patterns=patterns))

    try:
        return asking(request, repository, revision)
    except BrokenConnection:  # the client resumes most of them, but not all
        return asking(request, repository, revision)


def choose_weights(listed: Collection[str], entry: Known | None) -> list[str] | None:
    """Which of the files of a repository are the weights; with shards, the index and its shards."""
    if entry is not None and entry.file is not None:
        return [entry.file] if entry.file in listed else None
    first = next((name for name in WEIGHTS if name in listed), None)
    if first is None:
        single = [n for n in listed if n.endswith(".safetensors") and "/" not in n]
        return single if len(single) == 1 else None
    if not first.endswith(INDEX):
        return [first]
    stem = re.escape(first.removesuffix(INDEX))
    shards = [n for n in listed if re.fullmatch(stem + r"-\d+-of-\d+\.safetensors", n)]
    return [first, *sorted(shards)]


# ------------------------------------------------------------------------ the cache


def is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached_snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder of a revision in the cache, if there is one.

    It is REPOSITORY/snapshots/COMMIT, and REPOSITORY/refs/BRANCH says which commit a branch is.
    Source: the documentation of huggingface_hub, "Understand caching".
    """
    root = hub_cache() / f"models--{repository.replace('/', '--')}"
    commit = revision or MAIN
    try:
        if not COMMIT.fullmatch(commit):
            commit = (root / "refs" / commit).read_text(encoding="utf-8").strip()
        folder = root / "snapshots" / commit
        return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None
    except (OSError, ValueError):
        return None


def cached_weights(repository: str, entry: Known | None, revision: str | None) -> Path | None:
    """The weights in the cache, if they are there whole: a file, or a folder of shards."""
    snapshot = cached_snapshot(repository, revision)
    names = None if snapshot is None else whole(snapshot, entry)
    return None if snapshot is None or names is None else weights_path(snapshot, names[0])


def whole(snapshot: Path, entry: Known | None) -> list[str] | None:
    """The names of the weights in a snapshot (with shards the index first), None if some lack."""
    names = choose_weights({path.name for path in snapshot.iterdir() if path.is_file()}, entry)
    if names is None or (names[0].endswith(INDEX) and not has_all_shards(snapshot / names[0])):
        return None
    return names


def has_all_shards(index: Path) -> bool:
    # an index that makes no sense is for the reader to complain about
    shards = re.findall(rb'"([^"/\\]+\.safetensors)"', index.read_bytes())
    return all((index.parent / os.fsdecode(shard)).is_file() for shard in set(shards))


def weights_path(snapshot: Path, first: str) -> Path:
    return snapshot if first.endswith(INDEX) else snapshot / first


# ------------------------------------------------------------------------ verifying


def expected_hash(path: Path, entry: Known | None, revision: str | None) -> str | None:
    """The sha256 that a file must have: the table's, else the hub's own; None if neither knows.

    The table's hash is that of the main branch; whoever asks for another revision means another.
    """
    if entry is not None and path.name == entry.file and entry.sha256 and revision in (None, MAIN):
        return entry.sha256
    return integrity.hash_by_blob(path)


def verified_before(snapshot: Path, entry: Known | None, revision: str | None) -> Path | None:
    """The weights of a snapshot that `verify` has passed and that did not change since."""
    note = integrity.remembered(integrity.mark_of(snapshot))
    if note is None:
        return None
    weights, hashes = note
    if entry is not None and entry.file not in (None, weights):
        return None
    for name, digest in hashes.items():
        if expected_hash(snapshot / name, entry, revision) not in (None, digest):
            return None  # the table has learnt a hash since
    return weights_path(snapshot, weights)


def verify(snapshot: Path, repository: str, entry: Known | None, revision: str | None) -> Path:
    """Hash the weights of a snapshot where a hash is known, and remember that they are good.

    Raises HubError; a file with another hash is removed, so that no later load takes it.
    """
    weights = whole(snapshot, entry)
    if weights is None:
        raise HubError(f"{repository}: files are missing in {snapshot}; download it again")
    hashes: dict[str, str | None] = {}
    for name in weights:
        expected = expected_hash(snapshot / name, entry, revision)
        hashes[name] = None if expected is None else integrity.sha256_of(snapshot / name)
        if hashes[name] != expected:
            by_hub = integrity.hash_by_blob(snapshot / name)
            integrity.forget(snapshot, name, damaged=hashes[name] != by_hub)
            raise HubError(
                f"{repository}: {name} has sha256 {hashes[name]}, expected {expected}: damaged, or "
                "another file than the known one. It was removed from the cache; download it "
                "again, or give the path of a file that you trust"
            )
    integrity.remember(integrity.mark_of(snapshot), weights[0], hashes)
    return weights_path(snapshot, weights[0])
