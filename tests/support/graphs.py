"""A substitute for CUDA graphs on the CPU, and checks for what a graph cannot capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Ops for which the host waits: for their result, or for the size of their output.
WAITING = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "lift_fresh")


class NoHost(TorchDispatchMode):
    """Fails on an op that waits for the device, or that moves or creates a tensor elsewhere than on ``device``."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        assert name not in WAITING, f"{func.name()} waits for the device or creates a tensor on the host"
        assert not (name == "index" and any(t.dtype == torch.bool for t in _tensors(args[1]))), (
            "the output size depends on a mask"
        )
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(args, kwargs, out):
            # Numbers are CPU tensors []; kernels receive them as values.
            assert tensor.device == self.device or _is_number(tensor), f"{func.name()} leaves {self.device}"
        assert not any(t.device != self.device for t in _tensors(out)), f"{func.name()} creates a tensor elsewhere"
        self.calls += 1
        return out


class Addresses(NoHost):
    """Records every op with the addresses of the arguments that the watched code did not create."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.made: set[int] = set()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(tensor) for tensor in _tensors(args, kwargs) if not _is_number(tensor)}
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.seen.append((func.name(), tuple(sorted(given - self.made))))
        self.made |= {_address(tensor) for tensor in _tensors(out)} - given
        return out


class Rerun:
    """A backend that runs the function again instead of replaying it, and checks that a graph could replay it: the same
    ops on the same buffers, without the host."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        for _ in range(3):
            function()
        captured = self._watched(function)
        assert captured

        def replay() -> None:
            self.replays += 1
            assert self._watched(function) == captured, "a replay would not do what the function does now"

        return replay

    @staticmethod
    def _watched(function: Callable[[], None]) -> list[tuple[str, tuple[int, ...]]]:
        with Addresses(torch.device("cpu")) as watch:
            function()
        return watch.seen


class Refuse:
    """A backend on which capture fails, after the function has run."""

    def __init__(self) -> None:
        self.asked = 0

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        self.asked += 1
        function()
        raise RuntimeError("operation not permitted when stream is capturing. Compile with a flag\nand more lines")


def _tensors(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _is_number(tensor: Tensor) -> bool:
    return tensor.dim() == 0 and tensor.device.type == "cpu"


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
