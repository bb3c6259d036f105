"""What a pipeline's calls do with each of their arguments, and its answers by hand."""

import math
import warnings
from dataclasses import replace

import drawn
import numpy as np
import pytest
from picture_checks import noise
from pipelines import make_pipeline
from safetensors.numpy import load_file

import miniclip
from miniclip import ops
from miniclip.inputs.bpe import train_merges
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP
from miniclip.pipeline import Knowledge, Pipeline, Similarity, vocabularies
from miniclip.pipeline.loading import make_transform

TEXTS = ["a red circle", "a blue square", "a cat"]


@pytest.fixture(scope="module")
def model():
    return make_pipeline("float64")


@pytest.fixture(scope="module")
def pictures():
    return [noise("RGB", 40, 50, 1), noise("RGB", 50, 40, 2)]


# ---------------------------------------------------------------- numbers


def test_similarity_by_hand(model, pictures):
    images, texts = model.encode_image(pictures), model.encode_text(TEXTS)
    expected = np.array([[x @ y / math.sqrt((x @ x) * (y @ y)) for y in texts] for x in images])
    got = model.similarity(pictures, TEXTS)
    np.testing.assert_allclose(got.cosine, expected, rtol=1e-12)
    logit = math.exp(float(model.network.logit_scale.data)) * expected
    np.testing.assert_allclose(got.logit, logit, rtol=1e-12)
    share = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got.probability, share, rtol=1e-12)
    assert got.notes == []
    one = model.similarity(pictures, "a cat")
    np.testing.assert_allclose(one.cosine, expected[:, 2:], rtol=1e-12)
    assert np.isnan(one.probability).all()
    assert one.probability.shape == (2, 1)
    assert one.notes == [
        "one text: a probability needs a choice, so there is none; the cosine says how well it fits"
    ]


def test_unit_length_only_when_asked(model, pictures):
    for encode, given in ((model.encode_image, pictures), (model.encode_text, TEXTS)):
        plain, unit = encode(given), encode(given, normalize=True)
        lengths = np.sqrt((plain**2).sum(axis=1))
        assert abs(lengths - 1).min() > 0.01
        np.testing.assert_allclose(unit, plain / lengths[:, None], rtol=1e-12)
        np.testing.assert_array_equal(encode(given, normalize=False), plain)
        assert plain.dtype == unit.dtype == np.float64


def test_notes_look_at_the_number_of_texts():
    for texts, count in ((1, 1), (2, 0), (3, 0)):
        x = np.zeros((1, texts))
        assert len(Similarity(x, x, x).notes) == count


@pytest.mark.parametrize(("value", "good"), [(49.9, True), (-49.9, True)] + [
    (damaged, False) for damaged in (50.0, -50.0, math.nan, math.inf)
])  # fmt: skip
def test_a_damaged_scale_is_told(value, good):
    model = make_pipeline("float64")
    model.network.logit_scale.data = np.array(value)
    if good:
        assert model.scale(np.array([[0.5, 0.25]])).logit[0, 1] == math.exp(value) * 0.25
        return
    with pytest.raises(ValueError) as error:
        model.scale(np.zeros((1, 2)))
    assert str(error.value) == (
        f"logit_scale: got {value}, expected a number such as ln 100 = 4.6; the checkpoint is "
        "damaged (miniclip weights check)"
    )


def test_float32_stays_float32():
    got = make_pipeline().scale(np.float32([[0.5, 0.25]]))
    assert got.cosine.dtype == got.logit.dtype == got.probability.dtype == np.float32


def test_texts_of_every_kind(model):
    ids = model.tokenize(TEXTS)
    assert ids.shape == (3, 40)
    expected = model.encode_text(TEXTS)
    for texts in (
        ids,
        ids.astype(np.uint16),
        np.array(TEXTS),
        np.array(TEXTS, object),
        tuple(TEXTS),
    ):
        np.testing.assert_array_equal(model.encode_text(texts), expected)
    for wrong in (ids.astype(np.float32), ids > 3, ids.astype(complex)):
        message = f"^texts: got a {wrong.dtype} array, expected strings or integer ids$"
        with pytest.raises(TypeError, match=message):
            model.encode_text(wrong)


