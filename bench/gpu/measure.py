"""One op of one layer: checked against float64, timed, and compared with the roofline."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from bench.common import contest
from bench.common.contest import Spread, Timer
from bench.gpu.problems import BOUNDS
from bench.gpu.roofline import Card, eager_style
from bench.gpu.tasks import Task


@dataclass(frozen=True)
class Row:
    """One contender at one op of one layer; ``seconds`` is None where the result was refused, and ``refused`` says why.

    ``predicted`` is the roofline of the fused pass on this card, or of eager PyTorch where that is known.
    """

    op: str
    layer: str
    side: int
    precision: str
    contender: str
    error: float | None
    refused: str | None
    seconds: Spread | None
    predicted: float | None
    bytes_per_second: float | None
    operations_per_second: float | None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def predict(task: Task, contender: str, card: Card) -> float | None:
    p = task.problem
    if contender == "fastnst":
        return task.work.seconds(card.bandwidth, card.products(p.precision))
    if contender == "eager" and task.op in ("style_loss", "style_loss backward") and p.precision in ("float32", "tf32"):
        return eager_style(card, p.channels, p.positions, p.precision)[task.op.endswith("backward")]
    return None


@torch.no_grad()
def measure(task: Task, timer: Timer, card: Card, repeats: int, warm_up: int = 3) -> list[Row]:
    """A row for each contender. GB/s and operations are of the least work, even for a contender that does more."""
    p = task.problem
    found = contest.measure(
        task.contenders, task.exact, BOUNDS[p.precision], rounds=repeats, warm_up=warm_up, timer=timer
    )
    rows = []
    for name, outcome in found.items():
        spread = Spread.of(outcome.seconds) if outcome.seconds else None
        rows.append(
            Row(
                task.op,
                p.layer,
                p.side,
                p.precision,
                name,
                outcome.error,
                outcome.refused,
                spread,
                predict(task, name, card),
                task.work.bytes / spread.median if spread else None,
                task.work.operations / spread.median if spread and task.work.operations else None,
            )
        )
    return rows
