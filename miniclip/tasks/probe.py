"""Linear probes: what frozen embeddings know about a picture, as far as a plane can tell it.

A probe is logistic regression on embeddings that stay as they are. It is asked for what no caption
of the drawn world names, so that words cannot have taught it:

    place        in which of 3 x 3 cells the centre of the one thing lies   chance 1/9
    size         small, middle or large, a third of the sizes each          chance 1/3
    background   plain, gradient or noisy                                   chance 1/3

The same probe on raw pixels (64 x 64 x 3 numbers) and on pixels averaged down to 16 x 16 x 3 says
how much of it any linear reader sees without a model. All of it on few examples of each class, and
on many.

Source: CLIP section 3.2 and appendix A.3 (L-BFGS, at most 1,000 steps, the strength of L2 chosen on
a validation split); figure 6 for few examples. Unlike there, the features are the embeddings behind
the last projection, they are standardised, and validation pictures are not trained on in the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from miniclip.ops import cross_entropy, cross_entropy_backward
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline
from miniclip.tables import markdown_table, text_table
from miniclip.tasks.evaluate import SIZES, check_count, embed_scenes, size_of
from miniclip.tasks.evaluation_result import Table
from miniclip.world.drawing import draw_array
from miniclip.world.scenes import BACKGROUNDS, SEEN, Scene, World, make_scene, single_world

PROBE_SEED = 2_000_003  # neither of training nor of evaluation
SHOTS = (1, 2, 4, 8, 16)  # examples of each class
RAREST = 200  # a class is looked for in this many times the scenes that equal shares would take
DRAWS = 5  # of few examples: which they are matters
L2_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)

Objective = Callable[[Array], tuple[float, Array]]  # x (P,) -> value, gradient (P,)


# ------------------------------------------------------------------------ the probe


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Scores of the classes: features @ weight + bias; the greatest wins.

    weight: (D, K). bias: (K,). classes: K labels in their order. l2: what it was fitted with.
    """

    weight: Array
    bias: Array
    classes: Array
    l2: float

    @classmethod
    def fit(cls, features: Array, labels: Any, l2: float = 1.0) -> LinearProbe:
        """Multinomial logistic regression: the mean cross-entropy + l2 / 2 times |weight|^2.

        features: (N, D) numbers; each of the D is standardised (mean 0, deviation 1 over these N)
        before the penalty is measured. labels: N integers or strings, two or more different ones.
        The bias has no penalty. Always the same result for the same input: the objective is convex
        and the start is zero. Raises ValueError naming the argument.
        """
        return cls.fit_all(features, labels, [l2])[0]

    @classmethod
    def fit_all(cls, features: Array, labels: Any, l2s: Sequence[float]) -> list[LinearProbe]:
        """A probe for each strength of L2; what they have in common is computed once."""
        x, y = check_examples(features, labels)
        classes, targets = np.unique(y, return_inverse=True)  # (K,), (N,)
        if len(classes) < 2:
            raise ValueError(f"labels: got only {classes[0]!r}, expected two or more classes")
        mean, deviation = x.mean(axis=0), spread(x)  # (D,)
        short, basis = shortened((x - mean) / deviation)  # (N, R), (D, R)
        probes = []
        for l2 in l2s:
            small, bias = solve(short, targets, len(classes), check_l2(l2))  # (R, K), (K,)
            weight = (basis @ small) / deviation[:, None]  # (D, K), for features as they come
            probes.append(cls(weight, bias - mean @ weight, classes, float(l2)))
        return probes

    def decide(self, features: Array) -> Array:
        """(N, D) -> scores (N, K): logits, whose softmax are probabilities."""
        x = check_features(features)
        if x.shape[1] != self.weight.shape[0]:
            raise ValueError(
                f"features: got {x.shape[1]} numbers a row, expected {self.weight.shape[0]} as in "
                "fit"
            )
        return x @ self.weight + self.bias

    def predict(self, features: Array) -> Array:
        """(N, D) -> N labels."""
        return self.classes[self.decide(features).argmax(axis=1)]

    def score(self, features: Array, labels: Any) -> float:
        """The share of rightly predicted labels."""
        x, y = check_examples(features, labels)
        return float((self.predict(x) == y).mean())


