"""``sheet``: several pictures on one, as a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.images.scaling import resize, whole

_ONE_ROW = 5
"""Up to this many pictures stand in one row unless ``columns`` says otherwise."""


def sheet(
    pictures: Sequence[Tensor],
    *,
    columns: int | None = None,
    height: int = 384,
    gap: int = 12,
    labels: Sequence[str] | None = None,
) -> Tensor:
    """Lay out ``pictures`` ([1, 3, H, W] or [3, H, W], float in 0..1) side by side; return float32 [1, 3, H', W'].

    Each is scaled to ``height`` and centred in its column, on white, ``gap`` pixels apart and from the border. Up to
    five stand in one row; more make an about square grid, or ``columns`` wide. ``labels``, one each, stand below.
    Raises UsageError if there is no picture, a shape or a number makes no sense, or labels are not one each.
    """
    height, gap = whole("height", height), whole("gap", gap, least=0)
    if not pictures:
        raise UsageError("sheet: expected at least one picture, got none")
    if labels is not None and len(labels) != len(pictures):
        raise UsageError(f"sheet: expected {len(pictures)} labels, one for each picture, got {len(labels)}")
    count = len(pictures)
    default = count if count <= _ONE_ROW else math.ceil(math.sqrt(count))
    columns = min(count, default if columns is None else whole("columns", columns))
    scaled = [_scaled(picture, height) for picture in pictures]
    widths = [max(picture.shape[2] for picture in scaled[i::columns]) for i in range(columns)]
    lefts = [gap + sum(widths[:i]) + gap * i for i in range(columns)]
    font_size = max(12, height // 20)
    row_height = height + gap + (font_size * 3 // 2 if labels is not None else 0)
    size = gap + row_height * math.ceil(count / columns), gap + sum(widths) + gap * columns
    ground = torch.ones(3, *size, device="cpu", dtype=torch.float32)
    for i, picture in enumerate(scaled):
        row, column = divmod(i, columns)
        top, left = gap + row * row_height, lefts[column]
        start = left + (widths[column] - picture.shape[2]) // 2
        ground[:, top : top + height, start : start + picture.shape[2]] = picture
        if labels is not None:
            below = top + height
            label = _label(labels[i], widths[column], font_size)
            ground[:, below : below + label.shape[0], left : left + label.shape[1]] = label
    return ground[None]


def _scaled(picture: Tensor, height: int) -> Tensor:
    planes = picture[None] if picture.ndim == 3 else picture
    if planes.ndim != 4 or planes.shape[:2] != (1, 3) or 0 in planes.shape:
        raise UsageError(f"sheet: expected pictures [1, 3, H, W], got shape {tuple(picture.shape)}")
    width = max(1, round(planes.shape[3] * height / planes.shape[2]))
    return resize(planes.detach().to("cpu", torch.float32), height, width)[0]


def _label(text: str, width: int, font_size: int) -> Tensor:
    """One line of text centred on white, [1.5 font_size, width]; what is too long ends in dots."""
    strip = Image.new("L", (width, font_size * 3 // 2), 255)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(font_size)
    text = shown = " ".join(text.split())
    while text and draw.textlength(shown, font) > width:
        text = text[:-1]
        shown = text.rstrip() + "..."
    draw.text((width / 2, font_size * 3 / 4), shown, fill=0, font=font, anchor="mm")
    return torch.from_numpy(np.array(strip, np.float32) / 255)
