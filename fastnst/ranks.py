"""Several processes that share one run, on one machine or more: torch.distributed as ``torchrun`` starts it.

Every rank takes a band of the picture. Statistics are added up over ranks in float64, gradients are gathered, and every
rank takes the same step. Gloo carries what lies on the CPU, NCCL what lies on GPUs. Before ranks exchange anything they
meet in a barrier that knows who is missing, so that a rank that hangs is named.
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

from fastnst.errors import FastnstError, UsageError

TIMEOUT = 1800  # seconds that a rank waits for the others, unless the environment variable says otherwise
TIMEOUT_VARIABLE = "FASTNST_RANK_TIMEOUT"
WORTH_WHILE = 0.8  # of a picture's work that a rank has, at most, for it to be shared out
LEAST_BAND = 128  # rows; in fewer not all would lie that the band above looks at in the deepest layers


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, and which of them this one is. ``Ranks()`` is one alone."""

    rank: int = 0
    count: int = 1
    timeout: float = TIMEOUT

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and says things."""
        return self.rank == 0

    def shares(self, height: int, lag: float) -> bool:
        """Whether a picture of this height is worth sharing out in :meth:`bands`."""
        if self.count == 1 or height < self.count * LEAST_BAND:
            return False
        return max(self.work(height, lag)) <= WORTH_WHILE * height

    def bands(self, height: int, lag: float) -> list[tuple[int, int]]:
        """The rows of each rank, so that all have as much work.

        That of a band begins ``lag`` rows below its first row, and ends as much below its last one; but not at the ends
        of the picture.
        """
        edges = [0]
        for rank in range(1, self.count):
            edges.append(max(int(height * rank / self.count - lag), edges[-1] + LEAST_BAND))
        return list(pairwise([*edges, height]))

    def work(self, height: int, lag: float) -> list[float]:
        """Rows of the picture that each rank's work is worth."""
        edges = [0.0, *(bottom + lag for _, bottom in self.bands(height, lag)[:-1]), float(height)]
        return [max(bottom - top, 0.0) for top, bottom in pairwise(edges)]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor, float64, over all ranks, in place."""
        if self.count == 1 or not tensors:
            return
        self.meet()
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def send(self, x: Tensor, to: int) -> Callable[[], None]:
        """Begin to send ``x``, which lies in one piece and must stay as it is; returns what waits for its arrival."""
        work = dist.isend(x.view(torch.uint8), to)
        assert work is not None

        def wait() -> None:
            with self._answering(to):
                work.wait()

        return wait

    def receive(self, x: Tensor, source: int) -> None:
        """Fill ``x``, which lies in one piece, with what ``source`` sends."""
        with self._answering(source):
            dist.recv(x.view(torch.uint8), source)

    @contextmanager
    def _answering(self, other: int) -> Iterator[None]:
        """Raise FastnstError that names the other rank where it does not answer."""
        try:
            yield
        except RuntimeError as error:
            told = f"no answer from rank {other} within {self.timeout:g} s; it hangs, or died"
            raise FastnstError(f"rank {self.rank}: {told} ({_line(error)})") from error

    def gather(self, x: Tensor, bands: Sequence[tuple[int, int]]) -> None:
        """Fill ``x [1, C, H, W]``, of which each rank knows the rows of its band, with those of the others."""
        if self.count == 1:
            return
        self.meet()
        for rank, (top, bottom) in enumerate(bands):
            part = x[:, :, top:bottom].contiguous()
            dist.broadcast(part, rank)
            x[:, :, top:bottom] = part

    def join(self, x: Tensor) -> Tensor:
        """The rows ``[1, C, h, W]`` of all ranks, one below the other."""
        if self.count == 1:
            return x
        rows: list[Any] = [None] * self.count
        self.meet()
        dist.all_gather_object(rows, x.shape[2])
        parts = []
        for rank, count in enumerate(rows):
            part = x.contiguous() if rank == self.rank else x.new_empty((*x.shape[:2], count, x.shape[3]))
            dist.broadcast(part, rank)
            parts.append(part)
        return torch.cat(parts, 2)

    def same(self, x: Tensor) -> None:
        """Make ``x`` what it is on the first rank."""
        if self.count > 1:
            self.meet()
            dist.broadcast(x, 0)

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Raise UsageError, on every rank, where one is about to do something else than the first."""
        if self.count == 1:
            return
        every: list[Any] = [None] * self.count
        self.meet()
        dist.all_gather_object(every, json.loads(json.dumps(facts, default=str)))
        for rank, other in enumerate(every):
            for name in dict.fromkeys((*every[0], *other)):
                if other.get(name) != every[0].get(name):
                    told = f"rank {rank} has {_short(other.get(name))} where rank 0 has {_short(every[0].get(name))}"
                    raise UsageError(f"ranks differ in {name}: {told}; give all the same files, settings and versions")

    def meet(self) -> None:
        """Wait for all ranks. Raises FastnstError that names those that do not come."""
        if self.count == 1:
            return
        try:
            dist.monitored_barrier(_control(), timedelta(seconds=self.timeout), wait_all_ranks=True)
        except RuntimeError as error:
            raise FastnstError(f"rank {self.rank}: {_missing(error, self.timeout)}") from error


ALONE = Ranks()


@contextmanager
def of_torchrun(device: str = "cpu") -> Iterator[Ranks]:
    """The ranks that ``torchrun`` has started, one alone where it has not; the group ends with the context.

    Raises UsageError for a timeout that is no number, FastnstError where the ranks do not find each other.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if count == 1:
        yield ALONE
        return
    timeout = _timeout()
    if torch.cuda.is_available() and device in ("auto", "cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        backend = "gloo" if device == "cpu" or not torch.cuda.is_available() else "cpu:gloo,cuda:nccl"
        wait = timedelta(seconds=timeout)
        dist.init_process_group(backend, store=_store(wait), rank=rank, world_size=count, timeout=wait)
    except (RuntimeError, ValueError) as error:
        raise FastnstError(f"rank {rank}: the ranks do not find each other ({_line(error)})") from error
    try:
        yield Ranks(rank, count, timeout)
    finally:
        _groups.clear()
        dist.destroy_process_group()


def restarted() -> bool:
    """Whether ``torchrun`` has started this process again after one of a run had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _store(wait: timedelta) -> Store | None:
    """Where the ranks find each other: the store of ``torchrun``, None for what the environment says otherwise.

    After a restart gloo would find the addresses of ranks that are gone there, so each attempt has names of its own.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"fastnst {attempt}", TCPStore(host, port, is_master=False, timeout=wait))


_groups: list[dist.ProcessGroup] = []


def _control() -> dist.ProcessGroup | None:
    """The group that ranks meet in: gloo, which knows who is missing."""
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
    """What a barrier that failed says of the others, in a line."""
    text = _line(error)
    named = re.search(r"Ranks? ([\d, ]+) failed to pass", text)
    if named is not None:
        return f"no answer from rank {named[1]} within {timeout:g} s; it hangs, or died"
    return f"the other ranks are gone, or do not answer within {timeout:g} s ({text})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
