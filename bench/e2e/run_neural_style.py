"""A contender of race.py: PyPI's neural-style, unchanged, through its own command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench.e2e import progress, stand_in

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
deprocess = peer.deprocess


def save_and_deprocess(image: Tensor) -> Image.Image:
    """Save the image beside the picture: floats in fastnst's order and scale, neither clamped nor rounded."""
    mean = torch.tensor(stand_in.CAFFE_MEAN)[:, None, None]
    torch.save((image.detach() + mean).flip(1) * (255 / 256), Path(out).with_suffix(".pt"))
    return deprocess(image)


peer.deprocess = save_and_deprocess
peer.main()
progress.finish()
