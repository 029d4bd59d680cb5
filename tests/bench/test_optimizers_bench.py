"""The check of bench.e2e.optimizers: its two-loop recursion agrees with the optimizer, and an error is noticed."""

from __future__ import annotations

import pytest
import torch

from bench.e2e import optimizers
from fastnst.optim import lbfgs


def test_the_directions_of_all_contenders_are_right() -> None:
    found = optimizers.contenders(24)
    assert [(one.name, one.history, one.stored) for one in found[:4]] == [
        ("Adam", 0, "float32"),
        ("L-BFGS", 20, "float32"),
        ("L-BFGS", 20, "bfloat16"),
        ("plain L-BFGS", 20, "float32"),
    ]


def test_a_wrong_direction_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    contender = optimizers.Contender("plain L-BFGS", "float32", 20, start)
    monkeypatch.setattr(lbfgs, "LONG", 0.5)  # the benchmark's own copy of the constant stays as it is
    contender.update()
    with pytest.raises(SystemExit, match=r"plain L-BFGS, history 20, float32: the direction is wrong by"):
        contender.check()
