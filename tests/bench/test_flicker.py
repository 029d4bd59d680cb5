"""Films with known motion, and the table of their flicker."""

from __future__ import annotations

import pytest
import torch

from bench.film import flicker
from bench.film.films import FILMS
from fastnst.film import warping_error


@pytest.mark.parametrize("name", FILMS)
def test_the_motion_of_a_film_is_the_one_that_is_told(name: str) -> None:
    """The frame before, moved by the true flow, is the frame: but for the noise of "grain", and interpolation."""
    film = FILMS[name](4, 60, 80)
    assert [tuple(frame.shape) for frame in film.frames] == [(1, 3, 60, 80)] * 4
    assert len(film.flows) == len(film.weights) == 3
    error = warping_error(film.frames, film.flows, film.weights)
    unmoved = warping_error(film.frames, [torch.zeros_like(flow) for flow in film.flows], film.weights)
    assert error <= 6e-4
    assert name in ("static", "grain") or error < unmoved / 3


def test_the_table_has_ratios_and_the_cost_of_a_frame() -> None:
    facts = {"input": 1e-4, "apart": 2e-2, "together": 1e-3, "still": [9.0, 10.0, 8.0], "next": [3.0, 2.0]}
    still = {"frames": 100, "mean": 0.1, "largest": 2.0, "rms": 0.25}
    table, line = flicker.tables({"films": {"pan": facts}, "still": still})
    (row,) = table.rows  # type: ignore[union-attr]
    assert row == ("pan", "1.00e-04", "2.00e-02", "1.00e-03", "20.0", "0.28 (0.25-0.30)")
    assert "After 100 frames" in str(line)
    assert "+0.100 levels on average, 0.250 rms, 2 at most" in str(line)
