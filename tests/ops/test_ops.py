"""Every op, forward and backward, on every backend, in both dtypes, against PyTorch."""

import backends_here
import pytest
from cases import CASES, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from op_checks import check_against_torch, check_directions

from miniclip import backends, ops


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", backends_here.NAMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op)
def test_op_equals_pytorch(case, name, dtype):
    backend = backends_here.load(name)

    @given(samples(case))
    def run(sample):
        check_against_torch(backend, case, dtype, sample)

    run()


@pytest.mark.parametrize("name", backends.available())
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op)
def test_gradient_is_the_slope(case, name):
    """The same without PyTorch, which could be wrong in the same way: differences in float64."""
    backend = backends_here.load(name)

    @given(st.data())
    @settings(max_examples=8)
    def run(data):
        check_directions(backend, case, case.draw(data.draw))

    if name == "cupy":
        pytest.skip("directions are drawn with NumPy; the test above covers CuPy")
    run()


def test_every_op_is_tested():
    assert sorted(case.op for case in CASES) == sorted(ops.PAIRS)
