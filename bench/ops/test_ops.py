"""pytest-benchmark for the ops: eager PyTorch, torch.compile and fastnst, checked in float64 and then timed in turn.

    python -m pytest bench/ops --benchmark-json bench/results/ops.json [--rounds 15] [-k style_loss]

One contest at a time: the first of its contenders to be asked for lets all of them take turns, and each then hands its
times to pytest-benchmark (see turns.Replay). bench/ops/ops_report.py makes the tables and the plot.
"""

from __future__ import annotations

import pytest
from contests import LAYERS, MAKE, MODES, NAMES, PICTURES
from pytest_benchmark.fixture import BenchmarkFixture
from turns import Measured, Replay, measure

CLOCK = Replay()
CASES = [
    (op, mode, channels, side)
    for op in MAKE
    for mode in MODES
    for channels, side in (PICTURES if op == "total_variation" else LAYERS)
]


@pytest.fixture(scope="module")
def measured() -> dict[tuple[object, ...], dict[str, Measured]]:
    """Contests measured so far; contests are not kept, since some hold a quarter of a gigabyte."""
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