def probe(
    features_train: Array,
    labels_train: Any,
    features_validation: Array,
    labels_validation: Any,
    l2s: Sequence[float] = L2_GRID,
) -> LinearProbe:
    """The probe whose strength of L2 is best on the validation examples; of equals the strongest.

    features_*: (N, D) numbers. labels_*: N integers or strings. Raises ValueError naming the
    argument.
    """
    if not len(l2s):
        raise ValueError("l2s: got none, expected at least one strength")
    probes = LinearProbe.fit_all(features_train, labels_train, sorted(l2s, reverse=True))
    scores = [p.score(features_validation, labels_validation) for p in probes]
    return probes[int(np.argmax(scores))]  # the first of equals


def check_features(features: Array) -> Array:
    """float64 (N, D). ValueError unless there are rows of finite numbers."""
    x = np.asarray(features)
    if x.ndim != 2 or x.dtype.kind not in "fiu" or x.size == 0:
        raise ValueError(f"features: got {x.dtype} of shape {x.shape}, expected numbers (N, D)")
    x = x.astype(np.float64, copy=False)
    if not np.isfinite(x).all():
        raise ValueError("features: got numbers that are not finite, expected finite ones")
    return x


def check_examples(features: Array, labels: Any) -> tuple[Array, Array]:
    """float64 (N, D) and labels (N,), or ValueError."""
    x, y = check_features(features), np.asarray(labels)
    if y.shape != (len(x),) or y.dtype.kind not in "iuUb":
        raise ValueError(
            f"labels: got {y.dtype} of shape {y.shape}, expected {len(x)} integers or strings"
        )
    return x, y


def check_l2(l2: float) -> float:
    """ValueError unless positive: without a penalty the best weights may be infinite."""
    if not (l2 > 0 and np.isfinite(l2)):
        raise ValueError(f"l2: got {l2}, expected a positive number")
    return float(l2)


def spread(x: Array) -> Array:
    """The deviation of every column, (N, D) -> (D,); 1 where it is constant, up to rounding."""
    deviation = x.std(axis=0)
    constant = deviation <= 1e-12 * np.abs(x).max(axis=0)
    return np.where(constant, 1.0, deviation)


def shortened(x: Array) -> tuple[Array, Array]:
    """(N, D) -> the same rows in as few coordinates as hold them, (N, R), and the axes (D, R).

    The best weights are sums of rows: whatever stands at right angles to all rows changes no logit
    and costs penalty. So 12,288 pixels of 90 pictures are a problem in 90 numbers, with exactly the
    same solution, since a rotation changes no length.
    """
    n, d = x.shape
    if d <= n:
        return x, np.eye(d)
    axes, rows = np.linalg.qr(x.T)  # (D, N), (N, N): x.T = axes @ rows
    return rows.T, axes


def loss_and_gradient(
    parameters: Array, x: Array, targets: Array, classes: int, l2: float
) -> tuple[float, Array]:
    """The mean cross-entropy + l2 / 2 |weight|^2 of x (N, D), and its gradient.

    parameters, gradient: weight (D, K), then bias (K,), as one vector. targets: (N,) integers.
    """
    weight, bias = split(parameters, x.shape[1], classes)
    logits = x @ weight + bias  # (N, K)
    entropy, cache = cross_entropy(logits, targets)
    loss = float(entropy) + 0.5 * l2 * float((weight * weight).sum())
    dlogits = cross_entropy_backward(np.ones(()), cache)  # (N, K)
    # logits = x @ weight + bias, and the penalty's own gradient
    dweight = x.T @ dlogits + l2 * weight  # (D, K)
    return loss, np.concatenate([dweight.ravel(), dlogits.sum(axis=0)])


def split(parameters: Array, d: int, classes: int) -> tuple[Array, Array]:
    """((D + 1) K,) -> weight (D, K), bias (K,)."""
    return parameters[: d * classes].reshape(d, classes), parameters[d * classes :]


def solve(x: Array, targets: Array, classes: int, l2: float) -> tuple[Array, Array]:
    """The best weight (D, K) and bias (K,) for standardised features (N, D)."""
    d = x.shape[1]
    objective = partial(loss_and_gradient, x=x, targets=targets, classes=classes, l2=l2)
    return split(minimise(objective, np.zeros((d + 1) * classes)), d, classes)


# ------------------------------------------------------------------------ L-BFGS


