"""The models that come with miniclip: there, whole, small, and as good as their cards say."""

import re
from pathlib import Path

import numpy as np
import pytest
from held_out import names_held_out

import miniclip
from miniclip.checkpoints import hub
from miniclip.checkpoints.shipped import DEFAULT, NAMES, shipped_path
from miniclip.tasks.evaluate import evaluate
from miniclip.tasks.settings import read_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return miniclip.load(request.param, backend="numba")


def test_they_are_small_and_whole(model):
    folder = shipped_path(model.name)
    names = {"model.safetensors", "vocab.json", "merges.txt", "knows.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    report = hub.check_weights(model.name)
    assert report.ok
    assert report.files[0].sha256 == report.files[0].expected  # as committed
    assert hub.resolve(model.name).path == folder


def test_they_are_what_their_presets_make(model):
    settings = read_settings(model.name)
    assert model.config == settings.config_for(model.tokenizer.vocab_size)


def test_their_words_know_no_held_out_pair(model):
    words = [model.tokenizer.decode([i]) for i in range(512, model.tokenizer.vocab_size - 2)]
    assert not any(names_held_out(word) for word in words)


def test_they_know_what_their_cards_say(model):
    """Fewer scenes than for the cards, so a few per cent less are asked for."""
    result = evaluate(model, 240)
    assert result.find("pair", "en", "seen").share >= 0.93
    assert result.find("pair", "en", "held-out").share >= 0.85
    assert result.find("pair", "zh", "held-out").share >= 0.80


def test_cards_name_the_command_and_the_figures(model):
    card = (shipped_path(model.name) / "README.md").read_text(encoding="utf-8")
    assert f"miniclip train {model.name} --out" in card
    assert f"miniclip evaluate {model.name}" in card
    shares = re.findall(r"\| pair \| (?:en|zh) \| (?:seen|held-out) \| ([\d.]+)%", card)
    assert len(shares) == 4
    assert min(float(share) for share in shares) >= 85


def test_the_default_needs_no_network(monkeypatch):
    """Neither for the weights nor for the vocabulary."""
    monkeypatch.setattr(hub.downloads, "fetch", pytest.fail)
    monkeypatch.setattr(hub, "download_tokenizer", pytest.fail)
    picture = np.full((64, 64, 3), 240, np.uint8)
    result = miniclip.zero_shot(picture, ["a red circle", "a blue square"])
    assert len(result.best) == 1
    assert miniclip.load(DEFAULT).tokenizer.vocab_size == 740


def test_they_are_in_the_table(capsys):
    assert [row["name"] for row in hub.weights_table()[:2]] == list(NAMES)
    assert miniclip.available_models()[:2] == list(NAMES)
    assert all(row["cached"] for row in hub.weights_table()[:2])
    with pytest.raises(ValueError, match="did you mean mini-vit"):
        miniclip.load("mini-vitt")


def test_a_folder_of_the_same_name_is_checked_as_itself(tmp_path, monkeypatch, model):
    """Its weights need not be the shipped ones."""
    monkeypatch.chdir(tmp_path)
    network = miniclip.CLIP(model.config, seed=0)
    miniclip.Pipeline(network).save(Path(model.name) / "model.safetensors")
    assert hub.check_weights(Path(model.name)).ok
