"""Encoders for tests: a tiny one as an entry, and EfficientNet-Lite0 with weights that are drawn or installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnst.config.encoder_table import EFFICIENTNET_LITE0
from fastnst.errors import WeightsError
from fastnst.network import EncoderEntry, ReceptiveField
from fastnst.weights.installed import installed_file

FIRST = ReceptiveField().then(5, stride=2, padding=2)
SECOND = FIRST.then(3, stride=2, padding=(0, 1))


class Tiny(nn.Module):
    """Two convolutions with strides, a ReLU that overwrites its input, and a head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.second = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 12, 3, stride=2))
        self.head = nn.Linear(12, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.second(F.relu_(self.first(x))).mean((2, 3)))
        return found


def entry(**changes: Any) -> EncoderEntry:
    given: dict[str, Any] = {
        "name": "tiny",
        "build": Tiny,
        "fields": {"first": FIRST, "second": SECOND},
        "content_layers": (("second", 1.0),),
        "style_layers": (("first", 1.0), ("second", 2.0)),
        **changes,
    }
    return EncoderEntry(**given)


ENTRY = entry()
NOT_AN_ENTRY = Tiny


def installed() -> Path:
    """The file of EfficientNet-Lite0's weights; the test is skipped without their package."""
    packaged = EFFICIENTNET_LITE0.weights
    assert packaged is not None
    try:
        return installed_file(packaged, "efficientnet_lite0")
    except WeightsError as error:
        pytest.skip(f"needs {packaged.package}: {error}")


# Kernel, stride, expansion, output channels and repeats of each stage: table 1 of Tan and Le, 2019.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4))
STAGES = (*STAGES, (3, 1, 6, 320, 1))


def blocks() -> list[tuple[int, int, int, int]]:
    """Kernel, stride, expansion and output channels of each block."""
    return [
        (kernel, stride if i == 0 else 1, expansion, channels)
        for kernel, stride, expansion, channels, repeats in STAGES
        for i in range(repeats)
    ]


def drawn_state(positive: bool = False) -> dict[str, Tensor]:
    """A state dict of EfficientNet-Lite0 with drawn values; with ``positive``, no unit is zero or saturated."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan, channels = shape[1] * shape[2] * shape[3], shape[0]
        state[f"{conv}.weight"] = (draw(*shape) + 0.1) / fan if positive else (draw(*shape) - 0.5) * 3 / fan**0.5
        state[f"{norm}.weight"] = draw(channels) * (0.1 if positive else 1) + 0.5
        state[f"{norm}.bias"] = draw(channels) * 0.1
        state[f"{norm}.running_mean"] = draw(channels) * (0 if positive else 1)
        state[f"{norm}.running_var"] = draw(channels) + 0.5

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    inputs = 32
    for i, (kernel, _, expansion, channels) in enumerate(blocks()):
        name, wide = f"_blocks.{i}", inputs * expansion
        if expansion != 1:
            add(f"{name}._expand_conv", f"{name}._bn0", (wide, inputs, 1, 1))
        add(f"{name}._depthwise_conv", f"{name}._bn1", (wide, 1, kernel, kernel))
        add(f"{name}._project_conv", f"{name}._bn2", (channels, wide, 1, 1))
        inputs = channels
    return state


def plain_lite0(state: Mapping[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    """The outputs of stem and blocks, with batch normalization and TensorFlow's padding ``SAME``, for even maps."""
    found: dict[str, Tensor] = {}

    def normalized(x: Tensor, conv: str, norm: str, stride: int = 1, act: Callable[..., Tensor] = F.relu6) -> Tensor:
        weight = state[f"{conv}.weight"]
        total = max((-(-x.shape[2] // stride) - 1) * stride + weight.shape[2] - x.shape[2], 0)
        before, after = total // 2, total - total // 2
        x = F.conv2d(
            F.pad(x, (before, after, before, after)), weight, None, stride, groups=x.shape[1] // weight.shape[1]
        )
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return act(F.batch_norm(x, *parts, False, 0.0, 1e-3))

    x = found["stem"] = normalized(image, "_conv_stem", "_bn0", 2)
    for i, (_, stride, expansion, channels) in enumerate(blocks()):
        name, y = f"_blocks.{i}", x
        if expansion != 1:
            y = normalized(y, f"{name}._expand_conv", f"{name}._bn0")
        y = normalized(y, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        y = normalized(y, f"{name}._project_conv", f"{name}._bn2", act=lambda x: x)
        x = found[f"block{i + 1}"] = y + x if y.shape == x.shape else y
        assert x.shape[1] == channels
    return found


def without_weights(build: Callable[[], nn.Module]) -> EncoderEntry:
    """EfficientNet-Lite0 as data, built by another function."""
    return dataclasses.replace(EFFICIENTNET_LITE0, name="drawn", build=build, weights=None)
