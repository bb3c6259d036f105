"""Which files of a repository are taken, what is remembered of them, and every message, by hand."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import errors

from miniclip.checkpoints import downloads, hub, hub_errors, integrity, known
from miniclip.checkpoints.hub_errors import HubError, message_for

ENTRY = replace(hub.known()["ViT-B/32"], file="w.safetensors", sha256="5" * 64, note=None)
UNNAMED = replace(ENTRY, file=None, sha256=None)
COMMIT = "ab" * 20


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The client's cache, and a way to put a repository there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def put(cache, files, repository="org/name", commit=COMMIT, branch="main"):
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(commit + "\n")
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def nothing_is_fetched(*arguments):
    raise AssertionError(f"asked the network: {arguments}")


# ---------------------------------------------------------------- which files

FIRST, SECOND, THIRD, FOURTH, FIFTH = downloads.WEIGHTS


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        ([FIFTH, FOURTH, THIRD, SECOND, FIRST], [FIRST]),
        ([FIFTH, FOURTH, THIRD, SECOND], [SECOND]),
        ([FIFTH, FOURTH, THIRD], [THIRD]),
        ([FIFTH, FOURTH], [FOURTH]),
        (
            [FIFTH, "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors",
             "modelX-00001-of-00002.safetensors", "model-a-of-b.safetensors"],
            [FIFTH, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["some.safetensors", "x.bin", "deeper/other.safetensors"], ["some.safetensors"]),
        (["a.safetensors", "b.safetensors"], None),
        (["deeper/other.safetensors"], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_weights_of_a_repository(listed, chosen):
    assert downloads.choose_weights(listed, None) == chosen
    assert downloads.choose_weights(listed, UNNAMED) == chosen
    assert downloads.choose_weights(listed, ENTRY) is None
    assert downloads.choose_weights([*listed, ENTRY.file], ENTRY) == [ENTRY.file]


def test_what_comes_along(monkeypatch):
    theirs = ["config.json", "preprocessor_config.json", "processor_config.json"]
    words = ["tokenizer.json", "vocab.json", "merges.txt"]
    listed = [FIRST, *theirs, "open_clip_config.json", *words, "x.py"]
    monkeypatch.setattr(downloads, "list_files", lambda *given: listed)
    monkeypatch.setattr(downloads, "download_files", lambda *given: given)
    got = downloads.download_snapshot("org/name", None, "v1")
    assert got == ("org/name", [FIRST, "open_clip_config.json", *words], "v1")
    listed.remove(FIRST)
    listed.append(FOURTH)
    got = downloads.download_snapshot("org/name", None, None)
    assert got == ("org/name", [FOURTH, *theirs, *words], None)
    listed[:] = ["b.bin", "a.pt", "c.ckpt", "d.pth", "e.bin", "f.bin", "README.md"]
    said = "org/name: holds a.pt, b.bin, c.ckpt, d.pth, e.bin, expected {} (pickles are never "
    said += "opened; docs/weights.md says how to convert one){}"
    for entry, expected, note in (
        (None, FIRST, ""),
        (UNNAMED, FIRST, ""),
        (ENTRY, "w.safetensors", ""),
        (replace(ENTRY, note="Look elsewhere."), "w.safetensors", ". Look elsewhere."),
    ):
        with pytest.raises(HubError) as error:
            downloads.download_snapshot("org/name", entry, None)
        assert str(error.value) == said.format(expected, note)
    assert hub_errors.no_weights("a/b", ["README.md"], "x", None).startswith(
        "a/b: holds no weights, expected x ("
    )


def test_a_broken_connection_is_tried_once_more(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def broken(repository, **options):
        asked.append((repository, options))
        if len(asked) < wanted:
            raise OSError("Consistency check failed: 3 bytes")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    for wanted in (1, 2):
        asked.clear()
        assert downloads.download_files("org/name", ["a[1].json"], None) == tmp_path
        options = {"revision": "main", "allow_patterns": ["a[[]1].json"]}
        assert asked == [("org/name", options)] * wanted
    wanted = 3
    asked.clear()
    with pytest.raises(HubError, match=r"^org/name@v1: the connection broke during the download"):
        downloads.download_files("org/name", ["a"], "v1")
    assert [options["revision"] for _, options in asked] == ["v1", "v1"]


# ---------------------------------------------------------------- the cache


def test_snapshots_of_a_cache(cache):
    assert downloads.cached_snapshot("org/name", None) is None
    folder = put(cache, {FOURTH: "x"})
    other = put(cache, {}, commit="cd" * 20, branch="v1")
    put(cache, {}, repository="bad/ref", commit="no commit")
    assert downloads.cached_snapshot("org/name", None) == folder
    assert downloads.cached_snapshot("org/name", "main") == folder
    assert downloads.cached_snapshot("org/name", "v1") == other
    assert downloads.cached_snapshot("org/name", COMMIT) == folder
    for repository, revision in (
        ("org/name", "v2"), ("org/name", "ef" * 20), ("bad/ref", None), ("org/other", None),
        ("org/name", "a\0b"),
    ):  # fmt: skip
        assert downloads.cached_snapshot(repository, revision) is None
    assert downloads.cached_weights("org/name", None, None) == folder / FOURTH
    assert downloads.cached_weights("org/name", ENTRY, None) is None
    assert downloads.cached_weights("org/name", None, "v1") is None
    assert downloads.cached_weights("org/name", None, "v2") is None


def test_shards_that_are_all_there(cache):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"a": names[0], "b": names[1], "c": names[1]}})
    folder = put(cache, {FIFTH: index, names[0]: "x"})
    assert downloads.whole(folder, None) is None
    assert downloads.cached_weights("org/name", None, None) is None
    (folder / names[1]).write_text("y")
    assert downloads.whole(folder, None) == [FIFTH, *names]
    assert downloads.cached_weights("org/name", None, None) == folder  # the folder of shards
    (folder / "deeper").mkdir()
    (folder / FIRST).mkdir()  # a folder is no file, whatever its name
    assert downloads.whole(folder, None) == [FIFTH, *names]


def test_what_is_cached_is_not_asked_for(cache, monkeypatch):
    monkeypatch.setattr(downloads, "download_snapshot", nothing_is_fetched)
    monkeypatch.setattr(downloads, "download_files", nothing_is_fetched)
    folder = put(cache, {FOURTH: "x", "vocab.json": "{}", "merges.txt": ""})
    assert downloads.fetch("org/name", None, offline=True) == folder / FOURTH  # verified now
    for offline in (True, False, None):
        assert downloads.fetch("org/name", None, offline=offline) == folder / FOURTH
        assert downloads.fetch_vocabulary("org/name", offline) == folder
    for call in (downloads.fetch, downloads.fetch_vocabulary):
        with pytest.raises(AssertionError, match="asked the network"):
            call("org/other", *([None] if call is downloads.fetch else []), offline=False)
    with pytest.raises(AssertionError, match="asked the network"):
        downloads.fetch("org/name", None, refresh=True)
    with pytest.raises(AssertionError, match=r"asked the network: \('org/name', None, 'v1'\)"):
        downloads.fetch("org/name", None, "v1")
    (folder / "merges.txt").unlink()
    with pytest.raises(AssertionError, match=r"\('org/name', \['vocab.json', 'merges.txt'\], None"):
        downloads.fetch_vocabulary("org/name")


def test_offline_says_what_is_not_there(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(downloads, "download_snapshot", nothing_is_fetched)
    monkeypatch.setattr(downloads, "download_files", nothing_is_fetched)

    def said(name, revision=""):
        return (
            f"{name}{revision}: not (whole) in the cache {cache}, and no network is allowed "
            f"(HF_HUB_OFFLINE); with it, once: miniclip weights download {name}; or fetch the "
            "files by hand and give their folder"
        )

    put(cache, {"config.json": "{}"}, repository="org/empty")
    for setting, offline in ((False, True), (True, None)):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", setting)
        for call, message in (
            (lambda: downloads.fetch("org/x", None, None, offline), said("org/x")),  # noqa: B023
            (lambda: downloads.fetch("org/x", None, "v1", offline), said("org/x", "@v1")),  # noqa: B023
            (lambda: downloads.fetch("org/x", ENTRY, None, offline), said("ViT-B/32")),  # noqa: B023
            (lambda: downloads.fetch("org/empty", None, None, offline), said("org/empty")),  # noqa: B023
            (lambda: downloads.fetch_vocabulary("org/x", offline), said("org/x")),  # noqa: B023
        ):
            with pytest.raises(HubError) as error:
                call()
            assert str(error.value) == message


def test_a_vocabulary_that_the_hub_has_not_whole(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "download_files", lambda *given: tmp_path)
    for name in ("vocab.json", "merges.txt"):
        with pytest.raises(HubError, match=f"^org/name: holds no {name}$"):
            downloads.fetch_vocabulary("org/name")
        (tmp_path / name).write_text("")
    assert downloads.fetch_vocabulary("org/name") == tmp_path


def test_whose_hash_a_file_must_have(tmp_path):
    file = tmp_path / "w.safetensors"
    assert downloads.expected_hash(file, ENTRY, None) == "5" * 64
    assert downloads.expected_hash(file, ENTRY, "main") == "5" * 64
    assert downloads.expected_hash(file, ENTRY, "v1") is None
    assert downloads.expected_hash(file, UNNAMED, None) is None
    assert downloads.expected_hash(file, None, None) is None
    assert downloads.expected_hash(tmp_path / "x.safetensors", ENTRY, None) is None
    file.symlink_to(Path("..") / "blobs" / ("7" * 64))
    assert downloads.expected_hash(file, ENTRY, None) == "5" * 64
    assert downloads.expected_hash(file, ENTRY, "v1") == "7" * 64
    assert downloads.expected_hash(file, None, None) == "7" * 64


# ---------------------------------------------------------------- links and marks


def test_links_are_followed_to_the_file(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    end = tmp_path / "end"
    end.write_text("x")
    middle, first = tmp_path / "a" / ("8" * 64), tmp_path / "a" / "b" / "first"
    middle.symlink_to("../end")
    first.symlink_to(f"../{'8' * 64}")
    assert integrity.links(first) == [first, middle, end]
    assert integrity.links(end) == [end]
    assert integrity.hash_by_blob(first) == "8" * 64
    assert integrity.hash_by_blob(middle) is None  # a link to a file of another name
    assert integrity.hash_by_blob(end) is None
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    assert len(integrity.links(circle)) == 10


def snapshot(tmp_path, **files):
    folder = tmp_path / "repo" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder, integrity.mark_of(folder)


def test_what_was_verified_is_remembered(tmp_path):
    folder, mark = snapshot(tmp_path, a="xx", b="yyy")
    assert mark == tmp_path / "repo" / "miniclip" / f"{COMMIT}.json"
    assert integrity.snapshot_of(mark) == folder
    assert integrity.remembered(mark) is None
    integrity.remember(mark, "a", {"a": "1" * 64, "b": None})
    assert integrity.remembered(mark) == ("a", {"a": "1" * 64, "b": None})
    assert [path.name for path in mark.parent.iterdir()] == [mark.name]
    note = json.loads(mark.read_text())
    assert (note["weights"], note["files"]["b"][::2]) == ("a", [3, None])
    status = (folder / "b").stat()
    os.utime(folder / "b", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert integrity.remembered(mark) is None  # another time
    os.utime(folder / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert integrity.remembered(mark) is not None
    (folder / "b").write_text("yyyy")
    os.utime(folder / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert integrity.remembered(mark) is None  # another size
    for content in ("", "[]", "{}", '{"weights": "a", "files": {}}', '{"weights": "a", "files": 3}',
                    '{"weights": "a", "files": {"a": []}}', '{"weights": "a", "files": {"c": [1, 2, 3]}}'):  # fmt: skip  # noqa: E501
        mark.write_text(content)
        assert integrity.remembered(mark) is None


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    _, mark = snapshot(tmp_path, a="xx")

    def full(*given):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", full)
    integrity.remember(mark, "a", {"a": None})
    assert list(mark.parent.iterdir()) == []


@pytest.mark.parametrize("damaged", [True, False])
def test_a_wrong_file_is_forgotten(damaged, tmp_path):
    folder, mark = snapshot(tmp_path, a="xx", b="yyy")
    store, blob = tmp_path / "store", tmp_path / "repo" / "blob"
    store.write_text("z")
    blob.symlink_to("../store")
    (folder / "c").symlink_to("../../blob")
    integrity.remember(mark, "a", {"a": None})
    integrity.forget(folder, "c", damaged)
    assert not mark.exists()
    assert not os.path.lexists(folder / "c")
    assert not os.path.lexists(blob)
    assert store.exists() != damaged
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    integrity.forget(folder, "a", damaged=False)
    integrity.forget(folder, "a", damaged=True)  # which is gone already
    assert [path.name for path in folder.iterdir()] == ["b"]


def test_what_was_verified_is_taken_as_it_is(tmp_path):
    folder, mark = snapshot(tmp_path, **{"w.safetensors": "x"})
    assert downloads.verified_before(folder, None, None) is None
    integrity.remember(mark, "w.safetensors", {"w.safetensors": "5" * 64})
    path = folder / "w.safetensors"
    assert downloads.verified_before(folder, None, None) == path
    assert downloads.verified_before(folder, ENTRY, None) == path
    assert downloads.verified_before(folder, UNNAMED, None) == path
    for other in (replace(ENTRY, file="v.safetensors"), replace(ENTRY, sha256="6" * 64)):
        assert downloads.verified_before(folder, other, None) is None
    assert downloads.verified_before(folder, replace(ENTRY, sha256="6" * 64), "v1") == path


def test_a_snapshot_without_its_weights_is_told(tmp_path):
    folder, _ = snapshot(tmp_path, a="xx")
    with pytest.raises(HubError) as error:
        downloads.verify(folder, "org/name", None, None)
    assert str(error.value) == f"org/name: files are missing in {folder}; download it again"


# ---------------------------------------------------------------- messages


def hub_error(kind, status=404):
    """As the client raises it, whichever library it asks with."""
    error = kind.__new__(kind, "said. more")
    error.response = SimpleNamespace(status_code=status)
    return error


class ReadError(Exception):
    pass


class ConnectionError_(Exception):
    pass


ConnectionError_.__name__ = "ConnectionError"
BY_HAND = "or fetch the files by hand and give their folder"


def messages(cache):
    yield (
        hub_error(errors.GatedRepoError),
        "its owner asks for consent first: accept the terms on its page of the hub, then log in "
        "(hf auth login) or set HF_TOKEN",
    )
    missing = "no such repository at https://hub, or a private one (then set HF_TOKEN)"
    yield hub_error(errors.RepositoryNotFoundError), missing
    local = errors.LocalEntryNotFoundError("x")
    local.__cause__ = hub_error(errors.RepositoryNotFoundError)
    yield local, missing
    revision = hub_error(errors.RevisionNotFoundError)
    yield revision, "the repository has no such branch, tag or commit"
    for code in (errno.ENOSPC, errno.EDQUOT):
        full = f"no space left in {cache}; free some, or set HF_HOME to another disk"
        yield OSError(code, "x"), full
    for code in (errno.EACCES, errno.EPERM, errno.EROFS):
        yield OSError(code, "x"), f"cannot write to {cache}; set HF_HOME to a folder of yours"
    answered = f"https://hub answered 503; try later, set HF_ENDPOINT to a mirror, {BY_HAND}"
    yield hub_error(errors.HfHubHTTPError, 503), answered
    broke = "the connection broke during the download; start it again"
    yield ReadError("x"), broke
    yield OSError("Consistency check failed: x"), broke
    unreachable = "https://hub cannot be reached; check the network, set HF_ENDPOINT to a mirror, "
    yield ConnectionError_("x"), unreachable + BY_HAND
    yield ValueError("one thing. Another\nthird"), f"the download failed (one thing); start it again, {BY_HAND}"  # fmt: skip  # noqa: E501
    yield ValueError(), f"the download failed (ValueError); start it again, {BY_HAND}"


def test_every_message_of_the_hub(cache):
    for error, said in messages(cache):
        assert message_for(error, "org/name") == f"org/name: {said}"
        assert message_for(error, "org/name", "v1") == f"org/name@v1: {said}"
    offline = errors.OfflineModeIsEnabled("x")
    assert message_for(offline, "a/b", "v1") == hub_errors.not_cached("a/b", "v1")
    assert message_for(offline, "a/b") == hub_errors.not_cached("a/b")
    assert hub_errors.not_cached("a/b", "v1").startswith("a/b@v1: not (whole) in the cache ")


def test_kinds_of_errors(cache):
    def kind(error):
        def request():
            raise error

        with pytest.raises(HubError) as caught:
            hub_errors.asking(request, "org/name", "v1")
        assert str(caught.value) == message_for(error, "org/name", "v1")
        return type(caught.value)

    assert kind(hub_error(errors.RepositoryNotFoundError)) is hub_errors.NoSuchRepository
    assert kind(hub_error(errors.GatedRepoError)) is HubError
    assert kind(ReadError("x")) is hub_errors.BrokenConnection
    assert kind(OSError(errno.ENOSPC, "x")) is HubError
    assert hub_errors.asking(lambda: 7, "org/name") == 7


# ---------------------------------------------------------------- names


def test_a_vocabulary_is_asked_for_as_it_was_said(monkeypatch):
    monkeypatch.setattr(downloads, "fetch_vocabulary", lambda *given: given)
    assert hub.download_tokenizer("org/name", True) == ("org/name", True)
    assert hub.download_tokenizer("org/name") == ("org/name", None)


def test_shipped_models_lie_in_the_package_or_beside_it(monkeypatch):
    from miniclip.checkpoints import shipped

    installed = shipped.weights_folder()
    assert shipped.shipped_path("mini-vit") == installed / "mini-vit"
    assert shipped.shipped_path("mini-xx") is None

    def none(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(shipped.resources, "files", none)
    assert shipped.weights_folder() == Path(shipped.__file__).parents[2] / "weights"
    assert (shipped.weights_folder() / "known.json").is_file()


def test_a_shipped_model_has_its_known_hash():
    for name in hub.SHIPPED:
        report = hub.check_weights(name)
        assert (report.name, report.ok, report.error) == (name, True, None)
        (file,) = report.files
        assert file.expected == file.sha256 == hub.HASHES[name]
        assert file.size == file.path.stat().st_size
    wrong = replace(file, expected="0" * 64, error="second", not_finite="third")
    assert wrong.problem == f"sha256 is {file.sha256}, expected {'0' * 64}"
    assert replace(wrong, expected=None).problem == "second"
    last = replace(wrong, expected=None, error=None)
    assert last.problem == "third holds values that are not finite"
    assert not integrity.WeightsReport("x", ()).ok
    assert not integrity.WeightsReport("x", (file,), "bad").ok
    assert not integrity.WeightsReport("x", (file, wrong)).ok
    assert integrity.WeightsReport("x", (file, file)).ok


def test_resolving_hands_everything_on(monkeypatch):
    asked = []

    def fetch(*given, **named):
        asked.append((given, named))
        return Path("there")

    monkeypatch.setattr(downloads, "fetch", fetch)
    entry = hub.known()["RN50"]
    found = hub.resolve("rn50", "v1", offline=True)
    assert (found.path, found.known, found.name) == (Path("there"), entry, "RN50")
    found = hub.resolve("org/name")
    assert (found.path, found.known, found.name) == (Path("there"), None, "org/name")
    found = hub.download("RN50", "v2")
    assert (found.path, found.known, found.name) == (Path("there"), entry, "RN50")
    assert hub.download("org/name").name == "org/name"
    assert asked == [
        ((entry.repository, entry, "v1", True), {}),
        (("org/name", None, None, None), {}),
        ((entry.repository, entry, "v2"), {"refresh": True}),
        (("org/name", None, None), {"refresh": True}),
    ]
    asked.clear()
    for call in (hub.resolve, hub.download):
        found = call("mini-vit")
        assert (found.path.name, found.known, found.name) == ("mini-vit", None, "mini-vit")
    assert hub.cached_path("mini-rn").name == "mini-rn"
    assert asked == []


def test_a_missing_repository_reminds_of_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def missing(*given):
        raise hub_errors.NoSuchRepository("gone")

    monkeypatch.setattr(downloads, "fetch", missing)
    with pytest.raises(HubError, match=r"^gone; did you mean ViT-B/32\?$"):
        hub.resolve("someone/ViT-B-32")
    with pytest.raises(HubError, match=r"^gone$"):
        hub.resolve("someone/qqqqqqqqqqqqqqqq")


def test_the_table_of_weights(monkeypatch):
    monkeypatch.setattr(hub, "cached_path", lambda name: f"cached {name}")
    rows = {row["name"]: row for row in hub.weights_table()}
    assert list(rows)[:2] == ["mini-vit", "mini-rn"]
    assert set(rows) == set(hub.available_models())
    folder = hub.weights_folder() / "mini-vit"
    assert rows["mini-vit"] == {
        "name": "mini-vit",
        "repository": "(shipped)",
        "size_mb": round((folder / "model.safetensors").stat().st_size / 1e6),
        "licence": "MIT",
        "activation": "quick_gelu",
        "note": None,
        "cached": folder,
    }
    entry = hub.known()["RN50x4"]
    assert rows["RN50x4"] == {
        "name": "RN50x4",
        "repository": entry.repository,
        "size_mb": entry.size_mb,
        "activation": "quick_gelu",
        "licence": entry.licence,
        "note": entry.note,
        "cached": "cached RN50x4",
    }


def test_names_that_look_alike():
    assert known.nearest_names("RN51") == ["RN50", "RN50x16", "RN101"]
    for count in (1, 2, 3):
        near = known.nearest_names("ViT-B/33", count)
        assert len(near) == count == len(set(near))
        assert near[0] == "ViT-B/32"
    assert len(known.nearest_names("ViT-B/33")) == 3
    assert known.nearest_names("mini-vid", 1) == ["mini-vit"]
    assert known.nearest_names("qqqqqqqqq") == []


@pytest.mark.parametrize(
    ("name", "mistyped"),
    [("ViT-B/33", True), ("vit-b/33", True), ("RN52", False), ("RN50/x", True),
     ("openai/x", False), ("org/name", False), ("wkcn/TinyCLIP-x", False)],
)  # fmt: skip
def test_names_that_are_mistyped(name, mistyped):
    assert known.is_mistyped(name) == mistyped


def test_rows_of_the_page():
    entry = replace(
        ENTRY, name="N", repository="r/r", size_mb=5, activation="gelu", licence="MIT",
        preprocessing={"size": 8, "mean": (0.5,) * 3, "std": (0.25,) * 3, "resize_mode": "squash"},
    )  # fmt: skip
    cells = ["`N`", "`r/r`", "5", "gelu", "8", "mean 0.5, std 0.25, squash", "MIT"]
    assert known.markdown_row(entry) == cells
    plain = entry.preprocessing | {"mean": (0.1, 0.2, 0.3), "resize_mode": "shortest"}
    own = dict.fromkeys(plain)
    for preprocessing, said in ((plain, "CLIP's"), (own, "its own")):
        row = known.markdown_row(
            replace(entry, preprocessing=preprocessing, licence=None, size_mb=None)
        )
        assert (row[2], *row[5:]) == ("", said, "")
    lines = known.markdown_table().splitlines()
    assert lines[0] == (
        "| name | repository | MB | activation | pixels | preprocessing | licence |"
    )
    assert lines[1] == "| --- | --- | --- | --- | --- | --- | --- |"
    assert len(lines) == 2 + len(hub.known())
