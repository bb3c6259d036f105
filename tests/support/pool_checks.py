"""The attention pool against PyTorch's own multi-head attention, as the original calls it.

The check takes the package to test, so that the planted bugs go through it too.
"""

import importlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from cases import lay_out, sizes, start, torch_interpolate
from hypothesis import strategies as st
from model_checks import close

PARTS = ("q_proj", "k_proj", "v_proj", "c_proj")
LAYOUTS = ("contiguous", "transposed", "sliced", "broadcast")


@dataclass(frozen=True)
class Pooling:
    """A pool, a map of its grid's size or of another one, and a gradient of the embeddings."""

    grid: int
    heads: int
    state: dict[str, np.ndarray]
    x: np.ndarray  # (B, C, H, W)
    dy: np.ndarray  # (B, E)


@st.composite
def poolings(draw):
    rng, _ = start(draw)
    batch, heads, embed = draw(sizes(1, 3)), draw(sizes(1, 3)), 5
    channels, grid = heads * draw(sizes(4, 6)), draw(sizes(1, 4))
    height, width = (grid, grid) if draw(st.booleans()) else (draw(sizes(1, 5)), draw(sizes(1, 5)))
    state = {"positional_embedding": rng.standard_normal((1 + grid * grid, channels))}
    for part in PARTS:
        rows = embed if part == "c_proj" else channels
        state[f"{part}.weight"] = rng.standard_normal((rows, channels)) * channels**-0.5
        state[f"{part}.bias"] = rng.standard_normal(rows)
    x = lay_out(
        rng.standard_normal((batch, channels, height, width)), draw(st.sampled_from(LAYOUTS))
    )
    return Pooling(grid, heads, state, x, rng.standard_normal((batch, embed)))


def check_pool(package, pooling, backend="numpy", place=np.asarray):
    """The embedding and the gradients of the map and of every parameter, in float64."""
    channels = pooling.x.shape[1]
    nn = importlib.import_module(f"{package.__name__}.nn")
    pool = nn.AttentionPool2d(pooling.grid, channels, pooling.heads, pooling.dy.shape[1])
    pool.to(dtype="float64").load_state_dict(pooling.state)
    pool.to(backend)
    x, dy = place(pooling.x), place(pooling.dy)
    with pool.record():
        y = pool(x)
        dx = pool.backward(dy)
    host = pool.ops.to_numpy
    got = {"y": host(y), "dx": host(dx)}
    got |= {f"d{name}": host(p.grad) for name, p in pool.named_parameters()}
    expected = by_pytorch(pooling)
    assert got.keys() == expected.keys()
    largest = max(np.abs(g).max() for g in expected.values())
    for name, truth in expected.items():
        if name.startswith(("dk_proj", "dq_proj")):  # with one pixel, two like tokens: zero
            assert got[name].shape == truth.shape
            assert np.abs(got[name] - truth).max() <= 1e-10 * largest, name
        else:
            close(name, got[name], truth, 1e-10)
    assert np.array_equal(host(x), pooling.x), "the map was written to"
    assert np.array_equal(host(dy), pooling.dy), "the gradient was written to"


def by_pytorch(pooling):
    """The same numbers by `F.multi_head_attention_forward`, and its autograd."""
    p = {name: torch.tensor(a, requires_grad=True) for name, a in pooling.state.items()}
    x = torch.tensor(np.array(pooling.x), requires_grad=True)
    positions, size = p["positional_embedding"], tuple(x.shape[2:])
    if size != (pooling.grid, pooling.grid):
        positions = torch_interpolate(positions, size, 1, antialias=True)
    tokens = x.flatten(2).permute(2, 0, 1)  # (HW, B, C)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + positions[:, None]
    y, _ = F.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=pooling.heads,
        q_proj_weight=p["q_proj.weight"],
        k_proj_weight=p["k_proj.weight"],
        v_proj_weight=p["v_proj.weight"],
        in_proj_weight=None,
        in_proj_bias=torch.cat([p[f"{part}.bias"] for part in PARTS[:3]]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=p["c_proj.weight"],
        out_proj_bias=p["c_proj.bias"],
        use_separate_proj_weight=True,
        training=False,
        need_weights=False,
    )
    (y[0] * torch.tensor(pooling.dy)).sum().backward()
    gradients = {f"d{name}": t.grad.numpy() for name, t in p.items()}
    return {"y": y[0].detach().numpy(), "dx": x.grad.numpy(), **gradients}
