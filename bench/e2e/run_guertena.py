"""A contender of race.py: PyPI's guertena, whose L-BFGS uses a line search; a step is an evaluation of the loss.

Its loss has the race's form, on images 0..1. It neither reports losses nor stops at a number of evaluations, so its
network is wrapped: it prints each loss and raises an exception after the last evaluation.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from PIL import Image
from torch import Tensor

from bench.e2e import progress, stand_in

folder, optimizer, steps, out = sys.argv[1:]
stand_in.install(Path(folder, "vgg19.pth"))

driver = importlib.import_module("guertena.driver")
styletransfernet = importlib.import_module("guertena.styletransfernet")


class Finished(Exception):
    pass


class Reporting(styletransfernet.StyleTransferNet):
    """Prints the loss of each evaluation; at the first one beyond the limit, saves the image and ends the run."""

    count = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.count == int(steps):
            stand_in.to_picture()(x.detach()[0].clamp(0, 1)).save(out)
            raise Finished
        y = super().forward(x)
        parts = [*self.content_losses, *self.style_losses, self.tv_loss]
        self.count += 1
        progress.step(self.count, float(sum(part.loss for part in parts)))
        return y


driver.StyleTransferNet = Reporting
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
except Finished:
    progress.finish()
