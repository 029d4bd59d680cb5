"""Lanczos resizing of float tensors."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fastnst.errors import UsageError

_REACH = 3  # of the filter, in pixels of the larger grid


def check_integer(name: str, value: object, least: int = 1) -> int:
    """Return ``value`` as an int; raise UsageError unless it is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UsageError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return int(value)


def fit(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the height and width of the same proportions whose longest side is ``size``; no side is below 1.

    Raises:
        UsageError: an argument is not a positive integer.

    Example:
        >>> from fastnst import images
        >>> images.fit(480, 640, 320)
        (240, 320)
    """
    longest = max(check_integer("height", height), check_integer("width", width))
    return _scaled(height, check_integer("size", size), longest), _scaled(width, size, longest)


def cover(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest height and width of the same proportions that cover ``crop`` (height, width)."""
    if crop[0] * width >= crop[1] * height:
        return crop[0], max(crop[1], _scaled(width, crop[0], height))
    return max(crop[0], _scaled(height, crop[1], width)), crop[1]


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize images by Lanczos interpolation (a = 3), with antialiasing when shrinking.

    Each channel is resized by Pillow in float32, without rounding to 8 bits. The result is clamped to 0..1, because
    Lanczos interpolation overshoots at sharp transitions. It is detached.

    Args:
        pixels: ``[B, C, H, W]`` of a floating-point dtype, in 0..1.
        height: height of the result.
        width: width of the result.

    Returns:
        ``[B, C, height, width]`` in the dtype and on the device of ``pixels``; of the same size, in 0..1, it shares the
        memory of ``pixels``.

    Raises:
        UsageError: another shape, an integer dtype, or a side below 1.

    Example:
        >>> import torch
        >>> from fastnst import images
        >>> images.resize(torch.rand(1, 3, 8, 8), 4, 6).shape
        torch.Size([1, 3, 4, 6])
    """
    if pixels.ndim != 4 or 0 in pixels.shape or not pixels.is_floating_point():
        raise UsageError(
            f"resize: expected a float tensor [B, C, H, W], got {pixels.dtype} of shape {tuple(pixels.shape)}"
        )
    if tuple(pixels.shape[2:]) != (check_integer("height", height), check_integer("width", width)):
        return lanczos(pixels, height, width).clamp_(0, 1)
    low, high = pixels.detach().aminmax()
    return pixels.detach() if low >= 0 and high <= 1 else pixels.detach().clamp(0, 1)


def resize_wrapped(pixels: Tensor, height: int, width: int, wraps: tuple[bool, bool]) -> Tensor:
    """As :func:`resize`, for pictures that continue at their opposite side.

    The picture is resized with a margin of its other end, in whole pixels before and after, and cropped.

    Args:
        pixels, height, width: as there.
        wraps: whether the first row follows the last, and whether the first column does.
    """
    old, new = tuple(pixels.shape[2:]), (height, width)
    if old == new or not any(wraps):
        return resize(pixels, height, width)
    margins = [_margin(*sides) if wrap else (0, 0) for *sides, wrap in zip(old, new, wraps, strict=True)]
    (above, rows), (left, columns) = margins
    padded = F.pad(pixels, (left, left, above, above), mode="circular")
    found = resize(padded, height + 2 * rows, width + 2 * columns)
    return found[:, :, rows : rows + height, columns : columns + width].contiguous()


def _margin(old: int, new: int) -> tuple[int, int]:
    """A margin in pixels of a side of length ``old``, wider than the filter reaches, and the same margin resized."""
    unit = old // math.gcd(old, new)
    reach = math.ceil(_REACH * max(1.0, old / new)) + 1
    margin = min(-(-reach // unit) * unit, old)
    return margin, margin * new // old


def lanczos(pixels: Tensor, height: int, width: int) -> Tensor:
    """As :func:`resize`, without clamping to 0..1 and without checks."""
    if (height, width) == tuple(pixels.shape[2:]):
        return pixels.detach()
    planes = pixels.detach().to("cpu", torch.float32).flatten(0, 1)
    resized = np.empty((len(planes), height, width), np.float32)
    for plane, result in zip(planes, resized, strict=True):
        result[:] = np.asarray(Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.LANCZOS))
    return torch.from_numpy(resized).reshape(*pixels.shape[:2], height, width).to(pixels)


def _scaled(side: int, numerator: int, denominator: int) -> int:
    """``side * numerator / denominator`` rounded to nearest in integer arithmetic, at least 1."""
    return max(1, (2 * side * numerator + denominator) // (2 * denominator))
