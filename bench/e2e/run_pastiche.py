"""A contender of race.py: PyPI's pastiche. Its network gets fastnst's weights instead of the quantized ones.

The weights of its losses are chosen to give the race's loss: it divides Gram matrices by N and takes means.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from pastiche import pastiche, vgg19
from PIL import Image

from bench.e2e import progress

CHANNELS = (64, 128, 256, 512, 512)

folder, optimizer, steps, out = sys.argv[1:]
content, style = (str(Path(folder, f"{name}.png")) for name in ("content", "style"))


def network(path: str, pooling: str) -> vgg19.VGG19:
    """pastiche's network with fastnst's weights; beyond conv5_1, which no loss needs, with empty ones."""
    state = iter(torch.load(Path(folder, "vgg19.pth")).values())
    none = torch.empty(0)
    pairs = [(next(state, none), next(state, none)) for _ in vgg19.VGG19.Weights._fields]
    return vgg19.VGG19(vgg19.VGG19.Weights(*pairs), pooling=pooling)


vgg19.VGG19.from_quantized_bin = staticmethod(network)
side = Image.open(content).width
artist = pastiche.PasticheArtist(
    content,
    [style],
    optimizer=optimizer,
    device="cpu",
    content_layer_weights=[5.0],
    style_layer_weights=[100 / c**2 for c in CHANNELS],
    style_weights=[1.0],
    tv_weight=2e-3 * 3 * side * (side - 1),  # half of it times the mean of the differences
)
for number in range(1, int(steps) + 1):
    artist.draw()
    progress.step(number, artist.loss)
pastiche.save_image(artist.pastiche, out)
progress.finish()
