"""Make the table and the pictures of docs/why_gram.md: python tools/why_gram.py [--out FOLDER]

Shuffles the positions of VGG-19's feature maps of the shipped photograph and measures what the style loss and the
content loss make of it; then paints textures from Gram matrices alone. The table goes to stdout, the pictures to
docs/images. Needs matplotlib (pip install "fastnst[plot]"); takes a minute or two, nearly all of it for the textures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastnst import VGG, images, ops, stylize, weights
from fastnst.files import replacing
from fastnst.losses import ContentLoss, StyleLoss
from fastnst.presets import STYLE_LAYERS
from fastnst.settings import Settings
from fastnst.vgg import chain_to

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CROP = (256, 384)  # both pictures, so that features can be compared position by position
SHOWN = "relu2_1"
CHANNELS = (12, 80, 51, 6, 114, 24)  # of SHOWN: chosen by eye for what they tell of the photograph

TEXTURE_SIDE = 224
TEXTURE_STEPS = 60
# Deep Gram matrices pull harder; these bring each layer's loss after the run to the same order.
TEXTURE_LAYERS = (("relu1_1", 10.0), ("relu2_1", 3.0), ("relu3_1", 5.0), ("relu4_1", 1.0))

INK, QUIET, STYLE, CONTENT = "#2b3440", "#6b7785", "#c2703d", "#7d9cb8"
WIDTH = 1500  # pixels
DPI = 100


# ---- the claim -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One layer. The three ratios have for yardstick the same loss between the photograph and the painting."""

    layer: str
    sees: int  # side, in pixels, of the patch that one feature looks at
    style: float  # style loss of the feature map with its positions shuffled
    content: float  # content loss of the same
    pixels: float  # style loss of the photograph with its pixels shuffled before the network sees it


def shuffled(x: Tensor, seed: int = 0) -> Tensor:
    """``x`` ``[1, C, H, W]`` with its positions in random order, the same order for every channel."""
    order = torch.randperm(x.shape[2:].numel(), generator=torch.Generator().manual_seed(seed))
    return x.flatten(2)[:, :, order].reshape(x.shape)


def shipped(name: str, crop: int | tuple[int, int]) -> Tensor:
    """The shipped ``demo_photo`` or ``demo_painting``, pixels ``[1, 3, H, W]`` in 0..1."""
    with as_file(files("fastnst") / "assets" / f"{name}.jpg") as path:
        return images.load(path, crop=crop).pixels


