"""The main job: pictures and labels in, the right label out; six steps, each of them visible."""

import json

import drawn
import numpy as np
import pytest
from PIL import Image
from pipelines import make_pipeline

import miniclip
from miniclip.checkpoints.shipped import DEFAULT, shipped_path
from miniclip.inputs.bpe import train_merges
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP
from miniclip.pipeline.batching import images_per_chunk, looks_preprocessed
from miniclip.tasks import templates, zero_shot
from miniclip.tasks.zero_shot import build_prompts, encode_labels


@pytest.fixture(scope="module")
def tiny():
    return make_pipeline()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [drawn.draw(caption, rng, 48) for caption in drawn.CAPTIONS[:5]]


@pytest.fixture(scope="module")
def trained():
    """The folder of a model that knows what it sees."""
    return shipped_path(DEFAULT)


def test_the_default_model_knows_what_it_was_trained_on():
    """Fresh drawings of twelve things, read by the shipped model: 90 % and more right."""
    rng = np.random.default_rng(77)
    wanted = drawn.CAPTIONS * 5
    result = zero_shot([drawn.draw(c, rng, 100) for c in wanted], drawn.CAPTIONS)
    right = np.mean([a == b for a, b in zip(result.best, wanted, strict=True)])
    assert right >= 0.9, right


def test_it_is_the_six_steps_by_hand(tiny, pictures):
    """In float64, with nothing but the network, the tokenizer and NumPy."""
    pipeline = make_pipeline("float64")
    labels, sentences = ["a red circle", "a blue square", "sky"], ["a photo of {}", "{} in a game"]
    result = zero_shot(pictures, labels, pipeline, sentences)
    texts = []
    for label in labels:
        ids = pipeline.tokenizer([s.replace("{}", label) for s in sentences])
        features = pipeline.network.encode_text(ids)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        mean = features.mean(axis=0)
        texts.append(mean / np.linalg.norm(mean))
    images = pipeline.network.encode_image(pipeline.preprocess(pictures))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    cosine = images @ np.stack(texts).T
    logit = np.exp(pipeline.network.logit_scale.data) * cosine
    probability = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.cosine, cosine, atol=1e-12)
    np.testing.assert_allclose(result.logit, logit, atol=1e-10)
    np.testing.assert_allclose(result.probability, probability, atol=1e-12)
    assert result.best == [labels[i] for i in cosine.argmax(axis=1)]


def test_ensembles_differ_from_the_mean_of_texts_not_normalised(tiny):
    """Normalise, mean, normalise: the planted bug (mean, normalise) gives other vectors."""
    _, prompts = build_prompts(["circle"], "imagenet7")
    right = encode_labels(tiny, prompts)
    raw = tiny.encode_text(prompts[0]) * np.arange(1, 8)[:, None]
    wrong = raw.mean(axis=0) / np.linalg.norm(raw.mean(axis=0))
    assert np.linalg.norm(right) == pytest.approx(1, abs=1e-6)
    assert np.abs(right[0] - wrong).max() > 1e-4


def test_templates_are_the_originals():
    assert len(templates.IMAGENET_80) == len(set(templates.IMAGENET_80)) == 80
    assert len(templates.IMAGENET_7) == 7
    assert set(templates.IMAGENET_7) <= set(templates.IMAGENET_80)
    assert all(t.count("{}") == 1 for t in templates.IMAGENET_80)
    assert templates.IMAGENET_80[0] == "a bad photo of a {}."
    assert templates.IMAGENET_80[-1] == "a tattoo of the {}."


def test_prompts():
    assert build_prompts(["cat"])[1] == [["cat"]]
    assert build_prompts(["cat"], "plain")[1] == [["a photo of a cat."]]
    assert build_prompts(["cat"], "one {}, two {}")[1] == [["one cat, two cat"]]
    assert build_prompts({"pet": ["a cat", "a dog"], "car": "a car"})[1] == [
        ["a cat", "a dog"],
        ["a car"],
    ]
    assert len(build_prompts(["a", "b"], "imagenet80")[1][1]) == 80


