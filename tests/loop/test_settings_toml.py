"""Settings as TOML: what is written is read back, and what makes no sense is refused by file and name."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import fastnst.settings
from fastnst import settings_file
from fastnst.errors import FastnstError, UsageError
from fastnst.presets import PRESETS
from fastnst.settings import Settings

HINTS = {name: hint for name, hint in typing.get_type_hints(Settings).items() if name != "preset"}


NAMES = sorted(
    {
        text
        for known in vars(fastnst.settings).values()
        if isinstance(known, tuple)
        for text in known
        if isinstance(text, str)
    }
)
"""Every name that one setting or other chooses from."""


def kinds_of(name: str) -> tuple[Any, ...]:
    hint = HINTS[name]
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def taken(name: str, value: object, make: Callable[..., Settings] = Settings) -> bool:
    """Whether Settings takes the value by itself."""
    try:
        make(**{name: value})
    except UsageError:
        return False
    return True


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Every kind of value that the field's type and Settings' own checks allow."""
    texts = st.text(min_size=1)
    strategies: list[st.SearchStrategy[Any]] = []
    for kind in kinds_of(name):
        if kind is types.NoneType:
            strategies.append(st.none())
        elif kind is bool:
            strategies.append(st.booleans())
        elif kind is int:
            strategies.append(st.integers(0, 2**63 - 1))
        elif kind is float:
            strategies.append(st.floats(0, allow_infinity=False, allow_subnormal=False))
        elif kind is str:
            chosen = [text for text in NAMES if taken(name, text)]
            strategies.append(st.sampled_from(chosen) | texts if chosen else texts)
        elif typing.get_args(kind)[0] is int:
            strategies.append(st.lists(st.integers(2, 500), min_size=1, max_size=3, unique=True).map(sorted).map(tuple))
        else:
            strategies.append(st.dictionaries(texts, st.floats(0, 1e9), max_size=4).map(lambda d: tuple(d.items())))
    return st.one_of(strategies)


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    preset = draw(st.sampled_from(sorted(PRESETS)))
    names = draw(st.lists(st.sampled_from(sorted(HINTS)), unique=True, max_size=8))
    try:
        return Settings(**{**PRESETS[preset], "preset": preset, **{name: draw(values_of(name)) for name in names}})
    except UsageError:
        assume(False)
        raise


@given(any_settings())
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> None:
    path = tmp_path_factory.getbasetemp() / "round.toml"
    assert settings_file.read(settings_file.write_toml(path, settings, force=True)).settings == settings


@pytest.mark.parametrize("name", HINTS)
def test_each_field_that_is_changed_is_read_back_changed(tmp_path: Path, name: str) -> None:
    usual = getattr(Settings(), name)
    candidates: list[Any] = [
        not usual,
        7,
        70,
        2**30,
        0.25,
        1.5,
        "x y",
        *NAMES,
        (("relu3_1", 0.5), ("pool1", 2.0)),
        (0.5, 0.25),
    ]
    kinds = tuple(typing.get_origin(kind) or kind for kind in kinds_of(name))
    changed = next(
        value for value in candidates if type(value) in kinds and value != usual and taken(name, value, Settings.of)
    )
    settings = Settings.of(**{name: changed})
    assert getattr(Settings.from_file(settings_file.write_toml(tmp_path / "a.toml", settings)), name) == changed


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_may_name_a_preset_alone(tmp_path: Path, preset: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'preset = "{preset}"\n')
    assert Settings.from_file(path) == Settings.of(preset)
    settings_file.write_toml(path, Settings.of(preset), force=True)
    assert Settings.from_file(str(path)) == Settings.of(preset)


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(
        b"\xef\xbb\xbf# my favourite\r\npreset = 'johnson'\r\ncrop = 96\r\nstyle_weight = 200\r\n"
        b"[style_layers]\r\nrelu1_1 = 2\r\n'pool1' = 0.5\r\n"
    )
    expected = Settings.of("johnson", crop=96, style_weight=200.0, style_layers=(("relu1_1", 2.0), ("pool1", 0.5)))
    found = Settings.from_file(path)
    assert found == expected
    assert found.size is None
    assert isinstance(found.style_weight, float)  # as the command line reads it


def test_layers_are_a_table_and_false_stands_for_none_where_the_preset_has_a_value() -> None:
    lines = settings_file.to_toml(Settings(size=None)).splitlines()
    assert lines[:2] == [f'fastnst = "{fastnst.__version__}"', 'preset = "default"']
    assert "size = false" in lines
    assert not any(line.startswith(("crop", "weights")) for line in lines)
    assert lines[lines.index("[content_layers]") + 1] == "relu4_2 = 1.0"