def field_of_view(layer: str) -> int:
    """Side, in pixels, of the patch of the image that one feature of VGG-19's ``layer`` looks at."""
    side = 1
    for step in chain_to("vgg19", [layer]):
        side += {"conv": 2 * step.stride, "pool": step.stride // 2, "relu": 0}[step.kind]
    return side


@torch.no_grad()
def measure() -> list[Row]:
    """The table, one row for each of the five layers of Gatys et al."""
    network = VGG(weights.load(), STYLE_LAYERS)
    photo, painting = shipped("demo_photo", CROP), shipped("demo_painting", CROP)
    here = network.features(photo * 255, STYLE_LAYERS)
    there = network.features(painting * 255, STYLE_LAYERS)
    noise = network.features(shuffled(photo) * 255, STYLE_LAYERS)
    rows = []
    for layer in STYLE_LAYERS:
        style, content = StyleLoss(here[layer]), ContentLoss(here[layer])
        mixed, other = shuffled(here[layer]), there[layer]
        rows.append(
            Row(
                layer,
                field_of_view(layer),
                float(style(mixed) / style(other)),
                float(content(mixed) / content(other)),
                float(style(noise[layer]) / style(other)),
            )
        )
    return rows


NEGLIGIBLE = 1e-10  # ratios below are rounding errors, whose digits differ from machine to machine


def ratio(value: float) -> str:
    """Two digits after the point, or the statement that there is nothing but rounding."""
    return f"< {NEGLIGIBLE:.0e}" if value < NEGLIGIBLE else f"{value:.2f}"


def table(rows: list[Row]) -> str:
    """``rows`` as the Markdown table of the page."""
    lines = [
        "| layer | one feature sees | style loss, features shuffled | content loss, features shuffled "
        "| style loss, pixels shuffled |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row.layer, f"{row.sees} x {row.sees} px", *map(ratio, (row.style, row.content, row.pixels)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# ---- picture 1: shuffled features ------------------------------------------------------------------------------------


class Canvas:
    """A figure on which things are placed in pixels from the top left corner."""

    def __init__(self, height: int) -> None:
        from matplotlib.figure import Figure

        self.height = height
        self.figure: Figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes with a thin frame and no ticks."""
        box = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=QUIET, linewidth=0.6)
        return axes

    def text(self, left: float, top: float, text: str, *, size: float = 13, color: str = INK, at: str = "left") -> None:
        """One or more lines, their middle at ``top``."""
        self.figure.text(
            left / WIDTH, 1 - top / self.height, text, fontsize=size, color=color, ha=at, va="center", linespacing=1.4
        )

    def picture(self, pixels: Tensor, left: float, top: float, width: float, height: float) -> Axes:
        """Pixels ``[1, 3, H, W]`` in 0..1, stretched over the box."""
        axes = self.axes(left, top, width, height)
        axes.imshow(pixels[0].permute(1, 2, 0).numpy(), interpolation="lanczos", aspect="auto")
        return axes

    def save(self, path: Path) -> None:
        """Write a JPEG without chroma subsampling, which would blur coloured lines."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            self.figure.savefig(beside, dpi=DPI, pil_kwargs={"quality": 88, "subsampling": 0, "optimize": True})


def draw_channels(canvas: Canvas, features: Tensor, tops: Tensor, left: float) -> None:
    """Six channels of ``features`` in three columns and two rows; ``tops`` is each channel's white."""
    width, height, gap = 146.0, 97.0, 6.0
    for i, channel in enumerate(CHANNELS):
        axes = canvas.axes(left + (i % 3) * (width + gap), 70 + (i // 3) * (height + gap), width, height)
        shown = features[0, channel].numpy()
        axes.imshow(shown, cmap="bone", vmin=0, vmax=float(tops[channel]), interpolation="antialiased", aspect="auto")


def draw_grams(canvas: Canvas, grams: tuple[Tensor, Tensor], left: float, top: float, side: float, gap: float) -> None:
    """The equation: this Gram matrix - that one = nothing, all three in the same colours."""
    from matplotlib.colors import PowerNorm

    order = grams[0][0].diagonal().argsort(descending=True)  # strong channels first: it reads better
    first, second = (gram[0][order][:, order] for gram in grams)
    labels = ("$G$ of the features", "$G$ of the shuffled features", "their difference")
    for i, (label, gram) in enumerate(zip(labels, (first, second, (first - second).abs()), strict=True)):
        x = left + i * (side + gap)
        axes = canvas.axes(x, top, side, side)
        # The root makes weak pairs visible beside strong ones.
        axes.imshow(gram.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, float(first.max())), interpolation="nearest")
        canvas.text(x + side / 2, top - 24, label, at="center")
        if i < 2:
            canvas.text(x + side + gap / 2, top + side / 2, "\N{MINUS SIGN}="[i], size=26, color=QUIET, at="center")
    canvas.text(left + 2 * (side + gap) + side / 2, top + side / 2, "0", size=40, color=QUIET, at="center")


def draw_bars(canvas: Canvas, rows: list[Row], left: float, top: float, width: float, height: float) -> None:
    """For each layer a long bar (content) and one that is not there (style)."""
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
    tops = features[0].flatten(1).quantile(0.99, dim=1)  # a few bright positions would leave the rest black
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


# ---- picture 2: textures from Gram matrices --------------------------------------------------------------------------


def texture(picture: Tensor, layers: Mapping[str, float], steps: int = TEXTURE_STEPS) -> Tensor:
    """An image from noise with the Gram matrices of ``picture`` at ``layers`` (Gatys, Ecker, Bethge 2015)."""
    settings = Settings(
        content_weight=0.0,
        content_layers=(),
        style_layers=tuple(layers.items()),
        style_form="channels",
        tv_weight=0.0,
        init="noise",
        size=max(picture.shape[2:]),
        steps=steps,
        scales=2,
        pooling="average",
        padding="replicate",  # zeros around the image would tell each feature how near the border is
        precision="float32",
    )
    return stylize(picture, picture, settings=settings).image


def draw_textures(path: Path, steps: int = TEXTURE_STEPS) -> None:
    """The painting, and what one, two, three and four layers' Gram matrices keep of it."""
    painting = shipped("demo_painting", TEXTURE_SIDE)
    gap, left, top = 18.0, 30.0, 74.0
    side = (WIDTH - 2 * left - 4 * gap) / 5
    canvas = Canvas(height=round(top + side + 26))
    canvas.text(left, 28, "the painting", size=15)
    canvas.picture(painting, left, top, side, side)
    for i, (layer, _) in enumerate(TEXTURE_LAYERS):
        print(f"texture {i + 1} of {len(TEXTURE_LAYERS)}: up to {layer}", file=sys.stderr)
        x, sees = left + (i + 1) * (side + gap), field_of_view(layer)
        image = texture(painting, dict(TEXTURE_LAYERS[: i + 1]), steps)
        axes = canvas.picture(image, x, top, side, side)
        draw_view(axes, sees)
        canvas.text(x, 28, f"from $G$ of {layer}" if i == 0 else f"and of {layer}", size=15)
        canvas.text(x, 54, f"one feature sees {sees} x {sees} px", color=QUIET)
    canvas.save(path)


def draw_view(axes: Axes, sees: int) -> None:
    """A white square of the size of one feature's patch, in the lower left corner."""
    from matplotlib.patches import Rectangle

    corner = (5, TEXTURE_SIDE - 6 - sees)
    for color, linewidth in ((INK, 3.0), ("white", 1.5)):
        axes.add_patch(Rectangle(corner, sees, sees, fill=False, edgecolor=color, linewidth=linewidth))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the table and the pictures of docs/why_gram.md.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs" / "images")
    options = parser.parse_args()
    rows = measure()
    print(table(rows))
    draw_shuffle(options.out / "why_gram.jpg", rows)
    draw_textures(options.out / "why_gram_textures.jpg")


if __name__ == "__main__":
    main()
