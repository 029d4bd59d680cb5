"""How long an update of each optimizer takes, and its share of a whole step.

    python -m bench.e2e.optimizers [--size 512] [--rounds 9]

An update is what the loop does between two evaluations of loss and gradient. The loop's own optimizers, L-BFGS with
full histories, take turns with the evaluation of the preset `johnson` on the shipped pictures. "plain L-BFGS" is
without the conditioning, whose cost is the difference. Before the clock starts, each L-BFGS direction is compared with
the two-loop recursion in float64 on the contender's own pairs.

Prints medians and spreads and writes optimizers.json and optimizers.md to bench/results.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bench.common import contest, results
from bench.common.contest import Clock, Spread
from bench.common.machine import machine
from bench.common.options import parser, plain
from bench.common.pictures import shipped
from bench.common.results import Report, Section, Table
from fastnst.config.settings import Settings
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.adam import Adam
from fastnst.optim.conditioning import ConditionedLBFGS, precondition
from fastnst.optim.lbfgs import LBFGS, LONG
from fastnst.run.stylizer import Stylizer

HISTORIES = (20, 100)
PRECISIONS = ("auto", "float32")
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # of a direction, relative


class SyntheticGradient:
    """A cheap substitute for the network: curvatures over two orders of magnitude, a different one at each pixel."""

    def __init__(self, shape: torch.Size) -> None:
        self.curvatures = 10 ** torch.empty(shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(1))

    def __call__(self, image: Tensor) -> Tensor:
        offset = image - 120
        return self.curvatures * (offset - 0.5 * offset.roll(1, -1)) + 1e-3 * offset**3


class Contender:
    """An optimizer and an image of its own."""

    def __init__(self, name: str, stored: str, history: int, start: Tensor) -> None:
        self.name, self.stored, self.history = name, stored, history
        self.image, self.gradient_of = start.clone(), SyntheticGradient(start.shape)
        self.gradient = torch.empty(0)
        self.optimizer = self.make()
        for _ in range(history + 2):
            self.prepare()
            self.update()

    def make(self) -> Adam | LBFGS | ConditionedLBFGS:
        if self.name == "Adam":
            return Adam(self.image, 1.0)
        kind = LBFGS if self.name == "plain L-BFGS" else ConditionedLBFGS
        return kind(self.image, 1.0, self.history, getattr(torch, self.stored))

    def prepare(self) -> None:
        self.gradient = self.gradient_of(self.image)

    def update(self) -> None:
        self.optimizer.step(self.image, self.gradient)

    def check(self) -> None:
        """Exit where the direction is wrong."""
        self.prepare()
        gradient, inner = self.gradient.clone(), self.optimizer
        if isinstance(inner, ConditionedLBFGS):
            gradient, inner = precondition(gradient, inner.weights), inner.inner
        assert isinstance(inner, LBFGS)
        self.update()
        assert inner.direction is not None
        expected = two_loops(inner, gradient.flatten().double())
        got = inner.direction.double()
        error = (got / got.norm() - expected / expected.norm()).norm().item()
        if not error <= BOUNDS[inner.pairs.dtype]:
            sys.exit(f"{self.name}, history {self.history}, {self.stored}: the direction is wrong by {error:.1e}")


def two_loops(optimizer: LBFGS, gradient: Tensor) -> Tensor:
    """The direction in float64 by the two-loop recursion, on the pairs that the optimizer holds."""
    direction, alpha = -gradient, {}
    for slot in optimizer.used:
        s, y = optimizer.pairs[slot].double()
        alpha[slot] = s.dot(direction) / s.dot(y)
        direction -= alpha[slot] * y
    s, y = optimizer.pairs[optimizer.used[0]].double()
    short, long = s.dot(y) / y.dot(y), s.dot(s) / s.dot(y)
    direction *= short ** (1 - LONG) * long**LONG
    for slot in reversed(optimizer.used):
        s, y = optimizer.pairs[slot].double()
        direction += (alpha[slot] - y.dot(direction) / s.dot(y)) * s
    return direction


@dataclass(frozen=True)
class Row:
    """An optimizer: the seconds of its updates, their median, and its share of a step in each precision."""

    optimizer: str
    history: int
    stored: str
    median: float
    seconds: list[float]
    shares: dict[str, float]


def evaluation(size: int, precision: str) -> contest.Contender:
    """An evaluation of loss and gradient of the content picture."""
    stylizer = Stylizer(Settings.from_preset("johnson", precision=precision))
    content, style = shipped(size)
    targets = style_targets(stylizer.network, style, stylizer.settings)
    objective = Objective(stylizer.network, content, targets, stylizer.settings)
    return contest.Contender(precision, lambda: objective.value_and_grad(content))


def contenders(size: int) -> list[Contender]:
    """The optimizers, checked."""
    start = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255
    found = [Contender("Adam", "float32", 0, start)]
    for history in HISTORIES:
        for name, stored in (("L-BFGS", "float32"), ("L-BFGS", "bfloat16"), ("plain L-BFGS", "float32")):
            found.append(Contender(name, stored, history, start))
            found[-1].check()
    return found


def rows(entered: list[Contender], seconds: list[list[float]], steps: dict[str, float]) -> list[Row]:
    found = []
    for contender, own in zip(entered, seconds, strict=True):
        median = Spread.of(own).median
        shares = {precision: median / (median + step) for precision, step in steps.items()}
        found.append(Row(contender.name, contender.history, contender.stored, median, own, shares))
    return found


def tables(report: Report) -> list[Section]:
    options = report["options"]
    evaluations = ", ".join(f"{name} {step:.3f} s" for name, step in report["evaluations"].items())
    setting = f"{options['size']}x{options['size']}, {options['rounds']} rounds"
    lines = []
    for row in report["rows"]:
        key = (row["optimizer"], str(row["history"] or ""), row["stored"])
        shares = (f"{100 * row['shares'][precision]:.1f} %" for precision in PRECISIONS)
        lines.append((*key, Spread.of(row["seconds"]).text(".1f", 1e3), *shares))
    head = ("optimizer", "history", "stored as", "ms (min-max)", *(f"of a step, {name}" for name in PRECISIONS))
    return [f"{setting}; evaluation of loss and gradient: {evaluations}", Table(head, lines, keys=3)]


def main() -> None:
    arguments = parser(__doc__, out=True)
    arguments.add_argument("--size", type=int, default=512, help="side of the square picture (default 512)")
    arguments.add_argument("--rounds", type=int, default=9, help="updates timed of each contender (default 9)")
    options = arguments.parse_args()
    entered = contenders(options.size)
    timed = [contest.Contender(f"{i}", c.update, c.prepare) for i, c in enumerate(entered)]
    timed += [evaluation(options.size, precision) for precision in PRECISIONS]
    seconds = [of_one[1:] for of_one in Clock().seconds(timed, options.rounds + 1)]  # the first is not counted
    medians = [Spread.of(of_one).median for of_one in seconds[len(entered) :]]
    steps = dict(zip(PRECISIONS, medians, strict=True))
    report: Report = {
        "machine": machine(),
        "options": plain(options),
        "evaluations": steps,
        "rows": [asdict(row) for row in rows(entered, seconds[: len(entered)], steps)],
    }
    results.write(options.out, "optimizers", report, tables)


if __name__ == "__main__":
    main()
