"""What tasks return, whole: every word, number and mark-up of made-up results, by hand."""

import base64
import io
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from miniclip.inputs.pictures import Picture
from miniclip.tasks import result as result_file
from miniclip.tasks import templates
from miniclip.tasks.evaluation_result import (
    CHANCE,
    Evaluation,
    Score,
    crossed,
    percent,
    summary,
    wilson_interval,
)
from miniclip.tasks.result import Answer, ZeroShotResult, bar, remembered, thumbnail

# ------------------------------------------------------------------------ zero-shot


def made_up(images=("a.png", None)):
    """Two pictures, three labels; the second has two that fit equally well."""
    return ZeroShotResult(
        ["cat", "a dog", "sky"],
        np.array([[0.25, 0.3, 0.1], [0.2, 0.15, 0.2]]),
        np.array([[2.5, 3.0, 1.0], [2.0, 1.5, 2.0]]),
        np.array([[0.35, 0.57, 0.08], [0.4, 0.2, 0.4]]),
        [image for image in images if image is not None],
    )


def test_answers_as_text():
    text = (
        "a.png\n"
        "  a dog   57.00%  cosine 0.3000  logit 3.00\n"
        "  cat     35.00%  cosine 0.2500  logit 2.50\n"
        "  sky      8.00%  cosine 0.1000  logit 1.00\n"
        "image 1\n"
        "  cat     40.00%  cosine 0.2000  logit 2.00\n"
        "  sky     40.00%  cosine 0.2000  logit 2.00\n"
        "  a dog   20.00%  cosine 0.1500  logit 1.50"
    )
    assert repr(made_up()) == made_up().as_text() == text
    assert made_up().as_text(1) == (
        "a.png\n  a dog   57.00%  cosine 0.3000  logit 3.00\n"
        "image 1\n  cat   40.00%  cosine 0.2000  logit 2.00"
    )
    assert made_up().best == ["a dog", "cat"]


def test_answers_as_data():
    dog, cat, sky = (
        {"label": "a dog", "cosine": 0.3, "logit": 3.0, "probability": 0.57},
        {"label": "cat", "cosine": 0.25, "logit": 2.5, "probability": 0.35},
        {"label": "sky", "cosine": 0.1, "logit": 1.0, "probability": 0.08},
    )
    first, second = made_up().as_dicts()
    assert first == {"image": "a.png", "answers": [dog, cat, sky], "notes": [], "model": ""}
    assert [answer["label"] for answer in second["answers"]] == ["cat", "sky", "a dog"]
    assert made_up().as_dicts(2)[0]["answers"] == [dog, cat]
    assert made_up().as_dicts(1)[0]["answers"] == [dog]
    assert [len(row["answers"]) for row in made_up().as_dicts(9)] == [3, 3]
    assert made_up().top(1) == [[Answer(**dog)], [made_up().answer(1, 0)]]
    for k in (0, -1):
        with pytest.raises(ValueError, match=rf"^k: got {k}, expected at least 1$"):
            made_up().top(k)
    numbers = vars(made_up().answer(0, 2))
    assert {type(value) for value in numbers.values()} == {str, float}


def one_label():
    """Which has no probability; with a note, and a picture that is left out."""
    one = np.array([[0.25], [0.5]])
    return ZeroShotResult(
        ["a\ncat"], one, 10 * one, np.full((2, 1), np.nan), ["a/b\x1b.png", None],
        ["seldom <seen>", "new\tword"], ["images[2]: broken"], "mine", "cats <only>",
    )  # fmt: skip


def test_one_label_has_a_cosine_and_no_probability():
    """What would steer a terminal is shown by its code; remarks come last."""
    assert one_label().as_text() == (
        "a/b\\x1b.png\n  a\\ncat  cosine 0.2500  logit 2.50\n"
        "image 1\n  a\\ncat  cosine 0.5000  logit 5.00\n"
        "note: seldom <seen>\nnote: new\\tword\nskipped: images[2]: broken\n"
        "answered by mine, which knows cats <only>"
    )
    notes = ["seldom <seen>", "new\tword"]
    answer = {"label": "a\ncat", "cosine": 0.25, "logit": 2.5, "probability": None}
    first, second, skipped = one_label().as_dicts()
    assert first == {"image": "a/b\x1b.png", "answers": [answer], "notes": notes, "model": "mine"}
    assert (second["image"], skipped) == ("image 1", {"skipped": "images[2]: broken"})
    assert one_label().best == ["a\ncat"] * 2
    assert (made_up().notes, made_up().skipped, made_up().remarks()) == ([], [], [])


