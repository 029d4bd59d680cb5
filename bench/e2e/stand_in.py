"""A stand-in for torchvision, which the peers import for small transforms of pictures and for the layers of VGG-19.

torchvision requires one version of torch and does not import with others. Nothing here runs inside a step.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)  # 0: pool
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # of blue, green and red


class Compose:
    def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
        self.steps = steps

    def __call__(self, x: Any) -> Any:
        for step in self.steps:
            x = step(x)
        return x


class Normalize:
    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def resize(size: Any) -> Callable[[Any], Any]:
    """Pictures of the race have their final size, so tensors are returned unchanged."""

    def apply(x: Any) -> Any:
        return x if isinstance(x, Tensor) else x.resize((size[1], size[0]), Image.Resampling.BILINEAR)

    return apply


def to_tensor() -> Callable[[Any], Tensor]:
    return lambda picture: torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float() / 255


def to_picture() -> Callable[[Tensor], Any]:
    return lambda x: Image.fromarray((x.permute(1, 2, 0) * 255).byte().numpy())


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        below = 3
        for channels in CHANNELS:
            if channels:
                steps += [nn.Conv2d(below, channels, 3, padding=1), nn.ReLU(inplace=True)]
                below = channels
            else:
                steps.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*steps)


def vgg19(weights: Path | None) -> VGG:
    """VGG-19. Weights in Caffe's convention are converted to RGB in torchvision's normalization.

    The file ends at conv5_1; layers beyond it keep their random initialization, since no loss needs them.
    """
    network = VGG()
    if weights is not None:
        state = torch.load(weights)
        first, deviation = state["features.0.weight"].flip(1), torch.tensor(DEVIATION)
        offset = 255 * torch.tensor(MEAN) - torch.tensor(CAFFE_MEAN).flip(0)  # between the means, in gray levels
        state["features.0.weight"] = first * (255 * deviation)[:, None, None]
        state["features.0.bias"] = state["features.0.bias"] + (first.sum((2, 3)) * offset).sum(1)
        network.load_state_dict(state, strict=False)
    return network


def install(weights: Path | None = None) -> None:
    """Let ``import torchvision`` find the stand-in; ``weights`` are those of a pretrained network."""
    tree: dict[str, dict[str, object]] = {
        "torchvision": {},
        "torchvision.transforms": {
            "Compose": Compose,
            "Normalize": Normalize,
            "Lambda": lambda function: function,
            "Resize": resize,
            "ToTensor": to_tensor,
            "ToPILImage": to_picture,
        },
        # Imported by the peers, never called in the race.
        "torchvision.transforms.functional": dict.fromkeys(
            ("InterpolationMode", "affine", "resize", "to_pil_image", "to_tensor")
        ),
        "torchvision.datasets": {},
        "torchvision.datasets.utils": {"check_md5": None},
        "torchvision.datasets.folder": {"is_image_file": None},
        "torchvision.models": {
            "VGG": VGG,
            "vgg19": lambda pretrained=False, **_: vgg19(weights if pretrained else None),
            "alexnet": None,
        },
        "torchvision.models.vgg": {"model_urls": {"vgg19": ""}},
        "torchvision.models.alexnet": {"model_urls": {"alexnet": ""}},
    }
    for name, content in tree.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        module.__path__ = []  # marks a package, so that its submodules can be imported
        sys.modules[name] = module
    for name in tree:
        parent, _, child = name.rpartition(".")
        if parent and not hasattr(sys.modules[parent], child):
            setattr(sys.modules[parent], child, sys.modules[name])
