"""Plans: the sizes, memory and time of a run, estimated beforehand."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
import torch
from support.pictures import samples, tiny

import fastnst
from fastnst.config.settings import Settings
from fastnst.errors import ImageError, UsageError
from fastnst.optim import progress
from fastnst.run import memory_limits, planning
from fastnst.run.memory_model import Workload
from fastnst.run.scene import SceneLoader
from fastnst.run.stylizer import Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once", "small_probe")


@pytest.fixture
def small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBE_SIDE", 64)
    monkeypatch.setattr(planning, "PROBE_STEPS", 4)


@pytest.fixture
def a_second_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which each step takes a second."""
    seconds = count(1)
    monkeypatch.setattr(progress.Clock, "seconds", property(lambda clock: float(next(seconds))))


def planned(height: int = 72, width: int = 96, **changes: Any) -> fastnst.Plan:
    return fastnst.plan(samples(height, width), samples(seed=1), settings=tiny(**changes))


def test_sizes_and_steps_equal_those_of_the_run() -> None:
    changes: dict[str, Any] = {"size": 176, "scales": 2, "steps": (2, 1)}
    found = planned(**changes)
    result = stylize(samples(), samples(seed=1), settings=tiny(**changes))
    assert [scale.steps for scale in found.scales] == [len(scale) for scale in result.trace]
    assert [(scale.height, scale.width) for scale in found.scales] == [(66, 88), (132, 176)]
    assert result.image.shape[2:] == (132, 176)


@pytest.mark.parametrize(
    ("settings", "size"),
    [(tiny(), (48, 64)), (tiny(crop=50), (50, 50)), (tiny().replace(size=None), (72, 96))],
)
def test_the_last_scale_is_the_size_of_the_result(settings: Settings, size: tuple[int, int]) -> None:
    last = fastnst.plan(samples(), samples(seed=1), settings=settings).scales[-1]
    assert (last.height, last.width) == size


def test_memory_is_the_figure_that_the_run_checks() -> None:
    found = planned(size=2000, average=0.5)
    stylizer = Stylizer(tiny(size=2000, average=0.5))
    assert found.bytes == Workload(stylizer.network.chain, 1500, 2000, torch.float32, stylizer.setup.chosen).bytes()
    assert found.fits
    assert found.remedies == ()


@pytest.mark.usefixtures("a_second_a_step")
def test_a_plan_of_a_run_that_does_not_fit_names_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    have = planned(size=1000).bytes
    monkeypatch.setattr(memory_limits, "available", lambda device: have)
    found = planned(size=1300, tiles="off")
    assert not found.fits
    assert found.remedies[0] == "--tiles on"
    size = int(found.remedies[1].removeprefix("--size "))
    assert 960 <= size <= 1000
    assert planned(size=size, tiles="off").fits
    assert f"does not fit; --tiles on or --size {size}" in str(found)
    by_strips = planned(size=1300)
    assert by_strips.fits
    rows = by_strips.scales[-1].rows
    assert rows is not None
    assert f"strips of {rows} columns" in str(by_strips)
    assert by_strips.bytes <= have < found.bytes
    assert by_strips.scales[-1].seconds_per_step > found.scales[-1].seconds_per_step


def test_a_run_fits_where_free_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "available", lambda device: None)
    found = planned()
    assert found.fits
    assert "free memory unknown" in str(found)


@pytest.mark.usefixtures("a_second_a_step")
def test_time_is_extrapolated_from_the_probe_by_the_fitted_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe has 64 x 64 pixels and takes a second a step."""
    monkeypatch.setattr(planning, "PIXELS", {"direct float32": 1000.0})
    found = planned(100, 100, size=128, scales=2, steps=(10, 4), convolution="direct")
    coarse, fine = (scale.seconds_per_step for scale in found.scales)
    assert coarse == pytest.approx(1.0)
    assert fine == pytest.approx((128**2 + 1000) / (64**2 + 1000))
    least, expected, most = found.seconds
    assert expected == pytest.approx((10 + planning.MEASURING) * coarse + (4 + planning.MEASURING) * fine)
    assert least == pytest.approx((1 - planning.MARGIN) * expected)
    assert most == pytest.approx((1 + planning.MARGIN) * expected)


def test_the_probe_has_the_proportions_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    run = Stylizer.run

    def watched(self: Any, scene: Any, **given: Any) -> Any:
        shapes.append(tuple(scene.content.pixels.shape[2:]))
        return run(self, scene, **given)

    monkeypatch.setattr(Stylizer, "run", watched)
    planned(50, 200, size=4000)
    assert shapes == [(32, 128)]


def test_masks_and_several_styles_are_part_of_the_probe() -> None:
    with pytest.raises(UsageError, match="1 mask for 2 styles"):
        fastnst.plan(samples(), [samples(), samples()], masks=[samples()], settings=tiny())
    mask = samples() * 0 + 255
    assert fastnst.plan(samples(), [samples(), samples()], masks=[mask, mask], settings=tiny()).fits


def test_a_plan_converts_to_json() -> None:
    facts = json.loads(json.dumps(planned().to_dict()))
    assert facts["scales"][0]["width"] == 64
    assert facts["fits"] is True
    assert (facts["device"], facts["precision"]) == ("cpu", "float32")
    assert len(facts["seconds"]) == 3


def test_keyword_arguments_change_settings() -> None:
    found = fastnst.plan(samples(), samples(), settings=tiny(), steps=9)
    assert found.scales[0].steps == 9
    with pytest.raises(UsageError, match="unknown preset"):
        fastnst.plan(samples(), samples(), preset="nosuch")


def test_invalid_input_is_an_error_as_in_a_run() -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        fastnst.plan("nowhere.png", samples(), settings=tiny())
    deep = Settings.from_preset(size=64, scales=1, steps=1)
    with pytest.raises(UsageError, match="too small for layer relu5_1"):
        fastnst.plan(samples(8, 200), samples(), settings=deep)


def test_a_probe_that_ends_early_gives_a_time(a_second_a_step: None) -> None:
    """A picture in its own style is at its minimum: no second step reduces the loss."""
    found = fastnst.plan(samples(), samples(), settings=tiny(optimizer="lbfgs"))
    assert found.seconds[1] > 0


def test_the_style_of_a_probe_is_no_larger_than_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = SceneLoader.style

    def watched(self: Any, source: Any, content: Any) -> Any:
        style = real(self, source, content)
        seen.append(tuple(style.pixels.shape[-2:]))
        return style

    monkeypatch.setattr(SceneLoader, "style", watched)
    planning.plan(samples(), samples(seed=2), settings=tiny(style_scale=100.0))
    assert seen == [(48, 64)]
