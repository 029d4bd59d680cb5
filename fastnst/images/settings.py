"""The settings a picture was made with, written into its file as JSON and read back.

PNG holds them in a text chunk named "fastnst". JPEG, WebP, AVIF and TIFF hold them in ImageDescription (EXIF and TIFF
tag 270) and JPEG 2000 as its comment, after a mark that tells them from other people's captions; BMP has no room for
them. The JSON is ASCII: no reader can mistake its encoding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import ExifTags

from fastnst.errors import UsageError
from fastnst.images.decoding import damage, identify, opened

KEY = "fastnst"
MARK = "fastnst "
LIMIT = 60_000
"""Bytes of JSON at most: the EXIF block of a JPEG holds 65533 bytes in all."""
_ANY = 1 << 28
"""Pixels: of a WebP at most. None is decoded."""


def to_json(settings: Mapping[str, object]) -> str:
    """Settings as one line of JSON; paths become strings. Raises UsageError for what JSON cannot hold."""
    try:
        text = json.dumps(dict(settings), default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"settings: expected values that JSON can hold ({error})") from error
    if len(text) > LIMIT:
        raise UsageError(f"settings: expected at most {LIMIT} bytes of JSON, got {len(text)}")
    return text


def from_json(text: object) -> dict[str, object] | None:
    """What ``to_json`` wrote; None for anything else."""
    if not isinstance(text, str) or len(text) > LIMIT:
        return None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def read_settings(path: str | os.PathLike[str]) -> dict[str, object] | None:
    """Return the settings that ``save`` wrote into the file, or None if it holds none.

    Only the header is read and only JSON is parsed; the content is as trustworthy as the file.
    Raises ImageError if the file is missing or not an image.
    """
    path = Path(path)
    with opened(path) as stream, damage(path):
        image = identify(stream, path, _ANY)
        if image.format == "PNG":
            return from_json(image.info.get(KEY))
        if image.format == "JPEG2000":
            comment = image.info.get("comment", b"")
            text = comment.decode("ascii", "replace") if isinstance(comment, bytes) else comment
            return _marked(text)
        try:
            text = image.getexif().get(ExifTags.Base.ImageDescription)
        except Exception:  # a broken EXIF block holds no settings
            return None
    return _marked(text)


def _marked(text: object) -> dict[str, object] | None:
    return from_json(text[len(MARK) :]) if isinstance(text, str) and text.startswith(MARK) else None


def _plain(value: object) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise TypeError(f"{type(value).__name__} is not one of them")