def test_a_page_of_one_label(monkeypatch):
    """A bar needs a probability; a path is shown by its end, and whole when it is pointed at."""
    monkeypatch.setattr(result_file, "thumbnail", lambda image: f"[{len(image or '')}]")
    cell = '<div style="margin: 8px; width: 230px">'
    assert one_label()._repr_html_() == (
        f'<div style="display: flex; flex-wrap: wrap">{cell}[8]'
        '<div title="a/b\\x1b.png">b\\x1b.png</div><div>a\\ncat cosine 0.2500</div></div>'
        f"{cell}[0]<div>image 1</div><div>a\\ncat cosine 0.5000</div></div></div>"
        "<p>note: seldom &lt;seen&gt;</p><p>note: new\tword</p><p>skipped: images[2]: broken</p>"
        "<p>answered by mine, which knows cats &lt;only&gt;</p>"
    )


def test_five_labels_are_shown_and_all_are_data():
    """Of equal ones those that were given first, however many there are."""
    labels = [f"label {i}" for i in range(60)]
    logit = np.zeros((1, 60), np.float32)
    logit[0, ::2] = 1
    many = ZeroShotResult(labels, logit, logit, logit / 30)
    order = [*labels[::2], *labels[1::2]]
    assert [a.label for a in many.top()[0]] == order[:5]
    assert [a["label"] for a in many.as_dicts()[0]["answers"]] == order
    assert len(many.as_text().splitlines()) == 6
    assert len(many.as_text(7).splitlines()) == 8
    assert many._repr_html_().count("cosine") == 5


def test_pictures_are_named_by_path_or_number():
    images = [Path("a/b.png"), np.zeros((2, 2, 3)), "c.png"]
    rows = np.zeros((5, 1))
    named = ZeroShotResult(["x"], rows, rows, rows, images)
    assert named.names() == [str(Path("a/b.png")), "image 1", "c.png", "image 3", "image 4"]
    opened = SimpleNamespace(name="open.png"), SimpleNamespace(name=7), SimpleNamespace(name=b"x")
    files = ZeroShotResult(["x"], rows[:3], rows[:3], rows[:3], list(opened))
    assert files.names() == ["open.png", "image 1", "image 2"]  # a descriptor is no name
    assert ZeroShotResult(["x"], rows, rows, rows).names() == [f"image {i}" for i in range(5)]
    assert ZeroShotResult(["x"], rows, rows, rows).images == []


def test_a_result_is_shown_without_its_pictures():
    shown = [f.name for f in ZeroShotResult.__dataclass_fields__.values() if f.repr]
    assert shown == [
        "labels",
        "cosine",
        "logit",
        "probability",
        "notes",
        "skipped",
        "model",
        "about",
    ]


def test_a_bar_is_as_long_as_it_is_probable():
    assert bar(Answer("a <dog> & cat", 0.25, 3.456, 0.1234)) == (
        '<div title="cosine 0.2500, logit 3.46"><div style="background: #9cf; width: 12.3%; '
        'white-space: nowrap">a &lt;dog&gt; &amp; cat 12.3%</div></div>'
    )


def test_a_page_of_pictures_and_bars(monkeypatch):
    monkeypatch.setattr(result_file, "thumbnail", lambda image: f"[{image}]")
    monkeypatch.setattr(result_file, "bar", lambda answer: f"({answer.label})")
    assert made_up(("<a>.png", None))._repr_html_() == (
        '<div style="display: flex; flex-wrap: wrap">'
        '<div style="margin: 8px; width: 230px">[<a>.png]<div>&lt;a&gt;.png</div>'
        "(a dog)(cat)(sky)</div>"
        '<div style="margin: 8px; width: 230px"><div>image 1</div>(cat)(sky)(a dog)</div></div>'
    )


@pytest.mark.parametrize(("count", "shown", "more"), [(12, 12, ""), (13, 12, "1"), (20, 12, "8")])
def test_twelve_pictures_are_shown(count, shown, more):
    rows = np.zeros((count, 1))
    page = ZeroShotResult(["x"], rows, rows, rows)._repr_html_()
    assert page.count("<div>image ") == shown
    assert page.endswith(f"</div><p>and {more} more</p>" if more else "</div>")


def pixels_of(tag):
    data = re.fullmatch(r'<img src="data:image/png;base64,([^"]+)" style="(.*)">', tag)
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as picture:
        return picture.mode, picture.size, data[2]


