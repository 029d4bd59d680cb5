"""VGG's convolutions and the input conventions of its published weights, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastnst.config.layer_names import BLOCKS, CHANNELS

ARCHS = tuple(BLOCKS)
TITLES = {"vgg16": "VGG-16", "vgg19": "VGG-19"}


def conv_shapes(arch: str) -> dict[str, tuple[int, int, int, int]]:
    """Return ``{"conv1_1": (64, 3, 3, 3), ...}``: weight shapes [out, in, 3, 3] of ``arch``, shallowest first."""
    shapes = {}
    inputs = 3
    for block, (convs, outputs) in enumerate(zip(BLOCKS[arch], CHANNELS, strict=True), 1):
        for number in range(1, convs + 1):
            shapes[f"conv{block}_{number}"] = (outputs, inputs, 3, 3)
            inputs = outputs
    return shapes


def features_index(arch: str) -> dict[int, str]:
    """Return ``{0: "conv1_1", 2: "conv1_2", 5: "conv2_1", ...}``: the positions in torchvision's ``features``."""
    index = {}
    position = 0
    for block, convs in enumerate(BLOCKS[arch], 1):
        for number in range(1, convs + 1):
            index[position] = f"conv{block}_{number}"
            position += 2  # the convolution and its ReLU
        position += 1  # the pooling
    return index


def detect_arch(names: Iterable[str]) -> str | None:
    """Detect VGG-16 or VGG-19 from the convolutions present; None if both have them (up to conv3_3)."""
    present = set(names)
    if not present <= set(conv_shapes("vgg16")):
        return "vgg19"
    return "vgg16" if any(name >= "conv4_1" for name in present) and "conv3_4" not in present else None


def span(names: Iterable[str]) -> str:
    """Describe the convolutions present: ``"conv1_1 to conv5_1"`` if none is missing between, else all names."""
    ordered = sorted(names)
    for arch in ARCHS:
        if ordered == list(conv_shapes(arch))[: len(ordered)] and len(ordered) > 1:
            return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(ordered)


@dataclass(frozen=True)
class Convention:
    """The input that a network expects: ``(pixel in 0..255 - mean) * scale``, mean and scale in RGB order.

    ``bgr`` tells that the published first convolution expects BGR; its channels are reversed to RGB when loaded.
    """

    bgr: bool
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]


_CAFFE_MEAN = (123.68, 116.779, 103.939)  # Simonyan & Zisserman's training mean, RGB
_MEAN_01, _STD_01 = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, RGB in 0..1

CONVENTIONS = {
    "caffe": Convention(True, _CAFFE_MEAN, (1.0, 1.0, 1.0)),
    "caffe-rgb": Convention(False, _CAFFE_MEAN, (1.0, 1.0, 1.0)),
    "torchvision": Convention(
        False,
        (255 * _MEAN_01[0], 255 * _MEAN_01[1], 255 * _MEAN_01[2]),
        (1 / (255 * _STD_01[0]), 1 / (255 * _STD_01[1]), 1 / (255 * _STD_01[2])),
    ),
}
