"""The parts of `train`, each by what it is given: presets, words, pictures, and who learns what."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from notes import Notes

from miniclip.models import CLIPConfig, TextConfig, VisionConfig
from miniclip.pipeline import Knowledge
from miniclip.tasks.settings import Settings, read_settings
from miniclip.world.scenes import TRAINING_WORLD

module = importlib.import_module("miniclip.tasks.train")  # not a function of that name
VIT = VisionConfig(64, 4, 128, 4, patch_size=16, stride=8)
RN = VisionConfig(64, (1, 1, 1, 1), 16, 8)
AVERAGE = VisionConfig(64, (1, 1, 1, 1), 16, 8, pool="average")


@pytest.mark.parametrize(
    ("name", "embed", "vision", "text", "recipe"),
    [
        ("nano", 64, AVERAGE, (64, 2), (750, 64, 2e-3, 40)),
        ("mini-vit", 128, VIT, (128, 4), (3000, 128, 1e-3, 150)),
        ("mini-rn", 128, RN, (128, 4), (3000, 128, 1e-3, 150)),
    ],
)
def test_presets_number_by_number(name, embed, vision, text, recipe):
    settings = read_settings(name)
    width, heads = text
    texts = TextConfig(context_length=32, vocab_size=740, width=width, heads=heads, layers=2)
    assert settings.config == CLIPConfig(embed, vision, texts)
    assert settings.config_for(600).text.vocab_size == 600
    found = settings.recipe
    assert (found.steps, found.batch, found.learning_rate, found.warm_up) == recipe
    assert settings.scenes == ({"mix": [1.0, 0.0, 0.0, 0.0]} if name == "nano" else {})
    assert (settings.name, settings.vocabulary) == (name, 740)
    assert settings.new_transform().size == 64


def test_changes_are_of_the_recipe_and_none_is_no_change():
    settings = read_settings("nano", {"steps": 7, "batch": None, "seed": 3})
    assert (settings.recipe.steps, settings.recipe.batch, settings.recipe.seed) == (7, 64, 3)


def test_scenes_are_as_many_as_the_run_needs_or_as_the_file_says(monkeypatch):
    notes = Notes()
    monkeypatch.setattr(module, "SceneData", notes.of("data", "scenes"))
    pipeline = SimpleNamespace(transform=SimpleNamespace(size=48))
    recipe = SimpleNamespace(steps=7, batch=5)
    for scenes, count, mix, more in [
        ({}, 35, TRAINING_WORLD.mix, {}),
        ({"count": 9, "mix": [0, 1, 0, 0], "seed": 3}, 9, (0, 1, 0, 0), {"seed": 3}),
    ]:
        notes.clear()
        settings = SimpleNamespace(scenes=scenes, recipe=recipe)
        assert module.scene_data(settings, pipeline) == "scenes"
        ((_, transform, number, options),) = notes
        assert (transform, number, options.pop("world").mix) == (pipeline.transform, count, mix)
        assert options == {"size": 48, **more}


def test_words_are_learned_from_many_captions_of_the_same_seed(monkeypatch):
    notes = Notes()
    data = SimpleNamespace(caption=lambda i, epoch: f"{i} {epoch}")
    monkeypatch.setattr(module, "SceneData", notes.of("data", data))
    monkeypatch.setattr(module, "VOCABULARY_SCENES", 3)
    monkeypatch.setattr(module, "train_merges", notes.of("merges", "merges"))
    monkeypatch.setattr(module, "Tokenizer", notes.of("tokenizer", "tokenizer"))
    settings = Settings("x", {"text": {"context_length": 9}}, 600, None, {"seed": 4})
    assert module.scene_words(settings) == "tokenizer"
    assert notes == [
        ("data", module.no_pictures, 3, 4), ("merges", ["0 0", "1 0", "2 0"], 600),
        ("tokenizer", "merges", {"context_length": 9}),
    ]  # fmt: skip
    notes.clear()
    module.scene_captions(Settings("x", {}, 600, None, {}))
    assert notes == [("data", module.no_pictures, 3, 0)]
    with pytest.raises(RuntimeError, match="only read for its captions"):
        module.no_pictures([])


# ------------------------------------------------------------------------ putting together


@pytest.fixture
def notes(monkeypatch):
    """Notes of what `assemble` asks for; there are two pictures with three captions."""
    notes = Notes()
    rows = [
        SimpleNamespace(captions=captions, label=None, named=None)
        for captions in (("a", "b"), ("c",))
    ]
    pictures = SimpleNamespace(rows=rows, summary=lambda: "2 pictures")
    for name, answer in {
        "load": SimpleNamespace(name="loaded", transform="its own", knows=None),
        "scene_words": "words of scenes", "learn_words": "words of captions",
        "scene_captions": "captions of scenes", "scene_data": "scenes", "learns": None,
        "read_pictures": pictures,
        "new_pipeline": SimpleNamespace(name="new", transform="a new one"),
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, notes.of(name, answer))
    return notes


SETTINGS = SimpleNamespace(
    recipe=SimpleNamespace(seed=6, batch=2), data=None, new_transform=lambda: "a new one"
)


@pytest.mark.parametrize("init", [None, "a/run"])
def test_scenes_for_a_new_or_a_loaded_model(notes, init):
    pipeline, *sources = module.assemble(SETTINGS, None, init, 3, "{}", print)
    assert (pipeline.name, sources) == ("new" if init is None else "loaded", ["scenes", None])
    new = [("scene_words", SETTINGS), ("new_pipeline", SETTINGS, "words of scenes", 6)]
    about = "drawings of coloured shapes, named in English and Chinese"
    assert notes == [
        *(new if init is None else [("load", "a/run", "numpy")]), ("scene_captions", SETTINGS),
        ("learns", pipeline, about, "captions of scenes", init), ("scene_data", SETTINGS, pipeline),
    ]  # fmt: skip


@pytest.mark.parametrize("init", [None, "a/run"])
def test_own_pictures_for_a_new_or_a_loaded_model(notes, init):
    lines = []
    report = lines.append
    pipeline, *sources = module.assemble(SETTINGS, "x/cats.csv", init, 3, "a {}", report, 0.25)
    assert pipeline.name == ("new" if init is None else "loaded")
    assert sources[0] is sources[1]
    assert len(sources[0].rows) == 2
    transform = "a new one" if init is None else "its own"
    options = {"template": "a {}", "workers": 3, "seed": 6, "held_out": 0.25, "report": report,
               "only": None}  # fmt: skip
    new = [("learn_words", ["a", "b", "c"], SETTINGS),
           ("new_pipeline", SETTINGS, "words of captions", 6)]  # fmt: skip
    assert notes == [
        *([] if init is None else [("load", "a/run", "numpy")]),
        ("read_pictures", "x/cats.csv", transform, options),
        *(new if init is None else []),
        ("learns", pipeline, "2 pictures of cats.csv", ["a", "b", "c"], init),
    ]  # fmt: skip
    assert lines == ["2 pictures"]
    notes.clear()
    module.assemble(SETTINGS, "x/cats.csv", init, 3, "a {}", report)
    read = next(note for note in notes if note[0] == "read_pictures")
    assert read[-1]["held_out"] == module.SHARE


def test_what_a_model_knows():
    """A new one the captions; one that goes on both; one that says nothing, nothing."""
    cats = Knowledge.of("cats", ["a cat"])
    dogs = Knowledge.of("dogs", ["a dog"])
    for init, before, after in [
        (None, None, dogs), (None, cats, dogs), ("run", cats, cats.and_then(dogs)),
        ("run", None, None),
    ]:  # fmt: skip
        pipeline = SimpleNamespace(knows=before)
        module.learns(pipeline, "dogs", ["a dog"], init)
        assert pipeline.knows == after


# ------------------------------------------------------------------------ the run


def test_where_a_run_stands():
    def at(step):
        return module.where_it_stands(
            SimpleNamespace(step=step, recipe=SimpleNamespace(steps=9)), Path("out")
        )

    assert at(8) == "going on from out at step 8"
    for step in (9, 10):
        assert at(step) == "out is finished: all 9 steps are done, nothing is left to train"


def test_captions_that_are_too_long_are_cut():
    notes = Notes()
    pipeline = SimpleNamespace(tokenize=notes.of("tokenize", "ids"))
    assert module.shortened(pipeline)(("a", "b")) == "ids"
    assert notes == [("tokenize", ["a", "b"], {"truncate": True})]


def test_a_run_in_one_line():
    class Model:
        network = SimpleNamespace(ops=SimpleNamespace(name="numba"))

        def __repr__(self):
            return "a model"

    parameters = {n: SimpleNamespace(data=np.zeros(shape)) for n, shape in
                  (("a", (30, 50)), ("b", (7,)), ("c", ()))}  # fmt: skip
    trainer = SimpleNamespace(
        recipe=SimpleNamespace(steps=1200), optimizer=SimpleNamespace(parameters=parameters),
        data=range(4321), batch_size=16,
    )  # fmt: skip
    assert module.summary(Model(), trainer) == (
        "a model: 1,508 of them trained, 4,321 pairs, 1200 steps of 16 on numba"
    )


@pytest.mark.parametrize(
    ("asked", "about"),
    [
        ({}, {"data": "scenes", "init": ""}),
        ({"data": Path("x.csv"), "init": "run", "held_out": 0.25},
         {"data": "x.csv", "init": "run", "held_out": 0.25}),
        ({"data": "x.csv", "held_out": 0.0}, {"data": "x.csv", "init": ""}),
    ],
)  # fmt: skip
def test_a_run_is_told_what_it_is(monkeypatch, tmp_path, asked, about):
    """So that another is not taken for its continuation; everything reaches the loop."""
    notes = Notes()
    network = SimpleNamespace(ops="ops")
    network.to = notes.of("to", network)
    pipeline = SimpleNamespace(network=network, save=notes.of("save"))
    recipe = SimpleNamespace(steps=9)
    settings = SimpleNamespace(scenes={"seed": 3}, recipe=recipe, data=None)
    trainer = SimpleNamespace(resume=notes.of("resume", False), run=notes.of("run"))
    monkeypatch.setattr(module, "read_settings", notes.of("settings", settings))
    monkeypatch.setattr(module, "assemble", notes.of("assemble", (pipeline, "source", None)))
    monkeypatch.setattr(module.backends, "choose", notes.of("choose", "chosen"))
    monkeypatch.setattr(module.backends, "describe", notes.of("describe", "numba, chosen"))
    monkeypatch.setattr(module, "shortened", notes.of("shortened", "cut"))
    monkeypatch.setattr(module, "Trainer", notes.of("trainer", trainer))
    monkeypatch.setattr(module, "summary", notes.of("summary", "the summary"))
    monkeypatch.setattr(module, "fingerprints", lambda pipeline, pictures: {"rows": "a hash"})
    lines = []
    report = lines.append
    given = {"backend": "b", "dtype": "float64", "changes": {"steps": 2}, "workers": 5,
             "template": "t {}", "report": report, "progress": False}  # fmt: skip
    assert module.train("what", tmp_path, **given, **asked) is pipeline
    share = asked.get("held_out", module.SHARE)
    assert notes == [
        ("settings", "what", {"steps": 2}), ("choose", "b"),
        ("assemble", settings, asked.get("data"), asked.get("init"), 5, "t {}", report, share,
         "chosen"),
        ("to", "chosen", "float64"), ("describe", "ops"),
        ("shortened", pipeline),
        ("trainer", network, "source", "cut", recipe, tmp_path,
         {**about, "scenes": {"seed": 3}, "rows": "a hash"}, report, False),
        ("resume",), ("summary", pipeline, trainer), ("run",),
        ("save", tmp_path / "model.safetensors"),
    ]  # fmt: skip
    assert lines == [
        "backend numba, chosen",
        "the summary",
        f"wrote {tmp_path / 'model.safetensors'}",
    ]


@pytest.mark.parametrize(
    ("steps", "snapshots", "points"),
    [(100, 0, []), (100, 1, [50]), (100, 3, [25, 50, 75]), (7, 2, [2, 4]), (2, 5, [1]), (1, 3, [])],
)
def test_where_models_are_kept_on_the_way(steps, snapshots, points):
    assert module.points_of(steps, snapshots) == points


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2"])
def test_a_wrong_number_of_snapshots(wrong):
    with pytest.raises(ValueError, match=r"snapshots: got .*, expected a whole number from 0 on"):
        module.points_of(10, wrong)


def test_a_run_with_snapshots_skips_those_that_are_done(monkeypatch, tmp_path):
    """In pieces; a run that is gone on with keeps only what is still to come."""
    notes = Notes()
    network = SimpleNamespace(ops="ops")
    network.to = lambda *a: network
    pipeline = SimpleNamespace(network=network, save=notes.of("save"))
    settings = SimpleNamespace(scenes={}, recipe=SimpleNamespace(steps=8), data=None)
    trainer = SimpleNamespace(
        resume=lambda: True, run=notes.of("run"), step=3, recipe=settings.recipe
    )
    monkeypatch.setattr(module, "read_settings", lambda *a: settings)
    monkeypatch.setattr(module, "assemble", lambda *a: (pipeline, "source", None))
    monkeypatch.setattr(module.backends, "choose", lambda name: name)
    monkeypatch.setattr(module.backends, "describe", lambda ops: "")
    monkeypatch.setattr(module, "Trainer", lambda *a: trainer)
    monkeypatch.setattr(module, "summary", lambda *a: "")
    monkeypatch.setattr(module, "fingerprints", lambda *a: {})
    module.train("what", tmp_path, report=lambda line: None, snapshots=3)
    assert notes == [
        ("run", {"until": 4}), ("save", tmp_path / "snapshots/step-4/model.safetensors"),
        ("run", {"until": 6}), ("save", tmp_path / "snapshots/step-6/model.safetensors"),
        ("run",), ("save", tmp_path / "model.safetensors"),
    ]  # fmt: skip
