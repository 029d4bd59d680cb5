from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastnst.errors import UsageError
from fastnst.presets import PRESETS
from fastnst.settings import Settings, parse_layers, recipe


def with_one(name: str, value: Any) -> Settings:
    changes: dict[str, Any] = {name: value}
    return Settings.of(**changes)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().steps = 3  # type: ignore[misc]


def test_the_module_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = "import sys, fastnst.settings; sys.exit(', '.join({'torch', 'numpy', 'PIL'} & set(sys.modules)) or 0)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_preset_is_named_and_changed() -> None:
    settings = Settings.of("johnson", steps=7, style_weight=1)
    assert (settings.preset, settings.steps, settings.style_weight) == ("johnson", 7, 1)
    assert settings.tv_weight == Settings.of("johnson").tv_weight


def test_none_is_a_value_where_a_setting_may_have_none() -> None:
    assert Settings.of("gatys", size=None).size is None
    assert Settings.of("crowson", weights=None).weights is None
    assert Settings.of(size=None) == Settings(size=None)
    assert Settings.of("gatys").but(size=None) == Settings.of("gatys", size=None)


OPTIONAL = {"weights", "size", "crop", "style_size", "max_pixels", "memory"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings) if field.name != "preset"])
def test_none_is_refused_by_name_where_it_means_nothing(name: str) -> None:
    if name in OPTIONAL:
        assert getattr(with_one(name, None), name) is None
    else:
        with pytest.raises(UsageError, match=f"{name}[: ].*None"):
            with_one(name, None)


@pytest.mark.parametrize(
    ("given", "size", "crop"),
    [
        ({}, None, 224),
        ({"size": 300}, 300, None),
        ({"crop": 96}, None, 96),
        ({"size": 300, "crop": None}, 300, None),
        ({"size": None}, None, None),
        ({"crop": None}, None, None),
        ({"size": None, "crop": None}, None, None),
    ],
)
def test_size_and_crop_take_each_others_place(given: dict[str, Any], size: int | None, crop: int | None) -> None:
    settings = Settings.of("tutorial", **given)
    assert (settings.size, settings.crop) == (size, crop)


def test_crop_replaces_the_default_size() -> None:
    assert Settings.of(crop=64).size is None


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_json(preset: str) -> None:
    settings = Settings.of(preset)
    again = json.loads(json.dumps(settings.to_dict()))
    assert Settings(**again) == settings


def test_layer_names_come_once_each_content_first() -> None:
    settings = Settings(
        content_layers=(("relu2_1", 1.0), ("relu1_1", 1.0)), style_layers=(("relu1_1", 1.0), ("pool1", 0.5))
    )
    assert settings.layer_names() == ("relu2_1", "relu1_1", "pool1")


NUMBERS = ("content_weight", "style_weight", "tv_weight", "noise", "learning_rate", "style_scale")
WHOLE = ("history", "steps", "scales", "snapshot_every", "seed", "size", "crop")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, "3", True, [1.0]])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}: expected a .*number.*, got {re.escape(repr(value))}$"):
        with_one(name, value)


@pytest.mark.parametrize("name", ["learning_rate", "style_scale"])
def test_zero_is_refused_where_nothing_would_happen(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: expected a finite number above 0 and at most .*, got 0"):
        with_one(name, 0)


@pytest.mark.parametrize("value", [-1, 2.0, "3", True, math.nan, 2**63])
@pytest.mark.parametrize("name", WHOLE)
def test_a_count_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}: expected a whole number of at least"):
        with_one(name, value)


