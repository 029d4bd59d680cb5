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

from fastnst.config.parsing import parse_layers
from fastnst.config.presets import PRESETS
from fastnst.config.settings import Settings, file_settings, picture_settings
from fastnst.errors import UsageError


def with_one(name: str, value: Any) -> Settings:
    changes: dict[str, Any] = {name: value}
    return Settings.from_preset(**changes)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().steps = 3  # type: ignore[misc]


def test_the_package_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = "import sys, fastnst.config; sys.exit(', '.join({'torch', 'numpy', 'PIL'} & set(sys.modules)) or 0)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_preset_is_named_and_changed() -> None:
    settings = Settings.from_preset("johnson", steps=7, style_weight=1)
    assert (settings.preset, settings.steps, settings.style_weight) == ("johnson", 7, 1)
    assert settings.tv_weight == Settings.from_preset("johnson").tv_weight


def test_none_is_a_value_where_a_setting_may_have_none() -> None:
    assert Settings.from_preset("gatys", size=None).size is None
    assert Settings.from_preset("crowson", weights=None).weights is None
    assert Settings.from_preset(size=None) == Settings(size=None)
    assert Settings.from_preset("gatys").replace(size=None) == Settings.from_preset("gatys", size=None)


OPTIONAL = {"weights", "size", "crop", "style_size", "max_pixels", "memory"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings) if field.name != "preset"])
def test_none_is_refused_for_settings_that_need_a_value(name: str) -> None:
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
def test_size_and_crop_replace_each_other(given: dict[str, Any], size: int | None, crop: int | None) -> None:
    settings = Settings.from_preset("tutorial", **given)
    assert (settings.size, settings.crop) == (size, crop)


def test_crop_replaces_the_default_size() -> None:
    assert Settings.from_preset(crop=64).size is None


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_round_trip_through_json(preset: str) -> None:
    settings = Settings.from_preset(preset)
    again = json.loads(json.dumps(settings.to_dict()))
    assert Settings(**again) == settings


def test_layer_names_are_unique_with_content_layers_first() -> None:
    settings = Settings(
        content_layers=(("relu2_1", 1.0), ("relu1_1", 1.0)), style_layers=(("relu1_1", 1.0), ("pool1", 0.5))
    )
    assert settings.layer_names() == ("relu2_1", "relu1_1", "pool1")


NUMBERS = ("content_weight", "style_weight", "tv_weight", "noise", "learning_rate", "style_scale")
WHOLE = ("history", "steps", "scales", "snapshot_every", "seed", "size", "crop")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, "3", True, [1.0]])
@pytest.mark.parametrize("name", NUMBERS)
def test_an_invalid_number_is_refused_with_the_name_of_its_setting(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}: expected a .*number.*, got {re.escape(repr(value))}$"):
        with_one(name, value)


@pytest.mark.parametrize("name", ["learning_rate", "style_scale"])
def test_zero_is_refused_for_settings_that_must_be_positive(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: expected a finite number above 0 and at most .*, got 0"):
        with_one(name, 0)


@pytest.mark.parametrize("value", [-1, 2.0, "3", True, math.nan, 2**63])
@pytest.mark.parametrize("name", WHOLE)
def test_an_invalid_count_is_refused_with_the_name_of_its_setting(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}: expected a whole number of at least"):
        with_one(name, value)


@pytest.mark.parametrize(("name", "least"), [("history", 1), ("steps", 1), ("scales", 1), ("size", 2), ("crop", 2)])
def test_the_smallest_count_is_accepted_and_one_less_is_not(name: str, least: int) -> None:
    assert getattr(with_one(name, least), name) == least
    with pytest.raises(UsageError, match=f"{name}: expected a whole number of at least {least}"):
        with_one(name, least - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "jonson"}, r"unknown preset 'jonson', did you mean johnson\?"),
        ({"style_wieght": 1}, r"unknown setting 'style_wieght', did you mean style_weight\?"),
        (
            {"optimizer": "lbgfs"},
            r"unknown optimizer 'lbgfs', did you mean lbfgs\? \(known: lbfgs, adam, a",
        ),
        ({"precision": "float23"}, r"unknown precision 'float23', did you mean float32\?"),
        ({"history_dtype": "bfloat61"}, r"unknown history_dtype 'bfloat61', did you mean bfloat16\?"),
        ({"graph": "of"}, r"unknown graph 'of', did you mean off\? \(known: auto, on, off\)"),
        ({"precision": "float16"}, r"unknown precision 'float16', did you mean bfloat16\?"),
        ({"tv_kind": "anisotrop"}, r"unknown tv_kind 'anisotrop', did you mean anisotropic\?"),
        ({"pooling": 2}, "pooling: expected a name, got 2"),
        ({"device": 0}, "device: expected a name, got 0"),
        ({"size": 64, "crop": 32}, "size 64 and crop 32: give one of the two"),
        ({"content_weight": 0, "style_weight": 0}, "all zero: there is nothing to optimize"),
        ({"content_layers": (), "style_layers": (("relu1_1", 0.0),)}, "all zero: there is nothing to optimize"),
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
def test_invalid_values_are_refused_with_the_accepted_ones(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Settings.from_preset(**changes)
    assert "\n" not in str(caught.value)


def test_one_of_the_two_weights_may_be_zero() -> None:
    assert Settings.from_preset(content_weight=0).content_weight == 0
    assert Settings.from_preset(style_weight=0).style_weight == 0


def test_changes_by_replace_are_checked() -> None:
    settings = Settings.from_preset("johnson")
    assert settings.replace(steps=3) == Settings.from_preset("johnson", steps=3)
    for changes in ({"steps": 0}, {"stepps": 3}, {"preset": "gatys"}):
        with pytest.raises(UsageError):
            settings.replace(**changes)


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
def test_the_error_says_why_layers_cannot_be_parsed(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_layers(text)


FREE = {"preset", "snapshot_every", "max_pixels", "device", "convolution", "tiles", "memory", "graph"}


def test_the_settings_that_do_not_change_the_picture_are_listed_once() -> None:
    fields = dataclasses.fields(Settings)
    assert {field.name for field in fields if not field.metadata["changes_picture"]} == FREE
    values = Settings().to_dict()
    assert set(values) - set(picture_settings(values)) == FREE | {"seed"}  # there is no noise
    assert set(values) - set(picture_settings({**values, "init": "noise"})) == FREE
    text = (Path(__file__).parents[2] / "docs" / "howto" / "long_runs.md").read_text()
    listed = text[text.index("settings may differ:") : text.index("They decide where a run is computed")]
    assert set(re.findall("`([a-z_]+)`", listed)) == FREE


def test_settings_that_name_files_are_listed() -> None:
    assert file_settings() == ("weights", "init")


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_has_a_description_of_one_line(field: dataclasses.Field[Any]) -> None:
    text = field.metadata["help"]
    assert text
    assert text.isprintable()
    assert not text.endswith(".")
    named = set(re.findall("`([a-z_]+)`", text))
    assert named <= {other.name for other in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", ["size", "crop", "min_scale", "min_shorter_side", "style_size", "max_pixels"])
def test_sizes_are_in_pixels(name: str) -> None:
    assert Settings.__dataclass_fields__[name].metadata["unit"] == "pixels"
