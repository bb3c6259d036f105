"""When a plan is used, when the modules are, and when a plan is made again."""

import copy
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
from engine_checks import (
    CONFIGS,
    check_new_weights_are_seen,
    network_of,
    new_statistics,
    pictures,
    relative,
    scale_parameters,
    texts,
    tower_of,
)

import miniclip
from miniclip.engine.plan import Plan
from miniclip.models import CLIP
from miniclip.models.text import TextTransformer
from miniclip.models.vit import VisionTransformer
from miniclip.nn import layers
from miniclip.nn.module import Module, Parameter, Sequential
from miniclip.pipeline import Pipeline
from miniclip.training.optimizer import AdamW

IMAGES = pictures(2, 32, 32)
IDS = texts(CONFIGS["vit"].text, 2)


@pytest.fixture
def pipeline():
    return pipeline_of("vit")


def pipeline_of(name, **choices):
    return Pipeline(network_of(miniclip, CONFIGS[name], **choices))


@pytest.fixture
def calls(monkeypatch):
    """Names of the towers whose modules ran. The classes are changed, which plans do not notice."""
    names = []
    for kind, tower in (("image", VisionTransformer), ("text", TextTransformer)):
        forward = tower.forward

        def counted(self, x, forward=forward, kind=kind):
            names.append(kind)
            return forward(self, x)

        monkeypatch.setattr(tower, "forward", counted)
    return names


def encode(pipeline, images=IMAGES):
    return pipeline.encode_image(images), pipeline.encode_text(IDS)


def by_modules(pipeline, images=IMAGES):
    return pipeline.network.visual(images), pipeline.network.text(IDS)


def same(got, expected):
    return all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


# ---------------------------------------------------------------- who runs


def test_a_plan_runs_instead_of_the_modules(pipeline, calls):
    first = encode(pipeline)
    assert calls == []
    for got, expected in zip(first, by_modules(pipeline), strict=True):
        assert relative(got, expected) < 1e-5
    assert same(encode(pipeline), first)


def test_what_describe_says(pipeline):
    lines = pipeline.plan.describe().splitlines()
    assert repr(pipeline.plan) == pipeline.plan.describe()
    assert lines[0].startswith("image tower: ")
    assert "steps for 32 x 32 pixels" in lines[0]
    assert sum("attention, 2 heads" in line for line in lines) == 2  # and one with one query
    (text,) = (line for line in lines if line.startswith("text tower: "))
    assert "steps for 9 tokens" in text
    assert "LayerNorm" in pipeline.plan.describe()


def test_one_tower_alone():
    """A network with an image tower only: its plan says nothing of texts."""
    pipeline = pipeline_of("resnet of width 12")
    assert "text" not in pipeline.compile().describe()
    assert "tiles of 4 x 4" in pipeline.plan.describe()
    with pytest.raises(ValueError, match="this model has no text tower"):
        pipeline.encode_text(IDS)
    config = CONFIGS["vit"]
    network = CLIP(type(config)(config.embed_dim, None, config.text), seed=1).to("numba")
    assert Pipeline(network).plan.describe().startswith("text tower: ")


def test_numpy_has_no_plan(pipeline, calls):
    pipeline.to("numpy")
    assert pipeline.plan is None
    with pytest.raises(ValueError, match="compile: the model is on the numpy backend, expected"):
        pipeline.compile()
    encode(pipeline)
    assert calls == ["image", "text"]
    pipeline.to("numba")
    encode(pipeline)
    assert calls == ["image", "text"]
    assert pipeline.compile() is pipeline.plan


def test_float64_runs_by_the_modules(calls):
    pipeline = pipeline_of("vit", dtype="float64")
    got = encode(pipeline, IMAGES.astype(np.float64))
    assert calls == ["image", "text"]
    assert got[0].dtype == np.float64
    assert same(got, by_modules(pipeline, IMAGES.astype(np.float64)))
    told = pipeline.plan.describe().splitlines()
    assert len(told) == 2
    assert all("computes in float64, plans do in float32" in line for line in told)
    pipeline.to(dtype="float32")
    calls.clear()
    encode(pipeline)
    assert calls == []


