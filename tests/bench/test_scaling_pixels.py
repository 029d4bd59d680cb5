"""The power with which time grows with pixels."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.e2e.scaling_pixels import Fit, fit, plot, steps_at, table


@pytest.mark.parametrize("power", [0.9, 1.0, 1.2])
def test_the_fit_recovers_a_power_law(power: float) -> None:
    found = fit({side: 3e-6 * (side**2) ** power for side in (256, 512, 1024, 2048)})
    assert found.power == pytest.approx(power, abs=1e-9)
    assert found.factor == pytest.approx(3e-6, rel=1e-6)
    assert found.worst == pytest.approx(0, abs=1e-9)


def test_the_largest_distance_from_the_line_is_reported() -> None:
    assert fit({256: 1.0, 512: 4.4, 1024: 16.0}).worst == pytest.approx(1.1 ** (2 / 3) - 1)


def test_one_size_has_no_power() -> None:
    with pytest.raises(ValueError, match="two sizes or more, got 1"):
        fit({512: 1.0})


def test_large_pictures_take_fewer_steps_and_each_at_least_two_that_count() -> None:
    assert [steps_at(side) for side in (256, 512, 1024, 2048)] == [15, 15, 7, 5]


def test_the_table_says_which_power_is_above_the_aim(tmp_path: Path) -> None:
    medians = {
        "fastnst float32": {256: [0.5, 0.7, 0.6], 512: [2.4, 2.4, 2.4]},
        "fastnst auto": {256: [1.0], 512: [5.0]},
    }
    fits = {"fastnst float32": Fit(1e-6, 1.01, 0.02), "fastnst auto": Fit(1e-6, 1.16, 0.0)}
    lines = str(table(medians, fits)).splitlines()
    assert lines[2] == "| fastnst float32 | 1.010 | 0.6 (0.5-0.7) | 2.4 (2.4-2.4) | 2 % |"
    assert lines[3].startswith("| fastnst auto | 1.160 (above 1.05) |")
    pytest.importorskip("matplotlib")
    plot(tmp_path / "scaling.png", medians, fits)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
