"""What all kernels share: a division by zero gives infinity, as in NumPy, and ends no loop."""

import numpy as np
import pytest

from miniclip.cpu.jit import entry_kernel, kernel


@pytest.mark.parametrize("decorator", [kernel, entry_kernel], ids=["kernel", "entry_kernel"])
def test_a_division_by_zero_gives_infinity(decorator):
    @decorator
    def divide(x, y, z):
        for i in range(x.shape[0]):
            z[i] = x[i] / y[i]

    z = np.empty(3)
    divide(np.array([1.0, 6.0, -1.0]), np.array([0.0, 3.0, 0.0]), z)
    np.testing.assert_array_equal(z, [np.inf, 2.0, -np.inf])
