"""Every option of every command, once: what it changes is looked at, not that it is taken.

The options come from the parsers. One without an effect here fails `test_it_has_an_effect`: add a
function under `@effect(COMMAND, OPTION)`. It is given `at`, with small models and a way to run.
"""

import argparse
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import drawn
import numpy as np
import pytest
import task_checks
from emoji_packages import write_packages
from pipelines import make_pipeline, scene_pipeline
from safetensors.numpy import load_file, save_file

import miniclip.pipeline
from miniclip import cli
from miniclip.backends import numpy as ops_of_numpy
from miniclip.bench import memory, subjects
from miniclip.bench import run as bench_run
from miniclip.checkpoints.shipped import DEFAULT
from miniclip.cli.parser import Parser
from miniclip.course import grade as grade_module
from miniclip.course.exercise import Exercise
from miniclip.tasks import probe
from miniclip.tasks import train as train_module
from miniclip.tasks.draw import draw_scenes
from miniclip.tasks.verify import KnownAnswer
from miniclip.training import gradients, loop, pictures
from miniclip.training.report import LOG, read_log
from miniclip.training.state import read_state

FEW = 120  # captions that a vocabulary is learned from
TINY = """
vocabulary = 560
[model]
embed_dim = 16
vision = {image_resolution = 32, layers = 1, width = 32, heads = 2, patch_size = 8}
text = {context_length = 48, width = 32, heads = 2, layers = 1}
[recipe]
steps = 1
batch = 4
warm_up = 0
frozen = ["text_projection"]
"""
EFFECTS = {}


def effect(command, *options):
    def register(function):
        for option in options:
            EFFECTS[command, option] = function
        return function

    return register


