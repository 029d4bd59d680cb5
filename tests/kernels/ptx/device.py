"""Runs the kernels as nvcc compiles them where the emulator would run their source.

    device = Device(Interpreter(module, kernels))   # in place of Device(module)
    x = device.input("x", array, "float32")
    device.call("bias_relu_rows", x, bias)          # a binding of the emulator: the library's own launch
    device.module.launch("run_mma_f16", 1, 32, x)   # a kernel by its name in the PTX

The host's part of a launch and the buffers are the emulator's, which hands over the kernel's mangled name, the grid and
the bytes of the parameters.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
from emulated import Array

from .machine import launch
from .memory import Region
from .parse import Kernel

# In the emulator's cells: written by nobody, or by the host; higher numbers but the last few are blocks.
NOBODY, HOST = 0, 1
HOLE = 2**32 - 2  # padding between the elements of a view


def memory_at(address: int, size: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_char * size).from_address(address), np.uint8)


class Interpreter:
    """The emulator's module, except that launches run the PTX of `kernels`."""

    def __init__(self, module: Any, kernels: Mapping[str, Kernel]) -> None:
        self._module, self._kernels, self._seed = module, kernels, 0
        self.launched: list[str] = []  # the names of the kernels
        self.products: dict[str, int] = {}  # mma instructions of the last launch, by shape and type

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, type) or not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._module.redirect(self._launch)
            try:
                return found(*arguments, **named)
            finally:
                self._module.redirect(None)

        return call

    def set_seed(self, seed: int) -> None:
        """Blocks run in an order drawn from the seed; zero is that of their numbers."""
        self._seed = seed

    def launch(self, name: str, grid: int, threads: int, *arguments: Any) -> None:
        given = [a.buffer.address if isinstance(a, Array) else a for a in arguments]
        sizes = [declared.bytes for declared in self._kernels[name].parameters]
        values = [value.to_bytes(size, "little") for value, size in zip(given, sizes, strict=True)]
        self._launch(name, (grid, 1, 1), threads, 0, values)

    def _launch(self, name: str, grid: tuple[int, int, int], threads: int, shared: int, values: list[bytes]) -> None:
        assert grid[1:] == (1, 1), f"{name}: a grid of one dimension was expected, got {grid}"
        order = range(grid[0])
        if self._seed:
            order = np.random.default_rng(self._seed).permutation(grid[0]).tolist()
        cells, buffers = [], []
        for label, base, size, granule, writable, held in self._module.regions():
            assert size < 2**28, f"{label} is too large for the interpreter"
            buffers.append(Region(label, base, memory_at(base, -(-size // 16) * 16), granule, size, writable))
            count = len(buffers[-1].ready)
            if held:  # four numbers for each granule, the first of which is who wrote
                cells.append(memory_at(held, 16 * (-(-size // granule))).view(np.uint32)[::4])
                buffers[-1].ready[: len(cells[-1])] = (cells[-1] != NOBODY) & (cells[-1] != HOLE)
            else:
                cells.append(np.full(count, HOST, np.uint32))
                buffers[-1].ready[:] = True
        self.launched.append(name)
        collecting = gc.isenabled()
        gc.disable()  # a buffer that is garbage is a region as well, until it is collected
        try:
            self.products = launch(self._kernels[name], buffers, order, grid[0], threads, values, shared)
        finally:
            if collecting:
                gc.enable()
        for region, writers in zip(buffers, cells, strict=True):
            writers[region.ready[: len(writers)]] = HOST
