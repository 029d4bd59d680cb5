"""VGG in a PyTorch state dict, by torchvision's key names or by layer names; shared by ``.pth`` and ``.safetensors``.

``features.0.weight`` (torchvision, and the Caffe weights converted for PyTorch), ``0.weight`` (``features`` alone) and
``conv1_1.weight`` are read, each with any prefix before a dot. All kernels are [out, in, height, width].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from fastnst.errors import WeightsError, printable
from fastnst.weights.layout import ARCHS, features_index
from fastnst.weights.readers.common import Content, Part, nothing_found, pairs, put

_NAMED = re.compile(r"(?:^|\.)(conv[1-5]_[1-4])\.(weight|bias)$")
_INDEXED = re.compile(r"(?:(?:^|\.)features\.|^)([0-9]{1,3})\.(weight|bias)$")


def content(keys: Iterable[str], get: Callable[[str], Part]) -> Content:
    """Read the convolutions among ``keys``, calling ``get`` only for them."""
    held = list(keys)
    if any(key.endswith("running_mean") for key in held):
        raise WeightsError("a VGG with batch normalization; fastnst needs the one without (vgg16, vgg19)")
    found = {key: (match[1], match[2]) for key in held if (match := _NAMED.search(key))}
    arch = None
    if not found:
        by_position = {key: (int(match[1]), match[2]) for key in held if (match := _INDEXED.search(key))}
        arch, index = _matching_arch({position for position, _ in by_position.values()})
        found = {key: (index[position], part) for key, (position, part) in by_position.items()}
    if not found:
        raise nothing_found(held, "keys such as features.0.weight or conv1_1.weight")
    parts: dict[str, dict[str, Part]] = {"weight": {}, "bias": {}}
    for key, (name, kind) in found.items():
        put(parts[kind], name, get(key))
    # PyTorch files are torchvision's unless their first layer is Oxford's: see assemble.py.
    return Content(pairs(parts["weight"], parts["bias"]), convention="torchvision", arch=arch)


def _matching_arch(positions: set[int]) -> tuple[str | None, dict[int, str]]:
    """Find the VGG with convolutions at these positions; no arch if both have them (up to conv3_3)."""
    fitting = [arch for arch in ARCHS if positions <= set(features_index(arch))]
    if not fitting:
        shown = printable(", ".join(map(str, sorted(positions))))
        raise WeightsError(f"layers at positions {shown}, which fit neither VGG-16 nor VGG-19")
    return (fitting[0] if len(fitting) == 1 else None), features_index(fitting[0])
