"""The description of settings that the command line, the tables of the documents and the studio share."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from fastnst import Settings, UsageError
from fastnst.config.description import GROUPS, as_text, describe_settings, settings_from_text, value_from_text
from fastnst.config.presets import PRESETS

FIELDS = [field.name for field in dataclasses.fields(Settings)]


def test_each_setting_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(FIELDS)
    assert list(describe_settings()) == grouped


@pytest.mark.parametrize("preset", PRESETS)
def test_text_and_back(preset: str) -> None:
    settings = Settings.from_preset(preset)
    texts = {name: as_text(name, getattr(settings, name)) for name in FIELDS}
    assert all(isinstance(text, str) and text for text in texts.values())
    # Values of a preset that exclude each other are none: what is given resets nothing.
    given = {
        name: text for name, text in texts.items() if not (name in ("size", "crop", "style_size") and text == "none")
    }
    assert settings_from_text(given) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("style_layers", (("relu1_1", 0.1 + 0.2), ("relu5_1", 1e-12))),
        ("content_weight", 1 / 3),
        ("style_weights", (1.0, 0.25)),
        ("betas", (0.9, 0.99999999)),
        ("steps", (300, 50)),
        ("scales", (128, 512)),
        ("memory", 2**33 + 1),
        ("size", None),
        ("weights", None),
        ("tiles", 64),
        ("clamp", True),
    ],
)
def test_a_value_keeps_its_bits(name: str, value: object) -> None:
    assert value_from_text(name, as_text(name, value)) == value


def test_kinds_follow_the_types_of_the_fields() -> None:
    found = describe_settings({"pooling": ("max", "average")}, {"style_loss": ("gram", "moments")})
    kinds = {name: one.kind for name, one in found.items()}
    assert kinds["size"] == "integer"
    assert found["size"].none
    assert (found["size"].least, found["size"].most) == (2, 10**6)
    assert kinds["content_weight"] == "number"
    assert not found["content_weight"].none
    assert kinds["clamp"] == "switch"
    assert found["clamp"].default == "off"
    assert kinds["steps"] == "numbers"
    assert found["steps"].unit == "steps"
    assert found["preset"].choices == tuple(PRESETS)
    assert found["pooling"].kind == "choice"
    assert found["pooling"].choices == ("max", "average")
    assert found["style_loss"].kind == "text"
    assert found["style_loss"].suggestions == ("gram", "moments")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepps": "3"}, "unknown setting 'stepps', did you mean steps"),
        ({"clamp": "maybe"}, "clamp: expected on or off, got 'maybe'"),
        ({"size": "huge"}, "size: expected a whole number"),
        ({"preset": "gatis"}, "unknown preset 'gatis'"),
        ({"style_layers": "relu1_1:x"}, "the weight of relu1_1 is 'x'"),
    ],
)
def test_bad_text(values: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings_from_text(values)


def test_no_torch() -> None:
    code = "import sys, fastnst.config.description as d; d.describe_settings(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