def test_wrong_labels(tiny, pictures):
    cases = [
        (([],), "labels: got none"),
        ((["cat", "cat"],), "labels: got 'cat' twice"),
        ((["Cat ", "cat"],), r"labels: got 'cat' twice \(as 'Cat ', the same to the model\)"),
        (({"cat": "  "},), r"labels\['cat'\]: got '  ', expected prompts that are not empty"),
        (({"cat": 3},), r"labels\['cat'\]: got 3, expected a list of prompts"),
        ((["cat", ""],), "labels: got '', expected a text that is not empty"),
        ((["cat", "  "],), "labels: got '  '"),
        ((["cat", 3],), "labels: got 3, expected a text"),
        (("cat",), "labels: got the string 'cat', expected a list"),
        (({"cat": []},), r"labels\['cat'\]: got \[\], expected a list of prompts"),
        (({"cat": ["a cat"]}, "plain"), "templates: labels already has whole prompts"),
        ((["cat"], "a photo"), "templates: got 'a photo', expected a sentence with {}"),
        ((["cat"], []), "templates: got none"),
        ((["cat"], ["{}", 5]), "templates: got 5"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            zero_shot(pictures, arguments[0], tiny, *arguments[1:])
    with pytest.raises(ValueError, match="images: got none"):
        zero_shot([], ["cat"], tiny)
    with pytest.raises(
        ValueError, match=r"labels: 'one two three .*: got \d+ tokens .* at most 40"
    ):
        zero_shot(pictures, ["cat", "one two three " * 20], tiny)


def test_all_kinds_of_input_give_the_same(tiny, pictures, tmp_path):
    path = tmp_path / "one.png"
    pictures[0].save(path)
    labels = drawn.CAPTIONS[:3]
    array, pixels = np.asarray(pictures[0]), tiny.preprocess(path)
    kinds = (path, str(path), pictures[0], array, [path], array[None], pixels)
    results = [zero_shot(image, labels, tiny) for image in kinds]
    assert all(np.array_equal(r.logit, results[0].logit) for r in results)
    assert results[0].cosine.shape == (1, 3)
    assert {x.dtype.name for x in (results[0].cosine, results[0].logit)} == {"float32"}
    assert [r.names()[0] for r in results[:3]] == [str(path), str(path), "image 0"]


def test_chunks_change_nothing(pictures, monkeypatch):
    """Batches are cut to the memory budget: a smaller one gives the same embeddings."""
    pipeline = make_pipeline("float64")
    whole = pipeline.encode_image(pictures), pipeline.encode_text(drawn.CAPTIONS)
    monkeypatch.setattr("miniclip.pipeline.pipeline.images_per_chunk", lambda config: 2)
    monkeypatch.setattr("miniclip.pipeline.pipeline.texts_per_chunk", lambda config: 5)
    np.testing.assert_allclose(pipeline.encode_image(pictures), whole[0], atol=1e-12)
    np.testing.assert_allclose(
        pipeline.encode_image(pipeline.preprocess(pictures)), whole[0], atol=1e-12
    )
    np.testing.assert_allclose(pipeline.encode_text(drawn.CAPTIONS), whole[1], atol=1e-12)


def test_a_bar_is_shown_for_several_chunks(tiny, pictures, monkeypatch, capsys):
    monkeypatch.setattr("miniclip.pipeline.pipeline.images_per_chunk", lambda config: 2)
    tiny.encode_image(pictures, progress=True)
    assert "5/5" in capsys.readouterr().err
    tiny.encode_image(pictures)  # no terminal here
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["RN50", "ViT-B/32", "ViT-B/16"])
def test_chunks_stay_within_the_budget(name):
    """The estimate against what one picture really takes (activations, weights not counted)."""
    import tracemalloc

    config = miniclip.get_config(name)
    tower = CLIP(config, seed=None).visual
    pixels = np.zeros((2, 3, 224, 224), np.float32)
    tracemalloc.start()
    tower(pixels)
    peak = tracemalloc.get_traced_memory()[1] / 2
    tracemalloc.stop()
    budget = 1 << 30
    chunk = images_per_chunk(config, budget)
    assert chunk * peak <= budget
    assert chunk * peak >= budget / 20  # and it is not timid either


def test_results_by_name(tiny, pictures):
    result = zero_shot(pictures, drawn.CAPTIONS, tiny)
    top = result.top(3)
    assert len(top) == 5
    assert top[0][0].label == result.best[0]
    assert top[0][0].probability >= top[0][1].probability >= top[0][2].probability
    n = drawn.CAPTIONS.index(top[2][1].label)
    assert top[2][1].cosine == float(result.cosine[2, n])
    np.testing.assert_allclose(result.probability.sum(axis=1), 1, rtol=1e-5)
    data = json.loads(json.dumps(result.as_dicts()))
    assert data[4]["image"] == "image 4"
    assert data[4]["answers"][0]["label"] == result.best[4]
    assert set(data[0]["answers"][0]) == {"label", "cosine", "logit", "probability"}
    with pytest.raises(ValueError, match="k: got 0"):
        result.top(0)


def test_results_draw_themselves(tiny, pictures):
    result = zero_shot(pictures, ["<b>bold</b>", "plain"], tiny)
    text = repr(result)
    assert text.count("cosine") == 10
    page = result._repr_html_()
    assert page.count("<img src=") == 5
    assert "<b>" not in page
    assert "&lt;b&gt;bold" in page


def test_every_kind_of_input_draws_itself_in_its_own_place(tiny, pictures, tmp_path):
    """Batches inside lists, float pictures, open files, preprocessed arrays: a row, a name each."""
    path = tmp_path / "one.png"
    pictures[2].save(path)
    batch = np.stack([np.asarray(p) for p in pictures[:2]])
    result = zero_shot([batch, str(path)], ["a", "b"], tiny)
    assert result.names() == ["image 0", "image 1", str(path)]
    assert ">one.png<" in result._repr_html_()  # short; the whole path shows under the pointer
    assert result._repr_html_().count(str(path.parent)) == 1
    alone = zero_shot(str(path), ["a", "b"], tiny)
    np.testing.assert_allclose(result.logit[2], alone.logit[0], atol=1e-5)
    assert result._repr_html_().count("<img") == 3
    preprocessed = zero_shot(tiny.preprocess(pictures), ["a", "b"], tiny)
    assert preprocessed._repr_html_().count("image ") == 5  # names, and no pictures
    with path.open("rb") as file:
        for image in (batch[0] / 255.0, file, pictures[0].convert("P")):
            assert "<img" in zero_shot(image, ["a", "b"], tiny)._repr_html_()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1000.0])
