"""Davi Frossard's ``vgg16_weights.npz``: ``conv1_1_W`` [height, width, in, out] and ``conv1_1_b``, RGB in 0..255."""

from __future__ import annotations

import io
import math
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy

from fastnst.errors import WeightsError
from fastnst.weights.readers.common import Content, Part, from_numpy, nothing_found, pairs, put

_KEY = re.compile(r"^(conv[1-5]_[1-4])_([Wb])$")
_HEADER = 1 << 14  # bytes; NumPy refuses headers of more than 10,000 characters


def read(path: Path) -> Content:
    """Read the convolutions' arrays; other members are not decompressed. Pickled arrays are rejected."""
    weights: dict[str, Part] = {}
    biases: dict[str, Part] = {}
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for key, info in members.items():
            match = _KEY.match(key)
            if match and match[2] == "W":
                put(weights, match[1], _part(archive, info).from_hwio())
            elif match:
                put(biases, match[1], _part(archive, info))
        if not weights:
            raise nothing_found(list(members), "arrays such as conv1_1_W")
        return Content(pairs(weights, biases), convention="caffe-rgb")


def _part(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Part:
    """Return the array of a member as described by its header."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others decompress without a bound
        raise WeightsError("compressed by another method than NumPy's; save it again with numpy.savez")
    with archive.open(info) as member:
        start = io.BytesIO(member.read(_HEADER))
    version = npy.read_magic(start)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = header(start)
    offset = start.tell()

    def values() -> torch.Tensor:
        count = math.prod(shape) * dtype.itemsize
        with archive.open(info) as member:
            member.seek(offset)
            data = member.read(count)
        return from_numpy(np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C"))

    return Part(shape, dtype.name, values)
