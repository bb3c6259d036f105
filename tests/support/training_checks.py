"""Training against PyTorch: the same weights, data order and schedule, step by step.

`check_*` take no package but import miniclip by name, so that a package with a planted bug, put
in its place, goes through the very same checks.
"""

import importlib
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from held_out import names_held_out
from original import living_state, load_into_original, original_clip

PAIRS, BATCH = 24, 8
# Repeated captions in every batch, so that multi-positive targets matter.
CAPTIONS = [f"{n % 10}" for n in range(PAIRS)]


def room(name):
    return importlib.import_module(f"miniclip.{name}")


def configs():
    models = room("models")
    text = models.TextConfig(context_length=7, vocab_size=40, width=32, heads=2, layers=1)
    vit = models.VisionConfig(32, 2, 32, 2, patch_size=8)
    resnet = models.VisionConfig(64, (1, 1, 1, 1), 4, 2)
    return {
        "vit": models.CLIPConfig(16, vit, text),
        "resnet": models.CLIPConfig(16, resnet, text),
    }


class Arrays:
    """A dataset of random pictures; caption n says which of ten texts belongs to it."""

    def __init__(self, side, pairs=PAIRS, captions=None):
        rng = np.random.default_rng(3)
        coarse = rng.standard_normal((pairs, 3, 4, 4)).repeat(side // 4, 2).repeat(side // 4, 3)
        self.pixels = coarse + 0.5 * rng.standard_normal((pairs, 3, side, side))
        self.captions = captions or CAPTIONS[:pairs]

    def __len__(self):
        return len(self.captions)

    def load(self, indices, epoch):
        return self.pixels[list(indices)], [self.captions[i] for i in indices]


def encode(captions):
    """Ids of a caption "n": as many words as n says, the end (39), zeros."""
    ids = np.zeros((len(captions), 7), np.int64)
    for row, caption in zip(ids, captions, strict=True):
        n = int(caption)
        row[: n % 4 + 1] = 1 + n + np.arange(n % 4 + 1)
        row[n % 4 + 1] = 39
    return ids


def make_trainer(
    kind, dtype="float64", backend="numpy", folder=None, objective=None, report=None, **changes
):
    """A trainer on living weights whose temperature is just above its limit."""
    config = configs()[kind]
    network = room("models").CLIP(config, seed=None)
    network.load_state_dict(start_state(config))
    network.to(backend, dtype)
    values = {"steps": 50, "batch": BATCH, "warm_up": 10, "learning_rate": 2e-3, "clip": 40.0}
    recipe = room("training.recipe").Recipe(**{**values, **changes})
    data = Arrays(config.vision.image_resolution)
    loop = room("training.loop")
    return loop.Trainer(
        network,
        data,
        encode,
        recipe,
        folder,
        report=report or (lambda line: None),
        progress=False,
        objective=objective,
    )


def start_state(config):
    state = living_state(config, 1)
    state["logit_scale"] = np.array(4.7, np.float32)  # above ln 100: the first clamp shows
    return state


def our_losses(trainer, steps):
    data = room("training.data")
    trainer.train_mode()
    recipe = trainer.recipe
    return [
        trainer.train_on(batch).loss
        for batch in data.batches(trainer.data, range(steps), trainer.batch_size, recipe.seed)
    ]


# ------------------------------------------------------------------------ the oracle

EMBEDDINGS = ("token_embedding.weight", "positional_embedding", "class_embedding")


class Oracle:
    """The original model trained by autograd and torch's AdamW; everything else written anew."""

    def __init__(self, kind, dtype, recipe):
        config = configs()[kind]
        self.recipe, self.dtype = recipe, dtype
        self.model = original_clip(config, dtype)
        load_into_original(self.model, start_state(config))
        self.model.train()
        self.bias = torch.nn.Parameter(torch.tensor(-10.0, dtype=dtype))
        if recipe.loss == "sigmoid":  # SigLIP's start
            self.model.logit_scale.data.fill_(math.log(10))
        named = dict(self.model.named_parameters()) | {"logit_bias": self.bias}
        decayed = [p for n, p in named.items() if p.dim() >= 2 and not n.endswith(EMBEDDINGS)]
        kept = [p for n, p in named.items() if p.dim() < 2 or n.endswith(EMBEDDINGS)]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": kept, "weight_decay": 0.0},
            ],
            lr=1.0,
            betas=recipe.betas,
            eps=recipe.eps,
        )

    def step(self, number, pixels, captions):
        images = torch.tensor(pixels, dtype=self.dtype)
        ids = torch.tensor(encode(captions))
        logits, _ = self.model(images, ids)
        wanted = torch.tensor([[a == b for b in captions] for a in captions]).to(self.dtype)
        loss = self.loss(logits, wanted)
        self.optimizer.zero_grad()
        loss.backward()
        trained = [*self.model.parameters(), self.bias]
        torch.nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], self.recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return float(loss.detach())

    def loss(self, logits, wanted):
        if self.recipe.loss == "sigmoid":
            signed = (2 * wanted - 1) * (logits + self.bias)
            return -torch.nn.functional.logsigmoid(signed).sum() / len(logits)
        return 0.5 * (soft_cross_entropy(logits, wanted) + soft_cross_entropy(logits.T, wanted.T))

    def rate(self, step):
        recipe = self.recipe
        if step < recipe.warm_up:
            return recipe.learning_rate * (step + 1) / recipe.warm_up
        share = (step - recipe.warm_up) / (recipe.steps - recipe.warm_up)
        return recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2


