"""The transformers' part of a plan: residual blocks, and a last block that only one token leaves.

What is asked of a tower is mostly one token of each sequence: the class token, or the end of the
text. So the last block has one query a sequence, unless all tokens are asked for. For one query
q = Wq x the attention's keys and values need not be made at all, because a sum can be taken in
another order:

    score of token t = q · (Wk x_t + bk) = (Wkᵀ q) · x_t + a number that is the same for every t
    mixed values     = sum_t a_t (Wv x_t + bv) = Wv (sum_t a_t x_t) + bv

That is a product of one row instead of T rows, twice. The ResNets' attention pool has one query
too, and the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniclip.engine.cpu import kernels
from miniclip.engine.cpu.attention_kernels import attend_all, attend_once
from miniclip.engine.cpu.packing import Weights, pack, pack_groups, padded
from miniclip.engine.cpu.program import Member, Program, Run, all_rows, all_sequences, float32
from miniclip.nn.layers import GELU, GELUTanh, QuickGELU
from miniclip.ops.array import Array

ACTIVATIONS = {
    QuickGELU: kernels.QUICK_GELU,
    GELU: kernels.GELU,
    GELUTanh: kernels.GELU_TANH,
}
QUERIES = 48  # rows of scores in work at once


@dataclass(frozen=True, eq=False)
class Pool:
    """The weights of attention with one query a sequence, packed."""

    heads: int
    width: int  # of a head, padded
    query: Weights
    key: Weights  # a group for each head: its part of Wkᵀ
    value: Weights  # a group for each head


@dataclass(frozen=True, eq=False)
class Block:
    """A residual block's weights, packed. The attention is `qkv`, in the last block `pool`."""

    module: Any
    qkv: Weights | None
    pool: Pool | None
    heads: int
    head: int  # numbers of a head, padded
    out: Weights
    fc: Weights
    proj: Weights
    activation: int


def pack_block(module: Any, is_last: bool) -> Block:
    attn, mlp = module.attn, module.mlp
    heads, d = attn.heads, attn.in_proj_weight.data.shape[1] // attn.heads
    weights, biases = projections_of(attn)
    c_fc, gelu, c_proj = mlp
    return Block(
        module,
        qkv=None if is_last else pack_qkv(weights, biases),
        pool=pack_pool(weights, biases) if is_last else None,
        heads=heads,
        head=padded(d),
        out=pack(by_heads(attn.out_proj.weight.data, heads), attn.out_proj.bias.data),
        fc=pack(c_fc.weight.data, c_fc.bias.data),
        proj=pack(c_proj.weight.data, c_proj.bias.data),
        activation=ACTIVATIONS[type(gelu)],
    )


def projections_of(attn: Any) -> tuple[Array, Array]:
    """The weights (3, H, d, D) and biases (3, H, d) of q, k and v."""
    heads, d = attn.heads, attn.in_proj_weight.data.shape[1] // attn.heads
    weights = np.asarray(attn.in_proj_weight.data).reshape(3, heads, d, -1)
    return weights, np.asarray(attn.in_proj_bias.data).reshape(3, heads, d)


def with_all_queries(last: Block) -> Block:
    """The last block as one that all tokens leave. Whatever both need is shared."""
    return replace(last, qkv=pack_qkv(*projections_of(last.module.attn)), pool=None)


