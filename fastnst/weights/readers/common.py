"""What every reader returns, and the helpers they share."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastnst.errors import WeightsError


@dataclass(frozen=True)
class Content:
    """What a file holds: ``convs`` name to (weight [out, in, 3, 3], bias [out]), channels in the file's own order.

    ``convention`` is the one the format stands for, ``settled`` says that it is recorded in the file and needs no
    second look. ``arch`` and ``mean`` (RGB, 0..255) are None where the file does not tell.
    """

    convs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    convention: str
    settled: bool = False
    arch: str | None = None
    mean: tuple[float, float, float] | None = None
    name: str | None = None
    license: str | None = None
    source: str | None = None


@contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parsing library raises on a damaged or hostile file into one WeightsError."""
    try:
        yield
    except (WeightsError, MemoryError):
        raise
    except Exception as error:  # libraries raise anything from zlib.error to TypeError on damaged files
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path}: damaged, truncated or not a {kind} file ({type(error).__name__}: {reason})"
        ) from error


def is_zip_with(path: Path, suffix: str) -> bool:
    """Return whether the zip file ``path`` has a member whose name ends with ``suffix``; WeightsError if damaged."""
    with parsing(path, "zip"), zipfile.ZipFile(path) as archive:
        return any(name.endswith(suffix) for name in archive.namelist())


def from_hwio(path: Path, name: str, array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Turn a kernel [height, width, in, out] into a tensor [out, in, height, width]."""
    if array.ndim != 4:
        raise WeightsError(f"{path}: {name} has a weight of shape {list(array.shape)}, not [height, width, in, out]")
    return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1)))


def pairs(
    path: Path, weights: Mapping[str, torch.Tensor], biases: Mapping[str, torch.Tensor]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Join weights and biases by layer name; WeightsError if one of the two is missing."""
    for name in sorted(set(weights) ^ set(biases)):
        raise WeightsError(f"{path}: {name} has no {'bias' if name in weights else 'weight'}")
    return {name: (weights[name], biases[name]) for name in sorted(weights)}


def put(path: Path, into: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
    """Add a tensor under its layer's name; WeightsError if the file has that layer twice."""
    if name in into:
        raise WeightsError(f"{path}: holds {name} twice; fastnst reads files with one VGG in them")
    into[name] = tensor


def nothing_found(path: Path, held: list[str], expected: str) -> WeightsError:
    """The error for a readable file without any VGG convolution: says what it holds instead."""
    shown = ", ".join(held[:4]) + (", ..." if len(held) > 4 else "")
    return WeightsError(f"{path}: no VGG convolutions found; expected {expected}, the file holds {shown or 'nothing'}")
