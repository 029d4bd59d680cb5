"""The bundled VGG-19: per layer a float32 codebook of 256 values, a uint8 index per weight, and the float32 bias.

The file is a safetensors file with the tensors ``conv1_1.codebook`` [256], ``conv1_1.index`` [out, in, 3, 3] and
``conv1_1.bias`` [out] for each layer, channels in the source's order (BGR), and one metadata entry, ``fastnst``: JSON
with ``format``, ``arch``, ``convention``, ``name``, ``license``, ``source``, the source wheel's digest, and under
``decoded_sha256`` the SHA-256 of each decoded tensor's little-endian bytes. ``tools/pack_vgg19.py`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from safetensors import safe_open

from fastnst.errors import WeightsError, printable
from fastnst.weights.entries import BUNDLED
from fastnst.weights.layout import ARCHS, CONVENTIONS

FORMAT = "fastnst-codebook-1"


def decode(codebook: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return ``codebook[index]``: float32 [256] and uint8 of any shape to float32 of that shape, bit for bit."""
    return codebook.index_select(0, index.flatten().int()).view(index.shape)


def header(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the arch, convention, name, license and source in a safetensors file's ``fastnst`` metadata.

    None if the file is not of this format; WeightsError for an unknown arch or convention, or a value that is not text.
    """
    try:
        parsed = json.loads((metadata or {}).get("fastnst", ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
        return None
    facts: dict[str, Any] = {key: parsed.get(key) for key in ("arch", "convention", "name", "license", "source")}
    for key, value in facts.items():
        if not isinstance(value, str):
            raise WeightsError(f"its {key} should be a text, found {type(value).__name__}")
    for key, known in (("arch", ARCHS), ("convention", CONVENTIONS)):
        if facts[key] not in known:
            raise WeightsError(f"its {key} should be {' or '.join(known)}, found {printable(facts[key])}")
    return {key: printable(value) for key, value in facts.items()}


@lru_cache(maxsize=1)
def oxford_first_layer() -> torch.Tensor:
    """Return the bundled conv1_1 weight [64, 3, 3, 3] in the source's BGR order, to detect weights derived from it."""
    if not BUNDLED.is_file():
        raise WeightsError(f"{BUNDLED}: the bundled weights are missing; install fastnst again")
    with safe_open(BUNDLED, framework="pt") as file:
        return decode(file.get_tensor("conv1_1.codebook"), file.get_tensor("conv1_1.index"))
