"""``sheet``: several images side by side, as a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.images.scaling import check_integer, resize

_ONE_ROW = 5
"""Up to this many images are placed in one row by default."""


def sheet(
    pictures: Sequence[Tensor],
    *,
    columns: int | None = None,
    height: int = 384,
    gap: int = 12,
    labels: Sequence[str] | None = None,
) -> Tensor:
    """Arrange images in a grid on white, each centered in its column.

    Args:
        pictures: images ``[1, 3, H, W]`` or ``[3, H, W]``, floats in 0..1, of any sizes.
        columns: number of columns; None for one row of up to five images, and an approximately square grid of more.
        height: height in pixels that each image is scaled to.
        gap: distance in pixels between images and to the border.
        labels: one line of text below each image.

    Returns:
        float32 ``[1, 3, H, W]`` on the CPU.

    Raises:
        UsageError: no images, an invalid shape or number, or not one label per image.

    Example:
        >>> import torch
        >>> from fastnst import images
        >>> images.sheet([torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 16)], height=16, gap=2).shape
        torch.Size([1, 3, 20, 54])
    """
    height, gap = check_integer("height", height), check_integer("gap", gap, least=0)
    count = len(pictures)
    columns = _columns(count, columns, labels)
    scaled = [_scale(picture, height) for picture in pictures]
    widths = [max(picture.shape[2] for picture in scaled[i::columns]) for i in range(columns)]
    lefts = [gap + sum(widths[:i]) + gap * i for i in range(columns)]
    font_size = max(12, height // 20)
    row_height = height + gap + (font_size * 3 // 2 if labels is not None else 0)
    size = gap + row_height * math.ceil(count / columns), gap + sum(widths) + gap * columns
    canvas = torch.ones(3, *size, device="cpu", dtype=torch.float32)
    for i, picture in enumerate(scaled):
        row, column = divmod(i, columns)
        top, left = gap + row * row_height, lefts[column]
        start = left + (widths[column] - picture.shape[2]) // 2
        canvas[:, top : top + height, start : start + picture.shape[2]] = picture
        if labels is not None:
            below = top + height
            label = _label(labels[i], widths[column], font_size)
            canvas[:, below : below + label.shape[0], left : left + label.shape[1]] = label
    return canvas[None]


def _columns(count: int, columns: int | None, labels: Sequence[str] | None) -> int:
    if not count:
        raise UsageError("sheet: expected at least one picture, got none")
    if labels is not None and len(labels) != count:
        raise UsageError(f"sheet: expected {count} labels, one for each picture, got {len(labels)}")
    default = count if count <= _ONE_ROW else math.ceil(math.sqrt(count))
    return min(count, default if columns is None else check_integer("columns", columns))


def _scale(picture: Tensor, height: int) -> Tensor:
    planes = picture[None] if picture.ndim == 3 else picture
    if planes.ndim != 4 or planes.shape[:2] != (1, 3) or 0 in planes.shape:
        raise UsageError(f"sheet: expected pictures [1, 3, H, W], got shape {tuple(picture.shape)}")
    width = max(1, round(planes.shape[3] * height / planes.shape[2]))
    return resize(planes.detach().to("cpu", torch.float32), height, width)[0]


def _label(text: str, width: int, font_size: int) -> Tensor:
    """Render a line of text centered on white, [1.5 font_size, width]; text that is too long is cut with dots."""
    strip = Image.new("L", (width, font_size * 3 // 2), 255)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(font_size)
    text = shown = " ".join(text.split())
    while text and draw.textlength(shown, font) > width:
        text = text[:-1]
        shown = text.rstrip() + "..."
    draw.text((width / 2, font_size * 3 / 4), shown, fill=0, font=font, anchor="mm")
    return torch.from_numpy(np.array(strip, np.float32) / 255)