def test_a_damaged_scale_is_an_error(pictures, value):
    pipeline = make_pipeline()
    pipeline.network.logit_scale.data = np.float32(value) * np.ones((), np.float32)
    with pytest.raises(ValueError, match=r"logit_scale: got .* the checkpoint is damaged"):
        zero_shot(pictures, ["a", "b"], pipeline)


def test_what_is_no_text(tiny):
    np.testing.assert_array_equal(
        tiny.encode_text(np.array(["a", "b"])), tiny.encode_text(["a", "b"])
    )
    with pytest.raises(TypeError, match="texts: got a float64 array, expected strings or integer"):
        tiny.encode_text(tiny.tokenize("a") + 0.6)
    with pytest.raises(TypeError, match="labels: got NoneType, expected a list"):
        build_prompts(None)
    with pytest.raises(TypeError, match="templates: got int, expected a list"):
        build_prompts(["a"], 3)


def test_similarity(tiny, pictures):
    texts = drawn.CAPTIONS[:4]
    s = tiny.similarity(pictures, texts)
    assert s.cosine.shape == s.logit.shape == s.probability.shape == (5, 4)
    unit = tiny.encode_image(pictures, normalize=True)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    np.testing.assert_allclose(
        s.cosine, unit @ tiny.encode_text(texts, normalize=True).T, rtol=1e-5
    )
    ids = tiny.tokenize(texts)
    np.testing.assert_array_equal(tiny.encode_text(ids), tiny.encode_text(texts))


