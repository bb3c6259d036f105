"""The CPU engine: the same embeddings as by the modules, whatever the sizes, chunks and threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from engine_checks import (
    CONFIGS,
    check_antialias,
    check_several_chunks,
    check_short_texts,
    check_sizes,
    check_towers,
    close,
    inputs_of,
    network_of,
    pictures,
    state_of,
    texts,
    usual_size,
)

import miniclip
from miniclip.engine.cpu import packing, program
from miniclip.engine.plan import Plan
from miniclip.pipeline import Pipeline

RESNETS = [name for name in CONFIGS if name.startswith("resnet")]


def pipeline_of(name, backend="numba"):
    return Pipeline(network_of(miniclip, CONFIGS[name], backend))


# ---------------------------------------------------------------- against the modules


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_are_the_modules(name, threads):
    for members, count in ((1, 7), (2, 2), (3, 3)):
        threads(members)
        check_towers(miniclip, name, count)


@pytest.mark.parametrize("name", RESNETS)
def test_variances_as_small_as_eps(name):
    check_towers(miniclip, name, 2, small_variances=True)


@pytest.mark.parametrize("name", ["vit", "narrow", "one layer"])
def test_texts_shorter_than_the_context(name):
    check_short_texts(miniclip, name)


def test_a_text_that_is_only_its_end(threads):
    for members in (1, 3):
        threads(members)
        network = network_of(miniclip, CONFIGS["narrow"])
        ids = np.full((1, 1), CONFIGS["narrow"].text.end_id)
        close("end", Plan(network).of("text")(ids), CONFIGS["narrow"], "text", ids)


def test_other_integers_and_layouts():
    """Ids of any integer dtype, pictures in any memory layout, weights too."""
    network = network_of(miniclip, CONFIGS["vit"])
    plan = Plan(network)
    ids, images = texts(CONFIGS["vit"].text, 3), pictures(3, 32, 32)
    text, image = plan.of("text")(ids), plan.of("image")(images)
    for dtype in (np.int32, np.uint8, np.uint64):
        assert np.array_equal(plan.of("text")(ids.astype(dtype)), text)
    assert np.array_equal(plan.of("text")(np.asfortranarray(ids)), text)
    for view in (np.asfortranarray(images), images[:, ::-1].copy()[:, ::-1]):
        assert np.array_equal(plan.of("image")(view), image)
    for _, parameter in network.named_parameters():
        parameter.data = np.asfortranarray(parameter.data)
        parameter.data.flags.writeable = False
    assert np.array_equal(plan.of("text")(ids), text)
    assert np.array_equal(plan.of("image")(images), image)


VIT_SIZES = [(16, 16), (48, 48), (24, 40), (8, 8), (35, 61)]
RESNET_SIZES = [(32, 32), (96, 96), (96, 64), (33, 71), (40, 150)]


@pytest.mark.parametrize(
    ("name", "sizes"), [("vit", VIT_SIZES), ("narrow", VIT_SIZES[:3]), ("resnet", RESNET_SIZES)]
)
def test_other_resolutions(name, sizes):
    check_sizes(miniclip, name, sizes)


def test_the_way_positions_are_resized_may_change():
    check_antialias(miniclip)


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize("name", ["narrow", "long", "resnet", "resnet of width 12"])
def test_chunks_give_the_bits_of_one_run(name, monkeypatch):
    check_several_chunks(miniclip, name, monkeypatch)


@pytest.mark.parametrize("name", ["vit", "narrow", "long", "resnet", "resnet with a plain mean"])
def test_bits_depend_on_nothing_but_the_input(name, threads):
    """One team member or three, one input alone or among others: the same bits.

    Every number is summed in an order that the sizes of the model decide, not those of the run.
    """
    plan = Plan(network_of(miniclip, CONFIGS[name]))
    for kind, x in inputs_of(CONFIGS[name], 7).items():
        threads(1)
        expected = plan.of(kind)(x)
        for members in (1, 2, 3):
            threads(members)
            assert np.array_equal(plan.of(kind)(x), expected), f"{kind}, {members} members"
            alone = [plan.of(kind)(x[i : i + 1]) for i in range(7)]
            assert np.array_equal(np.concatenate(alone), expected), f"{kind}, {members} members"
            parts = [plan.of(kind)(part) for part in (x[:2], x[2:5], x[5:])]
            assert np.array_equal(np.concatenate(parts), expected), f"{kind}, {members} members"


@pytest.mark.parametrize("name", ["narrow", "resnet"])
@pytest.mark.parametrize("members", [1, 2])
def test_eight_threads_at_once(name, members, threads):
    """Callers stand in line, each gets the bits of its own input; sizes change meanwhile."""
    threads(members)
    pipeline = pipeline_of(name)
    pipeline.network.visual.interpolate = True
    side = CONFIGS[name].vision.image_resolution
    images = [pictures(1, side + 32 * (i % 2), side, seed=i) for i in range(8)]
    ids = texts(CONFIGS[name].text, 8)
    visual = [pipeline.plan.of("image")(x) for x in images]
    text = pipeline.encode_text(ids)
    start = threading.Barrier(8)

    def encode(i):
        start.wait(30)
        return [
            (pipeline.plan.of("image")(images[i]), pipeline.encode_text(ids[i : i + 1]))
            for _ in range(3)
        ]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(encode, range(8), timeout=120))
    for i, rounds in enumerate(results):
        for image, words in rounds:
            assert np.array_equal(image, visual[i])
            assert np.array_equal(words[0], text[i])


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_is_read_before_it_is_written(name, monkeypatch, threads):
    """Buffers full of NaN, in which padding stays NaN, give the same bits."""
    threads(2)
    network, inputs = network_of(miniclip, CONFIGS[name]), inputs_of(CONFIGS[name], 5)
    expected = {kind: Plan(network).of(kind)(x) for kind, x in inputs.items()}

    def poisoned(numbers):
        return np.full(numbers, np.nan, np.float32)

    monkeypatch.setattr(program, "aligned", poisoned)
    monkeypatch.setattr(packing, "aligned", poisoned)
    for kind, x in inputs.items():
        assert np.array_equal(Plan(network).of(kind)(x), expected[kind]), f"{name}, {kind}"


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_is_written_beyond_a_buffer(name, monkeypatch, threads):
    """Every buffer lies between numbers that are still there afterwards."""
    threads(3)
    kept, mark, edge = [], np.float32(1234.5), 4096

    def guarded(numbers):
        room = np.full(numbers + 2 * edge, mark, np.float32)
        kept.append(room)
        return room[edge : edge + numbers]

    monkeypatch.setattr(program, "aligned", guarded)
    monkeypatch.setattr(packing, "aligned", guarded)
    network = network_of(miniclip, CONFIGS[name])
    plan = Plan(network)
    for count in (1, 2, 5):
        for kind, x in inputs_of(CONFIGS[name], count).items():
            close(f"{name}, {kind}", plan.of(kind)(x), CONFIGS[name], kind, x)
    assert len(kept) > 10
    for room in kept:
        assert (room[:edge] == mark).all(), "written before the beginning of a buffer"
        assert (room[-edge:] == mark).all(), "written behind the end of a buffer"


def kept_bytes(tower_plan, size):
    return sum(room.nbytes for room in tower_plan.program(size)._kept.values())


@pytest.mark.parametrize("name", ["narrow", "resnet of width 12"])
def test_buffers_do_not_grow_with_the_number_of_inputs(name, monkeypatch):
    monkeypatch.setattr("miniclip.engine.plan.CHUNK_BYTES", 4 << 20)
    config, plan = CONFIGS[name], Plan(network_of(miniclip, CONFIGS[name]))
    for kind, x in inputs_of(config, 40).items():
        tower, size = plan.of(kind), usual_size(config, kind)
        expected = tower(x)
        some = kept_bytes(tower, size)
        y = tower(np.concatenate([x] * 10))
        assert np.array_equal(y, np.concatenate([expected] * 10))
        assert kept_bytes(tower, size) <= max(some, 5 << 20)


def test_inputs_stay_and_outputs_are_new():
    """Read-only inputs work; an output is nobody's buffer."""
    pipeline = pipeline_of("vit")
    images, ids = pictures(2, 32, 32), texts(CONFIGS["vit"].text, 2)
    before = images.copy(), ids.copy()
    images.flags.writeable = ids.flags.writeable = False
    first = pipeline.encode_image(images), pipeline.encode_text(ids)
    kept = first[0].copy(), first[1].copy()
    for y in first:
        assert y.flags.owndata or y.base is None
        y *= 2  # must not reach anything of the plan's
    second = pipeline.encode_image(images), pipeline.encode_text(ids)
    for got, expected, doubled in zip(second, kept, first, strict=True):
        assert np.array_equal(got, expected)
        assert np.array_equal(doubled, 2 * expected)
    assert np.array_equal(images, before[0])
    assert np.array_equal(ids, before[1])
    state = {name: x.copy() for name, x in state_of(CONFIGS["vit"]).items()}
    assert all(np.array_equal(x, state[n]) for n, x in pipeline.network.state_dict().items())


