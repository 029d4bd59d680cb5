"""What Gram matrices keep of features: the measurements of docs/why_gram.md, and textures from Gram matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files

import torch
from torch import Tensor

from fastnst import VGG, images, stylize, weights
from fastnst.config.presets import STYLE_LAYERS
from fastnst.config.settings import Settings
from fastnst.losses.modules import ContentLoss, GramLoss
from fastnst.network.vgg import chain_to

CROP = (256, 384)  # both pictures, so that features can be compared position by position
NEGLIGIBLE = 1e-10  # ratios below are rounding errors, whose digits differ from machine to machine
TEXTURE_STEPS = 60


@dataclass(frozen=True)
class Row:
    """One layer. The three ratios are relative to the same loss between the photograph and the painting."""

    layer: str
    field: int  # side, in pixels, of the receptive field of one feature
    style: float  # style loss of the feature map with its positions shuffled
    content: float  # content loss of the same
    pixels: float  # style loss of the photograph with its pixels shuffled


def shuffled(x: Tensor, seed: int = 0) -> Tensor:
    """``x`` ``[1, C, H, W]`` with its positions in random order, the same order for every channel."""
    order = torch.randperm(x.shape[2:].numel(), generator=torch.Generator().manual_seed(seed))
    return x.flatten(2)[:, :, order].reshape(x.shape)


def shipped(name: str, crop: int | tuple[int, int]) -> Tensor:
    """The shipped ``demo_photo`` or ``demo_painting``, pixels ``[1, 3, H, W]`` in 0..1."""
    with as_file(files("fastnst") / "assets" / f"{name}.jpg") as path:
        return images.load(path, crop=crop).pixels


def receptive_field(layer: str) -> int:
    """Side, in pixels, of the receptive field of one feature of VGG-19's ``layer``."""
    side = 1
    for step in chain_to("vgg19", [layer]):
        side += {"conv": 2 * step.stride, "pool": step.stride // 2, "relu": 0}[step.kind]
    return side


@torch.no_grad()
def measure() -> list[Row]:
    """The table, one row for each of the five layers of Gatys et al."""
    network = VGG(weights.load(), STYLE_LAYERS)
    photo, painting = shipped("demo_photo", CROP), shipped("demo_painting", CROP)
    of_photo = network.features(photo * 255, STYLE_LAYERS)
    of_painting = network.features(painting * 255, STYLE_LAYERS)
    noise = network.features(shuffled(photo) * 255, STYLE_LAYERS)
    rows = []
    for layer in STYLE_LAYERS:
        style, content = GramLoss(of_photo[layer]), ContentLoss(of_photo[layer])
        mixed, other = shuffled(of_photo[layer]), of_painting[layer]
        rows.append(
            Row(
                layer,
                receptive_field(layer),
                float(style(mixed) / style(other)),
                float(content(mixed) / content(other)),
                float(style(noise[layer]) / style(other)),
            )
        )
    return rows


def ratio(value: float) -> str:
    """Two digits after the point, or a bound where there is only rounding error."""
    return f"< {NEGLIGIBLE:.0e}" if value < NEGLIGIBLE else f"{value:.2f}"


def table(rows: list[Row]) -> str:
    """``rows`` as the Markdown table of the page."""
    lines = [
        "| layer | one feature sees | style loss, features shuffled | content loss, features shuffled "
        "| style loss, pixels shuffled |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row.layer, f"{row.field} x {row.field} px", *map(ratio, (row.style, row.content, row.pixels)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
        padding="replicate",  # zeros would depend on the distance to the border
        precision="float32",
    )
    return stylize(picture, picture, settings=settings).image
