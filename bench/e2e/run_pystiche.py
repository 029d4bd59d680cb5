"""A contender of race.py: the loop of PyPI's pystiche with its own encoder and losses, and fastnst's weights.

The weights of its losses are chosen to give the race's loss, except that its total variation is isotropic. Its images
are 0..1, so Adam's learning rate of one gray level is 1/255.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from PIL import Image

from bench.e2e import progress, stand_in

CHANNELS = {"relu1_1": 64, "relu2_1": 128, "relu3_1": 256, "relu4_1": 512, "relu5_1": 512}

folder, optimizer, steps, out = sys.argv[1:]
stand_in.install()

enc, loss, optim = (importlib.import_module(f"pystiche.{part}") for part in ("enc", "loss", "optim"))

network = enc.vgg19_multi_layer_encoder(pretrained=False, framework="caffe")
network.load_state_dict(torch.load(Path(folder, "vgg19.pth")), strict=False)
read = stand_in.to_tensor()
content, style = (read(Image.open(Path(folder, f"{name}.png")))[None] for name in ("content", "style"))
side = content.shape[-1]
criterion = loss.PerceptualLoss(
    content_loss=loss.FeatureReconstructionLoss(network.extract_encoder("relu4_2"), score_weight=5.0),
    style_loss=loss.MultiLayerEncodingLoss(
        network,
        tuple(CHANNELS),
        lambda encoder, weight: loss.GramLoss(encoder, score_weight=weight),
        layer_weights=[100 / c**2 for c in CHANNELS.values()],
    ),
    regularization=loss.TotalVariationLoss(exponent=1.0, score_weight=1e-3 * 255 * 3 * (side - 1) ** 2),
)
criterion.set_content_image(content)
criterion.set_style_image(style)
count = 0


def evaluate(image: torch.Tensor) -> object:
    """The losses of pystiche, reported to the race."""
    global count
    losses = criterion(image)
    count += 1
    progress.step(count, float(losses))
    return losses


def adam(image: torch.Tensor) -> torch.optim.Optimizer:
    return torch.optim.Adam([image.requires_grad_(True)], lr=1 / 255)


image = optim.image_optimization(
    content.clone(), evaluate, optimizer=adam if optimizer == "adam" else None, num_steps=int(steps), quiet=True
)
stand_in.to_picture()(image[0].clamp(0, 1)).save(out)
progress.finish()