# ---------------------------------------------------------------- errors


def message_of(call):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return caught.type, str(caught.value)


DAMAGED = {
    "vit": (
        "visual.conv1.weight",
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.ln_pre.bias",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "visual.transformer.resblocks.1.ln_2.weight",
        "visual.transformer.resblocks.1.mlp.c_fc.bias",
        "visual.transformer.resblocks.2.attn.in_proj_bias",
        "visual.transformer.resblocks.2.attn.in_proj_weight",
        "visual.proj",
    ),
    "resnet": (
        "visual.conv1.weight",
        "visual.bn2.running_var",
        "visual.conv3.weight",
        "visual.layer1.0.bn1.running_mean",
        "visual.layer2.0.downsample.0.weight",
        "visual.layer2.1.conv2.weight",
        "visual.layer3.0.bn3.bias",
        "visual.attnpool.positional_embedding",
        "visual.attnpool.q_proj.weight",
        "visual.attnpool.k_proj.bias",
        "visual.attnpool.v_proj.bias",
        "visual.attnpool.c_proj.weight",
    ),
}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in DAMAGED.items() for name in names]
)
def test_a_damaged_weight_is_named(kind, name, bad):
    """NaN and infinity come through folding, packing, ReLU and Winograd, without a warning."""
    pipeline = pipeline_of(kind)
    state = {n: x.copy() for n, x in pipeline.network.state_dict().items()}
    middle = state[name].size // 2  # of q, k and v it is the key
    state[name].reshape(-1)[middle] = bad if "running" not in name else np.nan
    pipeline.network.load_state_dict(state)
    x = inputs_of(CONFIGS[kind], 2)["image"]
    assert pipeline.plan.of("image") is not None
    with pytest.raises(ValueError, match=f"^image embedding is not finite: parameter {name} has 1"):
        pipeline.encode_image(x)


