"""Own pictures: by hand-made embeddings whose right answers are known, and by real models."""

import importlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from pipelines import make_pipeline
from task_checks import check_own_pictures

from miniclip import cli
from miniclip.tasks import own_pictures as module
from miniclip.tasks.draw import draw_scenes
from miniclip.tasks.own_pictures import chance_of, evaluate_pictures, own_data, rank, recall
from miniclip.training.held_out import HeldOut
from miniclip.training.table_rows import Row

# ------------------------------------------------------------------------ ranks


def test_ranks_by_hand():
    """Places of the best right answer; what is as good as it stands before it."""
    cosine = np.array([[0.9, 0.5, 0.1], [0.5, 0.9, 0.1], [0.5, 0.5, 0.1], [0.2, 0.4, 0.4]])
    fits = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1]], bool)
    assert rank(cosine, fits).tolist() == [1, 2, 2, 1]  # right ones may tie with each other


def test_ranks_by_sorting():
    check_own_pictures(module)


def test_who_says_the_same_of_everything_is_never_right():
    scores = recall("class", np.ones((6, 4)), np.eye(6, 4, dtype=bool) | (np.arange(4) == 0))
    assert [score.right for score in scores] == [0]


def test_recall_by_hand():
    """20 questions of 12 answers; the right one of question n is n-th best."""
    n, choices = 20, 12
    cosine = -np.arange(choices, dtype=float)[None].repeat(n, 0)
    fits = np.arange(choices)[None] == np.minimum(np.arange(n), choices - 1)[:, None]
    scores = {score.among: score for score in recall("image to text", cosine, fits)}
    assert {k: score.right for k, score in scores.items()} == {1: 1, 5: 5, 10: 10}
    assert scores[5].chance == pytest.approx(5 / 12)
    assert all(score.total == n for score in scores.values())
    few = recall("class", cosine[:, :5], fits[:, :5] | (np.arange(5) == 4))
    assert [score.among for score in few] == [1]  # among the first 5 of 5 everything is right


def test_chance_is_what_blind_guessing_reaches():
    rng = np.random.default_rng(0)
    for right, choices, k in ((1, 4, 1), (2, 9, 5), (3, 8, 5)):
        hits = np.mean([(rng.permutation(choices)[:k] < right).any() for _ in range(4000)])
        assert chance_of(right, choices, k) == pytest.approx(hits, abs=0.04)
    assert chance_of(1, 4, 1) == pytest.approx(1 / 4)


# ------------------------------------------------------------------------ pictures


class Seer:
    """Reads a picture's number from its pixels; its embedding is that of its caption."""

    name = "seer"

    def __init__(self, captions, knows=lambda number: True):
        self.texts = {text: i for i, text in enumerate(dict.fromkeys(captions))}
        self.captions, self.knows = captions, knows

    def transform(self, paths):
        if "broken" in paths[0].name:
            raise ValueError("torn")
        return np.full((1, 3, 2, 2), int(paths[0].stem), np.float32)

    def encode_image(self, pixels, normalize=False, progress=None):
        assert normalize
        assert progress is False  # one bar a chunk would be many
        numbers = [int(x) for x in pixels[:, 0, 0, 0]]
        width = len(self.texts) + 1
        known = [self.texts[self.captions[n]] if self.knows(n) else width - 1 for n in numbers]
        return np.eye(width)[known]

    def encode_text(self, texts, normalize=False, truncate=False, progress=None):
        assert normalize
        assert truncate  # as in training
        assert progress is False
        return np.eye(len(self.texts) + 1)[[self.texts[text] for text in texts]]


def written(folder, captions, broken=()):
    rows = [f"{n}.png,{caption}" for n, caption in enumerate(captions)]
    rows += [f"{name},lost" for name in broken]
    (folder / "data.csv").write_text("image,caption\n" + "\n".join(rows))
    return folder / "data.csv"


