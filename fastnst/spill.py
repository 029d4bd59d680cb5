"""Tensors that are read again later: in memory up to a limit, beyond it in a temporary file.

:class:`SpillBuffer` is for parts of a picture that one object writes and reads, :class:`FileTensor` for whole images,
which others read as ordinary tensors.
"""

from __future__ import annotations

import errno
import logging
import math
import mmap
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fastnst.errors import FastnstError
from fastnst.process import signals_held

log = logging.getLogger("fastnst")

IN_MEMORY = 32 * 2**20  # bytes; what exceeds them goes to the file
CHUNK = 2**20  # values of an image that are written at a time
_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


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
            self._file = _file_of(self)
        slot = self.Slot(None, tuple(x.shape), x.dtype, x.device, self._end)
        _write(self._file, self._end, [x.cpu()])
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


def _file_of(owner: object) -> IO[bytes]:
    """A temporary file that is closed when ``owner`` is no longer used."""
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
        weakref.finalize(owner, stack.pop_all().close)
    return file


def _write(file: IO[bytes], offset: int, parts: Iterable[Tensor]) -> None:
    """Write tensors one after the other from ``offset`` on. Raises FastnstError where the disk is full."""
    try:
        file.seek(offset)
        for x in parts:
            file.write(_bytes(x))
        file.flush()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = f"no space left in {tempfile.gettempdir()} for a picture in strips"
        raise FastnstError(f"{reason}; make room there or set TMPDIR to another folder") from error


def _bytes(x: Tensor) -> memoryview:
    """The elements of a tensor in the order of the file, which is channels_last for four dimensions."""
    stored = (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).contiguous()
    return stored.view(-1).view(torch.uint8).numpy().data


class FileTensor:
    """A copy of a tensor: beyond :data:`IN_MEMORY`, on the CPU, in a temporary file that is mapped into memory.

    Pages of the file that were read count as memory of the process until :func:`release_pages`; storing a tensor adds
    none. Where the file cannot be written, the copy is in memory, with a warning: no run ends for it.

    Attributes:
        tensor: of the shape and dtype of ``x``. It outlives this object.
    """

    def __init__(self, x: Tensor) -> None:
        self._file: IO[bytes] | None = None
        size = x.numel() * x.element_size()
        if x.device.type == "cpu" and size > IN_MEMORY:
            try:
                self._file = _file_of(self)
                _write(self._file, 0, x.reshape(-1).split(CHUNK))
                mapped = mmap.mmap(self._file.fileno(), size)
            except (OSError, FastnstError) as error:
                self._give_up(error)
            else:
                _mapped.add(mapped)
                self.tensor = torch.frombuffer(mapped, dtype=x.dtype).view(x.shape)
                return
        self.tensor = x.clone()

    def store(self, x: Tensor) -> None:
        """Replace the values by those of ``x``. Signals are delayed, so that all values are of one image."""
        if self._file is None:
            self.tensor.copy_(x)
            return
        try:
            with signals_held():
                _write(self._file, 0, x.reshape(-1).split(CHUNK))
        except (OSError, FastnstError) as error:
            self._give_up(error)
            self.tensor = x.clone()

    def _give_up(self, error: Exception) -> None:
        self._file = None
        log.warning("an image is kept in memory, since it cannot be written to a temporary file (%s)", error)


def on_disk(x: Tensor) -> Tensor:
    """The tensor itself or, if it is large, its copy in a temporary file: see :class:`FileTensor`."""
    large = x.device.type == "cpu" and x.numel() * x.element_size() > IN_MEMORY
    return FileTensor(x).tensor if large else x


def release_pages() -> None:
    """Return the pages of all mapped files to the system; they are read again when needed. Not on Windows."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_mapped):
            mapped.madvise(mmap.MADV_DONTNEED)
