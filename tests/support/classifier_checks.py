"""An objective without pairs, and what the training loop owes to it.

A linear classifier on the image tower: it has weights and a running statistic of its own, reads
its classes from the captions, knows no chance level, and looks at the whole batch at once. The
oracle is the same thing in PyTorch, by autograd. As in training_checks, miniclip is imported by
name.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from training_checks import (
    PAIRS,
    Oracle,
    check_resume,
    check_same_weights,
    make_trainer,
    our_losses,
    room,
    their_losses,
)

DIGITS = tuple("0123456789")  # what the captions of training_checks.Arrays say
START = np.random.default_rng(8).standard_normal((len(DIGITS), 64)).astype(np.float32)
FORGET = 0.9


def make_classifier(classes=DIGITS):
    """An objective: which of these words is in the caption?"""
    nn, objectives = room("nn.module"), room("training.objectives")

    class Head(nn.Module):
        """Embeddings (N, E) to scores (N, classes), each feature divided by its size in the batch.

        In inference by the running mean of that size, a buffer, as BatchNorm does.
        """

        def __init__(self, width):
            super().__init__()
            self.weight = nn.Parameter(START[: len(classes), :width])
            self.bias = nn.Parameter(np.zeros(len(classes), np.float32))
            self.add_buffer("size", np.ones(width, np.float32))

        def forward(self, x):
            size = self.buffers_["size"]
            if self.training:
                size = np.sqrt((x * x).mean(axis=0))  # (E,)
                self.buffers_["size"] = FORGET * self.buffers_["size"] + (1 - FORGET) * size
            y = x / size
            scores, cache = self.ops.linear(y, self.weight.data, self.bias.data)
            self.save((cache, y, size))
            return scores

        def backward(self, dscores):
            cache, y, size = self.saved()
            dy, dweight, dbias = self.ops.linear_backward(dscores, cache)
            self.weight.add_grad(dweight)
            self.bias.add_grad(dbias)
            # y = x / size, and dsize/dx = x / (N size) = y / N
            return (dy - y * (dy * y).mean(axis=0)) / size

    class Classifier(objectives.Objective):
        name = "classifier"
        no_chunks = "divides by the size of the whole batch's embeddings"

        def prepare(self, network):
            self.module = nn.Sequential([("head", Head(network.config.embed_dim))])

        def __call__(self, network, batch, chunk=None):
            self.check_chunk(chunk)
            ops, head = network.ops, self.module
            wanted = labels(batch.captions, classes)
            with network.record(), head.record():
                scores = head(network.visual(batch.pixels))  # (N, classes)
                loss, cache = ops.cross_entropy(scores, ops.as_ids(wanted))
                network.visual.backward(head.backward(ops.cross_entropy_backward(1.0, cache)))
            right = ops.to_numpy(scores.argmax(axis=1)) == wanted
            return objectives.Outcome(loss, {"accuracy": right.mean()})

    return Classifier()


def labels(captions, classes):
    """Which class each caption names: (N,) integers."""
    return np.array([next(i for i, c in enumerate(classes) if c in text) for text in captions])


class ClassifierOracle(Oracle):
    """The original's image tower and a head, by autograd; the temperature is not touched."""

    def __init__(self, kind, dtype, recipe):
        super().__init__(kind, dtype, recipe)
        width = self.model.text_projection.shape[1]
        self.weight = torch.nn.Parameter(torch.tensor(START[:, :width], dtype=dtype))
        self.bias = torch.nn.Parameter(torch.zeros(len(DIGITS), dtype=dtype))
        self.size = torch.ones(width, dtype=dtype)
        for group, p in zip(self.optimizer.param_groups, (self.weight, self.bias), strict=True):
            group["params"].append(p)  # a matrix decays, a bias does not
        self.norms = []

    def step(self, number, pixels, captions):
        features = self.model.encode_image(torch.tensor(pixels, dtype=self.dtype))
        size = features.square().mean(0).sqrt()
        self.size = 0.9 * self.size + 0.1 * size.detach()
        scores = torch.nn.functional.linear(features / size, self.weight, self.bias)
        wanted = torch.tensor([int(caption) for caption in captions])
        loss = torch.nn.functional.cross_entropy(scores, wanted)
        self.optimizer.zero_grad()
        loss.backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        trained = [p for p in trained if p.grad is not None]
        self.norms.append(float(torch.nn.utils.clip_grad_norm_(trained, self.recipe.clip)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number)
        self.optimizer.step()
        return float(loss.detach())


def classifier_trainer(kind="vit", dtype="float64", backend="numpy", folder=None, **changes):
    return make_trainer(kind, dtype, backend, folder, objective=make_classifier(), **changes)


def check_classifier_curve(kind, dtype="float64", backend="numpy", steps=14, tolerance=1e-7):
    """Losses, weights and statistics of the network and of the head are PyTorch's."""
    trainer = classifier_trainer(kind, dtype, backend, clip=1.0, weight_decay=1.0)
    ours = our_losses(trainer, steps)
    oracle = ClassifierOracle(kind, getattr(torch, dtype), trainer.recipe)
    theirs = their_losses(oracle, trainer.data, steps)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
    assert ours[0] > ours[-1] + 0.1, "nothing was learned: the check is blind"
    assert max(oracle.norms) > 1.0, "nothing was clipped: the check is blind"
    if dtype == "float64":
        check_same_weights(trainer.network, oracle.model)
        state = trainer.objective.module.state_dict()
        for name in ("weight", "bias", "size"):
            expected = getattr(oracle, name).detach().numpy()
            np.testing.assert_allclose(state[f"head.{name}"], expected, atol=1e-6, err_msg=name)


def check_classifier_resume():
    """Weights, statistics and log of a run that was stopped are those of one that was not."""
    log = check_resume("resnet", make_classifier)
    columns = {"step", "epoch", "loss", "gradient", "rate", "accuracy", "pairs", "samples"}
    for row in log:
        assert set(row) == {*columns, "seconds"}
        assert row["accuracy"] * row["pairs"] in range(row["pairs"] + 1)


def check_classifier_frozen():
    """A frozen head keeps its bits, its running statistic too; without it the head alone learns."""
    trainer = classifier_trainer("resnet", frozen=("head.*",), steps=3)
    moved = moved_by_running(trainer)
    assert not any(name.startswith("objective.") for name in moved)
    assert "network.visual.conv1.weight" in moved
    trainer = classifier_trainer("resnet", frozen=("visual.*",), steps=3)
    assert moved_by_running(trainer) == {f"objective.head.{n}" for n in ("weight", "bias", "size")}
    trainer = classifier_trainer("resnet", frozen=("head.bias",), steps=3)
    moved = moved_by_running(trainer)
    assert {"objective.head.weight", "objective.head.size"} < moved
    assert "objective.head.bias" not in moved


def moved_by_running(trainer):
    """The names of all that a run changes."""
    before = {name: np.array(x) for name, x in everything(trainer).items()}
    trainer.run()
    assert not any(m.training for m in (*trainer.network.modules(), *trainer.module.modules()))
    return {n for n, x in everything(trainer).items() if not np.array_equal(before[n], x)}


def everything(trainer):
    module = trainer.objective.module
    return {f"network.{n}": x for n, x in trainer.network.state_dict().items()} | {
        f"objective.{n}": x for n, x in module.state_dict().items()
    }


def check_chunk_is_refused():
    """By name and with the reason: before a run begins, and by the objective itself."""
    message = "chunk: got 4, expected None: the objective 'classifier' divides by the size"
    with pytest.raises(ValueError, match=message):
        classifier_trainer(chunk=4)
    silent = type("Silent", (room("training.objectives").Objective,), {"name": "silent"})
    with pytest.raises(ValueError, match="'silent' is no function of independent image and"):
        make_trainer("vit", objective=silent(), chunk=3)
    trainer = classifier_trainer()
    pixels, captions = trainer.data.load(range(PAIRS), 0)
    batch = room("training.objectives").Batch(pixels, None, captions)
    with pytest.raises(ValueError, match=message):
        trainer.objective(trainer.network, batch, 4)
    assert trainer.objective(trainer.network, batch).loss > 0


def check_names():
    """A module may neither take the network's names in the optimiser nor hold its parameters."""
    nn, objectives = room("nn.module"), room("training.objectives")

    def trainer_with(name, parameter=None):
        class Own(objectives.Objective):
            def prepare(self, network):
                self.module = nn.Module()
                same = parameter and dict(network.named_parameters())[parameter]
                self.module.head = same or nn.Parameter(np.ones(3, np.float32))
                self.module.parameters_[name] = self.module.parameters_.pop("head")

        Own.name = "own"
        return make_trainer("vit", objective=Own())

    with pytest.raises(ValueError, match="'own' has a parameter 'text_projection', and so has"):
        trainer_with("text_projection")
    with pytest.raises(ValueError, match=r"'own' holds the network's visual\.proj as its own head"):
        trainer_with("head", "visual.proj")
    assert "head" in trainer_with("head").optimizer.parameters


def check_another_objective_is_refused():
    """A checkpoint says what it was trained for."""
    state = room("training.state")
    with tempfile.TemporaryDirectory() as folder:
        make_trainer("vit", folder=Path(folder), steps=2).run()
        with pytest.raises(state.StateError, match=r"recipe\.loss = 'contrastive', expected 'cl"):
            classifier_trainer(folder=Path(folder), steps=2).resume()
    with tempfile.TemporaryDirectory() as folder:
        classifier_trainer(folder=Path(folder), steps=2).run()
        with pytest.raises(state.StateError, match=r"recipe\.loss = 'classifier', expected 'co"):
            make_trainer("vit", folder=Path(folder), steps=2).resume()
        fewer = make_trainer(
            "vit", folder=Path(folder), objective=make_classifier(DIGITS[:7]), steps=2
        )
        with pytest.raises(state.StateError, match=r"head\.weight has shape \(10, 16\), expected"):
            fewer.resume()
