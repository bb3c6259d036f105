"""Towers that hand out their tokens: `tokens`, `pool` and `dense` against the original model.

What the original's modules put out on the way is caught by hooks; the rest is plain PyTorch. The
checks take the package to test, so that the planted bugs go through the very same ones.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from model_checks import CONFIGS, close, compare_gradient, inputs_for, own_config, variant
from original import living_state, load_into_original, original_clip

WIDE = (64, 128)  # pixels, not square; the towers' own sizes are 32 x 32 and 64 x 64
TOWERS = {
    **CONFIGS,
    "average": variant("resnet", pool="average"),
    "one block": variant("vit", layers=1),
}
IMAGES = 2


def pictures(size, seed=0):
    rng = np.random.default_rng([seed, *size])
    coarse = rng.standard_normal((IMAGES, 3, size[0] // 8 + 1, size[1] // 8 + 1))
    coarse = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, : size[0], : size[1]]
    return coarse + rng.standard_normal((IMAGES, 3, *size)) / 2


def own_size(kind):
    return (TOWERS[kind].vision.image_resolution,) * 2


def odd_size(kind):
    """That no patch, and no pixel of the last map, divides."""
    return (43, 61) if kind == "vit" else (95, 63)


def gradient_for(shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def the_originals(kind):
    """The tower that the original can express; it has no mean pool."""
    return "resnet" if kind == "average" else kind


@functools.cache
def state_of(kind):
    """Of a whole CLIP; with the mean pool the rest is the ResNet's."""
    state = living_state(TOWERS[the_originals(kind)], 1)
    if kind != "average":
        return state
    rng = np.random.default_rng(0)
    state = {name: x for name, x in state.items() if "attnpool" not in name}
    state["visual.attnpool.c_proj.weight"] = rng.standard_normal((24, 256)) / 16
    return state | {"visual.attnpool.c_proj.bias": rng.standard_normal(24)}


def ours(package, kind, backend="numpy"):
    """Our CLIP in float64, whose image tower lets in pictures of any size."""
    model = package.CLIP(own_config(package, TOWERS[kind]), seed=None).to(dtype="float64")
    model.load_state_dict(state_of(kind))
    model.to(backend)
    model.visual.interpolate = True
    return model


def theirs(kind, size):
    """The original's image tower with its positions resized for such pictures, and its parameters
    by our names.
    """
    config = TOWERS[the_originals(kind)]
    model = original_clip(config, torch.float64)
    load_into_original(model, living_state(config, 1))
    visual = model.visual
    if kind == "average":
        linear = torch.nn.Linear(256, 24).double()
        linear.load_state_dict(
            {
                n: torch.tensor(state_of(kind)[f"visual.attnpool.c_proj.{n}"])
                for n in ("weight", "bias")
            }
        )
        visual.attnpool = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear
        )
    parameters = {f"visual.{name}": p for name, p in visual.named_parameters()}
    parameters = {n.replace("attnpool.2", "attnpool.c_proj"): p for n, p in parameters.items()}
    if size != own_size(kind) and kind != "average":
        owner = visual if hasattr(visual, "transformer") else visual.attnpool
        resize_positions(owner, their_grid(visual, size))
    return visual, parameters


def their_grid(visual, size):
    last = visual.conv1 if hasattr(visual, "transformer") else visual.layer4
    with torch.no_grad():
        return tuple(watched(visual, last, torch.zeros(1, 3, *size).double())[0].shape[2:])


def watched(visual, module, pixels):
    """What a module of the tower puts out for these pictures, and the embedding (None if the tower
    cannot say it: its positions do not fit yet).
    """
    caught = []
    handle = module.register_forward_hook(lambda module, inputs, y: caught.append(y))
    try:
        y = visual(pixels)
    except RuntimeError:
        y = None
    finally:
        handle.remove()
    return caught[0], y


