"""How long an update of each optimiser takes, and what share of a whole step that is.

    python bench/e2e/optimizers.py [--size 512] [--rounds 9]

An update is what the loop does between two evaluations of loss and gradient. The loop's own optimisers, L-BFGS with
full histories, take turns, every second round backwards, with the evaluation of the preset `johnson` on the shipped
pictures among them; "plain L-BFGS" is without the conditioning, whose share is the difference. Before the clock starts,
each L-BFGS direction is held to the two-loop recursion in float64 on the contender's own pairs.

Prints medians and spreads and writes optimizers.json and optimizers.md to bench/results.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from machine import RESULTS, ROOT, machine, plain, write
from torch import Tensor

from fastnst import images, transfer
from fastnst.adam import Adam
from fastnst.conditioning import ConditionedLBFGS, weighted
from fastnst.lbfgs import LBFGS
from fastnst.objective import Objective, style_targets
from fastnst.settings import Settings

HISTORIES = (20, 100)
PRECISIONS = ("auto", "float32")
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # of a direction, relative


class Slope:
    """A cheap stand-in for the network: curvatures over two orders of magnitude, a different one at each pixel."""

    def __init__(self, shape: torch.Size) -> None:
        self.curvatures = 10 ** torch.empty(shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(1))

    def gradient(self, image: Tensor) -> Tensor:
        offset = image - 120
        return self.curvatures * (offset - 0.5 * offset.roll(1, -1)) + 1e-3 * offset**3


class Contender:
    """An optimiser and an image of its own."""

    def __init__(self, name: str, stored: str, history: int, start: Tensor) -> None:
        self.name, self.stored, self.history = name, stored, history
        self.image, self.slope = start.clone(), Slope(start.shape)
        self.optimizer = self.make()
        for _ in range(history + 2):
            self.update()

    def make(self) -> Adam | LBFGS | ConditionedLBFGS:
        if self.name == "Adam":
            return Adam(self.image, 1.0)
        kind = LBFGS if self.name == "plain L-BFGS" else ConditionedLBFGS
        return kind(self.image, 1.0, self.history, getattr(torch, self.stored))

    def update(self) -> float:
        """Take a step; the seconds of it."""
        gradient = self.slope.gradient(self.image)
        start = time.perf_counter()
        self.optimizer.step(self.image, gradient)
        return time.perf_counter() - start

    def check(self) -> None:
        """Refuse to time a direction that is wrong."""
        gradient, inner = self.slope.gradient(self.image), self.optimizer
        if isinstance(inner, ConditionedLBFGS):
            gradient, inner = weighted(gradient, inner.weights), inner.inner
        assert isinstance(inner, LBFGS)
        self.update()
        assert inner.direction is not None
        expected = two_loops(inner, gradient.flatten().double())
        got = inner.direction.double()
        error = (got / got.norm() - expected / expected.norm()).norm().item()
        if not error <= BOUNDS[inner.pairs.dtype]:
            sys.exit(f"{self.name}, history {self.history}, {self.stored}: the direction is wrong by {error:.1e}")


def two_loops(optimizer: LBFGS, gradient: Tensor) -> Tensor:
    """The direction in float64 by the book, on the pairs that the optimiser holds."""
    direction, taken = -gradient, {}
    for slot in optimizer.used:
        s, y = optimizer.pairs[slot].double()
        taken[slot] = s.dot(direction) / s.dot(y)
        direction -= taken[slot] * y
    s, y = optimizer.pairs[optimizer.used[0]].double()
    direction *= s.dot(y) / y.dot(y)
    for slot in reversed(optimizer.used):
        s, y = optimizer.pairs[slot].double()
        direction += (taken[slot] - y.dot(direction) / s.dot(y)) * s
    return direction


@dataclass(frozen=True)
class Row:
    """An optimiser: the seconds of its updates, their median, and its share of a step in each precision."""

    optimizer: str
    history: int
    stored: str
    median: float
    seconds: list[float]
    shares: dict[str, float]


def evaluation(size: int, precision: str) -> Callable[[], float]:
    """What evaluates loss and gradient of a picture once; returns the seconds."""
    stylizer = transfer.Stylizer(Settings.of("johnson", precision=precision))
    assets = ROOT / "fastnst" / "assets"
    content, style = (
        images.load(assets / name, crop=size).pixels * 255 for name in ("demo_photo.jpg", "demo_painting.jpg")
    )
    objective = Objective(
        stylizer.network, content, style_targets(stylizer.network, style, stylizer.settings), stylizer.settings
    )

    def run() -> float:
        start = time.perf_counter()
        objective.value_and_grad(content)
        return time.perf_counter() - start

    return run


def measure(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each round; the first is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    gc.disable()
    for number in range(rounds + 1):
        for name in runs if number % 2 else reversed(runs):
            seconds[name].append(runs[name]())
    gc.enable()
    return {name: times[1:] for name, times in seconds.items()}


def table(rows: Sequence[Row]) -> str:
    shares = " | ".join(f"of a step, {precision}" for precision in PRECISIONS)
    lines = [f"| optimiser | history | stored as | ms (min-max) | {shares} |", "|" + "---|" * (4 + len(PRECISIONS))]
    for row in rows:
        shown = " | ".join(f"{100 * row.shares[precision]:.1f} %" for precision in PRECISIONS)
        time_shown = f"{1e3 * row.median:.1f} ({1e3 * min(row.seconds):.1f}-{1e3 * max(row.seconds):.1f})"
        lines.append(f"| {row.optimizer} | {row.history or ''} | {row.stored} | {time_shown} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="side of the square picture (default 512)")
    parser.add_argument("--rounds", type=int, default=9, help="updates timed of each contender (default 9)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default bench/results)")
    options = parser.parse_args()
    start = torch.rand(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0)) * 255
    contenders = [Contender("Adam", "float32", 0, start)]
    for history in HISTORIES:
        for name, stored in (("L-BFGS", "float32"), ("L-BFGS", "bfloat16"), ("plain L-BFGS", "float32")):
            contenders.append(Contender(name, stored, history, start))
            contenders[-1].check()
    runs: dict[str, Callable[[], float]] = {f"{i}": contender.update for i, contender in enumerate(contenders)}
    runs |= {precision: evaluation(options.size, precision) for precision in PRECISIONS}
    seconds = measure(runs, options.rounds)
    steps = {precision: statistics.median(seconds[precision]) for precision in PRECISIONS}
    rows = []
    for i, contender in enumerate(contenders):
        found = seconds[f"{i}"]
        median = statistics.median(found)
        shares = {precision: median / (median + step) for precision, step in steps.items()}
        rows.append(Row(contender.name, contender.history, contender.stored, median, found, shares))
    report = {
        "machine": machine(),
        "options": plain(options),
        "evaluations": steps,
        "rows": [asdict(row) for row in rows],
    }
    evaluations = ", ".join(f"{name} {step:.3f} s" for name, step in steps.items())
    told = f"{options.size}x{options.size}, {options.rounds} rounds; evaluation of loss and gradient: {evaluations}"
    print(write(options.out, "optimizers", report, [told, table(rows)]))


if __name__ == "__main__":
    main()
