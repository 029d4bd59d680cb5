"""Encoders by name: built in, registered, or offered by entry points; and the settings that name one."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import settings_from
from support.encoders import ENTRY, FIRST, entry

from fastnst.config import encoders as registry
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.network import encoders, find_encoder, receptive_fields, register_encoder

ARCH = "efficientnet_lite0"


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def offer(monkeypatch: pytest.MonkeyPatch, *values: tuple[str, str]) -> None:
    """Entry points of installed packages."""
    offered = importlib.metadata.EntryPoints(importlib.metadata.EntryPoint(*one, registry.GROUP) for one in values)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **of: offered.select(**of))


def test_a_registered_encoder_is_found_by_name() -> None:
    assert encoders() == (ARCH,)
    register_encoder(ENTRY)
    assert encoders() == (ARCH, "tiny")
    assert find_encoder("tiny") is ENTRY
    with pytest.raises(UsageError, match=f"encoder '{ARCH}' is built in; choose another name"):
        register_encoder(entry(name=ARCH))


def test_an_installed_package_offers_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("tiny", "support.encoders:ENTRY"), ("broken", "no_such_module:ENTRY"))
    assert encoders() == (ARCH, "broken", "tiny")
    assert find_encoder("tiny") is ENTRY
    assert Settings(arch="tiny").content_layers == ENTRY.content_layers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [("mine", "no_such_module:X")],
            "entry point no_such_module:X does not load: No module named 'no_such_module'",
        ),
        ([("mine", "support.encoders:NOT_AN_ENTRY")], "support.encoders:NOT_AN_ENTRY is no EncoderEntry of that name"),
        ([("mine", "support.encoders:ENTRY")], "support.encoders:ENTRY is no EncoderEntry of that name"),
        ([("mine", "b:X"), ("mine", "a:X")], "offered by a:X and b:X"),
    ],
)
def test_an_invalid_entry_point_is_one_clear_error(
    values: list[tuple[str, str]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, *values)
    with pytest.raises(UsageError) as raised:
        find_encoder("mine")
    assert str(raised.value).startswith("encoder 'mine': ")
    assert message in str(raised.value)


def test_settings_can_be_read_without_the_package_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("mine", "no_such_module:X"))
    settings = Settings(arch="mine")
    assert (settings.content_layers, settings.stride) == (Settings().content_layers, 16)


def test_an_entry_point_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("tiny", "support.encoders:ENTRY"))
    loaded = []
    real = importlib.metadata.EntryPoint.load
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: loaded.append(self.name) or real(self))
    for steps in range(1, 4):
        Settings(arch="tiny", steps=steps)
    assert loaded == ["tiny"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=f"unknown network 'efficientnet', did you mean {ARCH}\\? .known: vgg16, vgg19"
    ):
        find_encoder("efficientnet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vgg19"}, "encoder 'vgg19': expected a name of letters, digits and underscores other than vgg16 and"),
        ({"name": "a b"}, "encoder 'a b': expected a name of letters, digits and underscores"),
        ({"order": "GBR"}, "encoder tiny: order 'GBR' (expected RGB or BGR)"),
        ({"fields": {}}, "encoder tiny: expected the receptive field of a layer at least"),
        ({"fields": {"first": FIRST}}, "encoder tiny: its default layer 'second' is not among its fields"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        entry(**changes)
    assert str(raised.value).startswith(message)


def test_settings_take_the_layers_of_the_encoder_where_those_of_vgg_are_the_default() -> None:
    own = find_encoder(ARCH)
    for settings in (Settings(arch=ARCH), Settings.from_preset(arch=ARCH), Settings().replace(arch=ARCH)):
        assert (settings.content_layers, settings.style_layers) == (own.content_layers, own.style_layers)
        assert settings.replace(steps=3).style_layers == own.style_layers
    chosen = Settings(arch=ARCH, style_layers=(("stem", 2.0),))
    assert (chosen.content_layers, chosen.style_layers) == (own.content_layers, (("stem", 2.0),))
    assert Settings(arch="vgg16").content_layers == Settings().content_layers
    assert Settings(arch="not_installed").content_layers == Settings().content_layers  # said where a run begins


def test_the_stride_is_that_of_the_deepest_layer() -> None:
    assert Settings(arch=ARCH).stride == 16
    assert Settings(arch=ARCH, content_layers=(), style_layers=(("block3.expand", 1.0),)).stride == 4
    assert Settings().stride == 16
    assert [receptive_fields(name)[layer].stride for name, layer in ((ARCH, "block16"), ("vgg16", "pool5"))] == [32, 32]


def test_a_pattern_matches_the_layers_of_the_encoder() -> None:
    settings = settings_from("--arch", ARCH, "--style-layers", "block?.expand:2")
    assert settings.style_layers == tuple((f"block{i}.expand", 2.0) for i in range(2, 10))
    with pytest.raises(UsageError, match=r"relu\?_1 matches no layer of efficientnet_lite0"):
        settings_from("--arch", ARCH, "--style-layers", "relu?_1")


def test_settings_of_an_encoder_import_no_torch() -> None:
    code = f"import sys, fastnst.config as c; c.Settings(arch='{ARCH}'); sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
