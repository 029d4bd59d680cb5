"""Global and shared memory, and what CUDA's memory model says of each access to it.

Each granule of memory (4 bytes of shared memory, one element of a buffer) records its last write and read. Errors are:
accesses outside every buffer or misaligned; reads of what nothing has written; accesses to what an asynchronous copy is
about to write; two threads of a block at one granule without a barrier; a block that reads or overwrites what another
block wrote, unless a fence and an atomic of the one and an atomic and a fence of the other stand between; and
ld.global.nc of memory that the same launch writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

HOST, ATOMIC = -1, -2  # in place of the number of a block: written before the launch, or by an atomic
MANY = -2  # in place of a thread: more than one has read
GUARD = 4096  # bytes around a buffer that are in no other


class Violation(RuntimeError):
    """What CUDA does not allow or leaves undefined."""


class Region:
    """One buffer, or the shared memory of a block."""

    def __init__(
        self, name: str, base: int, data: np.ndarray, granule: int, size: int | None = None, writable: bool = True
    ) -> None:
        self.name, self.base, self.granule, self.writable = name, base, granule, writable
        self.data = data  # bytes, of which `size` belong to the region; a multiple of 16
        self.size = len(data) if size is None else size
        count = len(self.data) // granule
        self.ready = np.zeros(count, bool)
        self.pending = np.zeros(count, bool)
        self.forget()

    def forget(self) -> None:
        """All earlier accesses are complete, as between two launches."""
        count = len(self.ready)
        self.when = np.full(count, -1)
        self.thread = np.zeros(count, np.int64)
        self.block = np.full(count, HOST)
        self.read_when = np.full(count, -1)
        self.reader = np.zeros(count, np.int64)
        self.reading_block = np.full(count, HOST)

    def granules(self, offsets: np.ndarray, size: int) -> np.ndarray:
        first = offsets // self.granule
        return first[:, None] + np.arange(max(size // self.granule, 1))

    def values(self, offsets: np.ndarray, dtype: Any, count: int) -> list[np.ndarray]:
        whole, first = self.data.view(dtype), offsets // np.dtype(dtype).itemsize
        return [whole[first + i] for i in range(count)]

    def put(self, offsets: np.ndarray, values: list[np.ndarray]) -> None:
        for i, value in enumerate(values):
            self.data.view(value.dtype)[offsets // value.itemsize + i] = value


# What a thread knows to have happened in other blocks: for each, all before one time, and a little more of one thread.
Known = dict[int, tuple[int, dict[int, int]]]


def merge(into: Known, other: Known) -> None:
    for block, (time, threads) in other.items():
        old_time, old_threads = into.get(block, (-1, {}))
        both = {t: max(threads.get(t, -1), old_threads.get(t, -1)) for t in {*threads, *old_threads}}
        into[block] = (max(time, old_time), both)


@dataclass
class BlockOrder:
    """Barriers and fences of the block that runs."""

    block: int
    clock: int
    barrier: int = 0  # the time of the last barrier of the block
    warps: dict[int, int] = field(default_factory=dict)  # and of warps
    known: Known = field(default_factory=dict)  # by all threads
    acquired: dict[int, Known] = field(default_factory=dict)  # by a thread since the last barrier
    observed: dict[int, Known] = field(default_factory=dict)  # by an atomic of a thread, before its next fence
    fenced: dict[int, Known] = field(default_factory=dict)  # what the next atomic of a thread publishes

    def at_barrier(self) -> None:
        self.barrier = self.clock
        for known in self.acquired.values():
            merge(self.known, known)
        self.acquired.clear()

    def at_warp_barrier(self, warps: np.ndarray) -> None:
        self.warps.update(dict.fromkeys(warps.tolist(), self.clock))

    def at_fence(self, threads: np.ndarray) -> None:
        for thread in threads.tolist():
            merge(self.acquired.setdefault(thread, {}), self.observed.pop(thread, {}))
            known: Known = {self.block: (self.barrier, {thread: self.clock})}
            merge(known, self.known)
            merge(known, self.acquired[thread])
            self.fenced[thread] = known

    def ordered(self, threads: np.ndarray, others: np.ndarray, when: np.ndarray) -> np.ndarray:
        """Whether accesses of other threads of this block are over for each thread."""
        since = np.full(when.shape, self.barrier)
        if self.warps:
            of_warp = np.array([self.warps.get(warp, -1) for warp in (threads // 32).ravel().tolist()])
            since = np.where(threads // 32 == others // 32, np.maximum(since, of_warp.reshape(threads.shape)), since)
        return (others == threads) | (when < since)

    def published(self, threads: np.ndarray, blocks: np.ndarray, others: np.ndarray, when: np.ndarray) -> np.ndarray:
        """Whether accesses of other blocks are over for each thread."""
        over = np.zeros(when.shape, bool)
        views: list[tuple[Any, Known]] = [(True, self.known)]
        views += [(threads == thread, known) for thread, known in self.acquired.items()]
        for which, known in views:
            for block, (time, of_threads) in known.items():
                of_block = which & (blocks == block)
                over |= of_block & (when < time)
                for thread, until in of_threads.items():
                    over |= of_block & (others == thread) & (when < until)
        return over


class Memory:
    """The buffers of a device, and the shared memory of one block at a time."""

    def __init__(self, buffers: list[Region]) -> None:
        self.buffers = sorted(buffers, key=lambda region: region.base)
        self.bases = np.array([region.base for region in self.buffers], np.uint64)
        self.shared = Region("shared memory", 0, np.zeros(0, np.uint8), 4)
        self.order = BlockOrder(0, 0)
        self.counters: dict[tuple[str, int], Known] = {}

    def _buffers(self, addresses: np.ndarray) -> list[tuple[Any, Region, np.ndarray]]:
        """The accesses by buffer; one just before or after a buffer counts as an access to it."""
        numbers = np.searchsorted(self.bases, addresses + np.uint64(GUARD // 2), "right") - 1
        found = [(slice(None) if (numbers == n).all() else numbers == n, n) for n in np.unique(numbers)]
        parts = []
        for which, n in found:
            offsets = addresses[which].astype(np.int64) - self.buffers[n].base
            if n < 0 or (offsets > self.buffers[n].size + GUARD).any():
                raise Violation(f"address {int(addresses[which][0]):#x} is in no buffer")
            parts.append((which, self.buffers[n], offsets))
        return parts

    def place(self, space: str, addresses: np.ndarray, size: int) -> list[tuple[Any, Region, np.ndarray]]:
        """The accesses by region: which lanes, the region and the offsets in it, all of them inside and aligned."""
        if space == "shared":
            parts = [(slice(None), self.shared, addresses.astype(np.int64))]
        else:
            parts = self._buffers(addresses)
        for _, region, offsets in parts:
            if (offsets % size).any():
                raise Violation(f"{region.name}: an address is not a multiple of {size} bytes")
            outside = (offsets + size > region.size) | (offsets < 0)
            if outside.any():
                raise Violation(f"{region.name}: byte {offsets[outside][0]} is past the end of {region.size} bytes")
        return parts

    def load(
        self, space: str, threads: np.ndarray, addresses: np.ndarray, dtype: Any, count: int, coherent: bool = True
    ) -> list[np.ndarray]:
        size = np.dtype(dtype).itemsize * count
        parts = self.place(space, addresses, size)
        values = [np.empty(len(threads), dtype) for _ in range(count)]
        for which, region, offsets in parts:
            self._check_read(region, region.granules(offsets, size), threads[which][:, None], coherent)
            for value, found in zip(values, region.values(offsets, dtype, count), strict=True):
                value[which] = found
        return values

    def _check_read(self, region: Region, at: np.ndarray, threads: np.ndarray, coherent: bool) -> None:
        if region.pending[at].any():
            raise Violation(f"{region.name}: data of cp.async is pending there")
        if not region.ready[at].all():
            raise Violation(f"{region.name}: uninitialized memory is read")
        if not region.writable:
            return
        if not coherent and (region.block[at] != HOST).any():
            raise Violation(f"{region.name}: ld.global.nc of what this launch wrote")
        self._check_order(region, region.block[at], region.thread[at], region.when[at], threads, "wrote there")
        again = (region.read_when[at] >= self.order.barrier) & (region.reader[at] != threads)
        region.reader[at] = np.where(again, MANY, threads)
        region.reader[at] = np.where(region.reader[at] != threads, MANY, region.reader[at])
        region.read_when[at], region.reading_block[at] = self.order.clock, self.order.block

    def _check_order(
        self, region: Region, blocks: np.ndarray, others: np.ndarray, when: np.ndarray, threads: np.ndarray, what: str
    ) -> None:
        order, threads = self.order, np.broadcast_to(threads, when.shape)
        here = blocks == order.block
        if here.any() and not (~here | order.ordered(threads, others, when)).all():
            raise Violation(f"{region.name}: race: another thread {what} with no barrier between")
        foreign = (blocks >= 0) & ~here
        if foreign.any() and not (~foreign | order.published(threads, blocks, others, when)).all():
            block = blocks[foreign][0]
            raise Violation(f"{region.name}: block {block} {what}, and did not release it to this thread")

    def _check_write(self, region: Region, at: np.ndarray, threads: np.ndarray) -> None:
        if not region.writable:
            raise Violation(f"{region.name}: an input is written")
        if region.pending[at].any():
            raise Violation(f"{region.name}: data of cp.async is pending there")
        self._check_order(region, region.block[at], region.thread[at], region.when[at], threads, "wrote there too")
        blocks, readers, when = region.reading_block[at], region.reader[at], region.read_when[at]
        self._check_order(region, blocks, readers, when, threads, "reads there")

    def _written(self, region: Region, at: np.ndarray, threads: np.ndarray) -> None:
        region.ready[at] = True
        region.thread[at] = threads
        if (region.thread[at] != threads).any():
            raise Violation(f"{region.name}: race: two threads write to one place at once")
        region.when[at], region.block[at] = self.order.clock, self.order.block

    def store(self, space: str, threads: np.ndarray, addresses: np.ndarray, values: list[np.ndarray]) -> None:
        size = values[0].itemsize * len(values)
        for which, region, offsets in self.place(space, addresses, size):
            at, by = region.granules(offsets, size), threads[which][:, None]
            self._check_write(region, at, by)
            self._written(region, at, by)
            region.put(offsets, [value[which] for value in values])

    def begin_copy(self, threads: np.ndarray, to: np.ndarray, size: int) -> np.ndarray:
        """The destination of an asynchronous copy may not be accessed until `finish_copy`; the offsets there."""
        [(_, region, offsets)] = self.place("shared", to, size)
        at = region.granules(offsets, size)
        self._check_write(region, at, threads[:, None])
        region.pending[at] = True
        return offsets

    def finish_copy(self, threads: np.ndarray, offsets: np.ndarray, data: list[np.ndarray]) -> None:
        at = self.shared.granules(offsets, data[0].itemsize * len(data))
        self.shared.pending[at] = False
        self._written(self.shared, at, threads[:, None])
        self.shared.put(offsets, data)

    def add_atomically(self, threads: np.ndarray, addresses: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The old values; one thread after the other. An atomic publishes what its thread's last fence ordered."""
        size, old = values.itemsize, np.empty_like(values)
        for i, thread in enumerate(threads.tolist()):
            [(_, region, offsets)] = self.place("global", addresses[i : i + 1], size)
            at = region.granules(offsets, size)
            if not region.ready[at].all():
                raise Violation(f"{region.name}: an atomic on uninitialized memory")
            if (region.block[at] != ATOMIC).any():
                self._check_write(region, at, threads[i : i + 1, None])
            [old[i : i + 1]] = region.values(offsets, values.dtype, 1)
            region.put(offsets, [old[i : i + 1] + values[i : i + 1]])
            region.block[at] = ATOMIC
            counter = self.counters.setdefault((region.name, int(at[0, 0])), {})
            merge(self.order.observed.setdefault(thread, {}), counter)
            merge(counter, self.order.fenced.get(thread, {}))
        return old
