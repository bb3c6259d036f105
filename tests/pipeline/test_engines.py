"""Which inference plans a pipeline uses: those of its backend, which load when they are needed."""

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from pipelines import make_pipeline

from miniclip import backends
from miniclip.pipeline.engines import InferencePlan

PIXELS = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)


def backend(**more):
    """The textbook as a backend of another name."""
    known = backends.get("numpy")
    members = {name: getattr(known, name) for name in dir(known) if not name.startswith("_")}
    return SimpleNamespace(**{**members, "name": "other", **more})


class OtherPlan:
    """Plans of an engine that nobody knows: each embedding is twice that of the module."""

    def __init__(self, network):
        self.network, self.compiled = network, 0

    def of(self, kind):
        return (lambda x: 2 * self.network.visual(x)) if kind == "image" else None

    def why_not(self, kind):
        return None if kind == "image" else "texts are not doubled"

    def compile(self):
        self.compiled += 1

    def describe(self):
        return "doubled"


@pytest.fixture
def engine(monkeypatch):
    module = ModuleType("an_engine_of_ones_own")
    module.Plan = OtherPlan
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_the_backend_says_which_plans(engine):
    pipeline = make_pipeline()
    images, texts = pipeline.encode_image(PIXELS), pipeline.encode_text("a red circle")
    assert pipeline.plan is None
    pipeline.network.to(backend(ENGINE=engine))
    assert isinstance(pipeline.plan, OtherPlan)
    np.testing.assert_array_equal(pipeline.encode_image(PIXELS), 2 * images)
    np.testing.assert_array_equal(pipeline.encode_text("a red circle"), texts)  # by the module
    assert pipeline.compile() is pipeline.plan
    assert pipeline.plan.compiled == 1
    pipeline.to("numpy")
    assert pipeline.plan is None
    np.testing.assert_array_equal(pipeline.encode_image(PIXELS), images)


def test_a_plan_belongs_to_its_network_and_engine(engine, monkeypatch):
    pipeline = make_pipeline()
    pipeline.network.to(backend(ENGINE=engine))
    plan = pipeline.plan
    assert pipeline.plan is plan
    pipeline.network = make_pipeline().network.to(backend(ENGINE=engine))
    assert pipeline.plan is not plan
    third = ModuleType("a_third_engine")
    third.Plan = type("ThirdPlan", (OtherPlan,), {})
    monkeypatch.setitem(sys.modules, third.__name__, third)
    pipeline.network.to(backend(ENGINE=third.__name__))
    assert isinstance(pipeline.plan, third.Plan)


@pytest.mark.parametrize("more", [{}, {"ENGINE": None}])
def test_a_backend_without_plans(more):
    pipeline = make_pipeline()
    other = backend(**more)
    if not more:
        del other.ENGINE  # a backend need not know that there are engines
    pipeline.network.to(other)
    assert pipeline.plan is None
    assert pipeline.encode_image(PIXELS).shape == (2, 16)
    told = "compile: the model is on the other backend, expected one that has inference plans"
    with pytest.raises(ValueError, match=told):
        pipeline.compile()


def test_numbas_plans_offer_what_a_pipeline_asks_for():
    import importlib

    kind = importlib.import_module(backends.get("numba").ENGINE).Plan
    asked = [name for name in vars(InferencePlan) if not name.startswith("_")]
    assert sorted(asked) == ["compile", "describe", "of", "why_not"]
    assert all(callable(getattr(kind, name)) for name in asked)
    pipeline = make_pipeline(backend="numba")
    assert type(pipeline.plan) is kind
    assert pipeline.plan.network is pipeline.network


def test_on_numpy_nothing_is_compiled_nor_imported():
    """Loading and encoding on the textbook's backend works where Numba cannot be installed."""
    code = (
        "import sys; sys.modules['numba'] = None\n"  # importing it is an error
        "import numpy as np, miniclip\n"
        "model = miniclip.load('mini-vit', backend='numpy')\n"
        "print(model.similarity(np.zeros((9, 9, 3), np.uint8), ['a red circle']).logit.shape)\n"
        "print(miniclip.load('mini-vit').network.ops.name)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == ["(1, 1)", "numpy"], run.stderr
