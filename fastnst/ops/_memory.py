"""What an op that works in place asks of memory: each value has a place of its own, and no input lies there too."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops.reference import is_transformed


def check_no_overlap(op: str, name: str, x: Tensor) -> None:
    """Raise unless every element of ``x``, which is written, has a place of its own."""
    if torch.compiler.is_compiling():
        return  # comparing strides would tie compiled code to one size
    reach = 0
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1):
        if size == 0:
            return
        if stride <= reach:
            raise ValueError(
                f"{op}: expected {name}, which is written in place, without elements that share memory, "
                f"got shape {tuple(x.shape)} with strides {x.stride()}; pass {name}.contiguous()"
            )
        reach += stride * (size - 1)


def check_apart(op: str, name: str, other: Tensor | None, written: str, x: Tensor) -> None:
    """Raise where ``other``, which is read, lies in the memory of ``x``, which is written."""
    if other is None or torch.compiler.is_compiling():
        return
    if not all(_has_memory(t) for t in (other, x)):
        return
    (first, last), (start, end) = _extent(other), _extent(x)
    if first < end and start < last:
        raise ValueError(f"{op}: expected {name} in memory of its own, got one that shares it with {written}")


def _has_memory(x: Tensor) -> bool:
    """Whether ``x`` can be asked where it lies."""
    return type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta" and not is_transformed(x)


def _extent(x: Tensor) -> tuple[int, int]:
    """The addresses of the first byte and of the one behind the last; none for an empty tensor."""
    if x.numel() == 0:
        return 0, 0
    reach = sum(stride * (size - 1) for stride, size in zip(x.stride(), x.shape, strict=True))
    return x.data_ptr(), x.data_ptr() + (reach + 1) * x.element_size()
