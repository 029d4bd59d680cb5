"""VGG weights that never rot: one set ships inside the package, others are known by name or read from a file.

``load()`` gives the bundled VGG-19 without network; ``load("vgg16-torchvision")`` downloads once and keeps the file;
``load("weights.mat")`` reads ``.pth``, ``.safetensors``, Keras ``.h5``, MatConvNet ``.mat`` and ``.npz``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastnst.errors import UsageError, nearest, printable
from fastnst.weights.download import fetch
from fastnst.weights.entries import Entry, catalogue

if TYPE_CHECKING:
    import torch

__all__ = ["Entry", "Weights", "catalogue", "fetch", "load"]


@dataclass(frozen=True, eq=False)
class Weights:
    """The convolutions of a VGG, and how its input is made from pixels.

    ``convs`` maps ``"conv1_1"`` to (weight [out, in, 3, 3], bias [out]), float32 on the CPU, channels in RGB order.
    ``mean`` and ``scale`` are RGB: network input = (pixel in 0..255 - mean) * scale.
    """

    arch: str
    convs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    name: str
    license: str
    source: str


def load(
    spec: str | os.PathLike[str] | None = None,
    *,
    arch: str | None = None,
    default_arch: str | None = None,
    need: Iterable[str] = (),
    convention: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Weights:
    """Load VGG weights.

    ``spec``: None for the bundled VGG-19 (conv1_1 to conv5_1, no network), a name of ``catalogue()`` (downloaded at
    first use, ``progress`` as for ``fetch``), or a file (.pth, .pt, .safetensors, .h5, .mat, .npz).
    ``arch``: ``"vgg16"`` or ``"vgg19"``, which the file must then be; None takes what it is.
    ``default_arch``: the network of a file that stops at conv3_3 or before and so may be either.
    ``need``: the convolutions wanted, such as ``("conv1_1", "conv5_1")``.
    ``convention``: ``"caffe"`` (BGR, 0..255 minus mean), ``"caffe-rgb"`` or ``"torchvision"`` (RGB, 0..1, mean and
    standard deviation), to overrule what is detected; the rule of detection is in ``assemble.py``.

    UsageError for an unknown name, arch, convention or layer. WeightsError for a file that is missing, damaged, would
    run code, has wrong shapes or lacks layers of ``need``, and for a failed download.
    """
    from fastnst.weights.assemble import assemble, check_arguments
    from fastnst.weights.readers import read

    need = tuple(need)
    check_arguments(arch, convention, need)
    check_arguments(default_arch, None, ())
    entry = next((entry for entry in catalogue() if entry.name == (spec or "vgg19")), None)
    if entry is None:
        path = _as_path(str(spec))
        return assemble(printable(str(path), 4096), read(path), arch, convention, need, default_arch)
    content = read(fetch(entry.name, progress))
    label = "the bundled VGG-19" if entry.bundled else f"{entry.name} ({entry.path})"
    weights = assemble(label, content, arch, convention or entry.convention, need, default_arch)
    if entry.bundled:
        return weights
    return replace(weights, name=entry.name, license=entry.license, source=entry.url)


def _as_path(spec: str) -> Path:
    """Take ``spec`` as a file, unless it looks like a mistyped name of the catalogue."""
    path = Path(spec)
    if not path.suffix and path.name == spec and not _exists(path):
        known = [entry.name for entry in catalogue()]
        hint = nearest(spec, known) or f"; names: {', '.join(known)}"
        raise UsageError(f"weights: {printable(repr(spec))} is neither a file nor a name of the catalogue{hint}")
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the system
        return False
