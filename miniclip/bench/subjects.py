"""What is timed of miniclip: the modules on each backend, and the inference plan; the ceiling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from miniclip.bench.inputs import living_state
from miniclip.bench.measure import Subject
from miniclip.checkpoints import hub
from miniclip.checkpoints.shipped import NAMES as SHIPPED
from miniclip.models import CLIP, OPENAI_CONFIGS, CLIPConfig
from miniclip.ops.array import Array
from miniclip.pipeline import Pipeline, load

OURS = ("plan", "numba", "numpy")  # the first of those that are measured is "ours" in ratios
CEILING = "matmul"
CEILING_SIDE = 2048
CEILING_FLOPS = 2 * CEILING_SIDE**3


def check_model(name: str) -> None:
    """Raise ValueError for what is no model on this machine: nothing is downloaded."""
    if hub.is_local(name):
        hub.local_path(name)
    elif name not in OPENAI_CONFIGS and name not in SHIPPED:
        names = ", ".join([*OPENAI_CONFIGS, *SHIPPED])
        raise ValueError(
            f"models: got {name!r}, expected one of {names}, a folder or a .safetensors file"
        )


def load_weights(
    name: str, activation: str | None = None
) -> tuple[CLIPConfig, dict[str, Array], str]:
    """Configuration, weights, and what they are: random ones for the originals' names."""
    check_model(name)
    if name in OPENAI_CONFIGS:
        return OPENAI_CONFIGS[name], living_state(OPENAI_CONFIGS[name]), "random"
    network = load(name, "numpy", activation=activation).network
    return network.config, network.state_dict(), "shipped" if name in SHIPPED else "from disk"


def make_pipeline(config: CLIPConfig, state: dict[str, Array], backend: str) -> Pipeline:
    """A pipeline with these weights; the arrays are shared, not copied."""
    network = CLIP(config, seed=None)
    network.load_state_dict(state)
    return Pipeline(network.to(backend), name="bench")


def our_subjects(
    names: Sequence[str], pipelines: dict[str, Pipeline], tower: str, x: Array
) -> list[Subject]:
    """The modules of a backend, or `encode_*`, which runs the plan, for each of the names.

    A plan is left out where the tower has none. ValueError if nothing is left.
    """
    subjects = []
    for name in names:
        if name != "plan":
            subjects.append(module_subject(name, pipelines[name], tower, x))
        elif has_plan(pipelines["numba"], tower):
            subjects.append(plan_subject(pipelines["numba"], tower, x))
    if not subjects:
        raise ValueError(f"ours: got plan alone, but the {tower} tower of this model has none")
    return subjects


def has_plan(pipeline: Pipeline, tower: str) -> bool:
    """Whether `encode_*` runs a plan rather than the modules."""
    plan = pipeline.plan
    return plan is not None and plan.why_not(tower) is None


def module_subject(name: str, pipeline: Pipeline, tower: str, x: Array) -> Subject:
    network = pipeline.network
    module = network.visual if tower == "image" else network.text
    return Subject(name, lambda: module(x))


def plan_subject(pipeline: Pipeline, tower: str, x: Array) -> Subject:
    encode = pipeline.encode_image if tower == "image" else pipeline.encode_text
    return Subject("plan", lambda: encode(x, progress=False))


def ceiling_subject() -> Subject:
    """The largest product that BLAS is asked for here: what the machine gives at best."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((CEILING_SIDE, CEILING_SIDE), np.float32)
    b, out = a.T.copy(), np.empty_like(a)
    return Subject(CEILING, lambda: np.matmul(a, b, out=out))
