"""A clock on the device, and a limit on the time of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from bench.common.contest import Contender, order


class EventTimer:
    """CUDA events on the device, its L2 cache flushed before each run."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self.junk = torch.empty(max(4 * cache, 2**26), dtype=torch.uint8, device=device)

    def seconds(self, contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
        pairs: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[] for _ in contenders]
        for number in range(rounds):
            for i in order(range(len(contenders)), number):
                contenders[i].prepare()
                # The device sleeps while the host enqueues the run, so that launches do not count.
                torch.cuda._sleep(500_000)
                self.junk.zero_()
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                contenders[i].run()
                end.record()
                pairs[i].append((start, end))
            torch.cuda.synchronize(self.device)
        return [[start.elapsed_time(end) / 1e3 for start, end in of_one] for of_one in pairs]


@dataclass
class Budget:
    """The time a run may take, and what was left out to keep to it."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    dropped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = self.clock() + self.seconds

    def allows(self, name: str, share: float = 1.0) -> bool:
        """Whether ``name`` may start before this share of the time is over; if not, it is recorded as left out."""
        if self.clock() < self.end - (1 - share) * self.seconds:
            return True
        self.dropped.append(name)
        return False