def test_who_knows_every_caption_is_always_right(tmp_path):
    """More pictures than a chunk; a caption that several have; a broken picture, told once."""
    captions = [f"c{n % 50}" for n in range(130)]
    lines = []
    data = written(tmp_path, captions, broken=["broken.png"])
    result = evaluate_pictures(Seer(captions), data, report=lines.append)
    assert (result.pictures, result.broken, len(lines)) == (130, 1, 1)
    for question, total, right in (("image to text", 130, 1), ("text to image", 50, None)):
        score = result.find(question)
        assert (score.right, score.total) == (total, total)
        if right:
            assert score.chance == pytest.approx(1 / 50)
    assert result.find("text to image").choices == 130
    assert "130 pictures of" in result.as_text()
    assert "1 broken ones left out" in result.about()
    assert json.loads(json.dumps(result.as_dict()))["scores"][0]["share"] == 1


def test_who_knows_half_is_right_about_half(tmp_path):
    captions = [f"c{n}" for n in range(40)]
    result = evaluate_pictures(Seer(captions, lambda n: n < 20), written(tmp_path, captions))
    assert result.find("image to text").right == 20
    assert result.find("text to image", 10).right == 20
    low, high = result.find("image to text").interval
    assert low < 0.5 < high


def test_classes(tmp_path):
    """All classes may be answers, also those of which nothing is asked."""
    rows = tuple(Row(tmp_path / f"{n}.png", (f"c{n % 2}",)) for n in range(8))
    held = HeldOut("folder", 0.1, ("c0", "c1", "c2", "c3"), rows)
    captions = [f"c{n % 2}" for n in range(8)] + ["c2", "c3"]
    result = evaluate_pictures(Seer(captions, lambda n: n != 3), held)
    (score,) = result.scores
    assert (score.question, score.right, score.total, score.choices) == ("class", 7, 8, 4)
    assert score.chance == pytest.approx(1 / 4)
    assert result.held_out
    assert "8 pictures held out of folder" in result.as_markdown()
    with pytest.raises(KeyError, match="no score for class, 5"):
        result.find("class", 5)


def test_numbers_that_are_none_are_an_error(tmp_path):
    captions = ["a", "b"]
    for broken in ("encode_image", "encode_text"):
        seer = Seer(captions)
        right = getattr(seer, broken)
        setattr(seer, broken, lambda x, right=right, **more: right(x, **more) * math.nan)
        with pytest.raises(ValueError, match=r"model: the embeddings of 2 of 2 .* are not numbers"):
            evaluate_pictures(seer, written(tmp_path, captions))


def test_nothing_to_ask_about(tmp_path):
    with pytest.raises(ValueError, match="none of 2 pictures can be read"):
        evaluate_pictures(
            Seer([]), written(tmp_path, [], ["broken1.png", "broken2.png"]), report=str
        )
    with pytest.raises(ValueError, match="template: got 'a', expected"):
        evaluate_pictures(Seer([]), tmp_path, template="a")


def test_which_pictures_are_asked_about(tmp_path):
    rows = (Row(tmp_path / "1.png", ("a",)),)
    run, source = tmp_path / "run", str((tmp_path / "data.csv").resolve())
    run.mkdir()
    assert own_data(run, None) is None
    assert own_data("mini-vit", "x.csv") == "x.csv"
    held = HeldOut(source, 0.1, (), rows)
    held.write(run)
    assert own_data(run, None) == own_data(run, tmp_path / "data.csv") == held
    assert own_data(run, "other.csv") == "other.csv"
    folder, table = tmp_path / "set", tmp_path / "set" / "captions.csv"
    folder.mkdir()
    table.write_text("")
    for one, other in ((folder, table), (table, folder)):  # a folder and the table in it are one
        held = HeldOut(str(one.resolve()), 0.1, (), rows)
        held.write(run)
        assert own_data(run, other) == held
    HeldOut(source, 0.0, (), ()).write(run)
    assert own_data(run, source) == source
    with pytest.raises(ValueError, match=r"of which no picture was held out .*by --data"):
        own_data(run, None)


# ------------------------------------------------------------------------ a real model


