"""The fits behind the planner, and the table of a comparison of revisions."""

from __future__ import annotations

import against
import plan_fit
import pytest

from fastnst.settings import Settings


def row(side: int, case: dict[str, object], model: dict[str, float]) -> plan_fit.Row:
    """A run that takes what ``model`` says, to the byte."""
    settings = Settings.of(**case, crop=side, scales=1)
    blank = plan_fit.Row(settings, side, 0, [])
    return plan_fit.Row(settings, side, plan_fit.terms(blank).bytes(model), [])


def test_planted_numbers_are_found_and_raised_by_the_margin() -> None:
    model = {"loading": 0.0, "base": 3e8, "direct": 4e7, "maps": 1.1, "images": 0.9}
    rows = [row(side, case, model) for side in (512, 768) for case in plan_fit.CASES]
    found = plan_fit.fit_memory(rows)
    assert found == pytest.approx({name: model[name] * plan_fit.MARGIN for name in found}, rel=1e-3)
    assert set(found) == {"base", "direct", "maps", "images"}


def test_no_run_of_the_fit_is_above_its_prediction() -> None:
    model = {"loading": 0.0, "base": 3e8, "direct": 4e7, "maps": 1.1, "images": 0.9}
    rows = [row(side, case, model) for side in (512, 768) for case in plan_fit.CASES]
    rows[3] = plan_fit.Row(rows[3].settings, rows[3].side, int(rows[3].peak * 1.05), [])
    found = {"loading": 0.0, **plan_fit.fit_memory(rows)}
    assert all(plan_fit.terms(one).bytes(found) >= one.peak for one in rows)
    assert "| 768 (held out) | winograd, float32, adam |" in plan_fit.memory_table(rows, found, [768])


@pytest.mark.parametrize("p", [0.0, 12000.0])
def test_the_growth_of_a_step_is_found_again(p: float) -> None:
    assert plan_fit.fit_seconds({side: 3e-6 * (side**2 + p) for side in (192, 320, 576)}) == pytest.approx(p, abs=1e-3)


def test_growth_faster_than_pixels_is_no_negative_number() -> None:
    assert plan_fit.fit_seconds({100: 1.0, 200: 5.0}) == 0


def test_a_comparison_is_told_by_its_median_and_whether_the_pictures_agree() -> None:
    here = [against.Outcome(seconds, "a") for seconds in (1.0, 1.1, 1.2)]
    there = [against.Outcome(1.0, "a")] * 3
    assert against.line("adam", here, there) == "| adam | 1.1000 (1.0000-1.2000) | 1.1 | 1 | same bits |"
    assert against.line("adam", here, [*there[:2], against.Outcome(1.0, "b")]).endswith("| differs |")
