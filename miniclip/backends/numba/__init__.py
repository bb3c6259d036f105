"""The Numba backend: the textbook, with compiled loops on all CPU cores where they are faster.

Its ops are in linear.py, rows.py (activations, softmax, LayerNorm, embeddings, the optimiser's
step), attention.py, conv.py, maps.py (BatchNorm and pooling) and losses.py, their loops in the
files called ..._kernels.py. What is inherited costs the same in either language.

One team of threads does everything (cpu/team.py, cpu/share.py), matrix products too
(cpu/products.py): a BLAS library would bring threads of its own, which go on looking for work for
a while after each product and take the cores from the loops that follow. The first call of an op
compiles its loop for that dtype and keeps it on disk (cpu/cache.py).
"""

from __future__ import annotations

from miniclip.backends.numpy import *  # noqa: F403 (a backend is the textbook's names)

# isort: split
# after the textbook, because these take the places of the textbook's
from numba import config

from miniclip.backends.numba.attention import *  # noqa: F403
from miniclip.backends.numba.conv import *  # noqa: F403
from miniclip.backends.numba.linear import *  # noqa: F403
from miniclip.backends.numba.losses import *  # noqa: F403
from miniclip.backends.numba.maps import *  # noqa: F403
from miniclip.backends.numba.rows import *  # noqa: F403

name = "numba"
ENGINE = "miniclip.engine.plan"  # by its name: engines are built on backends


def check_device() -> None:  # type: ignore[no-redef]
    """Numba runs everywhere NumPy does; where it is missing, importing this module says so.

    Raises RuntimeError where Numba is told not to compile.
    """
    if getattr(config, "DISABLE_JIT", 0):
        raise RuntimeError(
            "the numba backend: NUMBA_DISABLE_JIT is set, expected it unset (its kernels only run "
            "compiled; to step through the ops take the numpy backend)"
        )