def test_thumbnails_fit_into_a_square_and_are_not_enlarged(tmp_path):
    wide = np.zeros((300, 600, 3), np.uint8)
    assert pixels_of(thumbnail(wide)) == ("RGB", (220, 110), "max-width: 220px")
    assert pixels_of(thumbnail(wide, 60)) == ("RGB", (60, 30), "max-width: 60px")
    assert pixels_of(thumbnail(np.zeros((10, 20, 1), np.uint8)))[:2] == ("RGB", (20, 10))
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by a quarter: shown as it is kept, as preprocessing reads it
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert pixels_of(thumbnail(tmp_path / "turned.jpg"))[1] == (40, 20)
    for nothing in (None, tmp_path / "none.png", np.zeros((1, 3, 8, 8), np.float32), io.BytesIO()):
        assert thumbnail(nothing) == ""


def test_what_was_asked_about_is_remembered():
    array = np.zeros((2, 2, 3))
    given = [Picture("a", "a.png"), Picture("b", array)]
    same, sources = remembered(given)
    assert same is given
    assert sources[0] == "a.png"
    assert sources[1] is array
    batch = np.zeros((2, 3, 4, 4))  # preprocessed: arrays, and no pictures
    same, sources = remembered(batch)
    assert same is batch
    assert [source.shape for source in sources] == [(3, 4, 4)] * 2


def test_of_an_iterator_paths_and_a_few_pictures_are_kept():
    """As they pass, and not before."""
    pictures = [Picture(str(i), f"{i}.png" if i % 3 == 0 else Path(f"{i}") if i == 16 else [i])
                for i in range(18)]  # fmt: skip
    passing, sources = remembered(iter(pictures))
    assert sources == []
    assert next(passing) is pictures[0]
    assert sources == ["0.png"]
    assert list(passing) == pictures[1:]
    kept = [picture.source for picture in pictures]
    kept[13] = kept[14] = kept[17] = None
    assert sources == kept


# ------------------------------------------------------------------------ evaluation


def evaluation():
    rows = [
        ("pair", "en", "seen", "all", 90, 100), ("pair", "zh", "held-out", "all", 1, 3),
        ("count", "en", "seen", "all", 50, 100),
        ("pair", "en", "seen", "texture solid", 45, 50),
        ("pair", "en", "held-out", "texture solid", 3, 4),
        ("pair", "en", "seen", "size small", 1, 2),
        ("count", "en", "seen", "number one", 10, 30), ("count", "zh", "seen", "number one", 9, 30),
        ("relation", "zh", "seen", "relation left", 2, 8),
    ]  # fmt: skip
    return Evaluation("toy", 100, 7, tuple(Score(*row) for row in rows))


def test_an_evaluation_as_text():
    assert evaluation().as_text() == (
        "question  language     pairs  right            95 %  chance  scenes\n"
        "pair            en      seen  90.0%  82.6% to 94.5%    0.8%     100\n"
        "pair            zh  held-out  33.3%   6.1% to 79.2%    0.8%       3\n"
        "count           en      seen  50.0%  40.4% to 59.6%   33.3%     100\n"
        "\n"
        "pair (en), by         seen    held-out\n"
        "texture solid  90.0% of 50  75.0% of 4\n"
        "size small      50.0% of 2\n"
        "\n"
        "by the truth            en           zh\n"
        "number one     33.3% of 30  30.0% of 30\n"
        "relation left                25.0% of 8"
    )


def test_an_evaluation_as_markdown():
    lines = evaluation().as_markdown().split("\n")
    assert lines[:3] == [
        "| question | language | pairs | right | 95 % | chance | scenes |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
        "| pair | en | seen | 90.0% | 82.6% to 94.5% | 0.8% | 100 |",
    ]
    assert lines[5:8] == [
        "", "| pair (en), by | seen | held-out |", "| :-- | --: | --: |",
    ]  # fmt: skip
    assert lines[-1] == "| relation left |  | 25.0% of 8 |"


def test_tables_without_groups_are_left_out():
    scores = evaluation().scores
    only = [Evaluation("toy", 1, 1, s).tables() for s in (scores[:3], scores[:6], scores[6:])]
    assert [len(tables) for tables in only] == [1, 2, 2]
    assert only[1][1][0] == ["pair (en), by", "seen", "held-out"]
    assert only[2][1][0] == ["by the truth", "en", "zh"]
    assert only[2][0] == (summary([])[0], [])
    assert crossed("x", scores[:1], lambda s: s.group, lambda s: s.language) == (
        ["x", "en"], [["all", "90.0% of 100"]]
    )  # fmt: skip


