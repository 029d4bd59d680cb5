"""Settings as a TOML file, and the settings that a picture carries.

Both name the fields of :class:`fastnst.settings.Settings`; a field that is not named keeps the value of the preset.
Layers are a table of names and weights. TOML has no null: ``false`` stands for None where the preset has a value.
Nothing in a file is ever run.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnst import __version__
from fastnst.errors import FastnstError, UsageError, nearest, shown
from fastnst.files import replacing
from fastnst.presets import PRESETS
from fastnst.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"
VERSION = "fastnst"  # the key under which a file says which version wrote it
FILES = "files"  # the key of the files that a picture was made from
LIMIT = 1_000_000
"""Bytes of a settings file at most."""
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True)
class Stored:
    """What a file holds: settings, and for a picture the names and digests of the files it was made from, by part
    (``content``, ``style``, or the setting that names a file)."""

    settings: Settings
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read(path: Path, preset: str = "default") -> Stored:
    """The settings of a ``.toml`` file or of a picture; ``preset`` is that of a file that names none.

    A picture's settings that name a file, such as ``init``, name it where it is now. Raises UsageError for a file that
    holds no settings or some that make no sense, FastnstError for one that cannot be read.
    """
    return Stored(_settings(path, _toml(path), preset)) if path.suffix.lower() == SUFFIX else _picture(path, preset)


def to_toml(settings: Settings) -> str:
    """All settings as TOML, with the version that wrote it; what is None in the preset too is left out.

    What is not printable in a text is escaped. Raises UsageError for a text that TOML cannot hold.
    """
    import tomli_w

    of_preset = PRESETS.get(settings.preset, {})
    document: dict[str, Any] = {VERSION: __version__}
    for known in dataclasses.fields(Settings):
        value = getattr(settings, known.name)
        if value is not None:
            document[known.name] = _plain(value)
        elif of_preset.get(known.name, known.default) is not None:
            document[known.name] = False
    text = tomli_w.dumps(document)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"TOML cannot hold {shown(error.object[error.start : error.end])} of a setting") from None
    return "".join(char if char.isprintable() or char == "\n" else f"\\U{ord(char):08x}" for char in text)


def write_toml(path: Path, settings: Settings, *, force: bool = False) -> Path:
    """Write ``to_toml(settings)``, whole or not at all.

    Raises UsageError for a name without ``.toml`` and, without ``force``, for a file that holds something else already;
    FastnstError where it cannot be written.
    """
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"{path}: expected a name ending in {SUFFIX} for the settings")
    try:
        data = to_toml(settings).encode()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    try:
        if path.exists() and not force:
            if path.is_file() and path.read_bytes() == data:
                return path
            raise UsageError(f"{path} is there already; name another file, or replace it with --force")
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise FastnstError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise FastnstError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > LIMIT:
        raise UsageError(f"{path}: expected settings of at most {LIMIT} bytes")
    try:
        values: dict[str, Any] = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: not UTF-8 text (at line {line})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid settings: nested too deep") from None
    except ValueError:  # more digits than Python reads
        raise UsageError(f"{path}: not valid settings: a number of too many digits") from None
    return values


def _picture(path: Path, preset: str) -> Stored:
    from fastnst import images
    from fastnst.inputs import locate

    values = images.read_settings(path)
    if values is None:
        raise UsageError(f"{path}: holds no settings of fastnst (expected a picture it wrote, or a {SUFFIX} file)")
    files = _checked_files(path, values.pop(FILES, {}))
    named = locate({part: file for part, file in files.items() if part in values}, path)
    values.update({part: str(found) for part, found in named.items()})
    return Stored(_settings(path, values, preset), files)


def _checked_files(path: Path, files: object) -> dict[str, dict[str, str]]:
    """The files that a picture names, if they have the form in which ``inputs.describe`` writes them."""
    if not isinstance(files, dict) or not all(
        re.fullmatch("[a-z_]{1,40}[0-9]{0,9}", part)
        and isinstance(file, dict)
        and isinstance(file.get("name"), str)
        and "\0" not in file["name"]
        and re.fullmatch("[0-9a-f]{64}", str(file.get("sha256")))
        for part, file in files.items()
    ):
        raise UsageError(f"{path}: expected the files it was made from by name and sha256, got {shown(files, 200)}")
    return {part: {key: file[key] for key in ("name", "sha256")} for part, file in files.items()}


def _settings(path: Path, values: Mapping[str, Any], preset: str) -> Settings:
    """Settings of the values in a file. Raises UsageError that names the file."""
    version = shown(values.get(VERSION, __version__)).strip("'")
    hints = typing.get_type_hints(Settings)
    changes = {}
    for name, value in values.items():
        if name == VERSION:
            continue
        if name not in hints:
            raise UsageError(f"{path}: unknown setting {shown(name)}{_why_unknown(name, version, hints)}")
        changes[name] = _converted(path, name, value, hints[name])
    preset = changes.pop("preset", preset)
    try:
        return Settings.of(preset).but(**changes)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _why_unknown(name: str, version: str, known: Mapping[str, Any]) -> str:
    if _numbers(version) > _numbers(__version__):
        return f": the file was written by fastnst {version}, and this is {__version__}"
    before = f" (the file was written by fastnst {version}, and this is {__version__})"
    return nearest(name, known) + (before if version != __version__ else "")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall("[0-9]+", version)]


def _converted(path: Path, name: str, value: object, hint: object) -> Any:
    """A value of TOML or JSON as the field holds it, if it has the field's type."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    optional = types.NoneType in kinds
    if value is None or (value is False and bool not in kinds):
        if optional:
            return None
    elif any(_is(value, kind) for kind in kinds):
        return tuple(value.items()) if isinstance(value, dict) else value
    expected = [_WORDS.get(kind, "names with numbers, or a list") for kind in kinds if kind is not types.NoneType]
    or_none = ", or false for none" if optional else ""
    raise UsageError(f"{path}: {name}: expected {' or '.join(expected)}{or_none}, got {shown(value, 200)}")


def _is(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, (dict, list))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _plain(value: Any) -> Any:
    """The inverse: pairs of different names and numbers as a table, other tuples as lists."""
    if not isinstance(value, (tuple, list)):
        return os.fsdecode(value) if isinstance(value, os.PathLike) else value
    pairs = [tuple(item) for item in value if isinstance(item, (tuple, list)) and len(item) == 2]
    is_table = len({name for name, _ in pairs}) == len(value) > 0 and all(
        isinstance(name, str) and isinstance(number, (int, float)) for name, number in pairs
    )
    return dict(pairs) if is_table else [_plain(item) for item in value]
