"""Style a photograph at 4096 x 4096 in strips, and show crops around the boundaries between strips.

    python -m tools.large_picture PAINTING [--photo FILE] [--side 4096] [--memory 2.2GB]

The photograph is enlarged and cropped to a square; scales go from an eighth of the side to the whole, with few steps at
the last. Writes docs/images/large.jpg: the picture reduced, and below it crops at full size around boundaries of
strips, which are marked at the left border of each crop. Prints the seconds and the peak memory.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fastnst import Settings
from fastnst.cli import info
from fastnst.config.parsing import parse_bytes
from fastnst.run.stylizer import Stylizer

ROOT = Path(__file__).resolve().parents[1]
STEPS = (60, 12, 4, 2)
CROP = (640, 300)  # width and height


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("painting", type=Path)
    parser.add_argument("--photo", type=Path, default=ROOT / "fastnst" / "assets" / "demo_photo.jpg")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--memory", type=parse_bytes, default=parse_bytes("2.2GB"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "large.jpg")
    options = parser.parse_args()
    side = options.side
    settings = Settings(
        size=None,
        crop=side,
        scales=tuple(side // 2**i for i in (3, 2, 1, 0)),
        steps=STEPS,
        optimizer="adam",
        learning_rate=6.0,
        style_scale=0.5,
        memory=options.memory,
        tiles="auto",
    )
    stylizer = Stylizer(settings)
    rows = stylizer.setup.sizing.rows(side, side, scale=4)
    assert rows is not None
    scene = stylizer.load_scene(options.photo, options.painting)
    result = stylizer.run(scene, callback=lambda step: print(step.scale, step.step, step.losses.total, file=sys.stderr))
    peak = (info.peak_memory() or 0) / 1e9
    print(f"{side} x {side}, strips of {rows} rows: {result.seconds:.0f} s, peak resident {peak:.2f} GB")
    picture = Image.fromarray((result.image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    boundaries = range(rows, side, rows)
    chosen = [boundaries[len(boundaries) * i // 4] for i in (1, 2, 3)]
    width, height = CROP
    sheet = Image.new("RGB", (width, width + 3 * (height + 8)), "white")
    sheet.paste(picture.resize((width, width), Image.Resampling.LANCZOS), (0, 0))
    for i, row in enumerate(chosen):
        left = (side - width) * (i + 1) // 4
        crop = picture.crop((left, row - height // 2, left + width, row + height // 2))
        ImageDraw.Draw(crop).line([(0, height // 2), (10, height // 2)], "red", 2)
        sheet.paste(crop, (0, width + 8 + i * (height + 8)))
    sheet.save(options.out, quality=85)


if __name__ == "__main__":
    main()
