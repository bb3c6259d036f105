"""The engine for processors with narrower SIMD registers, compiled on this one.

A process of its own is told that the processor can do less; tiles, padding and panels then have
other sizes. Everything is compiled anew, into a cache of its own, which takes most of the time.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import llvmlite.binding as llvm
from llvmlite.binding.targets import FeatureMap

llvm.get_host_cpu_features = lambda: FeatureMap({features!r})
sys.path.insert(0, {tests!r})
import miniclip
from engine_checks import CONFIGS, check_towers
from miniclip.cpu.team import set_threads
from miniclip.cpu.simd import VECTOR_BYTES, VECTORS

set_threads(2)
for name in ("narrow", "resnet of width 12"):
    check_towers(miniclip, name, 3)
print(VECTOR_BYTES, VECTORS)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the features are those of x86"
)
@pytest.mark.parametrize(("features", "sizes"), [({"avx2": True}, "32 2"), ({}, "16 2")])
def test_other_widths(features, sizes, tmp_path):
    script = SCRIPT.format(features=features, tests=str(Path(__file__).parents[1] / "support"))
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "MINICLIP_CACHE_DIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[0] == sizes
