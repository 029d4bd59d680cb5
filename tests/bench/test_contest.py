"""Contests: order of contenders, checks before times, ratios."""

from __future__ import annotations

import time

import pytest
import torch

from bench.common import contest
from bench.common.contest import Clock, Contender, Spread, in_turn, ratios, rounds_within


def test_every_second_round_is_reversed() -> None:
    order: list[str] = []
    found = in_turn({name: lambda name=name: order.append(name) or len(order) for name in "abc"}, 3)
    assert order == list("abc" + "cba" + "abc")
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_a_title_reports_progress(capsys: pytest.CaptureFixture[str]) -> None:
    in_turn({"a": lambda: 0, "b": lambda: 0}, 2, "512^2 adam")
    assert capsys.readouterr().err.splitlines() == [
        f"  512^2 adam round {number}: {name}" for number, name in ((1, "a"), (1, "b"), (2, "b"), (2, "a"))
    ]


def test_the_clock_does_not_count_preparation() -> None:
    contender = Contender("slow to prepare", lambda: None, lambda: time.sleep(0.02))
    (seconds,) = Clock().seconds([contender], 3)
    assert len(seconds) == 3
    assert max(seconds) < 0.02


def test_rounds_are_limited_by_time_and_number() -> None:
    assert list(rounds_within(0, 3, 9)) == [0, 1, 2]
    assert list(rounds_within(60, 1, 4)) == [0, 1, 2, 3]


def test_a_wrong_contender_is_never_run_again_and_has_no_time() -> None:
    runs: list[str] = []

    def value(name: str, x: float) -> tuple[torch.Tensor]:
        runs.append(name)
        return (torch.tensor([x]),)

    contenders = [
        Contender(name, lambda name=name, x=x: value(name, x)) for name, x in (("right", 1.0), ("wrong", 2.0))
    ]
    found = contest.measure(contenders, lambda: (torch.ones(1).double(),), 1e-3, rounds=2, warm_up=1)
    assert runs == ["right", "wrong", "right", "right", "right"]
    assert len(found["right"].seconds) == 2
    assert found["wrong"] == contest.Measured((), 1.0, "error 1.0e+00 above 1e-03")


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread(0.002, 0.001, 0.0035).text(".1f", 1e3) == "2.0 (1.0-3.5)"
