"""What zero-shot says beside its numbers: words never seen, one label, labels that are one."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from picture_checks import noise
from pipelines import make_pipeline

import miniclip
from miniclip import cli
from miniclip.checkpoints import CheckpointError
from miniclip.pipeline import Knowledge
from miniclip.tasks import zero_shot
from miniclip.tasks.zero_shot import build_prompts

SHIPPED = Path(__file__).parents[2] / "weights"
PICTURE = noise("RGB", 40, 50)


@pytest.fixture(scope="module")
def model():
    return make_pipeline()


@pytest.fixture(scope="module")
def small():
    """One that says what it knows."""
    pipeline = make_pipeline()
    pipeline.knows = Knowledge.of("circles", ["a red circle", "a blue circle", "一个红色的圆形"])
    return pipeline


def carried(result, said):
    """Whether print, page and JSON say it."""
    data = json.loads(json.dumps(result.as_dicts(), allow_nan=False))
    return [
        said in repr(result),
        said in result._repr_html_(),
        all(any(said in note for note in row["notes"]) for row in data),
    ]


# ---------------------------------------------------------------- what a model knows


def test_words_that_were_never_seen_are_named(small):
    result = zero_shot([PICTURE, PICTURE], ["a cat", "a red circle", "a dog"], small)
    (note,) = result.notes
    assert note.startswith("this model knows circles; it never saw 'cat', 'dog'")
    assert carried(result, "this model knows circles; it never saw ") == [True] * 3
    assert "'red'" not in note


def test_no_note_where_all_words_are_known_or_nothing_is(small, model):
    for labels in (["a red circle", "A  BLUE circle!"], ["红色的圆形", "a circle"]):
        result = zero_shot(PICTURE, labels, small)
        assert result.notes == []
        assert "note" not in repr(result) + result._repr_html_()
    assert zero_shot(PICTURE, ["a cat", "a dog"], model).notes == []  # nobody says what it knows


def test_templates_are_not_blamed_and_whole_prompts_are(small):
    assert zero_shot(PICTURE, ["red circle", "blue circle"], small, "plain").notes == []
    labels = {"a red circle": ["a photo"], "blue": ["a blue circle"]}
    (note,) = zero_shot(PICTURE, labels, small).notes
    assert "'photo'" in note
    many = ["one", "two", "three", "four", "five", "six", "seven"]
    assert "'five' and 2 more words" in zero_shot(PICTURE, many, small).notes[0]


def test_knowledge_by_its_words():
    knows = Knowledge.of("x", ["A red circle.", "the dog's 3 balls", "一个红色的圆形"])
    assert knows.words == {
        "a",
        "red",
        "circle",
        "the",
        "dog",
        "'s",
        "3",
        "balls",
        *"一个红色的圆形",
    }
    assert knows.unseen("Red dog, CIRCLE 3") == []
    assert knows.unseen("red cat cat bird 4") == ["cat", "bird", "4"]
    assert knows.unseen("红色的猫") == ["猫"]
    later = knows.and_then(Knowledge.of("y", ["a cat"]))
    assert later.unseen("red cat bird") == ["bird"]
    assert later.about == "x; then y"


def test_knowledge_travels_with_the_checkpoint(small, tmp_path):
    for place, layout in (("one/model.safetensors", "openai"), ("two", "hf")):
        small.save(tmp_path / place, layout)
    for place in ("one", "two", "one/model.safetensors"):
        assert miniclip.load(tmp_path / place, backend="numpy").knows == small.knows
    make_pipeline().save(tmp_path / "three" / "model.safetensors")
    assert miniclip.load(tmp_path / "three", backend="numpy").knows is None
    (tmp_path / "one" / "knows.json").write_text('{"about": "x", "words": "a b"}')
    with pytest.raises(CheckpointError, match=r"knows\.json: expected `about`.* and a list"):
        miniclip.load(tmp_path / "one")


@pytest.mark.parametrize("name", ["mini-vit", "mini-rn"])
def test_the_shipped_models_say_what_they_know(name):
    from miniclip.world.captions import ZH_COLOURS, ZH_SHAPES

    model = miniclip.load(SHIPPED / name, backend="numpy")
    names = [f"a {c} {s}" for c in ZH_COLOURS for s in ZH_SHAPES]
    names += [f"一个{c}的{s}" for c in ZH_COLOURS.values() for s in ZH_SHAPES.values()]
    assert [n for n in names if model.knows.unseen(n)] == []
    result = zero_shot(PICTURE, ["a cat", "a red circle"], model)
    assert "drawings of coloured shapes" in result.notes[0]
    assert "never saw 'cat'," in result.notes[0]


def test_what_one_trains_says_what_it_knows(tmp_path):
    from miniclip.tasks.train import train

    quiet = {"backend": "numpy", "report": lambda line: None, "progress": False}
    changes = {"steps": 1, "batch": 2, "warm_up": 0}
    for name in ("red", "blue"):
        (tmp_path / "data" / name).mkdir(parents=True)
        noise("RGB", 40, 40).save(tmp_path / "data" / name / "a.png")
    train("nano", tmp_path / "own", tmp_path / "data", changes=changes, **quiet)
    own = miniclip.load(tmp_path / "own", backend="numpy")
    assert own.knows.about.endswith(" pictures of data")
    assert own.knows.unseen("a photo of a blue cat") == ["cat"]
    train("nano", tmp_path / "more", init=tmp_path / "own", changes=changes, **quiet)
    more = miniclip.load(tmp_path / "more", backend="numpy")
    assert " pictures of data; then drawings of coloured shapes" in more.knows.about
    assert more.knows.unseen("a photo of a striped cat") == ["cat"]


# ---------------------------------------------------------------- one label


def test_one_label_has_no_probability(model):
    result = zero_shot([PICTURE, PICTURE], ["a cat"], model)
    assert np.isnan(result.probability).all()
    assert result.best == ["a cat", "a cat"]
    assert result.top()[0][0].probability is None
    assert carried(result, "a probability needs a choice") == [True] * 3
    assert "%" not in repr(result) + result._repr_html_().replace("max-width: 220px", "")
    assert f"cosine {result.cosine[0, 0]:.4f}" in repr(result)
    assert f"cosine {result.cosine[0, 0]:.4f}" in result._repr_html_()
    assert result.as_dicts()[0]["answers"][0]["probability"] is None
    two = zero_shot(PICTURE, ["a cat", "a dog"], model)
    assert two.notes == []
    assert two.probability.sum() == pytest.approx(1)
    assert repr(two).count("%") == 2


def test_similarity_with_one_text(model):
    one, two = model.similarity(PICTURE, "a cat"), model.similarity(PICTURE, ["a cat", "a dog"])
    assert math.isnan(one.probability[0, 0])
    assert one.probability.dtype == one.cosine.dtype
    assert "a probability needs a choice" in one.notes[0]
    assert two.notes == []
    assert two.cosine[0, 0] == pytest.approx(one.cosine[0, 0], abs=1e-6)
    assert np.isfinite(one.logit).all()


# ---------------------------------------------------------------- labels


SAME = [
    ("a dog's ball", "a dog\u2019s ball"),
    ("café", "cafe\u0301"),
    ("don't", "don 't"),
    ("a &amp; b", "a & b"),
    ("x\u00a0y", "x y"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_labels_that_cleaning_makes_one_are_refused(one, other, model):
    ids = model.tokenize([one, other])
    assert np.array_equal(ids[0], ids[1])
    for labels, templates in (
        ([one, "z", other], None),
        ([one, other], "plain"),
        ({"A": [one], "B": [other]}, None),
    ):
        with pytest.raises(ValueError, match="the same to the model") as error:
            build_prompts(labels, templates)
        first, second = ("A", "B") if isinstance(labels, dict) else (one, other)
        assert repr(first) in str(error.value)
        assert repr(second) in str(error.value)
    build_prompts([one, "z"])


@pytest.mark.parametrize("nothing", ["\x01", "\x7f\x00", "&#32;", "&nbsp;"])
def test_labels_of_which_nothing_is_left(nothing, model):
    assert model.tokenizer.encode(nothing) == []
    for labels, templates in (([nothing, "a"], None), ([nothing, "a"], "plain")):
        with pytest.raises(ValueError, match="cleaning the text leaves nothing") as error:
            build_prompts(labels, templates)
        assert repr(nothing) in str(error.value)
    with pytest.raises(ValueError, match="labels: got 'A', of which"):
        build_prompts({"A": ["a", nothing]})


def test_a_label_that_is_too_long_is_named(model):
    long = "one two three " * 20
    with pytest.raises(ValueError, match=r"^labels: 'one two three one .*, or --truncate, drops"):
        zero_shot(PICTURE, ["cat", long], model)
    with pytest.raises(ValueError, match=r"^labels: 'pet', as 'one two"):
        zero_shot(PICTURE, {"car": "a car", "pet": ["a cat", long]}, model)
    with pytest.raises(ValueError, match=r"^texts\[1\]: got .*\(truncate=True drops"):
        model.encode_text(["cat", long])
    result = zero_shot(PICTURE, ["cat", long], model, truncate=True)
    expected = model.similarity(PICTURE, model.tokenize(["cat", long], truncate=True))
    np.testing.assert_allclose(result.cosine, expected.cosine, atol=1e-6)


def test_labels_that_truncation_makes_one_are_refused(model):
    long = "one two three " * 20
    with pytest.raises(ValueError, match="the same to the model"):
        zero_shot(PICTURE, [long + "cat", long + "dog"], model, truncate=True)


def test_control_characters_are_shown_as_codes(model):
    result = zero_shot(PICTURE, ["a\x1b[31mred", "b\u202ec", "圆 é"], model)
    assert "\x1b" not in repr(result) + result._repr_html_()
    assert "\u202e" not in repr(result) + result._repr_html_()
    for shown in (r"a\x1b[31mred", r"b\u202ec", "圆 é"):
        assert shown in repr(result)
    assert result.as_dicts()[0]["answers"][0]["label"] in result.labels  # JSON escapes by itself


# ---------------------------------------------------------------- pictures that are skipped


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "c", "e"):
        noise("RGB", 40, 50, ord(name)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"")
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


def test_broken_pictures_are_skipped_and_named(model, photos, monkeypatch):
    """From a folder, a list and a generator, in small chunks too; each row is its picture's."""
    labels, good = ["a cat", "a dog"], [str(photos / f"{n}.png") for n in "ace"]
    alone = {name: zero_shot(name, labels, model).cosine[0] for name in good}
    listed = [str(path) for path in sorted(photos.iterdir())]
    missing = str(photos / "none.png")
    for step in (100, 2, 1):
        monkeypatch.setattr("miniclip.pipeline.pipeline.images_per_chunk", lambda config: step)  # noqa: B023
        for images in (photos, listed, iter(listed), [missing, *listed], [photos, missing]):
            absent = missing in images if isinstance(images, list) else False
            result = zero_shot(images, labels, model, on_error="skip")
            assert result.names() == good
            for name, row in zip(good, result.cosine, strict=True):
                np.testing.assert_allclose(row, alone[name], atol=1e-6)
            assert len(result.skipped) == 2 + absent
            for said in ("b.png': an empty file", "d.png': broken", *["no such file"] * absent):
                assert sum(said in line for line in result.skipped) == 1
                assert said in repr(result)
            data = result.as_dicts()
            assert [row["skipped"] for row in data if "skipped" in row] == result.skipped
    with pytest.raises(ValueError, match=r"b\.png': an empty file"):
        zero_shot(photos, labels, model)


