"""Each step of zero-shot by what it is given and hands on; its messages at their bounds."""

import importlib

import numpy as np
import pytest
from picture_checks import noise
from pipelines import make_pipeline

from miniclip.checkpoints.shipped import DEFAULT
from miniclip.pipeline import Knowledge, Pipeline

module = importlib.import_module("miniclip.tasks.zero_shot")  # not the function of that name
PICTURE = noise("RGB", 40, 50)
LONG = "one two three " * 20


@pytest.fixture(scope="module")
def model():
    return make_pipeline()


def refused(kind, call, *arguments):
    with pytest.raises(kind) as error:
        call(*arguments)
    return str(error.value)


@pytest.mark.parametrize("progress", [None, True, False])
def test_bars_are_those_that_were_asked_for(progress, model, monkeypatch):
    """Of texts and of pictures alike."""
    seen = []
    for name in ("encode_text", "encode_image"):
        right = getattr(Pipeline, name)

        def noted(self, given, *arguments, right=right, **more):
            seen.append(more.get("progress", arguments[1] if len(arguments) > 1 else None))
            return right(self, given, *arguments, **more)

        monkeypatch.setattr(Pipeline, name, noted)
    module.zero_shot([PICTURE], ["a", "b"], model, progress=progress)
    assert seen == [progress, progress]


def test_the_model_may_be_a_name(model, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "load", lambda what: asked.append(what) or model)
    module.zero_shot([PICTURE], ["a", "b"])
    module.zero_shot([PICTURE], ["a", "b"], "folder")
    assert asked == [DEFAULT, "folder"]


def test_labels_from_an_array_are_strings(model):
    names, prompts = module.build_prompts(np.array(["a", "b"]))
    assert (names, prompts) == (["a", "b"], [["a"], ["b"]])
    assert {type(name) for name in names} == {str}
    assert module.build_prompts(iter(["a", "b"]), "{}!")[1] == [["a!"], ["b!"]]
    assert module.build_prompts({"x": ("a", "b")}) == (["x"], [["a", "b"]])


def test_what_is_no_label_word_by_word(model):
    for labels, kind, message in (
        ("a b", ValueError, "labels: got the string 'a b', expected a list of strings"),
        (3, TypeError, "labels: got int, expected a list of strings"),
        ([], ValueError, "labels: got none, expected at least one"),
        (["a", None], ValueError, "labels: got None, expected a text that is not empty"),
        (["a", " "], ValueError, "labels: got ' ', expected a text that is not empty"),
        (["a", "b", "a"], ValueError, "labels: got 'a' twice, expected each label once"),
        (["a", "A"], ValueError,
         "labels: got 'A' twice (as 'a', the same to the model), expected each label once"),
        ({"x": {"a"}}, ValueError, "labels['x']: got {'a'}, expected a list of prompts"),
        ({"x": ()}, ValueError, "labels['x']: got (), expected a list of prompts"),
        ({"x": ["a", ""]}, ValueError,
         "labels['x']: got ['a', ''], expected prompts that are not empty"),
        ({"x": ["a", 3]}, ValueError,
         "labels['x']: got ['a', 3], expected prompts that are not empty"),
        (["\x01"], ValueError,
         "labels: got '\\x01', of which cleaning the text leaves nothing, expected words"),
    ):  # fmt: skip
        assert refused(kind, module.build_prompts, labels) == message


def test_label_vectors_by_hand(model):
    """Normalise, mean, normalise: of one prompt, of three, of two, in this order."""
    prompts = [["a"], ["a cat", "a dog", "red"], ["blue", "sky"]]
    got = module.encode_labels(model, prompts)
    for row, group in zip(got, prompts, strict=True):
        unit = model.encode_text(group)
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        mean = unit.mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)
    assert got.shape == (3, 16)


def test_who_is_named_where_a_label_is_too_long(model):
    """The label; its prompt beside it, where that is another text; without names, the prompt."""
    shown = "'one two three one two three one"
    for prompts, names, start in (
        ([["a"], [LONG]], None, f"labels: {shown}"),
        ([["a"], [LONG]], ["x", LONG], f"labels: {shown}"),
        ([["a"], ["b", LONG]], ["x", "y"], f"labels: 'y', as {shown}"),
        ([["a"], ["b", LONG]], None, f"labels: 'b', as {shown}"),
    ):
        message = refused(ValueError, module.encode_labels, model, prompts, None, names)
        assert message.startswith(start)
        assert (", as " in message) == (", as " in start)
        assert message.endswith(" (truncate=True, or --truncate, drops what does not fit)")
    cut = module.encode_labels(model, [["a"], [LONG]], truncate=True)
    np.testing.assert_allclose(cut[0], module.encode_labels(model, [["a"]])[0], atol=1e-6)
    message = refused(
        ValueError,
        module.encode_labels,
        model,
        [[LONG + "a"], [LONG + "b"]],
        None,
        ["x", "y"],
        True,
    )
    assert (
        message == "labels: got 'y' twice (as 'x', the same to the model), expected each label once"
    )


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["red"], None),
        (["cat"], "'cat'"),
        (["a b", "b c", "red d", "e"], "'a', 'b', 'c', 'd', 'e'"),
        (["a b", "b c", "red d", "e f"], "'a', 'b', 'c', 'd', 'e' and 1 more words"),
        ({"f": ["red", "a b"], "g": "red c"}, "'a', 'b', 'c'"),
    ],
)
def test_words_that_a_model_never_saw(labels, named, monkeypatch):
    """Five are named; of whole prompts these count, of labels the labels."""
    model = make_pipeline()
    model.knows = Knowledge.of("red things", ["red"])
    given = module.build_prompts(labels)
    notes = module.notes_on_words(model, *given, labels)
    said = "and what it says of labels with such words means nothing"
    known = "this model knows red things; it never saw"
    assert notes == ([] if named is None else [f"{known} {named}, {said}"])


def test_pictures_and_cosines_belong_together(model):
    cosine = np.array([[0.1, 0.2], [0.3, 0.1]])
    assert len(module.choose(model, cosine, ["a", "b"]).images) == 0
    result = module.choose(model, cosine, ["a", "b"], (PICTURE, "x.png"))
    assert result.images == [PICTURE, "x.png"]
    assert result.best == ["b", "a"]
    for images in (["x"], ["x", "y", "z"]):
        message = refused(ValueError, module.choose, model, cosine, ["a", "b"], images)
        assert message == f"images: got {len(images)} pictures for 2 rows of cosines"


def test_what_is_skipped(model, tmp_path):
    """By its place; the first reason stands in the error where nothing is left."""
    missing = [str(tmp_path / f"{name}.png") for name in "ab"]
    result = module.zero_shot([missing[0], PICTURE, missing[1]], ["a", "b"], model, on_error="skip")
    assert result.images == [PICTURE]
    assert len(result.skipped) == 2
    assert all(name in line for name, line in zip(missing, result.skipped, strict=True))
    assert module.zero_shot([PICTURE], ["a", "b"], model, on_error="skip").skipped == []
    assert module.zero_shot([PICTURE], ["a", "b"], model).skipped == []

    def ask(images):
        return module.zero_shot(images, ["a", "b"], model, None, None, False, "skip")

    message = refused(ValueError, ask, missing)
    start = f"images: all were skipped, expected one that can be read; images[0] {missing[0]!r}"
    assert message.startswith(start)
    wrong = refused(ValueError, module.zero_shot, [], [], None, None, None, False, "no")
    assert wrong == "on_error: got 'no', expected raise or skip"
