"""``.safetensors``: a state dict (see ``state_dict.py``), or the codebook format of the bundled weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from fastnst.weights import bundle
from fastnst.weights.readers import state_dict
from fastnst.weights.readers.common import Content, parsing


def read(path: Path) -> Content:
    """Read the convolutions' tensors; others stay on disk."""
    with parsing(path, "safetensors"), safe_open(path, framework="pt") as file:
        header = bundle.header(file.metadata())
        if header is None:
            return state_dict.content(path, file.keys(), file.get_tensor)
        return _codebook(file, header)


def _codebook(file: Any, header: dict[str, Any]) -> Content:
    convs = {}
    for name in sorted(key.removesuffix(".index") for key in file.keys() if key.endswith(".index")):  # noqa: SIM118
        weight = bundle.decode(file.get_tensor(f"{name}.codebook"), file.get_tensor(f"{name}.index"))
        convs[name] = (weight, file.get_tensor(f"{name}.bias"))
    return Content(
        convs,
        convention=header["convention"],
        settled=True,
        arch=header["arch"],
        name=header["name"],
        license=header["license"],
        source=header["source"],
    )
