"""The command line as a user types it: output, exit codes, one line for wrong input."""

import json
import subprocess
import sys
from dataclasses import replace

import drawn
import numpy as np
import pytest
from pipelines import make_pipeline

from miniclip import cli
from miniclip.tasks.verify import KnownAnswer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small checkpoint with its vocabulary, and two pictures."""
    folder = tmp_path_factory.mktemp("checkpoint")
    make_pipeline().save(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        drawn.draw("a red circle", rng, 64).save(folder / f"{name}.png")
    return folder


def run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_zero_shot(capsys, checkpoint):
    a, b = checkpoint / "a.png", checkpoint / "b.png"
    code, out, err = run(
        capsys,
        "zero-shot",
        a,
        b,
        "--labels",
        "a red circle",
        "a blue square",
        "--model",
        checkpoint,
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == str(a)
    assert lines[3] == str(b)
    assert "%" in lines[1]
    assert "cosine" in lines[1]


def test_zero_shot_of_folders(capsys, checkpoint, tmp_path):
    """A folder stands for its pictures, in the order of their names, among other pictures."""
    (tmp_path / "photos").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "photos" / name).write_bytes((checkpoint / name).read_bytes())
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    arguments = ["--labels", "a red circle", "sky", "--model", checkpoint, "--json"]
    code, out, err = run(capsys, "zero-shot", checkpoint / "b.png", tmp_path / "photos", *arguments)
    assert (code, err) == (0, "")
    names = [checkpoint / "b.png", *(tmp_path / "photos" / name for name in ("a.png", "b.png"))]
    answers = json.loads(out)
    assert [answer["image"] for answer in answers] == [str(name) for name in names]
    assert answers[0]["answers"] == answers[2]["answers"] != answers[1]["answers"]
    (tmp_path / "bare").mkdir()
    code, out, err = run(capsys, "zero-shot", tmp_path / "bare", *arguments)
    assert (code, out) == (2, "")
    assert f"images[0] {str(tmp_path / 'bare')!r}: a folder without pictures" in err


def test_zero_shot_as_json(capsys, checkpoint):
    labels = ["a red circle", "a blue square", "sky"]
    code, out, _ = run(
        capsys, "zero-shot", checkpoint / "a.png", "--labels", *labels, "--json",
        "--model", checkpoint, "--templates", "a photo of {}", "{}", "--backend", "numpy",
    )  # fmt: skip
    assert code == 0
    (answer,) = json.loads(out)
    assert sorted(a["label"] for a in answer["answers"]) == sorted(labels)
    assert sum(a["probability"] for a in answer["answers"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "nothing.png"),
        (["a.png", "--model", "no-such-model"], "no-such-model"),
        (["a.png", "--top", "0"], "--top: got 0"),
        (["a.png", "--templates", "a photo"], "templates: got 'a photo'"),
        (["a.png", "--model", "weights.pt"], "safetensors"),
    ],
)
def test_wrong_input_is_one_line(capsys, checkpoint, monkeypatch, arguments, message):
    monkeypatch.chdir(checkpoint)
    (checkpoint / "weights.pt").write_bytes(b"PK\x03\x04 a zip, as torch.save writes it")
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(checkpoint)]
    code, out, err = run(capsys, "zero-shot", *arguments, "--labels", "cat", "dog")
    assert (code, out) == (2, "")
    assert err.startswith("miniclip: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_usage_errors(capsys):
    for arguments, message in (
        (["zero-shot"], "IMAGE, --labels: missing"),
        (["fly"], "COMMAND: got 'fly', expected one of zero-shot, draw, "),
        (["zeroshot", "a.png"], "; did you mean zero-shot?"),
        (
            ["train", "nano", "--otu", "x"],
            "--otu: miniclip train has no such option; did you mean --out?",
        ),
        (
            ["train", "nano", "--out", "x", "--step", "3"],
            "--step: miniclip train has no such option",
        ),
        (["train", "nano", "--out", "x", "--steps", "x"], "--steps: invalid int value: 'x'"),
        (
            ["weights", "lst"],
            "ACTION: got 'lst', expected one of list, download, path, check; did you mean list?",
        ),
        (
            ["zero-shot", "--labels", "a", "b", "c.png"],
            "all words after --labels belong to it: put pictures before it",
        ),
        (
            ["train", "--out", "x", "--freeze", "visual.*", "nano"],
            "all words after --freeze belong to it",
        ),
        (
            ["evaluate", "mini-vit", "--backend", "numpi"],
            "--backend: got 'numpi', expected one of auto, numpy, numba, cupy; did you mean numpy?",
        ),
        (["evaluate", "a", "b"], "unrecognized arguments: b"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("miniclip: error: ")
        assert message in error
        assert error.count("\n") == 1
    for arguments in ([], ["weights"]):  # what may follow, and no error
        assert cli.main(arguments) == 0
        assert "show this help message" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    assert "zero-shot" in capsys.readouterr().out


def test_draw(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "draw", "a red circle", "blue star")
    assert code == 0
    assert out.split() == ["pictures/red-circle.png", "pictures/blue-star.png"]
    assert (tmp_path / "pictures" / "blue-star.png").is_file()
    labels = ["a red circle", "a blue star", "a green house"]
    code, out, _ = run(capsys, "zero-shot", *out.split(), "--labels", *labels)  # default model
    assert code == 0
    assert [line.split("  ")[1] for line in out.splitlines()[1::4]] == labels[:2]
    code, out, _ = run(capsys, "draw", "--scenes", 3, "--folder", "scenes")
    assert (code, out) == (0, "scenes/captions.csv\n")
    assert len((tmp_path / "scenes" / "captions.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a plaid sofa"], "THING: got 'a plaid sofa', expected a colour"),
        ([], "THING: expected names"),
        (["red circle", "--scenes", "3"], "THING: expected names"),
        (["--scenes", "0"], "scenes: got 0"),
    ],
)
def test_wrong_drawings(capsys, tmp_path, arguments, message):
    code, _, err = run(capsys, "draw", *arguments, "--folder", tmp_path / "new")
    assert code == 2
    assert message in err
    assert not (tmp_path / "new").exists()


def test_weights(capsys, checkpoint):
    code, out, _ = run(capsys, "weights", "list")
    assert code == 0
    assert "ViT-L/14@336px" in out
    code, out, _ = run(capsys, "weights", "check", checkpoint)
    assert code == 0
    assert "finite" in out


def test_weights_check_finds_bad_numbers(capsys, tmp_path):
    pipeline = make_pipeline()
    pipeline.network.text.ln_final.bias.data[5] = np.nan
    pipeline.save(tmp_path / "model.safetensors")
    code, out, _ = run(capsys, "weights", "check", tmp_path)
    assert code == 1
    assert "ln_final.bias" in out


def test_verify_prints_json(capsys, monkeypatch):
    """Of a table made from the model itself: right rows pass, a wrong one makes exit code 1."""
    ids = [2, 0, 1]
    right = KnownAnswer("mini-vit", "ids", lambda *_: np.array(ids), ids, 0, "this test")
    wrong = replace(right, title="others", expected=[2, 0, 2])
    for table, statuses, expected_code in (
        ([right], ["pass"], 0),
        ([right, wrong], ["pass", "fail"], 1),
        ([replace(right, picture=("nowhere.png", "a shelf"))], ["skip"], 1),
    ):
        monkeypatch.setattr("miniclip.tasks.verify.KNOWN", table)
        code, out, _ = run(capsys, "verify", "mini-vit", "--json")
        data = json.loads(out)
        assert code == expected_code
        assert [row["status"] for row in data["rows"]] == statuses
        assert data["rows"][0]["expected"] == ids
        assert data["rows"][0]["got"] == (None if statuses == ["skip"] else ids)
        assert data["weights_were_tested"] == (statuses != ["skip"])
        code, out, _ = run(capsys, "verify", "mini-vit")  # in words, the same verdict
        assert code == expected_code
        assert [line[:4].strip().lower() for line in out.splitlines() if line[:1] in "PFS"] == (
            statuses
        )
        assert ("nothing is verified" in out) == (statuses == ["skip"])


def test_a_failed_check_is_the_exit_code_of_the_process(tmp_path):
    """Not only what `main` returns: what a shell and a CI see."""
    pipeline = make_pipeline()
    for value, expected in ((0.0, 0), (np.inf, 1)):
        pipeline.network.text.ln_final.bias.data[5] = value
        pipeline.save(tmp_path / "model.safetensors")
        command = [sys.executable, "-m", "miniclip", "weights", "check", str(tmp_path)]
        assert subprocess.run(command, capture_output=True).returncode == expected
    program = (
        "import sys; import numpy as np; import miniclip.tasks.verify as v; "
        "v.KNOWN = [v.KnownAnswer('mini-vit', 't', lambda *_: np.array([1]), [EXPECTED], 0, 's')]; "
        "sys.argv = ['miniclip', 'verify', 'mini-vit', '--backend', 'numpy']; "
        "import runpy; runpy.run_module('miniclip', run_name='__main__')"
    )
    for answer, expected in (("1", 0), ("2", 1)):
        command = [sys.executable, "-c", program.replace("EXPECTED", answer)]
        assert subprocess.run(command, capture_output=True).returncode == expected


def test_verify_needs_a_known_model(capsys, checkpoint):
    code, _, err = run(capsys, "verify", checkpoint)
    assert code == 2
    assert f"no known answers for {checkpoint}, only for ViT-B/32, RN50" in err


def test_it_is_installed_as_a_command(checkpoint):
    for command in ([sys.executable, "-m", "miniclip"], [sys.executable.replace("python3", "python")
                    .rsplit("/", 1)[0] + "/miniclip"]):  # fmt: skip
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("miniclip ")
