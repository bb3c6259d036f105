"""The text tower: a causal transformer read at the end-of-text token."""

from __future__ import annotations

from miniclip.models.checks import check_ends, check_gradient, check_ids
from miniclip.models.config import TextConfig
from miniclip.nn.blocks import Transformer
from miniclip.nn.layers import Embedding, LayerNorm, zeros
from miniclip.nn.module import Module
from miniclip.ops.array import Array


class TextTransformer(Module):
    """Token ids to embeddings: (B, T) -> (B, E), T at most the context length.

    Its parameters stand at the top level of CLIP, as in the original, where the text tower is not
    a module of its own. Source: CLIP section 2.4; `CLIP.encode_text` of the original model.py.
    """

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.positional_embedding = zeros(config.context_length, width)
        self.text_projection = zeros(width, embed_dim) if config.proj else None
        mlp = config.mlp_width or 4 * width
        self.transformer = Transformer(
            width, config.layers, config.heads, mlp, config.activation, config.eps, causal=True
        )
        self.token_embedding = Embedding(config.vocab_size, width)
        self.ln_final = LayerNorm(width, config.eps)

    def forward(self, ids: Array) -> Array:
        check_ids(ids, self.config.context_length, self.config.vocab_size)
        check_ends(ids, self.config.end_id)
        ops = self.ops
        tokens = self.token_embedding(ids)  # (B, T, D)
        tokens, positions_cache = ops.add_positions(tokens, self.positional_embedding.data)
        tokens = self.ln_final(self.transformer(tokens))
        y, end_cache = ops.gather_end_of_text(tokens, ids, self.config.end_id)  # (B, D)
        proj_cache = None
        if self.text_projection is not None:
            y, proj_cache = ops.linear(y, self.text_projection.data.T)  # (B, E)
        self.save((positions_cache, end_cache, proj_cache, tuple(y.shape)))
        return y

    def backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns the gradient of the token embeddings, (B, T, D)."""
        ops = self.ops
        positions_cache, end_cache, proj_cache, shape = self.saved()
        check_gradient("dy", dy, shape, self.dtype)
        # y = gather_end_of_text(tokens) @ text_projection
        if self.text_projection is not None:
            dy, dproj, _ = ops.linear_backward(dy, proj_cache)
            self.text_projection.add_grad(dproj.T)
        # tokens = ln_final(transformer(token_embedding(ids) + positions))
        dtokens = ops.gather_end_of_text_backward(dy, end_cache)
        dtokens = self.transformer.backward(self.ln_final.backward(dtokens))
        dtokens, dpositions = ops.add_positions_backward(dtokens, positions_cache)
        self.positional_embedding.add_grad(dpositions)
        self.token_embedding.backward(dtokens)
        return dtokens
