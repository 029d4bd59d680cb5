"""A contest: contenders that do the same work are checked against an exact result, then timed in turn.

Every round runs each contender once, and every second round goes through them in reverse order, so that a machine whose
speed drifts slows all of them alike. Ratios are taken round by round.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from bench.common.exact import error

K = TypeVar("K")
T = TypeVar("T")
Results = tuple[Tensor, ...]


@dataclass(frozen=True)
class Contender:
    """``run`` is timed; ``prepare`` before each run is not. ``results`` is what is checked (default: one run's)."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    results: Callable[[], Results] | None = None


@dataclass(frozen=True)
class Measured:
    """Seconds of each round; none where the contender was refused, and ``refused`` says why."""

    seconds: tuple[float, ...]
    error: float | None
    refused: str | None


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str = ".3g", factor: float = 1.0) -> str:
        median, least, most = (format(factor * x, form) for x in (self.median, self.least, self.most))
        return f"{median} ({least}-{most})"


def ratios(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    """``values`` over those of the reference, round by round."""
    return [mine / other for mine, other in zip(values, reference, strict=True)]


def order(contenders: Iterable[T], number: int) -> list[T]:
    """The contenders as round ``number`` takes them."""
    listed = list(contenders)
    return listed[::-1] if number % 2 else listed


def in_turn(contenders: Mapping[K, Callable[[], T]], rounds: int | Iterable[int], title: str = "") -> dict[K, list[T]]:
    """Call each contender once a round; what each returned, round by round. A title reports progress to stderr."""
    returned: dict[K, list[T]] = {name: [] for name in contenders}
    for number in range(rounds) if isinstance(rounds, int) else rounds:
        for name in order(contenders, number):
            returned[name].append(contenders[name]())
            if title:
                print(f"  {title} round {number + 1}: {name}", file=sys.stderr)
    return returned


def rounds_within(seconds: float, least: int, most: int) -> Iterator[int]:
    """Round numbers until ``seconds`` are over, but at least ``least`` and at most ``most`` rounds."""
    end = time.perf_counter() + seconds
    for number in range(most):
        if number >= least and time.perf_counter() >= end:
            return
        yield number


class Timer(Protocol):
    def seconds(self, contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
        """The seconds of each contender in each round."""


class Clock:
    """The host's clock, for work that is done when the call returns. Python's garbage collector is off meanwhile."""

    def __init__(self, title: str = "") -> None:
        self.title = title

    def seconds(self, contenders: Sequence[Contender], rounds: int | Iterable[int]) -> list[list[float]]:
        gc.collect()
        gc.disable()
        try:
            runs = {contender.name: _clocked(contender) for contender in contenders}
            return list(in_turn(runs, rounds, self.title).values())
        finally:
            gc.enable()


def _clocked(contender: Contender) -> Callable[[], float]:
    def seconds() -> float:
        contender.prepare()
        start = time.perf_counter()
        contender.run()
        return time.perf_counter() - start

    return seconds


def reason(problem: Exception) -> str:
    """The kind and the first line of an exception."""
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:120]}"


def check(contender: Contender, exact: Results, bound: float) -> tuple[float | None, str | None]:
    """The largest error of the contender's results, and why it is refused, if it is."""
    try:
        contender.prepare()
        got = (contender.results or contender.run)()
        assert isinstance(got, tuple)
        worst = max(error(y, z) for y, z in zip(got, exact, strict=True))
    except (RuntimeError, ValueError, TypeError) as problem:  # torch.compile has many ways to fail
        return None, reason(problem)
    return worst, None if worst <= bound else f"error {worst:.1e} above {bound:.0e}"


def measure(
    contenders: Sequence[Contender],
    exact: Callable[[], Results],
    bound: float,
    *,
    rounds: int,
    warm_up: int = 2,
    timer: Timer | None = None,
) -> dict[str, Measured]:
    """Check every contender, then time those that are right. The first ``warm_up`` rounds are not counted."""
    expected = exact()
    checked = {contender.name: check(contender, expected, bound) for contender in contenders}
    del expected  # its memory is free before the clock starts
    right = [contender for contender in contenders if checked[contender.name][1] is None]
    times = (timer or Clock()).seconds(right, warm_up + rounds) if right else []
    counted = {contender.name: tuple(of_one[warm_up:]) for contender, of_one in zip(right, times, strict=True)}
    return {name: Measured(counted.get(name, ()), *verdict) for name, verdict in checked.items()}