def test_batch_norm_in_training_runs_by_the_modules():
    pipeline, x = pipeline_of("resnet"), pictures(3, 64, 64)
    in_inference = pipeline.encode_image(x)
    pipeline.network.train()
    assert pipeline.plan.of("image") is None
    assert pipeline.plan.of("text") is not None  # it has no BatchNorm
    assert "image tower: by its modules, because bn1 (BatchNorm2d) is in training mode" in (
        pipeline.plan.describe()
    )
    in_training = pipeline.encode_image(x)
    assert relative(in_training, in_inference) > 0.01
    pipeline.network.eval()
    assert relative(pipeline.encode_image(x), pipeline.network.visual(x)) < 1e-5  # new statistics
    assert relative(pipeline.encode_image(x), in_inference) > 1e-4


def test_a_trace_sees_the_modules(pipeline, calls):
    """All of them, with the bits of modules alone; afterwards the plan runs again."""
    planned, expected = encode(pipeline), by_modules(pipeline)
    calls.clear()
    with miniclip.trace(pipeline.network) as trace:
        assert same(encode(pipeline), expected)
        assert (
            "because the tower (VisionTransformer) has a forward of its own: it is being tra"
            in (pipeline.plan.describe())
        )
    assert calls == ["image", "text"]
    names = {name for name, _ in pipeline.network.named_modules()} - {""}
    assert names <= set(trace)
    assert np.array_equal(trace["visual"], expected[0])
    assert same(encode(pipeline), planned)
    assert calls == ["image", "text"]


def test_a_trace_of_a_part_sees_it(pipeline):
    with miniclip.trace(pipeline.network.visual.transformer) as trace:
        pipeline.encode_image(IMAGES)
        assert pipeline.plan.of("text") is not None
    assert any(name.endswith("mlp.c_fc") for name in trace)
    assert pipeline.plan.of("image") is not None


@pytest.mark.parametrize(
    "part", [lambda n: n, lambda n: n.visual, lambda n: n.visual.transformer, lambda n: n.text]
)
def test_a_recording_records(pipeline, part, calls):
    """Of the network or a part of it: the passes are the modules', and can go backward."""
    planned, expected = encode(pipeline), by_modules(pipeline)
    recorded = part(pipeline.network)
    calls.clear()
    kinds = [
        kind for kind in ("image", "text")
        if set(tower_of(pipeline.network, kind).modules()) & set(recorded.modules())
    ]  # fmt: skip
    with recorded.record():
        got = encode(pipeline)
        assert calls == kinds
        for kind, now, then in zip(("image", "text"), got, expected, strict=True):
            assert np.array_equal(now, then) or kind not in kinds
        assert pipeline.plan.describe().count("is being recorded") == len(kinds)
        if recorded is tower_of(pipeline.network, "image"):
            assert np.isfinite(recorded.backward(np.ones_like(got[0]))).all()
    assert same(encode(pipeline), planned)
    assert calls == kinds


class OwnLayerNorm(layers.LayerNorm):
    def forward(self, x):
        return 2 * super().forward(x)


class Nothing(Module):
    def forward(self, x):
        return x


def on_numba(module, like=None):
    if like is not None:
        module.load_state_dict(like.state_dict())
    return module.to("numba")


def other_ln_post(network):
    network.visual.ln_post = on_numba(OwnLayerNorm(128), network.visual.ln_post)
    return "ln_post (OwnLayerNorm) is not a module that plans know"


def no_ln_pre(network):
    network.visual.ln_pre = on_numba(layers.Identity())
    return "ln_pre (Identity) is not a module that plans know in its place"


def unknown_block(network):
    network.visual.transformer.resblocks.add_child("1", on_numba(Nothing()))
    return "transformer.resblocks.1 (Nothing) is not a module that plans know"


def no_bias(network):
    network.visual.transformer.resblocks.children_["0"].mlp.children_["c_fc"].bias = None
    return "transformer.resblocks.0.mlp.c_fc (Linear) is not a module that plans know"


