"""The files of a run: that none it writes is one it reads, what a picture says of those it was made from, and where
they are when its run is repeated.

A name is relative to the picture's folder, so that pictures and inputs can be moved together and no published picture
tells of the folders above them: where the way from the one to the other leads through a folder above the user's home
(or the root of the disk), the file's own name is all that is kept.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst import __version__
from fastnst.errors import UsageError
from fastnst.settings import STARTS, Settings
from fastnst.settings_file import FILES, VERSION
from fastnst.weights.download import sha256
from fastnst.weights.entries import catalogue

log = logging.getLogger("fastnst")


Named = tuple[str, "str | Path"]
"""What a file is to a run, and the file, such as ``("the content", "photo.jpg")``."""


def refuse_clashes(written: Sequence[Named], read: Iterable[Named]) -> None:
    """Raise UsageError where a file to be written is one that is read, or where two that are written are the same.

    Files are the same by whatever name, through links too; names that differ in case alone count as the same unless
    there are two such files. What lies in a folder that is written, which is replaced or removed whole, is the same.
    """
    taken = _Taken()
    for what, path in read:
        taken.add(what, path, read=True)
    for what, path in written:
        other = taken.find(path)
        if other is not None:
            raise UsageError(f"{what} {path}: is {other} as well, and would replace it; name another file")
        taken.add(what, path)


def named(settings: Settings, **sources: Any) -> list[Named]:
    """The files that a run reads: those of ``sources``, by what they are to it, each a path, several, or something else
    to be left out, and those that the settings name."""
    known = {entry.name: entry.path for entry in catalogue()}
    start = None if settings.init in STARTS else settings.init
    of_settings = {"start picture": start, "weights": known.get(settings.weights or "vgg19", settings.weights)}
    found: list[Named] = []
    for what, given in {**of_settings, **sources}.items():
        for one in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(one, (str, os.PathLike)):
                found.append((f"the {what}", os.fsdecode(one)))
    return found


class _Taken:
    """Files that a run has a use for, and what they are to it."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], str] = {}
        self._names: dict[str, list[tuple[str, bool]]] = {}  # and whether there is such a file
        self._folders: dict[str, str] = {}  # those that files lie in

    def add(self, what: str, path: str | Path, *, read: bool = False) -> None:
        name, folders, file = _place(path)
        if read and file is None:  # the error is to be that of reading it
            return
        if file is not None:
            self._files[file] = what
        self._names.setdefault(name, []).append((what, file is not None))
        self._folders |= dict.fromkeys(folders, what)

    def find(self, path: str | Path) -> str | None:
        """What the file is already, or what lies in the folder of this name, or is a folder that it lies in."""
        name, folders, file = _place(path)
        if file in self._files:
            return self._files[file]
        same = [what for what, there in self._names.get(name, []) if not (there and file is not None)]
        around = [what for folder in folders for what, _ in self._names.get(folder, [])]
        inside = [self._folders[name]] if name in self._folders else []
        return next(iter(same + inside + around), None)


def _place(path: str | Path) -> tuple[str, list[str], tuple[int, int] | None]:
    """The name of a path and those of the folders it lies in, in a form to compare; what tells the file from others."""
    try:
        real = Path(os.path.realpath(path))
        found = real.stat() if real.is_file() else None
    except (OSError, ValueError):  # no name that a file could have
        real, found = Path(path).absolute(), None
    name, *folders = (unicodedata.normalize("NFC", str(one)).casefold() for one in (real, *real.parents))
    return name, folders, None if found is None else (found.st_dev, found.st_ino)


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
    try:
        common = Path(os.path.commonpath([path, folder]))
    except ValueError:  # on two disks
        return path.name
    try:
        above = common in Path.home().parents
    except RuntimeError:  # a user without a home
        above = False
    if above or common == Path(common.anchor):
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
