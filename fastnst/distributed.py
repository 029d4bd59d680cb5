"""Several processes that share one run, on one machine or several: torch.distributed as ``torchrun`` starts it.

Every rank takes a band of the picture. Statistics are summed over ranks in float64, or in float32 on a device without
it, gradients are gathered, and every rank takes the same step. Gloo transfers CPU tensors, and the accelerator's own
backend, such as NCCL for CUDA, transfers those on it. Ranks pass a barrier before every collective operation; the
barrier reports which ranks are missing, so that an error can name a rank that hangs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from fastnst import devices
from fastnst.errors import FastnstError, UsageError

TIMEOUT = 1800  # seconds that a rank waits for the others, unless the environment variable is set
TIMEOUT_VARIABLE = "FASTNST_RANK_TIMEOUT"
WORTH_WHILE = 0.8  # a picture is split if no rank gets more than this share of its work
LEAST_BAND = 192  # rows; a smaller band would not contain all halo rows of the band above in the deepest layers


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, and the number of this one. ``Ranks()`` is a single process.

    Args:
        rank: the number of this process, from 0.
        count: the number of processes.
        timeout: seconds to wait for another rank.
    """

    rank: int = 0
    count: int = 1
    timeout: float = TIMEOUT

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and messages."""
        return self.rank == 0

    def splits(self, height: int, receptive_offset: float) -> bool:
        """Whether it is worth splitting a picture of this height into :meth:`bands`."""
        if self.count == 1 or height < self.count * LEAST_BAND:
            return False
        return max(self.work(height, receptive_offset)) <= WORTH_WHILE * height

    def bands(self, height: int, receptive_offset: float) -> list[tuple[int, int]]:
        """The first row and the end of each rank's band, such that all ranks have equal work.

        The work of a band begins ``receptive_offset`` rows below its first row and ends as many rows below its last
        row, except at the borders of the picture; see :func:`fastnst.strips.layout.receptive_offset`.
        """
        borders = [0]
        for rank in range(1, self.count):
            borders.append(max(int(height * rank / self.count - receptive_offset), borders[-1] + LEAST_BAND))
        return list(pairwise([*borders, height]))

    def work(self, height: int, receptive_offset: float) -> list[float]:
        """The work of each rank, in rows of the picture."""
        borders = [
            0.0,
            *(bottom + receptive_offset for _, bottom in self.bands(height, receptive_offset)[:-1]),
            float(height),
        ]
        return [max(bottom - top, 0.0) for top, bottom in pairwise(borders)]

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors of one dtype over all ranks, each in place."""
        if self.count == 1 or not tensors:
            return
        self.barrier()
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def send(self, x: Tensor, to: int) -> Callable[[], None]:
        """Start to send ``x``, contiguous in memory; returns a function that waits until it is sent.

        ``x`` must not change until then.
        """
        work = dist.isend(x.view(torch.uint8), to)
        assert work is not None

        def wait() -> None:
            with self._naming(to):
                work.wait()

        return wait

    def receive(self, x: Tensor, source: int) -> None:
        """Fill ``x``, contiguous in memory, with the tensor that ``source`` sends."""
        with self._naming(source):
            dist.recv(x.view(torch.uint8), source)

    @contextmanager
    def _naming(self, other: int) -> Iterator[None]:
        """Raise FastnstError that names rank ``other`` where the transfer fails."""
        try:
            yield
        except RuntimeError as error:
            reason = f"no answer from rank {other} within {self.timeout:g} s; it hangs or has died"
            raise FastnstError(f"rank {self.rank}: {reason} ({_line(error)})") from error

    def gather_bands(self, x: Tensor, bands: Sequence[tuple[int, int]]) -> None:
        """Fill ``x [1, C, H, W]``, of which each rank has the rows of its band, with the rows of the other ranks."""
        if self.count == 1:
            return
        self.barrier()
        for rank, (top, bottom) in enumerate(bands):
            part = x[:, :, top:bottom].contiguous()
            dist.broadcast(part, rank)
            x[:, :, top:bottom] = part

    def concatenate_rows(self, x: Tensor) -> Tensor:
        """The rows ``[1, C, h, W]`` of all ranks, concatenated in the order of the ranks; h may differ."""
        if self.count == 1:
            return x
        rows: list[Any] = [None] * self.count
        self.barrier()
        dist.all_gather_object(rows, x.shape[2])
        parts = []
        for rank, count in enumerate(rows):
            part = x.contiguous() if rank == self.rank else x.new_empty((*x.shape[:2], count, x.shape[3]))
            dist.broadcast(part, rank)
            parts.append(part)
        return torch.cat(parts, 2)

    def broadcast(self, x: Tensor) -> None:
        """Overwrite ``x`` with the ``x`` of the first rank."""
        if self.count > 1:
            self.barrier()
            dist.broadcast(x, 0)

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Raise UsageError on every rank unless all ranks have the same facts."""
        if self.count == 1:
            return
        every: list[Any] = [None] * self.count
        self.barrier()
        dist.all_gather_object(every, json.loads(json.dumps(facts, default=str)))
        for rank, other in enumerate(every):
            for name in dict.fromkeys((*every[0], *other)):
                if other.get(name) != every[0].get(name):
                    differ = f"rank {rank} has {_short(other.get(name))} where rank 0 has {_short(every[0].get(name))}"
                    raise UsageError(
                        f"ranks differ in {name}: {differ}; give all the same files, settings and versions"
                    )

    def barrier(self) -> None:
        """Wait for all ranks. Raises FastnstError that names the missing ones."""
        if self.count == 1:
            return
        try:
            dist.monitored_barrier(_control(), timedelta(seconds=self.timeout), wait_all_ranks=True)
        except RuntimeError as error:
            raise FastnstError(f"rank {self.rank}: {_missing(error, self.timeout)}") from error


SINGLE = Ranks()


@contextmanager
def from_torchrun(device: str | torch.device = "cpu") -> Iterator[Ranks]:
    """A context with the ranks that ``torchrun`` started, or with a single process without it.

    Args:
        device: of the run, as in the setting of this name.

    Raises UsageError for an invalid timeout and for more ranks than devices, FastnstError where the ranks cannot
    connect to each other.
    """
    count, rank, device = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0")), str(device)
    if count == 1:
        yield SINGLE
        return
    timeout = _timeout()
    accelerator = devices.accelerator()
    if accelerator is not None and device in ("auto", accelerator.type):
        local, have = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
        if local >= have:
            raise UsageError(
                f"rank {local} of this machine has no {accelerator.type} device: there are {have}; "
                f"start at most {have} ranks on it, or give --device cpu"
            )
        torch.accelerator.set_device_index(local)
    try:
        backend = "gloo"
        if accelerator is not None and device != "cpu":
            own = dist.get_default_backend_for_device(accelerator)
            backend = f"cpu:gloo,{accelerator.type}:{own}"
        wait = timedelta(seconds=timeout)
        dist.init_process_group(backend, store=_store(wait), rank=rank, world_size=count, timeout=wait)
    except (RuntimeError, ValueError) as error:
        raise FastnstError(f"rank {rank}: the ranks cannot connect to each other ({_line(error)})") from error
    try:
        yield Ranks(rank, count, timeout)
    finally:
        _groups.clear()
        dist.destroy_process_group()


def restarted() -> bool:
    """Whether ``torchrun`` restarted this process after a rank of the run died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _store(wait: timedelta) -> Store | None:
    """The store through which ranks find each other: that of ``torchrun``; None: as the environment variables say.

    After a restart the store still has the addresses of the ranks before, so each attempt has a prefix of its own.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"fastnst {attempt}", TCPStore(host, port, is_master=False, timeout=wait))


_groups: list[dist.ProcessGroup] = []


def _control() -> dist.ProcessGroup | None:
    """The group for barriers: gloo, which reports the missing ranks."""
    if dist.get_backend() == "gloo":
        return None
    if not _groups:
        _groups.append(dist.new_group(backend="gloo"))
    return _groups[0]


def _timeout() -> float:
    given = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT))
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"{TIMEOUT_VARIABLE}: expected seconds above zero, got {given!r}")
    return seconds


def _missing(error: RuntimeError, timeout: float) -> str:
    """The error of a failed barrier in one line."""
    text = _line(error)
    named = re.search(r"Ranks? ([\d, ]+) failed to pass", text)
    if named is not None:
        return f"no answer from rank {named[1]} within {timeout:g} s; it hangs or has died"
    return f"the other ranks have died or do not answer within {timeout:g} s ({text})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
