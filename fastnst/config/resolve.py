"""Resolve ``auto``: the device, the precision and the convolution algorithm for this machine."""

from __future__ import annotations

import functools
import logging

import torch

from fastnst import ops
from fastnst.errors import UsageError

log = logging.getLogger("fastnst")

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def choose_device(name: str | torch.device) -> torch.device:
    """The device ``name``. ``"auto"`` is CUDA if the CUDA kernels are built, else MPS if available, else the CPU.

    Raises UsageError for a device that is not available.
    """
    name = str(name)
    no_kernels = ops.build_info()["no_cuda_because"]
    if name == "auto":
        if torch.cuda.is_available() and no_kernels is None:
            return torch.device("cuda")
        if torch.cuda.is_available():
            _warn_without_kernels(str(no_kernels))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise UsageError(f"device {name!r} cannot be used ({reason}); try --device cpu") from None
    if device.type == "cuda" and no_kernels is not None:
        raise UsageError(f"device {name!r} cannot be used: no CUDA kernels: {no_kernels}. {ops.CUDA_REMEDY}")
    return device


@functools.cache
def _warn_without_kernels(reason: str) -> None:
    """Once per process: ``auto`` is resolved several times in a run."""
    log.warning("there is a GPU, but no CUDA kernels: %s. %s", reason, ops.CUDA_REMEDY)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of features. ``"auto"`` is bfloat16 if the hardware multiplies it natively, else float32."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        native = device.type == "cpu" and probe is not None and bool(probe())
    return torch.bfloat16 if native else torch.float32


def choose_convolution(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions use fastnst's Winograd kernel.

    ``"auto"`` uses it on CPUs whose instruction set has a compiled kernel, where it is faster, or with NEON takes
    fewer instructions (docs/experiments/winograd.md), except in float64, which is chosen for exactness, and in
    bfloat16 on CPUs with matrix units. Raises UsageError for ``"winograd"`` on another device than the CPU.
    """
    if name == "winograd" and device.type != "cpu":
        raise UsageError(f"convolution 'winograd' runs on the CPU only, not on {str(device)!r}; use auto or direct")
    if name != "auto":
        return name == "winograd"
    if device.type != "cpu" or dtype == torch.float64:
        return False
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    matrix_units = dtype == torch.bfloat16 and probe is not None and bool(probe())
    return not matrix_units and ops.kernels()["conv3x3"] != "portable"
