"""What every reader returns, and the helpers they share.

A reader takes shapes and dtypes from headers, as ``Part``; ``pairs`` checks all of them before it reads any values, so
that a file cannot cause larger allocations than a VGG. Readers raise WeightsError without the file's name; any other
exception means a damaged file. ``parsing`` adds the name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch

from fastnst.errors import WeightsError, printable
from fastnst.weights.layout import conv_shapes

_SHAPES = conv_shapes("vgg16") | conv_shapes("vgg19")
_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes:
        convs: from names to weight [out, in, 3, 3] and bias [out], channels in the file's order.
        convention: the one that the format implies, or that is recorded in the file.
        settled: whether it is recorded in the file, and is not to be detected.
        arch: None if the file does not determine it.
        mean: of the input, RGB in 0..255; None if the file does not contain it.
        name: of the weights, if the file contains it.
        license: of the weights, if the file contains it.
        source: of the weights, if the file contains it.
    """

    convs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    convention: str
    settled: bool = False
    arch: str | None = None
    mean: tuple[float, float, float] | None = None
    name: str | None = None
    license: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Part:
    """A weight or bias as described by the header of its file: shape, name of the dtype, and a function to read it.

    Parts are read in ascending order of ``position``, for files that can only be read sequentially.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], torch.Tensor]
    position: int = 0

    def from_hwio(self) -> Part:
        """Return the kernel [height, width, in, out] as [out, in, height, width]."""
        if len(self.shape) != 4:
            raise WeightsError(f"a weight has the shape {_shown(self.shape)}, not [height, width, in, out]")
        height, width, inputs, outputs = self.shape
        return Part(
            (outputs, inputs, height, width), self.dtype, lambda: self.read().permute(3, 2, 0, 1), self.position
        )


@contextmanager
def parsing(label: str, kind: str) -> Iterator[None]:
    """Convert any exception on a damaged or hostile file into one WeightsError that names the file."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{label}: {error}") from error
    except PermissionError as error:
        raise WeightsError(f"{label}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise WeightsError(f"{label}: damaged, or too little memory to read it") from error
    except Exception as error:  # libraries raise anything from zlib.error to TypeError on damaged files
        reason = printable(" ".join(str(error).split()))
        raise WeightsError(
            f"{label}: damaged, truncated or not a {kind} file ({type(error).__name__}: {reason})"
        ) from error


def from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Copy an array of either byte order into a tensor."""
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Read ``count`` bytes from ``start``. Raises ValueError before allocating anything if the file is shorter."""
    if not 0 <= start <= start + count <= os.fstat(file.fileno()).st_size:
        raise ValueError(f"it ends before byte {start + count}")
    file.seek(start)
    return file.read(count)


def put(into: dict[str, Part], name: str, part: Part) -> None:
    """Add a part under its layer's name. Raises WeightsError if the file has that layer twice."""
    if name in into:
        raise WeightsError(f"holds {name} twice; fastnst reads files with one VGG in them")
    into[name] = part


def pairs(weights: Mapping[str, Part], biases: Mapping[str, Part]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pair weights and biases by layer name and read them. Raises WeightsError if one is missing or not of a VGG."""
    for name in sorted(set(weights) ^ set(biases)):
        raise WeightsError(f"{name} has no {'bias' if name in weights else 'weight'}")
    for name in sorted(weights):
        check(name, "weight", weights[name])
        check(name, "bias", biases[name])
    parts = [
        (part.position, kind, name, part) for kind, held in enumerate((weights, biases)) for name, part in held.items()
    ]
    values = {(kind, name): part.read() for _, kind, name, part in sorted(parts, key=lambda item: item[:3])}
    return {name: (values[0, name], values[1, name]) for name in sorted(weights)}


def check(name: str, kind: str, part: Part, dtypes: tuple[str, ...] = _DTYPES) -> None:
    """Raise WeightsError unless shape and dtype are those of the VGG convolution ``name``."""
    if name not in _SHAPES:
        raise WeightsError(f"holds {name}, which no VGG has")
    expected = _SHAPES[name][: 1 if kind == "bias" else 4]
    if part.shape != expected:
        axes = "" if kind == "bias" else " (out, in, height, width)"
        raise WeightsError(f"{name} {kind} should be {list(expected)}{axes}, found {_shown(part.shape)}")
    if part.dtype not in dtypes:
        numbers = f"floating point numbers ({', '.join(dtypes)})" if dtypes == _DTYPES else " or ".join(dtypes)
        raise WeightsError(f"{name} {kind} should hold {numbers}, found {printable(part.dtype)}")


def nothing_found(held: list[str], expected: str) -> WeightsError:
    """Return the error for a valid file without VGG convolutions, which lists what the file contains."""
    shown = ", ".join(printable(name, 60) for name in held[:4]) + (", ..." if len(held) > 4 else "")
    return WeightsError(f"no VGG convolutions found; expected {expected}, the file holds {shown or 'nothing'}")


def _shown(shape: tuple[int, ...]) -> str:
    return printable(str(list(shape[:100])))
