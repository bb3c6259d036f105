"""The text tower: a causal transformer read at the end-of-text token."""

from __future__ import annotations

from miniclip.models.checks import check_ends, check_gradient, check_ids, check_tokens
from miniclip.models.config import TextConfig
from miniclip.nn.blocks import Transformer
from miniclip.nn.layers import Embedding, LayerNorm, zeros
from miniclip.nn.module import Module
from miniclip.ops.array import Array


class TextTransformer(Module):
    """Token ids to embeddings: (B, T) -> (B, E), T at most the context length.

    An embedding is `pool(tokens(ids), ids)`: `tokens` gives every position, `pool` the last one's.
    Its parameters are at the top level of CLIP, as in the original, where the text tower is not
    a module of its own. Source: CLIP section 2.4; `CLIP.encode_text` of the original model.py.
    """

    WAYS = ("tokens", "pool")

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
        return self.pool(self.tokens(ids), ids)

    def backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns the gradient of the token embeddings, (B, T, D)."""
        return self.tokens_backward(self.pool_backward(dy))

    # ------------------------------------------------------------------ every token

    def tokens(self, ids: Array) -> Array:
        """All tokens after the last LayerNorm: (B, T) -> (B, T, D). Token t has seen those up to t.

        What follows the end of a text is there as well, and means nothing.
        """
        check_ids(ids, self.config.context_length, self.config.vocab_size)
        tokens = self.token_embedding(ids)  # (B, T, D)
        tokens, cache = self.ops.add_positions(tokens, self.positional_embedding.data)
        tokens = self.ln_final(self.transformer(tokens))
        self.save((cache, tuple(tokens.shape)), "tokens")
        return tokens

    def tokens_backward(self, dtokens: Array) -> Array:
        """dtokens: (B, T, D). Returns the gradient of the token embeddings, (B, T, D)."""
        cache, shape = self.saved("tokens")
        check_gradient("dtokens", dtokens, shape, self.dtype)
        # tokens = ln_final(transformer(token_embedding(ids) + positions))
        dtokens = self.transformer.backward(self.ln_final.backward(dtokens))
        dtokens, dpositions = self.ops.add_positions_backward(dtokens, cache)
        self.positional_embedding.add_grad(dpositions)
        self.token_embedding.backward(dtokens)
        return dtokens

    # ------------------------------------------------------------------ one embedding

    def pool(self, tokens: Array, ids: Array) -> Array:
        """The end-of-text token, projected: (B, T, D), (B, T) -> (B, E). ids: the tokens' own."""
        check_ends(ids, self.config.end_id)
        check_tokens(tokens, (*ids.shape, self.config.width), self.dtype)
        y, end_cache = self.ops.gather_end_of_text(tokens, ids, self.config.end_id)  # (B, D)
        proj_cache = None
        if self.text_projection is not None:
            y, proj_cache = self.ops.linear(y, self.text_projection.data.T)  # (B, E)
        self.save((end_cache, proj_cache, tuple(y.shape)), "pool")
        return y

    def pool_backward(self, dy: Array) -> Array:
        """dy: (B, E). Returns dtokens (B, T, D), zero but for the end-of-text tokens."""
        end_cache, proj_cache, shape = self.saved("pool")
        check_gradient("dy", dy, shape, self.dtype)
        # y = gather_end_of_text(tokens) @ text_projection
        if self.text_projection is not None:
            dy, dproj, _ = self.ops.linear_backward(dy, proj_cache)
            self.text_projection.add_grad(dproj.T)
        dtokens: Array = self.ops.gather_end_of_text_backward(dy, end_cache)
        return dtokens
