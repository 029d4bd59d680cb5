"""VGG weights: one set is bundled with the package, others are downloaded by name or read from a file.

``load()`` returns the bundled VGG-19 without network access; ``load("vgg16-torchvision")`` downloads once into a cache;
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
from fastnst.weights.entries import Entry, catalog

if TYPE_CHECKING:
    import torch

__all__ = ["Entry", "Weights", "catalog", "fetch", "load"]


@dataclass(frozen=True, eq=False)
class Weights:
    """The convolutions of a VGG, and the normalization of its input: ``(pixel in 0..255 - mean) * scale``.

    Attributes:
        arch: ``"vgg16"`` or ``"vgg19"``.
        convs: from names such as ``"conv1_1"`` to weight ``[out, in, 3, 3]`` and bias ``[out]``, float32 on the CPU,
            channels in RGB order.
        mean: of the input, RGB.
        scale: of the input, RGB.
        name: of the weights.
        license: of the weights.
        source: the address or file that they come from.

    Example:
        >>> import fastnst
        >>> bundled = fastnst.weights.load()
        >>> bundled.arch, bundled.convs["conv1_1"][0].shape
        ('vgg19', torch.Size([64, 3, 3, 3]))
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

    Args:
        spec: None for the bundled VGG-19 (conv1_1 to conv5_1), a name of :func:`catalog`, which is downloaded at first
            use, or a file (.pth, .pt, .safetensors, .h5, .mat, .npz).
        arch: ``"vgg16"`` or ``"vgg19"``, to require this network; None to detect it.
        default_arch: the network of a file that ends at conv3_3 or before, which may be either.
        need: the convolutions that must be present, such as ``("conv1_1", "conv5_1")``.
        convention: ``"caffe"`` (BGR, 0..255 minus mean), ``"caffe-rgb"`` or ``"torchvision"`` (RGB, 0..1, mean and
            standard deviation); None to detect it as described in ``assemble.py``.
        progress: as for :func:`fetch`.

    Returns:
        The weights in float32, channels in RGB order.

    Raises:
        UsageError: an unknown name, arch, convention or layer.
        WeightsError: a file that is missing, damaged, incomplete, unsafe or of wrong shapes, or a failed download.

    Example:
        >>> from fastnst import weights
        >>> vgg = weights.load()
        >>> vgg.arch, vgg.convs["conv1_1"][0].shape
        ('vgg19', torch.Size([64, 3, 3, 3]))
    """
    from fastnst.weights.assemble import assemble, check_arguments
    from fastnst.weights.readers import read

    need = tuple(need)
    check_arguments(arch, convention, need)
    check_arguments(default_arch, None, ())
    entry = next((entry for entry in catalog() if entry.name == (spec or "vgg19")), None)
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
    """Interpret ``spec`` as a file, unless it is more likely a misspelled name of the catalog."""
    path = Path(spec)
    if not path.suffix and path.name == spec and not _exists(path):
        known = [entry.name for entry in catalog()]
        hint = nearest(spec, known) or f"; names: {', '.join(known)}"
        raise UsageError(f"weights: {printable(repr(spec))} is neither a file nor a name of the catalog{hint}")
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the system
        return False