def options_of(parser, command=()):
    """(command, option or positional argument, its action), of a parser and those inside it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from options_of(inner, (*command, name))
        elif not isinstance(action, (argparse._HelpAction, argparse._VersionAction)):
            name = action.option_strings[-1] if action.option_strings else action.metavar
            yield " ".join(command), name, action


ALL = list(options_of(cli.make_parser()))


class At:
    """Small models, pictures, a configuration file, and runs of the command line."""

    def __init__(self, root):
        self.root, self.runs = root, {}
        self.model, self.scenes = root / "model", root / "scenes-model"
        make_pipeline().save(self.model / "model.safetensors")
        scene_pipeline().save(self.scenes / "model.safetensors")
        self.picture, self.other = root / "a.png", root / "b.png"
        rng = np.random.default_rng(0)
        for path, thing in ((self.picture, "a red circle"), (self.other, "a blue square")):
            drawn.draw(thing, rng, 64).save(path)
        self.toml = root / "tiny.toml"
        self.toml.write_text(TINY)
        self.table = draw_scenes(10, root / "table")
        for n, name in enumerate(("red_things", "blue_things")):
            (root / "classes" / name).mkdir(parents=True)
            for i in range(4):
                path = root / "table" / f"scene-{4 * n + i:04d}.png"
                (root / "classes" / name / path.name).write_bytes(path.read_bytes())
        self.classes = root / "classes"
        self.solutions = Path(__file__).parents[2] / "notebooks" / "solutions"

    def run(self, *arguments):
        """The output of a command that ends well."""
        assert cli.main([str(a) for a in arguments]) == 0
        output = self.capsys.readouterr()
        return output.out

    def fails(self, *arguments):
        """The error of a command that is refused."""
        assert cli.main([str(a) for a in arguments]) == 2
        return self.capsys.readouterr().err

    def help_of(self, command):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        return self.capsys.readouterr().out

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json"))

    def ask(self, *arguments):
        return self.json(
            "zero-shot", self.picture, "--labels", "red", "blue", "--model", self.model,
            "--backend", "numpy", *arguments,
        )  # fmt: skip

    def train(self, *arguments):
        """The folder of a run; the same arguments are run once."""
        key = tuple(map(str, arguments))
        if key not in self.runs:
            out = self.root / f"run-{len(self.runs)}"
            self.run("train", self.toml, "--out", out, "--backend", "numpy", *arguments)
            self.runs[key] = out
        return self.runs[key]

    def bench(self, *arguments, kind=("--towers", "text", "--ours", "numpy", "--rounds", "1")):
        """What a record says of a model on NumPy."""
        file = self.root / "record.json"
        given = {*arguments}
        usual = {"--models": self.model, "--batches": 2, "--threads": 1, "--json": file}
        if "--rounds" in kind:
            usual |= {"--pause": 0}
        rest = [x for name, value in usual.items() if name not in given for x in (name, value)]
        self.out = self.run("bench", *kind, *rest, *arguments)
        return json.loads(file.read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return At(tmp_path_factory.mktemp("options"))


@pytest.fixture
def at(made, capsys, monkeypatch):
    monkeypatch.setattr(train_module, "VOCABULARY_SCENES", FEW)
    monkeypatch.setattr(subjects, "CEILING_SIDE", 64)
    monkeypatch.chdir(made.root)
    made.capsys, made.patch = capsys, monkeypatch.setattr
    made.loaded = []
    load = miniclip.pipeline.load

    def noted(*arguments, **more):
        made.loaded.append(load(*arguments, **more))
        return made.loaded[-1]

    monkeypatch.setattr(miniclip.pipeline, "load", noted)
    return made


@pytest.mark.parametrize(("command", "option"), [(c, o) for c, o, _ in ALL])
def test_it_has_an_effect(command, option, at):
    assert (command, option) in EFFECTS, f"miniclip {command} {option}: no effect is tested"
    EFFECTS[command, option](at)


def test_effects_are_those_of_options():
    assert set(EFFECTS) == {(command, option) for command, option, _ in ALL}


@pytest.mark.parametrize(("command", "option", "action"), ALL, ids=lambda v: str(v)[:30])
def test_its_help_is_whole(command, option, action):
    """It says what the option is and, where it may be left out, what then holds."""
    text = action.help % {"default": action.default}
    assert len(text.split()) >= 4, text
    if action.option_strings and not action.required and action.nargs != 0:
        assert "default: " in text, text
    if action.default not in (None, False, "") and action.option_strings and action.nargs != 0:
        assert f"default: {action.default}" in text, text


def test_no_option_is_taken_by_its_beginning():
    parsers = [cli.make_parser()]
    while parsers:
        parser = parsers.pop()
        assert isinstance(parser, Parser)
        assert not parser.allow_abbrev
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()


NUMBERS = [(c, o) for c, o, a in ALL if a.type in (int, float)]


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_a_wrong_number_is_one_line_that_names_the_option(command, option, at):
    new = at.root / "new"
    beside = {
        "train": [at.toml, "--out", new, "--backend", "numpy"],
        "evaluate": [at.scenes, "--backend", "numpy"],
        "zero-shot": [at.picture, "--labels", "a", "b"],
        "draw": ["--folder", new],
        "bench": ["--models", at.model, *(["--memory"] if option == "--pictures" else [])],
        "check": ["relu"],
        "course new": [new],
        "course grade": [at.solutions],
        "course build": ["--out", new],
    }[command]
    if option in ("--workers", "--held-out"):
        beside += ["--data", at.table]
    arguments = [*command.split(), *beside, option, "-1"]
    assert cli.main([str(a) for a in arguments]) == 2
    error = at.capsys.readouterr().err
    assert error.startswith(f"miniclip: error: {option}: got -1")
    assert error.count("\n") == 1
    assert not new.exists()


TRAIN = ("train", "tiny.toml", "--out", "new")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "--template", "a {}"], "--template: got 'a {}' without --data"),
        ([*TRAIN, "--workers", "1"], "--workers: got 1 without --data"),
        ([*TRAIN, "--held-out", "0"], "--held-out: got 0.0 without --data"),
        ([*TRAIN, "--freeze", "vision.*"], "--freeze: no parameter's name fits 'vision.*'"),
        ([*TRAIN, "--data", "table", "--held-out", "1"], "--held-out: got 1.0, expected"),
        ([*TRAIN, "--data", "classes", "--template", "a"], "--template: got 'a', expected"),
        (["evaluate", "model", "--template", "a {}"], "--template: got 'a {}' without --data"),
        (["evaluate", "model", "--data", "table", "--count", "3"], "--count: got it beside --data"),
        (["evaluate", "model", "--data", "table", "--probe"], "--probe: got it beside --data"),
        (["evaluate", "model", "--data", "nowhere"], "nowhere: no such file or folder"),
        (["bench", "--pictures", "3"], "--pictures: got 3 without --memory"),
        (["bench", "--memory", "--rounds", "3"], "--rounds: got it beside --memory"),
        (["bench", "--training", "--ours", "numpy"], "--ours: got it beside --training"),
        (["bench", "--ours", "cupy"], "--ours: got 'cupy', expected one of"),
        (
            ["zero-shot", "a.png", "--labels", "a", "b.png"],
            "--labels: got the picture 'b.png' as a label; all words after",
        ),
        (["zero-shot", "a.png", "--labels", "a", "a"], "--labels: got 'a' twice"),
        (["zero-shot", "a.png", "--labels", "a", "--model", "nowhere"], "--model: got 'nowhere'"),
        (["draw", "plaid sofa"], "THING: got 'plaid sofa'"),
        (["check", "layernorm"], "OP: got 'layernorm', expected one of linear, conv2d"),
        (["course", "grade", "table"], "FOLDER: table has no notebook such as 02-chain-rule.ipynb"),
        (["course", "grade", "table", "--limit", "0"], "--limit: got 0.0, expected seconds"),
        (["course", "build", "--source", "table"], "--source: table has no file such as 02-chain"),
        (["course", "build", "--check", "--seed", "3"], "--seed: got it beside --check"),
        (["draw"], "THING: expected names"),
    ],
)
def test_a_wrong_command_is_one_line_that_names_what_was_typed(arguments, message, at):
    assert cli.main(arguments) == 2
    error = at.capsys.readouterr().err
    assert error.startswith(f"miniclip: error: {message}")
    assert error.count("\n") == 1
    assert not (at.root / "new").exists()


def test_an_error_of_a_file_keeps_the_files_name(at):
    """The key of a file is not called an option, which nobody has typed."""
    file = at.root / "wrong.toml"
    file.write_text(TINY.replace("batch = 4", "batch = 1"))
    assert cli.main(["train", str(file), "--out", "new", "--steps", "3"]) == 2
    assert at.capsys.readouterr().err.startswith(f"miniclip: error: {file}: batch: got 1")


# ------------------------------------------------------------------------ zero-shot


@effect("zero-shot", "IMAGE")
def _(at):
    arguments = ["--labels", "red", "blue", "--model", at.model, "--backend", "numpy"]
    answers = at.json("zero-shot", at.other, at.picture, *arguments)
    assert [Path(answer["image"]).name for answer in answers] == ["b.png", "a.png"]
    piped = io.TextIOWrapper(io.BytesIO(at.picture.read_bytes()))
    at.patch(sys, "stdin", piped)
    (answer,) = at.json("zero-shot", "-", *arguments)
    assert answer["image"] == "-"
    for label, same in zip(answer["answers"], answers[1]["answers"], strict=True):
        assert label["label"] == same["label"]
        assert label["cosine"] == pytest.approx(same["cosine"], abs=1e-5)  # one picture, or two


@effect("zero-shot", "--truncate")
def _(at):
    long = "a red circle " * 80
    arguments = ["zero-shot", at.picture, "--labels", long, "blue", "--model", at.model]
    assert at.fails(*arguments).startswith("miniclip: error: --labels: ")
    assert "--truncate" in at.fails(*arguments)
    assert "blue" in at.run(*arguments, "--truncate")


@effect("zero-shot", "--skip")
def _(at):
    broken = at.root / "broken.png"
    broken.write_bytes(b"no picture")
    arguments = ["zero-shot", broken, at.picture, "--labels", "red", "blue", "--model", at.model]
    assert "broken.png" in at.fails(*arguments)
    shown = at.run(*arguments, "--skip")
    assert "skipped: " in shown
    assert "a.png" in shown


@effect("zero-shot", "--labels")
def _(at):
    assert {answer["label"] for answer in at.ask()[0]["answers"]} == {"red", "blue"}
    asked = ["zero-shot", "--model", at.model, "--backend", "numpy", "--labels", "one", "two"]
    assert "one" in at.run(*asked, "--", at.picture)


@effect("zero-shot", "--model")
def _(at):
    at.ask()
    assert at.loaded[-1].config == make_pipeline().config
    at.run("zero-shot", at.picture, "--labels", "a red circle", "a star", "--backend", "numpy")
    assert at.loaded[-1].name == DEFAULT
    assert f"default: {DEFAULT}" in " ".join(at.help_of("zero-shot").split())


@effect("zero-shot", "--templates")
def _(at):
    assert at.ask("--templates", "a photo of {}") != at.ask() == at.ask("--templates", "{}")
    assert at.ask("--templates", "imagenet7") != at.ask()


@effect("zero-shot", "--top")
def _(at):
    arguments = ["--labels", *"abcdefg", "--model", at.model, "--backend", "numpy"]
    for given, lines in (([], 5), (["--top", 3], 3)):
        shown = at.run("zero-shot", at.picture, *arguments, *given).splitlines()
        assert len(shown) == 1 + lines + 1  # the picture before, who answered behind


@effect("zero-shot", "--json")
def _(at):
    assert at.ask()[0]["answers"][0].keys() == {"label", "cosine", "logit", "probability"}


@effect("zero-shot", "--backend")
def _(at):
    at.ask()
    assert at.loaded[-1].network.ops.name == "numpy"


def bare(at):
    """The model as one file that says nothing of its activation, its vocabulary beside it."""
    file = at.root / "bare" / "weights.safetensors"
    if not file.exists():
        file.parent.mkdir()
        for name in ("vocab.json", "merges.txt"):
            (file.parent / name).write_bytes((at.model / name).read_bytes())
        save_file(load_file(at.model / "model.safetensors"), file)
    return file


@effect("zero-shot", "--activation")
def _(at):
    answers = [at.ask("--model", bare(at), "--activation", a) for a in ("gelu", "quick_gelu")]
    assert answers[0] != answers[1]
    assert [p.config.vision.activation for p in at.loaded[-2:]] == ["gelu", "quick_gelu"]


# ------------------------------------------------------------------------ doctor


@effect("doctor", "--json")
def _(at):
    report = at.json("doctor")
    assert report["ok"] is True
    assert "everything that should work does" in at.run("doctor")


# ------------------------------------------------------------------------ draw


@effect("draw", "THING", "--folder")
def _(at):
    out = at.run("draw", "red circle", "blue star", "--folder", at.root / "drawn")
    assert out.split() == [str(at.root / "drawn" / n) for n in ("red-circle.png", "blue-star.png")]
    assert all(Path(line).is_file() for line in out.split())


@effect("draw", "--scenes")
def _(at):
    table = Path(at.run("draw", "--scenes", 3, "--folder", at.root / "three").strip())
    assert len(table.read_text().splitlines()) == 4
    assert len(list(table.parent.glob("*.png"))) == 3


# ------------------------------------------------------------------------ train


def rows(folder):
    return read_log(folder / LOG)


def weights(folder):
    return load_file(folder / "model.safetensors")


def differing(a, b):
    a, b = weights(a), weights(b)
    return {name for name in a if not np.array_equal(a[name], b[name])}


def recipe(folder):
    return read_state(folder / loop.STATE)[1]["recipe"]


@effect("train", "PRESET")
def _(at):
    plain = weights(at.train())
    assert plain["text_projection"].shape == (32, 16)  # as the file says
    other = at.root / "wider.toml"
    other.write_text(TINY.replace("embed_dim = 16", "embed_dim = 24"))
    out = at.root / "wider"
    at.run("train", other, "--out", out, "--backend", "numpy")
    assert weights(out)["text_projection"].shape == (32, 24)


@effect("train", "--snapshots")
def _(at):
    out = at.train("--steps", "7", "--snapshots", "2")
    kept = sorted(path.name for path in (out / "snapshots").iterdir())
    assert kept == ["step-2", "step-4"]
    some = [weights(out / "snapshots" / name)["text_projection"] for name in kept]
    frozen = np.array_equal(*some)  # as the file says
    assert frozen
    other = "visual.conv1.weight"
    first, second = (weights(out / "snapshots" / name)[other] for name in kept)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, weights(out)[other])
    plain = at.train("--steps", "7")
    assert np.array_equal(weights(plain)[other], weights(out)[other])
    assert not (plain / "snapshots").exists()
    error = at.fails("train", at.toml, "--out", at.root / "new", "--snapshots", "-1")
    assert error.startswith("miniclip: error: --snapshots: got -1, expected a whole number from 0")


@effect("train", "--out")
def _(at):
    names = {"model.safetensors", "vocab.json", "merges.txt", "knows.json"}
    names |= {loop.STATE, LOG, "loss.png"}
    assert {path.name for path in at.train().iterdir()} == names


@effect("train", "--data")
def _(at):
    """A folder that holds captions.csv is that file; the run says what it has read."""
    for data in (at.table, at.table.parent):
        record = json.loads((at.train("--data", data) / "held-out.json").read_text())
        assert record["source"] == str(data)
        assert len(record["rows"]) == 1  # a tenth of ten
    a, b = at.train("--data", at.table), at.train("--data", at.table.parent)
    assert not differing(a, b)
    assert differing(a, at.train())


@effect("train", "--template")
def _(at):
    classes = []
    for given in ([], ["--template", "{}!"]):
        folder = at.train("--data", at.classes, *given)
        classes.append(json.loads((folder / "held-out.json").read_text())["classes"])
    assert classes[0] == ["a photo of a blue things", "a photo of a red things"]
    assert classes[1] == ["blue things!", "red things!"]


@effect("train", "--held-out")
def _(at):
    for given, kept in (([], 1), (["--held-out", "0.5"], 5), (["--held-out", "0"], 0)):
        folder = at.train("--data", at.table, *given)
        assert len(json.loads((folder / "held-out.json").read_text())["rows"]) == kept
        assert read_state(folder / loop.STATE)[1]["pairs"] == 10 - kept


@effect("train", "--workers")
def _(at):
    pools = []
    make = pictures.ThreadPoolExecutor
    at.patch(pictures, "ThreadPoolExecutor", lambda n: (pools.append(n), make(n))[1])
    at.train("--data", at.table, "--workers", 5, "--seed", 11)
    assert set(pools) == {5}


@effect("train", "--init")
def _(at):
    first = at.train()
    later = at.train("--init", first, "--freeze", "visual.*", "--seed", 5)
    assert not any(name.startswith("visual.") for name in differing(first, later))
    other = at.train("--freeze", "visual.*", "--seed", 5)
    assert any(name.startswith("visual.") for name in differing(first, other))


@effect("train", "--freeze")
def _(at):
    """Instead of what the file freezes; without it, the file's hold."""
    base = at.train()
    start = miniclip.CLIP(miniclip.load(base, backend="numpy").config, seed=0).state_dict()
    assert np.array_equal(weights(base)["text_projection"], start["text_projection"])
    frozen = weights(at.train("--freeze", "visual.*", "logit_scale"))
    assert not np.array_equal(frozen["text_projection"], start["text_projection"])
    for name in start:
        kept = name.startswith("visual.") or name == "logit_scale"
        assert not kept or np.array_equal(frozen[name], start[name]), name


