"""A run on a disk that is full: at which write ever, the file is named and the run is kept."""

import errno

import numpy as np
import pytest
from full_disk import Disk

import miniclip
from miniclip import cli
from miniclip.tasks.draw import draw_scenes
from miniclip.tasks.train import MODEL, train
from miniclip.training.loop import STATE
from miniclip.training.state import read_state

TINY = """
vocabulary = 530
[model]
embed_dim = 8
vision = {image_resolution = 16, layers = 1, width = 8, heads = 2, patch_size = 8}
text = {context_length = 48, width = 8, heads = 2, layers = 1}
[recipe]
steps = 4
batch = 4
warm_up = 0
save_every = 2
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A configuration file with pictures, the writes of a run to try, and what it ends in."""
    root = tmp_path_factory.mktemp("disk")
    (root / "tiny.toml").write_text(TINY)
    draw_scenes(6, root / "data")
    disk = Disk(root / "whole")
    with pytest.MonkeyPatch.context() as patch, disk.mounted():
        patch.setattr("miniclip.training.loop.plot_log", plot)
        run(root, root / "whole")
    return root, disk.ends(), weights(root / "whole")


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """matplotlib takes longer than all the rest; its writes are those of any file."""
    monkeypatch.setattr("miniclip.training.loop.plot_log", plot)


def plot(log, picture):
    with open(picture, "wb") as file:
        file.write(log.read_bytes())


def run(root, out):
    lines = []
    train(
        root / "tiny.toml", out, root / "data", backend="numpy", report=lines.append, progress=False
    )
    return lines


def weights(out):
    return miniclip.load(out, backend="numpy").network.state_dict()


def check_it_can_be_finished(root, out, whole):
    """With room again, the same command ends in what an undisturbed run ends in."""
    run(root, out)
    for name, x in weights(out).items():
        np.testing.assert_array_equal(x, whole[name], err_msg=name)
    assert not list(out.glob(".*"))


def test_any_write_may_fail(made, tmp_path):
    """One of them: either nothing depended on it and a warning names the file, or an error does."""
    root, numbers, whole = made
    assert len(numbers) >= 12  # room, log, checkpoints, plot, model, vocabulary, record
    for number in numbers:
        out = tmp_path / str(number)
        with Disk(out, lambda n, number=number: n == number).mounted():
            check_one_run(root, out)
        check_it_can_be_finished(root, out, whole)


def test_a_disk_that_stays_full(made, tmp_path):
    """From one write on: what was saved before is still there, and can be gone on with."""
    root, numbers, whole = made
    for number in numbers:
        out = tmp_path / str(number)
        with Disk(out, lambda n, number=number: n >= number).mounted():
            check_one_run(root, out)
        if (out / STATE).exists():
            assert read_state(out / STATE)[1]["progress"]["step"] in (2, 4)
        check_it_can_be_finished(root, out, whole)


def check_one_run(root, out):
    try:
        lines = run(root, out)
    except OSError as error:
        told = str(error)
    else:
        told = "".join(line for line in lines if line.startswith("warning"))
    assert "No space left on device" in told
    assert str(out) in told
    assert not list(out.glob(".*")), "something half written is left"


def test_room_for_the_result_is_kept_from_the_start(made, tmp_path):
    """Another program takes all that is free while the run is on its way; it ends well."""
    root, _, whole = made
    out = tmp_path / "out"
    disk = Disk(out)

    def taken(number):
        if disk.capacity is None and (out / ".room.tmp").exists() and (out / "log.jsonl").exists():
            disk.capacity = disk.used()
        return False

    disk.fails = taken
    with disk.mounted():
        lines = run(root, out)
    assert disk.capacity is not None
    assert not any("checkpoint" in line for line in lines if "warning" in line)
    for name, x in weights(out).items():
        np.testing.assert_array_equal(x, whole[name], err_msg=name)


def test_too_small_a_disk_is_told_before_training(made, tmp_path):
    root, _, _ = made
    disk = Disk(tmp_path)
    disk.capacity = 20_000  # more than the record needs, and less than a checkpoint
    with disk.mounted(), pytest.raises(OSError, match="No space left") as caught:
        run(root, tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert "room" in str(caught.value.filename)
    assert not (tmp_path / "out" / MODEL).exists()
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_the_command_says_it_in_one_line(made, tmp_path, capsys):
    root, numbers, _ = made
    with Disk(tmp_path, lambda n: n >= numbers[-4]).mounted():
        arguments = ["--out", tmp_path / "out", "--data", root / "data", "--backend", "numpy"]
        assert cli.main(["train", str(root / "tiny.toml"), *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"miniclip: error: {tmp_path / 'out'}")
    assert "run the same command again" in error
