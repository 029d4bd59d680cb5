"""Feature maps as matrices, and gradients in the layout of their input."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops.autograd_state import is_transformed
from fastnst.ops.dtypes import accumulate_dtype


def matrix(x: Tensor) -> Tensor:
    """``[B, C, ...]`` as ``[B, C, N]`` in the accumulate dtype."""
    shape = (*x.shape[:2], x.shape[2:].numel())
    return x.reshape(shape).to(accumulate_dtype(x.dtype))


def gradient_like(x: Tensor, out: Tensor) -> Tensor:
    """``out`` in the dtype, shape and memory layout of ``x``, as the fake kernels declare gradients."""
    out = out.reshape(x.shape)
    if is_transformed(x) or is_transformed(out):
        return out.to(x.dtype)  # vmap cannot copy into a tensor without its batch dimension
    return torch.empty_like(x).copy_(out)


def pool_layout(x: Tensor) -> torch.memory_format:
    """The memory format of the output of a pool or its backward: channels_last for a dense channels_last ``x``."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def channels_last(x: Tensor) -> Tensor:
    """``x`` with stride 1 along the channels, also where sizes of 1 make the memory format ambiguous."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