@effect("train", "--steps")
def _(at):
    assert [len(rows(at.train(*given))) for given in ([], ["--steps", 3])] == [1, 3]


@effect("train", "--batch")
def _(at):
    assert [rows(at.train(*given))[0]["pairs"] for given in ([], ["--batch", 6])] == [4, 6]


@effect("train", "--chunk")
def _(at):
    seen = []
    slices = gradients.slices
    at.patch(gradients, "slices", lambda n, chunk: (seen.append(chunk), slices(n, chunk))[1])
    at.train("--chunk", 3)
    assert set(seen) == {3}


@effect("train", "--learning-rate")
def _(at):
    rates = [rows(at.train(*given))[0]["rate"] for given in ([], ["--learning-rate", "0.25"])]
    assert rates == [1e-3, 0.25]


@effect("train", "--warm-up")
def _(at):
    assert rows(at.train("--warm-up", 8))[0]["rate"] == pytest.approx(1e-3 / 8)


@effect("train", "--weight-decay")
def _(at):
    """After one step, matrices are shorter by the rate's share of the difference; gains are not."""
    a, b = weights(at.train()), weights(at.train("--weight-decay", "0.9"))
    start = miniclip.CLIP(miniclip.load(at.train(), backend="numpy").config, seed=0).state_dict()
    name = "visual.proj"
    assert np.allclose(a[name] - b[name], 1e-3 * 0.8 * start[name], atol=1e-7)
    assert np.array_equal(a["visual.ln_pre.weight"], b["visual.ln_pre.weight"])


