"""Davi Frossard's ``vgg16_weights.npz``: ``conv1_1_W`` [height, width, in, out] and ``conv1_1_b``, RGB in 0..255."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from fastnst.weights.readers.common import Content, from_hwio, nothing_found, pairs, parsing, put

_KEY = re.compile(r"^(conv[1-5]_[1-4])_([Wb])$")


def read(path: Path) -> Content:
    """Read the convolutions' arrays; the rest of the archive is not unpacked. Pickled arrays are refused."""
    weights: dict[str, torch.Tensor] = {}
    biases: dict[str, torch.Tensor] = {}
    with parsing(path, "NumPy .npz"), np.load(path, allow_pickle=False) as file:
        for key in file.files:
            match = _KEY.match(key)
            if match and match[2] == "W":
                put(path, weights, match[1], from_hwio(path, match[1], file[key]))
            elif match:
                put(path, biases, match[1], torch.from_numpy(file[key]))
        if not weights:
            raise nothing_found(path, file.files, "arrays such as conv1_1_W")
    return Content(pairs(path, weights, biases), convention="caffe-rgb")
