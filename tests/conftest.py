"""Settings that every test shares."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

# The same examples every time: a test that fails here fails for everyone. To look further than
# that, `pytest --hypothesis-profile=explore`.
settings.register_profile(
    "steady",
    derandomize=True,
    max_examples=60,
    deadline=None,  # first calls compile kernels: time is measured in benchmarks, not in tests
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", parent=settings.get_profile("steady"), derandomize=False, max_examples=1000
)
settings.load_profile("steady")

# Compiled kernels of the tests, planted ones among them, stay out of the user's cache.
os.environ.setdefault(
    "MINICLIP_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "miniclip")
)

# One worker of pytest-xdist for every core: more threads inside each would only get in the way.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    threadpool_limits(1, "blas")
    os.environ["OMP_NUM_THREADS"] = "1"  # the compiled plans ask for it when they are first used


@pytest.fixture
def threads():
    """How many threads the compiled plans use: `threads(2)`, for the length of one test."""
    from miniclip.cpu.team import set_threads

    yield set_threads
    set_threads(None)
