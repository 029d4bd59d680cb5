"""Fused ops for style transfer, also available as ``torch.ops.fastnst``.

Features are ``[B, C, ...positions]``. Losses and Gram matrices are float32 whatever the features' precision, also
inside autocast, and float64 for float64 features. Results are deterministic: the same bits in every run and for any
number of threads. :func:`kernels` tells which ops have a kernel for a device; the others run
:mod:`fastnst.ops.reference`, as does forward-mode differentiation. Inside ``torch.vmap`` an op runs once, with the
mapped axis in its batch. Where no op has a kernel, the first one that runs logs a warning that says why.
"""

from __future__ import annotations

import torch

from fastnst.ops import _library, raw, reference
from fastnst.ops import adam_step as _adam_step  # noqa: F401  registers the op
from fastnst.ops import dot as _dot  # noqa: F401  registers the op
from fastnst.ops import lbfgs_direction as _lbfgs_direction  # noqa: F401  registers the op
from fastnst.ops import quantile_residual as _quantile_residual  # noqa: F401  registers the op
from fastnst.ops._library import follow_matmul_precision, warn_without_kernels
from fastnst.ops.bias_relu import bias_relu_, bias_relu_style_loss
from fastnst.ops.content_loss import content_loss
from fastnst.ops.conv3x3 import conv3x3
from fastnst.ops.gram import gram
from fastnst.ops.layer_backward import layer_backward_
from fastnst.ops.moments import moments
from fastnst.ops.pool import pool, pool_with_argmax
from fastnst.ops.style_loss import style_loss, style_loss_and_residual
from fastnst.ops.total_variation import total_variation

__all__ = [
    "bias_relu_",
    "bias_relu_style_loss",
    "content_loss",
    "conv3x3",
    "follow_matmul_precision",
    "gram",
    "kernels",
    "layer_backward_",
    "moments",
    "pool",
    "pool_with_argmax",
    "raw",
    "reference",
    "style_loss",
    "style_loss_and_residual",
    "total_variation",
    "warn_without_kernels",
]

NAMES = (
    "gram",
    "moments",
    "style_loss",
    "content_loss",
    "total_variation",
    "layer_backward_",
    "bias_relu_",
    "bias_relu_style_loss",
    "pool",
    "conv3x3",
)


def kernels(device: str = "cpu") -> dict[str, str]:
    """Return which implementation of each op serves tensors on ``device``.

    Args:
        device: a device such as ``"cpu"`` or ``"cuda"``.

    Returns:
        For each op ``"avx512_bf16"``, ``"avx512"``, ``"avx2"``, ``"neon"``, ``"portable"``, ``"cuda"`` or
        ``"reference"``, which is plain PyTorch.

    Example:
        >>> from fastnst import ops
        >>> ops.kernels("cpu")["gram"] in ("avx512_bf16", "avx512", "avx2", "neon", "portable")
        True
    """
    kind = torch.device(device).type
    key = torch._C._dispatch_key_for_device(kind)
    name = str(torch.ops.fastnst.cpu_kernels()) if kind == "cpu" else kind

    def has_kernel(op: str) -> bool:
        return torch._C._dispatch_has_kernel_for_dispatch_key(f"fastnst::{op}", key)

    return {op: name if has_kernel(op) else "reference" for op in NAMES}


def build_info() -> dict[str, str | None]:
    """Return the torch version of the build, its CUDA architectures, and why there are no CUDA kernels, if so."""
    cuda = None if _library.cuda_error else str(torch.ops.fastnst.cuda_architectures())
    return {"built_with": str(torch.ops.fastnst.build_info()), "cuda": cuda, "no_cuda_because": _library.cuda_error}