def minimise(
    function: Objective,
    start: Array,
    tolerance: float = 1e-6,
    steps: int = 1000,
    memory: int = 10,
) -> Array:
    """The minimum of a convex function by L-BFGS: Newton's method, its Hessian learned on the way.

    Ends when no number of the gradient is larger than `tolerance`, after `steps` steps, or when
    rounding hides all descent. memory: how many steps the Hessian is learned from.
    Source: Nocedal and Wright 2006, algorithms 7.4, 7.5 and 3.1.
    """
    x = start
    value, gradient = function(x)
    history: deque[tuple[Array, Array]] = deque(maxlen=memory)  # (step, change of the gradient)
    for _ in range(steps):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = -inverse_hessian_times(gradient, history)
        found = line_search(function, x, value, gradient, direction)
        if found is None:
            break
        new_x, value, new_gradient = found
        step, change = new_x - x, new_gradient - gradient
        if step @ change > 0:  # always so for a convex function, but for rounding
            history.append((step, change))
        x, gradient = new_x, new_gradient
    return x


def inverse_hessian_times(gradient: Array, history: Sequence[tuple[Array, Array]]) -> Array:
    """The two loops of L-BFGS, algorithm 7.4: newest step first, then back again."""
    q = gradient
    shares = []
    for step, change in reversed(history):
        share = (step @ q) / (step @ change)
        q = q - share * change
        shares.append(share)
    if history:
        step, change = history[-1]
        q = q * ((step @ change) / (change @ change))  # the curvature of the last step, everywhere
    for (step, change), share in zip(history, reversed(shares), strict=True):
        q = q + (share - (change @ q) / (step @ change)) * step
    return q


def line_search(
    function: Objective, x: Array, value: float, gradient: Array, direction: Array
) -> tuple[Array, float, Array] | None:
    """Halve the step until it descends by a part of what the slope promises (Armijo's condition).

    Returns the new x, value and gradient, or None if no step descends.
    """
    slope = float(gradient @ direction)
    rounding = 1e-14 * abs(value)  # at the bottom the gradient still falls, the value only trembles
    size = 1.0
    for _ in range(40):
        new_x = x + size * direction
        new_value, new_gradient = function(new_x)
        if new_value <= value + 1e-4 * size * slope + rounding:
            return new_x, new_value, new_gradient
        size /= 2
    return None


# ------------------------------------------------------------------------ the report


@dataclass(frozen=True)
class Attribute:
    """Something that a scene of one thing has: the world to draw, how to read it, its classes."""

    name: str
    world: World
    read: Callable[[Scene], int]
    classes: int

    @property
    def chance(self) -> float:
        return 1 / self.classes


def cell_of(scene: Scene) -> int:
    """0 to 8: which of 3 x 3 cells holds the centre of the thing, row by row."""
    thing = scene.things[0]
    return 3 * int(3 * thing.y) + int(3 * thing.x)


def third_of(scene: Scene) -> int:
    return SIZES.index(size_of(scene.things[0]))


def background_of(scene: Scene) -> int:
    return BACKGROUNDS.index(scene.background)


ATTRIBUTES = (
    # All of one size: large things never lie in the corners, so that size would tell the place.
    Attribute("place", single_world(SEEN, radius=(0.2, 0.2)), cell_of, 9),
    Attribute("size", single_world(SEEN), third_of, len(SIZES)),
    Attribute("background", single_world(SEEN), background_of, len(BACKGROUNDS)),
)


@dataclass(frozen=True)
class ProbeRow:
    """accuracy: the mean over `draws` draws of `shots` examples a class; deviation: over draws.

    features: "embedding", "pixels" or "small pixels". With one draw the deviation is 0.
    """

    attribute: str
    features: str
    shots: int
    accuracy: float
    deviation: float
    draws: int
    chance: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Examples:
    """labels: (N,). features: name -> (N, D)."""

    labels: Array
    features: dict[str, Array]


