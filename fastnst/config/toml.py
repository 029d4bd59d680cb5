"""Settings in TOML files, and the settings that a picture carries.

Both name fields of :class:`fastnst.config.settings.Settings`; a field that is not named keeps the value of the preset.
Layers are a table of names and weights. TOML has no null: ``false`` stands for None where the preset has a value.
Reading a file runs no code.
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
from typing import TYPE_CHECKING, Any

from fastnst import __version__
from fastnst.config.presets import PRESETS
from fastnst.config.provenance import FILES, VERSION, locate
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError, UsageError, nearest, shown
from fastnst.files import replacing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from fastnst.images.opening import FileSource

SUFFIX = ".toml"
MAX_BYTES = 1_000_000
"""Largest settings file that is read."""
_KINDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


@dataclass(frozen=True)
class StoredSettings:
    """The settings in a file and, for a picture, the files it was made from.

    ``files`` maps each part of the run (``content``, ``style``, ..., or the setting that names a file) to the ``name``
    of its file, relative to the picture, and the ``sha256`` of its bytes.
    """

    settings: Settings
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def load_settings(path: FileSource) -> Settings:
    """Load settings from a ``.toml`` file, or from a picture that fastnst made.

    Args:
        path: the file; of a picture also its bytes, or a file object that is open for reading bytes.

    Raises:
        UsageError: the file holds no settings, or a value that is out of range.
        FastnstError: the file cannot be read.

    Example:
        >>> import tempfile, fastnst
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = fastnst.save_settings(f"{folder}/run.toml", fastnst.Settings.from_preset("johnson", steps=7))
        ...     fastnst.load_settings(path).steps
        7
    """
    if isinstance(path, (str, os.PathLike)):
        return read_stored(path).settings
    return _read_picture(path, Path("the file object"), "default").settings


def save_settings(path: str | os.PathLike[str], settings: Settings, *, force: bool = False) -> Path:
    """Save all settings in a ``.toml`` file, and return its path. The file is written whole or not at all.

    Args:
        path: a name that ends in ``.toml``.
        settings: the settings to save.
        force: replace a file that holds something else.

    Raises:
        UsageError: the name does not end in ``.toml``, the file exists and ``force`` is False, or a setting holds text
            that TOML cannot represent.
        FastnstError: the file cannot be written.

    Example:
        >>> import tempfile, fastnst
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fastnst.save_settings(f"{folder}/run.toml", fastnst.Settings.from_preset("johnson")).name
        'run.toml'
    """
    path = Path(path)
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
            raise UsageError(f"{path} exists already; name another file, or replace it with --force (force=True)")
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise FastnstError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def read_stored(path: str | os.PathLike[str], preset: str = "default") -> StoredSettings:
    """Read the settings in a ``.toml`` file or a picture, and the files that the picture was made from.

    ``preset`` applies to a file that names none. Settings of a picture that name a file, such as ``init``, get the path
    where the file is found now. Raises the errors of :func:`load_settings`.
    """
    path = Path(path)
    if path.suffix.lower() == SUFFIX:
        return StoredSettings(_settings(path, read_table(path), preset))
    return _read_picture(path, path, preset)


def to_toml(settings: Settings) -> str:
    """All settings as TOML, with the version of fastnst. A setting that is None in its preset too is left out.

    Characters that are not printable are escaped. Raises UsageError for text that TOML cannot represent.
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
        raise UsageError(f"TOML cannot represent {shown(error.object[error.start : error.end])} in a setting") from None
    return "".join(char if char.isprintable() or char == "\n" else f"\\U{ord(char):08x}" for char in text)


