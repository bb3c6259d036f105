"""`miniclip train` as a user runs it: presets, files, own pictures, going on, fine-tuning."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from held_out import names_held_out

import miniclip
from miniclip import cli
from miniclip.tasks import train as module
from miniclip.tasks.draw import draw_scenes
from miniclip.tasks.settings import PRESETS, read_settings
from miniclip.tasks.train import scene_data, scene_words, train
from miniclip.training.loop import STATE
from miniclip.training.report import LOG, PLOT, read_log
from miniclip.training.state import StateError, read_state

TINY = """
vocabulary = 560
[model]
embed_dim = 16
[model.vision]
image_resolution = 32
layers = 1
width = 32
heads = 2
patch_size = 8
[model.text]
context_length = 48
width = 32
heads = 2
layers = 1
[recipe]
steps = 4
batch = 8
warm_up = 2
save_every = 2
"""


def quiet(line):
    pass


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A configuration file; few captions for its vocabulary."""
    monkeypatch.setattr(module, "VOCABULARY_SCENES", 300)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve drawn scenes and captions.csv."""
    return draw_scenes(12, tmp_path_factory.mktemp("pictures"))


def test_from_a_file_to_a_model_that_loads(tiny, tmp_path):
    out = tmp_path / "out"
    pipeline = train(tiny, out, report=quiet, backend="numpy")
    names = {"model.safetensors", "vocab.json", "merges.txt", "knows.json", STATE, LOG, PLOT}
    assert {p.name for p in out.iterdir()} == names
    again = miniclip.load(out, backend="numpy")
    assert again.tokenizer.merges == pipeline.tokenizer.merges
    texts = ["a red circle", "一个红色的圆形"]
    np.testing.assert_array_equal(again.encode_text(texts), pipeline.encode_text(texts))
    assert [row["step"] for row in read_log(out / LOG)] == [0, 1, 2, 3]
    assert again.config == pipeline.config


@pytest.mark.parametrize("name", [n for n, content in PRESETS.items() if "data" not in content])
def test_presets(name):
    """They fit into 8 MB with their vocabulary, and no scene comes twice."""
    settings = read_settings(name)
    network = miniclip.CLIP(settings.config, seed=None)
    assert 4 * sum(x.size for x in network.state_dict().values()) < 7_900_000
    data = scene_data(settings, module.new_pipeline(settings, scene_words(settings), 0))
    assert len(data) == settings.recipe.steps * settings.recipe.batch


def test_the_vocabulary_never_saw_a_held_out_pair(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "learn_words", lambda captions, settings: seen.extend(captions))
    monkeypatch.setattr(module, "VOCABULARY_SCENES", 2000)
    scene_words(read_settings("mini-vit"))
    assert len(seen) == 2000
    assert not any(names_held_out(text) for text in seen)


def test_own_pictures(tiny, tmp_path, pictures, capsys):
    broken = pictures.parent / "broken.png"
    broken.write_bytes(b"no picture")
    table = pictures.read_text() + "broken.png,a broken thing\nscene-0001.png,\n"
    mine = pictures.parent / "mine.csv"
    mine.write_text(table)
    out = tmp_path / "out"
    code = cli.main(
        ["train", str(tiny), "--out", str(out), "--data", str(mine), "--backend", "numpy"]
    )
    output = capsys.readouterr().out
    assert code == 0
    assert output.count("broken.png") == 1
    assert "more held out" in output
    assert "1 row skipped" in output
    assert "wrote" in output
    assert read_log(out / LOG)[-1]["step"] == 3
    words = miniclip.load(out, backend="numpy").tokenizer
    assert words.vocab_size == 560


def test_own_pictures_are_listed_once(tiny, tmp_path, pictures, monkeypatch):
    """For the vocabulary and for training together: a table of a million rows is read once."""
    reads = Counter()

    def counted(name, method):
        def call(path):
            reads[name, path] += 1
            return method(path)

        monkeypatch.setattr(Path, name, call)

    counted("read_bytes", Path.read_bytes)
    counted("iterdir", Path.iterdir)
    lines = []
    arguments = {"workers": 2, "template": "{}", "report": lines.append, "held_out": 0.0}
    pipeline, data, _ = module.assemble(read_settings(tiny), pictures, None, **arguments)
    assert reads["read_bytes", pictures] == 1
    assert len(data) == 12
    assert lines == ["12 pictures"]
    assert pipeline.tokenizer.vocab_size == 560
    folder = tmp_path / "classes"
    for name in ("red", "blue"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes((pictures.parent / "scene-0001.png").read_bytes())
    pipeline, data, _ = module.assemble(read_settings(tiny), folder, None, **arguments)
    assert reads["iterdir", folder] == 1
    assert pipeline.transform.size == data.load([0], 0)[0].shape[-1] == 32


def test_class_folders(tiny, tmp_path, pictures):
    data = tmp_path / "classes"
    for n, path in enumerate(sorted(pictures.parent.glob("scene-*.png"))):
        folder = data / ("red_things" if n % 2 else "blue-things")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    pipeline = train(tiny, tmp_path / "out", data, template="{}!", report=quiet, backend="numpy")
    assert pipeline.tokenizer.encode("red things!") != pipeline.tokenizer.encode("blue things!")


def test_one_picture_is_refused(tiny, tmp_path, pictures):
    lines = pictures.read_text().splitlines()[:2]
    alone = pictures.parent / "alone.csv"
    alone.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="data: got 1 pair, expected at least 2"):
        train(tiny, tmp_path / "out", alone, report=quiet, backend="numpy")
    assert not (tmp_path / "out").exists()


def test_the_same_command_goes_on(tiny, tmp_path, monkeypatch):
    """Stopped after two steps and started again, it ends in the same bits."""
    whole = train(tiny, tmp_path / "whole", report=quiet, backend="numpy")
    run = module.Trainer.run
    monkeypatch.setattr(module.Trainer, "run", lambda self: run(self, until=2))
    train(tiny, tmp_path / "parts", report=quiet, backend="numpy")
    monkeypatch.undo()
    monkeypatch.setattr(module, "VOCABULARY_SCENES", 300)
    lines = []
    parts = train(tiny, tmp_path / "parts", report=lines.append, backend="numpy")
    assert any("going on from" in line and "step 2" in line for line in lines)
    for name, x in whole.network.state_dict().items():
        np.testing.assert_array_equal(x, parts.network.state_dict()[name])
    with pytest.raises(StateError, match=r"recipe\.batch = 8, expected 4"):
        train(tiny, tmp_path / "parts", changes={"batch": 4}, report=quiet, backend="numpy")


def test_a_foreign_model_is_not_overwritten(tiny, tmp_path):
    out = tmp_path / "out"
    train(tiny, out, report=quiet, backend="numpy")
    (out / STATE).unlink()
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(StateError, match=r"holds a model\.safetensors but no checkpoint"):
        train(tiny, out, report=quiet, backend="numpy")
    assert (out / "model.safetensors").read_bytes() == before


def test_fine_tuning_with_frozen_parts(tiny, tmp_path, pictures):
    """The vocabulary and the sizes are those of the first model; what is frozen stays."""
    first = train(tiny, tmp_path / "first", report=quiet, backend="numpy")
    before = {name: np.array(x) for name, x in first.network.state_dict().items()}
    second = train(
        tiny,
        tmp_path / "second",
        data=pictures,
        init=tmp_path / "first",
        changes={"frozen": ("visual.*", "logit_scale"), "learning_rate": 1e-2},
        report=quiet,
        backend="numpy",
    )
    assert second.tokenizer.merges == first.tokenizer.merges
    for name, x in second.network.state_dict().items():
        kept = name.startswith("visual.") or name == "logit_scale"
        assert np.array_equal(before[name], x) == kept, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 4", "steps = -1"), r"tiny\.toml: steps: got -1"),
        (("steps = 4", "stepps = 4"), "stepps: no field of a recipe"),
        (("[recipe]", "[recipes]"), "recipes: no section; expected model, vocabulary, recipe"),
        (("vocabulary = 560", ""), "vocabulary: missing"),
        (("embed_dim = 16", ""), r"model\.embed_dim: missing"),
        (("width = 32", "width = 33"), r"heads: got 2, expected a divisor of the width 33"),
        (("width = 32", "depth = 3"), "depth"),
        (("steps = 4", "steps = "), r"tiny\.toml: not TOML"),
        (("save_every = 2", "save_every = 2\n[scenes]\nnoise = 1"), r"scenes\.noise: expected"),
    ],
)
def test_wrong_files(tiny, change, message):
    tiny.write_text(tiny.read_text().replace(*change, 1))
    with pytest.raises(ValueError, match=message):
        read_settings(tiny)


def test_wrong_commands(capsys, tmp_path, tiny):
    for arguments, message in (
        (
            ["giga"],
            "PRESET: got 'giga', expected one of nano, mini-vit, mini-rn, mini-emoji, or a .t",
        ),
        (["mini-emoji"], "data: got none, expected --data: mini-emoji says how to use it"),
        ([str(tiny), "--batch", "1"], "batch: got 1"),
        ([str(tiny), "--data", "nowhere.csv"], "nowhere.csv"),
        ([str(tiny), "--init", "nowhere.safetensors"], "nowhere.safetensors"),
        ([str(tiny), "--freeze", "vision.*"], "no parameter's name fits"),
    ):
        assert cli.main(["train", *arguments, "--out", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_evaluate_command(capsys, tiny, tmp_path):
    train(tiny, tmp_path / "out", report=quiet, backend="numpy")
    model = str(tmp_path / "out")
    numpy = ["--backend", "numpy"]  # nothing to compile for a handful of pictures
    assert cli.main(["evaluate", model, "--count", "4", "--json", *numpy]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["count"] == 4
    assert {score["total"] for score in data["scores"] if score["group"] == "all"} == {4}
    assert cli.main(["evaluate", model, "--count", "4", *numpy]) == 0
    assert "held-out" in capsys.readouterr().out
    arguments = ["--count", "2", "--robustness", "--markdown", *numpy]
    assert cli.main(["evaluate", model, *arguments]) == 0
    table = capsys.readouterr().out
    assert table.startswith("|")
    shares = {cell.strip() for row in table.splitlines()[2:] for cell in row.split("|")[3:5]}
    assert shares <= {"0.0%", "50.0%", "100.0%"}  # of two pictures
    assert cli.main(["evaluate", model, "--count", "0", *numpy]) == 2
    assert "--count: got 0" in capsys.readouterr().err


def test_a_finished_run_says_so(tiny, tmp_path, capsys):
    """Another call does nothing to it, and more steps are refused with the way to get them."""
    command = ["train", str(tiny), "--out", str(tmp_path / "out"), "--backend", "numpy"]
    assert cli.main(command) == 0
    model = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert "is finished" not in capsys.readouterr().out
    assert cli.main(command) == 0
    output = capsys.readouterr()
    assert "is finished: all 4 steps are done" in output.out
    assert "going on" not in output.out
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == model
    assert cli.main([*command, "--steps", "6"]) == 2
    error = capsys.readouterr().err
    assert f"choose another --out, with --init {tmp_path / 'out'}" in error
    further = [*command[:3], str(tmp_path / "more"), *command[4:], "--steps", "6"]
    assert cli.main([*further, "--init", str(tmp_path / "out")]) == 0


def test_held_out_pictures_belong_to_the_run(tiny, tmp_path, pictures):
    """Another share is another run; the notes of one without it are those of old ones."""
    own = {"data": pictures, "report": quiet, "backend": "numpy", "progress": False}
    train(tiny, tmp_path / "old", held_out=0, **own)
    assert "held_out" not in read_state(tmp_path / "old" / STATE)[1]
    train(tiny, tmp_path / "old", held_out=0, **own)
    with pytest.raises(StateError, match=r"held_out = None, expected 0\.1"):
        train(tiny, tmp_path / "old", **own)
    train(tiny, tmp_path / "new", held_out=0.25, **own)
    assert read_state(tmp_path / "new" / STATE)[1]["held_out"] == 0.25
    assert len(json.loads((tmp_path / "new" / "held-out.json").read_text())["rows"]) == 3


def test_what_the_scenes_and_the_parts_are_made_with(tiny, tmp_path, pictures):
    """No option of a file at its default, so that one which is not handed on shows."""
    world = "[scenes]\nseed = 3\nwrong = 0.25\nlanguage = 'zh'\ncount = 40\nmix = [0, 1, 0, 0]\n"
    tiny.write_text(tiny.read_text() + "seed = 6\n" + world)
    settings = read_settings(tiny)
    arguments = {"workers": 3, "template": "{}", "report": quiet, "held_out": 0.0}
    pipeline, data, _ = module.assemble(settings, None, None, **arguments)
    assert (data.seed, data.wrong, data.language, len(data), data.size) == (3, 0.25, "zh", 40, 32)
    assert data.world.mix == (0, 1, 0, 0)
    assert data.transform is pipeline.transform
    same = miniclip.CLIP(pipeline.config, seed=6).state_dict()
    np.testing.assert_array_equal(same["visual.proj"], pipeline.network.state_dict()["visual.proj"])
    _, own, _ = module.assemble(settings, pictures, None, **arguments)
    assert (own._seed, own._workers) == (6, 3)  # the choice among captions, the threads
    pipeline = train(tiny, tmp_path / "out", backend="numpy", dtype="float64", report=quiet)
    assert pipeline.network.dtype == np.float64
