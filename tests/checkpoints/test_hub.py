"""Names, downloads and checks of checkpoints, against a hub that the test itself serves.

The client reads its settings when it is imported, so every download runs in a process of its own,
with its own HF_HOME.
"""

import errno
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from miniclip.checkpoints import hub, known
from miniclip.checkpoints.hub_errors import message_for
from miniclip.models import OPENAI_CONFIGS

ROOT = Path(__file__).resolve().parents[2]
REPO = "somebody/tiny-clip"
OPEN_CLIP = "open_clip_model.safetensors"
NUMBERS = np.random.default_rng(0).random((64, 8), np.float32)
WEIGHTS = save({"visual.proj": NUMBERS, "logit_scale": np.full(1, 4.6, np.float32)})
FILES = {
    OPEN_CLIP: WEIGHTS,
    "open_clip_config.json": b'{"model_cfg": {}}',
    "vocab.json": b"{}",
    "merges.txt": b"#version: 0.2\n",
    # What must stay where it is: pickles, and timm's image tower with its configuration.
    "open_clip_pytorch_model.bin": b"a pickle",
    "model.safetensors": save({"blocks.0": np.zeros(3, np.float32)}),
    "config.json": b'{"architecture": "vit"}',
    "README.md": b"# tiny",
}
NEEDED = {OPEN_CLIP, "open_clip_config.json", "vocab.json", "merges.txt"}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- a hub


