"""Who is measured of ours, from which weights, and with how many threads."""

import contextlib
import types

import numpy as np
import pytest
from bench_checks import VIT
from notes import Notes

import miniclip
from miniclip.bench import inputs as bench_inputs
from miniclip.bench import subjects
from miniclip.bench import threads as bench_threads
from miniclip.checkpoints.shipped import NAMES
from miniclip.models import OPENAI_CONFIGS


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model in a file."""
    path = tmp_path_factory.mktemp("subjects") / "model.safetensors"
    subjects.make_pipeline(VIT, bench_inputs.living_state(VIT), "numpy").save(path)
    return path


# ------------------------------------------------------------------------ models


def test_models_of_this_machine_are_known(saved):
    for name in [*OPENAI_CONFIGS, *NAMES, str(saved), str(saved.parent)]:
        subjects.check_model(name)
    with pytest.raises(ValueError) as error:
        subjects.load_weights("ViT-Z")
    names = ", ".join([*OPENAI_CONFIGS, *NAMES])
    assert str(error.value) == (
        f"models: got 'ViT-Z', expected one of {names}, a folder or a .safetensors file"
    )
    with pytest.raises(ValueError, match=r"model: there is no file or folder 'no/such\.safe"):
        subjects.check_model("no/such.safetensors")


def test_weights_are_random_shipped_or_from_disk(saved, monkeypatch):
    monkeypatch.setitem(OPENAI_CONFIGS, "tiny", VIT)
    random = bench_inputs.living_state(VIT)
    shipped = miniclip.load("mini-vit", "numpy").network
    for name, config, state, what in [
        ("tiny", VIT, random, "random"),
        ("mini-vit", shipped.config, shipped.state_dict(), "shipped"),
        (str(saved), VIT, random, "from disk"),
        (str(saved.parent), VIT, random, "from disk"),
    ]:
        got = subjects.load_weights(name)
        assert (got[0], got[2]) == (config, what)
        assert list(got[1]) == list(state)
        assert all(np.array_equal(got[1][key], x) for key, x in state.items())
    config, _, _ = subjects.load_weights(str(saved), "gelu")
    assert (config.vision.activation, config.text.activation) == ("gelu", "gelu")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_pipeline_holds_the_weights_themselves(backend):
    state = bench_inputs.living_state(VIT)
    pipeline = subjects.make_pipeline(VIT, state, backend)
    assert (pipeline.name, pipeline.network.ops.name) == ("bench", backend)
    held = pipeline.network.state_dict()
    assert all(np.array_equal(held[name], x) for name, x in state.items())


def test_each_of_ours_runs_what_its_name_says():
    """The plan by `encode_*` without a bar, the modules alone on their backends."""

    def encode(tower):
        return lambda x, progress=None: (tower, x, progress)

    pipeline = types.SimpleNamespace(
        encode_image=encode("image"), encode_text=encode("text"),
        network=types.SimpleNamespace(visual=lambda x: ("visual", x), text=lambda x: ("text", x)),
        plan=types.SimpleNamespace(why_not=lambda tower: "no" if tower == "text" else None),
    )  # fmt: skip
    other = types.SimpleNamespace(
        network=types.SimpleNamespace(visual=lambda x: ("other", x), text=lambda x: ("words", x))
    )
    pipelines = {"numba": pipeline, "numpy": other}
    found = subjects.our_subjects(subjects.OURS, pipelines, "image", 5)
    assert [(s.name, s.run(), s.repeats) for s in found] == [
        ("plan", ("image", 5, False), 1), ("numba", ("visual", 5), 1), ("numpy", ("other", 5), 1)
    ]  # fmt: skip
    found = subjects.our_subjects(subjects.OURS, pipelines, "text", 6)  # which has no plan
    assert [(s.name, s.run()) for s in found] == [("numba", ("text", 6)), ("numpy", ("words", 6))]
    assert subjects.plan_subject(pipeline, "text", 7).run() == ("text", 7, False)
    with pytest.raises(ValueError) as error:
        subjects.our_subjects(["plan"], pipelines, "text", 6)
    assert str(error.value) == ("ours: got plan alone, but the text tower of this model has none")
    assert not subjects.has_plan(types.SimpleNamespace(plan=None), "image")


def test_the_ceiling_is_one_large_product(monkeypatch):
    monkeypatch.setattr(subjects, "CEILING_SIDE", 48)
    ceiling = subjects.ceiling_subject()
    product = ceiling.run()
    a = np.random.default_rng(0).standard_normal((48, 48), np.float32)
    np.testing.assert_allclose(product, a.astype(float) @ a.T, atol=1e-4)
    assert (ceiling.name, product.dtype) == ("matmul", np.float32)
    assert ceiling.run() is product  # into the same memory
    assert (subjects.CEILING, subjects.OURS) == ("matmul", ("plan", "numba", "numpy"))


# ------------------------------------------------------------------------ threads


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(bench_threads.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert bench_threads.cores() == 3
    monkeypatch.delattr(bench_threads.os, "sched_getaffinity")  # as on macOS
    for told, count in ((7, 7), (None, 1)):
        monkeypatch.setattr(bench_threads.os, "cpu_count", lambda told=told: told)
        assert bench_threads.cores() == count


@pytest.mark.parametrize("torch", [False, True])
def test_everybody_gets_the_same_threads(monkeypatch, torch):
    notes = Notes()

    @contextlib.contextmanager
    def blas(*arguments, **options):
        notes.append(("blas", *arguments, options))
        yield
        notes.append(("blas as before",))

    monkeypatch.setattr(bench_threads, "blas_limits", lambda: blas)
    monkeypatch.setattr("miniclip.cpu.team.set_threads", notes.of("plans"))
    library = types.SimpleNamespace(get_num_threads=lambda: 7, set_num_threads=notes.of("torch"))
    with bench_threads.limited(3, library if torch else None):
        notes.append(("work",))
    theirs = [("torch", 3)], [("torch", 7)]
    assert notes == [
        ("blas", 3, {"user_api": "blas"}), *(theirs[0] if torch else []), ("plans", 3), ("work",),
        *(theirs[1] if torch else []), ("plans", None), ("blas as before",),
    ]  # fmt: skip
