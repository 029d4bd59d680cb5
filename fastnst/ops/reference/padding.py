"""Padding of a map by one row and column on each side, and its transpose."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PADDINGS = ("zeros", "replicate", "circular", "reflect")
"""What surrounds a map: zeros, the nearest value, the values of the opposite side, or the map mirrored at its outermost
values (of one row or column, the value itself)."""


def sides(padding: str) -> tuple[str, str]:
    """The paddings of rows and of columns: of ``"circular"`` both, of ``"zeros,circular"`` one each."""
    rows, comma, columns = padding.partition(",")
    return rows, columns if comma else rows


def joined(rows: str, columns: str) -> str:
    """The name of a padding from those of rows and of columns."""
    return rows if rows == columns else f"{rows},{columns}"


def pad(x: Tensor, padding: str) -> Tensor:
    """``x [B, C, H, W]`` padded to ``[B, C, H + 2, W + 2]``."""
    rows, columns = sides(padding)
    if rows == columns and (rows != "reflect" or min(x.shape[2:]) > 1):
        return F.pad(x, (1, 1, 1, 1), mode="constant" if rows == "zeros" else rows)
    return _pad_axis(_pad_axis(x, 2, rows), 3, columns)


def _pad_axis(x: Tensor, axis: int, mode: str) -> Tensor:
    if mode == "reflect" and x.shape[axis] == 1:
        mode = "replicate"
    around = (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0)
    return F.pad(x, around, mode="constant" if mode == "zeros" else mode)


def fold(padded: Tensor, padding: str) -> Tensor:
    """The transpose of :func:`pad`: from the gradient ``[B, C, H + 2, W + 2]`` that of the map, ``[B, C, H, W]``."""
    if padding == "replicate":
        b, c, height, width = padded.shape
        shape_only = padded.new_empty((1,)).expand(b, c, height - 2, width - 2)  # its values are not read
        found: Tensor = torch.ops.aten.replication_pad2d_backward(padded, shape_only, [1, 1, 1, 1])
        return found
    rows, columns = sides(padding)
    return _fold_axis(_fold_axis(padded, 2, rows), 3, columns)


def _fold_axis(padded: Tensor, axis: int, mode: str) -> Tensor:
    size = padded.shape[axis] - 2
    inner = padded.narrow(axis, 1, size)
    if mode == "zeros":
        return inner
    # The row or column that stands for the one before the first, and for the one after the last.
    before, after = {"replicate": (0, size - 1), "circular": (size - 1, 0), "reflect": (1, size - 2)}[mode]
    inner = inner.clone()
    inner.narrow(axis, min(before, size - 1), 1).add_(padded.narrow(axis, 0, 1))
    inner.narrow(axis, max(after, 0), 1).add_(padded.narrow(axis, size + 1, 1))
    return inner
