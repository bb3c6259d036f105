"""`miniclip doctor`: its known answer is the original's, it notices what is wrong, never raises."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from original import load_into_original, original_clip

import miniclip
from miniclip import backends, cli
from miniclip.tasks import doctor

ROOT = Path(miniclip.__file__).parents[1]


def test_the_known_answer_is_pytorchs():
    """Recomputed with the original's model.py. It knows no stride of its own: a picture of 112
    pixels has as many patches in it as ours of 64 with a stride of 8, so the positions fit.
    """
    model = miniclip.load(doctor.MODEL, backend="numpy")
    vision = dataclasses.replace(model.config.vision, image_resolution=112, stride=None)
    original = original_clip(dataclasses.replace(model.config, vision=vision), torch.float64)
    original.visual.conv1.stride = (8, 8)
    state = {n: np.asarray(x, np.float64) for n, x in model.network.state_dict().items()}
    load_into_original(original, state)
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = torch.tensor(((doctor.picture() / 255 - mean) / std).transpose(2, 0, 1)[None])
    ids = [738, 320, 577, 611, 64, 65, 78, 85, 324, 320, 575, 624, 739]
    assert model.tokenize(doctor.TEXT)[0, : len(ids)].tolist() == ids
    with torch.no_grad():
        image = torch.nn.functional.normalize(original.encode_image(pixels))[0]
        text = torch.nn.functional.normalize(
            original.encode_text(torch.tensor([ids + [0] * (32 - len(ids))]))
        )[0]
    assert np.allclose(image[:4], doctor.IMAGE_STARTS, rtol=0, atol=1e-9)
    assert np.allclose(text[:4], doctor.TEXT_STARTS, rtol=0, atol=1e-9)
    assert float(image @ text) == pytest.approx(doctor.COSINE, abs=1e-9)


def test_this_installation_is_in_order(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["problems"] == []
    by_name = {b["name"]: b for b in report["backends"]}
    assert list(by_name) == list(backends.NAMES)
    assert by_name["numpy"]["works"]
    assert by_name["numba"]["works"]
    assert report["auto"] == backends.choose("auto")
    assert report["versions"]["numpy"] == np.__version__
    assert re.fullmatch(r"\d+ bits, \d+ numbers in float32", report["machine"]["vectors"])
    shipped = next(f for f in report["folders"] if f["what"] == "models that come along")
    files = (ROOT / "weights").rglob("*")
    here = sum(f.stat().st_size for f in files if f.is_file() and "__pycache__" not in f.parts)
    assert shipped["bytes"] >= here
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "all 27 ops the textbook's" in out
    assert out.rstrip().endswith("everything that should work does")


def test_the_textbooks_ops_are_those_that_the_table_calls_inherited():
    table = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`.*?\| own \| (\w+).*$", table, re.MULTILINE)
    assert len(rows) == 27
    inherited = [op for op, whose in rows if whose == "inherited"]
    numba = backends.get("numba")
    assert backends.textbook_ops(numba) == inherited
    own = f"numba, kernels of its own for {27 - len(inherited)} of 27 ops"
    assert backends.describe(numba) == f"{own}; the textbook's: {', '.join(inherited)}"
    assert backends.describe(backends.get("numpy")) == "numpy, all 27 ops the textbook's"
    model = miniclip.load("mini-vit", backend="numba").network
    assert repr(model).endswith(f"\nfloat32 on {backends.describe(numba)}")


def test_a_backend_that_computes_wrongly_is_found(monkeypatch, capsys):
    """A textbook whose LayerNorm is half a percent off."""
    numpy = backends.get("numpy")
    right = numpy.layer_norm

    def wrong(x, weight, bias, eps=1e-5):
        y, cache = right(x, weight, bias, eps)
        return np.float32(1.005) * y, cache

    monkeypatch.setattr(numpy, "layer_norm", wrong)
    assert cli.main(["doctor"]) == 1
    assert re.search(r"problem: backend numpy: off from the known answer by \S+, allowed 1e-04\n",
                     capsys.readouterr().out)  # fmt: skip


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_a_number_is_not_right(number):
    image, text = np.full((1, 8), number), np.zeros((1, 8))
    assert doctor.largest_miss((image, text)) == np.inf


@pytest.mark.parametrize("wrong", ["version", "processor", "size_of", "answers", "picture"])
def test_it_never_raises(wrong, monkeypatch):
    def fail(*arguments):
        raise OSError("broken\nin two lines")

    monkeypatch.setattr(doctor, wrong, fail)
    monkeypatch.setitem(doctor.MACHINE, "processor", doctor.processor)
    report = doctor.examine()
    text = report.as_text()
    assert "broken in two lines" in text
    assert json.dumps(report.as_dict())
    assert report.ok == (wrong not in ("answers", "picture"))


def run_with(prefix="", **environment):
    code = f"{prefix}\nimport sys; from miniclip.cli import main; sys.exit(main(['doctor']))"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("library", "problems"),
    [("PIL", ["miniclip cannot"]), ("numba", ["backend numba"]), ("regex", ["backend n"] * 2)],
)
def test_a_library_that_cannot_be_imported(library, problems):
    run = run_with(f"import sys; sys.modules[{library!r}] = None")
    assert run.returncode == 1, run.stdout + run.stderr
    found = [line for line in run.stdout.splitlines() if line.startswith("problem: ")]
    assert len(found) == len(problems), found
    for line, problem in zip(found, problems, strict=True):
        assert line.startswith(f"problem: {problem}")
        assert library in line
    assert "Traceback" not in run.stderr


def test_numba_that_is_told_not_to_compile():
    run = run_with(NUMBA_DISABLE_JIT="1")
    assert run.returncode == 1
    assert "NUMBA_DISABLE_JIT is set, expected it unset" in run.stdout
    assert "backend auto: numpy" in run.stdout
    assert run.stderr.count("miniclip: not on numba: ") == 1


def test_a_folder_that_is_not_there(tmp_path):
    found = doctor.examine_folder("weights", lambda: (tmp_path / "none", ""))
    assert (found.bytes, found.note) == (0, "not there yet")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "file")
    assert doctor.examine_folder("weights", lambda: (tmp_path, "")).bytes == 5