def test_a_non_finite_embedding_names_the_first_bad_parameter(pictures):
    pipeline = make_pipeline()
    weight = pipeline.network.visual.transformer.resblocks.children_["1"].ln_2.weight
    weight.data[3] = np.inf
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(
            ValueError,
            match=r"parameter visual\.transformer\.\S+\.1\.ln_2\.weight has 1 non-finite of 64",
        ),
    ):
        pipeline.encode_image(pictures[0])
    bad = np.full((1, 3, 32, 32), np.nan, np.float32)
    with pytest.raises(ValueError, match="images: got non-finite numbers"):
        make_pipeline().encode_image(bad)


def test_numba_answers_like_numpy(pictures):
    a = zero_shot(pictures, drawn.CAPTIONS, make_pipeline())
    b = zero_shot(pictures, drawn.CAPTIONS, make_pipeline(backend="numba"))
    np.testing.assert_allclose(a.logit, b.logit, atol=1e-4)
    assert a.best == b.best


def test_what_looks_preprocessed():
    assert looks_preprocessed(np.zeros((1, 3, 32, 32), np.float32))
    assert looks_preprocessed(np.zeros((3, 32, 32), np.float32))
    assert not looks_preprocessed(np.zeros((1, 3, 32, 32), np.uint8))
    assert not looks_preprocessed(np.zeros((3, 32, 3), np.float32))  # a picture three pixels high


def test_saving_and_loading(trained, tmp_path, pictures):
    """Both layouts give the same answers back; the vocabulary travels along."""
    folder = trained
    overlapping, plain = miniclip.load(folder, backend="numpy"), make_pipeline()
    one, two = tmp_path / "one", tmp_path / "two"
    overlapping.save(one / "model.safetensors")
    plain.save(two, layout="hf")
    with pytest.raises(ValueError, match="stride"):  # transformers knows no overlapping patches
        overlapping.save(tmp_path / "three", layout="hf")
    assert not (tmp_path / "three").exists()
    Tokenizer(train_merges(drawn.CAPTIONS, 520)).save(tmp_path / "other")
    with pytest.raises(ValueError, match="holds the vocabulary of another model"):
        plain.save(tmp_path / "other" / "second.safetensors")
    assert not (tmp_path / "other" / "second.safetensors").exists()
    for where, model in (
        (one, overlapping),
        (one / "model.safetensors", overlapping),
        (two, plain),
    ):
        again = miniclip.load(where, backend="numpy")
        expected = model.similarity(pictures, drawn.CAPTIONS).logit
        state, written = again.network.state_dict(), model.network.state_dict()
        assert all(np.array_equal(state[name], written[name]) for name in written)
        got = again.similarity(pictures, drawn.CAPTIONS).logit
        np.testing.assert_allclose(got, expected, atol=1e-4)  # a transposed product rounds so


def test_a_wrong_activation_shows(trained, pictures):
    """Forced, it loads and answers differently; without any word of it the file is refused."""
    folder = trained
    right = miniclip.load(folder, backend="numpy")
    wrong = miniclip.load(folder, backend="numpy", activation="gelu")
    answers = [m.similarity(pictures, drawn.CAPTIONS).logit for m in (right, wrong)]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_the_front_door(trained, pictures):
    folder = trained
    assert "ViT-B/32" in miniclip.available_models()
    pixels = miniclip.preprocess(pictures[0], size=224)
    assert pixels.shape == (1, 3, 224, 224)
    result = miniclip.zero_shot(pictures, drawn.CAPTIONS, model=folder)
    assert isinstance(result.best[0], str)
    model = miniclip.load(folder, dtype="float64")
    assert model.encode_image(pictures).dtype == "float64"
    assert model.network.ops.name in ("numba", "cupy")


def test_images_are_pil_too():
    assert isinstance(drawn.draw("a red circle", np.random.default_rng(0)), Image.Image)
