"""Train a small feed-forward network that paints in one style (Johnson, Alahi and Fei-Fei 2016).

    python examples/ops_in_training.py photo.jpg painting.jpg --steps 200 --output trained.png

The losses are modules of ``fastnst.losses``; autograd differentiates through them and through VGG.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch
from torch import Tensor, nn

from fastnst import VGG, images, losses, weights

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1")
CONTENT_LAYER = "relu3_1"


class Painter(nn.Module):
    """Four convolutions that change an image ``[B, 3, H, W]`` in 0..1."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        sizes = (3, channels, channels, channels, 3)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor) -> Tensor:
        return (image + self.layers(image - 0.5)).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--output", default="trained.png")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()

    torch.manual_seed(0)
    photo = images.load(options.content, size=options.size).pixels
    painting = images.load(options.style, size=options.size).pixels
    vgg = VGG(weights.load(), STYLE_LAYERS)
    styles = vgg.features(255 * painting, STYLE_LAYERS)
    gram_losses = {name: losses.GramLoss(styles[name], form="channels", weight=1000.0) for name in STYLE_LAYERS}
    content_loss = losses.ContentLoss(vgg.features(255 * photo, [CONTENT_LAYER])[CONTENT_LAYER], weight=8.0)
    smoothness = losses.TotalVariationLoss(weight=1.0)

    painter = Painter()
    optimizer = torch.optim.Adam(painter.parameters(), lr=1e-3)
    for step in range(options.steps):
        optimizer.zero_grad()
        image = painter(photo)
        features = vgg.features(255 * image, STYLE_LAYERS)
        style = torch.stack([loss(features[name]) for name, loss in gram_losses.items()]).sum()
        total = style + content_loss(features[CONTENT_LAYER]) + smoothness(image)
        total.backward()
        optimizer.step()
        if step % 20 == 0 or step == options.steps - 1:
            print(f"step {step + 1}: loss {total.item():.4g}")
    with torch.no_grad():
        images.save(options.output, painter(photo))


if __name__ == "__main__":
    main()
