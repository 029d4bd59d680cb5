"""Settings as TOML: they round-trip, and invalid ones are refused with the names of file and setting."""

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

import fastnst
from fastnst.config import load_settings, ranges, save_settings, toml
from fastnst.config.presets import PRESETS
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError, UsageError

HINTS = {name: hint for name, hint in typing.get_type_hints(Settings).items() if name != "preset"}


NAMES = sorted(
    {text for known in vars(ranges).values() if isinstance(known, tuple) for text in known if isinstance(text, str)}
)
"""Every name that a setting accepts."""


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
    assert toml.read_stored(save_settings(path, settings, force=True)).settings == settings


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
        value
        for value in candidates
        if type(value) in kinds and value != usual and taken(name, value, Settings.from_preset)
    )
    settings = Settings.from_preset(**{name: changed})
    assert getattr(load_settings(save_settings(tmp_path / "a.toml", settings)), name) == changed


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_may_name_a_preset_alone(tmp_path: Path, preset: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'preset = "{preset}"\n')
    assert load_settings(path) == Settings.from_preset(preset)
    save_settings(path, Settings.from_preset(preset), force=True)
    assert load_settings(str(path)) == Settings.from_preset(preset)


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(
        b"\xef\xbb\xbf# my favorite\r\npreset = 'johnson'\r\ncrop = 96\r\nstyle_weight = 200\r\n"
        b"[style_layers]\r\nrelu1_1 = 2\r\n'pool1' = 0.5\r\n"
    )
    expected = Settings.from_preset(
        "johnson", crop=96, style_weight=200.0, style_layers=(("relu1_1", 2.0), ("pool1", 0.5))
    )
    found = load_settings(path)
    assert found == expected
    assert found.size is None
    assert isinstance(found.style_weight, float)  # as the command line reads it


def test_layers_are_a_table_and_false_stands_for_none_where_the_preset_has_a_value() -> None:
    lines = toml.to_toml(Settings(size=None)).splitlines()
    assert lines[:2] == [f'fastnst = "{fastnst.__version__}"', 'preset = "default"']
    assert "size = false" in lines
    assert not any(line.startswith(("crop", "weights")) for line in lines)
    assert lines[lines.index("[content_layers]") + 1] == "relu4_2 = 1.0"


def test_the_strings_false_and_none_are_not_none(tmp_path: Path) -> None:
    for name in ("false", "none", "None", ""):
        settings = Settings(weights=name)
        assert load_settings(save_settings(tmp_path / "a.toml", settings, force=True)) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("style_wieght = 2\n", "unknown setting 'style_wieght', did you mean style_weight?"),
        ("style-weight = 2\n", "unknown setting 'style-weight', did you mean style_weight?"),
        ("[color]\na = 1\n", "unknown setting 'color'"),
        ("seed = 'three'\n", "seed: expected a whole number, got 'three'"),
        ("seed = 3.0\n", "seed: expected a whole number, got 3.0"),
        ("seed = true\n", "seed: expected a whole number, got True"),
        ("tv_weight = '1'\n", "tv_weight: expected a number, got '1'"),
        ("tv_weight = nan\n", "tv_weight: expected a finite number"),
        ("tv_weight = 1979-05-27\n", "tv_weight: expected a number, got datetime.date(1979, 5, 27)"),
        ("init = 3\n", "init: expected a string, got 3"),
        ("carry = 1\n", "carry: expected true or false, got 1"),
        ("weights = 3\n", "weights: expected a string, or false for none, got 3"),
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
        ("a = " + "[" * 5000 + "\n", "not valid settings: nested too deeply"),
    ],
)
def test_invalid_content_is_one_line_with_the_name_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_the_error_names_the_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"seed = 1\n\xff\xfe\n")
    with pytest.raises(UsageError, match=r"a\.toml: not UTF-8 text \(at line 2\)"):
        load_settings(path)
    path.write_bytes(b"#" * (toml.MAX_BYTES + 1))
    with pytest.raises(UsageError, match="at most 1000000 bytes"):
        load_settings(path)


@pytest.mark.parametrize("version", ["99.0", "0.99.1"])
def test_an_unknown_setting_of_a_newer_version_says_so(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'fastnst = "{version}"\nstyle_wieght = 2\n')
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert str(caught.value) == (
        f"{path}: unknown setting 'style_wieght': the file was written by fastnst {version}, "
        f"and this is {fastnst.__version__}"
    )


def test_a_file_of_another_version_whose_settings_are_known_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('fastnst = "99.0"\nsteps = 2\n')
    assert load_settings(path).steps == 2


def test_an_unknown_setting_of_an_older_version_says_so_and_suggests_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('fastnst = "0.0.1"\nstyle_wieght = 2\n')
    with pytest.raises(UsageError, match=r"did you mean style_weight\? \(the file was written by fastnst 0.0.1, and"):
        load_settings(path)


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    path = save_settings(tmp_path / "a.toml", Settings())
    before = path.read_bytes()
    assert save_settings(path, Settings()) == path  # the same once more
    with pytest.raises(UsageError, match=r"a\.toml exists already; .*--force"):
        save_settings(path, Settings(seed=1))
    assert path.read_bytes() == before
    save_settings(path, Settings(seed=1), force=True)
    assert load_settings(path).seed == 1
    assert [found.name for found in tmp_path.iterdir()] == ["a.toml"]


def test_paths_may_be_strings_and_the_functions_are_public(tmp_path: Path) -> None:
    path = fastnst.save_settings(str(tmp_path / "a.toml"), Settings(seed=3))
    assert path == tmp_path / "a.toml"
    assert fastnst.load_settings(str(path)) == fastnst.load_settings(path) == Settings(seed=3)
    assert (fastnst.load_settings, fastnst.save_settings) == (load_settings, save_settings)


def test_a_failure_to_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_settings(tmp_path / "a.toml", Settings())
    before = path.read_bytes()

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(FastnstError, match=r"a\.toml: cannot be written \(No space left on device\)"):
        save_settings(path, Settings(seed=1), force=True)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.toml"]


def test_invalid_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a name ending in \.toml"):
        save_settings(tmp_path / "a.png", Settings())
    with pytest.raises(UsageError, match=r"cannot represent .*udcff' in a setting"):
        save_settings(tmp_path / "a.toml", Settings(init="\udcff.png"))
    with pytest.raises(FastnstError, match=r"a\.toml: cannot be written \(No such file"):
        save_settings(tmp_path / "none" / "a.toml", Settings())
    with pytest.raises(FastnstError, match=r"b\.toml: cannot be read \(No such file"):
        load_settings(tmp_path / "b.toml")
    assert list(tmp_path.iterdir()) == []


def test_reading_toml_imports_no_torch(tmp_path: Path) -> None:
    path = save_settings(tmp_path / "a.toml", Settings())
    code = (
        f"import sys; from fastnst.config import load_settings; load_settings({json.dumps(str(path))}); "
        "sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_path_is_written_as_its_name(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"init": Path("start.png")}
    settings = Settings.from_preset(**changes)
    assert load_settings(save_settings(tmp_path / "a.toml", settings)).init == "start.png"
