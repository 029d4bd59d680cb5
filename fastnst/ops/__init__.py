"""Fused ops for style transfer; each also stands in ``torch.ops.fastnst``.

Features are ``[B, C, ...positions]``. Losses and Gram matrices are float32 whatever the features' precision, also
inside autocast, and float64 for float64 features. Results are the same bit for bit on repeat and for any number of
threads. :func:`kernels` says which ops have kernels of ours for a device; the others run on
:mod:`fastnst.ops.reference`, and so does what is asked of the others in forward mode or through ``torch.func``: their
derivatives there are those of the reference. A CUDA tensor where the build has no CUDA kernels is an error.
"""

from __future__ import annotations

import torch

from fastnst.ops import _library, reference
from fastnst.ops._library import CUDA_REMEDY, follow_matmul_precision
from fastnst.ops.bias_relu import bias_relu_, bias_relu_style_loss
from fastnst.ops.content_loss import content_loss
from fastnst.ops.conv3x3 import conv3x3
from fastnst.ops.gram import gram
from fastnst.ops.moments import moments
from fastnst.ops.pool import pool, pool_and_places
from fastnst.ops.style_loss import style_loss, style_loss_and_residual
from fastnst.ops.tapped_backward import tapped_backward_
from fastnst.ops.total_variation import total_variation

__all__ = [
    "CUDA_REMEDY",
    "bias_relu_",
    "bias_relu_style_loss",
    "content_loss",
    "conv3x3",
    "follow_matmul_precision",
    "gram",
    "kernels",
    "moments",
    "pool",
    "pool_and_places",
    "reference",
    "style_loss",
    "style_loss_and_residual",
    "tapped_backward_",
    "total_variation",
]

NAMES = (
    "gram",
    "moments",
    "style_loss",
    "content_loss",
    "total_variation",
    "tapped_backward_",
    "bias_relu_",
    "bias_relu_style_loss",
    "pool",
    "conv3x3",
)


def kernels(device: str = "cpu") -> dict[str, str]:
    """For each op, what serves a tensor on ``device``: ``"avx512_bf16"``, ``"avx512"``, ``"avx2"``, ``"portable"``,
    ``"cuda"`` or ``"reference"`` (plain PyTorch)."""
    kind = torch.device(device).type
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(kind, kind.upper())
    name = str(torch.ops.fastnst.cpu_kernels()) if kind == "cpu" else kind

    def served(op: str) -> bool:
        return torch._C._dispatch_has_kernel_for_dispatch_key(f"fastnst::{op}", key)

    return {op: name if served(op) else "reference" for op in NAMES}


def build_info() -> dict[str, str | None]:
    """What the compiled modules were built from: torch version, CUDA architectures, and why CUDA is absent if it is."""
    cuda = None if _library.cuda_error else str(torch.ops.fastnst.cuda_architectures())
    return {"built_with": str(torch.ops.fastnst.build_info()), "cuda": cuda, "no_cuda_because": _library.cuda_error}
