"""Training, inputs and the drawn world work where Numba cannot be installed."""

import subprocess
import sys

import pytest

BLOCKED = """
import sys

class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotHere())
"""

IMPORTS = """
import importlib, pkgutil
import miniclip
for room in ("training", "inputs", "world"):
    package = importlib.import_module(f"miniclip.{room}")
    for file in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"miniclip.{room}.{file.name}")
        print(f"{room}.{file.name}")
"""

STEPS = """
from pathlib import Path
import numpy as np
import miniclip
from miniclip import backends
from miniclip.inputs.bpe import train_merges
from miniclip.training.data import SceneData
from miniclip.training.loop import Trainer
from miniclip.training.recipe import Recipe

assert "numba" not in backends.available()
transform = miniclip.Transform(size=32)
data = SceneData(transform, 16, size=32)
merges = train_merges([data.caption(i, 0) for i in range(16)], 530)
words = miniclip.Tokenizer(merges, context_length=40)
text = miniclip.TextConfig(40, words.vocab_size, 32, 1, 1)
network = miniclip.CLIP(miniclip.CLIPConfig(16, miniclip.VisionConfig(32, 1, 32, 1, 8), text))
before = network.visual.proj.data.copy()
recipe = Recipe(steps=2, batch=8, learning_rate=1e-3)
trainer = Trainer(network, data, words, recipe, Path(sys.argv[1]), progress=False)
trainer.run()
assert np.isfinite(network.visual.proj.data).all() and (network.visual.proj.data != before).any()
print("trained", trainer.step)
"""


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.parametrize("name", ["numba", "llvmlite.binding", "miniclip.cpu.jit"])
def test_numba_is_blocked(name):
    """The control: what needs Numba fails under the block, and nowhere else."""
    blocked = run(f"{BLOCKED}\nimport {name}")
    assert "ModuleNotFoundError: No module named" in blocked.stderr
    assert run(f"import {name}").returncode == 0


def test_every_file_of_these_rooms_imports():
    blocked = run(BLOCKED + IMPORTS)
    assert blocked.returncode == 0, blocked.stderr
    assert {"training.loop", "inputs.tokenizer", "world.scenes"} <= set(blocked.stdout.split())


def test_a_network_trains_on_numpy(tmp_path):
    """With checkpoint, log and plot."""
    blocked = run(BLOCKED + STEPS, tmp_path / "run")
    assert blocked.returncode == 0, blocked.stderr
    assert blocked.stdout == "trained 2\n"
    names = {"checkpoint.safetensors", "log.jsonl", "loss.png"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
