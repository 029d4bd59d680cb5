"""A run that chose strips to fit in memory repeats with the same strips, since other rows round differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.pictures import samples, tiny

from fastnst.config import load_settings, save_settings
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.run import memory_limits, scene_run
from fastnst.run.memory_model import Workload
from fastnst.run.stylizer import Result, Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")

SIZE = {"size": 192, "steps": 4, "scales": 2}


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make memory allow whole pictures, or strips of ``rows`` rows for pictures above a height."""

    def allow(rows: int | None, above: int = 100) -> None:
        def choose(work: Workload, device: Any) -> int | None:
            tiles = work.settings.tiles
            if isinstance(tiles, int):
                return tiles if tiles < work.height else None
            return rows if rows is not None and work.height > above else None

        monkeypatch.setattr(memory_limits, "choose_rows", choose)

    return allow


def run(settings: Settings | None = None, **rest: Any) -> Result:
    return stylize(samples(), samples(seed=2), settings=settings or tiny(**SIZE), **rest)


def test_a_picture_records_its_strips_and_repeats_with_them(free: Any, tmp_path: Path) -> None:
    free(32)
    first = run()
    assert dict(first.settings.tiles) == {"192x144": 32}  # type: ignore[arg-type]
    free(None)
    assert not torch.equal(run().image, first.image)  # otherwise there is nothing to record
    path = first.save(tmp_path / "out.png")
    recorded = load_settings(path)
    assert torch.equal(run(recorded).image, first.image)
    path = save_settings(tmp_path / "run.toml", recorded)
    assert torch.equal(run(load_settings(path)).image, first.image)


def test_a_picture_made_without_strips_records_none(free: Any) -> None:
    free(None)
    assert run().settings == tiny(**SIZE)


@pytest.mark.parametrize(("tiles", "after"), [("auto", None), ("auto", 48), ("on", 48)])
@pytest.mark.sweep(3)
def test_a_resumed_run_uses_the_strips_it_started_with(
    tiles: str, after: int | None, free: Any, tmp_path: Path
) -> None:
    settings = tiny(**SIZE, tiles=tiles)
    free(32)
    whole = run(settings)
    file = tmp_path / "run.ckpt"
    stopped = run(settings, checkpoint=file, callback=lambda step: step.count == 6)
    assert stopped.stopped == "callback"
    free(after)
    assert torch.equal(run(settings, checkpoint=file, resume=True).image, whole.image)


def test_requested_strips_override_recorded_ones(free: Any, tmp_path: Path) -> None:
    free(32)
    file = tmp_path / "run.ckpt"
    run(checkpoint=file, callback=lambda step: step.count == 6)
    seen: list[int] = []
    real = scene_run.StripObjective

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append(arguments[4])
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_run, "StripObjective", counted)
        run(tiny(**SIZE, tiles=64), checkpoint=file, resume=True)
    assert seen == [64]


def test_strips_that_no_longer_fit_are_replaced_with_a_warning(
    free: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(32)
    monkeypatch.setattr(memory_limits, "fits", lambda *_: False)
    result = run(tiny(**SIZE, tiles=(("192x144", 96),)))
    assert dict(result.settings.tiles) == {"192x144": 32}  # type: ignore[arg-type]
    assert "192x144: strips of 96 rows do not fit any more; using 32 rows" in caplog.text


def test_strips_are_chosen_once_per_run(free: Any) -> None:
    free(32)
    stylizer = Stylizer(tiny(**SIZE))
    assert stylizer.setup.sizing.rows(144, 192, 2) == 32
    free(48)
    assert stylizer.setup.sizing.rows(144, 192, 2) == 32


@pytest.mark.parametrize(
    "tiles", [(("160", 32),), (("192x144", 1),), (("192x144", "32"),), ((32, "192x144"),), ("192x144", 32)]
)
def test_invalid_pairs_are_refused(tiles: Any) -> None:
    with pytest.raises(UsageError, match=r"^tiles: expected"):
        Settings(tiles=tiles)
