"""Sharded checkpoints: `load` and `weights check` refuse the same folders, for the same reason."""

import json
import re
import shutil

import numpy as np
import pytest
from checkpoint_files import transformers_folder
from safetensors.numpy import load_file, save_file

from miniclip import cli
from miniclip.checkpoints import CheckpointError, open_checkpoint, read_model
from miniclip.checkpoints.hub import check_weights

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(transformers_folder(shards=True)[0], tmp_path / "sharded")
    return tmp_path / "sharded"


def shards(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


def weight_map(folder):
    return json.loads((folder / INDEX).read_text())["weight_map"]


def test_a_whole_one_passes_both(folder):
    assert len(shards(folder)) > 2
    read_model(folder)
    for what in (folder, folder / INDEX):
        report = check_weights(what)
        assert report.ok
        assert [file.path.name for file in report.files] == shards(folder)


def without_a_shard(folder, n):
    name = shards(folder)[n]
    (folder / name).unlink()
    return name


def key_in_two(folder):
    """A second shard has a key, with other numbers; the index still says the first."""
    first, second = shards(folder)[:2]
    key = next(k for k, name in weight_map(folder).items() if name == first)
    tensors = load_file(folder / second)
    tensors[key] = np.asarray(load_file(folder / first)[key] + 1, np.float32)
    save_file(tensors, folder / second)
    return f"{second}: holds {key!r}, but {INDEX} says it is in {first}"


def moved_key(folder):
    """The index says another shard than the one that has the key."""
    content = json.loads((folder / INDEX).read_text())
    key, name = next(iter(content["weight_map"].items()))
    other = next(shard for shard in shards(folder) if shard != name)
    content["weight_map"][key] = other
    (folder / INDEX).write_text(json.dumps(content))
    return f"{key!r} is in {other}, but it is not"


def all_gone(folder):
    return next(iter([without_a_shard(folder, 0) for _ in shards(folder)]))


BREAKS = {
    "the first": lambda folder: without_a_shard(folder, 0),
    "the last": lambda folder: without_a_shard(folder, -1),
    "all": all_gone,
    "key in two": key_in_two,
    "key moved": moved_key,
}


@pytest.mark.parametrize("how", BREAKS)
def test_load_and_check_refuse_alike(how, folder, capsys):
    said = re.escape(BREAKS[how](folder))
    with pytest.raises(CheckpointError, match=said):
        read_model(folder)
    for what in (folder, folder / INDEX):
        report = check_weights(what)
        assert not report.ok
        assert re.search(said, report.error)
    assert cli.main(["weights", "check", str(folder)]) == 1
    assert re.search(said, capsys.readouterr().out)


def test_the_index_decides_which_shard_is_read(folder):
    checkpoint = open_checkpoint(folder)
    for key, name in weight_map(folder).items():
        assert checkpoint.file_of(key).name == name
        assert np.array_equal(checkpoint.array(key), load_file(folder / name)[key])


def test_a_folder_that_load_finds_ambiguous_does_not_pass(folder, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / "two").mkdir(exist_ok=True)
        shutil.copy(folder / shards(folder)[0], tmp_path / "two" / name)
    with pytest.raises(CheckpointError, match=r"holds a\.safetensors, b\.safetensors"):
        open_checkpoint(tmp_path / "two")
    report = check_weights(tmp_path / "two")
    assert "a.safetensors, b.safetensors" in report.error
    assert not report.ok
