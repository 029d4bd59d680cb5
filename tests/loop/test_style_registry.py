from __future__ import annotations

import importlib.metadata

import pytest
from loop_styles import NeedsArguments, Plain

from fastnst import styles
from fastnst.errors import UsageError
from fastnst.styles import StyleLoss, registry

NAMES = tuple(registry.BUILT_IN)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def test_a_registered_loss_is_found_by_name() -> None:
    given = NeedsArguments(2.0)
    styles.register("plain", Plain)
    styles.register("strong", given)
    assert isinstance(styles.style_loss("plain"), Plain)
    assert styles.style_loss("strong") is given
    assert styles.style_losses()[:9] == ("gram", *NAMES, "plain", "strong")


def offer(monkeypatch: pytest.MonkeyPatch, **values: str) -> list[str]:
    """Entry points of an installed package; the names that are loaded are noted."""
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


def test_an_entry_point_is_loaded_when_asked_for_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = offer(monkeypatch, brightest="loop_styles:Brightest", broken="no_such_module:Loss")
    assert styles.style_losses() == ("gram", *NAMES, "brightest", "broken")
    styles.style_loss("sliced")
    assert loaded == []
    assert type(styles.style_loss("brightest")).__name__ == "Brightest"
    assert loaded == ["brightest"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Loss", "entry point no_such_module:Loss does not load: No module named 'no_such_module'"),
        ("loop_styles:NoSuch", "does not load: .*NoSuch"),
        ("loop_styles:NeedsArguments", "cannot be made without arguments: .*strength"),
        ("loop_styles:features", "is no style loss: expected a class derived from MomentLoss or FeatureLoss"),
        ("fastnst.styles:MomentLoss", "cannot be made without arguments"),
    ],
)
def test_an_entry_point_that_makes_no_sense_is_one_clear_line(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, mine=value)
    with pytest.raises(UsageError, match=message) as raised:
        styles.style_loss("mine")
    assert str(raised.value).startswith("style loss 'mine': entry point ")


def test_a_name_offered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offer_list(monkeypatch, [importlib.metadata.EntryPoint("mine", f"{p}:Loss", registry.GROUP) for p in ("b", "a")])
    with pytest.raises(UsageError, match="style loss 'mine': offered by a:Loss and b:Loss"):
        styles.style_loss("mine")


def test_an_unknown_name_suggests_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, brightest="loop_styles:Brightest")
    with pytest.raises(UsageError, match=r"unknown style loss 'waserstein', did you mean wasserstein.*brightest"):
        styles.style_loss("waserstein")


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("sliced", Plain, "'sliced' is built in"),
        ("two words", Plain, "'two words': expected a name of letters"),
        ("mine", NeedsArguments, "cannot be made without arguments"),
        ("mine", int, "is no style loss"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, loss: type[StyleLoss], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        styles.register(name, loss)
