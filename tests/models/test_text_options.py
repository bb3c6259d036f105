"""The text tower without a projection, and the epsilon of every LayerNorm."""

import numpy as np
import pytest

from miniclip.models import CLIP, CLIPConfig, TextConfig
from miniclip.nn.blocks import ResidualAttentionBlock, Transformer

TEXT = {"context_length": 9, "vocab_size": 40, "width": 24, "heads": 3, "layers": 2}
IDS = np.array([[1, 5, 7, 39, 0, 0], [1, 39, 0, 0, 0, 0]])


def text_tower(**options):
    model = CLIP(CLIPConfig(24, None, TextConfig(**TEXT, **options)), seed=3)
    return model, next(m for m in model.modules() if hasattr(m, "token_embedding"))


def test_without_a_projection_the_end_tokens_are_the_embedding():
    model, tower = text_tower(proj=False)
    assert "text_projection" not in model.state_dict()
    assert np.array_equal(tower(IDS), tower.tokens(IDS)[[0, 1], [3, 1]])
    model, tower = text_tower()
    projected = tower.tokens(IDS)[[0, 1], [3, 1]] @ model.state_dict()["text_projection"]
    assert tower(IDS) == pytest.approx(projected, abs=1e-5)


@pytest.mark.parametrize("eps", [1e-5, 0.25])
def test_eps_reaches_every_layer_norm(eps):
    def found(module):
        return [m.eps for m in module.modules() if type(m).__name__ == "LayerNorm"]

    assert found(ResidualAttentionBlock(24, 3, 48, "gelu", eps, True)) == [eps] * 2
    assert found(Transformer(24, 2, 3, 48, "gelu", eps)) == [eps] * 4
    assert found(Transformer(24, 2, 3, 48, "gelu")) == [1e-5] * 4
    assert found(text_tower(eps=eps)[0]) == [eps] * 5
