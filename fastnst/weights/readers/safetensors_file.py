"""``.safetensors``: a state dict (see ``state_dict.py``), or the codebook format of the bundled weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from fastnst.errors import WeightsError
from fastnst.weights import bundle
from fastnst.weights.readers import state_dict
from fastnst.weights.readers.common import Content, Part, check, nothing_found, pairs

_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "U8": "uint8"}
_HEADER = 10 << 20  # bytes; VGG-19's has 4,000


def read(path: Path) -> Content:
    """Read the convolutions' tensors only."""
    with path.open("rb") as start:
        if int.from_bytes(start.read(8), "little") > _HEADER:
            raise WeightsError(f"its header claims more than {_HEADER} bytes")
    with safe_open(path, framework="pt") as file:
        header = bundle.header(file.metadata())

        def part(key: str) -> Part:
            described = file.get_slice(key)
            dtype = str(described.get_dtype())
            return Part(tuple(described.get_shape()), _DTYPES.get(dtype, dtype), lambda: file.get_tensor(key))

        keys = file.keys()
        return _codebook(header, keys, part) if header else state_dict.content(keys, part)


def _codebook(header: dict[str, Any], keys: list[str], part: Callable[[str], Part]) -> Content:
    weights, biases = {}, {}
    for name in sorted(key.removesuffix(".index") for key in keys if key.endswith(".index")):
        codebook, index = part(f"{name}.codebook"), part(f"{name}.index")
        check(name, "weight", index, ("uint8",))
        if codebook.shape != (256,) or codebook.dtype != "float32":
            raise WeightsError(f"{name}.codebook should be 256 float32 numbers")
        weights[name] = Part(index.shape, codebook.dtype, partial(_decoded, codebook, index))
        biases[name] = part(f"{name}.bias")
    if not weights:
        raise nothing_found(keys, "tensors such as conv1_1.index")
    return Content(pairs(weights, biases), settled=True, **header)


def _decoded(codebook: Part, index: Part) -> torch.Tensor:
    return bundle.decode(codebook.read(), index.read())
