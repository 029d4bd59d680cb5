"""The benchmark of a training step: its contenders agree with float64, and what it prints."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

from bench.common import worker
from bench.common.exact import error
from bench.common.results import Report
from bench.ops import training_step
from bench.ops.training_step import BOUNDS, Problem, names, rows, step, tables

CPU = torch.device("cpu")
OPTIONS = {"side": 16, "batch": 2, "rounds": 2, "precision": "float32", "device": "cpu"}


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(worker, "run_module", lambda module, given, threads: 2.0**20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_contender_has_the_loss_and_gradient_of_float64(dtype: torch.dtype) -> None:
    problem = Problem(32, 2, dtype, CPU)
    exact = step(Problem(32, 2, torch.float64, CPU).loss("eager"), problem.image.double())
    for name in names(CPU, dtype):
        for got, wanted in zip(step(problem.loss(name), problem.image), exact, strict=True):
            assert error(got, wanted) <= BOUNDS[dtype], name


def test_a_wrong_contender_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_step.ops, "pool", lambda x: 1.01 * F.max_pool2d(x, 2))
    found = {row.name: row for row in rows(16, OPTIONS)}
    assert found["eager"].refused is None
    assert len(found["eager"].seconds) == 2
    for name in ("fastnst", "fastnst winograd"):
        assert "error" in (found[name].refused or "")
        assert found[name].seconds == ()


def test_the_table_has_times_ratios_and_memory() -> None:
    found = rows(16, OPTIONS)
    report: Report = {"options": OPTIONS, "rows": [asdict(row) for row in found]}
    lines = str(tables(report)[1]).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == list(training_step.NAMES)
    assert all(line.endswith(" | 1 |") for line in lines[2:])
    assert " | 1.00 (1.00-1.00) | " in lines[2]


def test_memory_is_that_of_a_step() -> None:
    found = training_step.peak({**OPTIONS, "side": 64, "name": "fastnst"})
    assert found > 2 * 64 * 64**2 * 4  # the features of relu1_1 alone
