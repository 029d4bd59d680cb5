"""Every op in plain PyTorch: the definition that kernels are tested against, and what runs where there is no kernel.

Functions take positional arguments in the order of the op's schema in csrc/library.cpp, unchecked. A feature map F is
``[B, C, ...positions]`` with N positions; Gram matrices and residuals are ``[B, C, C]``. Accumulation is in float32, or
in float64 for float64 features, also inside autocast.
"""

from __future__ import annotations

from fastnst.ops.reference.adam import CHUNK, adam_step_, adam_update
from fastnst.ops.reference.convolution import (
    conv3x3,
    conv3x3_backward,
    conv3x3_backward_out,
    conv3x3_out,
    conv3x3_pool_out,
)
from fastnst.ops.reference.feature_losses import (
    bias_relu_,
    bias_relu_style_loss,
    content_loss,
    content_loss_backward,
    gram,
    gram_backward,
    layer_backward_,
    moments,
    style_loss,
)
from fastnst.ops.reference.image_variation import (
    total_variation,
    total_variation_along,
    total_variation_backward,
)
from fastnst.ops.reference.padding import PADDINGS, fold, joined, pad, sides
from fastnst.ops.reference.pooling import L2_EPSILON, POOLS, pick, pool, pool_backward
from fastnst.ops.reference.quantiles import at_ranks, quantile_residual_, resample
from fastnst.ops.reference.tensors import channels_last, matrix, pool_layout
from fastnst.ops.reference.vectors import dot, lbfgs_direction_

__all__ = [
    "CHUNK",
    "L2_EPSILON",
    "PADDINGS",
    "POOLS",
    "adam_step_",
    "adam_update",
    "at_ranks",
    "bias_relu_",
    "bias_relu_style_loss",
    "channels_last",
    "content_loss",
    "content_loss_backward",
    "conv3x3",
    "conv3x3_backward",
    "conv3x3_backward_out",
    "conv3x3_out",
    "conv3x3_pool_out",
    "dot",
    "fold",
    "gram",
    "gram_backward",
    "joined",
    "layer_backward_",
    "lbfgs_direction_",
    "matrix",
    "moments",
    "pad",
    "pick",
    "pool",
    "pool_backward",
    "pool_layout",
    "quantile_residual_",
    "resample",
    "sides",
    "style_loss",
    "total_variation",
    "total_variation_along",
    "total_variation_backward",
]
