"""Checks every result against float64, then times those that are right; the rest are refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from exact import error
from problems import BOUNDS
from roofline import Card, eager_style
from tasks import Contender, Results, Task
from timing import Spread, Timer


@dataclass(frozen=True)
class Row:
    """One contender at one op of one layer; ``seconds`` is None where the result was refused, and ``refused`` says why.

    ``predicted`` is the roofline's for this card, of the fused pass, or of eager PyTorch where that is known.
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


def first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:120]}"


def check(contender: Contender, exact: Results, bound: float) -> tuple[float | None, str | None]:
    """The largest error of the contender's results, and why it is refused, if it is."""
    try:
        contender.prepare()
        got = contender.run()
        worst = max(error(y, z) for y, z in zip(got, exact, strict=True))
    except (RuntimeError, ValueError, TypeError) as problem:
        return None, first_line(problem)
    if not worst <= bound:
        return worst, f"error {worst:.1e} above {bound:.0e}"
    return worst, None


def predict(task: Task, contender: str, card: Card) -> float | None:
    p = task.problem
    if contender == "fastnst":
        return task.work.seconds(card.bandwidth, card.products(p.precision))
    if contender == "eager" and task.op in ("style_loss", "style_loss backward") and p.precision in ("float32", "tf32"):
        return eager_style(card, p.channels, p.positions, p.precision)[task.op.endswith("backward")]
    return None


@torch.no_grad()
def measure(task: Task, timer: Timer, card: Card, repeats: int, warm_up: int = 3) -> list[Row]:
    """A row for each contender. They take turns; GB/s and operations are those of the least work, whoever did more."""
    p = task.problem
    exact = task.exact()
    checked = [check(contender, exact, BOUNDS[p.precision]) for contender in task.contenders]
    del exact
    right = [c for c, (_, refused) in zip(task.contenders, checked, strict=True) if refused is None]
    spreads = dict(zip((c.name for c in right), _times(right, timer, repeats, warm_up), strict=True))
    rows = []
    for contender, (worst, refused) in zip(task.contenders, checked, strict=True):
        spread = spreads.get(contender.name)
        rows.append(
            Row(
                task.op,
                p.layer,
                p.side,
                p.precision,
                contender.name,
                worst,
                refused,
                spread,
                predict(task, contender.name, card),
                task.work.bytes / spread.median if spread else None,
                task.work.operations / spread.median if spread and task.work.operations else None,
            )
        )
    return rows


def _times(contenders: Sequence[Contender], timer: Timer, repeats: int, warm_up: int) -> list[Spread]:
    turns = [contender.turn() for contender in contenders]
    if not turns:
        return []
    return [Spread.of(seconds[warm_up:]) for seconds in timer.seconds(turns, warm_up + repeats)]
