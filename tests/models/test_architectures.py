"""All nine CLIPs at full size against the original in float64, and two of them backward.

The weights are random, and alive (`original.living_state`). Float32 is judged by what float32 can
do: our error may be three times the original's own, or 1e-5, and an inference plan's three times
the modules' own, or 1e-5. The tests are heavy, so they run one
after the other, in one worker of pytest-xdist, and each keeps one float64 truth for all backends.
"""

import gc
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from original import (
    living_state,
    load_into_original,
    original_clip,
    pictures,
    texts,
    transformers_clip,
)

from miniclip.engine.plan import Plan
from miniclip.models import CLIP, OPENAI_CONFIGS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("heavy")]

BACKENDS = ("numpy", "numba")
FACTOR, FLOOR = 3, 1e-5
ZERO = 1e-6  # of the tower's largest gradient: for gradients that are mathematically zero
# Parameters and tensors of the published files, which count BatchNorm's `num_batches_tracked`.
SIZES = {
    "RN50": (102_007_137, 489),
    "RN101": (119_688_033, 795),
    "RN50x4": (178_300_601, 669),
    "RN50x16": (290_979_217, 921),
    "RN50x64": (623_258_305, 1353),
    "ViT-B/32": (151_277_313, 302),
    "ViT-B/16": (149_620_737, 302),
    "ViT-L/14": (427_616_513, 446),
    "ViT-L/14@336px": (427_944_193, 446),
}


