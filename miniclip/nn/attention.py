"""Multi-head attention of the transformers, and the attention pool of the ResNets."""

from __future__ import annotations

import numpy as np

from miniclip.nn.layers import Linear, map_to_tokens, tokens_to_map, zeros
from miniclip.nn.module import Module
from miniclip.ops.array import Array, Cache


class MultiheadAttention(Module):
    """Self-attention with H heads: (B, T, D) -> (B, T, D). `torch.nn.MultiheadAttention`'s names.

    causal: token t sees the tokens up to t only (the text tower).
    """

    WAYS = ("values",)

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

    def values(self, x: Array) -> Array:
        """What comes out if every token looks at itself only: its value through out_proj.

        (B, T, D) -> (B, T, D). No queries, no keys, no softmax.
        """
        first = 2 * x.shape[2]  # of in_proj's rows those of v
        weight, bias = self.in_proj_weight.data[first:], self.in_proj_bias.data[first:]
        v, cache = self.ops.linear(x, weight, bias)  # (B, T, D)
        self.save(cache, "values")
        y: Array = self.out_proj(v)
        return y

    def values_backward(self, dy: Array) -> Array:
        # y = out_proj(v); v = linear(x), with the last third of in_proj
        dv = self.out_proj.backward(dy)
        dx, dweight, dbias = self.ops.linear_backward(dv, self.saved("values"))
        self.in_proj_weight.add_grad(last_rows(dweight, self.in_proj_weight.data.shape))
        self.in_proj_bias.add_grad(last_rows(dbias, self.in_proj_bias.data.shape))
        return dx


class AttentionPool2d(Module):
    """One query, the mean pixel, pools a feature map: (B, C, H, W) -> (B, E).

    The mean asks, the mean and all pixels answer. The four projections are modules for the sake of
    their names and are not called as such: in the original the whole pool is one functional call,
    and hooks on its projections never fire. For a map of another size than `grid` the positions are
    resized to it, bicubically; whether such images are let in is for the tower to say.
    Source: CLIP section 2.4; `AttentionPool2d` of the original model.py.
    """

    WAYS = ("dense",)

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
        ops = self.ops
        tokens, mean_cache = ops.mean_token(map_to_tokens(x))  # (B, 1 + HW, C)
        positions, resized = self.positions(x.shape[2], x.shape[3])
        tokens, positions_cache = ops.add_positions(tokens, positions)
        q, q_cache = project(self.q_proj, tokens[:, :1])  # (B, 1, C): only the mean token asks
        k, k_cache = project(self.k_proj, tokens)  # (B, 1 + HW, C)
        v, v_cache = project(self.v_proj, tokens)
        q, k, v = (ops.split_heads(a, self.heads) for a in (q, k, v))  # (B, H, 1 or 1 + HW, d)
        mixed, attention_cache = ops.scaled_dot_product_attention(q, k, v)  # (B, H, 1, d)
        y, c_cache = project(self.c_proj, ops.merge_heads(mixed))  # (B, 1, E)
        to_tokens = (tuple(x.shape), mean_cache, resized, positions_cache)
        self.save((to_tokens, q_cache, k_cache, v_cache, attention_cache, c_cache))
        return y[:, 0]

    def positions(self, rows: int, columns: int) -> tuple[Array, object]:
        """The positions for a map of this size, and the cache of the resizing (None without)."""
        positions = self.positional_embedding.data
        if (rows, columns) == (self.grid, self.grid):
            return positions, None
        return self.ops.interpolate_positions(positions, (rows, columns))

    def backward(self, dy: Array) -> Array:
        ops = self.ops
        to_tokens, q_cache, k_cache, v_cache, attention_cache, c_cache = self.saved()
        # y = c_proj(merge_heads(mixed)); mixed = attention(q, k, v)
        dmerged = project_backward(self.c_proj, dy[:, None], c_cache)  # (B, 1, C)
        dmixed = ops.split_heads(dmerged, self.heads)  # (B, H, 1, d)
        gradients = ops.scaled_dot_product_attention_backward(dmixed, attention_cache)
        dq, dk, dv = (ops.merge_heads(a) for a in gradients)  # (B, 1 or 1 + HW, C)
        # q = q_proj(tokens[:, :1]); k, v = k_proj(tokens), v_proj(tokens)
        dquery = project_backward(self.q_proj, dq, q_cache)  # (B, 1, C)
        dkeys = project_backward(self.k_proj, dk, k_cache)  # (B, 1 + HW, C)
        dtokens = dkeys + project_backward(self.v_proj, dv, v_cache)
        dtokens[:, :1] += dquery  # the mean token is query, key and value
        # tokens = [mean; pixels] + positions
        shape, mean_cache, resized, positions_cache = to_tokens
        dtokens, dpositions = ops.add_positions_backward(dtokens, positions_cache)
        if resized is not None:
            dpositions = ops.interpolate_positions_backward(dpositions, resized)
        self.positional_embedding.add_grad(dpositions)
        return tokens_to_map(ops.mean_token_backward(dtokens, mean_cache), shape)

    def dense(self, x: Array, positions: bool = False) -> Array:
        """Each pixel through v_proj and c_proj by itself: (B, C, H, W) -> (B, H * W, E).

        What the pool would answer if its query saw this pixel only. positions: add each pixel's
        position to it first, as the pool does. Source: MaskCLIP (Zhou et al. 2021, arXiv
        2112.01071), section 3.2.
        """
        tokens, caches = map_to_tokens(x), None  # (B, HW, C)
        if positions:
            table, resized = self.positions(x.shape[2], x.shape[3])
            tokens, added = self.ops.add_positions(tokens, table[1:])  # the first is the mean's
            caches = (added, table.shape, resized)
        self.save((tuple(x.shape), caches), "dense")
        y: Array = self.c_proj(self.v_proj(tokens))
        return y

    def dense_backward(self, dy: Array) -> Array:
        """dy: (B, H * W, E). Returns dx (B, C, H, W)."""
        shape, caches = self.saved("dense")
        dtokens = self.v_proj.backward(self.c_proj.backward(dy))
        if caches is not None:
            added, table_shape, resized = caches
            dtokens, dused = self.ops.add_positions_backward(dtokens, added)
            dpositions = last_rows(dused, table_shape)
            if resized is not None:
                dpositions = self.ops.interpolate_positions_backward(dpositions, resized)
            self.positional_embedding.add_grad(dpositions)
        return tokens_to_map(dtokens, shape)


def last_rows(x: Array, shape: tuple[int, ...]) -> Array:
    """Zeros that end with x: the gradient of a parameter of which only the last rows were used."""
    y = np.zeros(shape, x.dtype, like=x)
    y[shape[0] - x.shape[0] :] = x
    return y


def project(layer: Linear, x: Array) -> tuple[Array, Cache]:
    """What the layer computes, without calling the module: (..., in) -> (..., out), and a cache."""
    bias = None if layer.bias is None else layer.bias.data
    y, cache = layer.ops.linear(x, layer.weight.data, bias)
    return y, cache


def project_backward(layer: Linear, dy: Array, cache: Cache) -> Array:
    """The gradient of `project`'s input; adds to those of the layer's parameters."""
    dx, dweight, dbias = layer.ops.linear_backward(dy, cache)
    layer.weight.add_grad(dweight)
    if layer.bias is not None:
        layer.bias.add_grad(dbias)
    return dx
