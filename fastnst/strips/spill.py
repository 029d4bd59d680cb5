"""A buffer for tensors that are read again later: in memory up to a limit, beyond it in a temporary file."""

from __future__ import annotations

import errno
import math
import tempfile
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fastnst.errors import FastnstError

IN_MEMORY = 32 * 2**20  # bytes; what exceeds them goes to the file


class SpillBuffer:
    """Stores copies of tensors and returns them bit for bit, channels_last where they have four dimensions.

    The file is in the folder for temporary files (environment variable ``TMPDIR``) and disappears with the process.
    It is read and written and not memory-mapped, since mapped pages count as memory of the process.

    Args:
        in_memory: bytes to hold in memory.
    """

    @dataclass(frozen=True)
    class Slot:
        """A stored tensor: itself, or its shape, dtype, device and offset in the file."""

        tensor: Tensor | None
        shape: tuple[int, ...] = ()
        dtype: torch.dtype = torch.float32
        device: torch.device | None = None
        offset: int = 0

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._limit, self._held, self._end = in_memory, 0, 0
        self._file: IO[bytes] | None = None

    def clear(self) -> None:
        """Release all tensors; earlier slots become invalid."""
        self._held = self._end = 0

    def put(self, x: Tensor) -> Slot:
        """Store a copy of a tensor. Raises FastnstError where the disk is full."""
        size = x.numel() * x.element_size()
        if self._held + size <= self._limit:
            self._held += size
            return self.Slot(x.clone())
        if self._file is None:
            with ExitStack() as stack:
                self._file = stack.enter_context(tempfile.TemporaryFile())
                weakref.finalize(self, stack.pop_all().close)
        slot = self.Slot(None, tuple(x.shape), x.dtype, x.device, self._end)
        try:
            self._file.seek(self._end)
            self._file.write(_bytes(x.cpu()))
            self._file.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = f"no space left in {tempfile.gettempdir()} for features of a picture in strips"
            raise FastnstError(f"{reason}; make room there or set TMPDIR to another folder") from error
        self._end += size
        return slot

    def get(self, slot: Slot) -> Tensor:
        """The tensor stored in a slot."""
        if slot.tensor is not None:
            return slot.tensor
        assert self._file is not None
        images = len(slot.shape) == 4
        shape = tuple(slot.shape[i] for i in (0, 2, 3, 1)) if images else slot.shape
        self._file.seek(slot.offset)
        size = math.prod(shape) * slot.dtype.itemsize
        found = torch.from_numpy(np.fromfile(self._file, np.uint8, size)).view(slot.dtype).view(shape)
        return (found.permute(0, 3, 1, 2) if images else found).to(slot.device)


def _bytes(x: Tensor) -> memoryview:
    """The elements of a tensor in the order of the file, which is channels_last for four dimensions."""
    stored = (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).contiguous()
    return stored.view(-1).view(torch.uint8).numpy().data