class Hub(ThreadingHTTPServer):
    """Repositories by name: a branch or tag -> commit, and a commit -> files.

    Tells requests in `log` as (method, file or API path, Range header).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.branches, self.commits, self.log = {}, {}, []
        self.status = None  # answer everything with this
        self.drop_after, self.drops = None, 0  # close the connection after so many bytes, so often
        self.reset = False  # and rudely
        self.spoil = False  # flip a byte of what is sent

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, files, repo=REPO, branch="main"):
        """A commit on a branch; returns its hash."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.branches.setdefault(repo, {})[branch] = commit
        self.commits[commit] = files
        return commit

    def fetched(self):
        """Names of the files that were sent."""
        return {name for method, name, _ in self.log if method == "GET" and "/" not in name}


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        kind = parts[4:5] if parts[:2] == ["api", "models"] else parts[2:3]
        if kind not in (["revision"], ["tree"], ["resolve"]):
            return self.reply(404)  # telemetry and the like
        repo = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        rest = parts[5:] if parts[0] == "api" else parts[3:]
        name = rest[-1] if kind == ["resolve"] else "/".join(parts)
        self.server.log.append((self.command, name, self.headers.get("Range")))
        if self.server.status is not None:
            gated = {"X-Error-Code": "GatedRepo"} if self.server.status == 403 else {}
            return self.reply(self.server.status, gated)
        if repo not in self.server.branches:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        commit = self.server.branches[repo].get(rest[0], rest[0])
        if commit not in self.server.commits:
            return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        files = self.server.commits[commit]
        if kind == ["resolve"]:
            return self.send_file(commit, files.get(name))
        listing = [listed(name, data) for name, data in files.items()]
        info = {"id": repo, "sha": commit, "siblings": [{"rfilename": n} for n in files]}
        return self.reply(200, {}, json.dumps(info if kind == ["revision"] else listing).encode())

    def send_file(self, commit, data):
        if data is None:
            return self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"ETag": f'"{etag(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if self.server.spoil:
            data = bytes([data[0] ^ 1]) + data[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted is None or self.command == "HEAD":
            return self.reply(200, headers, data)
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.reply(206, headers, data[start:])

    def reply(self, status, headers=None, body=b""):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        limit = self.server.drop_after
        if self.command == "GET" and limit is not None and len(body) > limit and self.server.drops:
            self.server.drops -= 1
            body = body[:limit]
            self.close_connection = True
            if self.server.reset:
                self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        if self.command == "GET":
            self.wfile.write(body)


def etag(data):
    """Of a large file the hub gives the sha256, of a small one git's hash."""
    large = len(data) > 100 and not data.startswith(b"{")
    return sha256(data) if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listed(name, data):
    return {"type": "file", "path": name, "size": len(data), "oid": etag(data)[:40]}


@pytest.fixture
def server():
    with Hub() as hub_server:
        thread = threading.Thread(target=hub_server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield hub_server
        hub_server.shutdown()


# ---------------------------------------------------------------- a user's machine

ENTRY = {"name": "tiny", "aliases": ["Tiny-B/1"], "repository": REPO, "file": OPEN_CLIP}
ENTRY |= {"layout": "openai", "activation": "quick_gelu", "preprocessing": {}, "source": "test"}
ENTRY |= dict.fromkeys(("model", "config", "tokenizer", "size_mb", "sha256", "licence", "note"))

PROGRAM = """
import json, sys
from miniclip.checkpoints import hub, known
known.read_table = lambda: [json.loads(sys.argv[1])]
said = []
for line in sys.argv[2:]:
    try:
        result = eval(line)
    except (hub.HubError, ValueError) as error:
        alone = error.__context__ is None or error.__suppress_context__
        assert alone and error.__cause__ is None, "a chain of tracebacks"
        result = f"{type(error).__name__}: {error}"
    said.append(result if result is None else str(getattr(result, "path", result)))
print(json.dumps(said))
"""


class Machine:
    """A machine with an empty cache. `run` evaluates lines in a new process."""

    def __init__(self, home):
        self.home = home
        self.errors = ""

    def run(self, server, *lines, entry=None, **settings):
        env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        env |= {"HF_HOME": str(self.home), "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"}
        env |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
        table = json.dumps(ENTRY | (entry or {}))
        command = [sys.executable, "-c", PROGRAM, table, *lines]
        done = subprocess.run(command, env=env | settings, capture_output=True, text=True)
        self.errors = done.stderr
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def blobs(self):
        return [path for path in self.home.rglob("blobs/*") if path.is_file()]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "home")


# ---------------------------------------------------------------- downloads


def test_download_only_what_is_needed_and_once(server, machine):
    server.push(FILES)
    first, again = machine.run(server, "hub.resolve('tiny')", "hub.resolve('TINY-b_1')")
    assert Path(first).read_bytes() == WEIGHTS
    assert first == again
    assert Path(first).name == OPEN_CLIP
    assert {path.name for path in Path(first).parent.iterdir()} == NEEDED
    assert server.fetched() == NEEDED
    server.log.clear()
    by_repository, cached = machine.run(server, f"hub.resolve('{REPO}')", "hub.cached_path('tiny')")
    assert by_repository == cached == first
    assert server.log == []  # the second run does not ask the network


def test_progress_is_shown(server, machine):
    server.push(FILES)
    machine.run(server, "hub.download('tiny')")
    assert "100%" in machine.errors


def test_interrupted_download_is_resumed(server, machine):
    # The client keeps what came in pieces of 10 MiB, so the file has to be larger than that.
    data = save({"x": np.arange(6_000_000, dtype=np.float32)})
    server.push({OPEN_CLIP: data})
    server.drop_after, server.drops = 21 << 20, 1
    (path,) = machine.run(server, "hub.resolve('tiny')")
    assert server.drops == 0
    ranges = [wanted for method, name, wanted in server.log if (method, name) == ("GET", OPEN_CLIP)]
    assert ranges == [None, f"bytes={20 << 20}-"]
    assert sha256(Path(path).read_bytes()) == sha256(data)


def test_a_connection_that_is_reset(server, machine):
    """The client does not resume these; the file is then started again."""
    data = save({"x": np.arange(6_000_000, dtype=np.float32)})
    server.push({OPEN_CLIP: data})
    server.drop_after, server.drops, server.reset = 15 << 20, 1, True
    (path,) = machine.run(server, "hub.resolve('tiny')")
    assert server.drops == 0
    assert sha256(Path(path).read_bytes()) == sha256(data)


def test_a_connection_that_always_breaks(server, machine):
    server.push(FILES)
    server.drop_after, server.drops = 100, 1000
    no_wait = "__import__('time').__setattr__('sleep', lambda seconds: None)"
    _, said = machine.run(server, no_wait, "hub.resolve('tiny')")
    assert said == f"HubError: {REPO}: the connection broke during the download; start it again"
    assert all(blob.read_bytes() != WEIGHTS[:100] for blob in machine.blobs())
    server.drops = 0
    assert Path(machine.run(server, "hub.resolve('tiny')")[0]).read_bytes() == WEIGHTS


def test_another_hash_than_the_known_one_is_refused(server, machine):
    server.push(FILES)
    wrong = {"sha256": "0" * 64}
    (said,) = machine.run(server, "hub.resolve('tiny')", entry=wrong)
    assert said.startswith(
        f"HubError: {REPO}: {OPEN_CLIP} has sha256 {sha256(WEIGHTS)}, expected 00"
    )
    assert all(blob.read_bytes() != WEIGHTS for blob in machine.blobs())
    said, cached = machine.run(
        server, "hub.resolve('tiny')", "hub.cached_path('tiny')", entry=wrong, HF_HUB_OFFLINE="1"
    )
    assert "not (whole) in the cache" in said
    assert cached is None
    (path,) = machine.run(server, "hub.resolve('tiny')", entry={"sha256": sha256(WEIGHTS)})
    assert Path(path).read_bytes() == WEIGHTS


def test_damage_on_the_way_is_refused(server, machine):
    """Without a known hash, the one that the hub gives tells."""
    server.push(FILES)
    server.spoil = True
    (said,) = machine.run(server, "hub.resolve('tiny')")
    assert f"expected {sha256(WEIGHTS)}: damaged" in said
    server.spoil = False
    assert Path(machine.run(server, "hub.resolve('tiny')")[0]).read_bytes() == WEIGHTS


def test_a_cached_file_that_changed_is_noticed(server, machine):
    server.push(FILES)
    (path,) = machine.run(server, "hub.resolve('tiny')")
    Path(path).resolve().write_bytes(b"rot" + WEIGHTS[3:])
    (said,) = machine.run(server, "hub.resolve('tiny', offline=True)")
    assert "damaged" in said
    assert Path(machine.run(server, "hub.resolve('tiny')")[0]).read_bytes() == WEIGHTS


def test_a_blob_in_the_shared_store(server, machine):
    """The hub's client may keep a blob as a link to a file under another hash (Xet's)."""
    server.push(FILES)
    (path,) = machine.run(server, "hub.resolve('tiny')")
    blob, shared = Path(path).resolve(), machine.home / "hub" / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    (mark,) = machine.home.rglob("miniclip/*.json")
    mark.unlink()
    assert machine.run(server, "hub.resolve('tiny', offline=True)") == [path]
    (said,) = machine.run(server, "hub.resolve('tiny')", entry={"sha256": "0" * 64})
    assert "expected 0000" in said
    assert shared.read_bytes() == WEIGHTS  # not the known file, but a good one of someone
    assert not os.path.lexists(blob)
    Path(path).symlink_to(os.path.relpath(blob, Path(path).parent))
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    shared.write_bytes(b"rot" + WEIGHTS[3:])
    (said,) = machine.run(server, "hub.resolve('tiny', offline=True)")
    assert "damaged" in said
    assert not shared.exists()


def test_a_hash_learnt_later_counts(server, machine):
    server.push(FILES)
    machine.run(server, "hub.resolve('tiny')")
    (said,) = machine.run(server, "hub.resolve('tiny')", entry={"sha256": "1" * 64})
    assert "expected 1111" in said


def test_the_known_hash_is_of_the_main_branch(server, machine):
    old = server.push({**FILES, OPEN_CLIP: save({"old": np.ones(99, np.float32)})})
    server.push(FILES)
    known_hash = {"sha256": sha256(WEIGHTS)}
    new, pinned = machine.run(
        server, "hub.resolve('tiny')", f"hub.resolve('tiny', revision='{old}')", entry=known_hash
    )
    assert Path(new).read_bytes() == WEIGHTS
    assert old in pinned


def test_files_that_another_program_fetched(server, machine):
    """They are whole, but not marked as verified: they serve if the hub does not answer."""
    server.push(FILES)
    (path,) = machine.run(server, "hub.resolve('tiny')")
    (mark,) = machine.home.rglob("miniclip/*.json")
    mark.unlink()
    assert machine.run(server, "hub.resolve('tiny')", HF_HUB_OFFLINE="1") == [path]
    mark.unlink()
    server.status = 500
    resolved, newer = machine.run(server, "hub.resolve('tiny')", "hub.download('tiny')")
    assert resolved == path
    assert "answered 500" in newer  # who asks for a newer one is told


def test_second_run_offline(server, machine):
    server.push(FILES)
    server.push({**FILES, "model.safetensors": WEIGHTS}, "somebody/other")
    (path,) = machine.run(server, "hub.resolve('tiny')")
    server.shutdown()
    server.server_close()
    offline = {"HF_HUB_OFFLINE": "1"}
    same, other, vocabulary, none = machine.run(
        server,
        "hub.resolve('tiny')",
        "hub.resolve('somebody/other')",
        f"hub.download_tokenizer('{REPO}')",
        "hub.download_tokenizer('somebody/other')",
        **offline,
    )
    assert same == path
    assert vocabulary == str(Path(path).parent)
    assert re.match(r"HubError: somebody/other: not \(whole\) in the cache .*HF_HUB_OFFLINE", other)
    assert "HF_HUB_OFFLINE" in none
    # A server that is gone, without HF_HUB_OFFLINE: the cache still serves, the rest is told.
    same, other = machine.run(server, "hub.resolve('tiny')", "hub.resolve('somebody/other')")
    assert same == path
    assert re.match(r"HubError: somebody/other: http://\S+ cannot be reached; .*HF_ENDPOINT", other)


def test_revisions(server, machine):
    first = server.push(FILES)
    lines = ["hub.resolve('tiny')", f"hub.resolve('tiny', revision='{first}')"]
    path, pinned = machine.run(server, *lines)
    assert path == pinned
    assert first in path
    second = server.push({**FILES, OPEN_CLIP: save({"logit_scale": np.ones(1, np.float32)})})
    server.push(FILES, branch="v1")
    kept, tagged, pinned, newer, main = machine.run(
        server,
        "hub.resolve('tiny')",
        "hub.resolve('tiny', revision='v1')",
        f"hub.resolve('tiny', revision='{second}')",
        "hub.download('tiny')",
        "hub.resolve('tiny')",
    )
    assert kept == tagged == path  # what is cached stays, until one asks for a newer one
    assert second in pinned
    assert newer == main == pinned
    (said,) = machine.run(server, "hub.resolve('tiny', revision='v9')")
    assert said == f"HubError: {REPO}@v9: the repository has no such branch, tag or commit"


def test_shards(server, machine):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    index["weight_map"]["b"] = "model-00002-of-00002.safetensors"
    shards = {n: save({k: np.ones(9, np.float32)}) for k, n in index["weight_map"].items()}
    extra = {"config.json": b"{}", "pytorch_model.bin": b"no"}
    repo = {"model.safetensors.index.json": json.dumps(index).encode(), **shards, **extra}
    server.push(repo, "somebody/large")
    (folder,) = machine.run(server, "hub.resolve('somebody/large')")
    expected = {"model.safetensors.index.json", "config.json", *shards}
    assert {path.name for path in Path(folder).iterdir()} == expected
    problems = "[file.problem for file in hub.check_weights('somebody/large').files]"
    assert machine.run(server, problems) == ["[None, None]"]
    (Path(folder) / "model-00002-of-00002.safetensors").unlink()
    said, cached = machine.run(
        server, "hub.resolve('somebody/large', offline=True)", "hub.cached_path('somebody/large')"
    )
    assert "not (whole) in the cache" in said
    assert cached is None
    assert machine.run(server, "hub.resolve('somebody/large')") == [folder]


def test_clear_errors(server, machine):
    server.push({"pytorch_model.bin": b"a pickle", "README.md": b""}, "somebody/pickles")
    server.push({"model.safetensors": WEIGHTS})
    unknown, same, pickles, other_file, offline = machine.run(
        server,
        "hub.resolve('somebody/ViT-B-32')",
        "hub.download('somebody/ViT-B-32')",
        "hub.resolve('somebody/pickles')",
        "hub.resolve('tiny')",
        "hub.resolve('somebody/pickles', offline=True)",
        entry={"note": "Look elsewhere."},
    )
    assert unknown.startswith(f"HubError: somebody/ViT-B-32: no such repository at {server.url}")
    assert unknown.startswith(same.replace("NoSuchRepository", "HubError"))
    assert "holds pytorch_model.bin, expected open_clip_model.safetensors" in pickles
    assert other_file.endswith("Look elsewhere.")
    assert "holds model.safetensors, expected open_clip_model.safetensors" in other_file
    assert "not (whole) in the cache" in offline
    for status, told in ((500, "answered 500; try later"), (403, "accept the terms on its page")):
        server.status = status
        (said,) = machine.run(server, "hub.resolve('somebody/pickles')")
        assert told in said, said
        assert "\n" not in said


def test_a_full_disk_and_others():
    for error, told in (
        (OSError(errno.ENOSPC, "No space left on device"), "no space left in"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot write to"),
        (TimeoutError("slow"), "the download failed (slow)"),
        (OSError("Consistency check failed: file should be of size 3. Retry"), "connection broke"),
    ):
        assert told in message_for(error, "a/b")
        assert message_for(error, "a/b").startswith("a/b: ")


# ---------------------------------------------------------------- names and paths


def test_paths_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.safetensors"
    file.write_bytes(WEIGHTS)
    (tmp_path / "ViT-B" / "32").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(hub.downloads, "fetch", lambda *args: asked.append(args) or Path("cached"))
    for what in (file, str(file), "x.safetensors", "./x.safetensors"):
        assert hub.resolve(what).path.resolve() == file
        assert hub.resolve(what).known is None
    assert hub.resolve("./ViT-B/32").path == Path("ViT-B/32")
    assert hub.resolve(Path("ViT-B/32")).path == Path("ViT-B/32")
    assert hub.resolve("ViT-B").path == Path("ViT-B")  # no known name, but a folder
    assert asked == []
    found = hub.resolve("ViT-B/32")  # a known name, though a folder has it too
    assert (found.name, found.path, found.known) == (
        "ViT-B/32",
        Path("cached"),
        hub.known()[found.name],
    )
    assert hub.resolve("org/name").known is None
    assert [args[0] for args in asked] == ["timm/vit_base_patch32_clip_224.openai", "org/name"]


def test_a_folder_that_was_perhaps_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ViT-B" / "32").mkdir(parents=True)

    def fail(*args):
        raise hub.HubError("unreachable")

    monkeypatch.setattr(hub.downloads, "fetch", fail)
    with pytest.raises(hub.HubError, match=r"^unreachable\. For the folder .* write \./ViT-B/32$"):
        hub.resolve("ViT-B/32")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("ViT-B/33", "got 'ViT-B/33', expected a name .*; did you mean ViT-B/32 or"),
        ("RN51", "did you mean RN50"),
        ("", "got '', expected a name"),
        ("no such thing", "got 'no such thing', expected a name"),
        ("./missing", r"no file or folder './missing'"),
        ("missing.safetensors", "no file or folder 'missing.safetensors'"),
        ("a\0b", "expected a name"),
        ("x" * 5000, "expected a name"),
    ],
)
def test_unknown_names(what, told):
    with pytest.raises(ValueError, match=told):
        hub.resolve(what)


