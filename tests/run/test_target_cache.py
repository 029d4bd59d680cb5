"""The cache of style targets between runs: keyed by content, limited in size."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import pytest
import torch
from support.pictures import samples, tiny

from fastnst import images
from fastnst.run import targets
from fastnst.run.stylizer import Stylizer
from fastnst.run.target_cache import TargetCache

pytestmark = pytest.mark.usefixtures("weights_read_once")


def target(values: int) -> dict[str, tuple[torch.Tensor]]:
    return {"relu1_1": (torch.zeros(values),)}


def test_the_most_recently_used_targets_stay_cached() -> None:
    cache = TargetCache(limit=3 * 40)
    for key in "abcabd":  # a and b are used again before d comes
        cache.get(key, lambda: target(10))
    made: list[str] = []
    for key in "dbac":
        cache.get(key, lambda key=key: made.append(key) or target(10))  # type: ignore[misc,func-returns-value]
    assert made == ["c"]


def test_one_set_of_targets_is_cached_regardless_of_size() -> None:
    cache = TargetCache(limit=3)
    large = cache.get("large", lambda: target(10))
    assert cache.get("large", lambda: pytest.fail("recomputed")) is large
    cache.get("other", lambda: target(10))
    assert len(cache) == 1


@pytest.fixture
def computations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per computation of style targets."""
    calls: list[int] = []
    real = targets.style_targets

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr("fastnst.run.targets.style_targets", counted)
    return calls


def test_the_targets_of_a_style_are_computed_once_for_any_type_of_input(computations: list[int], tmp_path: Any) -> None:
    stylizer, style = Stylizer(tiny(steps=1)), samples(seed=2)
    path = images.save(tmp_path / "style.png", images.load(style).pixels)
    for given in (style, style.copy(), images.load(style), path, path):
        stylizer.run(stylizer.load_scene(samples(), given))
    assert len(computations) == 1


@pytest.mark.parametrize("change", ["another style", "a mask"])
def test_another_style_or_mask_is_computed_separately(computations: list[int], change: str) -> None:
    stylizer, style = Stylizer(tiny(steps=1)), samples(seed=2)
    stylizer.run(stylizer.load_scene(samples(), style))
    mask = torch.zeros(72, 96).numpy()
    mask[:30] = 1
    scene = {
        "another style": lambda: stylizer.load_scene(samples(), samples(seed=3)),
        "a mask": lambda: stylizer.load_scene(samples(), style, style_masks=[mask]),
    }[change]()
    stylizer.run(scene)
    assert len(computations) == 2


def test_many_styles_leave_neither_pictures_nor_targets_beyond_the_limit() -> None:
    stylizer = Stylizer(tiny(steps=1, style_layers=(("relu3_1", 1.0),)))
    pictures = []
    for seed in range(12):
        scene = stylizer.load_scene(samples(), samples(seed=seed))
        pictures += [weakref.ref(style.picture.pixels) for style in scene.styles]
        stylizer.run(scene)
        del scene
    gc.collect()
    assert not any(picture() is not None for picture in pictures)
    one = 256 * 256 * 4
    small = TargetCache(limit=4 * one)
    stylizer.setup = dataclasses.replace(stylizer.setup, targets=small)
    for seed in range(12):
        stylizer.run(stylizer.load_scene(samples(), samples(seed=seed)))
    assert small.bytes == 4 * one
