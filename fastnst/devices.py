"""What the devices of PyTorch have: the accelerator of this machine, float64, bfloat16, memory.

A device is asked through its module in torch, such as ``torch.cuda`` or ``torch.xpu``. A backend need not have all of
the functions; what it does not tell is None.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


def accelerator() -> torch.device | None:
    """The accelerator of this build of PyTorch if this machine has one, without an index."""
    return torch.accelerator.current_accelerator(check_available=True)


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Whether ``device`` computes in float64. MPS does not, nor do some Intel GPUs."""
    if device.type in ("cpu", "cuda", "meta", "mps"):
        return device.type != "mps"
    try:
        torch.ones((), dtype=torch.float64, device=device).add_(1)
    except torch.OutOfMemoryError:
        raise  # says nothing about float64
    except (RuntimeError, TypeError):
        return False
    return True


def wide_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums over many values: float64, or float32 on devices without it."""
    return torch.float64 if has_float64(device) else torch.float32


def to_float64(x: Tensor) -> Tensor:
    """``x`` in float64: on its device, or on the CPU where the device has no float64."""
    return (x if has_float64(x.device) else x.cpu()).double()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16, so that it is faster than float32."""
    if device.type == "cpu":
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return probe is not None and bool(probe())
    if device.type == "cuda" and torch.version.hip is None:
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supports = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    if supports is None:
        return False
    try:
        return bool(supports(including_emulation=False))
    except TypeError:  # a backend whose function takes no arguments
        return bool(supports())


def name(device: torch.device) -> str | None:
    """The name of an accelerator."""
    found = _ask(device, "get_device_name", device)
    return None if found is None else str(found)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that PyTorch's allocator of an accelerator has held; None on the CPU and where it is unknown."""
    return _bytes(device, "max_memory_allocated", device) or _bytes(device, "driver_allocated_memory") or None


def free_memory(device: torch.device) -> int | None:
    """Bytes of an accelerator that this process may use or uses already; None on the CPU and where it is unknown."""
    found = _ask(device, "mem_get_info", device)
    if found is not None:
        # Memory cached by PyTorch's allocator is available.
        return int(found[0]) + (_bytes(device, "memory_reserved", device) or 0)
    return _bytes(device, "recommended_max_memory")


def _bytes(device: torch.device, function: str, *arguments: object) -> int | None:
    found = _ask(device, function, *arguments)
    return None if found is None else int(found)


def _ask(device: torch.device, function: str, *arguments: object) -> Any:
    """The result of a function of the module of an accelerator in torch; None if there is no answer."""
    if device.type == "cpu":
        return None
    try:
        return getattr(torch.get_device_module(device), function)(*arguments)
    except (AttributeError, RuntimeError, AssertionError, ValueError):
        return None
