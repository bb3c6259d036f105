"""The vision transformers' part of a plan: patches, tokens, blocks, projection."""

from __future__ import annotations

from typing import Any

import numpy as np

from miniclip.engine.cpu import kernels
from miniclip.engine.cpu.map_kernels import unfold_images
from miniclip.engine.cpu.packing import pack, padded
from miniclip.engine.cpu.program import Member, Program, Run, all_sequences, float32
from miniclip.engine.cpu.transformer import (
    Block,
    add_blocks,
    add_projection,
    add_whole_blocks,
    pack_block,
    pack_projection,
    with_all_queries,
)


def pack_blocks(transformer: Any) -> list[Block]:
    modules = list(transformer.resblocks)
    return [pack_block(module, module is modules[-1]) for module in modules]


def add_vit(
    program: Program,
    tower: Any,
    packed: dict[Any, Any],
    height: int,
    width: int,
    all_tokens: bool = False,
) -> None:
    """The whole tower for pictures of one size, or what gives all tokens as they leave it."""
    if not packed:
        weight = tower.conv1.weight.data
        packed["patches"] = pack(weight.reshape(len(weight), -1))
        packed["blocks"] = pack_blocks(tower.transformer)
        packed["proj"] = pack_projection(tower.proj)
    size, stride = tower.conv1.weight.data.shape[-1], tower.conv1.stride
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    tokens, numbers = rows * columns + 1, tower.ln_pre.weight.data.shape[0]
    program.tokens = tokens
    add_patches(program, packed["patches"], size, stride, rows, columns)
    add_tokens(program, tower, numbers, tokens, float32(tower.positions(height, width)[0]))
    if all_tokens:
        add_all_tokens(program, packed, numbers, tokens)
        return
    chosen = add_blocks(program, packed["blocks"], numbers, False, tokens)
    row = padded(numbers)
    program.layer_norm("ln_post", chosen, chosen, numbers, row, tower.ln_post, all_sequences)
    add_projection(program, chosen, numbers, tower.proj, packed["proj"])


def add_all_tokens(program: Program, packed: dict[Any, Any], width: int, tokens: int) -> None:
    """All blocks whole. The residual stream is the output."""
    if "last block" not in packed:
        packed["last block"] = with_all_queries(packed["blocks"][-1])
    blocks = [*packed["blocks"][:-1], packed["last block"]]
    add_whole_blocks(program, blocks, width, False, tokens)
    program.output, program.columns, program.width = "x", padded(width), width
    program.outputs = tokens


def add_patches(program: Program, w: Any, size: int, stride: int, rows: int, columns: int) -> None:
    """Pictures -> buffer "y": a row for each patch."""
    program.buffer("wide", per_sequence=rows * columns * w.depth)
    program.buffer("y", w.columns)

    def step(run: Run, member: Member) -> None:
        unfold_images(run.x, size, stride, 0, rows, columns, run.space["wide"], *member.meeting)

    program.add(f"conv1: pixels of each patch, {rows} x {columns}", step)
    program.product(
        "conv1", "wide", w.depth, w, "y", w.columns,
        rows=lambda run: run.sequences * rows * columns,
    )  # fmt: skip


def add_tokens(
    program: Program, tower: Any, width: int, tokens: int, positions: np.ndarray
) -> None:
    """Buffer "y" -> buffer "x": class token, positions, first LayerNorm."""
    row = padded(width)
    program.buffer("x", row)
    class_token = float32(tower.class_embedding.data)
    weight, bias = float32(tower.ln_pre.weight.data), float32(tower.ln_pre.bias.data)
    eps = np.float32(tower.ln_pre.eps)

    def step(run: Run, member: Member) -> None:
        kernels.image_tokens(
            run.space["y"], class_token, positions, run.sequences, tokens, width, row,
            weight, bias, eps, run.space["x"], *member.meeting,
        )  # fmt: skip

    program.add("tokens: class token, positions, ln_pre", step)
