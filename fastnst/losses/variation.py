"""The total variation of an image with its gradient: the kinds of the fused op, and a nine-point stencil."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import process
from fastnst.devices import wide_dtype
from fastnst.losses.autograd import constant, leaf, recording

NINE_POINT = "nine_point"
ROWS = 256  # of an image that `add_variation` evaluates at a time


def weighted_variation(image: Tensor, kind: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``weight`` times the total variation of an image, and its gradient.

    Args:
        image: pixels ``[1, 3, H, W]``, float32 or float64.
        kind: a kind of :func:`fastnst.ops.total_variation`, or ``"nine_point"``: the mean of squared differences, with
            factors ``2/3`` for those to the right and lower neighbor and ``1/6`` for those along the two diagonals,
            with replicated borders; the smoothness term of style-transfer-pytorch (Crowson).
        weight: a scalar tensor on the image's device.

    Returns:
        The value, a scalar, and the gradient in the shape of ``image``.
    """
    if kind != NINE_POINT:
        value: Tensor = torch.ops.fastnst.total_variation(image, kind)
        return weight * value, torch.ops.fastnst.total_variation_backward(weight, image, kind)
    values, gradient = _nine_point(image, weight, image.shape[2], 0)
    return values.sum(), gradient


def wrapped_variation(image: Tensor, kind: str, weight: Tensor, wraps: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """As :func:`weighted_variation` of a picture that continues at its opposite side, for the kinds of the op.

    The op runs on the image with a row and a column of the opposite side. The differences within the added row and
    within the added column are subtracted.

    Args:
        image: pixels ``[1, 3, H, W]``.
        kind: a kind of :func:`fastnst.ops.total_variation`.
        weight: a scalar tensor on the image's device.
        wraps: whether the first row follows the last, and whether the first column does.
    """
    rows, columns = (int(wrap) for wrap in wraps)
    x = F.pad(image, (columns, columns, 0, 0), mode="circular") if columns else image
    x = F.pad(x, (0, 0, rows, rows), mode="circular") if rows else x
    (height, width), x = image.shape[2:], x.contiguous()
    gradient = torch.ops.fastnst.total_variation_backward(weight, x, kind)
    value = _sum_of_own(x[:, :, rows:, columns:], kind, height, width)
    return weight * value, gradient[:, :, rows : rows + height, columns : columns + width].contiguous()


def add_variation(
    gradient: Tensor,
    image: Tensor,
    kind: str,
    weight: float,
    rows: slice,
    wraps: tuple[bool, bool] = (False, False),
) -> Tensor:
    """Add rows of the gradient of :func:`weighted_variation` to ``gradient`` and return these rows' part of the value.

    :data:`ROWS` rows are evaluated at a time, so that memory does not grow with the image.

    Args:
        gradient: the gradient of the whole image, whose ``rows`` are written.
        image: pixels ``[1, 3, H, W]``, float32 or float64.
        kind: as in :func:`weighted_variation`.
        weight: a factor.
        rows: the rows, with start and stop.
        wraps: as in :func:`wrapped_variation`.

    Returns:
        A scalar in float64, or in float32 on devices without float64.
    """
    height = image.shape[2]
    factor = torch.tensor(weight, dtype=image.dtype, device=image.device)
    total = torch.zeros((), dtype=wide_dtype(image.device), device=image.device)
    for top in range(rows.start, rows.stop, ROWS):
        bottom = min(top + ROWS, rows.stop)
        low, high = (top - 1, bottom + 1) if wraps[0] else (max(top - 1, 0), min(bottom + 1, height))
        halo = _rows(image, low, high, wraps[1])
        if kind == NINE_POINT:
            values, found = _nine_point(halo, factor, height, low)
            total += values[top - low : bottom - low].to(total.dtype).sum()
        else:
            column, width = int(wraps[1]), image.shape[3]
            found = torch.ops.fastnst.total_variation_backward(factor, halo, kind)[..., column : column + width]
            total += weight * _sum_of_own(halo[:, :, top - low :, column:], kind, bottom - top, width)
        gradient[:, :, top:bottom] += found[:, :, top - low : bottom - low]
        process.release_memory()  # the C library would keep the freed rows of every part of the image
    return total


def _rows(image: Tensor, low: int, high: int, wraps_columns: bool) -> Tensor:
    """Rows ``low`` to ``high`` of an image, where row -1 is the last, with columns of the other side or not."""
    parts = [image[:, :, max(low, 0) : high]]
    parts = [image[:, :, low:], *parts] if low < 0 else parts
    parts = [*parts, image[:, :, : high - image.shape[2]]] if high > image.shape[2] else parts
    rows = torch.cat(parts, 2) if len(parts) > 1 else parts[0].contiguous()
    return F.pad(rows, (1, 1, 0, 0), mode="circular") if wraps_columns else rows


def _sum_of_own(x: Tensor, kind: str, height: int, width: int) -> Tensor:
    """What the first ``height`` rows and ``width`` columns contribute, including differences to the next."""
    value: Tensor = torch.ops.fastnst.total_variation(x.contiguous(), kind).to(wide_dtype(x.device))
    if x.shape[2] > height:  # the next row's differences to the right
        value -= torch.ops.fastnst.total_variation(x[:, :, height:].contiguous(), kind)
    if x.shape[3] > width:  # the next column's differences to the pixel below
        value -= torch.ops.fastnst.total_variation(x[..., width:].contiguous(), kind)
    return value


def _nine_point(rows: Tensor, weight: Tensor, height: int, first: int) -> tuple[Tensor, Tensor]:
    """For rows of an image from row ``first``: the value that each contributes, and the gradient of their sum.

    A row contributes the differences within it, those to the next row and, for the image's first row, those to its
    replica above. The last of ``rows`` contributes nothing unless it is the image's last.
    """
    channels, count, width = rows.shape[1:]
    above, below = int(first == 0), int(first + count == height)
    with recording():
        pixels, weight = leaf(rows), constant(weight)
        x = F.pad(pixels, (1, 1, above, below), mode="replicate")
        straight = (x[..., 1:, 1:-1] - x[..., :-1, 1:-1]).square().sum((0, 1, 3))
        straight = straight + F.pad((x[..., above:-1, 2:] - x[..., above:-1, 1:-1]).square().sum((0, 1, 3)), (above, 0))
        diagonal = (x[..., 1:, 1:] - x[..., :-1, :-1]).square() + (x[..., 1:, :-1] - x[..., :-1, 1:]).square()
        by_straight = 2 / 3 / (channels * height * width)
        by_diagonal = 1 / 6 / (channels * (height + 1) * (width + 1))
        values = weight * (by_straight * straight + by_diagonal * diagonal.sum((0, 1, 3)))
        (gradient,) = torch.autograd.grad(values.sum(), pixels)
    values = values.detach()
    if above:
        values[1] += values[0]
        values = values[1:]
    return F.pad(values, (0, count - len(values))), gradient