def soft_cross_entropy(logits, wanted):
    shares = wanted / wanted.sum(1, keepdim=True)
    return torch.nn.functional.cross_entropy(logits, shares)


def their_losses(oracle, data, steps):
    """The oracle on the batches that the order of the epochs names."""
    order = room("training.data").shuffled
    per_epoch = len(data) // BATCH
    losses = []
    for step in range(steps):
        indices = order(len(data), oracle.recipe.seed, step // per_epoch)
        start = step % per_epoch * BATCH
        pixels, captions = data.load(indices[start : start + BATCH], 0)
        losses.append(oracle.step(step, pixels, captions))
    return losses


# ------------------------------------------------------------------------ checks


def check_same_curve(
    kind, dtype="float64", backend="numpy", steps=50, tolerance=1e-7, loss="contrastive", **changes
):
    """The loss curves agree, and so do all weights and running statistics afterwards.

    changes: of the recipe. Returns the largest difference of the loss.
    """
    trainer = make_trainer(kind, dtype, backend, loss=loss, **changes)
    ours = our_losses(trainer, steps)
    oracle = Oracle(kind, getattr(torch, dtype), trainer.recipe)
    theirs = their_losses(oracle, trainer.data, steps)
    difference = float(np.abs(np.array(ours) - theirs).max())
    assert difference <= tolerance, f"losses differ by {difference}"
    assert ours[0] > ours[-1] + 0.1 or steps < 50, "nothing was learned: the check is blind"
    if dtype == "float64":
        check_same_weights(trainer.network, oracle.model)
    return difference


UNUSUAL = {  # no field of a recipe at its default, so that one which is not handed on shows
    "learning_rate": 5e-3,
    "warm_up": 3,
    "betas": (0.7, 0.9),
    "eps": 1e-3,
    "weight_decay": 0.6,
    "clip": 0.5,
    "seed": 4,
}


def check_unusual_recipe():
    """Every field of the recipe reaches the optimiser, the schedule, the clipping or the data."""
    check_same_curve("vit", steps=6, **UNUSUAL)
    check_same_curve("vit", steps=3, loss="sigmoid", **UNUSUAL)
    trainer, seen = make_trainer("vit", **UNUSUAL), []
    load = trainer.data.load
    trainer.data.load = lambda indices, epoch: (seen.append(list(indices)), load(indices, epoch))[1]
    trainer.run(until=2)
    order = np.random.default_rng([UNUSUAL["seed"], 0, 4]).permutation(PAIRS)
    assert seen == [order[:BATCH].tolist(), order[BATCH : 2 * BATCH].tolist()]


def check_same_weights(network, model):
    theirs = model.state_dict()
    for name, x in network.state_dict().items():
        if not name.endswith("k_proj.bias"):  # no gradient but rounding, which Adam blows up
            ours, their = key_bias_removed(name, x), key_bias_removed(name, theirs[name].numpy())
            np.testing.assert_allclose(ours, their, rtol=0, atol=1e-6, err_msg=name)


def key_bias_removed(name, x):
    """in_proj_bias without the keys' third, whose true gradient is zero."""
    if not name.endswith("in_proj_bias"):
        return x
    width = len(x) // 3
    return np.concatenate([x[:width], x[2 * width :]])


def check_order():
    """Every epoch has each pair once, in an order of its own that is not the file's."""
    shuffled = room("training.data").shuffled
    orders = [shuffled(100, 0, epoch).tolist() for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(100))
        assert order != list(range(100))
    assert orders[0] != orders[1] != orders[2]
    assert shuffled(100, 1, 0).tolist() != orders[0], "the seed makes no difference"
    assert shuffled(100, 0, 1).tolist() == orders[1], "not reproducible"


def check_clamp():
    """At both ends: above ln 100 to ln 100, below 0 to 0, and between them nothing is changed."""
    for start, after in ((4.7, math.log(100)), (-0.3, 0.0), (2.0, None)):
        trainer = make_trainer("vit", steps=1, warm_up=0, learning_rate=1e-6)
        trainer.network.logit_scale.data = np.array(start)
        trainer.run()
        scale = float(trainer.network.logit_scale.data)
        if after is None:
            assert 0 < abs(scale - start) < 1e-5, "it is not trained, or clamped inside"
        else:
            assert scale == after


def check_end_of_text():
    """A vocabulary whose end of text is not its largest id: texts are cut behind the end."""
    models = room("models")
    end, words = 20, [[1, 30, 39, 20], [35, 20], [2, 3, 20]]
    ids = np.array([[*row, *[0] * (7 - len(row))] for row in words])
    text = models.TextConfig(7, 40, 32, 2, 1, end_id=end)
    network = models.CLIP(models.CLIPConfig(16, configs()["vit"].vision, text), seed=1)
    network.to("numpy", "float64")
    recipe = room("training.recipe").Recipe(steps=1, batch=3, warm_up=0)
    trainer = room("training.loop").Trainer(
        network, Arrays(32, 3, ["0", "1", "2"]), lambda captions: ids[list(map(int, captions))],
        recipe, progress=False,
    )  # fmt: skip
    batch = room("training.data").load_batch(trainer.data, 0, 3, 0)
    cut = trainer._batch(batch).ids
    whole = ids[list(map(int, batch.captions))]
    np.testing.assert_array_equal(cut, whole[:, :4])
    np.testing.assert_allclose(network.text(cut), network.text(whole), atol=1e-12)


def check_decay():
    """Decay pulls at matrices and at nothing else."""
    optimizer = room("training.optimizer")
    for kind, config in configs().items():
        network = room("models").CLIP(config, seed=0)
        decayed = {n for n, p in network.named_parameters() if optimizer.is_decayed(n, p)}
        assert "logit_scale" not in decayed
        for name, p in network.named_parameters():
            if p.data.ndim < 2 or "embedding" in name:
                assert name not in decayed, name
            else:
                assert name in decayed, f"{kind}: {name}"


def check_gradcache(kind, training, chunk):
    """Chunked gradients against those of the single pass, float64; returns the largest error.

    BatchNorm in training sees its chunk alone, so there the truth is PyTorch on the same chunks.
    """
    trainer = make_trainer(kind, chunk=None)
    network = trainer.network.train(training)
    pixels, captions = trainer.data.load(range(14), 0)  # the first four captions occur twice
    ids, targets = encode(captions), room("training.targets").positives(captions)
    batch = room("training.objectives").Batch(pixels, ids, captions, targets)
    before = {n: np.array(x) for n, x in network.named_buffers()}
    outcome = trainer.objective(network, batch, chunk)
    ours = {n: p.grad for n, p in network.named_parameters()}
    if training and kind == "resnet":
        loss, theirs, buffers = torch_on_chunks(kind, pixels, captions, chunk)
        for name, x in network.named_buffers():
            assert np.abs(x - before[name]).max() > 0, f"{name} was not updated"
            np.testing.assert_allclose(x, buffers[name], atol=1e-10, err_msg=name)
    else:
        network.zero_grad()
        single = trainer.objective(network, batch)
        loss, theirs = single.loss, {n: p.grad for n, p in network.named_parameters()}
    assert abs(outcome.loss - loss) < 1e-10
    worst = max(float(np.abs(ours[n] - theirs[n]).max()) for n in ours)
    assert worst < 1e-10, f"gradients differ by {worst}"
    assert max(float(np.abs(g).max()) for g in theirs.values()) > 1e-3
    return worst


def check_chunks_are_small():
    """The towers never see more than a chunk of the batch; without one, they see it whole."""
    for chunk, largest in ((None, BATCH), (3, 3), (BATCH + 1, BATCH)):
        trainer = make_trainer("vit", chunk=chunk)
        sizes = {"visual": [], "text": []}
        for name, seen in sizes.items():
            tower = getattr(trainer.network, name)
            tower.forward = lambda x, forward=tower.forward, seen=seen: (
                seen.append(len(x)),
                forward(x),
            )[1]
        our_losses(trainer, 1)
        for seen in sizes.values():
            assert max(seen) == largest, f"chunk {chunk}: batches of {seen}"


def torch_on_chunks(kind, pixels, captions, chunk):
    """Embeddings chunk by chunk, one loss over all, one backward; statistics updated once."""
    model = original_clip(configs()[kind], torch.float64)
    load_into_original(model, start_state(configs()[kind]))
    model.train()
    images, ids = torch.tensor(pixels), torch.tensor(encode(captions))
    parts = [slice(i, i + chunk) for i in range(0, len(pixels), chunk)]
    normalize = torch.nn.functional.normalize
    image = normalize(torch.cat([model.encode_image(images[p]) for p in parts]), dim=1)
    text = normalize(torch.cat([model.encode_text(ids[p]) for p in parts]), dim=1)
    logits = model.logit_scale.exp() * image @ text.T
    wanted = torch.tensor([[a == b for b in captions] for a in captions]).double()
    loss = 0.5 * (soft_cross_entropy(logits, wanted) + soft_cross_entropy(logits.T, wanted.T))
    loss.backward()
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters()}
    return float(loss.detach()), gradients, {n: b.numpy() for n, b in model.named_buffers()}


