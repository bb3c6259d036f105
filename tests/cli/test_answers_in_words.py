"""What the command line says and answers with: help, one line for an error, the exit code."""

import argparse
import importlib
import inspect
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import miniclip.pipeline
from miniclip import cli
from miniclip.checkpoints import hub
from miniclip.cli import evaluate as evaluate_command
from miniclip.cli import train as train_command
from miniclip.cli.options import excludes, needs
from miniclip.cli.parser import Parser, did_you_mean
from miniclip.emoji import making
from miniclip.tasks import own_pictures
from miniclip.tasks import train as train_module
from miniclip.tasks.settings import read_settings
from miniclip.tasks.train import share_of
from miniclip.training import held_out

COMMANDS = ("zero-shot", "draw", "train", "evaluate", "verify", "weights", "bench")
ACTIONS = ("list", "download", "path", "check")


def commands_of(parser):
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))


def printed_help(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())  # however wide it is


def fails(capsys, *arguments):
    """The line that a usage error prints."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    output = capsys.readouterr()
    assert (stop.value.code, output.out) == (2, "")
    return output.err


def test_help_says_what_each_command_does(capsys):
    """In the list of the commands, and in full in front of the command's own options."""
    whole = printed_help(capsys)
    assert whole.startswith("usage: miniclip [-h] [--version] COMMAND ...")
    assert "CLIP written from scratch: ask pictures what they show." in whole
    assert "commands: COMMAND" in whole
    lists = commands_of(cli.make_parser())
    assert set(COMMANDS) <= set(lists.choices)
    assert [choice.dest for choice in lists._choices_actions] == list(lists.choices)
    for choice in lists._choices_actions:
        assert f"{choice.dest} {choice.help}" in whole
        command = lists.choices[choice.dest]
        assert len(command.description.split()) >= 8, choice.dest
        assert " ".join(command.description.split()) in printed_help(capsys, choice.dest)


def test_help_of_the_weights(capsys):
    assert "actions: ACTION" in printed_help(capsys, "weights")
    actions = commands_of(commands_of(cli.make_parser()).choices["weights"])
    assert tuple(choice.dest for choice in actions._choices_actions) == ACTIONS
    assert all(len(choice.help.split()) >= 4 for choice in actions._choices_actions)
    for action in ACTIONS[1:]:
        takes = "MODEL a name (miniclip weights list) or hub repository"
        assert (f"{takes}, a folder or a file" in printed_help(capsys, "weights", action)) == (
            action == "check"
        )
        assert takes in printed_help(capsys, "weights", action)


# ------------------------------------------------------------------------ exit codes


def answering(monkeypatch, answer):
    """`miniclip draw` with another body."""
    monkeypatch.setattr("miniclip.tasks.draw.draw_things", answer)
    return cli.main(["draw", "red circle"])


def raising(error):
    def answer(*arguments, **more):
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "miniclip: interrupted\n"),
        (BrokenPipeError(), 0, ""),
        (ValueError("size: got 3"), 2, "miniclip: error: size: got 3\n"),
        (ValueError("two\nlines"), 2, "miniclip: error: two lines\n"),
        (MemoryError(), 2, "miniclip: error: MemoryError\n"),
        (ZeroDivisionError("nothing"), 2, "miniclip: error: nothing\n"),
        (ImportError("no torch"), 2, "miniclip: error: no torch\n"),
        (RuntimeError("a step"), 2, "miniclip: error: a step\n"),
        (TypeError("a type"), 2, "miniclip: error: a type\n"),
        (OSError(28, "No space", "/a/b"), 2, "miniclip: error: /a/b: No space\n"),
        (OSError(28, "No space"), 2, "miniclip: error: [Errno 28] No space\n"),
        (OSError("torn"), 2, "miniclip: error: torn\n"),
    ],
)
def test_exit_codes(error, code, message, monkeypatch, capsys):
    assert answering(monkeypatch, raising(error)) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", message)


def test_a_bug_shows_its_traceback(monkeypatch):
    with pytest.raises(KeyError):
        answering(monkeypatch, raising(KeyError("a bug")))


