"""Loss weights: a common factor does not matter, the scale of the network's features does."""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import Any

import pytest
import torch
from support.pictures import samples, tiny

from fastnst import weights
from fastnst.config.parsing import parse_layers
from fastnst.config.settings import Settings
from fastnst.run import stylizer
from fastnst.run.result import Result
from fastnst.run.stylizer import Stylizer
from fastnst.weights import Weights

SIZED = ("content_weight", "style_weight", "tv_weight")


@pytest.mark.usefixtures("weights_read_once")
@pytest.mark.parametrize("tv_weight", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("factor", [2.0**-70, 2.0**20, 2.0**60, 2.0**76])
def test_scaling_all_weights_by_a_power_of_two_changes_no_bit(factor: float, optimizer: str, tv_weight: float) -> None:
    """2^76 is 8e22. Adam's epsilon is an absolute number: it is scaled as well."""
    plain = tiny(optimizer=optimizer, steps=12, tv_weight=tv_weight, epsilon=1e-30)
    changes = {name: getattr(plain, name) * factor for name in SIZED}
    scaled = plain.replace(**changes, epsilon=plain.epsilon * factor)
    first, second = (stylizer.stylize(samples(), samples(seed=2), settings=one) for one in (plain, scaled))
    assert torch.equal(first.image, second.image)
    assert [losses.total * factor for losses in first.trace[0]] == [losses.total for losses in second.trace[0]]


@pytest.mark.usefixtures("weights_read_once")
@pytest.mark.parametrize("factor", [1e-24, 1e7, 1e22])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_scaling_all_weights_by_any_factor_changes_only_rounding(
    factor: float, optimizer: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = tiny(optimizer=optimizer, steps=12, epsilon=1e-30)
    changes = {name: getattr(plain, name) * factor for name in SIZED}
    scaled = plain.replace(**changes, epsilon=plain.epsilon * factor)
    first, second = (stylizer.stylize(samples(), samples(seed=2), settings=one) for one in (plain, scaled))
    assert second.trace[0][-1].total == pytest.approx(first.trace[0][-1].total * factor, rel=1e-2)
    assert not caplog.messages


def rescaled(given: Weights, factors: dict[int, float]) -> Weights:
    """The same network with the features of block b multiplied by ``factors[b]``, as a ReLU network allows."""
    convs, before = {}, 1.0
    for name in sorted(given.convs):
        weight, bias = given.convs[name]
        factor = factors[int(name[4])]
        convs[name] = (weight * (factor / before), bias * factor)
        before = factor
    return dataclasses.replace(given, convs=convs)


NORMALIZED = {1: 1 / 50, 2: 1 / 250, 3: 1 / 400, 4: 1 / 1100, 5: 1 / 130}


@pytest.fixture
def own(bundled: Weights, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make ``mine.pth`` load a network with rescaled features."""

    def use(factors: dict[int, float]) -> None:
        made = rescaled(bundled, factors)
        monkeypatch.setattr(weights, "load", lambda spec=None, **_: bundled if spec is None else made)

    return use


@pytest.mark.parametrize("preset", ["default", "gatys", "johnson"])
def test_a_network_of_another_scale_gets_a_warning_with_suitable_weights(
    preset: str, own: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own(NORMALIZED)
    settings = Settings.from_preset(
        preset, size=64, scales=1, steps=1, init="content", device="cpu", precision="float32"
    )

    def losses(settings: Settings) -> Any:
        result: Result = stylizer.stylize(
            samples(), samples(seed=2), settings=settings.replace(init="noise", noise=30.0)
        )
        return result.trace[0][0]

    usual = losses(settings)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fastnst"):
        off = losses(settings.replace(weights="mine.pth"))
    (message,) = caplog.messages
    assert re.match(r"mine\.pth: its features at relu4_2 are 0\.000\d+ times those", message), message
    found = re.search(r"--content-layers (\S+) --style-layers (\S+)$", message)
    assert found is not None
    content, style = (parse_layers(text) for text in found.groups())
    caplog.clear()
    right = losses(settings.replace(weights="mine.pth", content_layers=content, style_layers=style))
    assert not caplog.messages
    for part in ("content", "style"):
        for name, value in getattr(usual, part).items():
            assert getattr(right, part)[name] == pytest.approx(value, rel=0.05)
            assert getattr(off, part)[name] < 1e-3 * value


@pytest.mark.parametrize(
    ("factors", "settings"),
    [
        (dict.fromkeys(range(1, 6), 1.5), {"weights": "mine.pth"}),
        (NORMALIZED, {}),
        (NORMALIZED, {"preset": "crowson"}),
    ],
    ids=["scale is near", "bundled network", "preset with its own network"],
)
def test_other_networks_get_no_warning(
    factors: dict[int, float], settings: dict[str, Any], own: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own(factors)
    Stylizer(Settings.from_preset(**{"device": "cpu", **settings}))
    assert not caplog.messages