def test_nothing_left_is_an_error(model, photos):
    with pytest.raises(ValueError, match=r"images: all were skipped.*b\.png': an empty file"):
        zero_shot([photos / "b.png"], ["a", "b"], model, on_error="skip")
    with pytest.raises(ValueError, match="images: got none"):
        zero_shot([], ["a", "b"], model, on_error="skip")
    with pytest.raises(ValueError, match="on_error: got 'ignore', expected raise or skip"):
        zero_shot(PICTURE, ["a", "b"], model, on_error="ignore")


def test_encode_image_says_which_places_it_left_out(model, photos):
    skipped = {}
    features = model.encode_image(sorted(photos.iterdir()), skipped=skipped)
    assert features.shape == (3, 16)
    assert sorted(skipped) == [1, 3]


# ---------------------------------------------------------------- the command


def test_the_command_reads_skips_cuts_and_notes(model, photos, capsys, monkeypatch, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    model.save(checkpoint / "model.safetensors")
    common = ["--model", str(checkpoint), "--backend", "numpy"]
    labels = ["--labels", "a cat", "a dog"]
    stdin = type("Stdin", (), {"buffer": io.BytesIO((photos / "a.png").read_bytes())})
    monkeypatch.setattr("sys.stdin", stdin)
    assert cli.main(["zero-shot", "-", *labels, *common, "--json"]) == 0
    (piped,) = json.loads(capsys.readouterr().out)
    assert cli.main(["zero-shot", str(photos / "a.png"), *labels, *common, "--json"]) == 0
    (read,) = json.loads(capsys.readouterr().out)
    assert piped == read | {"image": "-"}
    assert cli.main(["zero-shot", str(photos), *labels, *common, "--skip"]) == 0
    assert capsys.readouterr().out.count("skipped: images") == 2
    assert cli.main(["zero-shot", str(photos), *labels, *common]) == 2
    assert "an empty file" in capsys.readouterr().err
    long = ["--labels", "a cat", "one two three " * 20]
    assert cli.main(["zero-shot", str(photos / "a.png"), *long, *common]) == 2
    assert "--truncate" in capsys.readouterr().err
    assert cli.main(["zero-shot", str(photos / "a.png"), *long, *common, "--truncate"]) == 0
    assert cli.main(["zero-shot", str(photos / "a.png"), "--labels", "a cat", *common]) == 0
    assert "a probability needs a choice" in capsys.readouterr().out


# ---------------------------------------------------------------- who answered


def test_the_result_says_who_answered_and_what_it_knows(small, model):
    result = zero_shot(PICTURE, ["a red circle", "a blue circle"], small)
    assert result.remarks()[-1] == f"answered by {small.name}, which knows circles"
    assert repr(result).endswith(", which knows circles")
    assert result.as_dicts()[0]["model"] == small.name
    other = zero_shot(PICTURE, ["a red circle", "a blue circle"], model)
    assert other.remarks() == [f"answered by {model.name}"]