@pytest.fixture(autouse=True)
def _alone_on_the_machine():
    """Both cores for PyTorch, and all memory back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)
    gc.collect()


def test_the_table_is_complete():
    assert SIZES.keys() == OPENAI_CONFIGS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_embeddings_and_logits(name):
    config = OPENAI_CONFIGS[name]
    state = living_state(config, seed=1)
    inputs = pictures(config, 2, seed=1), texts(config, 3, seed=1)
    truth = original_outputs(config, state, inputs, torch.float64)
    check_alive(truth)
    model = CLIP(config, seed=None)
    model.load_state_dict(state)
    check_size(name, model)
    own = errors(original_outputs(config, state, inputs, torch.float32), truth)
    for backend in BACKENDS:
        got = our_outputs(model.to(backend), inputs)
        check_outputs(f"{name}, {backend}", got, truth, own)
    modules = errors({what: got[what] for what in ("images", "texts")}, truth)
    check_outputs(f"{name}, plan", plan_outputs(model, inputs), truth, modules, "the modules'")
    if not config.vision.is_resnet:
        theirs = transformers_outputs(config, state, inputs)
        check_outputs(f"{name}, transformers", got, theirs, errors(theirs, truth))


@pytest.mark.parametrize(
    ("name", "training"), [("ViT-B/32", False), ("RN50", False), ("RN50", True)]
)
def test_gradients(name, training):
    config = OPENAI_CONFIGS[name]
    state = living_state(config, seed=6)
    inputs = pictures(config, 4, seed=6), texts(config, 4, seed=6)

    def ask(dtype, sides=None):
        return original_gradients(config, state, inputs, training, dtype, sides)

    def truth_beside(float32_pass):
        """The truth that took the same sides: the same one if no side is taken differently."""
        if same_sides(float32_pass, truth):
            return truth
        return ask(torch.float64, float32_pass.sides)

    truth = ask(torch.float64)
    own = ask(torch.float32)
    own_errors = gradient_errors(own, truth_beside(own))
    for backend in BACKENDS:
        got = our_gradients(config, state, inputs, training, backend)
        our_truth = truth_beside(got)
        check_values(f"{name}, {backend}", got, own, our_truth, truth)
        check_gradients(f"{name}, {backend}", got, our_truth, own_errors)


def check_size(name, model):
    counters = sum(n.endswith("running_mean") for n in model.state_dict())
    assert (model.count_parameters(), len(model.state_dict()) + counters) == SIZES[name]


def check_alive(truth):
    """Different inputs give different embeddings, or the comparison would prove nothing."""
    for what in ("images", "texts"):
        first, second = truth[what][:2]
        difference = np.linalg.norm(first - second) / np.linalg.norm(first)
        assert difference > 0.1, f"{what}: the embeddings differ by {difference:.3f} only"


# ---------------------------------------------------------------- outputs


def original_outputs(config, state, inputs, dtype):
    model = original_clip(config, dtype)
    load_into_original(model, state)
    images, ids = inputs
    with torch.no_grad():
        outputs = collect(model, torch.tensor(images, dtype=dtype), torch.tensor(ids))
    return {what: y.numpy() for what, y in outputs.items()}


def our_outputs(model, inputs):
    outputs = collect(model, *inputs)
    assert all(y.dtype == np.float32 for y in outputs.values())
    return outputs


def collect(model, images, ids):
    """Logits, and the embeddings on their way to them: one pass for all."""
    outputs = {}

    def keep(what, encode):
        def kept(x):
            outputs[what] = encode(x)
            return outputs[what]

        return kept

    model.encode_image = keep("images", type(model).encode_image.__get__(model))
    model.encode_text = keep("texts", type(model).encode_text.__get__(model))
    outputs["per_image"], outputs["per_text"] = model(images, ids)
    del model.encode_image, model.encode_text
    return outputs


def transformers_outputs(config, state, inputs):
    model = transformers_clip(config, state, torch.float32)
    images, ids = (torch.tensor(x) for x in inputs)
    outputs = {}
    # Its own outputs hold the embeddings normalised, or not, by its version.
    model.visual_projection.register_forward_hook(lambda m, x, y: outputs.update(images=y.clone()))
    model.text_projection.register_forward_hook(lambda m, x, y: outputs.update(texts=y.clone()))
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=images)
    outputs |= {"per_image": logits.logits_per_image, "per_text": logits.logits_per_text}
    return {what: y.numpy() for what, y in outputs.items()}


def plan_outputs(model, inputs):
    """What `encode_image` and `encode_text` run instead of the modules."""
    plan = Plan(model)
    return {"images": plan.of("image")(inputs[0]), "texts": plan.of("text")(inputs[1])}


def errors(got, truth):
    return {what: relative_l2(got[what], truth[what]) for what in got}


def check_outputs(who, got, truth, own, whose="PyTorch's own"):
    for what, error in errors(got, truth).items():
        print(f"{who}: {what} error {error:.1e} ({whose} {own[what]:.1e})")
        assert error <= max(FACTOR * own[what], FLOOR), f"{who}: {what} error {error:.1e}"


# ---------------------------------------------------------------- gradients
#
# A ReLU has a kink. Among the forty million numbers that pass a ReLU in RN50 some lie so close to
# zero that rounding puts them on the other side, in PyTorch's float32 as in ours, and each moves
# the gradients behind it by up to a hundredth: that is chance, and says nothing about a backward
# pass. So every float32 pass says on which side its numbers were, and the float64 truth it is
# compared with takes the same sides. What rounding does to the rest is 1000 times smaller. That
# the sides are right is checked apart: they may not change any value.


@dataclass(frozen=True)
class Pass:
    """Logits, gradients (and BatchNorm's statistics) by name, and the side taken at each ReLU."""

    per_image: np.ndarray
    gradients: dict[str, np.ndarray]
    sides: dict[str, np.ndarray]


def original_gradients(config, state, inputs, training, dtype, sides=None):
    """Gradients of the contrastive loss by parameter, of pixels and tokens; and the statistics."""
    model = original_clip(config, dtype).train(training)
    load_into_original(model, state)
    taken = watch_relus(model, to_numpy=torch.Tensor.numpy)
    if sides is not None:
        take_sides(model, sides)
    images, ids = torch.tensor(inputs[0], dtype=dtype, requires_grad=True), torch.tensor(inputs[1])
    tokens = []
    model.token_embedding.register_forward_hook(lambda module, x, y: tokens.append(y))
    per_image, per_text = model(images, ids)
    tokens[0].retain_grad()
    matches = torch.arange(len(ids))
    cross_entropy = torch.nn.functional.cross_entropy
    ((cross_entropy(per_image, matches) + cross_entropy(per_text, matches)) / 2).backward()
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters()}
    gradients |= {"visual pixels": images.grad.numpy(), "tokens": tokens[0].grad.numpy()}
    values = by_thirds(gradients) | statistics(model.state_dict())
    return Pass(per_image.detach().numpy(), values, taken)


def our_gradients(config, state, inputs, training, backend):
    model = CLIP(config, seed=None).to(backend)
    model.load_state_dict(state)
    model.train(training)
    taken = watch_relus(model)
    matches = np.arange(len(inputs[0]))
    with model.record():
        per_image, per_text = model(*inputs)
        dlogits = [loss_gradient(model.ops, logits, matches) for logits in (per_image, per_text)]
        dimages, dtokens = model.backward(*dlogits)
    gradients = {n: p.grad for n, p in model.named_parameters()}
    gradients |= {"visual pixels": dimages, "tokens": dtokens}
    assert all(g.dtype == np.float32 for g in gradients.values())
    return Pass(per_image, by_thirds(gradients) | statistics(model.state_dict()), taken)


