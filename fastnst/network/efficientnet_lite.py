"""EfficientNet-Lite0 up to its last block, with the batch normalizations folded into the convolutions.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019; the Lite variant of
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnst.config.encoder_table import LITE0_BLOCKS, same_padding
from fastnst.errors import WeightsError

EPSILON = 1e-3  # of the batch normalizations


class Convolution(nn.Module):
    """A convolution with a bias and the padding ``SAME``, and a ReLU6 unless ``linear``."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int = 1, linear: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(x, requires_grad=False) for x in (weight, bias))
        self.stride, self.linear = stride, linear
        self.groups = weight.shape[0] if weight.shape[1] == 1 else 1
        before, after = same_padding(weight.shape[2], stride)
        self.padding, self.more = before, after - before

    def forward(self, x: Tensor) -> Tensor:
        if self.more:
            x = F.pad(x, (self.padding, self.padding + self.more) * 2)
        padding = 0 if self.more else self.padding
        x = F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=padding, groups=self.groups)
        return x if self.linear else F.relu6(x, inplace=True)


class Block(nn.Module):
    """An inverted bottleneck: ``expand``, ``depthwise`` and ``project``, and the input added where shapes agree."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str, stride: int, expansion: int) -> None:
        super().__init__()

        def folded(conv: str, norm: str) -> tuple[Tensor, Tensor]:
            return fold(state, f"{prefix}.{conv}", f"{prefix}.{norm}")

        self.expand = Convolution(*folded("_expand_conv", "_bn0")) if expansion != 1 else None
        self.depthwise = Convolution(*folded("_depthwise_conv", "_bn1"), stride=stride)
        self.project = Convolution(*folded("_project_conv", "_bn2"), linear=True)
        inputs = (self.depthwise if self.expand is None else self.expand).weight.shape
        self.adds = stride == 1 and inputs[0 if self.expand is None else 1] == self.project.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return y + x if self.adds else y


class EfficientNetLite0(nn.Module):
    """The network from the state dict of the weights."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = Convolution(*fold(state, "_conv_stem", "_bn0"), stride=2)
        self.count = len(LITE0_BLOCKS)
        for i, (_, stride, expansion, _) in enumerate(LITE0_BLOCKS):
            self.add_module(f"block{i + 1}", Block(state, f"_blocks.{i}", stride, expansion))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i in range(self.count):
            x = self.get_submodule(f"block{i + 1}")(x)
        return x


def fold(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch normalization after it, computed in float64."""
    parts = ("running_mean", "running_var", "weight", "bias")
    mean, variance, scale, shift = (state[f"{norm}.{part}"].double() for part in parts)
    weight = state[f"{conv}.weight"].double()
    factor = scale / (variance + EPSILON).sqrt()
    return (weight * factor.reshape(-1, 1, 1, 1)).float(), (shift - mean * factor).float()


def build(path: Path) -> nn.Module:
    """The network with the weights of a file of ``torch.save``. Raises WeightsError."""
    try:
        return EfficientNetLite0(torch.load(path, map_location="cpu", weights_only=True)).eval()
    except (KeyError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path.name}: is no state dict of EfficientNet-Lite0 ({reason})") from error
