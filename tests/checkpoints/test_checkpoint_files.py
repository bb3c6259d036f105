"""Checkpoints as files: which one of a folder, what is mapped or copied, and writing safely."""

import errno
import io
import json
import os
import resource
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import checkpoint_checks
import fuzz_safetensors
import numpy as np
import pytest
import torch
from checkpoint_files import VIT, folder, original, original_file, pack, state_of, tensor
from model_checks import with_vision
from safetensors.torch import save_file

from miniclip.checkpoints import (
    CheckpointError,
    open_checkpoint,
    read_model,
    reader,
    save_checkpoint,
)
from miniclip.models import CLIP


def test_pickles_are_refused_by_their_names(tmp_path):
    for name in ("ViT-B-32.pt", "pytorch_model.bin", "x.pth", "x.CKPT"):
        (tmp_path / name).write_bytes(b"whatever")
        with pytest.raises(CheckpointError, match=r"from safetensors.torch import save_file"):
            open_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds ViT-B-32.pt, no safetensors"):
        open_checkpoint(tmp_path)


def test_the_conversion_that_the_error_tells_works(tmp_path):
    from miniclip.checkpoints.safetensors_header import NO_PICKLE

    line = NO_PICKLE[NO_PICKLE.index("from safetensors") :]
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec(line, {"model": original("vit")})
    finally:
        os.chdir(here)
    loaded = read_model(tmp_path / "model.safetensors", activation="quick_gelu")
    checkpoint_checks.check_state(loaded, state_of("vit"))


def test_which_file_of_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"no .safetensors file in it"):
        open_checkpoint(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(pack({"a": tensor()}, bytes(8)))
    assert open_checkpoint(tmp_path).keys() == ["a"]
    (tmp_path / "b.safetensors").write_bytes(pack({"b": tensor()}, bytes(8)))
    with pytest.raises(CheckpointError, match=r"holds a.safetensors, b.safetensors; expected one"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pack({"c": tensor()}, bytes(8)))
    assert open_checkpoint(str(tmp_path)).keys() == ["c"]


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"nothing.safetensors: cannot be read: No such file"):
        open_checkpoint(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint("null\0.safetensors")
    with pytest.raises(TypeError, match="path: got int, expected a file or a folder"):
        open_checkpoint(3)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="expected a regular file"):
        open_checkpoint(tmp_path / "pipe.safetensors")

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(reader, "open_regular", refuse)
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read: Permission"):
        open_checkpoint(original_file("vit"))


def test_odd_names_and_shapes_are_no_error(tmp_path):
    header = {
        "": tensor(0, 4, ()),
        "名前 \ud800": tensor(4, 4, (0, 7)),
        "x" * 5000: tensor(4, 8, (1,) * 8),
    }
    header |= {"__metadata__": {"ключ": "значение"}}
    (tmp_path / "m.safetensors").write_bytes(pack(header, b"\0\0\x80\x3f" * 2))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.shapes == {"": (), "名前 \ud800": (0, 7), "x" * 5000: (1,) * 8}
    assert checkpoint.array("") == 1
    assert checkpoint.array("名前 \ud800").shape == (0, 7)
    assert checkpoint.metadata == {"ключ": "значение"}
    with pytest.raises(CheckpointError, match="has no key 'y'"):
        checkpoint.array("y")


@pytest.mark.parametrize("length", [0x180, 0x280, 0x580])
def test_a_header_whose_length_looks_like_a_pickle(length, tmp_path):
    text = json.dumps({"a": tensor()}).ljust(length).encode()
    (tmp_path / "m.safetensors").write_bytes(pack(text, bytes(8)))
    assert open_checkpoint(tmp_path).shape("a") == (2,)