def relus(model):
    return [(n, m) for n, m in model.named_modules() if type(m).__name__ == "ReLU"]


def watch_relus(model, to_numpy=np.asarray):
    """From now on, where the numbers that leave each ReLU are positive, by its name."""
    taken = {}

    def watch(name, forward):
        def watched(x):
            y = forward(x)
            taken[name] = to_numpy(y > 0)
            return y

        return watched

    for name, relu in relus(model):
        relu.forward = watch(name, relu.forward)
    return taken


def take_sides(model, sides):
    """Let each ReLU of the original pass the numbers at the given places, whatever their sign."""
    for name, relu in relus(model):
        mask = torch.from_numpy(sides[name])
        relu.forward = lambda x, mask=mask: x * mask


def loss_gradient(ops, logits, matches):
    """Of half the cross-entropy: the loss is the mean of both directions."""
    _, cache = ops.cross_entropy(logits, matches)
    return ops.cross_entropy_backward(np.float32(0.5), cache)


def by_thirds(gradients):
    """Gradients with q, k and v apart: that of the keys' bias alone is zero."""
    apart = {}
    for name, g in gradients.items():
        if name.endswith("in_proj_bias"):
            apart |= {f"{name} ({p})": x for p, x in zip("qkv", np.split(g, 3), strict=True)}
        else:
            apart[name] = g
    return apart


def statistics(state):
    return {n: np.asarray(x) for n, x in state.items() if "running" in n}


def is_zero(name):
    """A key's bias adds the same to all scores of a query, which softmax takes out again."""
    return name.endswith(("in_proj_bias (k)", "k_proj.bias"))


def same_sides(one, other):
    assert one.sides.keys() == other.sides.keys()
    return all(np.array_equal(one.sides[name], other.sides[name]) for name in one.sides)


def check_values(who, got, own, our_truth, truth):
    """Logits equal the truth's; and the sides taken at the ReLUs leave them alone."""
    allowed = max(FACTOR * relative_l2(own.per_image, truth.per_image), FLOOR)
    for per_image in (got.per_image, our_truth.per_image):
        error = relative_l2(per_image, truth.per_image)
        assert error <= allowed, f"{who}: logits {error:.1e}, allowed {allowed:.1e}"


def gradient_errors(got, truth):
    """By name and measure, leaving out what is zero in truth."""
    return {
        (name, measure.__name__): measure(got.gradients[name], g)
        for name, g in truth.gradients.items()
        for measure in (relative_l2, relative_max)
        if not is_zero(name)
    }


def check_gradients(who, got, truth, own_errors):
    assert got.gradients.keys() == truth.gradients.keys()
    failures = wrong_zeros(got.gradients, truth.gradients)
    ours = gradient_errors(got, truth)
    worst = max(ours, key=ours.get)
    print(
        f"{who}: gradient error at most {ours[worst]:.1e} ({worst}; PyTorch's own there "
        f"{own_errors[worst]:.1e}, its largest {max(own_errors.values()):.1e})"
    )
    for key, error in ours.items():
        if not error <= max(FACTOR * own_errors[key], FLOOR):
            failures.append(f"{key}: error {error:.1e}, PyTorch's own {own_errors[key]:.1e}")
    assert not failures, "\n".join([who, *failures])


def wrong_zeros(got, truth):
    """What is said of gradients that are zero in truth and too large in ours."""
    sizes = {name: np.linalg.norm(got[name]) for name in truth if is_zero(name)}
    return [
        f"{name}: a gradient of {size:.1e} instead of zero"
        for name, size in sizes.items()
        if not size <= ZERO * largest_norm(truth, tower_of(name))
    ]


def tower_of(name):
    return name.startswith("visual")


def largest_norm(gradients, image_tower):
    norms = [np.linalg.norm(g) for n, g in gradients.items() if tower_of(n) == image_tower]
    return max(norms)


def relative_l2(got, truth):
    return np.linalg.norm(got - truth) / np.linalg.norm(truth)


def relative_max(got, truth):
    return np.abs(got - truth).max() / np.abs(truth).max()
