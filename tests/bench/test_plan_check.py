"""Plans beside whole runs: when a plan is right."""

from __future__ import annotations

import pytest

from bench.e2e import plan_check


@pytest.mark.parametrize(("seconds", "within"), [(7.9, False), (8.0, True), (12.0, True), (12.1, False)])
def test_a_time_within_the_interval_is_right(seconds: float, within: bool) -> None:
    assert plan_check.Row("a run", (8.0, 10.0, 12.0), seconds, 100, 100).in_time == within


@pytest.mark.parametrize(("peak", "within"), [(101, False), (100, True), (90, True), (80, False)])
def test_memory_is_right_if_it_is_sufficient_and_not_far_above_the_peak(peak: int, within: bool) -> None:
    assert plan_check.Row("a run", (8.0, 10.0, 12.0), 10.0, 100, peak).in_memory == within


def test_the_table_has_the_errors_of_a_plan() -> None:
    row = plan_check.Row("a run", (8.0, 10.0, 12.0), 12.5, 110_000_000, 100_000_000)
    assert row.cells() == ("a run", "10.0 (8.0-12.0)", "12.5", "-20%", "no", "110", "100", "+10%", "yes")