def test_a_letter_that_the_terminal_lacks_is_written_as_its_code(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert answering(monkeypatch, lambda *_: ["caf\xe9.png"]) == 0
    sys.stdout.flush()
    assert raw.getvalue() == b"caf\\xe9.png\n"


# ------------------------------------------------------------------------ the parser


def test_arguments_and_namespace_may_be_given(monkeypatch):
    before = argparse.Namespace(kept=1)
    options = cli.make_parser().parse_args(["draw", "red circle"], before)
    assert options is before
    assert (options.kept, options.things) == (1, ["red circle"])
    monkeypatch.setattr(sys, "argv", ["miniclip", "draw", "blue star"])
    assert cli.make_parser().parse_args().things == ["blue star"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zero-shot"], "IMAGE, --labels: missing; all words after --labels belong to it: put "
         "pictures before it, or -- between (see miniclip zero-shot --help)"),
        (["zero-shot", "a.png"], "--labels: missing (see miniclip zero-shot --help)"),
        (["train", "--out", "x"], "PRESET: missing; all words after --freeze belong to it: put "
         "PRESET before it, or -- between (see miniclip train --help)"),
        (["draw", "--size=3"], "--size: miniclip draw has no such option (see miniclip draw "
         "--help)"),
        (["--sizes", "draw"], "--sizes: miniclip has no such option (see miniclip --help)"),
        (["train", "nano"], "--out: missing (see miniclip train --help)"),
        (["bench", "--memory", "--training"],
         "--training: not allowed with argument --memory (see miniclip bench --help)"),
        (["evaluate", "m", "--probe", "--robustness"],
         "--robustness: not allowed with argument --probe (see miniclip evaluate --help)"),
        (["evaluate", "m", "--json", "--markdown"],
         "--markdown: not allowed with argument --json (see miniclip evaluate --help)"),
        (["train", "nano", "--out", "x", "--loss", "sig"],
         "--loss: got 'sig', expected one of contrastive, sigmoid; did you mean "
         "sigmoid? (see miniclip train --help)"),
    ],
)  # fmt: skip
def test_usage_errors_word_by_word(arguments, message, capsys):
    assert fails(capsys, *arguments) == f"miniclip: error: {message}\n"


def test_what_comes_behind_two_dashes_is_no_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["draw", "--", "--such-thing"]) == 2
    assert "THING: got '--such-thing'" in capsys.readouterr().err


def test_typed_names():
    """An argument of the function becomes what was typed; only where it was given."""
    parser = Parser(prog="p")
    parser.add_argument("things", nargs="*", metavar="THING")
    parser.add_argument("-n", "--number", type=int, default=3)
    parser.add_argument("bare", nargs="?")
    parser.aliases = {"thing": "things"}
    given = parser.parse_args(["a", "b", "--number", "4"])
    assert parser.typed("number: got 4", given) == "--number: got 4"
    assert parser.typed("thing: got a", given) == "THING: got a"
    assert parser.typed("things[1]: got b", given) == "THING[1]: got b"
    assert parser.typed("other: got 4", given) == "other: got 4"
    assert parser.typed("no argument", given) == "no argument"
    assert parser.typed("number: got 3", parser.parse_args([])) == "number: got 3"
    bare = argparse.Namespace(things=[], number=3, bare="x")
    assert parser.typed("bare: got x", bare) == "bare: got x"


def test_did_you_mean():
    assert did_you_mean("--otu", ["--data", "--out"]) == "; did you mean --out?"
    assert did_you_mean("zeroshot", iter(["draw", "zero-shot"])) == "; did you mean zero-shot?"
    assert did_you_mean("fly", ["draw", "train"]) == ""


# ------------------------------------------------------------------------ options together