def test_as_many_names_are_suggested_as_are_asked_for():
    """Several spellings of one checkpoint are one name."""
    assert known.nearest_names("ViT-L/14@33") == ["ViT-L/14@336px", "ViT-L/14", "ViT-L-14/dfn2b"]
    assert known.nearest_names("ViT-L/14@33", 1) == ["ViT-L/14@336px"]


def test_wrong_arguments(tmp_path):
    with pytest.raises(TypeError, match="model: got int, expected a name"):
        hub.resolve(3)
    with pytest.raises(ValueError, match=r"revision: got 'main', but .* is no hub repository"):
        hub.resolve(tmp_path, revision="main")
    with pytest.raises(ValueError, match="a name of the table"):
        hub.download("./folder")


def test_other_spellings():
    for spelling in ("ViT-B/32", "vit-b-32", "ViT-B-32/openai", "ViT_B_32", " ViT-B/32 "):
        assert hub.find_known(spelling).name == "ViT-B/32"
    for spelling in ("ViT-L/14@336px", "ViT-L-14-336", "ViT-L-14-336-quickgelu/openai"):
        assert hub.find_known(spelling).name == "ViT-L/14@336px"
    assert hub.find_known("ViT-B-32:laion2b_s34b_b79k").preprocessing["mean"][0] < 0.49
    assert hub.find_known("openai/clip-vit-large-patch14").layout == "hf"
    assert hub.find_known("ViT-B") is None


