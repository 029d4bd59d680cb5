"""``.pth`` and ``.pt`` from ``torch.save``: a zip file, or before PyTorch 1.6 pickles followed by raw values.

``torch.load`` is not used, because it allocates tensors of any size that a file claims before shapes can be checked.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from fastnst.errors import WeightsError, printable
from fastnst.weights.readers import state_dict
from fastnst.weights.readers.common import Content, Part, from_numpy, read_at
from fastnst.weights.readers.pickled import WANTED, Name, Pickle

_PICKLE = 4 << 20  # bytes; a VGG's takes 4,000
_WIDEST = 1 << 28  # bytes from the first to the last value of one tensor
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"}
_BYTES = {
    **{"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1},
    **{"Bool": 1, "ComplexDouble": 16, "ComplexFloat": 8, "QInt8": 1, "QUInt8": 1, "QInt32": 4, "Untyped": 1},
}


@dataclass(frozen=True)
class _Storage:
    """A block of values: ``kind`` is "Float" for ``torch.FloatStorage``, ``offset`` counts values."""

    kind: str
    key: str
    offset: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _File:
    """An opened file: its object, its byte order, and a function from a storage to its start and size in bytes."""

    loaded: Any
    order: str
    locate: Callable[[_Storage], tuple[int, int]]


def read(path: Path) -> Content:
    """Read a state dict, or a checkpoint with one under ``state_dict`` or ``model``."""
    with path.open("rb") as file:
        opened = _open_zip(file) if file.read(2) == b"PK" else _open_legacy(file)
        state = _state(opened.loaded)
        return state_dict.content(state, lambda key: _part(file, opened, key, state[key]))


def _open_zip(file: BinaryIO) -> _File:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
    if any(name.endswith("constants.pkl") for name in members):
        raise WeightsError(f"refused, a TorchScript program; {WANTED}")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise WeightsError("refused, its parts are compressed, which torch.save does not do")

    def locate(name: str) -> tuple[int, int]:
        info = members[name]
        header = read_at(file, info.header_offset, 30)
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return info.header_offset + 30 + names, info.file_size

    top = next(name for name in members if name.endswith("data.pkl")).removesuffix("data.pkl")
    start, size = locate(f"{top}data.pkl")
    if size > _PICKLE:
        raise WeightsError(f"refused, it describes its tensors in {size} bytes; a VGG takes less than {_PICKLE}")
    loaded = Pickle(io.BytesIO(read_at(file, start, size)), _call, _storage).load()
    big = f"{top}byteorder" in members and read_at(file, locate(f"{top}byteorder")[0], 3) == b"big"
    return _File(loaded, ">" if big else "<", lambda storage: locate(f"{top}data/{storage.key}"))


def _open_legacy(file: BinaryIO) -> _File:
    kinds: dict[str, str] = {}

    def refer(identity: Any) -> _Storage:
        storage = _storage(identity)
        kinds[storage.key] = storage.kind
        return storage

    file.seek(0)
    start = io.BytesIO(file.read(_PICKLE))
    pickle = Pickle(start, _call, refer)
    if pickle.load() != _MAGIC:
        raise WeightsError(f"refused, a pickle that torch.save did not write; {WANTED}")
    _protocol, _system, loaded, keys = (pickle.load() for _ in range(4))
    extents = {}
    position = start.tell()
    for key in keys:
        count = int.from_bytes(read_at(file, position, 8), "little", signed=True)
        size = max(count, 0) * _BYTES[kinds[key]]
        extents[key] = position + 8, size
        position += 8 + size
    read_at(file, position - 1, 1)  # the file must hold all that its last storage claims
    return _File(loaded, "<", lambda storage: extents[storage.key])


def _storage(identity: Any) -> _Storage:
    """Parse the persistent id of a storage; the sixth item, in old files, selects a view of it."""
    word, kind, key, _location, _count, *view = identity
    offset = view[0][1] if view and view[0] else 0
    if word != "storage" or not isinstance(kind, Name) or not isinstance(key, str) or not isinstance(offset, int):
        raise TypeError("a storage that PyTorch did not write")
    return _Storage(kind.name.rpartition(".")[2].removesuffix("Storage"), key, offset)


def _call(name: str, arguments: Any) -> Any:
    """Return the tensor that a call describes; for sparse, quantized and other kinds only the name."""
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if name == "torch._tensor._rebuild_from_type_v2" and isinstance(arguments[0], Name):
        return _call(arguments[0].name, arguments[2])
    if name not in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2") or any(arguments[6:]):
        return Name(name)
    storage, offset, shape, strides = arguments[:4]
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise TypeError("a tensor that PyTorch did not write")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _state(loaded: Any) -> Mapping[str, Any]:
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise WeightsError(f"holds a {type(loaded).__name__.strip('_')}, not tensors by name (a state dict)")
    return {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, (_Tensor, Name))}


def _part(file: BinaryIO, opened: _File, key: str, tensor: _Tensor | Name) -> Part:
    if isinstance(tensor, Name):
        raise WeightsError(
            f"{printable(key)} is not a plain tensor of floating point numbers ({printable(tensor.name)})"
        )
    kind = tensor.storage.kind

    def values() -> torch.Tensor:
        extent = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        first, count = (n * _BYTES[kind] for n in (tensor.storage.offset + tensor.offset, extent))
        start, size = opened.locate(tensor.storage)
        if first + count > size or count > _WIDEST:
            raise ValueError(f"{key} lies outside its storage")
        data = np.frombuffer(read_at(file, start + first, count), f"{opened.order}i{_BYTES[kind]}")
        return from_numpy(data).view(getattr(torch, _DTYPES[kind])).as_strided(tensor.shape, tensor.strides)

    return Part(tensor.shape, _DTYPES.get(kind, kind.lower()), values)
