"""Clocks: what takes turns in one run, how long each took, and how much of the run's time is left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass(frozen=True)
class Turn:
    """``run`` is timed; ``prepare`` before it is not."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


class Timer(Protocol):
    def seconds(self, turns: Sequence[Turn], repeats: int) -> list[list[float]]:
        """The seconds of every repeat of every turn; the turns alternate."""


class EventTimer:
    """CUDA events on the device, its L2 cache flushed before each turn."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self.junk = torch.empty(max(4 * cache, 2**26), dtype=torch.uint8, device=device)

    def seconds(self, turns: Sequence[Turn], repeats: int) -> list[list[float]]:
        pairs: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[] for _ in turns]
        for _ in range(repeats):
            for i, turn in enumerate(turns):
                turn.prepare()
                # The device waits here while the host enqueues the turn: its launches do not count.
                torch.cuda._sleep(500_000)
                self.junk.zero_()
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                turn.run()
                end.record()
                pairs[i].append((start, end))
            torch.cuda.synchronize(self.device)
        return [[start.elapsed_time(end) / 1e3 for start, end in of_one] for of_one in pairs]


@dataclass(frozen=True)
class Spread:
    """Seconds: median, least and most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        return cls(statistics.median(seconds), min(seconds), max(seconds))


@dataclass
class Budget:
    """The time a run may take, and what was left out to keep to it."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    dropped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = self.clock() + self.seconds

    def allows(self, what: str, share: float = 1.0) -> bool:
        """Whether ``what`` may start before this share of the time is over; if not, it is noted as left out."""
        if self.clock() < self.end - (1 - share) * self.seconds:
            return True
        self.dropped.append(what)
        return False
