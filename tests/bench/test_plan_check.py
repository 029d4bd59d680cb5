"""Plans beside whole runs: what counts as held."""

from __future__ import annotations

import plan_check
import pytest


@pytest.mark.parametrize(("seconds", "held"), [(7.9, False), (8.0, True), (12.0, True), (12.1, False)])
def test_time_is_held_within_the_interval(seconds: float, held: bool) -> None:
    assert plan_check.Row("a run", (8.0, 10.0, 12.0), seconds, 100, 100).in_time == held


@pytest.mark.parametrize(("peak", "held"), [(101, False), (100, True), (90, True), (80, False)])
def test_memory_is_held_where_it_was_enough_and_not_far_too_much(peak: int, held: bool) -> None:
    assert plan_check.Row("a run", (8.0, 10.0, 12.0), 10.0, 100, peak).in_memory == held


def test_the_table_says_how_far_off_a_plan_was() -> None:
    row = plan_check.Row("a run", (8.0, 10.0, 12.0), 12.5, 110_000_000, 100_000_000)
    assert plan_check.table([row]).splitlines()[2] == (
        "| a run | 10.0 (8.0-12.0) | 12.5 | -20% | no | 110 | 100 | +10% | yes |"
    )
