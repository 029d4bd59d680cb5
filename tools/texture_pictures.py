"""Make the pictures of docs/howto/texture.md: a tileable texture shown 2 x 2, and a filled hole.

python -m tools.texture_pictures
"""

from __future__ import annotations

from pathlib import Path

import torch

import fastnst
from fastnst import images
from fastnst.files import ASSETS

ROOT = Path(__file__).resolve().parent.parent / "docs" / "images"
GAP = 8  # pixels between pictures


def main() -> None:
    painting = images.load(ASSETS / "demo_painting.jpg", size=384)
    tile = fastnst.texture(painting, size=(256, 192), tileable="both", device="cpu").image
    print(images.save(ROOT / "tile.jpg", tile.repeat(1, 1, 2, 2), quality=85))
    mask = torch.zeros(1, *painting.size)
    mask[:, 40:90, 230:300] = 1
    filled = fastnst.inpaint(painting, mask, device="cpu").image
    shown = torch.where(mask[None] > 0, torch.ones(()), painting.pixels)
    gap = torch.ones(1, 3, painting.size[0], GAP)
    print(images.save(ROOT / "inpaint.jpg", torch.cat((shown, gap, filled), 3), quality=85))


if __name__ == "__main__":
    main()
