"""What tests of the tasks check: graders by models that know the answers; planted bugs as well.

`check_*` take the module to check, which may be a planted one.
"""

import importlib
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from fake_models import COUNT, SEED, Fake, scenes_of, truth

from miniclip.world.scenes import HELD_OUT, SEEN, TRAINING_WORLD, World, single_world

robustness = importlib.import_module("miniclip.tasks.robustness")  # not the function of that name
SMALLEST, LARGEST = TRAINING_WORLD.radius  # of single things

# ------------------------------------------------------------------------ evaluate


@cache
def asked(count=COUNT, seed=SEED):
    """The scenes that an evaluation asks about."""
    worlds = (
        single_world(SEEN),
        single_world(HELD_OUT),
        World(mix=(1 / 3, 2 / 3, 0, 0), radius=(SMALLEST, SMALLEST)),
        World(mix=(0, 0, 1.0, 0)),
    )
    return [scene for world in worlds for scene in scenes_of(world, count, seed)]


def check_evaluate(graded):
    """Who knows the truth is always right, about the right scenes; AssertionError if not."""
    fake = Fake(asked(), truth)
    result = graded.evaluate(fake, COUNT, SEED)
    assert all(score.right == score.total for score in result.scores)
    assert len(fake.shown) == 4 * COUNT
    assert fake.shown == asked()
    assert result.find("pair", pairs="held-out").total == COUNT


# ------------------------------------------------------------------------ robustness

FEW = 12  # pictures of each kind: every change and strength draws them again
CHANGES = [(change, s) for change, strengths in robustness.STRENGTHS.items() for s in strengths]
SCENES = {
    "seen": scenes_of(single_world(SEEN), FEW, SEED),
    "held-out": scenes_of(single_world(HELD_OUT), FEW, SEED),
}
BOTH = SCENES["seen"] + SCENES["held-out"]


def known(rows_of, graded=robustness):
    """A fake that knows these pictures: change, strength, and the scenes."""
    fake = Fake([], truth)
    for change, strength, scenes in rows_of:
        for scene in scenes:
            fake.scenes[graded.draw_changed(scene, change, strength).tobytes()] = scene
    return fake


def check_robustness(graded):
    """Who knows every picture is always right; who knows the unchanged ones, about these alone."""
    rows = graded.robustness(known([(c, s, BOTH) for c, s in CHANGES]), FEW, SEED)
    assert [(row.change, row.strength) for row in rows] == CHANGES
    assert {(row.seen, row.held_out, row.count) for row in rows} == {(1.0, 1.0, FEW)}
    first, *others = graded.robustness(known([("none", "", BOTH)]), FEW, SEED)
    assert (first.change, first.seen, first.held_out) == ("none", 1.0, 1.0)
    assert max(max(row.seen, row.held_out) for row in others) <= 0.17
    rows = graded.robustness(known([(c, s, SCENES["seen"]) for c, s in CHANGES]), FEW, SEED)
    assert {row.seen for row in rows} == {1.0}
    assert max(row.held_out for row in rows) <= 0.17


# ------------------------------------------------------------------------ probe


class Sees:
    """A fake whose embeddings are what `see(picture)` says, in 12 numbers, and a little noise."""

    name = "sees"

    def __init__(self, see):
        self.see = see

    def encode_image(self, images, normalize=False, progress=None):
        images = list(images)
        rows = np.zeros((len(images), 12))
        for row, picture in zip(rows, images, strict=True):
            pixels = np.asarray(picture, float)
            row[:] = self.see(pixels)
            row += 0.01 * np.random.default_rng(int(pixels.sum())).standard_normal(12)
        return rows


def place_and_background(pixels):
    """The middle of what is not background, in thirds of the picture; and the background's kind."""
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    steps = np.abs(np.diff(pixels[0], axis=0)).mean()  # between neighbours
    kind = 2 if steps > 3 else 1 if border.std(axis=0).max() > 0.5 else 0
    far = np.abs(pixels - np.median(border, axis=0)).sum(axis=2) > 140  # (64, 64)
    rows, columns = np.nonzero(far)
    y, x = ((v.min() + v.max() + 1) / 2 / 64 if len(v) else 0.5 for v in (rows, columns))
    return np.eye(12)[min(int(3 * y), 2) * 3 + min(int(3 * x), 2)] + np.eye(12)[9 + kind]


def table(rows):
    return {(row.attribute, row.features, row.shots): row for row in rows}