def causal_images(network):
    for block in network.visual.transformer.resblocks:
        block.attn.causal = True
    return "transformer.resblocks.0.attn (MultiheadAttention) is not a module that plans know"


def longer_mlp(network):
    mlp = network.visual.transformer.resblocks.children_["0"].mlp
    mlp.add_child("more", on_numba(layers.ReLU()))
    return "transformer.resblocks.0.mlp.more (ReLU) is not a module that plans know"


def forward_of_its_own(network):
    network.visual.ln_post.forward = lambda x: 2 * x
    return "ln_post (LayerNorm) has a forward of its own: it is being traced, or was changed"


def other_backend(network):
    network.visual.ln_post.to("numpy")
    return "ln_post (LayerNorm) is on the numpy backend, plans are for numba"


REPLACED = [
    other_ln_post, no_ln_pre, unknown_block, no_bias, causal_images, longer_mlp,
    forward_of_its_own, other_backend,
]  # fmt: skip


@pytest.mark.parametrize("replace", REPLACED)
def test_what_plans_do_not_know_runs_by_the_modules(pipeline, replace, calls):
    before = encode(pipeline)
    visual = pipeline.network.visual
    twin = copy.deepcopy(visual)
    reason = replace(pipeline.network)
    calls.clear()
    got = encode(pipeline)
    assert calls == ["image"]
    assert np.array_equal(got[0], visual(IMAGES))
    if replace is not other_backend:
        assert relative(got[0], before[0]) > 1e-3
    assert np.array_equal(got[1], before[1])
    assert f"image tower: by its modules, because {reason}" in pipeline.plan.describe()
    pipeline.network.add_child("visual", twin)  # as it was
    calls.clear()
    assert same(encode(pipeline), before)
    assert calls == []


def test_a_lost_relu_is_not_put_back():
    """A module that plans know, in a place where another one belongs."""
    pipeline, x = pipeline_of("resnet"), pictures(2, 64, 64)
    before = pipeline.encode_image(x)
    pipeline.network.visual.layer1.children_["0"].relu3 = on_numba(layers.Identity())
    after = pipeline.encode_image(x)
    assert np.array_equal(after, pipeline.network.visual(x))
    assert relative(after, before) > 1e-3


def test_another_activation_is_planned(pipeline):
    """GELU for QuickGELU: plans ask which one it is."""
    before = pipeline.encode_image(IMAGES)
    for block in pipeline.network.visual.transformer.resblocks:
        block.mlp.add_child("gelu", on_numba(layers.GELU()))
    assert pipeline.plan.of("image") is not None
    after = pipeline.encode_image(IMAGES)
    assert relative(after, before) > 1e-3
    assert relative(after, pipeline.network.visual(IMAGES)) < 1e-5


def test_fewer_blocks_are_planned(pipeline):
    del pipeline.network.visual.transformer.resblocks.children_["1"]
    assert pipeline.plan.of("image") is not None
    got = pipeline.encode_image(IMAGES)
    assert relative(got, pipeline.network.visual(IMAGES)) < 1e-5


# ---------------------------------------------------------------- out of date


def optimizer_step(network):
    optimizer = AdamW(network.ops, dict(network.named_parameters()))
    for _, parameter in network.named_parameters():
        parameter.grad = np.ones_like(parameter.data)
    optimizer.step(0.01)


def load_state(network):
    state = network.state_dict()
    network.load_state_dict({name: x + np.float32(0.01) for name, x in state.items()})


def assign_data(network):
    for tower in (network.visual, network.text):
        parameter = tower.transformer.resblocks.children_["1"].attn.in_proj_weight
        parameter.data = parameter.data[::-1].copy()


def assign_parameters(network):
    for tower in (network.visual, network.text):
        fc = tower.transformer.resblocks.children_["0"].mlp.children_["c_fc"]
        fc.bias = Parameter(fc.bias.data + np.float32(1))


def assign_modules(network):
    for tower in (network.visual, network.text):
        new = layers.LayerNorm(tower.ln_post.weight.data.size if tower is network.visual else 64)
        new.weight.data = new.weight.data + np.linspace(0, 1, new.weight.data.size, dtype="f4")
        name = "ln_post" if tower is network.visual else "ln_final"
        setattr(tower, name, new.to("numba"))


