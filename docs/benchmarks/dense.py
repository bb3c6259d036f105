"""Where dense embeddings point: `python docs/benchmarks/dense.py [--count 1000] [--seed 2]`.

Scenes of two to four things at free places that do not overlap. The first is asked for by name; the
second has its colour, the third its shape (with two things: one or the other), the fourth neither.
A tower's `dense` gives an embedding for every position, and the one nearest to the name's embedding
is where it points: right if the middle of that position is inside the thing's box. Chance is the
share of positions that are.

How the last block's shortcuts are treated was chosen on seed 1; the page reports seed 2.
"""

import argparse

import numpy as np

import miniclip
from miniclip.inputs.preprocess import normalize
from miniclip.world.captions import name_pair
from miniclip.world.drawing import draw_array
from miniclip.world.scenes import BACKGROUNDS, SEEN, TRAINING_WORLD, Scene, make_thing, pick

# model, sides of the pictures in pixels, options of `dense`
ROWS = (
    ("mini-vit", (64, 128), {"path": "tokens"}),
    ("mini-vit", (64, 128), {"path": "value", "residual": True}),
    ("mini-vit", (64, 128), {"path": "value", "residual": False}),
    ("mini-rn", (64, 128, 256), {"positions": False}),
    ("mini-rn", (64, 128, 256), {"positions": True}),
)
CHUNK = 50


def free_scene(seed, number):
    """Scene `number` of a seed; its first thing is the one to point at."""
    rng = np.random.default_rng([seed, number])
    count = int(rng.integers(2, 5))
    target = pick(SEEN, rng)
    wanted = [(True, False), (False, True)]  # whose colour, whose shape is the target's
    rng.shuffle(wanted)
    pairs = [target]
    for colour, shape in [*wanted, (False, False)][: count - 1]:
        fitting = tuple(
            p for p in SEEN if (p[0] == target[0]) == colour and (p[1] == target[1]) == shape
        )
        pairs.append(pick(fitting, rng))
    things = [
        make_thing(pair, place, TRAINING_WORLD, rng)
        for pair, place in zip(pairs, free_places(count, rng), strict=True)
    ]
    return Scene("several", tuple(things), pick(BACKGROUNDS, rng), "flat", (seed, number))


def free_places(count, rng):
    """(x, y, radius) of squares anywhere in the picture that do not overlap."""
    while True:
        radii = rng.uniform(0.12, 0.19, count)
        centres = [rng.uniform(r, 1 - r, 2) for r in radii]
        apart = all(
            np.abs(centres[i] - centres[j]).max() > radii[i] + radii[j]
            for i in range(count)
            for j in range(i)
        )
        if apart:
            return [
                (float(x), float(y), float(r)) for (x, y), r in zip(centres, radii, strict=True)
            ]


def middles(tower, side):
    """Where the positions of a picture have their middles: (G*G, 2), x and y in [0, 1]."""
    rows, columns = tower.grid_of(side, side)
    if hasattr(tower, "transformer"):
        step, first = tower.conv1.stride, tower.conv1.weight.data.shape[-1] / 2
        along = [(first + step * np.arange(n)) / side for n in (columns, rows)]
    else:
        along = [(np.arange(n) + 0.5) / n for n in (columns, rows)]
    x, y = np.meshgrid(*along)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def inside(places, thing):
    """Which of the places are in the thing's box."""
    return np.abs(places - [thing.x, thing.y]).max(axis=1) <= thing.radius


def pointing(model, scenes, side, options):
    """The share of scenes where the tower points at the first thing, and by chance."""
    tower = model.network.visual
    tower.interpolate = True
    places = middles(tower, side)
    names = model.encode_text([name_pair(*s.things[0].pair) for s in scenes], normalize=True)
    hits, chance = [], []
    for start in range(0, len(scenes), CHUNK):
        some = scenes[start : start + CHUNK]
        mean, std = model.transform.mean, model.transform.std
        pixels = np.stack([normalize(draw_array(s, side), mean, std) for s in some])
        dense, _ = model.network.ops.l2_normalize(tower.dense(pixels, **options))  # (B, G*G, E)
        cosines = dense @ names[start : start + CHUNK, :, None]  # (B, G*G, 1)
        for scene, at in zip(some, cosines[:, :, 0].argmax(axis=1), strict=True):
            right = inside(places, scene.things[0])
            hits.append(right[at])
            chance.append(right.mean())
    return float(np.mean(hits)), float(np.mean(chance))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--backend", default="numba")
    asked = parser.parse_args()
    scenes = [free_scene(asked.seed, i) for i in range(asked.count)]
    print("| model | pixels | dense | pointing | chance |\n|---|---|---|---|---|")
    models = {}
    for name, sides, options in ROWS:
        model = models.setdefault(name, miniclip.load(name, backend=asked.backend))
        words = ", ".join(f"{k}={v!r}" for k, v in options.items())
        for side in sides:
            hits, chance = pointing(model, scenes, side, options)
            print(f"| {name} | {side} | `{words}` | {hits:.3f} | {chance:.3f} |", flush=True)


if __name__ == "__main__":
    main()
