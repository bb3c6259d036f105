"""The way of an emoji: from packages to pictures, a trained model, and its figures."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from emoji_packages import write_packages
from PIL import Image

import miniclip
from miniclip import cli
from miniclip.emoji.making import make_emoji
from miniclip.inputs.augment import Augment
from miniclip.tasks import train as module
from miniclip.tasks.emoji_evaluation import (
    EmojiScore,
    evaluate_emoji,
    rank,
    score_examples,
    score_held_out,
    score_names,
    score_pictures,
)
from miniclip.tasks.emoji_page import page_of, write_page
from miniclip.tasks.emoji_robustness import (
    CHANGES,
    described,
    emoji_robustness,
    figure_of,
    plot_emoji_robustness,
)
from miniclip.tasks.emoji_robustness import as_markdown as robustness_markdown
from miniclip.tasks.emoji_robustness import as_text as robustness_text
from miniclip.tasks.emoji_set import (
    EmojiQuestions,
    Thing,
    embed_names,
    is_composed,
    is_emoji_set,
    picture_of,
    read_questions,
    words_heard,
    words_in,
)
from miniclip.tasks.settings import read_settings
from miniclip.training.augmented import AugmentedData, OneOfEachLabel, apply_all
from miniclip.training.state import StateError

TINY = """
vocabulary = 560
[model]
embed_dim = 16
vision = {image_resolution = 32, layers = [1, 1, 1, 1], width = 8, heads = 2, pool = "average"}
text = {context_length = 24, width = 32, heads = 2, layers = 1}
[recipe]
steps = 6
batch = 3
warm_up = 2
save_every = 2
[transform]
resize_mode = "longest"
fill = 255
alpha = "white"
[data]
about = "four emoji"
held_out = 0.0
only = {split = ["train"], style = ["noto", "twemoji", "fxemoji"]}
augment = {}
captions = {languages = {en = 0.5, zh = 0.5}}
"""


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    root = tmp_path_factory.mktemp("emoji")
    make_emoji(root / "data", write_packages(root / "packages"))
    return root / "data"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def quiet(line):
    pass


# ------------------------------------------------------------------------ training


def test_what_is_trained_on(tiny, emoji, tmp_path):
    lines = []
    settings = read_settings(tiny)
    pipeline, data, pictures = module.assemble(settings, emoji, None, 2, "{}", lines.append, 0.0)
    assert lines[0] == "9 pictures"  # three things in three styles; the heart is held out
    assert lines[1].startswith(f"decoding 9 pictures into {tmp_path / 'cache' / 'pictures'} (0 MiB")
    assert isinstance(data, OneOfEachLabel)
    assert isinstance(data.data, AugmentedData)
    assert len(data) == 3
    assert {row.label for row in data.data.rows} == {"cat", "dog", "lion"}
    assert data.data.make is apply_all  # numpy: the version to read
    assert data.data.augment == Augment()
    assert data.data.steps == 6
    assert pictures.held_out.rows == ()
    assert pipeline.knows.about == "four emoji"
    assert {"lion", "狮", "animal"} <= pipeline.knows.words
    assert "heart" not in pipeline.knows.words
    fast, _, _ = module.assemble(settings, emoji, None, 2, "{}", quiet, 0.0, "numba")
    assert fast.transform == pipeline.transform
    compiled = module.fast_apply("numba")
    assert compiled is not apply_all
    assert module.fast_apply("numpy") is apply_all


def test_a_run_and_its_continuation_are_the_same(tiny, emoji, tmp_path, monkeypatch):
    whole = module.train(tiny, tmp_path / "whole", emoji, backend="numpy", report=quiet)
    run = module.Trainer.run
    monkeypatch.setattr(module.Trainer, "run", lambda self: run(self, until=3))
    module.train(tiny, tmp_path / "half", emoji, backend="numpy", report=quiet)
    (tmp_path / "half" / "model.safetensors").unlink()
    monkeypatch.setattr(module.Trainer, "run", run)
    again = module.train(tiny, tmp_path / "half", emoji, backend="numpy", report=quiet)
    for name, value in whole.network.state_dict().items():
        np.testing.assert_array_equal(again.network.state_dict()[name], value)
    logs = [
        [json.loads(line)["loss"] for line in (tmp_path / f / "log.jsonl").read_text().splitlines()]
        for f in ("whole", "half")
    ]
    assert logs[0] == logs[1]
    said = []
    module.train(tiny, tmp_path / "whole", emoji, backend="numpy", report=said.append)
    assert any("3 labels, 6 steps of 3 on numpy" in line for line in said)
    loaded = miniclip.load(tmp_path / "whole", backend="numpy")
    assert loaded.transform == whole.transform
    tiny.write_text(TINY.replace("augment = {}", "augment = {hue = 0.01}"))
    with pytest.raises(StateError, match=r"a run with settings\.augment"):
        module.train(tiny, tmp_path / "whole", emoji, backend="numpy", report=quiet)


def test_a_broken_picture_is_left_out_and_told(tiny, emoji, tmp_path):
    copy = tmp_path / "copy"
    make_emoji(copy, emoji.parent / "packages")
    (copy / "pictures/noto/1f408.png").write_bytes(b"no picture")
    lines = []
    settings = read_settings(tiny)
    _, data, _ = module.assemble(settings, copy, None, 2, "{}", lines.append, 0.0)
    assert len(data.data.rows) == 8
    assert lines[2].endswith(
        "1f408.png' is left out: not a picture, or none in a format Pillow reads"
    )


def test_a_run_with_templates_goes_on(tiny, emoji, tmp_path, monkeypatch):
    """As the preset has them: what a checkpoint keeps is JSON, at any depth."""
    more = '\n[data.captions.templates]\nen = ["{}", "a {}"]\n'
    tiny.write_text(TINY.replace("captions = {languages = {en = 0.5, zh = 0.5}}", more))
    run = module.Trainer.run
    monkeypatch.setattr(module.Trainer, "run", lambda self: run(self, until=2))
    module.train(tiny, tmp_path / "run", emoji, backend="numpy", report=quiet)
    (tmp_path / "run" / "model.safetensors").unlink()
    monkeypatch.setattr(module.Trainer, "run", run)
    module.train(tiny, tmp_path / "run", emoji, backend="numpy", report=quiet)


@pytest.mark.parametrize("what", ["rows", "transform.mean", "vocabulary"])
def test_another_table_or_preprocessing_is_no_continuation(
    tiny, emoji, tmp_path, monkeypatch, what
):
    copy = tmp_path / "copy"
    make_emoji(copy, emoji.parent / "packages")
    run = module.Trainer.run
    monkeypatch.setattr(module.Trainer, "run", lambda self: run(self, until=2))
    module.train(tiny, tmp_path / "run", copy, backend="numpy", report=quiet)
    (tmp_path / "run" / "model.safetensors").unlink()
    table = (copy / "metadata.jsonl").read_text()
    if what == "rows":
        (copy / "metadata.jsonl").write_text(table.replace('"text": "cat"', '"text": "a cat"'))
    elif what == "transform.mean":
        tiny.write_text(TINY.replace("fill = 255", "fill = 255\nmean = [0.5, 0.5, 0.5]"))
    else:
        tiny.write_text(TINY.replace("vocabulary = 560", "vocabulary = 520"))
    with pytest.raises(StateError, match=rf"a run with {what} = "):
        module.train(tiny, tmp_path / "run", copy, backend="numpy", report=quiet)


def test_the_preset_wants_data(tmp_path):
    with pytest.raises(ValueError, match=r"data: got none, expected --data: mini-emoji says how"):
        module.train("mini-emoji", tmp_path / "out", report=quiet)


# ------------------------------------------------------------------------ the questions


def test_questions(emoji):
    questions = read_questions(emoji)
    assert [thing.names["en"] for thing in questions.things] == ["red heart", "cat", "dog", "lion"]
    assert questions.numbers("noto") == [0, 1, 2, 3]
    assert questions.numbers("fluent-emoji-flat") == [0, 1, 2]
    assert questions.numbers("noto", "held-out") == [0]
    assert questions.languages == ["en", "zh"]
    assert questions.names("zh")[1] == "猫"
    assert len(questions.pictures) == 12
    assert is_emoji_set(emoji)
    assert not is_emoji_set(emoji.parent)


def test_only_the_first_picture_of_a_style_is_asked_about(emoji, tmp_path):
    rows = [json.loads(line) for line in (emoji / "metadata.jsonl").read_text().splitlines()]
    second = {**rows[1], "number": 1, "file_name": "another.png"}
    lines = [json.dumps(row) for row in [*rows, second]]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    pictures = read_questions(tmp_path).pictures["noto"]
    assert pictures[1] == tmp_path / rows[1]["file_name"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "metadata.jsonl: line 1: not JSON"),
        ('{"number": 0}', "metadata.jsonl: line 1: no character, expected one"),
        ('{"number": 1}', "metadata.jsonl: no rows, expected pictures"),
        ("[]", "metadata.jsonl: line 1: got list, expected an object"),
        ("caf\xe9", "metadata.jsonl: line 1: not JSON"),
    ],
)
def test_what_is_no_set_is_named(tmp_path, text, message):
    (tmp_path / "metadata.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_questions(tmp_path)
    assert not is_emoji_set(tmp_path)


def test_a_missing_set_is_told_how_to_be_made(tmp_path):
    with pytest.raises(
        ValueError, match=r"data: .*metadata\.jsonl is missing; make the set by: mini"
    ):
        read_questions(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}')
    assert not is_emoji_set(tmp_path)


def test_a_picture_is_cut_out_on_white(emoji):
    page = np.asarray(picture_of(read_questions(emoji).pictures["noto"][1], 64))
    assert page.shape == (64, 64, 3)
    seen = (page < 200).any(axis=2)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (59, 60)
    large = np.asarray(picture_of(read_questions(emoji).pictures["noto"][1], 224))
    assert large.shape == (224, 224, 3)


def test_words():
    assert words_in("Money-mouth: 10 o\u2019clock!") == ["money", "mouth", "o", "clock"]
    assert words_in("红心") == ["红心"]
    things = (
        Thing("a", {"en": "black cat"}, {}, "", "train"),
        Thing("b", {"en": "red heart"}, {}, "", "train"),
        Thing("c", {"en": "black heart"}, {}, "", "held-out"),
        Thing("d", {"en": "heart"}, {}, "", "held-out"),
        Thing("e", {"en": "blue heart"}, {}, "", "held-out"),
    )
    heard = words_heard(EmojiQuestions(None, things, {}))
    assert heard == {"black", "cat", "red", "heart"}
    assert [is_composed(thing, heard) for thing in things[2:]] == [True, False, False]


# ------------------------------------------------------------------------ the figures


def questions_of(splits, styles):
    """Things by number; styles: name -> the numbers that it has pictures of."""
    things = tuple(
        Thing(str(n), {"en": f"thing {n}", "zh": f"物 {n}"}, {}, f"group {n % 2}", split)
        for n, split in enumerate(splits)
    )
    pictures = {style: dict.fromkeys(numbers) for style, numbers in styles.items()}
    return EmojiQuestions(None, things, pictures)


def counts(scores):
    return {(s.question, s.split, s.group, s.among): (s.right, s.total) for s in scores}


def test_ties_count_against():
    cosine = np.array([[0.5, 0.5, 0.1], [0.1, 0.9, 0.3], [0.3, 0.2, 0.1]])
    assert rank(cosine, np.array([0, 1, 2])).tolist() == [2, 1, 3]
    assert rank(np.ones((1, 4)), np.array([0])).tolist() == [4]


def test_names_by_split_and_group():
    """Three pictures, of things 3, 0 and 1; the texts are the axes."""
    questions = questions_of(["train", "held-out", "train", "train"], {"openmoji": [3, 0, 1]})
    images = np.eye(4)[[3, 2, 1]]  # the picture of 0 looks like thing 2
    images[1, 0] = 0.5
    found = counts(score_names(questions, "openmoji", "en", images, np.eye(4)))
    assert found["name", "train", "all", 1] == (1, 2)
    assert found["name", "train", "all", 5] == (2, 2)
    assert found["name", "held-out", "all", 1] == (1, 1)
    assert found["name", "train", "group 1", 1] == (1, 1)
    assert found["name", "train", "group 0", 1] == (0, 1)
    assert ("name", "held-out", "group 1", 1) not in found
    other = questions_of(["train"] * 4, {"noto": [3, 0, 1]})
    scores = score_names(other, "noto", "en", images, np.eye(4), "ensemble")
    assert {s.group for s in scores} == {"all"}
    assert {s.prompts for s in scores} == {"ensemble"}
    assert scores[0].chance == 1 / 4
    assert scores[1].chance == 1


def test_things_without_a_name_are_neither_asked_about_nor_answers():
    questions = questions_of(["train"] * 3, {"noto": [0, 1, 2]})
    texts = np.array([[1.0, 0, 0], [np.nan] * 3, [0, 0, 1.0]])
    (first, *_) = score_names(questions, "noto", "da", np.eye(3), texts)
    assert (first.right, first.total, first.choices) == (2, 2, 2)
    (first, *_) = score_pictures(questions, "noto", "da", np.eye(3), texts)
    assert (first.right, first.total) == (2, 2)


def test_embeddings_that_are_no_numbers_are_an_error():
    class Broken(Model):
        def encode_text(self, *arguments, **more):
            return np.full((2, 3), np.nan)

    with pytest.raises(ValueError, match="names"):
        embed_names(Broken(), ["cat", "dog"])
    got = embed_names(Model(), ["cat", None])
    assert np.isnan(got[1]).all()
    assert np.isfinite(got[0]).all()


def test_names_find_pictures_of_trained_things():
    questions = questions_of(["train", "held-out", "train"], {"noto": [2, 1, 0]})
    images = np.eye(3)[[2, 2, 0]]  # the held-out one would come between, were it asked
    found = counts(score_pictures(questions, "noto", "en", images, np.eye(3)))
    assert found["text to image", "train", "all", 1] == (2, 2)
    wrong = counts(score_pictures(questions, "noto", "en", images[::-1], np.eye(3)))
    assert wrong["text to image", "train", "all", 1] == (0, 2)
    none = questions_of(["held-out"], {"noto": [0]})
    assert score_pictures(none, "noto", "en", np.eye(1), np.eye(1)) == []


def test_held_out_names_among_themselves():
    names = ["black cat", "red heart", "black heart", "limes", "tall lime"]
    splits = ["train", "train", "held-out", "held-out", "held-out"]
    things = tuple(Thing(n, {"en": n}, {}, "", s) for n, s in zip(names, splits, strict=True))
    questions = EmojiQuestions(None, things, {"openmoji": dict.fromkeys([4, 2, 0, 3])})
    images = np.eye(5)[[4, 0, 0, 2]].astype(float)
    images[1] += 0.5 * np.eye(5)[2]  # nearer to a trained name, which is no choice here
    found = counts(score_held_out(questions, "openmoji", images, np.eye(5)))
    assert found["held-out name", "held-out", "all", 1] == (2, 3)
    assert found["held-out name", "held-out", "composed", 1] == (1, 1)
    assert found["held-out name", "held-out", "unheard words", 1] == (1, 2)
    assert (
        score_held_out(questions_of(["train"], {"noto": [0]}), "noto", np.eye(1), np.eye(1)) == []
    )


def test_few_examples_beside_zero_shot():
    styles = [f"style {n}" for n in range(8)]
    numbers = {style: [0, 1, 2] for style in styles} | {"openmoji": [2, 1, 0]}
    numbers["style 0"] = [0, 1]  # thing 2 has seven pictures: too few
    questions = questions_of(["train", "train", "train"], numbers)
    images = {style: np.eye(3)[list(found)] for style, found in numbers.items()}
    texts = np.eye(3)[[1, 0, 2]]  # zero-shot is always wrong
    scores = score_examples(questions, images, texts)
    assert [s.question for s in scores] == [f"{k} examples" for k in (0, 1, 2, 4, 8)]
    assert [(s.right, s.total, s.choices) for s in scores] == [(0, 2, 2), *[(2, 2, 2)] * 4]
    few = questions_of(["train"], {"noto": [0], "openmoji": [0]})
    assert score_examples(few, {"noto": np.eye(1), "openmoji": np.eye(1)}, np.eye(1)) == []


def test_examples_are_drawn_from_the_thing_itself():
    styles = [f"style {n}" for n in range(8)]
    numbers = {style: [1, 0] for style in styles} | {"openmoji": [0, 1]}
    questions = questions_of(["train", "train"], numbers)
    images = {style: np.eye(2)[[1, 0]] for style in styles} | {"openmoji": np.eye(2)}
    assert all(s.right == s.total for s in score_examples(questions, images, np.eye(2)))


class Model:
    """A stand-in that embeds pictures by their mean colour and names by a table."""

    name = "stand-in"

    def __init__(self):
        self.asked = []

    def encode_text(self, texts, normalize, truncate, progress):
        self.asked.append(texts)
        lengths = np.array([[len(t), 1.0] for t in texts])
        return lengths / np.linalg.norm(lengths, axis=1, keepdims=True)


def test_an_ensemble_is_the_unit_mean_of_unit_vectors():
    model = Model()
    got = embed_names(model, ["cat", "lion"], ["{}", "a big {}"])
    assert model.asked == [["cat", "lion", "a big cat", "a big lion"]]
    unit = [np.array([n, 1.0]) / np.hypot(n, 1) for n in (3, 9)]
    mean = (unit[0] + unit[1]) / 2
    np.testing.assert_allclose(got[0], mean / np.linalg.norm(mean), rtol=1e-12)


# ------------------------------------------------------------------------ the whole way


@pytest.fixture(scope="module")
def evaluated(emoji, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICLIP_CACHE_DIR", str(root / "cache"))
        (root / "tiny.toml").write_text(TINY)
        module.train(root / "tiny.toml", root / "out", emoji, backend="numpy", report=quiet)
    return root / "out"


def test_every_question_is_asked(evaluated, emoji):
    model = miniclip.load(evaluated, backend="numpy")
    result = evaluate_emoji(model, read_questions(emoji))
    for style in read_questions(emoji).pictures:
        for language in ("en", "zh"):
            asked = result.find(style=style, language=language, split="train", group="all")
            kinds = {(s.question, s.prompts) for s in asked if "examples" not in s.question}
            expected = {("name", "name"), ("name", "ensemble"), ("text to image", "name")}
            assert kinds == expected
    (name,) = result.find(
        question="name", style="noto", language="en", split="train", among=1, prompts="name"
    )
    assert name.total == 3
    assert name.choices == 4
    assert len(result.find(question="held-out name", group="all")) == 3
    assert len(result.find(question="8 examples")) == 1
    text = result.as_text()
    assert "name, en\n" in text
    assert "name, zh, ensemble\n" in text
    assert "| style | split | group |" in result.as_markdown()
    data = result.as_dict()
    assert {"share", "low", "high", "chance"} <= set(data["scores"][0])
    some = evaluate_emoji(model, read_questions(emoji), ["noto"], ["zh"])
    assert {(s.style, s.language) for s in some.scores} == {("noto", "zh")}
    for wrong in ({"styles": ["notto"]}, {"languages": ["xx"]}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got '.*', expected some of"):
            evaluate_emoji(model, read_questions(emoji), **wrong)


def test_the_command(evaluated, emoji, capsys):
    arguments = ["evaluate", str(evaluated), "--data", str(emoji), "--backend", "numpy"]
    assert cli.main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["source"] == str(emoji)
    assert {s["question"] for s in data["scores"]} >= {"name", "text to image", "held-out name"}
    assert cli.main([*arguments, "--markdown"]) == 0
    assert "| openmoji | train | all |" in capsys.readouterr().out
    assert isinstance(EmojiScore("name", "a", "en", "train", "all", 1, 4, 1, 2).as_dict(), dict)


# ------------------------------------------------------------------------ robustness and the page


def test_robustness(evaluated, emoji, tmp_path):
    model = miniclip.load(evaluated, backend="numpy")
    questions = read_questions(emoji)
    rows = emoji_robustness(model, questions)
    changes = {(r.style, r.change, r.strength) for r in rows}
    for style in ("noto", "openmoji"):
        for change, (_, strengths) in CHANGES.items():
            assert {(style, change, s) for s in strengths} <= changes
    assert len(rows) == 2 * 12 + 10
    assert {r.total for r in rows if r.style != "fluent-emoji-flat"} == {3}
    again = emoji_robustness(model, questions)
    assert rows == again  # noise too
    (name,) = evaluate_emoji(model, questions, ["noto"], ["en"]).find(
        question="name", split="train", among=1, prompts="name"
    )
    (plain,) = [r for r in rows if (r.style, r.change) == ("noto", "none")]
    assert (plain.right, plain.total) == (name.right, name.total)
    assert "openmoji (not trained on)" in robustness_text(rows)
    assert "| emojione-monotone (one colour) |" in robustness_markdown(rows)
    plot_emoji_robustness({"one": rows, "two": rows}, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="models: got none"):
        plot_emoji_robustness({}, tmp_path / "y.png")
    shares = {
        r.strength: r.share for r in rows if r.style == "noto" and r.change in ("none", "blur")
    }
    (axes,) = [a for a in figure_of({"one": rows}).axes if a.get_title() == "blur"]
    line = axes.lines[0]
    assert list(line.get_xdata(orig=True)) == ["none", "1", "2", "3"]
    assert list(line.get_ydata(orig=True)) == [shares[s] for s in ("", 1, 2, 3)]


def test_changes_of_a_picture():
    picture = Image.new("RGB", (32, 32), "white")
    picture.paste("red", (4, 12, 12, 20))
    turned = np.asarray(CHANGES["rotation"][0](picture, 90, None))
    assert tuple(turned[26, 16]) == (255, 0, 0)  # from the left to the bottom
    assert (turned[:3] == 255).all()
    corners = np.asarray(CHANGES["rotation"][0](Image.new("RGB", (32, 32), "red"), 45, None))
    assert tuple(corners[0, 0]) == (255, 255, 255)
    grey = np.asarray(CHANGES["greyscale"][0](picture, "", None))
    assert len(set(grey[16, 6])) == 1
    assert described("nothing known") == "nothing known"


def test_the_page(evaluated, emoji, tmp_path, capsys):
    model = miniclip.load(evaluated, backend="numpy")
    page = write_page(model, read_questions(emoji), tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert page.count("held out</span>") == 1
    assert "<h2>Animals</h2>" in page
    with pytest.raises(ValueError, match="style: got 'x', expected one of noto, "):
        write_page(model, read_questions(emoji), tmp_path / "page.html", "x")
    arguments = ["evaluate", str(evaluated), "--data", str(emoji), "--backend", "numpy"]
    arguments += ["--robustness", "--json", "--page", str(tmp_path / "other.html")]
    assert cli.main(arguments) == 0
    out = capsys.readouterr()
    assert {row["change"] for row in json.loads(out.out)} == set(CHANGES)
    assert out.err.startswith(f"wrote {tmp_path / 'other.html'}")
    assert (tmp_path / "other.html").read_text() == page


def test_what_is_wrong_comes_first_and_ties_are_wrong(emoji):
    questions = read_questions(emoji)
    names = questions.names("en")
    probability = np.array(
        [[0.4, 0.4, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.5, 0.3, 0.2, 0], [0, 0, 0.6, 0.4]]
    )
    model = SimpleNamespace(name="<model>", scale=lambda x: SimpleNamespace(probability=x))
    page = page_of(questions, "noto", names, probability, model)
    assert "&lt;model&gt; sees in noto" in page
    assert "25.0% of 4 pictures" in page
    assert "its own name comes as number 2" in page  # the heart's, by a tie
    animals = page[page.index("<h2>Animals") :]
    names = ["dog", "lion", "cat"]
    places = [animals.index(f'<div class="name">{name}<') for name in names]
    assert places == sorted(places)
    assert animals.count('class="one wrong"') == 2
