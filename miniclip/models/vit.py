"""The vision transformer image tower (ViT-B/32 to ViT-L/14@336px)."""

from __future__ import annotations

import numpy as np

from miniclip.models.checks import check_gradient, check_images, check_tokens
from miniclip.models.config import VisionConfig
from miniclip.nn.blocks import Transformer
from miniclip.nn.layers import LayerNorm, PatchEmbedding, zeros
from miniclip.nn.module import Module
from miniclip.ops.array import Array, Cache

PATHS = ("value", "tokens")  # of `dense`
RESIDUAL = False  # of the value path, unless it is asked for: it points better (docs/tokens.md)


class VisionTransformer(Module):
    """Images to embeddings: (B, 3, R, R) -> (B, E), or (B, D) without a projection.

    An embedding is `pool(tokens(images))`: `tokens` gives every position, `pool` the class token's.
    interpolate: let in images of other sizes, resizing the positions bicubically (with antialias
    as open_clip does; `antialias = False` as transformers does).
    Source: Dosovitskiy et al. 2020 (arXiv 2010.11929); `VisionTransformer` of the original.
    """

    WAYS = ("tokens", "pool", "dense")

    def __init__(self, config: VisionConfig, embed_dim: int) -> None:
        super().__init__()
        if config.patch_size is None or not isinstance(config.layers, int):
            raise ValueError("vision.patch_size: got None, expected pixels of a patch")
        width = config.width
        self.config = config
        self.interpolate = False
        self.antialias = True
        self.class_embedding = zeros(width)
        self.positional_embedding = zeros(config.grid**2 + 1, width)
        self.proj = zeros(width, embed_dim) if config.proj else None
        self.conv1 = PatchEmbedding(3, width, config.patch_size, config.patch_stride)
        self.ln_pre = LayerNorm(width, config.eps)
        mlp = config.mlp_width or 4 * width
        self.transformer = Transformer(
            width, config.layers, config.heads, mlp, config.activation, config.eps
        )
        self.ln_post = LayerNorm(width, config.eps)

    def forward(self, images: Array) -> Array:
        return self.pool(self.tokens(images))

    def backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns dimages (B, 3, R, R)."""
        return self.tokens_backward(self.pool_backward(dy))

    # ------------------------------------------------------------------ every token

    def tokens(self, images: Array) -> Array:
        """All tokens as they leave the last block: (B, 3, R, R) -> (B, 1 + G*G, D).

        The class token first, then the patches, row by row from the top left; `grid_of` gives rows
        and columns. They are not normalised yet: that is for `pool`.
        """
        tokens: Array = self.transformer(self.embed(images))
        self.save(tuple(tokens.shape), "tokens")
        return tokens

    def tokens_backward(self, dtokens: Array) -> Array:
        """dtokens: (B, 1 + G*G, D). Returns dimages (B, 3, R, R)."""
        check_gradient("dtokens", dtokens, self.saved("tokens"), self.dtype)
        return self.embed_backward(self.transformer.backward(dtokens))

    def embed(self, images: Array) -> Array:
        """What the first block reads: class token and patches, with positions, normalised."""
        least = self.conv1.weight.data.shape[-1]
        check_images(self, images, self.config.image_resolution, self.interpolate, least)
        ops = self.ops
        patches = self.conv1(images)  # (B, G*G, D)
        tokens, class_cache = ops.prepend_class_token(patches, self.class_embedding.data)
        positions, resized = self.positions(images.shape[2], images.shape[3])
        tokens, positions_cache = ops.add_positions(tokens, positions)  # (B, 1 + G*G, D)
        self.save((class_cache, resized, positions_cache), "embed")
        y: Array = self.ln_pre(tokens)
        return y

    def embed_backward(self, dy: Array) -> Array:
        """dy: (B, 1 + G*G, D). Returns dimages."""
        ops = self.ops
        class_cache, resized, positions_cache = self.saved("embed")
        # y = ln_pre([class_embedding; conv1(images)] + positions)
        dtokens, dpositions = ops.add_positions_backward(self.ln_pre.backward(dy), positions_cache)
        if resized is not None:
            dpositions = ops.interpolate_positions_backward(dpositions, resized)
        self.positional_embedding.add_grad(dpositions)
        dpatches, dclass = ops.prepend_class_token_backward(dtokens, class_cache)
        self.class_embedding.add_grad(dclass)
        return self.conv1.backward(dpatches)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of so many pixels."""
        patch, stride = self.conv1.weight.data.shape[-1], self.conv1.stride
        return (height - patch) // stride + 1, (width - patch) // stride + 1

    def positions(self, height: int, width: int) -> tuple[Array, Cache]:
        """The positions for an image of this size, and the cache of resizing (None without)."""
        data, grid = self.positional_embedding.data, self.grid_of(height, width)
        if grid == (self.config.grid, self.config.grid):
            return data, None
        y, cache = self.ops.interpolate_positions(data, grid, 1, self.antialias)
        return y, cache

    # ------------------------------------------------------------------ one embedding

    def pool(self, tokens: Array) -> Array:
        """The class token, normalised and projected: (B, T, D) -> (B, E), of any T >= 1."""
        check_tokens(tokens, (None, None, self.config.width), self.dtype)
        pooled, cache = self.ops.take_class_token(tokens)  # (B, D)
        y = self.project(self.ln_post(pooled))  # (B, E)
        self.save((cache, tuple(y.shape)), "pool")
        return y

    def pool_backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns dtokens (B, T, D), zero but for the class token."""
        cache, shape = self.saved("pool")
        check_gradient("dy", dy, shape, self.dtype)
        # y = project(ln_post(pooled)); pooled = take_class_token(tokens)
        dpooled = self.ln_post.backward(self.project_backward(dy))
        dtokens: Array = self.ops.take_class_token_backward(dpooled, cache)
        return dtokens

    def project(self, x: Array) -> Array:
        """x @ proj: (..., D) -> (..., E); x itself without a projection."""
        if self.proj is None:
            return x
        y, cache = self.ops.linear(x, self.proj.data.T)
        self.save(cache, "project")
        return y

    def project_backward(self, dy: Array) -> Array:
        """dy: (..., E). Returns dx (..., D)."""
        if self.proj is None:
            return dy
        dx, dproj, _ = self.ops.linear_backward(dy, self.saved("project"))
        self.proj.add_grad(dproj.T)
        return dx

    # ------------------------------------------------------------------ one embedding a patch

    def dense(self, images: Array, path: str = "value", residual: bool | None = None) -> Array:
        """An embedding of each patch: (B, 3, R, R) -> (B, G*G, E), not normalised.

        path: "value" lets every patch look at itself only in the last block, so that its embedding
        speaks of its own place (MaskCLIP, Zhou et al. 2021, arXiv 2112.01071); "tokens" takes the
        tokens as they are, which have looked at the whole image. Both then go where the class token
        goes: through ln_post and the projection.
        residual: of the value path, with the last block's shortcuts and MLP, or without; None:
        `RESIDUAL`. ValueError for another path, and for residual where it means nothing.
        """
        if path not in PATHS:
            raise ValueError(f"path: got {path!r}, expected one of {', '.join(PATHS)}")
        if residual is not None and path != "value":
            raise ValueError(f"residual: got {residual}, but only path 'value' has that choice")
        tokens = self.embed(images)  # (B, 1 + G*G, D)
        if path == "value":
            tokens = self.transformer.values(tokens, RESIDUAL if residual is None else residual)
        else:
            tokens = self.transformer(tokens)
        y = self.project(self.ln_post(tokens[:, 1:]))  # (B, G*G, E)
        self.save((path, tuple(tokens.shape), tuple(y.shape)), "dense")
        return y

    def dense_backward(self, dy: Array) -> Array:
        """dy: (B, G*G, E). Returns dimages (B, 3, R, R)."""
        path, tokens_shape, shape = self.saved("dense")
        check_gradient("dy", dy, shape, self.dtype)
        # y = project(ln_post(tokens[:, 1:])): the class token is left out
        dtokens = np.zeros(tokens_shape, dy.dtype, like=dy)
        dtokens[:, 1:] = self.ln_post.backward(self.project_backward(dy))
        through = self.transformer.values_backward if path == "value" else self.transformer.backward
        return self.embed_backward(through(dtokens))
