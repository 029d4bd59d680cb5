"""The files that a picture was made from: their names and digests in the picture, and where they are now.

Names are relative to the folder of the picture, so that pictures and inputs can be moved together. If the relative path
would pass through a folder above the user's home or the root of the disk, only the file's own name is stored: a
published picture does not reveal the folders above the home.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst import __version__
from fastnst.config.settings import Settings, file_settings
from fastnst.digests import sha256

log = logging.getLogger("fastnst")

VERSION = "fastnst"  # key of the version of fastnst that wrote a file
FILES = "files"  # key of the files that a picture was made from


@dataclass(frozen=True)
class Input:
    """A file that a run reads, and the SHA-256 of its bytes."""

    path: Path
    sha256: str


def find_inputs(settings: Settings, **pictures: Path | None) -> dict[str, Input]:
    """The files of a run by part: ``pictures``, and the settings that name a file, such as ``init``.

    Parts without a readable file are left out.
    """
    found = {}
    for part, path in {**pictures, **_named_files(settings)}.items():
        digest = None if path is None else _digest(path)
        if path is not None and digest is not None:
            found[part] = Input(path, digest)
    return found


def _named_files(settings: Settings) -> dict[str, Path]:
    """The files that settings name. Names without folder and suffix are of ``init`` or of the weights' catalog."""
    values = {name: getattr(settings, name) for name in file_settings()}
    paths = {name: Path(value) for name, value in values.items() if value is not None}
    return {name: path for name, path in paths.items() if path.suffix or len(path.parts) > 1}


def describe(settings: Settings, inputs: Mapping[str, Input], folder: Path | None) -> dict[str, Any]:
    """What a picture in ``folder`` carries: the version, every setting, and ``files`` with names and digests.

    Without a folder, for a picture that is no file yet, the names are those of the files alone.
    """

    def name(path: Path) -> str:
        return path.name if folder is None else relative_name(path, folder)

    files = {part: {"name": name(used.path), "sha256": used.sha256} for part, used in inputs.items()}
    values = settings.to_dict()
    values.update({part: file["name"] for part, file in files.items() if part in values})
    return {VERSION: __version__, **values, FILES: files}


def relative_name(path: Path, folder: Path) -> str:
    """``path`` relative to ``folder``, with forward slashes; only its name if folders above the home would show."""
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    try:
        common = Path(os.path.commonpath([path, folder]))
    except ValueError:  # on different drives
        return path.name
    try:
        above = common in Path.home().parents
    except RuntimeError:  # the user has no home
        above = False
    if above or common == Path(common.anchor):
        return path.name
    return Path(os.path.relpath(path, folder)).as_posix()


def locate(files: Mapping[str, Mapping[str, str]], picture: Path) -> dict[str, Path]:
    """Find the files that ``picture`` names, beside it or in the current folder. Missing files are left out.

    If both folders have a file, the one with the recorded digest is used. If none has this digest, a file with another
    is used, with a warning.
    """
    found: dict[str, Path] = {}
    for part, file in files.items():
        digests = {path: _digest(path) for path in (picture.parent / file["name"], Path(file["name"]))}
        existing = [path for path, digest in digests.items() if digest is not None]
        same = [path for path in existing if digests[path] == file["sha256"]]
        if existing and not same:
            log.warning("%s: has changed since %s was made from it; used nevertheless", existing[0], picture)
        if existing:
            found[part] = (same or existing)[0]
    return found


def _digest(path: Path) -> str | None:
    """The SHA-256 of a file; None if there is no such file, it cannot be read, or the name is invalid."""
    try:
        return sha256(path) if path.is_file() else None
    except (OSError, ValueError):
        return None