@effect("train", "--seed")
def _(at):
    assert rows(at.train())[0]["loss"] != rows(at.train("--seed", 7))[0]["loss"]


@effect("train", "--save-every")
def _(at):
    saved = []
    save = loop.Trainer.save
    at.patch(loop.Trainer, "save", lambda self: (saved.append(self.step), save(self))[1])
    at.train("--steps", 5, "--save-every", 2)
    assert saved == [2, 4, 5]


@effect("train", "--loss")
def _(at):
    folder = at.train("--loss", "sigmoid")
    assert "objective.logit_bias" in read_state(folder / loop.STATE)[0]
    assert "objective.logit_bias" not in read_state(at.train() / loop.STATE)[0]
    assert recipe(folder)["loss"] == "sigmoid"


@effect("train", "--backend")
def _(at):
    out = at.run("train", at.toml, "--out", at.root / "on-numpy", "--backend", "numpy")
    assert "on numpy" in out


# ------------------------------------------------------------------------ evaluate


def evaluated(at, *arguments, model=None):
    return at.json("evaluate", model or at.scenes, "--backend", "numpy", *arguments)


@effect("evaluate", "MODEL", "--count", "--json")
def _(at):
    data = evaluated(at, "--count", 3)
    assert data["count"] == 3
    assert data["scores"][0]["total"] == 3
    assert at.loaded[-1].config == scene_pipeline().config


