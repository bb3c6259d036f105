"""Multi-head attention of the transformers, and the attention pool of the ResNets."""

from __future__ import annotations

from miniclip.nn.layers import Linear, zeros
from miniclip.nn.module import Module
from miniclip.ops.array import Array


class MultiheadAttention(Module):
    """Self-attention with H heads: (B, T, D) -> (B, T, D). `torch.nn.MultiheadAttention`'s names.

    causal: token t sees the tokens up to t only (the text tower).
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.in_proj_weight = zeros(3 * width, width)  # q, k and v one below the other
        self.in_proj_bias = zeros(3 * width)
        self.out_proj = Linear(width, width)
        self.heads, self.causal = heads, causal

    def describe(self) -> str:
        return f"heads={self.heads}, causal={self.causal}"

    def forward(self, x: Array) -> Array:
        ops = self.ops
        qkv, qkv_cache = ops.linear(x, self.in_proj_weight.data, self.in_proj_bias.data)
        q, k, v = ops.split_qkv(qkv, self.heads)  # (B, H, T, d) each
        mask = ops.causal_mask(x.shape[1], like=x) if self.causal else None
        mixed, attention_cache = ops.scaled_dot_product_attention(q, k, v, mask)
        self.save((qkv_cache, attention_cache))
        y: Array = self.out_proj(ops.merge_heads(mixed))  # (B, T, D)
        return y

    def backward(self, dy: Array) -> Array:
        ops = self.ops
        # y = out_proj(merge_heads(mixed))
        dmixed = ops.split_heads(self.out_proj.backward(dy), self.heads)  # (B, H, T, d)
        # mixed = attention(q, k, v, mask); q, k, v = split_qkv(linear(x))
        qkv_cache, attention_cache = self.saved()
        dq, dk, dv = ops.scaled_dot_product_attention_backward(dmixed, attention_cache)
        dqkv = ops.join_qkv(dq, dk, dv)  # (B, T, 3D)
        dx, dweight, dbias = ops.linear_backward(dqkv, qkv_cache)
        self.in_proj_weight.add_grad(dweight)
        self.in_proj_bias.add_grad(dbias)
        return dx


class AttentionPool2d(Module):
    """One query, the mean pixel, pools a feature map: (B, C, H, W) -> (B, E).

    The four projections are modules for the sake of their names; the pool is one op, as it is one
    functional call in the original. For a map of another size than `grid` the positions are
    resized to it, bicubically; whether such images are let in is for the tower to say.
    """

    def __init__(self, grid: int, width: int, heads: int, embed: int) -> None:
        super().__init__()
        self.positional_embedding = zeros(grid * grid + 1, width)
        self.k_proj = Linear(width, width)
        self.q_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.c_proj = Linear(width, embed)
        self.grid, self.heads = grid, heads

    def describe(self) -> str:
        return f"grid={self.grid}x{self.grid}, heads={self.heads}"

    def forward(self, x: Array) -> Array:
        projections = [self.q_proj, self.k_proj, self.v_proj, self.c_proj]
        weights = [p.data for proj in projections for p in proj.parameters_.values()]
        positions, resized = self.positions(x.shape[2], x.shape[3])
        y, cache = self.ops.attention_pool(x, positions, *weights, self.heads)
        self.save((cache, resized))
        return y

    def positions(self, rows: int, columns: int) -> tuple[Array, object]:
        """The positions for a map of this size, and the cache of the resizing (None without)."""
        positions = self.positional_embedding.data
        if (rows, columns) == (self.grid, self.grid):
            return positions, None
        return self.ops.interpolate_positions(positions, (rows, columns))

    def backward(self, dy: Array) -> Array:
        # y = attention_pool(x, positions, ...); positions = interpolate_positions(...) if resized
        cache, resized = self.saved()
        dx, dpositions, *dweights = self.ops.attention_pool_backward(dy, cache)
        if resized is not None:
            dpositions = self.ops.interpolate_positions_backward(dpositions, resized)
        self.positional_embedding.add_grad(dpositions)
        for proj in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            for parameter in proj.parameters_.values():
                parameter.add_grad(dweights.pop(0))
        return dx