def quick(monkeypatch, graded):
    """Fewer fits: the report does the same for any number of them."""
    monkeypatch.setattr(graded, "SHOTS", (1, 16))
    monkeypatch.setattr(graded, "DRAWS", 2)
    monkeypatch.setattr(graded.probe, "__defaults__", ((0.01, 1.0),))  # the strengths of L2


def check_probe_report(graded):
    """Who looks at place and background finds both."""
    rows = graded.probe_report(Sees(place_and_background), 6)
    found = table(rows)
    assert {row.shots for row in rows} == {1, 6}
    assert {row.features for row in rows} == {"embedding", "pixels", "small pixels"}
    assert found["place", "embedding", 6].accuracy > 0.85
    assert found["background", "embedding", 6].accuracy > 0.85
    assert found["place", "embedding", 6].chance == 1 / 9
    assert found["background", "embedding", 6].chance == 1 / 3
    for row in rows:
        assert row.draws == (1 if row.shots == 6 else 2)
    assert max(row.deviation for row in rows if row.draws == 1) == 0
    several = [row for row in rows if row.draws > 1]
    assert sum(row.deviation > 0 for row in several) > len(several) / 2  # draws differ
    row = graded.make_row(graded.ATTRIBUTES[0], "embedding", 1, [0.5, 0.7, 0.9])
    assert (row.accuracy, row.draws) == (pytest.approx(0.7), 3)
    assert abs(row.deviation - 0.2) < 1e-12  # of the sample: over n - 1
    return found


# ------------------------------------------------------------------------ own pictures


def check_own_pictures(graded):
    """Ranks and scores of made-up cosines with many ties, by a reference that sorts."""
    rng = np.random.default_rng(0)
    cosine = rng.integers(0, 4, (60, 12)) / 4
    fits = rng.random((60, 12)) < 0.2
    fits[np.arange(60), rng.integers(0, 12, 60)] = True
    wanted = []
    for row, right in zip(cosine, fits, strict=True):  # wrong ones first at a tie
        order = sorted(range(12), key=lambda i, row=row, right=right: (-row[i], right[i]))
        wanted.append(1 + next(place for place, i in enumerate(order) if right[i]))
    assert graded.rank(cosine, fits).tolist() == wanted
    scores = {score.among: score for score in graded.recall("image to text", cosine, fits)}
    assert set(scores) == {1, 5, 10}
    for k, score in scores.items():
        assert score.right == sum(place <= k for place in wanted)
        assert (score.total, score.choices) == (60, 12)
    blind = [
        (rng.permutation(12)[:5][:, None] == np.flatnonzero(f)).any() for f in fits.repeat(40, 0)
    ]
    assert abs(scores[5].chance - np.mean(blind)) < 0.04
    rows = [graded.Row(name, (text,)) for name, text in (("a", "1"), ("b", "2"), ("a", "3"))]
    assert [row.captions for row in graded.merged(rows)] == [("1", "3"), ("2",)]


# ------------------------------------------------------------------------ verify


def check_verify(module):
    """Verdicts of a made-up model whose answers are 1, 2, 3, told by hand."""

    def answer(*_):
        return np.array([1.0, 2.0, 3.0])

    def broken(*_):
        raise ValueError("a picture that cannot be read")

    def row(expected, **more):
        given = {"model": "toy", "compute": answer, "source": "by hand", **more}
        return module.KnownAnswer(title="", expected=expected, tolerance=0.1, **given)

    toy = SimpleNamespace(name="toy", config=SimpleNamespace(vision=None, text=None))
    words = row([1, 2, 3], weights=False)
    unseen = row([1, 2, 3], picture=("nowhere.png", "a shelf"))
    table = [
        (row([1, 2, 3.09]), "pass"),
        (row([1, 2, 2.8]), "fail"),
        (row([1, 2, 3.2]), "fail"),
        (row([2.05, 2, 3.95]), "fail"),
        (row(2.0, compute=lambda *_: np.array([2.0, 2.0])), "fail"),
        (row([1, 2, 3], compute=broken), "fail"),
        (words, "pass"),
        (row([7, 7, 7], model="another"), None),
        (unseen, "skip"),
    ]
    verdicts = module.verify(toy, ".", [known for known, _ in table])
    assert [v.status for v in verdicts] == [status for _, status in table if status]
    assert module.weights_were_tested(verdicts)
    assert not module.weights_were_tested(module.verify(toy, ".", [words, unseen]))
