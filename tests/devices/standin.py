"""Builds the device of ``standin.cpp`` and registers it with PyTorch as ``standin``, for the rest of the process."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch.utils import cpp_extension

SOURCE = Path(__file__).with_suffix(".cpp")
BUILD = SOURCE.parents[2] / "build" / f"standin-{torch.__version__}-{sys.implementation.cache_tag}"


class Device(types.ModuleType):
    """``torch.standin``, with what the modules of PyTorch's accelerators have."""

    def __init__(self, library: Any) -> None:
        super().__init__("torch.standin")
        self.library = library

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Nothing is drawn on the device."""

    def get_device_name(self, device: object = None) -> str:
        return "a stand-in"

    def max_memory_allocated(self, device: object = None) -> int:
        return int(self.library.standin_peak())

    def limit(self, size: int) -> None:
        """The bytes of the device; -1 for no limit."""
        self.library.standin_limit(ctypes.c_int64(size))


@functools.cache
def register() -> Device:
    BUILD.mkdir(parents=True, exist_ok=True)
    with BUILD.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time, also of other test processes
        cpp_extension.load(
            "standin", [str(SOURCE)], extra_cflags=["-O0", "-w"], build_directory=str(BUILD), is_python_module=False
        )
    library = ctypes.CDLL(str(BUILD / "standin.so"))
    for name in ("held", "peak", "ops"):
        getattr(library, f"standin_{name}").restype = ctypes.c_int64
    device = Device(library)
    torch.utils.rename_privateuse1_backend("standin")
    torch._register_device_module("standin", device)
    torch.utils.generate_methods_for_privateuse1_backend()
    return device
