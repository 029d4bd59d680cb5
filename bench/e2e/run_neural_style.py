"""One contender of race.py: PyPI's neural-style, unchanged, by its own command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import progress
import stand_in
import torch
from PIL import Image
from torch import Tensor

folder, optimizer, steps, out = sys.argv[1:]
stand_in.install()
options = {
    "content_image": f"{folder}/content.png",
    "style_image": f"{folder}/style.png",
    "model_file": f"{folder}/vgg19.pth",
    "output_image": out,
    "image_size": Image.open(Path(folder, "content.png")).width,
    "optimizer": optimizer,
    "num_iterations": steps,
    "gpu": "c",
    "init": "image",
    "print_iter": 1,
    "save_iter": 0,
    "seed": 0,
}
flags = [part for name, value in options.items() for part in (f"-{name}", str(value))]
sys.argv = ["neural-style", *flags, "-disable_check"]
sys.stdout.reconfigure(line_buffering=True)
peer = importlib.import_module("neural_style.neural_style")
draw = peer.deprocess


def keep(image: Tensor) -> Image.Image:
    """What it draws, kept beside the picture: floats in our order and scale, neither clamped nor rounded."""
    mean = torch.tensor(stand_in.CAFFE_MEAN)[:, None, None]
    torch.save((image.detach() + mean).flip(1) * (255 / 256), Path(out).with_suffix(".pt"))
    return draw(image)


peer.deprocess = keep
peer.main()
progress.finish()
