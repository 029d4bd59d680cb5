"""MatConvNet ``.mat`` (imagenet-vgg-verydeep-16 and -19): kernels [height, width, in, out], RGB in 0..255.

The layers are a cell array of structs with ``name`` and ``weights`` = {kernel, bias} (``filters`` and ``biases`` before
2015); the mean pixel is ``meta.normalization.averageImage`` (``normalization.averageImage`` before 2016). The first
axis of a kernel is its height: MatConvNet's importer transposes Caffe's kernels so, and the values published for
imagenet-vgg-verydeep-19.mat are the bundled ones in this order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastnst.errors import WeightsError
from fastnst.weights.readers.common import Content, from_hwio, nothing_found, pairs, parsing, put

_LAYER = re.compile(r"^conv[1-5]_[1-4]$")


def read(path: Path) -> Content:
    """Read the convolutions and the mean pixel."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise WeightsError(f'{path}: reading .mat needs scipy: pip install "fastnst[weights]"') from error
    with parsing(path, "MatConvNet .mat"):
        file = loadmat(path, variable_names=("layers", "meta", "normalization"), simplify_cells=True)
        layers = [layer for layer in np.atleast_1d(file.get("layers", [])) if isinstance(layer, dict)]
        weights: dict[str, torch.Tensor] = {}
        biases: dict[str, torch.Tensor] = {}
        for layer in layers:
            name = str(layer.get("name", ""))
            if _LAYER.match(name):
                kernel, bias = layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])
                put(path, weights, name, from_hwio(path, name, np.asarray(kernel)))
                put(path, biases, name, torch.from_numpy(np.array(bias).reshape(-1)))
        if not weights:
            raise nothing_found(path, [str(layer.get("name")) for layer in layers], "layers such as conv1_1")
        return Content(pairs(path, weights, biases), convention="caffe-rgb", mean=_mean(file))


def _mean(file: dict[str, Any]) -> tuple[float, float, float] | None:
    """Average ``averageImage`` ([3] or [height, width, 3]) over its positions."""
    normalization = (file.get("meta") or file).get("normalization") or {}
    image = np.asarray(normalization.get("averageImage", ()), dtype=np.float64)
    if image.size == 0 or image.shape[-1] != 3:
        return None
    red, green, blue = image.reshape(-1, 3).mean(axis=0)
    return float(red), float(green), float(blue)