@effect("evaluate", "--robustness")
def _(at):
    """With --count, which the rows repeat and their shares show: of 2 scenes there are halves."""
    rows = evaluated(at, "--robustness", "--count", 2)
    assert {row["count"] for row in rows} == {2}
    assert {row["change"] for row in rows} >= {"none", "noise", "style"}
    assert {row[kind] for row in rows for kind in ("seen", "held_out")} <= {0.0, 0.5, 1.0}


@effect("evaluate", "--probe")
def _(at):
    with pytest.MonkeyPatch.context() as patch:
        task_checks.quick(patch, probe)
        rows = evaluated(at, "--probe", "--count", 2)
    assert {row["shots"] for row in rows} == {1, 2}  # all of 2, and fewer


@effect("evaluate", "--markdown")
def _(at):
    out = at.run("evaluate", at.scenes, "--backend", "numpy", "--count", 1, "--markdown")
    assert all(line.startswith("|") for line in out.splitlines() if line)


@effect("evaluate", "--data")
def _(at):
    data = evaluated(at, "--data", at.table, model=at.model)
    assert (data["pictures"], data["source"]) == (10, str(at.table))
    assert {score["question"] for score in data["scores"]} == {"image to text", "text to image"}
    data = evaluated(at, "--data", at.classes, model=at.model)
    assert {score["question"] for score in data["scores"]} == {"class"}
    # of a run's own folder: what it held out, asked for or not
    run = at.train("--data", at.table, "--held-out", "0.5")
    for given in ([], ["--data", at.table]):
        data = evaluated(at, *given, model=run)
        assert (data["pictures"], data["held_out"]) == (5, True)