def test_askew_tensors_are_copied(tmp_path):
    text = json.dumps({"a": tensor()})
    text = text.ljust(len(text) + 1 + -len(text) % 8).encode()  # one more than a multiple of 8
    (tmp_path / "m.safetensors").write_bytes(pack(text, np.array([1, 2], "<f4").tobytes()))
    array = open_checkpoint(tmp_path).array("a")
    assert array.flags.aligned
    assert array.tolist() == [1, 2]


def test_arrays_outlive_the_checkpoint_and_the_file(tmp_path):
    path = save_checkpoint(state_of("vit"), VIT, tmp_path / "m.safetensors")
    state = read_model(path).state
    path.unlink()
    assert np.array_equal(state["visual.proj"], state_of("vit")["visual.proj"])


def test_of_gigabytes_only_the_header_is_read(tmp_path, monkeypatch):
    """Four gigabytes of hole: counted are the bytes read, the memory taken, the pages touched."""
    path = tmp_path / "m.safetensors"
    header = {f"t{i}": tensor(2**22 * i, 2**22 * (i + 1), (2**20,)) for i in range(1000)}
    text = json.dumps(header)
    path.write_bytes(pack(text.ljust(len(text) + -len(text) % 8).encode()))  # aligned, as usual
    os.truncate(path, path.stat().st_size + 1000 * 2**22)
    monkeypatch.setattr(reader, "open_regular", lambda path: io.BufferedReader(Counting(path)))
    tracemalloc.start()
    faults = page_faults()
    checkpoint = open_checkpoint(path)
    arrays = [checkpoint.array(key) for key in checkpoint.keys()]  # noqa: SIM118
    faults, (_, peak) = page_faults() - faults, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(arrays) == 1000
    assert len(text) <= Counting.total < 2 * len(text) + 2**16
    assert peak < 2e6
    assert faults < 20_000  # all tensors are a million pages
    assert arrays[999].sum() == 0


class Counting(io.FileIO):
    """A file that counts what is read from it."""

    total = 0

    def readinto(self, buffer):
        count = super().readinto(buffer)
        Counting.total += count
        return count

    def read(self, size=-1):
        data = super().read(size)
        Counting.total += len(data)
        return data

    def readall(self):
        data = super().readall()
        Counting.total += len(data)
        return data


def page_faults():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt + used.ru_majflt


