"""A place for tensors that are wanted again later: in memory while they are few, else in a file without a name."""

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

IN_MEMORY = 32 * 2**20  # bytes; what is more goes to the file


class Shelf:
    """Takes tensors and gives them back, bit for bit, as channels_last where they have four dimensions.

    The file lies in the folder for temporary files (the environment variable ``TMPDIR``), and is gone with the process.
    It is read and written, not mapped: mapped pages would count as memory of the process.
    """

    @dataclass(frozen=True)
    class Place:
        """Where a tensor stands: itself, or its shape, dtype and device and where its bytes begin."""

        tensor: Tensor | None
        shape: tuple[int, ...] = ()
        dtype: torch.dtype = torch.float32
        device: torch.device | None = None
        offset: int = 0

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._most, self._held, self._end = in_memory, 0, 0
        self._file: IO[bytes] | None = None

    def clear(self) -> None:
        """Let all go; places given out before serve no longer."""
        self._held = self._end = 0

    def put(self, x: Tensor) -> Place:
        """Take a copy of a tensor. Raises FastnstError where the disk is full."""
        size = x.numel() * x.element_size()
        if self._held + size <= self._most:
            self._held += size
            return self.Place(x.clone())
        if self._file is None:
            with ExitStack() as stack:
                self._file = stack.enter_context(tempfile.TemporaryFile())
                weakref.finalize(self, stack.pop_all().close)
        place = self.Place(None, tuple(x.shape), x.dtype, x.device, self._end)
        try:
            self._file.seek(self._end)
            self._file.write(_bytes(_laid(x.cpu())))
            self._file.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            needed = f"no space left in {tempfile.gettempdir()} for features that are wanted again"
            raise FastnstError(f"{needed}; make room there or set TMPDIR to another folder") from error
        self._end += size
        return place

    def get(self, place: Place) -> Tensor:
        """The tensor put there."""
        if place.tensor is not None:
            return place.tensor
        assert self._file is not None
        shape = place.shape if len(place.shape) != 4 else tuple(place.shape[i] for i in (0, 2, 3, 1))
        self._file.seek(place.offset)
        size = math.prod(shape) * place.dtype.itemsize
        found = torch.from_numpy(np.fromfile(self._file, np.uint8, size)).view(place.dtype).view(shape)
        return (found if len(shape) != 4 else found.permute(0, 3, 1, 2)).to(place.device)


def _laid(x: Tensor) -> Tensor:
    """The elements of a tensor in the order of the file."""
    return (x if x.dim() != 4 else x.permute(0, 2, 3, 1)).contiguous()


def _bytes(x: Tensor) -> memoryview:
    return x.view(-1).view(torch.uint8).numpy().data