def check_resume(kind="resnet", make_objective=lambda: None):
    """A run that goes on from its checkpoint ends in the same bits. Returns its log."""

    def trainer(folder=None, save_every=4):
        changes = {"objective": make_objective(), "steps": 9, "save_every": save_every}
        return make_trainer(kind, "float32", folder=folder, **changes)

    whole = trainer(save_every=100)
    our_losses(whole, 9)
    with tempfile.TemporaryDirectory() as folder:
        trainer(Path(folder)).run(until=4)
        second = trainer(Path(folder))
        assert second.resume()
        assert second.step == 4
        second.run()
        log = room("training.report").read_log(Path(folder) / "log.jsonl")
    assert [row["step"] for row in log] == list(range(9))
    same_bits(whole, second)
    return log


def same_bits(a, b):
    """All that a checkpoint holds, of two trainers."""
    for name, x in all_state(a).items():
        assert np.array_equal(x, all_state(b)[name]), f"{name} differs"


def all_state(trainer):
    state = trainer.network.state_dict() | trainer.optimizer.state()
    module = trainer.objective.module
    own = {} if module is None else module.state_dict()
    return state | {f"objective.{name}": x for name, x in own.items()}


def check_nan():
    """A loss that is no number ends the run, before anything is overwritten."""
    loop = room("training.loop")
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer("vit", folder=Path(folder), steps=9, save_every=2)
        load = trainer.data.load

        def broken_from_step_3_on(indices, epoch):
            pixels, captions = load(indices, epoch)
            return pixels * (np.nan if epoch == 1 else 1), captions

        trainer.data.load = broken_from_step_3_on
        with pytest.raises(loop.TrainingError, match=r"step 3: .* of epoch 1"):
            trainer.run()
        tensors, notes = room("training.state").read_state(Path(folder) / loop.STATE)
        assert notes["progress"]["step"] == 2
        assert all(np.isfinite(x).all() for x in tensors.values())


