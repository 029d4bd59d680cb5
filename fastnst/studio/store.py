"""The studio's folder: pictures and runs of each visitor, as files that survive a restart.

``FOLDER/visitors/VISITOR/pictures/ID/`` has a picture, its preview and ``picture.json``; ``.../jobs/ID/`` has a run.
Names of folders are made here.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastnst.errors import UsageError
from fastnst.files import replacing

ID = re.compile("[a-z0-9]{16}")
_ALPHABET = string.ascii_lowercase + string.digits
MOST_PICTURES = 2000
MOST_JOBS = 2000
SHOWN_SIDE = 1024
"""Longest side of previews and live pictures."""
PICTURE, JOB = "picture.json", "job.json"


def new_id() -> str:
    """A random identifier."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(16))


def write_json(path: Path, value: object) -> None:
    """Write a file atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is none or it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def plain_name(name: str) -> str:
    """The name of an upload to show: without folders and characters that are not printable, at most 100 characters."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(char for char in last if char.isprintable()).strip()[-100:] or "picture"


class Visitor:
    """The files of one visitor, in a folder that is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures, self.jobs = folder / "pictures", folder / "jobs"

    def new_picture(self) -> Path:
        """A new folder for a picture. Raises UsageError if there are too many."""
        return _new_folder(self.pictures, MOST_PICTURES, "pictures")

    def new_job(self) -> Path:
        """A new folder for a run. Raises UsageError if there are too many."""
        return _new_folder(self.jobs, MOST_JOBS, "runs")

    def picture(self, identifier: str) -> dict[str, Any] | None:
        """What is known of a picture; None if there is no such picture."""
        return read_json(self.pictures / identifier / PICTURE) if ID.fullmatch(identifier) else None

    def picture_file(self, identifier: str) -> Path | None:
        """The file of a picture as it was uploaded."""
        found = self.picture(identifier)
        return None if found is None else self.pictures / identifier / found["file"]

    def all_pictures(self) -> list[dict[str, Any]]:
        """All pictures, newest first."""
        found = [read_json(folder / PICTURE) for folder in _folders(self.pictures)]
        return sorted((one for one in found if one is not None), key=lambda one: -one["created"])

    def remove_picture(self, identifier: str) -> None:
        remove(self.pictures / identifier)

    def job_folders(self) -> Iterator[Path]:
        """The folders of runs whose record can be read."""
        return (folder for folder in _folders(self.jobs) if (folder / JOB).is_file())


class Store:
    """The folder of a studio."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._visitors = folder / "visitors"
        self._known: dict[str, Visitor] = {}

    def visitor(self, name: str) -> Visitor:
        """A visitor by the name of the folder."""
        assert ID.fullmatch(name)
        return self._known.setdefault(name, Visitor(self._visitors / name))

    def visitors(self) -> list[Visitor]:
        """The visitors who have left something."""
        return [self.visitor(folder.name) for folder in _folders(self._visitors)]


def remove(folder: Path) -> None:
    """Remove a folder: its record first, so that what a crash leaves is no picture and no run."""
    for name in (PICTURE, JOB):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if ID.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def _new_folder(parent: Path, most: int, what: str) -> Path:
    if len(_folders(parent)) >= most:
        raise UsageError(f"there are {most} {what} already; delete some first")
    folder = parent / new_id()
    folder.mkdir(parents=True, mode=0o700)
    return folder