def test_needs_and_excludes():
    """None and False are what was not given; 0 is something."""
    here = argparse.Namespace(a=None, b=0, c=False, d=True, held_out=0.0, e="x")
    needs(here, "d", "b", "held_out")
    needs(here, "a", "a")
    with pytest.raises(ValueError, match=r"^--held-out: got 0\.0 without --a, which it belongs to"):
        needs(here, "a", "a", "held_out")
    excludes(here, "a", "b", "d")
    excludes(here, "c", "b", "d")
    excludes(here, "d", "a", "c")
    for name, other in (("b", "d"), ("d", "b"), ("held_out", "e")):
        with pytest.raises(ValueError, match="got it beside"):
            excludes(here, other, name)
    with pytest.raises(ValueError, match=r"^--e: got it beside --d, expected one of both$"):
        excludes(here, "d", "a", "c", "e")
    with pytest.raises(ValueError, match=r"^--d: got it beside --e, expected one of both$"):
        excludes(here, "e", "d")


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        *(("--memory", f"--{name}", value) for name, value in (
            ("towers", "text"), ("ours", "numpy"), ("rounds", "2"), ("seconds", "1"), ("pause", "0")
        )),
        ("--training", "--towers", "text"),
        ("--training", "--ours", "numpy"),
    ],
)  # fmt: skip
def test_options_of_another_kind_of_bench(kind, option, value, capsys):
    assert cli.main(["bench", kind, option, value]) == 2
    said = f"miniclip: error: {option}: got it beside {kind}, expected one of both\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("kind", ["--memory", "--training"])
def test_the_first_of_several_options_is_named(kind, capsys):
    """In the order of the help, whatever was typed first."""
    given = {"pause": "0", "seconds": "1", "rounds": "2", "ours": "numpy", "towers": "text"}
    order = ["towers", "ours", *(["rounds", "seconds", "pause"] if kind == "--memory" else [])]
    while order:
        options = [x for name in given if name in order for x in (f"--{name}", given[name])]
        assert cli.main(["bench", *options, kind]) == 2
        assert f"error: --{order.pop(0)}: got it beside {kind}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [[], ["--training"]])
def test_pictures_belong_to_memory(kind, capsys):
    assert cli.main(["bench", *kind, "--pictures", "3"]) == 2
    said = "miniclip: error: --pictures: got 3 without --memory, which it belongs to\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("option", [["--robustness"], ["--probe"], ["--count", "0"]])
def test_data_and_what_is_drawn(option, capsys):
    assert cli.main(["evaluate", "mini-vit", "--data", "x", *option]) == 2
    said = f"miniclip: error: {option[0]}: got it beside --data, expected one of both\n"
    assert capsys.readouterr().err == said


def test_the_first_of_several_options_of_evaluate_is_named(capsys):
    arguments = ["evaluate", "m", "--data", "x", "--probe", "--count", "3"]
    assert cli.main(arguments) == 2
    assert "error: --count: got it beside --data" in capsys.readouterr().err
    first = ["--workers", "2", "--held-out", "0", "--template", "{}"]
    for n, name in ((0, "template"), (2, "held-out"), (4, "workers")):
        assert cli.main(["train", "nano", "--out", "o", *first[: 6 - n]]) == 2
        assert f"error: --{name}: got" in capsys.readouterr().err


@pytest.mark.parametrize("option", [[], ["--robustness"], ["--probe"], ["--count", "1"]])
def test_what_is_drawn_goes_before_what_a_run_held_out(option, monkeypatch, capsys):
    """Also of a model with pictures of its own; `--data` alone is handed on."""
    seen = []
    monkeypatch.setattr(own_pictures, "own_data", lambda *given: seen.append(given) or "own")
    monkeypatch.setattr(miniclip.pipeline, "load", lambda *_, **__: "model")
    for name in ("measured_on_scenes", "measured_on_pictures"):
        answer = (name, f"{name} as text", "")
        monkeypatch.setattr(evaluate_command, name, lambda *_, answer=answer: answer)
    assert cli.main(["evaluate", "folder", *option]) == 0
    chosen = "scenes" if option else "pictures"
    assert capsys.readouterr().out == f"measured_on_{chosen} as text\n"
    assert seen == ([] if option else [("folder", None)])


def test_lines_about_pictures_are_no_output(monkeypatch, capsys):
    """The output may be JSON."""
    result = SimpleNamespace(as_dict=dict, as_text=lambda: "text", as_markdown=lambda: "| m |")

    def evaluate_pictures(model, own, report, template="usual"):
        report(f"{model} {own} {template}")
        return result

    monkeypatch.setattr(own_pictures, "evaluate_pictures", evaluate_pictures)
    for template, said in ((None, "usual"), ("a {}", "a {}")):
        options = argparse.Namespace(template=template)
        answer = evaluate_command.measured_on_pictures(options, "model", "own")
        assert answer == ({}, "text", "| m |")
        output = capsys.readouterr()
        assert (output.out, output.err) == ("", f"model own {said}\n")