MEASURE = """
    import sys
    import numpy as np
    from miniclip.checkpoints import read_model
    from miniclip.models import CLIP

    def private():
        rows = dict(l.split(":") for l in open("/proc/self/smaps_rollup") if ":" in l and "kB" in l)
        return 1024 * int(rows["Anonymous"].split()[0])  # pages that are ours alone: copies

    def load(path):
        loaded = read_model(path, activation="quick_gelu")
        model = CLIP(loaded.config, seed=None)
        model.load_state_dict(loaded.state)
        return model, sum(float(x.max()) for x in loaded.state.values())  # reads every page

    load(sys.argv[1])  # what a first load imports and allocates once
    before = private()
    kept = load(sys.argv[2])
    print(private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="asks Linux")
def test_no_second_copy(tmp_path):
    """Files of 200 MB: private memory stays within 1.15 x what had to be joined or widened."""
    config = with_vision(VIT, width=768, heads=12, layers=7, patch_size=16)
    state = CLIP(config, seed=None).state_dict()
    total = sum(x.nbytes for x in state.values())
    assert total > 190e6
    save_checkpoint(state, config, tmp_path / "openai.safetensors")
    save_checkpoint(state, config, tmp_path / "hf", layout="hf")
    save_file({k: torch.tensor(x).half() for k, x in state.items()}, tmp_path / "half.safetensors")
    joined = sum(x.nbytes for name, x in state.items() if "in_proj" in name)
    slack = 3e6  # the modules themselves, the header, small arrays: not in proportion to the file
    for name, copied in (("openai.safetensors", 0), ("hf", joined), ("half.safetensors", total)):
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURE), original_file("vit"), tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        )
        private = int(run.stdout)
        print(f"{name} of {total:.2e} bytes: {private:.2e} private, {copied:.2e} to be copied")
        assert private <= 1.15 * copied + slack
        tracemalloc.start()
        loaded = read_model(tmp_path / name, activation="quick_gelu")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= 1.15 * copied + slack, "a copy was made on the way"
        del loaded


# ---------------------------------------------------------------- writing


class DiskFull(OSError):
    pass


@pytest.mark.parametrize("layout", ["openai", "hf"])
@pytest.mark.parametrize("when", ["written", "flushed", "renamed", "interrupted"])
def test_a_failed_write_leaves_nothing_and_the_old_file(layout, when, tmp_path, monkeypatch):
    from miniclip.checkpoints import writer

    def fail(*arguments):
        raise KeyboardInterrupt if when == "interrupted" else DiskFull(errno.ENOSPC, "disk full")

    target = tmp_path / ("m.safetensors" if layout == "openai" else "m")
    save_checkpoint(state_of("vit"), VIT, target, layout)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    name = {"written": "ascontiguousarray", "interrupted": "ascontiguousarray"}.get(when)
    if name:
        monkeypatch.setattr(writer.np, name, fail)
    else:
        monkeypatch.setattr(writer.os, "fsync" if when == "flushed" else "replace", fail)
    changed = {k: v + 1 for k, v in state_of("vit").items()}
    with pytest.raises((DiskFull, KeyboardInterrupt)):
        save_checkpoint(changed, VIT, target, layout)
    with pytest.raises((DiskFull, KeyboardInterrupt)):
        save_checkpoint(changed, VIT, tmp_path / f"new{target.suffix}", layout)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_full(tmp_path):
    """A real one, as far as the system lets us: files may not grow beyond 100 kB."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_checkpoint(state_of("vit"), VIT, tmp_path / "m.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(tmp_path.iterdir())


def test_a_wrong_call_writes_nothing(tmp_path):
    state = state_of("vit")
    path = tmp_path / "m.safetensors"
    for wrong, message in (
        ({k: v for k, v in state.items() if k != "visual.proj"}, "'visual.proj' is missing"),
        (state | {"x": np.zeros(1)}, "'x' is not a tensor of this configuration"),
        (state | {"visual.proj": np.zeros((24, 128))}, r"'visual.proj' has shape \(24, 128\)"),
    ):
        with pytest.raises(ValueError, match=message):
            save_checkpoint(wrong, VIT, path)
    with pytest.raises(ValueError, match="layout: got 'onnx', expected one of openai, hf"):
        save_checkpoint(state, VIT, path, layout="onnx")
    with pytest.raises(ValueError, match=r"expected a .safetensors file"):
        save_checkpoint(state, VIT, tmp_path)
    (tmp_path / "no").write_bytes(b"")  # a file where a folder is asked for
    with pytest.raises(NotADirectoryError, match="no is there and no folder"):
        save_checkpoint(state, VIT, tmp_path / "no" / "m.safetensors")
    (tmp_path / "no").unlink()
    assert not any(tmp_path.iterdir())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"already holds open_clip_model.safetensors"):
        save_checkpoint(state, VIT, tmp_path, layout="hf")


def test_saving_over_the_file_that_the_state_lies_in(tmp_path):
    path = save_checkpoint(state_of("vit"), VIT, tmp_path / "m.safetensors")
    loaded = read_model(path)
    loaded.state["visual.proj"] *= 2
    save_checkpoint(loaded.state, VIT, path)
    expected = state_of("vit")
    expected["visual.proj"] *= 2
    checkpoint_checks.check_state(read_model(path), expected)


def test_a_few_mutated_files():
    """More of them: `python tests/support/fuzz_safetensors.py --count 20000`."""
    counts = fuzz_safetensors.fuzz(count=400, seed=1, place=folder("fuzz"))
    assert sum(counts.values()) == 400
    assert counts["refused"] > 100
