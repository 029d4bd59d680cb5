"""Checks of the ops' arguments. Errors begin with the op's name and state what was expected and what was passed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastnst.errors import nearest
from fastnst.ops import _library
from fastnst.ops.autograd_state import is_transformed
from fastnst.ops.dtypes import FEATURE_DTYPES, accumulate_dtype


def check_tensor(op: str, name: str, value: object, or_none: str = "") -> Tensor:
    """Raise unless ``value`` is a dense tensor of layout ``torch.strided``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a torch.Tensor{or_none}, got {type(value).__name__}")
    if value.is_nested:
        raise TypeError(
            f"{op}: expected {name} of layout torch.strided, got a nested tensor; pass its parts separately"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{op}: expected {name} of layout torch.strided, got {value.layout}; pass {name}.to_dense()")
    return value


def check_dtype(op: str, name: str, x: Tensor) -> None:
    """Raise unless the dtype of ``x`` is one that features may have."""
    if x.dtype not in FEATURE_DTYPES:
        raise TypeError(f"{op}: expected {name} of dtype float32, float64, bfloat16 or float16, got {x.dtype}")


def check_features(op: str, name: str, given: object) -> Tensor:
    """Raise unless ``given`` is a floating-point tensor of shape (B, C, ...)."""
    x = check_tensor(op, name, given)
    if x.dim() < 2:
        raise ValueError(f"{op}: expected {name} of shape (B, C, ...), got {tuple(x.shape)}")
    check_dtype(op, name, x)
    if x.is_cuda:
        _library.follow_matmul_precision()
    return x


def check_feature_map(op: str, given: object) -> Tensor:
    """:func:`check_features` of an argument ``x`` whose shape must be (B, C, H, W)."""
    x = check_features(op, "x", given)
    if x.dim() != 4:
        raise ValueError(f"{op}: expected x of shape (B, C, H, W), got {tuple(x.shape)}")
    return x


def check_scale(op: str, name: str, value: object) -> float:
    """Raise unless ``value`` is a number; return it as a float, or as a ``SymFloat`` while compiling."""
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        symbolic: float = torch.sym_float(value)
        return symbolic
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: expected {name} to be a number, got {type(value).__name__}")
    return float(value)


def check_choice(op: str, what: str, value: str, known: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``known``; the error suggests the nearest."""
    if value not in known:
        raise ValueError(f"{op}: unknown {what} {value!r}{nearest(str(value), known)} (known: {', '.join(known)})")


def check_shape_like(op: str, name: str, other: Tensor, x: Tensor) -> None:
    """Raise unless ``other`` has the shape of ``x``."""
    if other.shape != x.shape:
        raise ValueError(f"{op}: expected {name} of shape {tuple(x.shape)} like x, got {tuple(other.shape)}")


def check_dtype_like(op: str, name: str, other: Tensor, x: Tensor) -> None:
    """Raise unless ``other`` has the dtype of ``x``."""
    if other.dtype != x.dtype:
        raise TypeError(f"{op}: expected {name} of dtype {x.dtype} like x, got {other.dtype}")


def check_device(op: str, name: str, other: Tensor, x: Tensor) -> None:
    """Raise unless ``other`` is on the device of ``x``."""
    if other.device != x.device:
        raise ValueError(f"{op}: expected {name} on {x.device} like x, got {other.device}")


def position_weight(op: str, x: Tensor, weight: Tensor | None) -> Tensor | None:
    """Check a weight that broadcasts to (B, ...positions); return it as (B, N) in the accumulate dtype."""
    if weight is None:
        return None
    check_tensor(op, "weight", weight, " or None")
    if weight.is_complex():
        raise TypeError(f"{op}: expected weight of a real dtype, got {weight.dtype}")
    check_device(op, "weight", weight, x)
    full = (x.shape[0], *x.shape[2:])
    if not _broadcasts(weight.shape, full):
        raise ValueError(
            f"{op}: expected weight to broadcast to {full}, one value per position, got {tuple(weight.shape)}"
        )
    return weight.to(accumulate_dtype(x.dtype)).expand(full).reshape(x.shape[0], x.shape[2:].numel())


def batch_matrix(op: str, name: str, x: Tensor, given: object) -> Tensor:
    """Check a matrix that broadcasts to (B, C, C); return it expanded, in the accumulate dtype."""
    matrix = check_tensor(op, name, given)
    if not matrix.is_floating_point():
        raise TypeError(f"{op}: expected {name} of a floating dtype, got {matrix.dtype}")
    full = (x.shape[0], x.shape[1], x.shape[1])
    if matrix.dim() not in (2, 3) or matrix.shape[-2:] != full[1:] or not _broadcasts(matrix.shape, full):
        raise ValueError(f"{op}: expected {name} of shape {full} or {full[1:]}, got {tuple(matrix.shape)}")
    check_device(op, name, matrix, x)
    return matrix.to(accumulate_dtype(x.dtype)).expand(full)


def channel_shift(op: str, x: Tensor, given: object, residual: Tensor | None) -> Tensor:
    """Check a value per channel that broadcasts to (B, C); return it expanded, in the accumulate dtype."""
    shift = check_tensor(op, "shift", given)
    if residual is None:
        raise ValueError(f"{op}: expected a residual with shift")
    if not shift.is_floating_point():
        raise TypeError(f"{op}: expected shift of a floating dtype, got {shift.dtype}")
    full = tuple(x.shape[:2])
    if shift.dim() not in (1, 2) or shift.shape[-1] != full[1] or not _broadcasts(shift.shape, full):
        raise ValueError(f"{op}: expected shift of shape {full} or {full[1:]}, got {tuple(shift.shape)}")
    check_device(op, "shift", shift, x)
    return shift.to(accumulate_dtype(x.dtype)).expand(full)


def _broadcasts(shape: Sequence[int], full: Sequence[int]) -> bool:
    padded = (*(1,) * (len(full) - len(shape)), *shape)
    # Not `a in (1, b)`: torch.compile evaluates that without a guard that a symbolic b equals a.
    return len(padded) == len(full) and all(a == 1 or a == b for a, b in zip(padded, full, strict=True))


def check_no_internal_overlap(op: str, name: str, x: Tensor) -> None:
    """Raise if two elements of ``x``, which is written in place, share an address."""
    if torch.compiler.is_compiling():
        return  # comparing strides would specialize compiled code to one size
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


def check_no_overlap(op: str, name: str, other: Tensor | None, written: str, x: Tensor) -> None:
    """Raise if the extent of ``other``, which is read, overlaps that of ``x``, which is written."""
    if other is None or torch.compiler.is_compiling():
        return
    if not all(_has_address(t) for t in (other, x)):
        return
    (first, last), (start, end) = _extent(other), _extent(x)
    if first < end and start < last:
        raise ValueError(f"{op}: expected {name} that does not share memory with {written}")


def _has_address(x: Tensor) -> bool:
    """Whether ``data_ptr`` of ``x`` is meaningful: fake, meta and wrapped tensors have no storage."""
    return type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta" and not is_transformed(x)


def _extent(x: Tensor) -> tuple[int, int]:
    """The half-open range of addresses from the first to the last element; empty for an empty tensor."""
    if x.numel() == 0:
        return 0, 0
    reach = sum(stride * (size - 1) for stride, size in zip(x.stride(), x.shape, strict=True))
    return x.data_ptr(), x.data_ptr() + (reach + 1) * x.element_size()
