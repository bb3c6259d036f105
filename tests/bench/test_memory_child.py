"""What the process does whose memory is measured, and what of it is sampled."""

import contextlib
import dataclasses

import numpy as np
import pytest
from bench_checks import VIT, needs
from notes import Notes

import miniclip
from miniclip.bench import inputs as bench_inputs
from miniclip.bench import memory_child, peers, subjects
from miniclip.bench.memory import Job, Peak


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model in a file."""
    path = tmp_path_factory.mktemp("memory") / "model.safetensors"
    subjects.make_pipeline(VIT, bench_inputs.living_state(VIT), "numpy").save(path)
    return path


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("subject", ["ours", "torch"])
def test_work_is_sampled_alone(monkeypatch, subject, repeated):
    """With the threads asked for; a batch three times, the long run once; not the loading."""
    notes = Notes()

    @contextlib.contextmanager
    def limited(*arguments):
        notes.append(("limited", *arguments))
        yield

    class Sampler:
        def __enter__(self):
            notes.append(("sampling",))
            return self

        def __exit__(self, *_):
            notes.append(("sampled",))

        def peak(self):
            return "the peak"

    monkeypatch.setattr(memory_child.peers, "need", notes.of("need", "PyTorch"))
    monkeypatch.setattr(memory_child.threads, "limited", limited)
    monkeypatch.setattr(memory_child, "make_work", notes.of("make", lambda job: notes.of("work")))
    monkeypatch.setattr(memory_child.time, "sleep", notes.of("sleep"))
    monkeypatch.setattr(memory_child, "Sampler", Sampler)
    job = Job(subject, "m", 2, repeated, 3)
    assert memory_child.run(job) == "the peak"
    library = [("need", "torch")] if subject == "torch" else []
    assert notes == [
        *library, ("limited", 3, "PyTorch" if library else None), ("make", job),
        ("sleep", pytest.approx(0.02)), ("sampling",), *[("work",)] * (1 if repeated else 3),
        ("sampled",),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "peak"),
    [
        ([5.0, 7.0], Peak(5, 7, 5, 7)),  # fewer than quarters: the first and the last
        ([5.0], Peak(5, 5, 5, 5)),
        ([1.0, 2, 3, 4, 9, 6, 8, 7], Peak(1, 9, 2, 8)),
        ([1.0, 3, 2, 4, 9, 6, 5, 7, 8], Peak(1, 9, 3, 8)),
        ([4.0, 3, 2, 1, 0, 0, 0, 0, 0, 1, 2, 1], Peak(4, 4, 4, 2)),
    ],
)
def test_quarters_of_the_time(samples, peak):
    sampler = memory_child.Sampler.__new__(memory_child.Sampler)
    sampler.samples = samples
    assert sampler.peak() == peak
    assert peak.above == peak.peak - peak.before


def test_samples_are_taken_every_two_milliseconds(monkeypatch):
    """The first before, the last after the work; the thread has ended when the block has."""
    readings = iter(range(1000))
    monkeypatch.setattr(memory_child, "own_memory", lambda: next(readings))
    waits = []

    class Stop:
        stopped = False

        def wait(self, seconds):
            waits.append(seconds)
            return self.stopped or len(waits) > 3

        def set(self):
            self.stopped = True

    sampler = memory_child.Sampler()
    sampler.stop = Stop()
    assert sampler.samples == [0]
    with sampler:
        assert sampler.thread.daemon  # an error elsewhere ends the process nonetheless
        sampler.thread.join(60)
    assert sampler.stop.stopped
    assert sampler.samples == [0, 1, 2, 3, 4]
    assert waits == [0.002] * 4


def test_leaving_the_block_ends_the_sampling(monkeypatch):
    monkeypatch.setattr(memory_child, "own_memory", lambda: 1.0)
    with memory_child.Sampler() as sampler:
        assert sampler.thread.is_alive()
    assert not sampler.thread.is_alive()


def test_pictures_of_a_job():
    many = memory_child.job_pictures(VIT, Job("ours", "m", 3, False, 1))
    np.testing.assert_array_equal(many, bench_inputs.pictures(VIT, 3))
    one = memory_child.job_pictures(VIT, Job("ours", "m", 4, True, 1))
    assert (one.shape, one.strides[0]) == ((4, 3, 32, 32), 0)  # held once
    np.testing.assert_array_equal(one[3], bench_inputs.pictures(VIT, 1)[0])


def test_work_is_embedding_the_jobs_pictures(saved, monkeypatch):
    jobs = [Job("ours", str(saved), 2, repeated, 1, "gelu") for repeated in (False, True)]
    expected = miniclip.load(saved, "numpy", activation="gelu").encode_image
    asked = []

    def loaded(model, backend, activation=None):
        asked.append(backend)
        pipeline = miniclip.load(model, backend, activation=activation)
        encode = pipeline.encode_image
        pipeline.encode_image = lambda x, progress=None: (encode(x), progress)
        return pipeline

    monkeypatch.setattr(memory_child, "load", loaded)
    for job in jobs:
        embeddings, progress = memory_child.make_work(job)()
        x = np.array(memory_child.job_pictures(VIT, job))
        np.testing.assert_allclose(embeddings, expected(x), atol=1e-4)
        assert progress is False
    assert asked == ["numba", "numba"]


def test_the_originals_work_is_the_same(saved, monkeypatch):
    needs("torch", "clip")
    import torch

    job = Job("torch", str(saved), 2, False, 1)
    copies = []
    original = peers.original_clip

    def noted(config, state, copy=False):
        copies.append(copy)
        return original(config, state, copy)

    monkeypatch.setattr(memory_child.peers, "original_clip", noted)
    embeddings = memory_child.make_work(job)()
    assert (copies, embeddings.is_inference()) == ([True], True)
    ours = miniclip.load(saved, "numpy").encode_image(bench_inputs.pictures(VIT, 2))
    torch.testing.assert_close(embeddings.clone(), torch.from_numpy(ours), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"no vision\.activation of 'gelu'"):  # it is handed on
        memory_child.make_work(dataclasses.replace(job, activation="gelu"))