def move_and_back(network):
    network.to("numpy", "float64")
    for _, parameter in network.named_parameters():
        parameter.data *= 1.01
    network.to("numba", "float32")


def swap_blocks(network):
    for tower in (network.visual, network.text):
        blocks = tower.transformer.resblocks.children_
        blocks["0"], blocks["1"] = blocks["1"], blocks["0"]


CHANGES = [
    scale_parameters, optimizer_step, load_state, assign_data, assign_parameters, assign_modules,
    move_and_back, swap_blocks,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change):
    check_new_weights_are_seen(miniclip, change)


@pytest.mark.parametrize("change", [scale_parameters, load_state])
def test_a_change_of_a_resnet_is_noticed(change):
    check_new_weights_are_seen(miniclip, change, "resnet")


def test_running_statistics_are_noticed():
    check_new_weights_are_seen(miniclip, new_statistics, "resnet")


def test_nothing_changed_nothing_made_again(pipeline):
    made = {kind: pipeline.plan.of(kind) for kind in ("image", "text")}
    encode(pipeline)
    with pipeline.network.record():
        encode(pipeline)
    pipeline.network.zero_grad()
    pipeline.network.logit_scale.data = np.float32(2.0)  # belongs to neither tower
    pipeline.plan.describe()
    for kind, plan in made.items():
        assert pipeline.plan.of(kind) is plan
    scale_parameters(pipeline.network.visual)
    assert pipeline.plan.of("image") is not made["image"]
    assert pipeline.plan.of("text") is made["text"]


def test_writing_by_hand_needs_compile(pipeline):
    """Into the array of a parameter: documented, as nobody is told of it."""
    written = (pipeline.network.visual.proj, pipeline.network.text.text_projection)
    for parameter in written:
        parameter.data = parameter.data.copy()
    before = encode(pipeline)
    for parameter in written:
        parameter.data *= 2
    assert same(encode(pipeline), before)
    plan = pipeline.plan.of("image")
    assert pipeline.compile() is pipeline.plan
    assert pipeline.plan.of("image") is not plan
    assert same(encode(pipeline), [2 * y for y in before])


def test_another_network(pipeline):
    before, plan = encode(pipeline), pipeline.plan
    pipeline.network = network_of(miniclip, CONFIGS["vit"])
    scale_parameters(pipeline.network)
    assert pipeline.plan is not plan
    assert relative(encode(pipeline)[0], before[0]) > 1e-3
    assert relative(encode(pipeline)[0], pipeline.network.visual(IMAGES)) < 1e-5


def test_compile_makes_both_plans_at_once(pipeline, monkeypatch):
    made = count_made_plans(monkeypatch)
    pipeline.compile()
    assert made == ["VisionTransformer", "TextTransformer"]
    encode(pipeline)
    assert len(made) == 2


def count_made_plans(monkeypatch):
    from miniclip.engine import plan

    made, make = [], plan.TowerPlan.__init__

    def counted(self, tower):
        made.append(type(tower).__name__)
        make(self, tower)

    monkeypatch.setattr(plan.TowerPlan, "__init__", counted)
    return made


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_plans_of_their_own(pipeline, duplicate):
    before = encode(pipeline)
    twin = duplicate(pipeline)
    assert twin.plan is not pipeline.plan
    assert twin.plan.network is twin.network is not pipeline.network
    assert same(encode(twin), before)
    scale_parameters(twin.network)
    assert relative(encode(twin)[0], before[0]) > 1e-3
    assert same(encode(pipeline), before)
    with duplicated_plan(pipeline.plan, duplicate) as plan:
        assert np.array_equal(plan.of("image")(IMAGES), before[0])


@contextmanager
def duplicated_plan(plan, duplicate):
    """A copy of the plan alone brings a copy of its network."""
    twin = duplicate(plan)
    assert isinstance(twin, Plan)
    assert twin.network is not plan.network
    yield twin


