"""Make the table and the pictures of docs/explanation/why_gram.md.

    python -m tools.why_gram [--out FOLDER]

Shuffles the positions of VGG-19's feature maps of the shipped photograph and measures the style loss and the content
loss of the result; then makes textures from Gram matrices alone. The table goes to stdout, the pictures to docs/images.
Needs matplotlib (pip install "fastnst[plot]"); takes a minute or two, mostly for the textures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastnst import VGG, ops, weights
from tools.canvas import INK, QUIET, WIDTH, Canvas
from tools.gram_measurements import (
    CROP,
    NEGLIGIBLE,
    TEXTURE_STEPS,
    Row,
    measure,
    ratio,
    receptive_field,
    shipped,
    shuffled,
    table,
    texture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = "relu2_1"
CHANNELS = (12, 80, 51, 6, 114, 24)  # of SHOWN, selected by eye
TEXTURE_SIDE = 224
# The style losses of deep layers have larger gradients; these weights give each layer's loss the same order of
# magnitude after the run.
TEXTURE_LAYERS = (("relu1_1", 10.0), ("relu2_1", 3.0), ("relu3_1", 5.0), ("relu4_1", 1.0))
STYLE, CONTENT = "#c2703d", "#7d9cb8"


def draw_channels(canvas: Canvas, features: Tensor, tops: Tensor, left: float) -> None:
    """Six channels of ``features`` in three columns and two rows; ``tops`` are the values shown white."""
    width, height, gap = 146.0, 97.0, 6.0
    for i, channel in enumerate(CHANNELS):
        axes = canvas.axes(left + (i % 3) * (width + gap), 70 + (i // 3) * (height + gap), width, height)
        shown = features[0, channel].numpy()
        axes.imshow(shown, cmap="bone", vmin=0, vmax=float(tops[channel]), interpolation="antialiased", aspect="auto")


def draw_grams(canvas: Canvas, grams: tuple[Tensor, Tensor], left: float, top: float, side: float, gap: float) -> None:
    """Two Gram matrices and their difference, which is zero, in the same colors."""
    from matplotlib.colors import PowerNorm

    order = grams[0][0].diagonal().argsort(descending=True)  # strong channels first
    first, second = (gram[0][order][:, order] for gram in grams)
    labels = ("$G$ of the features", "$G$ of the shuffled features", "their difference")
    for i, (label, gram) in enumerate(zip(labels, (first, second, (first - second).abs()), strict=True)):
        x = left + i * (side + gap)
        axes = canvas.axes(x, top, side, side)
        # The square root makes weak pairs visible beside strong ones.
        axes.imshow(gram.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, float(first.max())), interpolation="nearest")
        canvas.text(x + side / 2, top - 24, label, at="center")
        if i < 2:
            canvas.text(x + side + gap / 2, top + side / 2, "\N{MINUS SIGN}="[i], size=26, color=QUIET, at="center")
    canvas.text(left + 2 * (side + gap) + side / 2, top + side / 2, "0", size=40, color=QUIET, at="center")


def draw_bars(canvas: Canvas, rows: list[Row], left: float, top: float, width: float, height: float) -> None:
    """For each layer the content loss, a long bar, and the style loss, which is zero."""
    axes = canvas.axes(left + 66, top, width - 66, height)
    for i, row in enumerate(rows):
        for shift, value, color in ((-0.18, row.content, CONTENT), (0.18, row.style, STYLE)):
            axes.barh(i + shift, value, height=0.32, color=color)
            label = "0" if value < NEGLIGIBLE else ratio(value)
            axes.text(value + 0.015, i + shift, label, va="center", fontsize=11, color=color if label == "0" else INK)
    axes.axvline(1, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(0, 1.04)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [row.layer for row in rows], fontsize=12, color=INK)
    axes.set_xticks([0, 1], ["0", "as far as the painting"], fontsize=11, color=QUIET)
    axes.get_xticklabels()[1].set_horizontalalignment("right")
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


@torch.no_grad()
def draw_shuffle(path: Path, rows: list[Row]) -> None:
    """The photograph, its features, the same features shuffled; their Gram matrices; the losses at every layer."""
    photo = shipped("demo_photo", CROP)
    features = VGG(weights.load(), [SHOWN]).features(photo * 255)[SHOWN].contiguous()
    mixed = shuffled(features)
    tops = features[0].flatten(1).quantile(0.99, dim=1)  # the maximum would make all other positions nearly black
    scale = 1 / features.shape[2:].numel()

    canvas = Canvas(height=706)
    canvas.text(30, 36, "a photograph", size=15)
    canvas.picture(photo, 30, 70, 300, 200)
    canvas.text(443, 36, f"six of its {features.shape[1]} feature maps at {SHOWN}", size=15)
    draw_channels(canvas, features, tops, 443)
    canvas.text(1020, 36, "the same, positions shuffled", size=15)
    draw_channels(canvas, mixed, tops, 1020)
    for x, label in ((386, "VGG-19"), (956, "shuffle")):
        canvas.text(x, 150, label, color=QUIET, at="center")
        canvas.text(x, 178, "\N{RIGHTWARDS ARROW}", size=26, color=QUIET, at="center")

    canvas.text(30, 324, "shuffled against unshuffled", size=15)
    canvas.text(30, 356, "content loss", color=CONTENT)
    canvas.text(154, 356, "style loss", color=STYLE)
    draw_bars(canvas, rows, 30, 380, 350, 285)
    draw_grams(canvas, (ops.gram(features, scale=scale), ops.gram(mixed, scale=scale)), 443, 380, 285, 86)
    canvas.save(path)


def draw_textures(path: Path, steps: int = TEXTURE_STEPS) -> None:
    """The painting, and textures from the Gram matrices of one, two, three and four of its layers."""
    painting = shipped("demo_painting", TEXTURE_SIDE)
    gap, left, top = 18.0, 30.0, 74.0
    side = (WIDTH - 2 * left - 4 * gap) / 5
    canvas = Canvas(height=round(top + side + 26))
    canvas.text(left, 28, "the painting", size=15)
    canvas.picture(painting, left, top, side, side)
    for i, (layer, _) in enumerate(TEXTURE_LAYERS):
        print(f"texture {i + 1} of {len(TEXTURE_LAYERS)}: up to {layer}", file=sys.stderr)
        x, field = left + (i + 1) * (side + gap), receptive_field(layer)
        image = texture(painting, dict(TEXTURE_LAYERS[: i + 1]), steps)
        axes = canvas.picture(image, x, top, side, side)
        draw_field(axes, field)
        canvas.text(x, 28, f"from $G$ of {layer}" if i == 0 else f"and of {layer}", size=15)
        canvas.text(x, 54, f"one feature sees {field} x {field} px", color=QUIET)
    canvas.save(path)


def draw_field(axes: Axes, field: int) -> None:
    """A white square of the size of a receptive field, in the lower left corner."""
    from matplotlib.patches import Rectangle

    corner = (5, TEXTURE_SIDE - 6 - field)
    for color, linewidth in ((INK, 3.0), ("white", 1.5)):
        axes.add_patch(Rectangle(corner, field, field, fill=False, edgecolor=color, linewidth=linewidth))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs" / "images")
    options = parser.parse_args()
    rows = measure()
    print(table(rows))
    draw_shuffle(options.out / "why_gram.jpg", rows)
    draw_textures(options.out / "why_gram_textures.jpg")


if __name__ == "__main__":
    main()