@pytest.mark.parametrize("name", ["text_projection", "ln_final.bias", "positional_embedding"])
def test_a_damaged_text_tower_is_named(name):
    pipeline = pipeline_of("vit")
    data = pipeline.network.state_dict()[name].copy()
    data.reshape(-1)[0] = np.nan
    pipeline.network.load_state_dict(pipeline.network.state_dict() | {name: data})
    with pytest.raises(ValueError, match=f"^text embedding is not finite: parameter {name} has 1"):
        pipeline.encode_text(texts(CONFIGS["vit"].text, 3))


@pytest.mark.parametrize("kind", ["vit", "resnet", "resnet with a plain mean"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_damaged_picture_is_refused(kind, bad):
    pipeline = pipeline_of(kind)
    x = pictures(3, *usual_size(CONFIGS[kind], "image"))
    good = pipeline.encode_image(x)
    damaged = x.copy()
    damaged[1, 2, 7, 5] = bad
    with pytest.raises(ValueError, match="images: got non-finite numbers, expected finite pixels"):
        pipeline.encode_image(damaged)
    y = pipeline.plan.of("image")(damaged)
    assert not np.isfinite(y[1]).any()
    assert np.array_equal(y[[0, 2]], good[[0, 2]])  # the neighbours are whole
    assert np.array_equal(pipeline.encode_image(x), good)  # and nothing stays behind


WRONG = [
    ("image", lambda x: x[0]),
    ("image", lambda x: x[:0]),
    ("image", lambda x: x[:, :2]),
    ("image", lambda x: x[:, :, :-1]),
    ("image", lambda x: x.astype(np.float64)),
    ("image", lambda x: x.astype(np.uint8)),
    ("image", lambda x: x.tolist()),
    ("text", lambda ids: ids[0]),
    ("text", lambda ids: ids[:0]),
    ("text", lambda ids: np.concatenate([ids, ids], axis=1)),
    ("text", lambda ids: ids.astype(np.float32)),
    ("text", lambda ids: ids - 21),
    ("text", lambda ids: ids + 40),
    ("text", lambda ids: np.zeros_like(ids)),  # no end
    ("text", lambda ids: ids.tolist()),
]


@pytest.mark.parametrize(("kind", "spoil"), WRONG)
def test_wrong_inputs_are_refused_as_by_the_towers(kind, spoil):
    config = CONFIGS["narrow"]
    network = network_of(miniclip, config)
    plan, tower = Plan(network), network.visual if kind == "image" else network.text
    x = inputs_of(config, 3)[kind]
    wrong = spoil(x)
    assert message_of(lambda: plan.of(kind)(wrong)) == message_of(lambda: tower(wrong))
    assert np.isfinite(plan.of(kind)(x)).all()


def test_too_small_pictures_are_refused():
    for name, least in (("vit", 8), ("resnet", 32)):
        network = network_of(miniclip, CONFIGS[name])
        network.visual.interpolate = True
        x = pictures(1, 64, least - 1)
        got = message_of(lambda n=network, x=x: Plan(n).of("image")(x))
        assert got == message_of(lambda n=network, x=x: n.visual(x))
        assert f"at least {least} x {least} pixels" in got[1]