def test_a_long_text_is_cut_only_when_asked(model):
    long = "circle " * 60
    for call in (model.encode_text, model.tokenize):
        with pytest.raises(ValueError, match="expected at most 40"):
            call([long])
    cut = model.tokenize([long], truncate=True)
    assert cut[0, -1] == model.tokenizer.end_id
    np.testing.assert_array_equal(model.encode_text([long], truncate=True), model.encode_text(cut))


def test_texts_come_in_chunks_too(model, monkeypatch, capsys):
    expected = model.encode_text(TEXTS)
    monkeypatch.setattr("miniclip.pipeline.pipeline.texts_per_chunk", lambda config: 2)
    np.testing.assert_allclose(model.encode_text(TEXTS), expected, atol=1e-12)
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(model.encode_text(TEXTS, progress=True), expected, atol=1e-12)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert " texts/s" in shown


def test_the_dtype_and_backend_of_a_model():
    model = make_pipeline()
    assert model.to(dtype="float64") is model
    assert (model.network.dtype, model.network.ops.name) == ("float64", "numpy")
    assert model.to("numba").network.ops.name == "numba"
    assert model.network.dtype == "float64"
    assert model.to("numpy", "float32").network.dtype == "float32"
    assert model.network.ops.name == "numpy"
    assert model.preprocess(noise("RGB", 9, 9)).dtype == np.float32
    assert model.to(dtype="float64").preprocess(noise("RGB", 9, 9)).dtype == np.float64


def test_what_a_model_says_of_itself(model):
    count = sum(x.size for x in model.network.state_dict().values())
    assert repr(model) == f"<miniclip tiny: {count:,} parameters, float64 on numpy>"
    printed = str(model).split("\n")
    assert printed[0] == repr(model)
    assert printed[1] == f"backend numpy, all {len(ops.PAIRS) + len(ops.STEPS)} ops the textbook's"
    bare = Pipeline(model.network)
    assert repr(bare) == f"<miniclip model: {count:,} parameters, float64 on numpy>"
    assert (bare.folder, bare.knows) == (None, None)
    assert bare.transform == Transform(size=32)
    assert bare.transform is bare.transform
    assert model.config is model.network.config


# ---------------------------------------------------------------- numbers that are none


def test_pixels_that_are_not_finite(model, pictures):
    pixels = model.preprocess(pictures)
    pixels[1, 2, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"^images: got non-finite numbers, expected finite pix"):
        model.encode_image(pixels)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_parameters_that_are_not_finite(kind):
    model = make_pipeline()
    name = "visual.ln_post.bias" if kind == "image" else "ln_final.bias"
    state = model.network.state_dict()
    bad = state[name].copy()
    bad[[3, 5]] = np.nan, np.inf
    model.network.load_state_dict({**state, name: bad})
    with pytest.raises(ValueError) as error:
        encode(model, kind)
    assert str(error.value) == (
        f"{kind} embedding is not finite: parameter {name} has 2 non-finite of 64 numbers; the "
        "checkpoint is damaged (miniclip weights check)"
    )


def encode(model, kind):
    return (
        model.encode_image(np.zeros((9, 9, 3), "u1")) if kind == "image" else model.encode_text("a")
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["image", "text"])
def test_an_activation_that_overflows(kind):
    model = make_pipeline()
    name = "visual.proj" if kind == "image" else "text_projection"
    state = model.network.state_dict()
    model.network.load_state_dict({**state, name: np.full_like(state[name], 3e38)})
    message = f"^{kind} embedding is not finite though all weights are: an activation overflowed$"
    with pytest.raises(ValueError, match=message):
        encode(model, kind)


# ---------------------------------------------------------------- loading


