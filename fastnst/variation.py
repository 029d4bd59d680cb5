"""The total variation of an image with its gradient: the fused op's kinds, and a stencil of nine points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.autograd import constant, leaf, recording

NINE_POINT = "nine_point"
ROWS = 256  # of an image that are looked at together by `add_variation`


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
    values, gradient = _nine_point(image, weight, image.shape[2], 0)
    return values.sum(), gradient


def add_variation(gradient: Tensor, image: Tensor, kind: str, weight: float, rows: slice) -> Tensor:
    """The part of :func:`weighted_variation` that some rows of the image have in it, ``[]`` in float64; those rows of
    its gradient are added to ``gradient``. A few rows at a time: no further image is made."""
    height = image.shape[2]
    factor = torch.tensor(weight, dtype=image.dtype, device=image.device)
    total = torch.zeros((), dtype=torch.float64, device=image.device)
    for top in range(rows.start, rows.stop, ROWS):
        bottom = min(top + ROWS, rows.stop)
        low, high = max(top - 1, 0), min(bottom + 1, height)
        around = image[:, :, low:high].contiguous()
        if kind == NINE_POINT:
            values, slope = _nine_point(around, factor, height, low)
            total += values[top - low : bottom - low].double().sum()
        else:
            slope = torch.ops.fastnst.total_variation_backward(factor, around, kind)
            total += weight * _fused(around[:, :, top - low :], kind, bottom - top)
        gradient[:, :, top:bottom] += slope[:, :, top - low : bottom - low]
    return total


def _fused(x: Tensor, kind: str, count: int) -> Tensor:
    """What the first ``count`` rows have in the total variation, with their differences to the row below."""
    value: Tensor = torch.ops.fastnst.total_variation(x.contiguous(), kind).double()
    if x.shape[2] > count:  # of the row below, those to the right
        value -= torch.ops.fastnst.total_variation(x[:, :, count:].contiguous(), kind)
    return value


def _nine_point(rows: Tensor, weight: Tensor, height: int, first: int) -> tuple[Tensor, Tensor]:
    """Of rows from ``first`` on of an image: what each has in the value, and the gradient of the sum of these.

    A row has the differences within it, those to the next and, in the image's first row, those to its repetition above;
    the last row given has none unless it is the image's last.
    """
    channels, count, width = rows.shape[1:]
    above, below = int(first == 0), int(first + count == height)
    with recording():
        free, weight = leaf(rows), constant(weight)
        x = F.pad(free, (1, 1, above, below), mode="replicate")
        straight = (x[..., 1:, 1:-1] - x[..., :-1, 1:-1]).square().sum((0, 1, 3))
        straight = straight + F.pad((x[..., above:-1, 2:] - x[..., above:-1, 1:-1]).square().sum((0, 1, 3)), (above, 0))
        slanted = (x[..., 1:, 1:] - x[..., :-1, :-1]).square() + (x[..., 1:, :-1] - x[..., :-1, 1:]).square()
        by_straight = 2 / 3 / (channels * height * width)
        by_slanted = 1 / 6 / (channels * (height + 1) * (width + 1))
        values = weight * (by_straight * straight + by_slanted * slanted.sum((0, 1, 3)))
        (gradient,) = torch.autograd.grad(values.sum(), free)
    values = values.detach()
    if above:
        values[1] += values[0]
        values = values[1:]
    return F.pad(values, (0, count - len(values))), gradient
