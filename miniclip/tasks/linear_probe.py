"""A linear probe: logistic regression on features that stay as they are.

Source: CLIP section 3.2 and appendix A.3 (L-BFGS, at most 1,000 steps). Unlike there, features are
standardised.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from miniclip.ops import cross_entropy, cross_entropy_backward
from miniclip.ops.array import Array
from miniclip.tasks.lbfgs import minimise


class LinearProbe:
    """Scores of classes, features @ weight_ + bias_, of which the greatest wins.

    Multinomial logistic regression: `fit` minimises the mean cross-entropy + l2 / 2 times the
    squared weights, for features that are standardised (mean 0, deviation 1 over the examples);
    the bias has no penalty. The result for the same input is always the same: the objective is
    convex and the start is zero. Methods and attributes are as in scikit-learn.

    l2: strength of the penalty, positive.
    After `fit`: weight_ (D, K), bias_ (K,), for features as they come; classes_, the K labels in
    their order.
    """

    weight_: Array
    bias_: Array
    classes_: Array

    def __init__(self, l2: float = 1.0) -> None:
        self.l2 = l2

    def __repr__(self) -> str:
        return f"LinearProbe(l2={self.l2})"

    def fit(self, features: Array, labels: Any) -> LinearProbe:
        """Learn from examples; returns itself.

        features: (N, D) numbers. labels: N integers or strings, two or more different ones.
        Raises ValueError naming the argument.
        """
        return self.fit_to(Standardised.of(features, labels))

    def fit_to(self, examples: Standardised) -> LinearProbe:
        """The same with examples that are prepared already, for several probes at once."""
        short, targets, classes = examples.short, examples.targets, examples.classes
        small, bias = solve(short, targets, len(classes), check_l2(self.l2))  # (R, K), (K,)
        self.weight_ = (examples.basis @ small) / examples.deviation[:, None]  # (D, K)
        self.bias_ = bias - examples.mean @ self.weight_
        self.classes_ = classes
        return self

    def decision_function(self, features: Array) -> Array:
        """(N, D) -> scores (N, K): logits, whose softmax are probabilities."""
        if not hasattr(self, "weight_"):
            raise ValueError("LinearProbe: nothing is learned yet, expected fit before this call")
        x = check_features(features)
        if x.shape[1] != self.weight_.shape[0]:
            raise ValueError(
                f"features: got {x.shape[1]} numbers a row, expected {self.weight_.shape[0]} as in "
                "fit"
            )
        return x @ self.weight_ + self.bias_

    def predict(self, features: Array) -> Array:
        """(N, D) -> N labels."""
        scores = self.decision_function(features)
        return self.classes_[scores.argmax(axis=1)]

    def score(self, features: Array, labels: Any) -> float:
        """The share of rightly predicted labels."""
        x, y = check_examples(features, labels)
        return float((self.predict(x) == y).mean())


@dataclass(frozen=True, eq=False)
class Standardised:
    """What probes of any l2 need of N examples: features of mean 0 and deviation 1.

    short, basis: the standardised features, (N, R), and the axes (D, R) that they are along.
    mean, deviation: (D,), of the features. classes: K labels. targets: (N,), which of them.
    """

    short: Array
    basis: Array
    mean: Array
    deviation: Array
    classes: Array
    targets: Array

    @classmethod
    def of(cls, features: Array, labels: Any) -> Standardised:
        """Checked and standardised. Raises ValueError naming the argument."""
        x, y = check_examples(features, labels)
        classes, targets = np.unique(y, return_inverse=True)  # (K,), (N,)
        if len(classes) < 2:
            raise ValueError(f"labels: got only {classes[0]!r}, expected two or more classes")
        mean, deviation = x.mean(axis=0), spread(x)  # (D,)
        short, basis = shortened((x - mean) / deviation)  # (N, R), (D, R)
        return cls(short, basis, mean, deviation, classes, targets)


# ------------------------------------------------------------------------ checks


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


# ------------------------------------------------------------------------ the fit


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