def test_an_evaluation_as_data():
    data = evaluation().as_dict()
    scores = data.pop("scores")
    assert data == {"model": "toy", "count": 100, "seed": 7}
    assert scores[2] == {
        "question": "count", "language": "en", "pairs": "seen", "group": "all", "right": 50,
        "total": 100, "share": 0.5, "low": pytest.approx(0.4038315), "chance": 1 / 3,
        "high": pytest.approx(0.5961685),
    }  # fmt: skip
    assert len(scores) == 9


def test_scores_are_found_by_all_that_they_are():
    found = evaluation()
    assert found.find("pair") is found.scores[0]
    assert found.find("pair", "zh", "held-out") is found.scores[1]
    assert found.find("pair", group="size small") is found.scores[5]
    assert found.find("count", "zh", group="number one") is found.scores[7]
    with pytest.raises(KeyError) as error:
        found.find("shape", pairs="held-out")
    assert error.value.args == ("no score for shape, en, held-out, all",)


def test_chance_is_one_of_the_answers():
    assert CHANCE == {
        "pair": 1 / 120, "colour": 1 / 10, "shape": 1 / 12, "count": 1 / 3, "relation": 1 / 4,
        "binding": 1 / 2,
    }  # fmt: skip
    assert Score("shape", "en", "seen", "all", 1, 4).chance == 1 / 12
    assert percent(0.12345) == "12.3%"


def test_intervals_stay_between_nothing_and_everything():
    """At both ends exactly, where rounding leads out of [0, 1]; solved for p as a quadratic."""
    for total in range(1, 400):
        low, high = wilson_interval(0, total)
        assert 0 <= low < 1e-15 < high < 1
        low, high = wilson_interval(total, total)
        assert 0 < low < high <= 1
        assert high > 1 - 1e-15
    for right, total, z in ((3, 8, 1.959963984540054), (7, 9, 1.0), (1, 1, 3.0)):
        share, w = right / total, z * z / total
        ends = np.sort(np.roots([1 + w, -(2 * share + w), share**2]))  # (share - p)^2 = w p (1 - p)
        assert wilson_interval(right, total, z) == pytest.approx(tuple(ends))
    assert wilson_interval(3, 8) == wilson_interval(3, 8, 1.959963984540054)
    for right, total in ((-1, 3), (4, 3), (0, 0), (1, 0)):
        with pytest.raises(ValueError) as error:
            wilson_interval(right, total)
        assert str(error.value) == (
            f"right: got {right} of {total}, expected 0 to total, and some in total"
        )
    assert math.isclose(sum(wilson_interval(1, 2)), 1)


# ------------------------------------------------------------------------ templates


def test_templates_by_name_one_or_many():
    assert templates.find_templates(None) == ("{}",)
    assert templates.find_templates("plain") == ("a photo of a {}.",)
    assert templates.find_templates("imagenet7") is templates.IMAGENET_7
    assert templates.find_templates("imagenet80") is templates.IMAGENET_80
    assert templates.find_templates("one {}") == ("one {}",)
    assert templates.find_templates(["one {}", "{}, {}"]) == ("one {}", "{}, {}")
    assert templates.find_templates(("{}",)) == ("{}",)


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (3, TypeError, "templates: got int, expected a list of sentences"),
        ({"{}"}, TypeError, "templates: got set, expected a list of sentences"),
        ([], ValueError, "templates: got none, expected at least one sentence with {}"),
        ((), ValueError, "templates: got none, expected at least one sentence with {}"),
        ("photo", ValueError, "templates: got 'photo', expected a sentence with {} for the label, "
         "or one of the names plain, imagenet7, imagenet80"),
        (["{}", 5], ValueError, "templates: got 5, expected a sentence with {} for the label, "
         "or one of the names plain, imagenet7, imagenet80"),
        (["{}", b"{}"], ValueError, "templates: got b'{}', expected a sentence with {} for the "
         "label, or one of the names plain, imagenet7, imagenet80"),
        (["{}", ["{}"]], ValueError, "templates: got ['{}'], expected a sentence with {} for the "
         "label, or one of the names plain, imagenet7, imagenet80"),
        (["{}", "{ }"], ValueError, "templates: got '{ }', expected a sentence with {} for the "
         "label, or one of the names plain, imagenet7, imagenet80"),
    ],
)  # fmt: skip
def test_wrong_templates(wrong, kind, message):
    with pytest.raises(kind) as error:
        templates.find_templates(wrong)
    assert str(error.value) == message
