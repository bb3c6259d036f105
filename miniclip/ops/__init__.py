"""The textbook: every operation of CLIP in plain NumPy, each forward directly above its backward.

An op is a pair, `op(...) -> (y, cache)` and `op_backward(dy, cache) -> gradients` in the order of
the op's inputs that have one: ids, masks, targets and running statistics are constants. A gradient
is None where the input was None (no bias).
"""

from miniclip.ops.activation import (
    erf,
    gelu,
    gelu_backward,
    gelu_tanh,
    gelu_tanh_backward,
    quick_gelu,
    quick_gelu_backward,
    relu,
    relu_backward,
    sigmoid,
    softmax,
    softmax_backward,
)
from miniclip.ops.attention import (
    causal_mask,
    join_qkv,
    merge_heads,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
    split_heads,
    split_qkv,
)
from miniclip.ops.conv import conv2d, conv2d_backward
from miniclip.ops.embedding import (
    add_positions,
    add_positions_backward,
    embedding,
    embedding_backward,
    end_of_text,
    gather_end_of_text,
    gather_end_of_text_backward,
    interpolate_positions,
    interpolate_positions_backward,
    mean_token,
    mean_token_backward,
    patch_embedding,
    patch_embedding_backward,
    prepend_class_token,
    prepend_class_token_backward,
    take_class_token,
    take_class_token_backward,
)
from miniclip.ops.linear import linear, linear_backward
from miniclip.ops.loss import (
    contrastive_loss,
    contrastive_loss_backward,
    cosine_logits,
    cosine_logits_backward,
    cross_entropy,
    cross_entropy_backward,
    pair_targets,
    sigmoid_loss,
    sigmoid_loss_backward,
    target_shares,
    target_signs,
)
from miniclip.ops.norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    batch_norm_inference_backward,
    l2_normalize,
    l2_normalize_backward,
    layer_norm,
    layer_norm_backward,
)
from miniclip.ops.optimizer import adamw
from miniclip.ops.pool import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool,
    global_avg_pool_backward,
)

# Every differentiable op; `NAME_backward` goes with each of them.
PAIRS = (
    "linear",
    "conv2d",
    "batch_norm",
    "batch_norm_inference",
    "layer_norm",
    "l2_normalize",
    "relu",
    "quick_gelu",
    "gelu",
    "gelu_tanh",
    "softmax",
    "avg_pool2d",
    "global_avg_pool",
    "embedding",
    "patch_embedding",
    "prepend_class_token",
    "mean_token",
    "take_class_token",
    "add_positions",
    "gather_end_of_text",
    "interpolate_positions",
    "scaled_dot_product_attention",
    "cosine_logits",
    "cross_entropy",
    "contrastive_loss",
    "sigmoid_loss",
)

# Functions that need no backward of their own: rearrangements, constants, places.
HELPERS = (
    "erf",
    "sigmoid",
    "split_heads",
    "merge_heads",
    "split_qkv",
    "join_qkv",
    "causal_mask",
    "end_of_text",
    "pair_targets",
    "target_shares",
    "target_signs",
)

# Functions that nobody differentiates: an optimiser's step.
STEPS = ("adamw",)

__all__ = [
    *PAIRS,
    *(f"{name}_backward" for name in PAIRS),
    *HELPERS,
    *STEPS,
    "HELPERS",
    "PAIRS",
    "STEPS",
]