@effect("evaluate", "--template")
def _(at):
    texts = []
    encode = miniclip.pipeline.Pipeline.encode_text

    def noted(self, given, **more):
        texts.append(given)
        return encode(self, given, **more)

    at.patch(miniclip.pipeline.Pipeline, "encode_text", noted)
    evaluated(at, "--data", at.classes, "--template", "the {}", model=at.model)
    assert texts == [["the blue things", "the red things"]]


@effect("evaluate", "--backend")
def _(at):
    evaluated(at, "--count", 1)
    assert at.loaded[-1].network.ops.name == "numpy"


@effect("evaluate", "--activation")
def _(at):
    evaluated(at, "--data", at.classes, "--activation", "gelu_tanh", model=bare(at))
    assert at.loaded[-1].config.vision.activation == "gelu_tanh"


# ------------------------------------------------------------------------ data


def emoji_packages_at(at):
    folder = at.root / "packages"
    return folder if folder.exists() else write_packages(folder)


@effect("data emoji", "--from", "--out")
def _(at):
    packages = emoji_packages_at(at)
    text = at.run("data", "emoji", "--from", packages, "--out", at.root / "emoji-a")
    assert f"{at.root / 'emoji-a'}: 47 pictures (" in text
    assert "drawn now)\n4 things, 1 of them held out\n" in text
    assert "  openmoji                         4\n" in text
    at.run("data", "emoji", "--from", packages)
    assert (at.root / "data" / "emoji" / "metadata.jsonl").is_file()
    empty = at.root / "no-packages"
    empty.mkdir(exist_ok=True)
    error = at.fails("data", "emoji", "--from", empty, "--out", at.root / "emoji-b")
    assert error.startswith(f"miniclip: error: {empty}/@iconify-json/noto/package.json: missing;")


@effect("data emoji", "--languages")
def _(at):
    out = at.root / "emoji-c"
    arguments = ("data", "emoji", "--from", emoji_packages_at(at), "--out", out)
    at.run(*arguments, "--languages", "en")
    first = json.loads((out / "metadata.jsonl").read_text().splitlines()[0])
    assert list(first["names"]) == ["en"]
    at.run(*arguments)
    first = json.loads((out / "metadata.jsonl").read_text().splitlines()[0])
    assert list(first["names"]) == ["en", "zh"]
    error = at.fails(*arguments, "--languages", "xx")
    assert error.startswith("miniclip: error: --languages: got 'xx', which cldr-annotations-full")


@effect("evaluate", "--page")
def _(at):
    out = at.root / "emoji-e"
    at.run("data", "emoji", "--from", emoji_packages_at(at), "--out", out)
    page = at.root / "page.html"
    at.run("evaluate", at.scenes, "--data", out, "--backend", "numpy", "--page", page)
    assert page.read_text().count("data:image/png") == 4
    error = at.fails("evaluate", at.scenes, "--data", at.classes, "--page", page)
    assert error.startswith(f"miniclip: error: --page: got {page}, expected --data to name a set")
    assert "--page: got" in at.fails("evaluate", at.scenes, "--page", page)


@effect("data emoji", "--json")
def _(at):
    out = at.root / "emoji-d"
    made = at.json("data", "emoji", "--from", emoji_packages_at(at), "--out", out)
    assert (made["folder"], made["pictures"], made["styles"]["noto"]) == (str(out), 47, 4)


# ------------------------------------------------------------------------ verify and weights


def verified(at, *arguments, code=0):
    known = KnownAnswer("toy", "", lambda *_: np.ones(1), [1], 0, "", picture=("a.png", "here"))
    at.patch("miniclip.tasks.verify.KNOWN", [known])
    given = ["verify", bare(at), "--json", "--backend", "numpy", "--activation", "gelu"]
    load = miniclip.pipeline.load

    def renamed(*arguments, **more):
        pipeline = load(*arguments, **more)
        pipeline.name = "toy"
        return pipeline

    at.patch(miniclip.pipeline, "load", renamed)
    assert cli.main([*map(str, given), *map(str, arguments)]) == code
    return json.loads(at.capsys.readouterr().out)