def test_every_argument_of_load(tmp_path):
    make_pipeline().save(tmp_path / "m" / "model.safetensors")
    loaded = miniclip.load(tmp_path / "m", "numpy", "float64")
    assert (loaded.network.ops.name, loaded.network.dtype) == ("numpy", "float64")
    assert (loaded.name, loaded.folder) == (str(tmp_path / "m"), tmp_path / "m")
    assert miniclip.load(tmp_path / "m", "numpy").network.dtype == "float32"
    bare = tmp_path / "bare.safetensors"
    from safetensors.numpy import save_file

    save_file(load_file(tmp_path / "m" / "model.safetensors"), bare)
    loaded = miniclip.load(bare, "numpy", activation="gelu_tanh", head_width=(32, 16), stride=4)
    vision, text = loaded.config.vision, loaded.config.text
    assert (vision.activation, text.activation) == ("gelu_tanh", "gelu_tanh")
    assert (vision.heads, text.heads) == (2, 4)
    assert (vision.stride, vision.image_resolution) == (4, 20)
    assert loaded.transform == Transform(size=20)
    assert loaded.folder == tmp_path
    with pytest.raises(ValueError, match="revision: got 'v1'"):
        miniclip.load(bare, "numpy", activation="gelu", revision="v1")


def test_a_revision_reaches_the_hub(monkeypatch):
    from miniclip.checkpoints import hub

    def resolve(*given):
        raise hub.HubError(f"asked for {given}")

    monkeypatch.setattr(hub, "resolve", resolve)
    with pytest.raises(hub.HubError, match=r"asked for \('org/name', 'v9'\)"):
        miniclip.load("org/name", revision="v9")


def test_what_is_said_nowhere_is_the_originals():
    """null in the table, or in the folder, says nothing; the size is always the tensors'."""
    from types import SimpleNamespace

    def loaded(**said):
        return SimpleNamespace(config=make_pipeline().config, preprocessing=said)

    def known(**said):
        return SimpleNamespace(preprocessing=said)

    assert make_transform(loaded(), None) == Transform(size=32)
    assert make_transform(loaded(fill=None), known(mean=None)) == Transform(size=32)
    got = make_transform(loaded(fill=7, order=None), known(fill=9, order="hf", size=99))
    assert got == Transform(size=32, fill=7, order="hf")
    text_only = SimpleNamespace(config=SimpleNamespace(vision=None), preprocessing={})
    assert make_transform(text_only, None) is None


# ---------------------------------------------------------------- saving


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path / "no cache"))
    monkeypatch.setattr(vocabularies, "find_spec", lambda name: None)


def test_what_a_save_writes(tmp_path):
    model = make_pipeline()
    model.save(tmp_path / "a" / "m.safetensors")
    assert names(tmp_path / "a") == ["m.safetensors", "merges.txt", "vocab.json"]
    model.knows = Knowledge.of("shapes", ["a red circle"])
    model.save(tmp_path / "b", "hf")
    words = ["knows.json", "merges.txt", "tokenizer_config.json", "vocab.json"]
    weights = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert names(tmp_path / "b") == sorted(words + weights)
    text = '{\n  "tokenizer_class": "CLIPTokenizer",\n  "model_max_length": 40\n}'
    assert (tmp_path / "b" / "tokenizer_config.json").read_text() == text
    for folder in ("a", "b"):
        again = miniclip.load(tmp_path / folder, "numpy")
        for name, x in model.network.state_dict().items():
            np.testing.assert_array_equal(again.network.state_dict()[name], x)
        assert again.transform == model.transform
    assert again.knows == model.knows
    assert miniclip.load(tmp_path / "a", "numpy").knows is None


def test_a_vocabulary_goes_along_though_it_was_never_used(nowhere, tmp_path):
    make_pipeline().save(tmp_path / "a" / "m.safetensors")
    loaded = miniclip.load(tmp_path / "a", "numpy")
    loaded.save(tmp_path / "b" / "m.safetensors")
    assert names(tmp_path / "b") == names(tmp_path / "a")
    bare = Pipeline(loaded.network)
    bare.save(tmp_path / "c" / "m.safetensors")
    assert names(tmp_path / "c") == ["m.safetensors"]
    bare.save(tmp_path / "d", "hf")
    assert names(tmp_path / "d") == ["config.json", "model.safetensors", "tokenizer_config.json"]
    with pytest.raises(vocabularies.VocabularyError, match="no vocabulary beside the checkpoint"):
        _ = bare.tokenizer
    config = replace(bare.config, text=None)
    Pipeline(CLIP(config, seed=1)).save(tmp_path / "e", "hf")
    assert names(tmp_path / "e") == ["config.json", "model.safetensors"]


