"""The vision transformer image tower (ViT-B/32 to ViT-L/14@336px)."""

from __future__ import annotations

from miniclip.models.checks import check_gradient, check_images
from miniclip.models.config import VisionConfig
from miniclip.nn.blocks import Transformer
from miniclip.nn.layers import LayerNorm, PatchEmbedding, zeros
from miniclip.nn.module import Module
from miniclip.ops.array import Array, Cache


class VisionTransformer(Module):
    """Images to embeddings: (B, 3, R, R) -> (B, E), or (B, D) without a projection.

    interpolate: let in images of other sizes, resizing the positions bicubically (with antialias
    as open_clip does; `antialias = False` as transformers does).
    Source: Dosovitskiy et al. 2020 (arXiv 2010.11929); `VisionTransformer` of the original.
    """

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
        check_images(
            self,
            images,
            self.config.image_resolution,
            self.interpolate,
            self.conv1.weight.data.shape[-1],
        )
        ops = self.ops
        patches = self.conv1(images)  # (B, G*G, D)
        tokens, class_cache = ops.prepend_class_token(patches, self.class_embedding.data)
        positions, resized = self.positions(images.shape[2], images.shape[3])
        tokens, positions_cache = ops.add_positions(tokens, positions)  # (B, 1 + G*G, D)
        tokens = self.transformer(self.ln_pre(tokens))
        pooled, pool_cache = ops.take_class_token(tokens)  # (B, D)
        y = self.ln_post(pooled)
        proj_cache = None
        if self.proj is not None:
            y, proj_cache = ops.linear(y, self.proj.data.T)  # (B, D) @ (D, E) -> (B, E)
        self.save((class_cache, positions_cache, resized, pool_cache, proj_cache, tuple(y.shape)))
        return y

    def positions(self, height: int, width: int) -> tuple[Array, Cache]:
        """The positions for an image of this size, and the cache of resizing (None without)."""
        data, patch = self.positional_embedding.data, self.conv1.weight.data.shape[-1]
        rows = (height - patch) // self.conv1.stride + 1
        columns = (width - patch) // self.conv1.stride + 1
        if (rows, columns) == (self.config.grid, self.config.grid):
            return data, None
        y, cache = self.ops.interpolate_positions(data, (rows, columns), 1, self.antialias)
        return y, cache

    def backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns dimages (B, 3, R, R)."""
        ops = self.ops
        class_cache, positions_cache, resized, pool_cache, proj_cache, shape = self.saved()
        check_gradient("dy", dy, shape, self.dtype)
        # y = ln_post(pooled) @ proj
        if self.proj is not None:
            dy, dproj, _ = ops.linear_backward(dy, proj_cache)
            self.proj.add_grad(dproj.T)
        # pooled = take_class_token(tokens); tokens = transformer(ln_pre(tokens))
        dtokens = ops.take_class_token_backward(self.ln_post.backward(dy), pool_cache)
        dtokens = self.ln_pre.backward(self.transformer.backward(dtokens))
        # tokens = [class_embedding; conv1(images)] + positions
        dtokens, dpositions = ops.add_positions_backward(dtokens, positions_cache)
        if resized is not None:
            dpositions = ops.interpolate_positions_backward(dpositions, resized)
        self.positional_embedding.add_grad(dpositions)
        dpatches, dclass = ops.prepend_class_token_backward(dtokens, class_cache)
        self.class_embedding.add_grad(dclass)
        return self.conv1.backward(dpatches)
