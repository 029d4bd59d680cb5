"""The settings of a run, written as JSON into the image file that it produced, and read back.

PNG stores them in a text chunk named "fastnst". JPEG, WebP, AVIF and TIFF store them in ImageDescription (EXIF and TIFF
tag 270) and JPEG 2000 in its comment, with a prefix that distinguishes them from other captions; BMP cannot store them.
The JSON is ASCII, so that its encoding is unambiguous.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from PIL import ExifTags

from fastnst.errors import UsageError
from fastnst.images.formats import identify
from fastnst.images.opening import FileSource, open_source

KEY = "fastnst"
PREFIX = "fastnst "
LIMIT = 60_000
"""The largest number of bytes of JSON; the EXIF block of a JPEG holds 65533 bytes in total."""
_ANY_SIZE = 1 << 28
"""A limit on pixels that every WebP is below; nothing is decoded here."""


def to_json(settings: Mapping[str, object]) -> str:
    """Return settings as one line of JSON, with paths as strings. Raises UsageError for other values than JSON's."""
    try:
        text = json.dumps(dict(settings), default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"settings: expected values that JSON can hold ({error})") from error
    if len(text) > LIMIT:
        raise UsageError(f"settings: expected at most {LIMIT} bytes of JSON, got {len(text)}")
    return text


def from_json(text: object) -> dict[str, object] | None:
    """Parse what ``to_json`` returned; None for anything else."""
    if not isinstance(text, str) or len(text) > LIMIT:
        return None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def read_settings(path: FileSource) -> dict[str, object] | None:
    """Return the settings that :func:`save` wrote into an image file.

    Only the header is read and only JSON is parsed; the content is as trustworthy as the file.

    Args:
        path: an image file: its path, its bytes, or a file object.

    Returns:
        The settings, or None if the file holds none.

    Raises:
        ImageError: the file is missing or not an image.

    Example:
        >>> import tempfile, torch
        >>> from fastnst import images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = images.save(f"{folder}/gray.png", torch.full((1, 3, 4, 4), 0.5), settings={"steps": 500})
        ...     images.read_settings(path)
        {'steps': 500}
    """
    with open_source(path) as (stream, name, _):
        image = identify(stream, name, _ANY_SIZE)
        if image.format == "PNG":
            return from_json(image.info.get(KEY))
        if image.format == "JPEG2000":
            comment = image.info.get("comment", b"")
            text = comment.decode("ascii", "replace") if isinstance(comment, bytes) else comment
            return _without_prefix(text)
        try:
            text = image.getexif().get(ExifTags.Base.ImageDescription)
        except Exception:  # a broken EXIF block holds no settings
            return None
    return _without_prefix(text)


def _without_prefix(text: object) -> dict[str, object] | None:
    return from_json(text[len(PREFIX) :]) if isinstance(text, str) and text.startswith(PREFIX) else None


def _plain(value: object) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise TypeError(f"{type(value).__name__} is not one of them")