def probe_report(pipeline: Pipeline, count: int = 100, seed: int = PROBE_SEED) -> list[ProbeRow]:
    """Probe embeddings and pixels for each of ATTRIBUTES.

    count: examples of each class to train on at most, and as many to test; half as many to
    validate. Fewer are drawn from them: SHOTS below count, DRAWS times each. seed: of the scenes.
    Raises ValueError naming the argument.
    """
    check_count(count, 2)
    rows = []
    for attribute in ATTRIBUTES:
        train, test, validation = (
            make_examples(pipeline, attribute, n, seed + split_number)
            for split_number, n in enumerate((count, count, max(1, count // 2)))
        )
        for features in train.features:
            for shots in [n for n in SHOTS if n < count] + [count]:
                scores = [
                    score_draw(train, validation, test, features, shots, [seed, shots, draw])
                    for draw in range(DRAWS if shots < count else 1)
                ]
                rows.append(make_row(attribute, features, shots, scores))
    return rows


def make_row(attribute: Attribute, features: str, shots: int, scores: list[float]) -> ProbeRow:
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    mean = float(np.mean(scores))
    return ProbeRow(attribute.name, features, shots, mean, deviation, len(scores), attribute.chance)


def make_examples(pipeline: Pipeline, attribute: Attribute, count: int, seed: int) -> Examples:
    """`count` examples of each class, with all kinds of features."""
    scenes = balanced_scenes(attribute, count, seed)
    pixels = np.stack([draw_array(scene) for scene in scenes])  # (N, H, W, 3), uint8
    features = {
        "embedding": embed_scenes(pipeline, scenes),  # (N, E)
        "pixels": pixels.reshape(len(scenes), -1),  # (N, 12288)
        "small pixels": averaged_down(pixels, 16).reshape(len(scenes), -1),  # (N, 768)
    }
    return Examples(np.array([attribute.read(scene) for scene in scenes]), features)


def balanced_scenes(attribute: Attribute, count: int, seed: int) -> list[Scene]:
    """The first `count` scenes of each class of a seed, in their order.

    Raises ValueError naming the classes that hardly ever come.
    """
    missing = dict.fromkeys(range(attribute.classes), count)
    scenes: list[Scene] = []
    for number in range(RAREST * attribute.classes * count):
        scene = make_scene(attribute.world, seed, number)
        label = attribute.read(scene)
        if missing[label]:
            missing[label] -= 1
            scenes.append(scene)
            if not any(missing.values()):
                return scenes
    rare = [label for label, wanted in missing.items() if wanted]
    raise ValueError(f"attribute: {attribute.name} is hardly ever one of {rare}, expected all")


def averaged_down(pixels: Array, side: int) -> Array:
    """(N, H, H, 3) -> (N, side, side, 3), each number the mean of a block."""
    n, height, width, channels = pixels.shape
    blocks = pixels.reshape(n, side, height // side, side, width // side, channels)
    return blocks.mean(axis=(2, 4))


def score_draw(
    train: Examples,
    validation: Examples,
    test: Examples,
    features: str,
    shots: int,
    seed: Sequence[int],
) -> float:
    """Fit on `shots` examples of each class, chosen by the seed, and score on the test examples."""
    chosen = choose_examples(train.labels, shots, np.random.default_rng(seed))
    fitted = probe(
        train.features[features][chosen],
        train.labels[chosen],
        validation.features[features],
        validation.labels,
    )
    return fitted.score(test.features[features], test.labels)


def choose_examples(labels: Array, shots: int, rng: np.random.Generator) -> Array:
    """The places of `shots` examples of each class, different ones: (classes * shots,)."""
    own = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.permutation(places)[:shots] for places in own])


def as_text(rows: Sequence[ProbeRow]) -> str:
    """The rows as a table for a terminal."""
    return text_table(*table_of(rows))


def as_markdown(rows: Sequence[ProbeRow]) -> str:
    """The rows as a table for a model card."""
    return markdown_table(*table_of(rows))


def table_of(rows: Sequence[ProbeRow]) -> Table:
    """A line for each attribute and kind of features, a column for each number of examples."""
    shots = list(dict.fromkeys(row.shots for row in rows))
    lines: dict[tuple[str, str], dict[int, str]] = {}
    chance = {row.attribute: row.chance for row in rows}
    for row in rows:
        text = f"{row.accuracy:.1%}" + (f" ± {row.deviation:.1%}" if row.draws > 1 else "")
        lines.setdefault((row.attribute, row.features), {})[row.shots] = text
    headings = ["probed for", "from", *(str(n) for n in shots), "chance"]
    return headings, [
        [attribute, features, *(cells.get(n, "") for n in shots), f"{chance[attribute]:.1%}"]
        for (attribute, features), cells in lines.items()
    ]
