"""The fits behind the planner, and the table of a comparison of revisions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.e2e import against, plan_fit
from fastnst.config.settings import Settings


def row(side: int, case: dict[str, object], model: dict[str, float]) -> plan_fit.Row:
    """A run that takes exactly the memory that ``model`` predicts."""
    settings = Settings.from_preset(**case, crop=side, scales=1)
    blank = plan_fit.Row(settings, side, 0, [])
    return plan_fit.Row(settings, side, plan_fit.terms(blank).bytes(model), [])


def test_the_fit_recovers_constants_and_adds_the_margin() -> None:
    model = {"loading": 0.0, "base": 3e8, "direct": 4e7, "maps": 1.1, "images": 0.9}
    rows = [row(side, case, model) for side in (512, 768) for case in plan_fit.CASES]
    found = plan_fit.fit_memory(rows)
    assert found == pytest.approx({name: model[name] * plan_fit.MARGIN for name in found}, rel=1e-3)
    assert set(found) == {"base", "direct", "maps", "images"}


def test_no_fitted_run_is_above_its_prediction() -> None:
    model = {"loading": 0.0, "base": 3e8, "direct": 4e7, "maps": 1.1, "images": 0.9}
    rows = [row(side, case, model) for side in (512, 768) for case in plan_fit.CASES]
    rows[3] = plan_fit.Row(rows[3].settings, rows[3].side, int(rows[3].peak * 1.05), [])
    found = {"loading": 0.0, **plan_fit.fit_memory(rows)}
    assert all(plan_fit.terms(one).bytes(found) >= one.peak for one in rows)
    assert "| 768 (held out) | winograd, float32, adam |" in str(plan_fit.memory_table(rows, found, [768]))


@pytest.mark.parametrize("p", [0.0, 12000.0])
def test_the_fit_recovers_the_growth_of_a_step(p: float) -> None:
    assert plan_fit.fit_seconds({side: 3e-6 * (side**2 + p) for side in (192, 320, 576)}) == pytest.approx(p, abs=1e-3)


def test_growth_faster_than_pixels_gives_zero() -> None:
    assert plan_fit.fit_seconds({100: 1.0, 200: 5.0}) == 0


def test_a_comparison_has_the_median_ratio_and_says_whether_the_pictures_agree() -> None:
    here = [against.Outcome(seconds, "a") for seconds in (1.0, 1.1, 1.2)]
    there = [against.Outcome(1.0, "a")] * 3
    assert against.row("adam", here, there) == ("adam", "1.1000 (1.0000-1.2000)", "1.1", "1", "same bits")
    assert against.row("adam", here, [*there[:2], against.Outcome(1.0, "b")])[-1] == "differs"


def test_parts_of_two_machines_are_not_combined(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert plan_fit.kept_part(path, "memory") == {}
    path.write_text(json.dumps({"on": "another processor, 2 threads of 2 cores, avx2 kernels", "memory": {}}))
    assert plan_fit.kept_part(path, "both") == {}
    with pytest.raises(SystemExit, match=r"is of another processor.*: run --part both"):
        plan_fit.kept_part(path, "seconds")
    kept = {"on": plan_fit.headline(plan_fit.machine()), "memory": {"base": 1}}
    path.write_text(json.dumps(kept))
    assert plan_fit.kept_part(path, "seconds") == kept
