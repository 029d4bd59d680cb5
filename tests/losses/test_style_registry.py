from __future__ import annotations

import importlib.metadata

import pytest
from support.style_cases import NeedsArguments, Plain

from fastnst.errors import UsageError
from fastnst.losses.style import StyleLoss, register, registry, style_loss, style_losses

NAMES = tuple(registry.BUILT_IN)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def test_a_registered_loss_is_found_by_name() -> None:
    given = NeedsArguments(2.0)
    register("plain", Plain)
    register("strong", given)
    assert isinstance(style_loss("plain"), Plain)
    assert style_loss("strong") is given
    assert style_losses()[:12] == ("gram", *NAMES, "plain", "strong")


def offer(monkeypatch: pytest.MonkeyPatch, **values: str) -> list[str]:
    """Entry points of an installed package; the names that are loaded are recorded."""
    offered = [importlib.metadata.EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
    offer_list(monkeypatch, offered)
    loaded: list[str] = []
    real = importlib.metadata.EntryPoint.load

    def load(self: importlib.metadata.EntryPoint) -> object:
        loaded.append(self.name)
        return real(self)

    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", load)
    return loaded


def offer_list(monkeypatch: pytest.MonkeyPatch, offered: list[importlib.metadata.EntryPoint]) -> None:
    found = importlib.metadata.EntryPoints(offered)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **of: found.select(**of))


def test_an_entry_point_is_loaded_only_when_it_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = offer(monkeypatch, brightest="support.style_cases:Brightest", broken="no_such_module:Loss")
    assert style_losses() == ("gram", *NAMES, "brightest", "broken")
    style_loss("sliced")
    assert loaded == []
    assert type(style_loss("brightest")).__name__ == "Brightest"
    assert loaded == ["brightest"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Loss", "entry point no_such_module:Loss does not load: No module named 'no_such_module'"),
        ("support.style_cases:NoSuch", "does not load: .*NoSuch"),
        ("support.style_cases:NeedsArguments", "cannot be made without arguments: .*strength"),
        (
            "support.style_cases:features",
            "is no style loss: expected a class derived from MomentLoss, FeatureLoss or J",
        ),
        ("fastnst.losses.style:MomentLoss", "cannot be made without arguments"),
    ],
)
def test_an_invalid_entry_point_is_one_clear_error(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, mine=value)
    with pytest.raises(UsageError, match=message) as raised:
        style_loss("mine")
    assert str(raised.value).startswith("style loss 'mine': entry point ")


def test_a_name_provided_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    offer_list(monkeypatch, [importlib.metadata.EntryPoint("mine", f"{p}:Loss", registry.GROUP) for p in ("b", "a")])
    with pytest.raises(UsageError, match="style loss 'mine': offered by a:Loss and b:Loss"):
        style_loss("mine")


def test_an_unknown_name_suggests_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, brightest="support.style_cases:Brightest")
    with pytest.raises(UsageError, match=r"unknown style loss 'waserstein', did you mean wasserstein.*brightest"):
        style_loss("waserstein")


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("sliced", Plain, "'sliced' is built in"),
        ("two words", Plain, "'two words': expected a name of letters"),
        ("mine", NeedsArguments, "cannot be made without arguments"),
        ("mine", int, "is no style loss"),
    ],
)
def test_registering_an_invalid_name_or_loss_is_an_error(name: str, loss: type[StyleLoss], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        register(name, loss)
