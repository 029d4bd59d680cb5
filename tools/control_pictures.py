"""Make the pictures of docs/howto/control.md, style_losses.md and own_network.md.

    python -m tools.control_pictures [--out FOLDER] [NAME ...]

The shipped photograph in the style of the shipped painting, and of hatching drawn here, with each of the settings that
the document describes. Without names all sheets are made, which takes more than half an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastnst import images, stylize
from fastnst.cli.demo import PAINTING, PHOTO
from fastnst.config.ranges import KEEP_COLORS, MATCH_COLORS
from fastnst.losses.joint import JointLoss
from fastnst.losses.style import registry
from fastnst.run.colors import restore
from fastnst.run.photoreal import smooth

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
SIZE, STEPS = 256, 60
Labeled = list[tuple[str, Tensor]]


def photograph() -> Tensor:
    return images.load(PHOTO, size=SIZE).pixels


def painting() -> Tensor:
    return images.load(PAINTING, size=SIZE).pixels


def hatching() -> Tensor:
    """Ink on paper: waves of lines of varying width."""
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


def styled(style: Any = None, **changes: Any) -> Tensor:
    return stylize(photograph(), painting() if style is None else style, size=SIZE, **{"steps": STEPS, **changes}).image


def scales() -> Labeled:
    return [
        ("one scale", styled(scales=1, steps=2 * STEPS)),
        ("two", styled(scales=2)),
        ("three by the root of two", styled(scales=3, scale_factor=2**0.5, min_scale=64, steps=40)),
        ("style half as large", styled(style_scale=0.5)),
        ("style twice as large", styled(style_scale=2.0)),
    ]


def several() -> Labeled:
    both = [painting(), hatching()]
    return [
        ("hatching", hatching()),
        ("hatching alone", styled(hatching())),
        ("both alike", styled(both)),
        ("painting 3, hatching 1", styled(both, style_weights=(3.0, 1.0))),
        ("shallow layers", styled(style_layers=(("relu1_1", 20.0), ("relu2_1", 5.0)))),
        ("deep layers", styled(style_layers=(("relu3_1", 1.0), ("relu4_1", 4.0), ("relu5_1", 8.0)))),
        (
            "gradients of one size",
            styled(
                normalize_gradients=True,
                style_weight=20.0,
                content_weight=10.0,
                tv_weight=0.0,
                optimizer="adam",
                learning_rate=4.0,
            ),
        ),
    ]


def masks() -> Labeled:
    top, bottom = upper(), 1 - upper()
    both = [painting(), hatching()]
    return [
        ("mask of the painting", top),
        ("each in its mask", styled(both, masks=[top, bottom])),
        ("the painting above alone", styled([painting()], masks=[top])),
        ("content held below", styled(content_mask=bottom, content_weight=40.0)),
    ]


def losses() -> Labeled:
    names = [name for name, kind in registry.BUILT_IN.items() if not issubclass(kind, JointLoss)]
    return [("gram", styled()), *((name, styled(style_loss=name)) for name in names)]


def several_layers() -> Labeled:
    """With fewer steps and scales than the preset has, and the bundled network."""
    usual: dict[str, Any] = {"arch": "vgg19", "weights": "vgg19", "scales": 3, "steps": (60, 60, 80)}
    return [("nnst", styled(preset="nnst", **usual))]


def color() -> Labeled:
    ways: list[dict[str, Any]] = [{"keep_color": how} for how in KEEP_COLORS[1:]]
    ways += [{"match_color": how} for how in MATCH_COLORS[1:]]
    ways += [{"match_color": "monge-kantorovich", "keep_color": "yiq"}]
    return [(", ".join(f"{name.split('_')[0]} {how}" for name, how in way.items()), styled(**way)) for way in ways]


def photorealistic() -> Labeled:
    """One result, and the pass over it, which is the same after the run as in it."""
    made = styled()
    passes = [(f"photoreal {strength:g}", smooth(made, photograph(), strength)) for strength in (0.1, 1.0, 10.0)]
    kept = restore(passes[1][1], photograph(), "lab")
    return [("the result", made), *passes, ("photoreal 1, keep lab", kept)]


def encoders() -> Labeled:
    return [(name, styled(arch=name)) for name in ("vgg19", "efficientnet_lite0")]


SHEETS = {
    "scales": scales,
    "styles": several,
    "masks": masks,
    "losses": losses,
    "several_layers": several_layers,
    "color": color,
    "photoreal": photorealistic,
    "encoders": encoders,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
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
