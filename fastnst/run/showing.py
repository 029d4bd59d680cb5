"""A picture in a notebook: at a bounded size, with a caption and a description, as HTML and as an image file."""

from __future__ import annotations

import base64
import html
import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fastnst import images
from fastnst.errors import printable

SHOWN_SIDE = 768
"""Longest side in pixels of the picture that a notebook stores; the result itself keeps its size."""
_QUALITY = 92
_SMALL = "font:0.85em/1.5 sans-serif;opacity:0.8"
"""The style of words: in the color of the page, light or dark."""


def to_pil(image: Tensor, alpha: Tensor | None = None) -> Image.Image:
    """A Pillow image of 8 bits, rounded to nearest as :func:`fastnst.images.save` does: RGB, with alpha RGBA."""
    planes = (image if alpha is None else torch.cat((image, alpha), 1))[0].detach().cpu()
    levels = (planes.clamp(0, 1) * 255 + 0.5).byte()
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def encode(image: Image.Image, quality: int = _QUALITY) -> tuple[str, bytes]:
    """The MIME type and the bytes of a file: JPEG, or PNG for an image with alpha."""
    file = io.BytesIO()
    if image.mode == "RGBA":
        image.save(file, "PNG")
        return "image/png", file.getvalue()
    image.save(file, "JPEG", quality=quality, subsampling=0)
    return "image/jpeg", file.getvalue()


def reduced(image: Tensor, side: int, *, exact: bool) -> Tensor:
    """The planes, reduced so that the longest side has at most ``side`` pixels: by Lanczos if ``exact``, else by means
    of areas, which is faster."""
    height, width = image.shape[-2:]
    if max(height, width) <= side:
        return image
    size = images.fit(height, width, side)
    return images.resize(image, *size) if exact else F.adaptive_avg_pool2d(image, size)


def img(kind: str, data: bytes, alt: str, size: tuple[int, int]) -> str:
    """An ``<img>`` that holds its file, shown at ``size``, height and width, or narrower where there is no room."""
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    height, width = size
    return (
        f'<img src="{source}" alt="{text(alt)}" width="{width}" height="{height}" '
        'style="max-width:100%;height:auto;display:block">'
    )


def figure(inside: str, caption: str) -> str:
    """A ``<figure>``: ``inside`` is HTML, ``caption`` text."""
    return f'<figure style="margin:0.3em 0">{inside}<figcaption style="{_SMALL}">{text(caption)}</figcaption></figure>'


def small(words: str) -> str:
    """A line of text like a caption."""
    return f'<div style="{_SMALL}">{text(words)}</div>'


def text(words: str) -> str:
    """Text in HTML, also as the value of an attribute; characters that do not print are escaped."""
    return html.escape(printable(words), quote=True)


def duration(seconds: float) -> str:
    """Seconds in words: ``0.42 s``, ``12 s``, ``3:05 min``, ``2:03:20 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
