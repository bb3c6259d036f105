"""The engine against the modules in float64: what the tests and the planted bugs share.

`check_*` take the package to test, so that the planted bugs go through the very same checks.
"""

import functools
import importlib
import threading
from dataclasses import replace

import numpy as np
from model_checks import RESNET, VIT, own_config
from original import living_state

from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig

FACTOR, FLOOR = 3, 1e-5  # of the float32 modules' own error; relative, in the L2 norm
ALIVE = 0.05  # two inputs give embeddings that differ by more than this

# Widths and head widths that are whole SIMD vectors on no processor (4, 8 or 16 numbers), an odd
# hidden width, patches that overlap and leave a margin, and an eps that is large enough to be seen.
NARROW = CLIPConfig(
    7,
    VisionConfig(
        30, 2, 21, 3, patch_size=7, stride=5, mlp_width=37, activation="gelu", eps=1e-2
    ),
    TextConfig(
        11, 50, 30, 5, 3, mlp_width=37, activation="gelu_tanh", eps=1e-2, end_id=20
    ),
)  # fmt: skip
ONE_LAYER = CLIPConfig(
    13,
    VisionConfig(24, 1, 35, 5, patch_size=8, activation="gelu_tanh"),
    TextConfig(5, 30, 21, 3, 1, activation="gelu"),
)
# More than 48 tokens: the scores of a head are worked on in several parts.
LONG = CLIPConfig(
    16,
    VisionConfig(64, 2, 32, 2, patch_size=8),
    TextConfig(70, 100, 32, 1, 2),
)
NO_PROJECTION = CLIPConfig(
    24,
    VisionConfig(32, 2, 24, 2, patch_size=16, proj=False),
    TextConfig(9, 50, 24, 1, 2, proj=False),
)
RESNET_12 = CLIPConfig(9, VisionConfig(64, (1, 1, 2, 1), 12, 4), None)
RESNET_AVERAGE = CLIPConfig(11, VisionConfig(32, (1, 1, 1, 1), 6, 4, pool="average"), None)
RESNET_96 = CLIPConfig(24, VisionConfig(96, (2, 1, 1, 2), 6, 32), None)

CONFIGS = {
    "vit": VIT,
    "narrow": NARROW,
    "one layer": ONE_LAYER,
    "long": LONG,
    "no projection": NO_PROJECTION,
    "resnet": RESNET,
    "resnet of width 12": RESNET_12,
    "resnet with a plain mean": RESNET_AVERAGE,
    "resnet for 96 pixels": RESNET_96,
}


# ---------------------------------------------------------------- inputs and states


