"""Make the pictures of docs/control.md: python tools/control_pictures.py [--out FOLDER] [NAME ...]

The shipped photograph in the style of the shipped painting, and of hatching drawn here, in each of the ways that the
document describes. Without names all sheets are made, which takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastnst import images, styles, stylize
from fastnst.demo import PAINTING, PHOTO
from fastnst.settings import KEEP_COLOURS, MATCH_COLOURS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
SIZE, STEPS = 256, 60
Shown = list[tuple[str, Tensor]]


def photograph() -> Tensor:
    return images.load(PHOTO, size=SIZE).pixels


def painting() -> Tensor:
    return images.load(PAINTING, size=SIZE).pixels


def hatching() -> Tensor:
    """Ink on paper: waves of lines whose width wanders."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    bend = 0.04 * np.sin(7 * x + 3 * y) + 0.03 * np.sin(13 * y - 5 * x)
    lines = np.sin(2 * np.pi * 34 * (y + bend + 0.4 * x)) + 0.9 * np.sin(9 * x + 4 * np.sin(6 * y))
    ink = 1 / (1 + np.exp(-6 * lines))
    paper, black = np.array([0.95, 0.91, 0.80]), np.array([0.10, 0.09, 0.13])
    return torch.tensor(black + ink[..., None] * (paper - black)).float().permute(2, 0, 1)[None]


def upper(soft: float = 0.08) -> Tensor:
    """A mask of the photograph's size: white above the middle, black below, soft between."""
    height, width = photograph().shape[2:]
    rows = torch.linspace(0, 1, height)[None, None, :, None]
    return torch.sigmoid((0.5 - rows) / soft * 4).expand(1, 3, height, width)


def made(style: Any = None, **ways: Any) -> Tensor:
    return stylize(photograph(), painting() if style is None else style, size=SIZE, **{"steps": STEPS, **ways}).image


def scales() -> Shown:
    return [
        ("one scale", made(scales=1, steps=2 * STEPS)),
        ("two", made(scales=2)),
        ("three by the root of two", made(scales=3, scale_factor=2**0.5, min_scale=64, steps=40)),
        ("style half as large", made(style_scale=0.5)),
        ("style twice as large", made(style_scale=2.0)),
    ]


def several() -> Shown:
    both = [painting(), hatching()]
    return [
        ("hatching", hatching()),
        ("hatching alone", made(hatching())),
        ("both alike", made(both)),
        ("painting 3, hatching 1", made(both, style_weights=(3.0, 1.0))),
        ("shallow layers", made(style_layers=(("relu1_1", 20.0), ("relu2_1", 5.0)))),
        ("deep layers", made(style_layers=(("relu3_1", 1.0), ("relu4_1", 4.0), ("relu5_1", 8.0)))),
        (
            "gradients of one size",
            made(
                normalise_gradients=True,
                style_weight=20.0,
                content_weight=10.0,
                tv_weight=0.0,
                optimizer="adam",
                learning_rate=4.0,
            ),
        ),
    ]


def masks() -> Shown:
    top, bottom = upper(), 1 - upper()
    both = [painting(), hatching()]
    return [
        ("mask of the painting", top),
        ("each in its mask", made(both, masks=[top, bottom])),
        ("the painting above alone", made([painting()], masks=[top])),
        ("content held below", made(content_mask=bottom, content_weight=40.0)),
    ]


def losses() -> Shown:
    return [("gram", made()), *((name, made(style_loss=name)) for name in styles.registry.BUILT_IN)]


def colour() -> Shown:
    ways: list[dict[str, Any]] = [{"keep_colour": how} for how in KEEP_COLOURS[1:]]
    ways += [{"match_colour": how} for how in MATCH_COLOURS[1:]]
    ways += [{"match_colour": "monge-kantorovich", "keep_colour": "yiq"}]
    return [
        (", ".join(f"{name.split('_')[0]} {how}" for name, how in way.items()), made(**way))
        for way in ({}, *ways)
        if way
    ]


SHEETS = {"scales": scales, "styles": several, "masks": masks, "losses": losses, "colour": colour}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of docs/control.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of sheets: {', '.join(SHEETS)} (default: all)")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    for name in options.names or SHEETS:
        print(name, file=sys.stderr)
        shown = [("the photograph", photograph()), ("the painting", painting()), *SHEETS[name]()]
        height = min(picture.shape[2] for _, picture in shown)
        labels, pictures = zip(*shown, strict=True)
        sheet = images.sheet(pictures, columns=4, height=height, labels=labels)
        print(images.save(options.out / f"{name}.jpg", sheet, quality=75))


if __name__ == "__main__":
    main()
