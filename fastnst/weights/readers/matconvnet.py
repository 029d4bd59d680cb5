"""MatConvNet ``.mat`` (imagenet-vgg-verydeep-16 and -19): kernels [height, width, in, out], RGB in 0..255.

The layers are a cell array of structs with ``name`` and ``weights`` = {kernel, bias} (``filters`` and ``biases`` before
2015); the mean pixel is ``meta.normalization.averageImage`` (``normalization.averageImage`` before 2016). The first
axis of a kernel is its height: MatConvNet's importer transposes Caffe's kernels, and the values published as
imagenet-vgg-verydeep-19.mat equal the bundled ones in this order.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastnst.errors import WeightsError
from fastnst.weights.readers.common import Content, Part, from_numpy, nothing_found, pairs, put
from fastnst.weights.readers.matlab import Array, variables

_LAYER = re.compile(r"^conv[1-5]_[1-4]$")
_IMAGE = 1 << 22  # values of averageImage, at most; published ones have 224 x 224 x 3


def read(path: Path) -> Content:
    """Read the convolutions and the mean pixel."""
    with path.open("rb") as file:
        held = variables(file, ("layers", "meta", "normalization"))
        layers = [layer for layer in _structs(held.get("layers")) if isinstance(layer.get("name"), str)]
        weights: dict[str, Part] = {}
        biases: dict[str, Part] = {}
        for layer in layers:
            name = layer["name"]
            if _LAYER.match(name):
                kernel, bias = layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])
                put(weights, name, _part(kernel, kernel.shape).from_hwio())
                put(biases, name, _part(bias, tuple(side for side in bias.shape if side != 1)))
        if not weights:
            raise nothing_found([layer["name"] for layer in layers], "layers such as conv1_1")
        return Content(pairs(weights, biases), convention="caffe-rgb", mean=_mean(held))


def _structs(value: Any) -> list[dict[str, Any]]:
    """Return the structs in a cell array of structs, or in a struct array."""
    structs: list[dict[str, Any]] = []
    for item in value if isinstance(value, list) else []:
        structs += [item] if isinstance(item, dict) else _structs(item)
    return structs


def _part(array: Array, shape: tuple[int, ...]) -> Part:
    return Part(shape, array.dtype, lambda: from_numpy(array.read().reshape(shape, order="F")), array.position)


def _mean(held: dict[str, Any]) -> tuple[float, float, float] | None:
    """Average ``averageImage`` ([3] or [height, width, 3]) over its positions."""
    inside = [held, *_structs(held.get("meta"))]
    images = [
        image
        for holder in inside
        for normalization in _structs(holder.get("normalization"))
        if isinstance(image := normalization.get("averageImage"), Array) and 0 not in image.shape
    ]
    if not images:
        return None
    image = images[-1]
    sides: list[int] = [side for side in image.shape if side != 1]
    if len(sides) not in (1, 3) or sides[-1] != 3 or math.prod(image.shape) > _IMAGE or image.dtype == "complex":
        raise WeightsError(f"averageImage should be [3] or [height, width, 3], found {list(image.shape)}")
    mean = image.read().astype(np.float64).reshape(-1, 3, order="F").mean(axis=0)
    if not all(0 <= value <= 255 for value in mean):
        raise WeightsError("averageImage should hold values of 0 to 255")
    red, green, blue = map(float, mean)
    return red, green, blue