def pictures(count, height, width, seed=0):
    """Random float32 pictures: coarse patches and noise, which alone would average out."""
    rng = np.random.default_rng([seed, 1])
    rows, columns = -(-height // 8), -(-width // 8)
    coarse = rng.standard_normal((count, 3, rows, columns), np.float32)
    coarse = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
    noise = rng.standard_normal((count, 3, height, width), np.float32)
    return np.ascontiguousarray(coarse + np.float32(0.5) * noise)


def texts(config, count, tokens=None, seed=0):
    """Random ids (count, T) with random ids after the end as well. The ends stand at the last
    place, in the middle, at 1, at 0, and then wherever chance puts them.
    """
    rng = np.random.default_rng([seed, 2])
    tokens = tokens or config.context_length
    end = config.vocab_size - 1 if config.end_id is None else config.end_id
    ids = rng.integers(0, config.vocab_size - 1, (count, tokens))
    ids[ids == end] = 0
    places = [tokens - 1, tokens // 2, 1, 0, *rng.integers(0, tokens, count)][:count]
    ids[np.arange(count), np.minimum(places, tokens - 1)] = end
    return ids


def inputs_of(config, count=7):
    """Pictures and texts for the towers that there are."""
    inputs = {}
    if config.vision is not None:
        inputs["image"] = pictures(count, *(config.vision.image_resolution,) * 2)
    if config.text is not None:
        inputs["text"] = texts(config.text, count)
    return inputs


@functools.cache
def state_of(config):
    """Read-only, as networks take the arrays themselves: whoever writes to one makes a copy."""
    state = living_state(config, 1)
    for x in state.values():
        x.flags.writeable = False
    return state


@functools.cache
def state_with_small_variances(config):
    """BatchNorm's eps is seen only next to variances of its own size."""
    state = dict(state_of(config))
    for name in state:
        if name.endswith("running_var"):
            state[name] = state[name] * np.float32(1e-4)
            weight = name.replace("running_var", "weight")
            state[weight] = state[weight] * np.float32(1e-2)
    return state


def network_of(package, config, backend="numba", dtype="float32", state=None):
    network = package.CLIP(own_config(package, config), seed=None).to(backend, dtype)
    network.load_state_dict(state or state_of(config))
    return network


def tower_of(network, kind):
    return network.visual if kind == "image" else network.text


def engine_of(package):
    return importlib.import_module(f"{package.__name__}.engine.plan")


# ---------------------------------------------------------------- the truth


def by_modules(config, kind, x, dtype, small_variances=False, way="forward", **settings):
    """What the textbook's modules say, in float64 or in float32. way: another of their methods."""
    tower = tower_of(textbook(config, dtype, small_variances), kind)
    before = {name: getattr(tower, name) for name in settings}
    try:
        vars(tower).update(settings)
        return getattr(tower, way)(x.astype(dtype) if kind == "image" else x)
    finally:  # the textbook is kept for the next test
        vars(tower).update(before)


@functools.cache
def textbook(config, dtype, small_variances):
    state = (state_with_small_variances if small_variances else state_of)(config)
    network = CLIP(config, seed=None).to("numpy", dtype)
    network.load_state_dict(state)
    return network


def relative(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def close(what, got, config, kind, x, small_variances=False, **settings):
    """Embeddings are as near to float64 as the modules' in float32, and alive."""
    truth, own = (
        by_modules(config, kind, x, dtype, small_variances, **settings)
        for dtype in ("float64", "float32")
    )
    if len(truth) > 1:
        first, second = truth[:2]
        assert relative(first, second) > ALIVE, f"{what}: all inputs look alike"
    assert got.dtype == np.float32, f"{what}: {got.dtype}"
    assert got.shape == truth.shape, f"{what}: shape {got.shape}, not {truth.shape}"
    for i in range(len(truth)):  # one wrong embedding among many must be seen
        error = relative(got[i], truth[i])
        float32 = relative(own[i], truth[i])
        assert float32 < FLOOR, f"{what}: the modules themselves are wrong by {float32:.1e}"
        bound = max(FACTOR * float32, FLOOR)
        assert error <= bound, f"{what}, input {i}: error {error:.1e}, at most {bound:.1e}"


# ---------------------------------------------------------------- checks


def check_towers(package, name, count=7, small_variances=False):
    """Both towers of a configuration."""
    config = CONFIGS[name]
    state = state_with_small_variances(config) if small_variances else None
    plan = engine_of(package).Plan(network_of(package, config, state=state))
    for kind, x in inputs_of(config, count).items():
        got = plan.of(kind)(x)
        close(f"{name}, {kind}", got, config, kind, x, small_variances)


def close_tokens(what, got, config, x, **settings):
    """Every token is as near to float64 as the modules' in float32 are, measured by the size that
    a picture's tokens have in the mean; and no two pictures' tokens look alike.
    """
    truth, own = (
        by_modules(config, "image", x, dtype, way="tokens", **settings)
        for dtype in ("float64", "float32")
    )
    assert relative(truth[0], truth[1]) > ALIVE, f"{what}: all inputs look alike"
    assert got.dtype == np.float32, f"{what}: {got.dtype}"
    assert got.shape == truth.shape, f"{what}: shape {got.shape}, not {truth.shape}"
    size = np.sqrt((truth**2).sum(axis=2).mean(axis=1, keepdims=True))  # (B, 1)
    error, float32 = (np.linalg.norm(y - truth, axis=2) / size for y in (got, own))  # (B, T)
    assert float32.max() < FLOOR, f"{what}: the modules themselves are wrong by {float32.max():.1e}"
    bound = max(FACTOR * float32.max(), FLOOR)
    worst = np.unravel_index(error.argmax(), error.shape)
    assert error.max() <= bound, f"{what}, token {worst}: error {error.max():.1e}, not {bound:.1e}"


def check_tokens(package, name, size=None):
    """All tokens of pictures, and what their pool makes of them beside the embeddings' plan."""
    config = CONFIGS[name]
    network = network_of(package, config)
    network.visual.interpolate = True
    plan = engine_of(package).Plan(network)
    size = size or (config.vision.image_resolution,) * 2
    x = pictures(5, *size)
    tokens = plan.of("image").tokens(x)
    close_tokens(f"{name}, tokens", tokens, config, x, interpolate=True)
    grid = () if hasattr(network.visual, "transformer") else (network.visual.grid_of(*size),)
    pooled = network.visual.pool(tokens, *grid)
    for what, got in (("pooled", pooled), ("embedded", plan.of("image")(x))):
        close(f"{name}, {what}", got, config, "image", x, interpolate=True)


def check_short_texts(package, name):
    """Arrays of fewer ids than the context is long."""
    config = CONFIGS[name]
    plan = engine_of(package).Plan(network_of(package, config))
    for tokens in range(1, config.text.context_length):
        ids = texts(config.text, 3, tokens)
        if tokens > 1:
            close(f"{name}, {tokens} tokens", plan.of("text")(ids), config, "text", ids)


def check_sizes(package, name, sizes):
    """Pictures of other sizes, each between two of the usual size."""
    config = CONFIGS[name]
    network = network_of(package, config)
    network.visual.interpolate = True
    plan = engine_of(package).Plan(network)
    usual = pictures(2, *(config.vision.image_resolution,) * 2)
    before = plan.of("image")(usual)
    for size in sizes:
        x = pictures(2, *size)
        close(f"{name}, {size}", plan.of("image")(x), config, "image", x, interpolate=True)
        assert np.array_equal(plan.of("image")(usual), before), f"{name}: after {size}"


def check_new_weights_are_seen(package, change, name="vit"):
    """After a change of the network its plan gives what the modules give."""
    config = CONFIGS[name]
    network = network_of(package, config)
    plan = engine_of(package).Plan(network)
    inputs = inputs_of(config, 2)
    old = {kind: plan.of(kind)(x) for kind, x in inputs.items()}
    change(network)
    for kind, x in inputs.items():
        got, expected = plan.of(kind)(x), tower_of(network, kind)(x)
        assert relative(got, old[kind]) > 1e-3, f"{kind}: as if nothing had changed"
        assert relative(got, expected) < 1e-4, f"{kind}: not what the modules say"


def change_eps(network):
    network.visual.ln_post.eps = network.text.ln_final.eps = 0.3


def change_heads(network):
    for tower in (network.visual, network.text):
        attn = list(tower.transformer.resblocks)[1].attn
        attn.heads = 4 if attn.heads == 2 else 2


def check_another_kernel(package):
    """The stem's average over other squares: for the modules to do, or to refuse."""
    network = network_of(package, CONFIGS["resnet with a plain mean"])
    plan = engine_of(package).Plan(network)
    assert plan.of("image") is not None
    network.visual.avgpool.kernel = 1
    assert plan.of("image") is None
    network.visual.avgpool.kernel = 2
    assert plan.of("image") is not None


def scale_parameters(network):
    """New arrays for everything that is learned."""
    for _, parameter in network.named_parameters():
        parameter.data = parameter.data * np.float32(1.1)


def check_several_chunks(package, name, monkeypatch):
    """Many small chunks give the bits of one."""
    config, engine = CONFIGS[name], engine_of(package)
    plan = engine.Plan(network_of(package, config))
    for kind, x in inputs_of(config).items():
        whole = plan.of(kind)(x)
        for size in (1, 3 * plan.of(kind).program(usual_size(config, kind)).memory(20, 1)):
            monkeypatch.setattr(engine, "CHUNK_BYTES", size)
            assert np.array_equal(plan.of(kind)(x), whole), f"{name}, {kind}, {size} bytes"
        monkeypatch.undo()
        close(f"{name}, {kind}", whole, config, kind, x)


def usual_size(config, kind):
    if kind == "image":
        return (config.vision.image_resolution,) * 2
    return (config.text.context_length,)


def with_text(config, **changes):
    return replace(config, text=replace(config.text, **changes))


# ---------------------------------------------------------------- guards


def within(seconds, function):
    """function() in a thread of its own, which must end in time: what hangs shall fail instead."""
    outcome = {}

    def run():
        try:
            outcome["result"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"not done after {seconds} seconds: somebody waits for ever"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def check_antialias(package, name="vit"):
    """How positions are resized may change between two pictures of one size."""
    config = CONFIGS[name]
    network = network_of(package, config)
    network.visual.interpolate = True
    plan, x = engine_of(package).Plan(network), pictures(2, 16, 24)
    for antialias in (True, False, True):
        network.visual.antialias = antialias
        got = plan.of("image")(x)
        settings = {"interpolate": True, "antialias": antialias}
        close(f"antialias={antialias}", got, config, "image", x, **settings)


def check_recording(package, name="vit"):
    """While a network or a part of it is recorded there is no plan."""
    network = network_of(package, CONFIGS[name])
    plan = engine_of(package).Plan(network)
    for part in (network, network.visual, network.visual.transformer):
        with part.record():
            assert plan.of("image") is None
        assert plan.of("image") is not None


def new_statistics(network):
    """New arrays for the running statistics alone (and for the text tower)."""
    for module in network.visual.modules():
        for name, x in module.buffers_.items():
            module.buffers_[name] = x * np.float32(1.5)
    scale_parameters(network.text)