def test_plans_are_not_in_the_pickle(pipeline):
    """Packed weights are made again: a pickle is no larger for them."""
    before = len(pickle.dumps(pipeline))
    pipeline.compile()
    encode(pipeline)
    assert len(pickle.dumps(pipeline)) < before + 2000


def test_a_sequential_by_hand_is_still_a_tower_part(pipeline):
    """The same modules in a new Sequential: a new plan, the same bits."""
    before = pipeline.encode_image(IMAGES)
    plan, transformer = pipeline.plan.of("image"), pipeline.network.visual.transformer
    transformer.resblocks = on_numba(Sequential(list(transformer.resblocks.children_.items())))
    assert pipeline.plan.of("image") is not plan
    assert np.array_equal(pipeline.encode_image(IMAGES), before)


def test_every_kind_of_input_goes_the_same_way(pipeline):
    """Pictures in their own sizes, through preprocessing, as arrays, and given unit length."""
    rng = np.random.default_rng(0)
    raw = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)]
    got = pipeline.encode_image(raw)
    assert np.array_equal(got, pipeline.encode_image(pipeline.preprocess(raw)))
    assert relative(got, pipeline.network.visual(pipeline.preprocess(raw))) < 1e-5
    unit = pipeline.encode_image(raw, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)


# A setting of every kind, in one module: what the plan reads from it, and what it takes from the
# configuration (with another one the modules have to do it).
CHANGES = {
    "vit": [
        ("visual.ln_pre", "eps", 0.3),
        ("visual.transformer.resblocks.1.ln_1", "eps", 0.3),
        ("visual.transformer.resblocks.1.ln_2", "eps", 0.3),
        ("visual.ln_post", "eps", 0.3),
        ("visual.transformer.resblocks.1.attn", "heads", 4),
        ("visual.transformer.resblocks.2.attn", "heads", 4),
        ("visual.transformer.resblocks.1.attn", "causal", True),
        ("transformer.resblocks.1.ln_2", "eps", 0.3),
        ("transformer.resblocks.1.attn", "heads", 2),
        ("transformer.resblocks.0.attn", "causal", False),
        ("ln_final", "eps", 0.3),
    ],
    "resnet": [
        ("visual.bn2", "eps", 0.3),
        ("visual.layer2.1.bn2", "eps", 0.3),
        ("visual.layer3.0.downsample.1", "eps", 0.3),
        ("visual.attnpool", "heads", 8),
    ],
    "resnet with a plain mean": [
        ("visual.avgpool", "kernel", 1),
        ("visual.conv1", "stride", 1),
        ("visual.conv2", "stride", 2),
        ("visual.conv3", "padding", 2),
        ("visual.layer2.0.conv2", "padding", 2),
    ],
}


@pytest.mark.parametrize(
    ("kind", "name", "setting", "value"),
    [(kind, *change) for kind, changes in CHANGES.items() for change in changes],
)
def test_a_changed_setting_is_noticed(kind, name, setting, value):
    """The next answer is the textbook's with the new setting, or the error that it gives there."""
    pipeline = pipeline_of(kind)
    size = pipeline.config.vision.image_resolution
    x = pictures(2, size, size)
    ids = None if pipeline.config.text is None else texts(pipeline.config.text, 2)
    textbook = network_of(miniclip, CONFIGS[kind], backend="numpy")
    before, after = ours_and_textbooks(pipeline, textbook, name, x, ids)
    assert relative(before, after) < 1e-5
    for network in (pipeline.network, textbook):
        module = dict(network.named_modules())[name]
        assert getattr(module, setting) != value
        setattr(module, setting, value)
    try:
        changed, expected = ours_and_textbooks(pipeline, textbook, name, x, ids)
    except ValueError:  # another map than its shortcut: refused by plans and modules alike
        with pytest.raises(ValueError, match=r".+"):
            pipeline.encode_image(x)
        return
    assert relative(expected, before) > 1e-3, "the setting changes nothing here"
    assert relative(changed, expected) < 1e-5


def ours_and_textbooks(pipeline, textbook, name, x, ids):
    if name.startswith("visual"):
        return pipeline.encode_image(x), textbook.visual(x)
    return pipeline.encode_text(ids), textbook.text(ids)
