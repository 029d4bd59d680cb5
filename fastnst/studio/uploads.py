"""Pictures of a visitor: uploads, the demo's pictures, and their records."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO

from fastnst.errors import FastnstError, ImageError, printable
from fastnst.files import ASSETS
from fastnst.studio.guard import UPLOAD_BYTES
from fastnst.studio.inspector import Inspector
from fastnst.studio.store import PICTURE, Visitor, plain_name, remove, write_json

ORIGINAL, PREVIEW = "original", "preview.png"
DEMO = ("demo_photo.jpg", "demo_painting.jpg")
VISITOR_BYTES = 8 * 2**30  # of all pictures of a visitor


def add_picture(visitor: Visitor, inspector: Inspector, name: str, stream: BinaryIO, kind: str) -> dict[str, Any]:
    """Store a picture and return its record. Raises ImageError, and leaves nothing, if it cannot be read."""
    if sum(one["bytes"] for one in visitor.all_pictures()) > VISITOR_BYTES:
        raise ImageError(f"your pictures take more than {VISITOR_BYTES // 2**30} GB; delete some first")
    folder = visitor.new_picture()
    try:
        return _add(folder, inspector, plain_name(name), stream, kind)
    except (OSError, FastnstError) as error:
        remove(folder)
        reason = str(error).removeprefix(f"{_path(folder, plain_name(name))}: ")
        raise ImageError(f"{printable(plain_name(name), 100)}: {reason}") from error
    except BaseException:
        remove(folder)
        raise


def _path(folder: Path, name: str) -> Path:
    """The file of a picture: the name as far as every system takes it, as pictures made from it record it."""
    return folder / ORIGINAL / (re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[-80:] or "picture")


def _add(folder: Path, inspector: Inspector, name: str, stream: BinaryIO, kind: str) -> dict[str, Any]:
    path = _path(folder, name)
    path.parent.mkdir()
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file)
    if path.stat().st_size > UPLOAD_BYTES:
        raise ImageError(f"has {path.stat().st_size} bytes; expected at most {UPLOAD_BYTES}")
    facts = inspector.picture(str(path), str(folder / PREVIEW))
    record = {
        "id": folder.name,
        "name": name,
        "kind": kind,
        "bytes": path.stat().st_size,
        "created": time.time(),
        "file": f"{ORIGINAL}/{path.name}",
        **facts,
    }
    write_json(folder / PICTURE, record)
    return record


def demo_pictures(visitor: Visitor, inspector: Inspector) -> list[dict[str, Any]]:
    """The photograph and the painting that come with fastnst, added to the pictures of a visitor once."""
    found = []
    for name in DEMO:
        path = ASSETS / name
        size = path.stat().st_size
        known = [one for one in visitor.all_pictures() if one["name"] == name and one["bytes"] == size]
        if known:
            found.append(known[0])
        else:
            with path.open("rb") as stream:
                found.append(add_picture(visitor, inspector, name, stream, "picture"))
    return found