def test_json_keeps_letters_and_is_indented(monkeypatch, capsys):
    monkeypatch.setattr(own_pictures, "own_data", lambda *_: None)
    monkeypatch.setattr(miniclip.pipeline, "load", lambda *_, **__: "model")
    data = {"a": ["红"]}
    monkeypatch.setattr(evaluate_command, "measured_on_scenes", lambda *_: (data, "t", "| m |"))
    for option, out in (
        (["--json"], '{\n  "a": [\n    "红"\n  ]\n}\n'),
        (["--markdown"], "| m |\n"),
        ([], "t\n"),
    ):
        assert cli.main(["evaluate", "m", *option]) == 0
        assert capsys.readouterr().out == out
    monkeypatch.setattr(evaluate_command, "measured_on_scenes", lambda *_: (np.nan, "", ""))
    assert cli.main(["evaluate", "m", "--json"]) == 2  # NaN is no JSON


def test_the_defaults_of_drawn_evaluations(monkeypatch):
    """Without --count each kind has its own: the option is then not handed on."""
    seen = []

    def noted(*arguments, **more):
        seen.append((arguments, more))
        return []

    monkeypatch.setattr("miniclip.tasks.probe.probe_report", noted)
    monkeypatch.setattr("miniclip.tasks.robustness.robustness", noted)
    monkeypatch.setattr("miniclip.tasks.probe.as_text", lambda rows: "probe")
    monkeypatch.setattr("miniclip.tasks.robustness.as_text", lambda rows: "robustness")
    for module in ("probe", "robustness"):
        monkeypatch.setattr(f"miniclip.tasks.{module}.as_markdown", lambda rows: "| m |")
    for count, more in ((None, {}), (7, {"count": 7})):
        for probe in (True, False):
            options = argparse.Namespace(count=count, probe=probe, robustness=not probe)
            answer = evaluate_command.measured_on_scenes(options, "model")
            assert answer == ([], "probe" if probe else "robustness", "| m |")
            assert seen.pop() == (("model",), more)


def test_what_train_is_given(monkeypatch):
    """Every option in its place; those that were not given are left to the function's defaults."""
    seen = []
    monkeypatch.setattr(train_module, "train", lambda *a, **more: seen.append((a, more)))
    usual = dict.fromkeys(
        ["steps", "batch", "chunk", "learning_rate", "warm_up", "weight_decay", "seed",
         "save_every", "loss", "frozen"]
    )  # fmt: skip
    assert cli.main(["train", "nano", "--out", "o"]) == 0
    ((preset, out, *rest), more) = seen.pop()
    assert (preset, str(out), rest, more) == ("nano", "o", [None, None, "auto"], {"changes": usual})
    arguments = ["--data", "d", "--init", "i", "--backend", "numpy", "--template", "{}", "--seed"]
    arguments += ["0", "--workers", "3", "--held-out", "0", "--snapshots", "2", "--freeze", "a.*",
                  "b"]  # fmt: skip
    assert cli.main(["train", "nano", "--out", "o", *arguments]) == 0
    ((_, _, data, *rest), more) = seen.pop()
    assert (str(data), rest) == ("d", ["i", "numpy"])
    changes = usual | {"seed": 0, "frozen": ["a.*", "b"]}
    assert more == {"changes": changes, "template": "{}", "held_out": 0.0, "workers": 3,
                    "snapshots": 2}  # fmt: skip


def test_what_making_emoji_is_given(monkeypatch, capsys):
    """A bar and lines for people, on standard error; the defaults are the function's."""
    seen = []
    made = making.EmojiSet(Path("o"), 1203, 2, 4, 1, {"noto": 1203})
    monkeypatch.setattr(making, "make_emoji", lambda *a, **more: (seen.append((a, more)), made)[1])
    assert cli.main(["data", "emoji", "--out", "o", "--from", "p", "--languages", "de"]) == 0
    ((out, packages, languages), more) = seen.pop()
    assert (str(out), str(packages), languages) == ("o", "p", ["de"])
    assert set(more) == {"report", "bar"}
    assert list(more["bar"]([1, 2])) == [1, 2]
    more["report"]("fetching")
    output = capsys.readouterr()
    assert output.err.startswith("fetching\n") or output.err.endswith("fetching\n")
    assert output.out.startswith("o: 1,203 pictures (2 drawn now)\n4 things, 1 of them held out\n")
    assert cli.main(["data", "emoji"]) == 0
    ((out, packages, languages), _) = seen.pop()
    assert (str(out), packages, languages) == ("data/emoji", None, making.LANGUAGES)


