"""Whole towers and CLIP, reduced in size: exact in both directions against the original."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_gpu import FakeGpu
from model_checks import (
    CONFIGS,
    RESNET,
    VIT,
    ask_original,
    ask_ours,
    check_tower,
    close,
    compare_gradient,
    compare_truths,
    inputs_for,
    truth,
    variant,
)
from original import living_state, load_into_original, original_clip

import miniclip
from miniclip import backends, ops
from miniclip.models import CLIP, CLIPConfig, TextConfig, VisionConfig, get_config, infer_config

BACKENDS = pytest.mark.parametrize("backend", backends.available())


@BACKENDS
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_clip_equals_the_original(kind, training, backend):
    """Logits, gradients of all parameters, pixels and tokens, running statistics: 1e-9."""
    check_tower(miniclip, kind, training, backend)


def contrastive(per_image, per_text):
    """CLIP's loss in PyTorch: cross-entropy both ways."""
    wanted = torch.arange(len(per_image))
    return (F.cross_entropy(per_image, wanted) + F.cross_entropy(per_text, wanted)) / 2


@BACKENDS
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_gradients_of_the_contrastive_loss(kind, training, backend):
    """The loss on normalised features, as training calls it: parameters, pixels and tokens."""
    config, state = CONFIGS[kind], living_state(CONFIGS[kind], 1)
    pictures, ids, _ = inputs_for(config)
    original = original_clip(config, torch.float64)
    load_into_original(original, state)
    expected = ask_original(original.train(training), pictures, ids, contrastive).gradients

    model = CLIP(config, seed=None).to(backend, "float64")
    model.load_state_dict(state)
    model.train(training)
    b = model.ops
    with model.record():
        images, image_cache = b.l2_normalize(model.visual(pictures))
        texts, text_cache = b.l2_normalize(model.text(ids))
        _, cache = b.contrastive_loss(images, texts, model.logit_scale.data)
        dimages, dtexts, dscale = b.contrastive_loss_backward(1.0, cache)
        model.logit_scale.add_grad(dscale)
        dtokens = model.text.backward(b.l2_normalize_backward(dtexts, text_cache))
        dpixels = model.visual.backward(b.l2_normalize_backward(dimages, image_cache))
    got = {name: p.grad for name, p in model.named_parameters()}
    got |= {"pixels": dpixels, "tokens": dtokens}
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        compare_gradient(name, got[name], gradient, expected)


@pytest.mark.parametrize("kind", CONFIGS)
def test_on_the_pretend_gpu(kind):
    """Both towers, both ways, in training too: no host array is made on the way."""
    from backends_here import FAKE_GPU

    config, state = CONFIGS[kind], living_state(CONFIGS[kind], 1)
    for training in (False, True):
        model = CLIP(config, seed=None).to(dtype="float64")
        model.load_state_dict(state)
        model.to(FAKE_GPU).train(training)
        pictures, ids, dlogits = (FakeGpu(x) for x in inputs_for(config))
        with model.record():
            per_image, _ = model(pictures, ids)
            dimages, dtokens = model.backward(dlogits)
        expected = truth(kind, training)
        close("logits", per_image.host, expected.per_image)
        close("pixels", dimages.host, expected.gradients["pixels"])
        close("tokens", dtokens.host, expected.gradients["tokens"])
        for name, parameter in model.named_parameters():
            compare_gradient(
                name, parameter.grad.host, expected.gradients[name], expected.gradients
            )


# ------------------------------------------------------------------- what the original has not


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_other_activations(activation):
    config = CLIPConfig(
        24,
        VisionConfig(**{**vars(VIT.vision), "activation": activation}),
        TextConfig(**{**vars(VIT.text), "activation": activation}),
    )
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    original = original_clip(VIT, torch.float64)
    for block in [*original.visual.transformer.resblocks, *original.transformer.resblocks]:
        block.mlp.gelu = torch.nn.GELU(approximate=approximate)
    state = living_state(VIT, 2)
    load_into_original(original, state)
    inputs = inputs_for(VIT)
    expected = ask_original(original, *inputs)
    compare_truths(ask_ours(miniclip, config, state, False, "numpy", *inputs), expected)
    quick = ask_ours(miniclip, VIT, state, False, "numpy", *inputs)
    assert np.abs(quick.per_image - expected.per_image).max() > 1e-3  # the wrong one shows


