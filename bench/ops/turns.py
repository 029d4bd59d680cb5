"""Checks the contenders of a contest against float64, then lets those that are right take turns before the clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from contests import BOUND, Contest, Pass
from exact import error


@dataclass(frozen=True)
class Measured:
    """Seconds of each round; none where the contender was refused, and ``refused`` says why."""

    seconds: tuple[float, ...]
    error: float | None
    refused: str | None


def check(run: Pass, contest: Contest) -> tuple[float | None, str | None]:
    """The largest error of a contender's results, and why it is refused, if it is."""
    try:
        got = run(torch.zeros_like(contest.above))
    except (RuntimeError, ValueError, TypeError) as problem:  # torch.compile has many ways to fail
        return None, f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:120]}"
    worst = max(error(y, right) for y, right in zip(got, contest.exact, strict=True))
    return worst, None if worst <= BOUND else f"error {worst:.1e} above {BOUND:.0e}"


def measure(contest: Contest, rounds: int, warm_up: int = 2) -> dict[str, Measured]:
    """A result for each contender. Every second round goes through them backwards."""
    checked = {name: check(run, contest) for name, run in contest.run.items()}
    right = [name for name, (_, refused) in checked.items() if refused is None]
    seconds: dict[str, list[float]] = {name: [] for name in contest.run}
    gc.collect()
    gc.disable()
    try:
        for number in range(warm_up + rounds):
            for name in right if number % 2 else reversed(right):
                start = time.perf_counter()
                contest.run[name](contest.above)
                seconds[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {name: Measured(tuple(seconds[name][warm_up:]), *checked[name]) for name in contest.run}


class Replay:
    """A clock that shows times measured before.

    pytest-benchmark times its contenders one after the other, which on a machine whose speed drifts favours some. So
    they are timed in turn, and this clock hands the times to it: it is read at the start and at the end of each round.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: Iterator[float] = iter(())

    def load(self, seconds: tuple[float, ...]) -> None:
        self.steps = (step for s in seconds for step in (0.0, s))

    def read(self) -> float:
        self.now += next(self.steps)
        return self.now
