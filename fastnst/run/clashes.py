"""Checks that no file that a run writes is one that it reads, or one that it writes as something else."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastnst.config.ranges import STARTS
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.weights.entries import catalog

Named = tuple[str, "str | Path"]
"""The role of a file in a run, and the file, such as ``("the content", "photo.jpg")``."""


def refuse_clashes(written: Sequence[Named], read: Iterable[Named]) -> None:
    """Raise UsageError if a file to write is one that is read, or is written twice.

    Files are compared after resolving links. Names that differ only in case are the same unless both files exist. A
    folder that is written is replaced or removed as a whole, so it clashes with every file inside it.
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
    """The files that a run reads: the paths among ``sources``, by role, and those that the settings name.

    A source is a path, a list of paths, or something else, which is ignored.
    """
    known = {entry.name: entry.path for entry in catalog()}
    start = None if settings.init in STARTS else settings.init
    of_settings = {"start picture": start, "weights": known.get(settings.weights or "vgg19", settings.weights)}
    found: list[Named] = []
    for what, given in {**of_settings, **sources}.items():
        for one in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(one, (str, os.PathLike)):
                found.append((f"the {what}", os.fsdecode(one)))
    return found


class _Taken:
    """Files that are in use, with their roles."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], str] = {}
        self._names: dict[str, list[tuple[str, bool]]] = {}  # and whether the file exists
        self._folders: dict[str, str] = {}  # folders of files in use

    def add(self, what: str, path: str | Path, *, read: bool = False) -> None:
        name, folders, file = _place(path)
        if read and file is None:  # reading it will raise the error
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