def test_a_text_false_or_none_is_no_none(tmp_path: Path) -> None:
    for name in ("false", "none", "None", ""):
        settings = Settings(weights=name)
        assert Settings.from_file(settings_file.write_toml(tmp_path / "a.toml", settings, force=True)) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("style_wieght = 2\n", "unknown setting 'style_wieght', did you mean style_weight?"),
        ("style-weight = 2\n", "unknown setting 'style-weight', did you mean style_weight?"),
        ("[colour]\na = 1\n", "unknown setting 'colour'"),
        ("seed = 'three'\n", "seed: expected a whole number, got 'three'"),
        ("seed = 3.0\n", "seed: expected a whole number, got 3.0"),
        ("seed = true\n", "seed: expected a whole number, got True"),
        ("tv_weight = '1'\n", "tv_weight: expected a number, got '1'"),
        ("tv_weight = nan\n", "tv_weight: expected a finite number"),
        ("tv_weight = 1979-05-27\n", "tv_weight: expected a number, got datetime.date(1979, 5, 27)"),
        ("init = 3\n", "init: expected a text, got 3"),
        ("carry = 1\n", "carry: expected true or false, got 1"),
        ("weights = 3\n", "weights: expected a text, or false for none, got 3"),
        ("size = '512'\n", "size: expected a whole number, or false for none, got '512'"),
        ("seed = false\n", "seed: expected a whole number, got False"),
        ("seed = -1\n", "seed: expected a whole number of at least 0"),
        ("preset = 'jonson'\n", "unknown preset 'jonson', did you mean johnson?"),
        ("optimizer = 'lbgfs'\n", "unknown optimizer 'lbgfs', did you mean lbfgs?"),
        ("style_layers = 'relu1_1'\n", "style_layers: expected names with numbers, or a list, got 'relu1_1'"),
        ("style_layers = ['relu1_1']\n", "style_layers: expected pairs of name and weight"),
        (
            "[style_layers]\nrelu1_1 = 'much'\n",
            "style_layers: weight of relu1_1: expected a finite number of at least 0",
        ),
        ("size = 64\ncrop = 64\n", "size 64 and crop 64: give one of the two"),
        ("seed = 1\nsteps = \n", "not valid TOML: Invalid value (at line 2, column 9)"),
        ("seed = 1\nseed = 2\n", "not valid TOML: Cannot overwrite a value (at line 2"),
        ("a = " + "[" * 5000 + "\n", "not valid settings: nested too deep"),
    ],
)
def test_what_makes_no_sense_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Settings.from_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_what_is_no_text_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"seed = 1\n\xff\xfe\n")
    with pytest.raises(UsageError, match=r"a\.toml: not UTF-8 text \(at line 2\)"):
        Settings.from_file(path)
    path.write_bytes(b"#" * (settings_file.LIMIT + 1))
    with pytest.raises(UsageError, match="at most 1000000 bytes"):
        Settings.from_file(path)


@pytest.mark.parametrize("version", ["99.0", "0.99.1"])
def test_an_unknown_setting_of_a_newer_version_says_so(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'fastnst = "{version}"\nstyle_wieght = 2\n')
    with pytest.raises(UsageError) as caught:
        Settings.from_file(path)
    assert str(caught.value) == (
        f"{path}: unknown setting 'style_wieght': the file was written by fastnst {version}, "
        f"and this is {fastnst.__version__}"
    )


def test_a_file_of_another_version_whose_settings_are_known_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('fastnst = "99.0"\nsteps = 2\n')
    assert Settings.from_file(path).steps == 2


def test_an_unknown_setting_of_an_older_version_says_so_and_what_is_near(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('fastnst = "0.0.1"\nstyle_wieght = 2\n')
    with pytest.raises(UsageError, match=r"did you mean style_weight\? \(the file was written by fastnst 0.0.1, and"):
        Settings.from_file(path)


def test_a_file_that_is_there_is_not_replaced_unforced(tmp_path: Path) -> None:
    path = settings_file.write_toml(tmp_path / "a.toml", Settings())
    before = path.read_bytes()
    assert settings_file.write_toml(path, Settings()) == path  # the same once more
    with pytest.raises(UsageError, match=r"a\.toml is there already; .*--force"):
        settings_file.write_toml(path, Settings(seed=1))
    assert path.read_bytes() == before
    settings_file.write_toml(path, Settings(seed=1), force=True)
    assert Settings.from_file(path).seed == 1
    assert [found.name for found in tmp_path.iterdir()] == ["a.toml"]


def test_a_failure_to_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings_file.write_toml(tmp_path / "a.toml", Settings())
    before = path.read_bytes()

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(FastnstError, match=r"a\.toml: cannot be written \(No space left on device\)"):
        settings_file.write_toml(path, Settings(seed=1), force=True)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.toml"]


def test_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a name ending in \.toml"):
        settings_file.write_toml(tmp_path / "a.png", Settings())
    with pytest.raises(UsageError, match=r"cannot hold .*udcff' of a setting"):
        settings_file.write_toml(tmp_path / "a.toml", Settings(init="\udcff.png"))
    with pytest.raises(FastnstError, match=r"a\.toml: cannot be written \(No such file"):
        settings_file.write_toml(tmp_path / "none" / "a.toml", Settings())
    with pytest.raises(FastnstError, match=r"b\.toml: cannot be read \(No such file"):
        Settings.from_file(tmp_path / "b.toml")
    assert list(tmp_path.iterdir()) == []


def test_reading_toml_imports_no_torch(tmp_path: Path) -> None:
    path = settings_file.write_toml(tmp_path / "a.toml", Settings())
    code = (
        f"import sys; from fastnst.settings import Settings; Settings.from_file({json.dumps(str(path))}); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_path_is_written_as_its_name(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"init": Path("start.png")}
    settings = Settings.of(**changes)
    assert Settings.from_file(settings_file.write_toml(tmp_path / "a.toml", settings)).init == "start.png"