@effect("verify", "--pictures")
def _(at):
    assert verified(at, "--pictures", at.root)["rows"][0]["status"] == "pass"
    assert verified(at, "--pictures", at.classes, code=1)["rows"][0]["status"] == "skip"


@effect("verify", "MODEL", "--json", "--backend", "--activation")
def _(at):
    assert verified(at)["count"] == {"pass": 1, "fail": 0, "skip": 0}
    assert at.loaded[-1].config.vision.activation == "gelu"
    assert at.loaded[-1].network.ops.name == "numpy"


@effect("weights download", "MODEL")
def _(at):
    at.patch("miniclip.checkpoints.hub.download", lambda name: SimpleNamespace(path=f"got {name}"))
    assert at.run("weights", "download", "ViT-B/32") == "got ViT-B/32\n"


@effect("weights path", "MODEL")
def _(at):
    at.patch("miniclip.checkpoints.hub.cached_path", lambda name: f"kept {name}")
    assert at.run("weights", "path", "ViT-B/32") == "kept ViT-B/32\n"


@effect("weights check", "MODEL")
def _(at):
    assert str(at.model / "model.safetensors") in at.run("weights", "check", at.model)


# ------------------------------------------------------------------------ bench


@effect("bench", "--models", "--batches", "--towers", "--ours", "--rounds", "--json")
def _(at):
    record = at.bench("--batches", 3, kind=("--towers", "text", "--ours", "numpy", "--rounds", "2"))
    (case,) = record["cases"]
    assert (case["model"], case["tower"], case["batch"]) == (str(at.model), "text", 3)
    assert list(case["subjects"]) == ["numpy"]
    assert case["rounds"] == 2


@effect("bench", "--threads", "--pause")
def _(at):
    record = at.bench("--threads", 1, "--pause", "0.005")
    assert (record["machine"]["threads"], record["pause_ms"]) == (1, 5)


@effect("bench", "--seconds")
def _(at):
    seen = []

    def times(subjects, limits):
        seen.append(limits.seconds)
        return {name: [1.0] for name in [*(s.name for s in subjects), subjects_ceiling]}

    subjects_ceiling = subjects.CEILING
    at.patch(bench_run, "take_times", times)
    at.bench("--seconds", "7")
    assert seen == [7]


@effect("bench", "--against")
def _(at):
    asked = []
    at.patch(bench_run.peers, "torch_subjects", lambda *_: asked.append(1) or [])
    at.bench("--against", "torch")
    at.bench()
    assert asked == [1]


@effect("bench", "--activation")
def _(at):
    seen = []
    load = bench_run.load_weights
    at.patch(bench_run, "load_weights", lambda *a: (seen.append(a[1]), load(*a))[1])
    at.bench("--models", bare(at), "--activation", "gelu")
    assert seen == ["gelu"]


@effect("bench", "--training")
def _(at):
    ours = [bench_run.Subject(name, lambda: 1.0) for name in ("numba", bench_run.training.FULL)]
    at.patch(bench_run.training, "our_training", lambda *_: ours)
    record = at.bench(kind=("--training", "--rounds", "1"))
    assert record["kind"] == record["cases"][0]["tower"] == "training"


@effect("bench", "--memory", "--pictures")
def _(at):
    jobs = []
    at.patch(memory, "own_memory", lambda: 1.0)
    at.patch(memory, "measure", lambda job: (jobs.append(job), memory.Peak(1, 2, 2, 2))[1])
    assert at.bench("--pictures", 9, kind=("--memory",))["kind"] == "memory"
    assert [(job.count, job.repeated) for job in jobs] == [(2, False), (9, True)]


# ------------------------------------------------------------------------ check and course


@effect("check", "OP", "--seed")
def _(at):
    out = at.run("check", "relu")
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "ok    (7,)", "ok    (3, 4)", "ok    (2, 3, 2, 2)",
    ]  # fmt: skip
    assert out != at.run("check", "relu", "--seed", 3)
    at.patch(ops_of_numpy, "relu_backward", lambda dy, x: -dy * (x > 0))
    assert cli.main(["check", "relu"]) == 1
    assert "WRONG (7,): dx has the opposite sign" in at.capsys.readouterr().out


@effect("check", "--backend")
def _(at):
    at.patch(ops_of_numpy, "relu_backward", lambda dy, x: -dy * (x > 0))
    assert "WRONG" not in at.run("check", "relu", "--backend", "numba")


