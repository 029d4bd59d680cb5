"""One contender of race.py: PyPI's guertena, whose L-BFGS searches along lines; a step is an evaluation of the loss.

Its loss is the race's form, on images 0..1. It neither reports nor stops at a number of evaluations, so that its
network is watched, and left when it is asked once more than agreed.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import progress
import stand_in
from PIL import Image
from torch import Tensor

folder, optimizer, steps, out = sys.argv[1:]
stand_in.install(Path(folder, "vgg19.pth"))

driver = importlib.import_module("guertena.driver")
styletransfernet = importlib.import_module("guertena.styletransfernet")


class Enough(Exception):
    pass


class Watched(styletransfernet.StyleTransferNet):
    """Prints the loss of each evaluation; at the one too many, saves the image and ends the run."""

    taken = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.taken == int(steps):
            stand_in.to_picture()(x.detach()[0].clamp(0, 1)).save(out)
            raise Enough
        y = super().forward(x)
        parts = [*self.content_losses, *self.style_losses, self.tv_loss]
        self.taken += 1
        progress.step(self.taken, float(sum(part.loss for part in parts)))
        return y


driver.StyleTransferNet = Watched
content, style = (Image.open(Path(folder, f"{name}.png")).convert("RGB") for name in ("content", "style"))
try:
    driver.style_transfer(
        content,
        style,
        num_steps=int(steps),
        style_weight=100.0,
        content_weight=5.0,
        tv_weight=1e-3 * 255 * 3 * content.width**2,
        content_layers=["relu_10"],
        style_layers=["relu_1", "relu_3", "relu_5", "relu_9", "relu_13"],
        upscaling_rounds=0,
    )
except Enough:
    progress.finish()