def test_the_hub_client_is_imported_late():
    code = "import sys, miniclip.checkpoints.hub as h; h.available_models(); h.find_known('RN50')"
    code += "; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------- checking weights


def test_check_weights(tmp_path):
    good, bad, broken = (tmp_path / f"{name}.safetensors" for name in ("good", "nan", "broken"))
    numbers = np.ones((4, 4), np.float32)
    some = numbers.copy()
    some[2, 3] = np.inf
    save_file({"a": numbers, "ids": np.arange(3)}, good)
    save_file({"a": numbers, "b": some, "c": some}, bad)
    broken.write_bytes(good.read_bytes()[:-1])
    report = hub.check_weights(good)
    assert report.files[0].problem is None
    assert "of no layout known here" in report.error  # it is no CLIP, only a good file
    assert not report.ok
    assert (report.files[0].sha256, report.files[0].tensors) == (sha256(good.read_bytes()), 2)
    assert report.files[0].expected is None
    report = hub.check_weights(str(bad))
    assert not report.ok
    assert report.files[0].problem == "b holds values that are not finite"
    assert "broken.safetensors" in hub.check_weights(broken).files[0].problem
    folder = hub.check_weights(tmp_path)
    assert [file.problem is None for file in folder.files] == [False, True, False]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not hub.check_weights(empty).ok
    with pytest.raises(ValueError, match="no file or folder"):
        hub.check_weights("./missing")


