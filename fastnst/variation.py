"""The total variation of an image with its gradient: the fused op's kinds, and a stencil of nine points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NINE_POINT = "nine_point"


def weighted_variation(image: Tensor, kind: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``weight`` times the total variation of an image ``[1, 3, H, W]``, and the gradient of that.

    Args:
        image: pixels, float32 or float64.
        kind: one of :func:`fastnst.ops.total_variation`, or ``"nine_point"``: the mean over values and channels of
            squared differences, ``2/3`` of those to the right and down and ``1/6`` of the two diagonal ones, the border
            repeated. That is the smoothness term of style-transfer-pytorch (Crowson).
        weight: a factor ``[]`` on the image's device.
    """
    if kind != NINE_POINT:
        value: Tensor = torch.ops.fastnst.total_variation(image, kind)
        return weight * value, torch.ops.fastnst.total_variation_backward(weight, image, kind)
    with torch.enable_grad():
        free = image.detach().requires_grad_()
        x = F.pad(free, (1, 1, 1, 1), mode="replicate")
        inside = x[..., 1:-1, 1:-1]
        straight = (x[..., 1:-1, 2:] - inside).square().mean() + (x[..., 2:, 1:-1] - inside).square().mean()
        slanted = (x[..., 1:, 1:] - x[..., :-1, :-1]).square().mean()
        slanted = slanted + (x[..., 1:, :-1] - x[..., :-1, 1:]).square().mean()
        value = weight * (2 / 3 * straight + 1 / 6 * slanted)
        (gradient,) = torch.autograd.grad(value, free)
    return value.detach(), gradient