@effect("course new", "FOLDER", "--seed")
def _(at):
    folder = at.root / "learner"
    shutil.rmtree(folder, ignore_errors=True)
    out = at.run("course", "new", folder, "--seed", 5)
    notebook = folder / "notebooks" / "02-chain-rule.ipynb"
    assert str(notebook) in out.splitlines()
    assert "SEED = 5" in notebook.read_text()
    assert f"{notebook}: kept as it is" in at.run("course", "new", folder).splitlines()


@effect("course grade", "FOLDER", "--json")
def _(at):
    out = at.run("course", "grade", at.solutions)
    assert "\n6 of 6\n" in out
    grades = at.json("course", "grade", at.solutions)
    assert (grades["right"], grades["total"], grades["absent"]) == (6, 6, [])
    at.run("course", "new", at.root / "open")
    assert cli.main(["course", "grade", str(at.root / "open")]) == 1
    assert "0 of 6" in at.capsys.readouterr().out


@effect("course grade", "--limit", "--seed", "--source")
def _(at):
    given = []
    at.patch(grade_module, "verdict_of", lambda *arguments: (given.append(arguments), "")[1])
    at.run("course", "grade", at.solutions, "--limit", 7, "--seed", 2, "--source", small_source(at))
    assert [arguments[1] for arguments in given] == ["sum_to_shape"]
    assert {arguments[3:] for arguments in given} == {(2, 7.0)}
    at.run("course", "grade", at.solutions)
    assert {arguments[3:] for arguments in given[1:]} == {(0, 10.0)}


def small_source(at):
    """A folder with a source of one exercise."""
    folder = at.root / "small-source"
    folder.mkdir(exist_ok=True)
    text = (Path(__file__).parents[2] / "notebooks" / "src" / "02-chain-rule.py").read_text()
    (folder / "02-chain-rule.py").write_text(text[: text.index("# %% [markdown]\n# ## 2.")])
    return folder


@effect("course build", "--source", "--out")
def _(at):
    out = at.root / "built"
    paths = at.run("course", "build", "--source", small_source(at), "--out", out).split()
    assert paths == [str(out / part / "02-chain-rule.ipynb") for part in (".", "solutions")]
    assert "measured_gradient" not in Path(paths[0]).read_text()
    at.run("course", "build")
    assert (at.root / "notebooks" / "02-chain-rule.ipynb").is_file()


@effect("course build", "--seed", "--nbgrader")
def _(at):
    out = at.root / "built-for-nbgrader"
    at.run("course", "build", "--out", out, "--seed", 5, "--nbgrader")
    text = (out / "02-chain-rule.ipynb").read_text()
    assert "SEED = 5" in text
    assert '"nbgrader": {' in text


@effect("course build", "--check")
def _(at):
    out = at.root / "built-to-check"
    at.run("course", "build", "--out", out)
    assert at.run("course", "build", "--out", out, "--check").startswith(f"{out}: every notebook")
    (out / "02-chain-rule.ipynb").write_text("{}")
    assert cli.main(["course", "build", "--out", str(out), "--check"]) == 1
    said = at.capsys.readouterr().out
    assert said == f"{out / '02-chain-rule.ipynb'}: not what its source gives\n"


@effect("course prove", "--source", "--messages", "--json")
def _(at):
    source = small_source(at)
    short, long = (at.run("course", "prove", "--source", source, *m) for m in ([], ["--messages"]))
    assert short.splitlines()[1].split()[0] == "sum_to_shape"
    assert len(long.splitlines()) > len(short.splitlines()) == 2
    assert "sum_to_shape, always, returns nothing: sum_to_shape returned nothing" in long
    proofs = at.json("course", "prove", "--source", source)
    assert proofs["ok"]
    assert {row["exercise"] for row in proofs["answers"]} == {"sum_to_shape"}
    at.patch(Exercise, "verdict", lambda *_: "")
    assert cli.main(["course", "prove", "--source", str(source)]) == 1
    assert "FAILED sum_to_shape, empty, as handed out: passes" in at.capsys.readouterr().out


def test_a_tilde_is_the_home_folder(at, monkeypatch):
    """In every path, and behind an equals sign, where a shell leaves it."""
    monkeypatch.setenv("HOME", str(at.root))
    monkeypatch.chdir("/")
    at.run("draw", "red circle", "--folder=~/tilde")
    assert (at.root / "tilde" / "red-circle.png").is_file()
    arguments = ["--out=~/tilde/run", "--data=~/table", "--backend", "numpy"]
    at.run("train", "~/tiny.toml", *arguments)
    assert (at.root / "tilde" / "run" / "model.safetensors").is_file()
    out = at.run("evaluate", at.root / "tilde" / "run", "--data=~/classes", "--backend", "numpy")
    assert "8 pictures of" in out
    assert not Path("~").exists()
