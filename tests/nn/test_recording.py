"""Recordings: caches live in them and nowhere else, in this thread and no longer than the block."""

import copy
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from model_checks import (
    RESNET,
    VIT,
    check_both_outputs,
    check_two_passes,
    inputs_for,
    with_vision,
)
from original import living_state

import miniclip
from miniclip import backends
from miniclip.models import CLIP
from miniclip.nn import Linear, Module


@pytest.fixture(scope="module", params=["vit", "resnet"])
def model(request):
    config = {"vit": VIT, "resnet": RESNET}[request.param]
    model = CLIP(config, seed=None)
    model.load_state_dict(living_state(config, 1))
    return model


def pictures_and_ids(model, images=2):
    pictures, ids, _ = inputs_for(model.config, images=images, texts=images)
    return pictures.astype(np.float32), ids


def test_a_module_used_twice_unwinds():
    check_two_passes(miniclip)


def test_gradient_through_either_output():
    check_both_outputs(miniclip)


def test_backward_needs_a_recording(model):
    pictures, ids = pictures_and_ids(model)
    per_image, _ = model(pictures, ids)
    with pytest.raises(RuntimeError, match="CLIP: backward outside of a recording"):
        model.backward(per_image)


def test_backward_needs_a_forward_in_the_same_recording(model):
    pictures, ids = pictures_and_ids(model)
    with model.record():
        per_image, _ = model(pictures, ids)
    with model.record(), pytest.raises(RuntimeError, match="CLIP: backward without a forward"):
        model.backward(per_image)


def test_one_backward_for_each_forward(model):
    pictures, ids = pictures_and_ids(model)
    with model.record():
        per_image, _ = model(pictures, ids)
        model.backward(per_image)
        with pytest.raises(RuntimeError, match="one forward before each backward"):
            model.backward(per_image)
    with (
        model.record(),
        pytest.raises(RuntimeError, match="visual: pool_backward without a pool pass of its own"),
    ):
        model.visual.backward(np.zeros((2, 24), np.float32))


def test_wrong_gradients_are_refused(model):
    pictures, ids = pictures_and_ids(model)
    with model.record():
        per_image, _ = model(pictures, ids)
        with pytest.raises(ValueError, match=r"dper_image: got shape \(2,\), expected \(2, 2\)"):
            model.backward(per_image[0])
    with model.record():
        model(pictures, ids)
        with pytest.raises(TypeError, match=r"dper_text: got list, expected an array \(2, 2\)"):
            model.backward(per_image, [1])


def test_an_error_drops_everything(model):
    pictures, ids = pictures_and_ids(model)
    recording = model.record()

    def stopped():
        with recording:
            model(pictures, ids)
            assert recording.caches
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not recording.caches
    test_backward_needs_a_recording(model)


def test_the_inner_recording_is_used(model):
    """Recordings nest: each keeps what ran in it, and a model outside of it leaves no trace."""
    pictures, _ = pictures_and_ids(model)
    other = Linear(3, 3)
    with model.record() as outer:
        model.visual(pictures)
        kept = sum(map(len, outer.caches.values()))
        with model.visual.record() as inner:
            y = model.visual(pictures)
            model.visual.backward(np.ones_like(y))
            assert not any(inner.caches.values())
        other(np.ones((1, 3), np.float32))  # not part of the model
        assert sum(map(len, outer.caches.values())) == kept
        model.visual.backward(np.ones_like(y))


def test_gradients_add_up_until_zeroed(model):
    pictures, ids = pictures_and_ids(model)
    model.zero_grad()
    sums = []
    for _ in range(2):
        with model.record():
            per_image, _ = model(pictures, ids)
            model.backward(per_image)
        sums.append({n: np.array(p.grad) for n, p in model.named_parameters()})
    for name, once in sums[0].items():
        np.testing.assert_allclose(sums[1][name], 2 * once, rtol=1e-5, atol=1e-30)
    model.zero_grad()
    assert all(p.grad is None for _, p in model.named_parameters())


def peak(run):
    """The most memory that Python and NumPy held at once during run(), in bytes."""
    tracemalloc.start()
    run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_inference_keeps_nothing(model):
    """A recording holds every layer's input; inference holds a few layers at a time."""
    pictures, _ = pictures_and_ids(model, images=8)

    def record():
        with model.record():
            model.visual(pictures)

    model.visual(pictures)
    inference, recording = peak(lambda: model.visual(pictures)), peak(record)
    assert recording > 2 * inference, (recording, inference)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_eight_threads_get_the_bits_of_one(model, backend):
    """Also while another thread records, whose gradients are those of one thread alone."""
    assert backend in backends.available()
    model.to(backend)
    pictures, ids = pictures_and_ids(model, images=8)
    alone = [(model.visual(pictures[i : i + 1]), model.text(ids[i : i + 1])) for i in range(8)]

    def record():
        with model.record():
            y = model.visual(pictures)
            return model.visual.backward(np.ones_like(y))

    expected = record()
    start = threading.Barrier(9)

    def infer(i):
        start.wait()
        return [(model.visual(pictures[i : i + 1]), model.text(ids[i : i + 1])) for _ in range(5)]

    def keep_recording():
        start.wait()
        return [record() for _ in range(3)]

    with ThreadPoolExecutor(9) as pool:
        recorded = pool.submit(keep_recording)
        results = list(pool.map(infer, range(8)))
    for i, rounds in enumerate(results):
        for image, text in rounds:
            assert np.array_equal(image, alone[i][0])
            assert np.array_equal(text, alone[i][1])
    assert all(np.array_equal(dimages, expected) for dimages in recorded.result())
    model.to("numpy").zero_grad()


def test_assigning_ends_a_registration():
    """`tower.proj = None` takes the projection out of the state, as in PyTorch."""
    layer = Linear(3, 2)
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]
    assert layer(np.ones((1, 3), np.float32)).shape == (1, 2)
    outer = Module()
    outer.inner = layer
    assert list(outer.state_dict()) == ["inner.weight"]
    outer.inner = "gone"
    assert not list(outer.named_parameters())


def test_copies_are_their_own(model):
    """copy.deepcopy gives a model with arrays of its own on the same backend."""
    pictures, ids = pictures_and_ids(model)
    twin = copy.deepcopy(model)
    assert twin.ops is model.ops
    expected = model(pictures, ids)[0]
    model.visual.conv1.weight.data = 2 * model.visual.conv1.weight.data
    assert np.array_equal(twin(pictures, ids)[0], expected)
    model.visual.conv1.weight.data = model.visual.conv1.weight.data / 2
    del twin.visual.conv1
    assert not any(n.startswith("visual.conv1") for n in twin.state_dict())
    with pytest.raises(AttributeError):
        twin.visual = None  # a property
    assert "visual" in twin.children_


def test_depth_costs_inference_nothing():
    """Eight blocks need no more memory than two, but for a recording."""
    pictures = inputs_for(VIT, images=8)[0].astype(np.float32)

    def most(layers, recorded):
        tower = CLIP(with_vision(VIT, layers=layers), seed=0).visual
        tower(pictures)

        def run():
            with tower.record() if recorded else nullcontext():
                tower(pictures)

        return peak(run)

    assert most(8, recorded=False) < 1.05 * most(2, recorded=False)
    assert most(8, recorded=True) > 2 * most(2, recorded=True)


def test_modules_without_methods_say_so():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        Module()(1)
