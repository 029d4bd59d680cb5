"""Resolve ``auto``: the device, the precision and the convolution algorithm for this machine."""

from __future__ import annotations

import torch

from fastnst import devices, ops
from fastnst.errors import UsageError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def choose_device(name: str | torch.device) -> torch.device:
    """The device ``name``. ``"auto"`` is the accelerator that PyTorch reports, such as CUDA, XPU or MPS, else the CPU.

    A device for which no op has a kernel runs them as PyTorch's ops; a warning says so, once per process. Raises
    UsageError for a device that is not available.
    """
    name = str(name)
    device = devices.accelerator() or torch.device("cpu") if name == "auto" else _available(name)
    ops.warn_without_kernels(device.type)
    return device


def _available(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float32, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        if reason.startswith("Could not run"):  # an op of the dispatcher, which the user has not asked for
            reason = f"this build of PyTorch has no {name.partition(':')[0]}"
        raise UsageError(f"device {name!r} cannot be used ({reason}); try --device cpu") from None
    return device


def choose_precision(name: str, device: torch.device, convolution: str = "auto") -> torch.dtype:
    """The dtype of features. ``"auto"`` is bfloat16 if the hardware multiplies it natively, else float32.

    On the CPU it is bfloat16 also with fastnst's convolution, which only stores it and multiplies in float32: half the
    memory, and no slower on x86 (docs/experiments/winograd.md). Raises UsageError for ``"float64"`` on a device that
    has none.
    """
    if name == "auto":
        stores = device.type == "cpu" and convolution != "direct"
        return torch.bfloat16 if stores or devices.multiplies_bfloat16(device) else torch.float32
    if name == "float64" and not devices.has_float64(device):
        raise UsageError(f"precision 'float64': device {str(device)!r} has no float64; use float32, or --device cpu")
    return _DTYPES[name]


def choose_history_dtype(name: str, device: torch.device, features: torch.dtype) -> str:
    """What ``"auto"`` stands for: bfloat16 on the CPU if features are stored in it, else still the image's dtype.

    The kernel for the CPU reads bfloat16 as it is, in half the time and memory, and needs as many steps
    (docs/experiments/lbfgs.md). Other devices would convert each vector first.
    """
    return "bfloat16" if name == "auto" and device.type == "cpu" and features == torch.bfloat16 else name


def history_dtype(name: str, image: torch.dtype) -> torch.dtype:
    """The dtype of the pairs that L-BFGS stores for an image; ``"auto"`` is the image's."""
    dtype: torch.dtype = image if name == "auto" else getattr(torch, name)
    return dtype


def choose_convolution(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions use fastnst's Winograd kernel.

    ``"auto"`` uses it on CPUs, where it is faster, or with NEON takes fewer instructions
    (docs/experiments/winograd.md), except in float64, which is chosen for exactness, and in bfloat16 on CPUs with
    matrix units. Raises UsageError for ``"winograd"`` on another device than the CPU.
    """
    if name == "winograd" and device.type != "cpu":
        raise UsageError(f"convolution 'winograd' runs on the CPU only, not on {str(device)!r}; use auto or direct")
    if name != "auto":
        return name == "winograd"
    if device.type != "cpu" or dtype == torch.float64:
        return False
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return not (dtype == torch.bfloat16 and probe is not None and bool(probe()))