def resize_positions(owner, grid):
    """In place of the parameter a tensor that is computed from it, as open_clip resizes it."""
    positions = owner.positional_embedding
    side = round((len(positions) - 1) ** 0.5)
    square = positions[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
    rows = resized[0].permute(1, 2, 0).reshape(grid[0] * grid[1], -1)
    del owner.positional_embedding
    owner.positional_embedding = torch.cat([positions[:1], rows])


# ---------------------------------------------------------------- what PyTorch says


def their_tokens(visual, pixels):
    """Every token before the pool."""
    if hasattr(visual, "transformer"):
        return watched(visual, visual.transformer, pixels)[0].permute(
            1, 0, 2
        )  # it runs as (T, B, D)
    return watched(visual, visual.layer4, pixels)[0].flatten(2).transpose(1, 2)


def ask_theirs(kind, size, way, dy=None):
    """`way` of the original: its output, and all gradients by name if there is a dy."""
    visual, parameters = theirs(kind, size)
    pixels = torch.tensor(pictures(size), requires_grad=True)
    y = way(visual, pixels)
    if dy is None:
        return y.detach().numpy(), {}
    (y * torch.tensor(dy)).sum().backward()
    gradients = {n: p.grad.numpy() for n, p in parameters.items() if p.grad is not None}
    return y.detach().numpy(), {"pixels": pixels.grad.numpy(), **gradients}


def compare(model, y, dpixels, expected, gradients):
    """Ours against theirs: also that what they do not reach has no gradient here."""
    host = model.ops.to_numpy
    close("output", host(y), expected)
    got = {n: host(p.grad) for n, p in model.named_parameters() if p.grad is not None}
    got["pixels"] = host(dpixels)
    assert got.keys() == gradients.keys()
    for name, gradient in gradients.items():
        compare_gradient(name, got[name], gradient, gradients)


# ---------------------------------------------------------------- checks


def check_tokens(package, kind, size, backend="numpy", place=np.asarray):
    """All tokens, and the gradients that come back when only they are used."""
    model = ours(package, kind, backend)
    tower, images = model.visual, pictures(size)
    expected, _ = ask_theirs(kind, size, their_tokens)
    dtokens = gradient_for(expected.shape)
    with model.record():
        tokens = tower.tokens(place(images))
        dpixels = tower.tokens_backward(place(dtokens))
    compare(model, tokens, dpixels, *ask_theirs(kind, size, their_tokens, dtokens))
    rows, columns = tower.grid_of(*size)
    assert tokens.shape[1] == rows * columns + (kind == "vit")


def check_pool(package, kind, size, backend="numpy", place=np.asarray):
    """Tokens and pool by hand give the bits of forward; both their gradients meet in the tokens."""
    model = ours(package, kind, backend)
    tower, images = model.visual, pictures(size)
    grid = () if kind == "vit" else (tower.grid_of(*size),)
    extra = gradient_for(ask_theirs(kind, size, their_tokens)[0].shape)
    dy = gradient_for((IMAGES, 24), 2)
    with model.record():
        tokens = tower.tokens(place(images))
        y = tower.pool(tokens, *grid)
        dtokens = tower.pool_backward(place(dy))
        dpixels = tower.tokens_backward(dtokens + place(extra))
    host = model.ops.to_numpy
    assert np.array_equal(host(tower(place(images))), host(y))

    def both(visual, pixels):
        """One number: the embedding and the tokens, each against its gradient."""
        tokens, y = watched_pool(visual, pixels)
        return (y * torch.tensor(dy)).sum() + (tokens * torch.tensor(extra)).sum()

    expected, _ = ask_theirs(kind, size, lambda visual, pixels: watched_pool(visual, pixels)[1])
    _, gradients = ask_theirs(kind, size, both, np.ones(()))
    compare(model, y, dpixels, expected, gradients)


def watched_pool(visual, pixels):
    """The tokens and the embedding of one pass."""
    if hasattr(visual, "transformer"):
        tokens, y = watched(visual, visual.transformer, pixels)
        return tokens.permute(1, 0, 2), y
    tokens, y = watched(visual, visual.layer4, pixels)
    return tokens.flatten(2).transpose(1, 2), y


def check_text_tokens(package, backend="numpy", place=np.asarray):
    """The text tower's tokens (after ln_final, padding too) and its pool."""
    model = ours(package, "vit", backend)
    _, ids, _ = inputs_for(TOWERS["vit"])
    original = original_clip(TOWERS["vit"], torch.float64)
    load_into_original(original, state_of("vit"))
    parameters = {n: p for n, p in original.named_parameters() if not n.startswith("visual.")}
    tokens, y = [], original.encode_text
    handle = original.ln_final.register_forward_hook(lambda module, x, out: tokens.append(out))
    y = original.encode_text(torch.tensor(ids))
    handle.remove()
    extra, dy = gradient_for(tokens[0].shape), gradient_for(y.shape, 2)
    ((tokens[0] * torch.tensor(extra)).sum() + (y * torch.tensor(dy)).sum()).backward()
    gradients = {n: p.grad.numpy() for n, p in parameters.items() if p.grad is not None}

    tower, there = model.text, model.ops.as_ids(ids) if backend == "numba" else place(ids)
    with model.record():
        ours_tokens = tower.tokens(there)
        ours_y = tower.pool(ours_tokens, there)
        tower.tokens_backward(tower.pool_backward(place(dy)) + place(extra))
    host = model.ops.to_numpy
    close("tokens", host(ours_tokens), tokens[0].detach().numpy())
    close("embedding", host(ours_y), y.detach().numpy())
    assert np.array_equal(host(tower(there)), host(ours_y))
    got = {n: host(p.grad) for n, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == gradients.keys()
    for name, gradient in gradients.items():
        compare_gradient(name, got[name], gradient, gradients)


# ---------------------------------------------------------------- dense

DENSE = {
    "vit": [{"path": "tokens"}, *({"path": "value", "residual": r} for r in (True, False))],
    "one block": [{"path": "value", "residual": r} for r in (True, False)],
    "resnet": [{"positions": p} for p in (False, True)],
    "average": [{}],
}


def their_dense(options):
    """A function of the original's tower and pixels, in plain PyTorch."""

    def of_vit(visual, pixels):
        if options["path"] == "tokens":
            tokens = watched(visual, visual.transformer, pixels)[0]
        else:
            tokens = to_itself(visual, pixels, options["residual"])
        return (visual.ln_post(tokens[1:]) @ visual.proj).transpose(0, 1)  # from (T, B, E)

    def of_resnet(visual, pixels):
        x, _ = watched(visual, visual.layer4, pixels)  # (B, C, H, W)
        if isinstance(visual.attnpool, torch.nn.Sequential):
            return one_by_one(x, visual.attnpool[2]).flatten(2).transpose(1, 2)
        pool = visual.attnpool
        if options["positions"]:
            x = x + pool.positional_embedding[1:].T.reshape(1, *x.shape[1:])
        return one_by_one(one_by_one(x, pool.v_proj), pool.c_proj).flatten(2).transpose(1, 2)

    return lambda visual, pixels: (of_vit if hasattr(visual, "transformer") else of_resnet)(
        visual, pixels
    )


def to_itself(visual, pixels, residual):
    """The last block with the original's attention, masked so that a token sees only itself."""
    block, caught = visual.transformer.resblocks[-1], []
    handle = block.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    visual(pixels)
    handle.remove()
    x = caught[0]  # (T, B, D)
    mask = torch.full((len(x), len(x)), -torch.inf, dtype=x.dtype).fill_diagonal_(0)
    if residual:
        block.attn_mask = mask
        return block(x)
    h = block.ln_1(x)
    return block.attn(h, h, h, need_weights=False, attn_mask=mask)[0]


def one_by_one(x, linear):
    """A linear layer as a convolution of 1x1 pixels, as MaskCLIP writes it."""
    return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)


def check_dense(package, kind, size, options, backend="numpy", place=np.asarray):
    """An embedding a position, and the gradients of pixels and parameters."""
    model = ours(package, kind, backend)
    tower, images = model.visual, pictures(size)
    rows, columns = tower.grid_of(*size)
    dy = gradient_for((IMAGES, rows * columns, 24))
    with model.record():
        y = tower.dense(place(images), **options)
        dpixels = tower.dense_backward(place(dy))
    expected, gradients = ask_theirs(kind, size, their_dense(options), dy)
    if options.get("path") == "value":
        without_queries(gradients, TOWERS[kind].vision.layers - 1)
    compare(model, y, dpixels, expected, gradients)


def without_queries(gradients, last):
    """The last block's queries and keys count for nothing. The original's attention gives them
    gradients that are rounding only; here they become what they ought to be.
    """
    largest = max(np.abs(g).max() for g in gradients.values())
    for part in ("weight", "bias"):
        gradient = gradients[f"visual.transformer.resblocks.{last}.attn.in_proj_{part}"]
        queries_and_keys = gradient[: len(gradient) * 2 // 3]
        assert np.abs(queries_and_keys).max() < 1e-12 * largest
        queries_and_keys[...] = 0
