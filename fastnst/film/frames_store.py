"""The folder of the frames made so far, from which a film continues after it was ended.

Each frame is a PNG file that appears complete or not at all. The next frame starts from the file and not from what was
in memory, so a film that was ended and continued has the bits of one that was not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastnst import images
from fastnst.errors import ImageError, UsageError
from fastnst.files import replacing
from fastnst.images import Picture

RECORD = "film.json"
SUFFIX = ".frames"


class FrameStore:
    """Frames by kind and number in a folder: ``content``, ``mask_1`` and so on, and ``pass_1`` and so on.

    Args:
        folder: the folder; it is created by :meth:`begin`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, identity: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """Open the folder for a film of this identity.

        Returns its record; that of a new film has the identity alone. Raises UsageError if the folder holds
        frames of another film or other settings and not ``force``, or something else than frames.
        """
        record = self._record()
        if record is not None and record.get("identity") == dict(identity) and not force:
            return record
        if record is not None and not force:
            changed = sorted(
                name for name in {*identity, *record["identity"]} if record["identity"].get(name) != identity.get(name)
            )
            raise UsageError(
                f"{self.folder}: holds frames of another film or other settings ({', '.join(changed)}); "
                "give the same ones to continue it, replace it with --force, or name another output"
            )
        if record is None and self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder}: exists and holds no frames of fastnst; name another output")
        if record is not None:
            shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ImageError(f"{self.folder}: cannot be created ({error.strerror})") from error
        self.write_record(identity)
        return {"identity": dict(identity)}

    def record(self) -> dict[str, Any]:
        """The record of the film. Raises ImageError if there is none."""
        record = self._record()
        if record is None:
            raise ImageError(f"{self.folder}: the record {RECORD} is missing or damaged; begin again with --force")
        return record

    def write_record(self, identity: Mapping[str, Any], **facts: Any) -> None:
        """Write the record of the film."""
        path = self.folder / RECORD
        try:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps({"identity": dict(identity), **facts}, indent=1), encoding="utf-8")
        except OSError as error:
            raise ImageError(f"{path}: cannot be written ({error.strerror})") from error

    def path(self, kind: str, number: int) -> Path:
        """The file of a frame."""
        return self.folder / kind / f"{number:06d}.png"

    def has(self, kind: str, number: int) -> bool:
        """Whether the frame is there."""
        return self.path(kind, number).is_file()

    def read(self, kind: str, number: int) -> Picture:
        """The frame. Raises ImageError."""
        return images.load(self.path(kind, number), max_pixels=2**40)

    def write(self, kind: str, number: int, picture: Picture) -> None:
        """Write a frame. Raises ImageError."""
        images.save(self.path(kind, number), picture.pixels, alpha=picture.alpha, parents=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self) -> dict[str, Any] | None:
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("identity"), dict) else None