@pytest.mark.parametrize(("name", "least"), [("history", 1), ("steps", 1), ("scales", 1), ("size", 2), ("crop", 2)])
def test_the_least_count_is_taken_and_one_less_is_not(name: str, least: int) -> None:
    assert getattr(with_one(name, least), name) == least
    with pytest.raises(UsageError, match=f"{name}: expected a whole number of at least {least}"):
        with_one(name, least - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "jonson"}, r"unknown preset 'jonson', did you mean johnson\?"),
        ({"style_wieght": 1}, r"unknown setting 'style_wieght', did you mean style_weight\?"),
        ({"optimizer": "lbgfs"}, r"unknown optimizer 'lbgfs', did you mean lbfgs\? \(known: lbfgs, adam\)"),
        ({"precision": "float23"}, r"unknown precision 'float23', did you mean float32\?"),
        ({"history_dtype": "bfloat61"}, r"unknown history_dtype 'bfloat61', did you mean bfloat16\?"),
        ({"graph": "of"}, r"unknown graph 'of', did you mean off\? \(known: auto, on, off\)"),
        ({"precision": "float16"}, r"unknown precision 'float16', did you mean bfloat16\?"),
        ({"tv_kind": "anisotrop"}, r"unknown tv_kind 'anisotrop', did you mean anisotropic\?"),
        ({"pooling": 2}, "pooling: expected a name, got 2"),
        ({"device": 0}, "device: expected a name, got 0"),
        ({"size": 64, "crop": 32}, "size 64 and crop 32: give one of the two"),
        ({"content_weight": 0, "style_weight": 0}, "all zero: there is nothing to optimise"),
        ({"content_layers": (), "style_layers": (("relu1_1", 0.0),)}, "all zero: there is nothing to optimise"),
        (
            {"style_layers": (("relu1_1", -1.0),)},
            "style_layers: weight of relu1_1: expected a finite number of at least",
        ),
        ({"style_layers": (("relu1_1", math.nan),)}, "style_layers: weight of relu1_1: expected a finite number"),
        (
            {"style_layers": (("relu1_1", "1"),)},
            "style_layers: weight of relu1_1: expected a finite number of at least 0 and at most 1e.30, got '1'",
        ),
        ({"style_layers": (("relu1_1", 1.0), ("relu1_1", 2.0))}, "style_layers: relu1_1 is named twice"),
        ({"content_layers": "relu4_2"}, "content_layers: expected pairs of name and weight like"),
        ({"content_layers": ("relu4_2",)}, "content_layers: expected pairs of name and weight like"),
        ({"content_layers": {"relu4_2": 1.0}}, "content_layers: expected pairs of name and weight like"),
        ({"content_layers": ((4, 1.0),)}, "content_layers: expected pairs of name and weight like"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Settings.of(**changes)
    assert "\n" not in str(caught.value)


def test_one_of_the_two_weights_may_be_zero() -> None:
    assert Settings.of(content_weight=0).content_weight == 0
    assert Settings.of(style_weight=0).style_weight == 0


def test_changes_to_a_record_are_checked() -> None:
    settings = Settings.of("johnson")
    assert settings.but(steps=3) == Settings.of("johnson", steps=3)
    for changes in ({"steps": 0}, {"stepps": 3}, {"preset": "gatys"}):
        with pytest.raises(UsageError):
            settings.but(**changes)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("relu1_1", (("relu1_1", 1.0),)),
        ("relu1_1,relu2_1:0.5", (("relu1_1", 1.0), ("relu2_1", 0.5))),
        (" relu1_1 : 2 , pool1:1e-3 ", (("relu1_1 ", 2.0), ("pool1", 1e-3))),
    ],
)
def test_layers_are_parsed(text: str, layers: Any) -> None:
    assert parse_layers(text) == layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "layers '': expected names like"),
        ("relu1_1,,relu2_1", "expected names like"),
        (":2", "expected names like"),
        ("relu1_1:x", "the weight of relu1_1 is 'x', expected a number"),
        ("relu1_1:", "the weight of relu1_1 is '', expected a number"),
    ],
)
def test_layers_that_cannot_be_parsed_say_why(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_layers(text)


FREE = {"preset", "snapshot_every", "max_pixels", "device", "convolution", "tiles", "memory", "graph"}


def test_the_settings_that_do_not_change_the_picture_are_listed_once() -> None:
    fields = dataclasses.fields(Settings)
    assert {field.name for field in fields if not field.metadata.get("changes_picture", True)} == FREE
    values = Settings().to_dict()
    assert set(values) - set(recipe(values)) == FREE | {"seed"}  # there is no noise
    assert set(values) - set(recipe({**values, "init": "noise"})) == FREE
    text = (Path(__file__).parents[2] / "docs" / "control.md").read_text()
    told = text[text.index("refused with the first difference.") : text.index("may differ: they say")]
    assert set(re.findall("`([a-z_]+)`", told)) == FREE