# ------------------------------------------------------------------------ weights


def test_the_list_of_weights(monkeypatch, capsys):
    rows = [
        {"name": "one", "repository": None, "size_mb": 12, "activation": "gelu", "licence": "MIT",
         "cached": True},
        {"name": "eleven", "repository": "a/b", "size_mb": 0, "activation": None,
         "licence": None, "cached": False},
    ]  # fmt: skip
    monkeypatch.setattr(hub, "weights_table", lambda: rows)
    assert cli.main(["weights", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "name    repository  MB  activation  licence  in the cache",
        "one                 12        gelu      MIT           yes",
        "eleven         a/b",
    ]


def test_weights_that_are_not_downloaded(monkeypatch, capsys):
    monkeypatch.setattr(hub, "cached_path", lambda name: None)
    assert cli.main(["weights", "path", "ViT-B/32"]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "miniclip: ViT-B/32 is not downloaded\n")


@pytest.mark.parametrize(
    ("expected", "known"),
    [
        (None, "no known hash to compare with"),
        ("abc", "as expected"),
        ("abd", "not the expected one"),
    ],
)
@pytest.mark.parametrize("problem", [None, "a: 1 of 2 values is not finite"])
def test_what_weights_check_says(expected, known, problem, monkeypatch, capsys):
    file = SimpleNamespace(
        path="w", size=12345, tensors=7, sha256="abc", expected=expected, problem=problem
    )
    for error in (None, "the configuration is missing"):
        report = SimpleNamespace(files=[file], error=error, ok=not (problem or error))
        monkeypatch.setattr(hub, "check_weights", lambda name, report=report: report)
        assert cli.main(["weights", "check", "w"]) == (0 if report.ok else 1)
        assert capsys.readouterr().out.splitlines() == [
            "w: 12,345 bytes, 7 tensors",
            f"  sha256 abc ({known})",
            f"  {problem or 'all values are finite'}",
            *([error] if error else []),
        ]


# ------------------------------------------------------------------------ verify and zero-shot


def test_verify_counts_in_words(monkeypatch, capsys):
    verdicts = [
        SimpleNamespace(status=status, as_dict=lambda status=status: {"é": status})
        for status in ("pass", "skip", "skip", "fail", "fail", "fail")
    ]
    monkeypatch.setattr(miniclip.pipeline, "load", lambda *_, **__: "model")
    monkeypatch.setattr("miniclip.tasks.verify.verify", lambda *_: verdicts)
    monkeypatch.setattr("miniclip.tasks.verify.report", lambda _: "rows")
    for tested in (True, False):
        monkeypatch.setattr("miniclip.tasks.verify.weights_were_tested", lambda _, t=tested: t)
        assert cli.main(["verify", "m"]) == 1
        nothing = "nothing is verified: no row that depends on the weights could be computed"
        lines = ["rows", "1 passed, 3 failed, 2 skipped", *([] if tested else [nothing])]
        assert capsys.readouterr().out.splitlines() == lines
        assert cli.main(["verify", "m", "--json"]) == 1
        out = capsys.readouterr().out
        assert json.loads(out)["count"] == {"pass": 1, "fail": 3, "skip": 2}
        assert json.loads(out)["weights_were_tested"] is tested
        assert '  "count": {\n    "pass": 1' in out
        assert '"é": "fail"' in out
    del verdicts[3:]
    for tested, code in ((True, 0), (False, 1)):
        monkeypatch.setattr("miniclip.tasks.verify.weights_were_tested", lambda _, t=tested: t)
        assert cli.main(["verify", "m"]) == code


def test_wrong_labels_are_told_before_a_model_is_loaded(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(miniclip.pipeline, "load", lambda *_, **__: pytest.fail("loaded"))
    (tmp_path / "b.png").write_bytes(b"")
    picture = str(tmp_path / "b.png")
    for arguments, message in (
        (["--labels", "a", picture], f"--labels: got the picture {picture!r} as a label; all words "
         "after --labels belong to it: put pictures before it, or -- between"),
        (["--labels", "a", "--top", "0"], "--top: got 0, expected at least 1"),
    ):  # fmt: skip
        assert cli.main(["zero-shot", "a.png", *arguments]) == 2
        assert capsys.readouterr().err == f"miniclip: error: {message}\n"
    assert cli.main(["zero-shot", "a.png", "--labels", "a", " "]) == 2


def test_what_zero_shot_is_given(monkeypatch, capsys):
    """Every option in its place, the output in its form."""
    seen = []
    result = SimpleNamespace(as_dicts=lambda: [{"猫": 1}], as_text=lambda top: f"the first {top}")
    monkeypatch.setattr(miniclip.pipeline, "load", lambda *a, **more: (a, more))
    module = importlib.import_module("miniclip.tasks.zero_shot")  # not the function of that name
    monkeypatch.setattr(module, "zero_shot", lambda *a: seen.append(a) or result)
    usual = ("mini-vit", "auto"), {"activation": None}
    for options, given, out in (
        ([], (usual, None, None, False, "raise"), "the first 5\n"),
        (["--top", "1"], (usual, None, None, False, "raise"), "the first 1\n"),
        (["--skip"], (usual, None, None, False, "skip"), "the first 5\n"),
        (["--truncate"], (usual, None, None, True, "raise"), "the first 5\n"),
        (["--templates", "plain"], (usual, "plain", None, False, "raise"), "the first 5\n"),
        (
            ["--templates", "a {}", "{}"],
            (usual, ["a {}", "{}"], None, False, "raise"),
            "the first 5\n",
        ),
        (["--json"], (usual, None, None, False, "raise"), '[\n  {\n    "猫": 1\n  }\n]\n'),
        (
            ["--model", "m", "--backend", "numpy", "--activation", "gelu"],
            ((("m", "numpy"), {"activation": "gelu"}), None, None, False, "raise"),
            "the first 5\n",
        ),
    ):
        assert cli.main(["zero-shot", "a.png", "b", "--labels", "x", "y", *options]) == 0
        assert seen.pop() == (["a.png", "b"], ["x", "y"], *given)
        assert capsys.readouterr().out == out


BENCH = ["bench", "--models", "m", "--json", "f"]
TRAIN = ["train", "nano", "--out", "o", "--init", "m", "--data", "d", "--freeze", "f"]


@pytest.mark.parametrize(
    ("arguments", "function", "argument", "option"),
    [
        (BENCH, "miniclip.bench.run.bench", "file", "--json"),
        (BENCH, "miniclip.bench.run.bench", "model", "--models"),
        (TRAIN, "miniclip.tasks.train.train", "model", "--init"),
        (TRAIN, "miniclip.tasks.train.train", "source", "--data"),
        (TRAIN, "miniclip.tasks.train.train", "frozen", "--freeze"),
        (TRAIN, "miniclip.tasks.train.train", "preset", "PRESET"),
    ],
)
def test_arguments_by_their_options(arguments, function, argument, option, monkeypatch, capsys):
    monkeypatch.setattr(function, raising(ValueError(f"{argument}: got x")))
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"miniclip: error: {option}: got x\n"


def test_defaults_that_the_help_names_are_those_of_the_functions():
    """Written a second time in the commands, whose help would otherwise import everything."""
    assert train_command.HELD_OUT_SHARE == held_out.SHARE
    given = inspect.signature(train_module.train).parameters
    assert share_of(read_settings("nano")) == held_out.SHARE
    assert share_of(read_settings("mini-emoji")) == 0.0
    options = commands_of(cli.make_parser()).choices["train"]._option_string_actions
    usual = "the preset's or file's, or else 0.1"
    for name, default in (("workers", 2), ("template", "a photo of a {}"), ("held_out", usual)):
        assert given[name].default == (None if name == "held_out" else default)
        action = options[f"--{name.replace('_', '-')}"]
        assert action.default is None
        assert f"default: {default}" in action.help % {"default": action.default}
