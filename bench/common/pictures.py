"""The shipped pictures, as pixels ``[1, 3, H, W]`` in 0..255."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

import fastnst
from fastnst import images

PHOTO, PAINTING = (Path(fastnst.__file__).parent / "assets" / f"demo_{name}.jpg" for name in ("photo", "painting"))


def shipped(size: int) -> tuple[Tensor, Tensor]:
    """Square crops of the photograph (content) and the painting (style)."""
    content, style = (images.load(path, crop=size).pixels * 255 for path in (PHOTO, PAINTING))
    return content, style