def test_check_weights_in_the_cache(server, machine):
    server.push(FILES)
    missing, _, good = machine.run(
        server,
        "hub.check_weights('tiny')",
        "hub.download('tiny')",
        "[(f.problem, f.expected) for f in hub.check_weights('tiny').files]",
    )
    assert missing.startswith("HubError: tiny: not in the cache; first: miniclip weights download")
    assert good == str([(None, sha256(WEIGHTS))])
    (wrong,) = machine.run(
        server, "hub.check_weights('tiny').files[0].problem", entry={"sha256": "0" * 64}
    )
    assert wrong == f"sha256 is {sha256(WEIGHTS)}, expected {'0' * 64}"


# ---------------------------------------------------------------- the table

ENTRIES = known.read_table()
ONLY_HASH = {"RN50x4": "fcd5a494550d0951f314a9d74225887e727ddc20c28c78962b58464705bfb465"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_every_entry_is_complete(entry):
    assert set(entry) == set(known.Known.__dataclass_fields__)
    assert hub.REPOSITORY.fullmatch(entry["repository"])
    assert entry["layout"] in ("openai", "hf", None)
    assert (entry["layout"] is None) == (entry["file"] is None)
    if entry["file"]:
        assert entry["file"] in ("open_clip_model.safetensors", "model.safetensors")
        assert entry["layout"] == ("openai" if entry["file"].startswith("open") else "hf")
    assert entry["activation"] in ("quick_gelu", "gelu", None)
    said = entry["preprocessing"]
    assert list(said) == ["size", "mean", "std", "resize_mode", "interpolation"]
    if said["size"] is None:  # then its own configuration tells all
        assert entry["activation"] is None
        assert set(said.values()) == {None}
        assert entry["layout"] == "hf"
        return
    assert said["resize_mode"] in ("shortest", "squash")
    assert said["interpolation"] == "bicubic"
    half = entry["name"] == "ViT-L-14/laion2b_s32b_b82k"
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    assert said["mean"] == ([0.5] * 3 if half else mean)
    assert said["std"] == ([0.5] * 3 if half else std)
    assert entry["source"]


def test_the_table_makes_transforms():
    from miniclip.inputs.preprocess import Transform

    for entry in hub.known().values():
        Transform(**{k: v for k, v in entry.preprocessing.items() if v is not None})


def test_names_are_unique():
    homes = {}
    for entry in ENTRIES:
        for spelling in (entry["name"], *entry["aliases"], entry["repository"]):
            assert homes.setdefault(known.plain_spelling(spelling), entry["name"]) == entry["name"]
    assert len({entry["name"] for entry in ENTRIES}) == len(ENTRIES)
    assert len({entry["repository"] for entry in ENTRIES}) == len(ENTRIES)


def test_no_hash_is_invented():
    assert {e["name"]: e["sha256"] for e in ENTRIES if e["sha256"]} == ONLY_HASH


def test_the_originals():
    assert hub.available_models()[:11] == ["mini-vit", "mini-rn", *OPENAI_CONFIGS]
    sizes = {"RN50": 408, "RN101": 479, "RN50x4": 714, "RN50x16": 1165, "RN50x64": 2495}
    sizes |= {"ViT-B/32": 605, "ViT-B/16": 599, "ViT-L/14": 1711, "ViT-L/14@336px": 1712}
    for name in OPENAI_CONFIGS:
        entry = hub.known()[name]
        assert entry.model == name
        assert entry.repository.startswith("timm/")
        assert entry.repository.endswith(".openai")
        assert entry.size_mb == sizes[name]
    for entry in hub.known().values():
        if entry.model is not None:
            config = OPENAI_CONFIGS[entry.model]
            assert entry.activation == config.vision.activation == "quick_gelu"
            assert entry.preprocessing["size"] == config.vision.image_resolution
            assert entry.licence == "MIT"


def test_every_openai_repository_is_quick_gelu():
    """One early configuration there lacked it; the table must not."""
    for entry in hub.known().values():
        if entry.repository.endswith(".openai") or entry.repository.startswith("openai/"):
            assert entry.activation == "quick_gelu"
            assert entry.model is not None


def test_families():
    activation = {name: entry.activation for name, entry in hub.known().items()}
    for name, expected in activation.items():
        tag = name.rpartition("/")[2]
        if tag.startswith("metaclip"):
            assert expected == ("gelu" if tag == "metaclip_altogether" else "quick_gelu")
        elif tag.startswith("dfn"):
            assert expected == ("gelu" if tag == "dfn2b_s39b" else "quick_gelu")
        elif tag.startswith(("laion2b", "datacomp")):
            assert expected == "gelu"
    assert activation["ViT-B-32/laion400m_e32"] == "quick_gelu"
    assert activation["ViT-B-16/laion400m_e32"] == "gelu"
    squashed = {n for n, e in hub.known().items() if e.preprocessing["resize_mode"] == "squash"}
    assert squashed == {"ViT-H-14/dfn5b", "ViT-H-14-378/dfn5b"}


def test_the_page_shows_the_table():
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    assert known.markdown_table() in page, (
        "docs/weights.md: its table differs from weights/known.json; put there what this prints: "
        'python -c "from miniclip.checkpoints import known; print(known.markdown_table())"'
    )


# ---------------------------------------------------------------- what is installed


def test_all_packages_are_installed():
    """The list in pyproject.toml is written by hand, because two folders lie beside the package."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent for path in (ROOT / "miniclip").rglob("*.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in folders}
    beside = {"miniclip.weights": "weights", "miniclip.course.parts": "notebooks/src"}
    assert set(settings["tool"]["setuptools"]["packages"]) == names | set(beside)
    assert settings["tool"]["setuptools"]["package-dir"] == beside
    assert "*.json" in settings["tool"]["setuptools"]["package-data"]["miniclip.weights"]
