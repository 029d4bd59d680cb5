"""Lanczos resizing of float tensors."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastnst.errors import UsageError


def whole(name: str, value: object, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``, else raise UsageError naming it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UsageError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return int(value)


def fit(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the ``(height, width)`` of the same proportions whose longest side is ``size``; no side is below 1."""
    longest = max(whole("height", height), whole("width", width))
    return _scaled(height, whole("size", size), longest), _scaled(width, size, longest)


def cover(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest ``(height, width)`` of the same proportions that covers ``crop`` (height, width)."""
    if crop[0] * width >= crop[1] * height:
        return crop[0], max(crop[1], _scaled(width, crop[0], height))
    return max(crop[0], _scaled(height, crop[1], width)), crop[1]


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize ``pixels`` [B, C, H, W] to [B, C, height, width] by Lanczos (a = 3), antialiased when shrinking.

    Each channel goes through Pillow in its float32 mode "F", so nothing is rounded to 8 bits. Lanczos overshoots at
    edges; the result is clamped to 0..1. Device and dtype are those of ``pixels``; no gradient flows.
    Raises UsageError for another shape, an integer dtype or a side below 1.
    """
    if pixels.ndim != 4 or 0 in pixels.shape or not pixels.is_floating_point():
        raise UsageError(
            f"resize: expected a float tensor [B, C, H, W], got {pixels.dtype} of shape {tuple(pixels.shape)}"
        )
    return lanczos(pixels, whole("height", height), whole("width", width)).clamp(0, 1)


def lanczos(pixels: Tensor, height: int, width: int) -> Tensor:
    """``resize`` with what overshoots 0..1 left in."""
    if (height, width) == tuple(pixels.shape[2:]):
        return pixels.detach()
    planes = pixels.detach().to("cpu", torch.float32).flatten(0, 1)
    resized = np.empty((len(planes), height, width), np.float32)
    for plane, result in zip(planes, resized, strict=True):
        result[:] = np.asarray(Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.LANCZOS))
    return torch.from_numpy(resized).reshape(*pixels.shape[:2], height, width).to(pixels)


def _scaled(side: int, numerator: int, denominator: int) -> int:
    """``side * numerator / denominator`` rounded to nearest, at least 1, in whole numbers."""
    return max(1, (2 * side * numerator + denominator) // (2 * denominator))