def test_a_vocabulary_of_another_model_is_not_replaced(tmp_path):
    other = Tokenizer(train_merges(drawn.CAPTIONS, 530))
    other.save(tmp_path)
    before = (tmp_path / "merges.txt").read_bytes()
    model = make_pipeline()
    for path, layout in ((tmp_path / "m.safetensors", "openai"), (tmp_path, "hf")):
        with pytest.raises(ValueError) as error:
            model.save(path, layout)
        assert str(error.value) == (
            f"path: {tmp_path} holds the vocabulary of another model, expected none"
        )
    assert names(tmp_path) == ["merges.txt", "vocab.json"]
    assert (tmp_path / "merges.txt").read_bytes() == before
    make_pipeline().save(tmp_path / "own" / "m.safetensors")
    make_pipeline().save(tmp_path / "own" / "m.safetensors")  # its own is


def test_the_warning_points_at_the_caller(tmp_path):
    model = make_pipeline()
    model._transform = Transform(size=32, apply_exif=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.save(tmp_path / "m", "hf")
    assert [warning.filename for warning in caught] == [__file__]
    assert str(caught[0].message) == (
        "layout 'hf': transformers has no apply_exif: what loads this folder there sees "
        "photographs as they are stored (miniclip turns them)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save(tmp_path / "m.safetensors")
        Pipeline(model.network, None, model.tokenizer).save(tmp_path / "n", "hf")


# ---------------------------------------------------------------- vocabularies


def test_places_that_are_no_folders(nowhere, tmp_path):
    tokenizer = Tokenizer([("a", "b")])
    tokenizer.save(tmp_path / "words")
    (tmp_path / "file").write_text("x")
    places = [None, tmp_path / "nothing", tmp_path / "file", tmp_path / "words"]
    assert vocabularies.local_tokenizer(places).merges == tokenizer.merges
    assert vocabularies.local_tokenizer(places[:3]) is None
    assert list(vocabularies.vocabulary_folders(None)) == [tmp_path / "no cache"]
    assert list(vocabularies.vocabulary_folders(tmp_path)) == [tmp_path, tmp_path / "no cache"]


def test_packages_that_may_bring_one(monkeypatch, tmp_path):
    monkeypatch.setenv("MINICLIP_CACHE_DIR", str(tmp_path))
    found = {
        "clip": type("Spec", (), {"submodule_search_locations": ["one", "two"]}),
        "open_clip": type("Spec", (), {"submodule_search_locations": None}),
    }
    monkeypatch.setattr(vocabularies, "find_spec", found.__getitem__)
    folders = [str(folder) for folder in vocabularies.vocabulary_folders(None)]
    assert folders == [str(tmp_path), "one", "two"]


def test_the_hub_comes_last(nowhere, monkeypatch, tmp_path):
    from miniclip.checkpoints import hub

    asked = []
    tokenizer = Tokenizer([("a", "b")])
    tokenizer.save(tmp_path / "hub")
    monkeypatch.setattr(
        hub, "download_tokenizer", lambda name: asked.append(name) or tmp_path / "hub"
    )
    assert vocabularies.find_tokenizer(tmp_path / "beside").merges == tokenizer.merges
    assert asked == ["openai/clip-vit-base-patch32"]
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "hub" / name).unlink()
    message = "^tokenizer: openai/clip-vit-base-patch32 holds no vocabulary that we know$"
    with pytest.raises(vocabularies.VocabularyError, match=message):
        vocabularies.find_tokenizer()


def test_every_argument_of_tokenize():
    own = Tokenizer([("a", "b")], context_length=9)
    rows = miniclip.tokenize(["ab", "b"], 5, tokenizer=own)
    assert rows.tolist() == own(["ab", "b"], 5).tolist()
    assert miniclip.tokenize("ab", tokenizer=own).shape == (1, 77)
    with pytest.raises(ValueError, match="at most 5"):
        miniclip.tokenize("b " * 9, context_length=5, tokenizer=own)
    cut = miniclip.tokenize("b " * 9, context_length=5, truncate=True, tokenizer=own)
    assert cut[0, -1] == own.end_id
    assert vocabularies.original_tokenizer() is vocabularies.original_tokenizer()
