"""Wrong variants of a module: the variant is wrong, the real one is as it was."""

import dataclasses
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from miniclip import ops
from miniclip.check import Bug, planted, unchanged
from miniclip.inputs.preprocess import Transform
from miniclip.ops import norm

NO_WEIGHT = Bug("no weight", "layer_norm", "ops.norm", "dx_hat = dy * weight\n", "dx_hat = dy\n")
X, WEIGHT, BIAS = np.random.default_rng(0).standard_normal((3, 4, 4))


def test_the_variant_is_wrong_and_the_real_module_is_not():
    source = Path(norm.__file__).read_bytes()
    before = dict(vars(norm)), ops.layer_norm_backward
    wrong = planted(NO_WEIGHT)
    _, cache = wrong.layer_norm(X, WEIGHT[0], BIAS[0])
    right = ops.layer_norm_backward(X, cache)[0]
    assert np.abs(wrong.layer_norm_backward(X, cache)[0] - right).max() > 0.1
    assert (dict(vars(norm)), ops.layer_norm_backward) == before
    assert Path(norm.__file__).read_bytes() == source


def test_the_control_gives_the_same_bits():
    same = planted(unchanged("ops.norm", "layer_norm"))
    assert same.layer_norm is not ops.layer_norm
    for got, expected in zip(
        same.layer_norm(X, WEIGHT[0], BIAS[0])[0], ops.layer_norm(X, WEIGHT[0], BIAS[0])[0],
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(got, expected)
    assert (unchanged("ops.norm", "a").name, unchanged("ops.norm", "a").where) == ("nothing", "a")


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    """No module under the planted name, no file anywhere near, whether it goes well or not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = set(sys.modules)
    planted(NO_WEIGHT)
    with pytest.raises(SyntaxError):
        planted(dataclasses.replace(NO_WEIGHT, new="dx_hat = = dy\n"))
    with pytest.raises(ZeroDivisionError):
        planted(dataclasses.replace(NO_WEIGHT, old="import numpy as np\n", new="1 / 0\n"))
    assert set(sys.modules) == before
    assert list(tmp_path.iterdir()) == []


def test_dataclasses_and_a_package_are_planted():
    """Dataclasses look their own module up, and a package's source is in __init__.py."""
    variant = planted(unchanged("inputs.preprocess"))
    assert variant.Transform() == variant.Transform(size=224)
    assert variant.Transform is not Transform
    assert planted(unchanged("ops")).PAIRS == ops.PAIRS


def test_the_variant_has_the_future_of_its_own_source():
    """planting.py postpones annotations; a module that does not keeps them as objects."""
    head = '"""What every op shares'
    bug = Bug(
        "x", "", "ops.array", "from __future__ import annotations\n", "def f(x: 1 + 1): ...\n"
    )
    assert planted(unchanged("ops.array")).__doc__.startswith(head.strip('"'))
    assert planted(bug).f.__annotations__ == {"x": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old": "dx_hat = dz"}, "no weight: the old text occurs 0 times in ops.norm, expected o"),
        ({"old": "eps"}, r"no weight: the old text occurs \d\d+ times in ops.norm, expected once"),
        ({"module": "ops.norms"}, "module: got 'ops.norms', expected a module of miniclip such as"),
        ({"module": "ops/norm"}, "module: got 'ops/norm', expected a module of miniclip"),
        ({"module": ".ops.norm"}, "module: got '.ops.norm', expected a module of miniclip"),
        ({"module": ""}, "module: got '', expected a module of miniclip"),
        ({"module": "miniclip.ops.norm"}, "module: got 'miniclip.ops.norm', expected a module"),
        ({"module": "py"}, "module: got 'py', expected a module of miniclip"),
    ],
)
def test_what_cannot_be_planted(change, message):
    with pytest.raises(ValueError, match=message):
        planted(dataclasses.replace(NO_WEIGHT, **change))
    if "module" in change:
        with pytest.raises(ValueError, match=message):
            unchanged(change["module"])


def test_a_bug_is_data():
    """So that lists of them can be compared, and sent to the processes of a grader."""
    assert pickle.loads(pickle.dumps(NO_WEIGHT)) == NO_WEIGHT
    assert len({NO_WEIGHT, dataclasses.replace(NO_WEIGHT)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        NO_WEIGHT.old = ""