def test_overlapping_patches():
    """stride < patch: the original's tower with another stride in its first convolution."""
    config = variant("vit", stride=4)
    assert config.vision.grid == 7
    state = living_state(config, 3)
    original = original_clip(VIT, torch.float64)
    original.visual.conv1.stride = (4, 4)
    original.visual.positional_embedding = torch.nn.Parameter(torch.zeros(50, 128).double())
    load_into_original(original, state)
    inputs = inputs_for(config)
    expected = ask_original(original, *inputs)
    compare_truths(ask_ours(miniclip, config, state, False, "numpy", *inputs), expected)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape", [(48, 48), (24, 40)])
def test_other_resolutions(shape, antialias):
    """Positions resized as open_clip does (antialias) and as transformers does."""
    model = CLIP(VIT, seed=None).to(dtype="float64")
    model.load_state_dict(living_state(VIT, 1))
    model.visual.interpolate, model.visual.antialias = True, antialias
    pictures = np.random.default_rng(0).standard_normal((2, 3, *shape))
    original = original_clip(VIT, torch.float64)
    load_into_original(original, living_state(VIT, 1))
    positions = original.visual.positional_embedding
    square = positions[1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    grid = (shape[0] // 8, shape[1] // 8)
    resized = F.interpolate(square, grid, mode="bicubic", antialias=antialias, align_corners=False)
    tokens = resized[0].permute(1, 2, 0).reshape(grid[0] * grid[1], -1)
    del original.visual.positional_embedding
    original.visual.positional_embedding = torch.cat([positions[:1], tokens])
    pixels = torch.tensor(pictures, requires_grad=True)
    y = original.visual(pixels)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    (y * torch.tensor(dy)).sum().backward()
    with model.record():
        got = model.visual(pictures)
        dpixels = model.visual.backward(dy)
    close("embedding", got, y.detach().numpy())
    close("pixels", dpixels, pixels.grad.numpy())
    close("positions", model.visual.positional_embedding.grad, positions.grad.numpy())


def test_resnet_at_another_resolution():
    """The attention pool's positions are resized; at its own resolution nothing changes."""
    model = CLIP(RESNET, seed=None).to(dtype="float64")
    model.load_state_dict(living_state(RESNET, 1))
    model.visual.interpolate = True
    rng = np.random.default_rng(0)
    pictures, dy = rng.standard_normal((2, 3, 96, 64)), rng.standard_normal((2, 24))
    along = rng.standard_normal(pictures.shape)
    with model.record():
        model.visual(pictures)
        slope = (model.visual.backward(dy) * along).sum()
    h = 1e-7  # so short a step crosses hardly any of the ReLUs' kinks
    ahead, behind = (model.visual(pictures + s * h * along) for s in (1, -1))
    assert ((ahead - behind) * dy).sum() / (2 * h) == pytest.approx(slope, rel=1e-5)


def test_vit_without_projection():
    config = CLIPConfig(128, VisionConfig(**{**vars(VIT.vision), "proj": False}), None)
    state = {k: v for k, v in living_state(VIT, 1).items() if k.startswith("visual.")}
    state.pop("visual.proj")
    model = CLIP(config, seed=None).to(dtype="float64")
    model.load_state_dict(state)
    original = original_clip(VIT, torch.float64)
    load_into_original(original, living_state(VIT, 1))
    original.visual.proj = None
    pictures, _, _ = inputs_for(VIT)
    pixels = torch.tensor(pictures, requires_grad=True)
    y = original.visual(pixels)
    y.sum().backward()
    with model.record():
        got = model.visual(pictures)
        dpixels = model.visual.backward(np.ones_like(got))
    close("embedding", got, y.detach().numpy())
    close("pixels", dpixels, pixels.grad.numpy())


def test_resnet_with_plain_average_pooling():
    """The other pool: mean over pixels, then a projection; the rest is the original's."""
    config = variant("resnet", pool="average")
    model = CLIP(config, seed=0).to(dtype="float64")
    body = {k: v for k, v in living_state(RESNET, 1).items() if "attnpool" not in k}
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((24, 256)) / 16, rng.standard_normal(24)
    head = {"visual.attnpool.c_proj.weight": weight, "visual.attnpool.c_proj.bias": bias}
    model.load_state_dict(body | head)

    original = original_clip(RESNET, torch.float64)
    load_into_original(original, living_state(RESNET, 1))
    linear = torch.nn.Linear(256, 24).double()
    linear.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    original.visual.attnpool = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear
    )
    pictures, _, _ = inputs_for(RESNET)
    pixels = torch.tensor(pictures, requires_grad=True)
    y = original.visual(pixels)
    y.square().sum().backward()
    with model.record():
        got = model.visual(pictures)
        dpixels = model.visual.backward(2 * got)
    close("embedding", got, y.detach().numpy())
    close("pixels", dpixels, pixels.grad.numpy())
    own = dict(model.named_parameters())["visual.attnpool.c_proj.weight"].grad
    close("projection", own, linear.weight.grad.numpy())


def test_end_of_text_by_id():
    """A vocabulary whose end-of-text token is not the largest id says so in its configuration."""
    config = CLIPConfig(24, None, TextConfig(**{**vars(VIT.text), "end_id": 7}))
    state = {k: v for k, v in living_state(VIT, 1).items() if not k.startswith("visual.")}
    state.pop("logit_scale")
    model = CLIP(config, seed=None).to(dtype="float64")
    model.load_state_dict(state)
    ids = np.array([[1, 30, 7, 49, 0, 0, 0, 0, 0]])
    by_largest = CLIP(CLIPConfig(24, None, VIT.text), seed=None).to(dtype="float64")
    by_largest.load_state_dict(state)
    assert not np.allclose(model.encode_text(ids), by_largest.encode_text(ids))
    with pytest.raises(ValueError, match=r"ids\[1\]: has no 7, expected the end-of-text id"):
        model.encode_text(np.concatenate([ids, np.full((1, 9), 49)]))
    # a causal tower read at token 2 does not see what follows
    changed = ids.copy()
    changed[0, 4:] = 11
    close("embedding", model.encode_text(changed), model.encode_text(ids))


def test_shorter_texts_give_the_same_embedding():
    """Padding behind the end of text is never looked at, so it may be left out."""
    model = CLIP(VIT, seed=None).to(dtype="float64")
    model.load_state_dict(living_state(VIT, 1))
    _, ids, _ = inputs_for(VIT)
    short = ids[:1, : int(ids[0].argmax()) + 1]
    close("embedding", model.encode_text(short), model.encode_text(ids[:1]))


# ------------------------------------------------------------------- configurations and names


@pytest.mark.parametrize("name", list(miniclip.models.OPENAI_CONFIGS))
def test_configuration_from_shapes(name):
    """From the shapes of an original file, with the activation given, comes the configuration."""
    config = get_config(name)
    model = CLIP(config, seed=None)
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    inferred = infer_config(shapes, activation="quick_gelu")
    for tower in ("vision", "text"):
        got, expected = vars(getattr(inferred, tower)), vars(getattr(config, tower))
        mlp = {"mlp_width": got["mlp_width"]}  # written out where the table leaves the default
        assert got == {**expected, **mlp}
        assert mlp["mlp_width"] in (None, 4 * expected["width"])
    assert inferred.embed_dim == config.embed_dim


def test_configuration_of_unusual_shapes():
    config = CLIPConfig(
        24,
        VisionConfig(32, 2, 160, 4, patch_size=8, stride=4, mlp_width=500),
        TextConfig(9, 50, 160, 4, 3, mlp_width=300),
    )
    shapes = {k: tuple(x.shape) for k, x in CLIP(config, seed=None).state_dict().items()}
    got = infer_config(shapes, activation="quick_gelu", head_width=40, stride=4)
    assert got == config
    del shapes["visual.positional_embedding"]
    with pytest.raises(ValueError, match=r"missing visual\.positional_embedding"):
        infer_config(shapes, activation="quick_gelu")


def test_the_models_names_are_the_originals():
    for kind, config in CONFIGS.items():
        theirs = {
            k: tuple(v.shape) for k, v in original_clip(config, torch.float32).state_dict().items()
        }
        theirs = {k: v for k, v in theirs.items() if "num_batches_tracked" not in k}
        ours = {k: tuple(v.shape) for k, v in CLIP(config, seed=None).state_dict().items()}
        assert ours == theirs, kind


def test_a_printed_model_is_a_tree():
    text = repr(CLIP(VIT, seed=None))
    lines = text.splitlines()
    count = sum(p.data.size for _, p in CLIP(VIT, seed=None).named_parameters())
    assert lines[0] == f"CLIP(logit_scale ())  {count:,} parameters"
    assert "  visual: VisionTransformer(" in text
    assert "    conv1: PatchEmbedding(stride=8, weight (128, 3, 8, 8))  24,576 parameters" in lines
    assert any(line.startswith("  TextTransformer(") for line in lines)


def test_parameter_counts_of_the_published_models():
    """FACTS: the nine sizes, without touching their memory."""
    counts = {
        "RN50": 102007137, "RN101": 119688033, "RN50x4": 178300601, "RN50x16": 290979217,
        "RN50x64": 623258305, "ViT-B/32": 151277313, "ViT-B/16": 149620737,
        "ViT-L/14": 427616513, "ViT-L/14@336px": 427944193,
    }  # fmt: skip
    for name, count in counts.items():
        assert CLIP(get_config(name), seed=None).count_parameters() == count


# ------------------------------------------------------------------- errors


def test_wrong_configurations():
    def vit(**changes):
        return lambda: VisionConfig(**{**vars(VIT.vision), **changes})

    def resnet(**changes):
        return lambda: VisionConfig(**{**vars(RESNET.vision), **changes})

    def text(**changes):
        return lambda: TextConfig(**{**vars(VIT.text), **changes})

    cases = [
        (vit(heads=3), "vision.heads: got 3, expected a divisor of the width 128"),
        (vit(activation="swish"), "vision.activation: got 'swish', expected one of quick_gelu"),
        (vit(layers=(1, 2)), r"vision.layers: got \(1, 2\), expected a positive number"),
        (vit(layers=0), "vision.layers: got 0"),
        (vit(patch_size=64), "vision.patch_size: got 64, expected at most the image's 32 pixels"),
        (vit(stride=9), "vision.stride: got 9, expected at most patch_size 8"),
        (vit(width=-1), "vision.width: got -1, expected a positive integer"),
        (vit(image_resolution=32.0), "vision.image_resolution: got 32.0, expected a positive"),
        (resnet(image_resolution=50), "vision.image_resolution: got 50, expected a multiple of 32"),
        (resnet(layers=12), "vision.layers: got 12, expected four positive numbers"),
        (resnet(pool="max"), "vision.pool: got 'max', expected one of attention, average"),
        (resnet(stride=2), "vision.stride: got 2, but a ResNet has no patches"),
        (text(end_id=50), "text.end_id: got 50, expected an id below vocab_size 50"),
        (text(context_length=0), "text.context_length: got 0"),
        (vit(mlp_width=-5), "vision.mlp_width: got -5, expected a positive integer"),
        (vit(mlp_width=0), "vision.mlp_width: got 0"),
        (vit(eps=-1.0), "vision.eps: got -1.0, expected a small positive number"),
        (vit(eps="x"), "vision.eps: got 'x'"),
        (vit(width=None), "vision.width: got None, expected a positive integer"),
        (vit(layers=True), "vision.layers: got True"),
        (vit(pool="average"), "vision.pool: got 'average', but only a ResNet"),
        (resnet(layers=(1, 2, 1.5, 1)), "vision.layers: got"),
        (resnet(mlp_width=7), "vision.mlp_width: got 7, but a ResNet"),
        (resnet(proj=False), "vision.proj: got False, but a ResNet"),
        (text(eps=float("nan")), "text.eps: got nan"),
        (text(mlp_width=1.5), "text.mlp_width: got 1.5"),
        (lambda: CLIPConfig(24, None, None), "config: got neither vision nor text"),
        (lambda: CLIPConfig(24, vit(proj=False)(), None), "vision.proj: without a projection"),
        (lambda: get_config("ViT-B32"), "model: got 'ViT-B32', expected one of RN50"),
    ]  # fmt: skip
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


def test_lists_and_numpy_numbers_in_configurations():
    """A list of blocks, as JSON has it, is a tuple; an eps of NumPy's becomes Python's."""
    config = VisionConfig(**{**vars(RESNET.vision), "layers": [1, 2, 1, 1]})
    assert config == RESNET.vision
    assert type(VisionConfig(**{**vars(VIT.vision), "eps": np.float64(1e-5)}).eps) is float


@pytest.mark.parametrize("kind", CONFIGS)
def test_wrong_gradients_at_the_towers(kind):
    config = CONFIGS[kind]
    model = CLIP(config, seed=0)
    pictures, ids, _ = inputs_for(config, images=2, texts=2)
    for tower, x in ((model.visual, pictures.astype("f4")), (model.text, ids)):
        for dy, error, message in (
            (np.zeros((2, 25), "f4"), ValueError, r"dy: got shape \(2, 25\), expected \(2, 24\)"),
            (np.zeros(24, "f4"), ValueError, r"dy: got shape \(24,\), expected \(2, 24\)"),
            (np.zeros((2, 24)), TypeError, "dy: got float64, expected float32"),
        ):
            with model.record():
                tower(x)
                with pytest.raises(error, match=message):
                    tower.backward(dy)
    with model.record():
        model(pictures.astype("f4"), ids)
        with pytest.raises(TypeError, match="dper_image: got float64"):
            model.backward(np.eye(2))


@pytest.mark.parametrize("kind", CONFIGS)
def test_images_too_small_for_one_patch(kind):
    model = CLIP(CONFIGS[kind], seed=0)
    model.visual.interpolate = True
    with pytest.raises(ValueError, match=r"images: got shape \(1, 3, 4, 4\), expected at least"):
        model.visual(np.zeros((1, 3, 4, 4), np.float32))


@pytest.fixture(scope="module")
def vit():
    model = CLIP(VIT, seed=None)
    model.load_state_dict(living_state(VIT, 1))
    return model


def test_wrong_inputs(vit):
    image, ids = np.zeros((1, 3, 32, 32), np.float32), np.full((1, 9), 49)
    cases = [
        (lambda: vit.visual(image[0]), ValueError, r"images: got shape \(3, 32, 32\), expected \(B, 3, 32, 32\)"),
        (lambda: vit.visual(image[:, :2]), ValueError, r"images: got shape \(1, 2, 32, 32\)"),
        (lambda: vit.visual(image[:0]), ValueError, "with B > 0"),
        (lambda: vit.visual(image[..., :31]), ValueError, "for other sizes set `.interpolate"),
        (lambda: vit.visual(image.astype("f8")), TypeError, "images: got float64, expected float32"),
        (lambda: vit.visual(image.astype("u1")), TypeError, "images: got uint8, expected float32"),
        (lambda: vit.visual([1, 2]), TypeError, "images: got list, expected a float32 array"),
        (lambda: vit.text(ids[0]), ValueError, r"ids: got shape \(9,\), expected \(B, T\)"),
        (lambda: vit.text(np.zeros((1, 10), int)), ValueError, "ids: got 10 tokens, expected at most 9"),
        (lambda: vit.text(ids + 1), ValueError, "ids: got 50, expected ids from 0 to 49"),
        (lambda: vit.text(ids - 50), ValueError, "ids: got -1, expected ids from 0 to 49"),
        (lambda: vit.text(ids * 1.0), TypeError, "ids: got float64, expected integers"),
        (lambda: vit.text("a cat"), TypeError, "ids: got str, expected an integer array"),
        (lambda: vit.to(dtype="float16"), TypeError, "dtype: got float16, expected float32 or float64"),
        (lambda: vit.to("torch"), ValueError, "backend: got 'torch', expected one of"),
    ]  # fmt: skip
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()


def test_wrong_states(vit):
    state = living_state(VIT, 1)
    before = {k: v.copy() for k, v in vit.state_dict().items()}
    missing = {k: v for k, v in state.items() if k != "visual.proj"}
    with pytest.raises(ValueError, match=r"load_state_dict: missing visual\.proj"):
        vit.load_state_dict(missing)
    with pytest.raises(ValueError, match=r"unexpected visual\.attnpool\.x"):
        vit.load_state_dict(state | {"visual.attnpool.x": np.zeros(1)})
    with pytest.raises(ValueError, match=r"visual\.proj has shape \(2, 2\), expected \(128, 24\)"):
        vit.load_state_dict(state | {"visual.proj": np.zeros((2, 2), np.float32)})
    assert all(np.array_equal(before[k], v) for k, v in vit.state_dict().items())


def test_missing_tower():
    only_text = CLIP(CLIPConfig(24, None, VIT.text))
    with pytest.raises(ValueError, match="this model has no image tower"):
        only_text.encode_image(np.zeros((1, 3, 32, 32), np.float32))
    only_image = CLIP(CLIPConfig(24, VIT.vision, None))
    with pytest.raises(ValueError, match="this model has no text tower"):
        only_image.encode_text(np.zeros((1, 9), int))
    assert "logit_scale" not in dict(only_image.named_parameters())


def test_moving_keeps_the_numbers(vit):
    """numpy -> numba -> numpy, float32 -> float64 -> float32: the same bits."""
    before = {k: v.copy() for k, v in vit.state_dict().items()}
    vit.to("numba", "float64").to("numpy").to(dtype="float32")
    assert vit.ops is backends.get("numpy")
    after = vit.state_dict()
    assert all(np.array_equal(before[k], after[k]) and after[k].dtype == "float32" for k in before)


# Ops that no module calls: the losses belong to training, the plain softmax to tasks.
WITHOUT_MODULE = {"cross_entropy", "contrastive_loss", "sigmoid_loss", "softmax"}


def test_every_op_has_a_module():
    """No op is left over: each is called by a module, but for the losses and softmax."""
    rooms = [Path(miniclip.__file__).parent / room for room in ("nn", "models")]
    sources = "".join(path.read_text() for room in rooms for path in room.glob("*.py"))
    called = {op for op in ops.PAIRS if re.search(rf'ops\.{op}\(|op = "{op}"', sources)}
    assert set(ops.PAIRS) - called == WITHOUT_MODULE
