"""The files a picture was made from: what it says of them, and where they are when its run is repeated.

A name is relative to the picture's folder, so that pictures and inputs can be moved together and no published picture
tells of the folders above them: where the way from the one to the other leads through a folder above the user's home
(or the root of the disk), the file's own name is all that is kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst import __version__
from fastnst.settings import Settings
from fastnst.settings_file import FILES, VERSION
from fastnst.weights.download import sha256

log = logging.getLogger("fastnst")


@dataclass(frozen=True)
class Input:
    """A file that a run reads, and the SHA-256 of its bytes."""

    path: Path
    sha256: str


def find_inputs(settings: Settings, **pictures: Path | None) -> dict[str, Input]:
    """The files of a run by the part they play: ``pictures``, and the settings that name a file, such as ``init``.

    What is no file, or cannot be read, is left out.
    """
    named = {name: Path(value) for name, value in settings.to_dict().items() if isinstance(value, (str, os.PathLike))}
    found = {}
    files = {name: path for name, path in named.items() if path.suffix or path.is_absolute()}
    for part, path in {**pictures, **files}.items():
        digest = None if path is None else _digest(path)
        if path is not None and digest is not None:
            found[part] = Input(path, digest)
    return found


def describe(settings: Settings, inputs: Mapping[str, Input], folder: Path) -> dict[str, Any]:
    """What a picture in ``folder`` carries: the version, each setting, and under "files" names and digests."""
    files = {part: {"name": relative_name(used.path, folder), "sha256": used.sha256} for part, used in inputs.items()}
    values = settings.to_dict()
    values.update({part: file["name"] for part, file in files.items() if part in values})
    return {VERSION: __version__, **values, FILES: files}


def relative_name(path: Path, folder: Path) -> str:
    """``path`` as seen from ``folder``, with forward slashes; its bare name where folders above the home would show."""
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    home = Path.home()
    try:
        common = Path(os.path.commonpath([path, folder]))
    except ValueError:  # on two disks
        return path.name
    if common == Path(common.anchor) or common in home.parents:
        return path.name
    return Path(os.path.relpath(path, folder)).as_posix()


def locate(files: Mapping[str, Mapping[str, str]], picture: Path) -> dict[str, Path]:
    """Where the files are that ``picture`` names: beside it or in the current folder; those that are not are left out.

    Of two the one with the recorded bytes is taken; a file with other bytes is used all the same, with a warning.
    """
    found: dict[str, Path] = {}
    for part, file in files.items():
        digests = {path: _digest(path) for path in (picture.parent / file["name"], Path(file["name"]))}
        there = [path for path, digest in digests.items() if digest is not None]
        same = [path for path in there if digests[path] == file["sha256"]]
        if there and not same:
            log.warning("%s: is not as it was when %s was made from it; used all the same", there[0], picture)
        if there:
            found[part] = (same or there)[0]
    return found


def _digest(path: Path) -> str | None:
    """None for what is no file, cannot be read, or is no name that a file could have."""
    try:
        return sha256(path) if path.is_file() else None
    except (OSError, ValueError):
        return None
