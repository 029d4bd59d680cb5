"""A run that memory made by strips is made by the same strips again: other rows would round otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_pictures import samples, tiny

from fastnst import memory, settings_file, transfer
from fastnst.errors import UsageError
from fastnst.settings import Settings
from fastnst.transfer import Result, Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")

SIZE = {"size": 192, "steps": 4, "scales": 2}


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let memory allow pictures whole, or strips of so many rows above a height."""

    def allow(rows: int | None, above: int = 100) -> None:
        def choose(chain: Any, height: int, width: int, dtype: Any, settings: Settings, device: Any) -> int | None:
            if isinstance(settings.tiles, int):
                return settings.tiles if settings.tiles < height else None
            return rows if rows is not None and height > above else None

        monkeypatch.setattr(memory, "choose_rows", choose)

    return allow


def run(settings: Settings | None = None, **rest: Any) -> Result:
    return stylize(samples(), samples(seed=2), settings=settings or tiny(**SIZE), **rest)


def test_a_picture_records_the_strips_it_was_made_by_and_repeats_them(free: Any, tmp_path: Path) -> None:
    free(32)
    first = run()
    assert dict(first.settings.tiles) == {"192x144": 32}  # type: ignore[arg-type]
    free(None)
    assert not torch.equal(run().image, first.image)  # or there is nothing to record
    path = first.save(tmp_path / "out.png")
    again = Settings.from_file(path)
    assert torch.equal(run(again).image, first.image)
    toml = settings_file.write_toml(tmp_path / "run.toml", again)
    assert torch.equal(run(Settings.from_file(toml)).image, first.image)


def test_a_picture_made_whole_records_no_strips(free: Any) -> None:
    free(None)
    assert run().settings == tiny(**SIZE)


@pytest.mark.parametrize(("tiles", "after"), [("auto", None), ("auto", 48), ("on", 48)])
def test_a_resumed_run_takes_the_strips_it_began_with(tiles: str, after: int | None, free: Any, tmp_path: Path) -> None:
    settings = tiny(**SIZE, tiles=tiles)
    free(32)
    whole = run(settings)
    file = tmp_path / "run.ckpt"
    stopped = run(settings, checkpoint=file, callback=lambda step: step.count == 6)
    assert stopped.stopped == "callback"
    free(after)
    assert torch.equal(run(settings, checkpoint=file, resume=True).image, whole.image)


def test_strips_asked_for_go_before_those_recorded(free: Any, tmp_path: Path) -> None:
    free(32)
    file = tmp_path / "run.ckpt"
    run(checkpoint=file, callback=lambda step: step.count == 6)
    seen: list[int] = []
    real = transfer.TiledObjective

    def counted(*arguments: Any) -> Any:
        seen.append(arguments[4])
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "TiledObjective", counted)
        run(tiny(**SIZE, tiles=64), checkpoint=file, resume=True)
    assert seen == [64]


def test_strips_that_do_not_fit_any_more_are_replaced_and_said_so(
    free: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(32)
    monkeypatch.setattr(memory, "fits", lambda *_: False)
    result = run(tiny(**SIZE, tiles=(("192x144", 96),)))
    assert dict(result.settings.tiles) == {"192x144": 32}  # type: ignore[arg-type]
    assert "192x144: strips of 96 rows do not fit any more: now of 32" in caplog.text


def test_a_choice_of_memory_stands_for_the_whole_run(free: Any) -> None:
    free(32)
    stylizer = Stylizer(tiny(**SIZE))
    assert stylizer.rows_of_strip(144, 192, 2) == 32
    free(48)
    assert stylizer.rows_of_strip(144, 192, 2) == 32


@pytest.mark.parametrize(
    "tiles", [(("160", 32),), (("192x144", 1),), (("192x144", "32"),), ((32, "192x144"),), ("192x144", 32)]
)
def test_senseless_pairs_are_refused(tiles: Any) -> None:
    with pytest.raises(UsageError, match=r"^tiles: expected"):
        Settings(tiles=tiles)
