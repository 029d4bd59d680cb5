"""pytest-benchmark for the ops: eager PyTorch, torch.compile and fastnst, checked in float64 and then timed in turn.

    python -m pytest bench/ops --benchmark-json build/ops.json [--rounds 15] [-k style_loss]
    python -m bench.ops.ops_report build/ops.json

The first test of a contest times all of its contenders in turn; each test then hands the times of its contender to
pytest-benchmark (see :class:`Replay`). The second command writes the tables and the plot to bench/results.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.common.contest import Measured
from bench.ops.contests import LAYERS, MAKE, MODES, NAMES, PICTURES, measure


class Replay:
    """A clock that shows times measured before.

    pytest-benchmark times one contender after the other, which favors some on a machine whose speed drifts. The
    contenders are timed in turn instead, and pytest-benchmark reads this clock at the start and at the end of a round.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: Iterator[float] = iter(())

    def load(self, seconds: tuple[float, ...]) -> None:
        self.steps = (step for s in seconds for step in (0.0, s))

    def read(self) -> float:
        self.now += next(self.steps)
        return self.now


CLOCK = Replay()
CASES = [
    (op, mode, channels, side)
    for op in MAKE
    for mode in MODES
    for channels, side in (PICTURES if op == "total_variation" else LAYERS)
]


@pytest.fixture(scope="module")
def measured() -> dict[tuple[object, ...], dict[str, Measured]]:
    """Times measured so far. Contests are not kept: some need a quarter of a gigabyte."""
    return {}


@pytest.mark.benchmark(timer=CLOCK.read)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_op(
    case: tuple[str, str, int, int],
    name: str,
    rounds: int,
    measured: dict[tuple[object, ...], dict[str, Measured]],
    refused: list[dict[str, object]],
    benchmark: BenchmarkFixture,
) -> None:
    op, mode, channels, side = case
    if case not in measured:
        measured[case] = measure(MAKE[op](mode, channels, side), rounds)
    outcome = measured[case][name]
    facts = {"op": op, "mode": mode, "channels": channels, "side": side, "contender": name, "error": outcome.error}
    if outcome.refused is not None:
        refused.append(facts | {"refused": outcome.refused})
        assert name != "fastnst", outcome.refused
        pytest.skip(f"no time for {name}: {outcome.refused}")
    benchmark.group = f"{op} {mode} ({channels}, {side}^2)"
    benchmark.extra_info.update(facts)
    CLOCK.load(outcome.seconds)
    benchmark.pedantic(lambda: None, rounds=len(outcome.seconds))
