"""The settings of a run in the film that it produced, read back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastnst import images
from fastnst.film.animations import is_animation
from fastnst.film.folder import find
from fastnst.film.opening import open_container, open_file
from fastnst.images.formats import decoder_errors, identify
from fastnst.images.metadata import PREFIX, from_json

_ANY_SIZE = 1 << 32  # nothing is decoded here


def read_film_settings(path: str | os.PathLike[str]) -> dict[str, object] | None:
    """Return the settings that :class:`FilmWriter` wrote into a film.

    Only headers are read and only JSON is parsed; the content is as trustworthy as the file.

    Args:
        path: a film of any kind; of a folder, the first picture counts.

    Returns:
        The settings, or None if the film holds none.

    Raises:
        ImageError: a file that is missing or no film.

    Example::

        print(read_film_settings("out.mp4"))
    """
    path = Path(path)
    if path.is_dir():
        files = find(path)
        return images.read_settings(files[0]) if files else None
    with open_file(path) as stream:
        head = stream.read(16)
        if head[:4] == b"GIF8":
            with decoder_errors(path):
                return _settings(identify(stream, path, _ANY_SIZE).info)
    if is_animation(head):
        return images.read_settings(path)
    with open_container(path, None) as container:
        return _settings(container.metadata)


def _settings(found: Mapping[Any, Any]) -> dict[str, object] | None:
    """The settings in the comment of a file; Matroska spells the name in capitals."""
    comment = next((value for key, value in found.items() if str(key).lower() == "comment"), "")
    text = comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
    return from_json(text[len(PREFIX) :]) if text.startswith(PREFIX) else None