def test_a_model_without_the_words_of_scenes_says_what_to_do(tmp_path, capsys):
    make_pipeline().save(tmp_path / "model.safetensors")  # 40 tokens: too few for some questions
    arguments = ["evaluate", str(tmp_path), "--backend", "numpy"]
    evaluate = importlib.import_module("miniclip.tasks.evaluate")  # not a function of that name
    pipeline = SimpleNamespace(encode_text=fails)
    with pytest.raises(ValueError, match=r"model: its vocabulary does not suit .*by --data"):
        evaluate.embed_pairs(pipeline)
    table = draw_scenes(4, tmp_path / "scenes")
    assert cli.main([*arguments, "--data", str(table)]) == 0
    assert "4 pictures of" in capsys.readouterr().out


def fails(texts, **more):
    raise ValueError("texts[3]: 77 tokens, expected at most 12")


def test_pictures_come_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 3)
    captions = [f"c{n}" for n in range(8)]
    assert evaluate_pictures(Seer(captions), written(tmp_path, captions)).pictures == 8


# ------------------------------------------------------------------------ what is handed on


def test_pictures_are_read_once_by_as_many_threads(tmp_path, monkeypatch):
    """Chunk by chunk, none twice and none beyond the last; each row with all its captions."""
    loads, made = [], []

    class Noted(module.PictureData):
        def __init__(self, listing, transform, workers, seed, report):
            made.append((workers, seed))
            super().__init__(listing, transform, workers, seed, report)

        def load(self, indices, epoch):
            loads.append((list(indices), epoch))
            return super().load(indices, epoch)

    monkeypatch.setattr(module, "PictureData", Noted)
    monkeypatch.setattr(module, "CHUNK", 3)
    captions = [f"c{n}" for n in range(7)]
    data = written(tmp_path, captions)
    data.write_text(data.read_text() + "\n0.png,c1\n0.png,c0\n3.png,c1\n")
    result = evaluate_pictures(Seer(captions), data)
    assert made == [(2, 0)]
    assert loads == [([0, 1, 2], 0), ([3, 4, 5], 0), ([6], 0)]
    assert (result.pictures, result.source, result.model) == (7, str(data), "seer")
    assert not result.held_out
    score = result.find("image to text")
    assert (score.choices, score.right) == (7, 7)  # of c0 and c1 one is enough
    assert score.chance == pytest.approx((5 * 1 / 7 + 2 * 2 / 7) / 7)
    evaluate_pictures(Seer(captions), data, workers=5)
    assert made[-1] == (5, 0)


def test_broken_pictures_are_printed_where_nobody_listens(tmp_path, capsys):
    evaluate_pictures(Seer(["a"]), written(tmp_path, ["a"], ["broken.png"]))
    broken = str(tmp_path / "broken.png")
    assert capsys.readouterr().out == f"{broken!r} is left out: torn\n"


def test_class_folders_by_their_template(tmp_path):
    for name, number in (("cats", 0), ("dogs", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{number}.png").write_bytes(b"")
    for template, captions in (
        ({}, ["a photo of a cats", "a photo of a dogs"]),
        ({"template": "{}!"}, ["cats!", "dogs!"]),
    ):
        result = evaluate_pictures(Seer(captions), str(tmp_path), **template)
        (score,) = result.scores
        assert (score.question, score.right, score.total) == ("class", 2, 2)


def test_nothing_to_ask_about_word_by_word(tmp_path):
    with pytest.raises(ValueError, match="held out") as error:
        evaluate_pictures(Seer([]), HeldOut("the source", 0.1, (), ()))
    message = "the source: no picture was held out, so there is none to ask about"
    assert str(error.value) == message
    with pytest.raises(ValueError, match="template") as error:
        evaluate_pictures(Seer([]), tmp_path, template="a {")
    assert str(error.value) == "template: got 'a {', expected a sentence with {}"
    with pytest.raises(ValueError, match="none of") as error:
        evaluate_pictures(Seer([]), written(tmp_path, [], ["broken.png"]), report=str)
    assert str(error.value) == "data: none of 1 pictures can be read"
    held = HeldOut(str(tmp_path), 0.0, (), ())
    (tmp_path / "run").mkdir()
    held.write(tmp_path / "run")
    with pytest.raises(ValueError, match="was trained") as error:
        own_data(tmp_path / "run", None)
    assert str(error.value) == (
        f"{tmp_path / 'run'}: was trained on {tmp_path}, of which no picture was held out "
        "(--held-out): name pictures to ask about by --data"
    )