def read_table(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises UsageError for a file that is not TOML, FastnstError for one not readable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FastnstError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: expected at most {MAX_BYTES} bytes of settings")
    try:
        values: dict[str, Any] = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: not UTF-8 text (at line {line})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid settings: nested too deeply") from None
    except ValueError:  # more digits than Python reads
        raise UsageError(f"{path}: not valid settings: a number with too many digits") from None
    return values


def _read_picture(source: FileSource, path: Path, preset: str) -> StoredSettings:
    """``path`` stands for a picture in memory in errors; files that it names are looked for in the current folder."""
    from fastnst import images

    values = images.read_settings(source)
    if values is None:
        raise UsageError(
            f"{path}: holds no settings of fastnst (expected a picture made by fastnst, or a {SUFFIX} file)"
        )
    files = _checked_files(path, values.pop(FILES, {}))
    named = locate({part: file for part, file in files.items() if part in values}, path)
    values.update({part: str(found) for part, found in named.items()})
    return StoredSettings(_settings(path, values, preset), files)


def _checked_files(path: Path, files: object) -> dict[str, dict[str, str]]:
    """The files that a picture names, checked for the form that ``provenance.describe`` writes."""
    if not isinstance(files, dict) or not all(
        re.fullmatch("[a-z_]{1,40}[0-9]{0,9}", part)
        and isinstance(file, dict)
        and isinstance(file.get("name"), str)
        and "\0" not in file["name"]
        and re.fullmatch("[0-9a-f]{64}", str(file.get("sha256")))
        for part, file in files.items()
    ):
        raise UsageError(f"{path}: expected the files it was made from with name and sha256, got {shown(files, 200)}")
    return {part: {key: file[key] for key in ("name", "sha256")} for part, file in files.items()}


def _settings(path: Path, values: Mapping[str, Any], preset: str) -> Settings:
    """Settings from the values in a file. Raises UsageError with the name of the file."""
    changes = convert(path, values)
    preset = changes.pop("preset", preset)
    try:
        return Settings.from_preset(preset).replace(**changes)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def convert(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name from the values in a file. Raises UsageError with the name of the file."""
    version = shown(values.get(VERSION, __version__)).strip("'")
    hints = typing.get_type_hints(Settings)
    changes = {}
    for name, value in values.items():
        if name == VERSION:
            continue
        if name not in hints:
            raise UsageError(f"{path}: unknown setting {shown(name)}{_why_unknown(name, version, hints)}")
        changes[name] = _converted(path, name, value, hints[name])
    return changes


def _why_unknown(name: str, version: str, known: Mapping[str, Any]) -> str:
    if _numbers(version) > _numbers(__version__):
        return f": the file was written by fastnst {version}, and this is {__version__}"
    before = f" (the file was written by fastnst {version}, and this is {__version__})"
    return nearest(name, known) + (before if version != __version__ else "")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall("[0-9]+", version)]


def _converted(path: Path, name: str, value: object, hint: object) -> Any:
    """A value of TOML or JSON in the form of the field. Raises UsageError for a value of another type."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    optional = types.NoneType in kinds
    if value is None or (value is False and bool not in kinds):
        if optional:
            return None
    elif any(_is(value, kind) for kind in kinds):
        return tuple(value.items()) if isinstance(value, dict) else value
    expected = [_KINDS.get(kind, "names with numbers, or a list") for kind in kinds if kind is not types.NoneType]
    or_none = ", or false for none" if optional else ""
    raise UsageError(f"{path}: {name}: expected {' or '.join(expected)}{or_none}, got {shown(value, 200)}")


def _is(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, (dict, list))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _plain(value: Any) -> Any:
    """The inverse of :func:`_converted`: pairs of distinct names and numbers as a table, other tuples as lists."""
    if not isinstance(value, (tuple, list)):
        return os.fsdecode(value) if isinstance(value, os.PathLike) else value
    pairs = [tuple(item) for item in value if isinstance(item, (tuple, list)) and len(item) == 2]
    is_table = len({name for name, _ in pairs}) == len(value) > 0 and all(
        isinstance(name, str) and isinstance(number, (int, float)) for name, number in pairs
    )
    return dict(pairs) if is_table else [_plain(item) for item in value]