def pack_qkv(weights: Array, biases: Array) -> Weights:
    """(3, H, d, D) and (3, H, d): heads padded to whole vectors, queries scaled by 1 / sqrt(d)."""
    d = weights.shape[2]
    scales = np.array([d**-0.5, 1, 1], np.float32)
    if d == padded(d):
        rows = weights.reshape(-1, weights.shape[3]).copy()
        rows[: len(rows) // 3] *= scales[0]
        return pack(rows, (biases * scales[:, None, None]).reshape(-1))
    wide = np.zeros((*weights.shape[:2], padded(d), weights.shape[3]), np.float32)
    wide[:, :, :d] = weights * scales[:, None, None, None]
    wide_bias = np.zeros((*biases.shape[:2], padded(d)), np.float32)
    wide_bias[:, :, :d] = biases * scales[:, None, None]
    return pack(wide.reshape(-1, wide.shape[-1]), wide_bias.reshape(-1))


def pack_pool(weights: Array, biases: Array) -> Pool:
    """(3, H, d, D) and (3, H, d) -> the weights of attention with one query."""
    (wq, wk, wv), (bq, bk, bv) = weights, biases
    heads, d, width = wq.shape
    scale = np.float32(d**-0.5)
    query = np.zeros((heads, padded(d), width), np.float32)
    query[:, :d] = wq * scale
    query_bias = np.zeros((heads, padded(d)), np.float32)
    with np.errstate(invalid="ignore"):
        query_bias[:, :d] = bq * scale + 0 * bk  # of bk only NaN and inf count: they must show
    key = np.zeros((heads, width, padded(d)), np.float32)
    key[:, :, :d] = wk.swapaxes(1, 2)
    return Pool(
        heads,
        padded(d),
        pack(query.reshape(-1, width), query_bias.reshape(-1)),
        pack_groups(key),
        pack_groups(wv, bv),
    )


def by_heads(weight: Array, heads: int) -> Array:
    """(N, H d) -> (N, H padded(d)): the columns of padded heads, zero where there is nothing."""
    n, d = weight.shape[0], weight.shape[1] // heads
    if d == padded(d):
        return weight
    wide = np.zeros((n, heads, padded(d)), np.float32)
    wide[:, :, :d] = weight.reshape(n, heads, d)
    return wide.reshape(n, -1)


def add_blocks(program: Program, blocks: list[Block], width: int, causal: bool, most: int) -> str:
    """All blocks on the residual stream in buffer "x". most: tokens of the longest sequence.

    Returns the buffer with the chosen token of each sequence, rows of padded(width).
    """
    add_whole_blocks(program, blocks[:-1], width, causal, most)
    last, name = blocks[-1], f"block {len(blocks) - 1}"
    row = padded(width)
    program.buffer("y", row)
    program.layer_norm(f"{name}, ln_1", "x", "y", width, row, last.module.ln_1, all_rows)
    add_gather(program, "x", "one x", row)
    add_gather(program, "y", "one y", row)
    assert last.pool is not None
    mixed = add_pool(program, name, last.pool, "one y", "y", row, most)
    program.product(
        f"{name}, out_proj", mixed, last.out.depth, last.out, "one x", row,
        rows=all_sequences, add=True,
    )  # fmt: skip
    add_mlp(program, name, last, width, "one x", "one y", all_sequences)
    return "one x"


def add_whole_blocks(
    program: Program, blocks: list[Block], width: int, causal: bool, most: int
) -> None:
    """Blocks that all tokens leave, on the residual stream in buffer "x"; see `add_blocks`."""
    for number, block in enumerate(blocks):
        add_attention(program, f"block {number}", block, width, causal, most)
        add_mlp(program, f"block {number}", block, width, "x", "y", all_rows)


def add_attention(
    program: Program, name: str, block: Block, width: int, causal: bool, most: int
) -> None:
    """x += out_proj(attention(ln_1(x)))."""
    assert block.qkv is not None
    row, row_qkv, mixed = padded(width), block.qkv.columns, block.heads * block.head
    heads, head = block.heads, block.head
    program.buffer("y", max(row, mixed))
    program.buffer("wide", row_qkv)
    program.need_scratch((head + QUERIES) * padded(most))
    program.layer_norm(f"{name}, ln_1", "x", "y", width, row, block.module.ln_1, all_rows)
    program.product(f"{name}, q k v", "y", row, block.qkv, "wide", row_qkv, rows=all_rows)

    def step(run: Run, member: Member) -> None:
        attend_all(
            run.space["wide"], row_qkv, run.starts, heads, head, causal,
            run.space["y"], mixed, QUERIES, run.scratch, member.at, *member.meeting,
        )  # fmt: skip

    program.add(f"{name}: attention, {heads} heads", step)
    program.product(f"{name}, out_proj", "y", mixed, block.out, "x", row, rows=all_rows, add=True)


def add_mlp(
    program: Program, name: str, block: Block, width: int, x: str, y: str, rows: Any
) -> None:
    """x += c_proj(activation(c_fc(ln_2(x))))."""
    row, hidden = padded(width), block.fc.columns
    program.buffer("wide", hidden)
    program.layer_norm(f"{name}, ln_2", x, y, width, row, block.module.ln_2, rows)
    program.product(
        f"{name}, c_fc", y, row, block.fc, "wide", hidden, rows=rows, activation=block.activation
    )
    program.product(f"{name}, c_proj", "wide", hidden, block.proj, x, row, rows=rows, add=True)


def add_gather(program: Program, x: str, y: str, row: int) -> None:
    """The chosen row of each sequence."""
    program.buffer(y, per_sequence=row)

    def step(run: Run, member: Member) -> None:
        kernels.gather_rows(run.space[x], run.chosen, row, run.space[y], *member.meeting)

    program.add(f"{y}: keep only the chosen rows of {x}", step)


def add_pool(
    program: Program, name: str, pool: Pool, asking: str, tokens: str, row: int, most: int
) -> str:
    """Attention of one query a sequence (buffer `asking`) to its tokens. Returns the result's
    buffer, rows of all heads.
    """
    mixed, looked_for = pool.query.columns, pool.heads * row
    program.buffer("one q", per_sequence=mixed)
    program.buffer("looked for", per_sequence=looked_for)
    program.buffer("found", per_sequence=looked_for)
    program.buffer("mixed", per_sequence=mixed)
    program.need_scratch((row + most) * padded(pool.heads))
    program.product(f"{name}, q", asking, row, pool.query, "one q", mixed, rows=all_sequences)
    program.product(
        f"{name}, q folded into the key weights",
        "one q", mixed, pool.key, "looked for", looked_for,
        rows=all_sequences, group_a=pool.width, group_c=row,
    )  # fmt: skip

    def step(run: Run, member: Member) -> None:
        attend_once(
            run.space["looked for"], run.space[tokens], row, pool.query.depth, run.starts,
            pool.heads, run.space["found"], run.scratch, member.at, *member.meeting,
        )  # fmt: skip

    program.add(f"{name}: attention with one query, {pool.heads} heads", step)
    program.product(
        f"{name}, values", "found", looked_for, pool.value, "mixed", mixed,
        rows=all_sequences, group_a=row, group_c=pool.width,
    )  # fmt: skip
    return "mixed"


def pack_projection(matrix: Any) -> Weights | None:
    return None if matrix is None else pack(np.asarray(matrix.data).T)


def add_projection(
    program: Program, x: str, width: int, matrix: Any, weights: Weights | None
) -> None:
    """The last step: (B, width) @ (width, E), or nothing but x itself. Sets the output."""
    row = padded(width)
    if weights is None:
        program.output, program.columns, program.width = x, row, width
        return
    program.buffer("out", per_sequence=weights.columns)
    program.product("projection", x, row, weights, "out", weights.columns, rows=all_sequences)
    program.output, program.columns = "out", weights.columns
    program.width = matrix.data.shape[1]


def add_words(program: Program, tower: Any) -> None:
    """Word vectors plus positions -> x."""
    positions = float32(tower.positional_embedding.data)
    width = tower.positional_embedding.data.shape[1]
    row = padded(width)
    program.buffer("x", row)

    def step(run: Run, member: Member) -> None:
        kernels.word_tokens(
            run.x, run.places, positions, width, row, run.space["x"], *member.meeting
        )

    program.add("words: vectors plus positions", step)