def check_frozen():
    """Frozen parts keep their bits, running statistics too; the others move."""
    trainer = make_trainer("resnet", frozen=("visual.*",), steps=3)
    before = {n: np.array(x) for n, x in trainer.network.state_dict().items()}
    trainer.run()
    for name, x in trainer.network.state_dict().items():
        moved = not np.array_equal(before[name], x)
        is_key_bias = "in_proj_bias" in name
        assert moved != name.startswith("visual.") or is_key_bias, name
    trainer = make_trainer("resnet", frozen=("visual.attnpool.*",), steps=3)
    trainer.run()
    for name, x in trainer.network.named_buffers():
        assert not np.array_equal(before[name], x), f"{name}: not in training mode"
    trainer = make_trainer("vit", frozen=("logit_scale",), steps=3)  # it starts above its limit
    trainer.run()
    assert trainer.network.logit_scale.data == before["logit_scale"]


def check_held_out():
    """Training never draws or names a pair that is held out; all others occur."""
    scenes, captions = room("world.scenes"), room("world.captions")
    drawn = set()
    for number in range(1500):
        scene = scenes.make_scene(scenes.TRAINING_WORLD, 0, number)
        drawn |= {thing.pair for thing in scene.things}
        text = captions.caption(scene, np.random.default_rng(number))
        assert not names_held_out(text), text
    assert drawn == set(scenes.SEEN)
    assert len(scenes.HELD_OUT) * 5 == len(scenes.COLOUR_SHAPE_PAIRS)
