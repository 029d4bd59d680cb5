"""The benchmark of the ops: contests are right, wrong results get no time, contenders alternate, tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.common.contest import Measured
from bench.common.machine import ROOT
from bench.ops import contests, ops_report
from bench.ops.contests import measure
from bench.ops.test_ops import Replay


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)


@pytest.mark.parametrize("mode", contests.MODES)
@pytest.mark.parametrize("op", contests.MAKE)
@pytest.mark.sweep(5)
def test_every_contender_agrees_with_float64(op: str, mode: str) -> None:
    found = measure(contests.MAKE[op](mode, 3 if op == "total_variation" else 16, 12), rounds=2)
    assert set(found) == set(contests.NAMES)
    for name, outcome in found.items():
        assert outcome.refused is None, name
        assert len(outcome.seconds) == 2


def test_backward_adds_to_the_gradient_of_the_layers_above() -> None:
    contest = contests.content_loss("backward", 8, 6)
    for run in contest.run.values():
        above = torch.full_like(contest.above, 3)
        run(above)
        torch.testing.assert_close(above.double(), 3 + contest.exact[1], rtol=1e-5, atol=1e-5)


def spoilt(contest: contests.Contest, spoil: Callable[[torch.Tensor], torch.Tensor]) -> contests.Contest:
    run = contest.run["eager"]
    return replace(contest, run=contest.run | {"eager": lambda above: tuple(spoil(y) for y in run(above))})


@pytest.mark.parametrize(
    "spoil",
    [lambda y: 1.001 * y, lambda y: y[None], lambda y: y * float("nan")],
    ids=["factor", "shape", "nan"],
)
def test_a_wrong_result_has_no_time_and_says_why(spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    found = measure(spoilt(contests.gram("backward", 8, 6), spoil), rounds=1)
    assert found["eager"].seconds == ()
    assert "error" in (found["eager"].refused or "")
    assert found["fastnst"].refused is None


def test_a_contender_that_fails_is_refused_with_its_reason() -> None:
    def fail(above: torch.Tensor) -> contests.Results:
        raise RuntimeError("no compiler\nand more lines")

    contest = contests.pool("forward", 8, 6)
    found = measure(replace(contest, run=contest.run | {"compile": fail}), rounds=1)
    assert found["compile"] == Measured((), None, "RuntimeError: no compiler")


def test_contenders_take_turns_and_warming_up_does_not_count() -> None:
    order: list[str] = []
    contest = contests.content_loss("forward", 4, 4)

    def recording(name: str) -> contests.Pass:
        run = contest.run[name]

        def recorded(above: torch.Tensor) -> contests.Results:
            order.append(name)
            return run(above)

        return recorded

    found = measure(replace(contest, run={name: recording(name) for name in contest.run}), rounds=2, warm_up=1)
    once = list(contests.NAMES)
    assert order == once + once + once[::-1] + once  # the first three are the check
    assert all(len(outcome.seconds) == 2 for outcome in found.values())


def test_the_clock_shows_the_times_it_was_given() -> None:
    clock = Replay()
    for seconds in ((0.5, 2.0), (1.0,)):
        clock.load(seconds)
        assert [-clock.read() + clock.read() for _ in seconds] == list(seconds)


def report() -> dict[str, object]:
    facts = {"op": "gram", "mode": "forward", "channels": 64, "side": 512, "error": 1e-7}
    timed = {"eager": [2.0, 6.0, 3.0], "fastnst": [1.0, 2.0, 1.0]}
    return {
        "benchmarks": [
            {"extra_info": facts | {"contender": name}, "stats": {"data": data}} for name, data in timed.items()
        ],
        "refused": [facts | {"contender": "compile", "refused": "RuntimeError: no compiler"}],
    }


def test_the_table_has_ratios_times_and_reasons(tmp_path: Path) -> None:
    rows = ops_report.rows(report())
    assert ops_report.ratio(rows[0], "eager") == 3
    assert ops_report.ratio(rows[0], "compile") is None
    cells = [cell.strip() for cell in str(ops_report.table(rows)).splitlines()[-1].strip("|").split("|")]
    assert cells[:5] == ["gram", "forward", "64, 512", "3.00", ""]
    assert cells[5:] == [
        "3000.00 (2000.00-6000.00)",
        "refused: RuntimeError: no compiler",
        "1000.00 (1000.00-2000.00)",
    ]
    pytest.importorskip("matplotlib")
    ops_report.plot(tmp_path / "ops.png", rows)
    assert (tmp_path / "ops.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_pytest_benchmark_reports_the_times_measured_in_turn(tmp_path: Path) -> None:
    target = tmp_path / "ops.json"
    options = ["--benchmark-json", str(target), "--rounds", "2", "--threads", "1", "-k", "content_loss-forward-512-32"]
    command = [sys.executable, "-m", "pytest", "bench/ops", "-q", *options]
    # pytest-benchmark measures nothing in a worker of xdist, which this process may be, but the child is not.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["TORCHDYNAMO_DISABLE"] = "1"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(target.read_text())
    assert set(found["machine"]) >= {"cpu", "threads", "torch", "commit"}
    assert found["refused"] == []
    assert {b["extra_info"]["contender"] for b in found["benchmarks"]} == set(contests.NAMES)
    (row,) = ops_report.rows(found)
    assert all(len(row["seconds"][name]) == 2 for name in contests.NAMES)
