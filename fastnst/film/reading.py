"""``open_film``: open a film of any kind for reading."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from fastnst.errors import UsageError, nearest
from fastnst.film.animating import WRITERS
from fastnst.film.animations import AnimationFilm, is_animation
from fastnst.film.codecs import CONTAINERS
from fastnst.film.containers import ContainerFilm
from fastnst.film.film import Film, FilmInfo, Frame
from fastnst.film.folder import FolderFilm
from fastnst.film.opening import open_file
from fastnst.images.scaling import check_integer

__all__ = ["BROKEN", "Film", "FilmInfo", "Frame", "is_film", "open_film"]

BROKEN = ("refuse", "skip")
"""What to do with broken frames."""


def open_film(path: str | os.PathLike[str], *, max_pixels: int | None = None, broken: str = "refuse") -> Film:
    """Open a film for reading: a container, an animation, or a folder of pictures.

    Rotation is applied, pixels are made square, and colors are converted to RGB by the matrix and range that the film
    names. The packets of a container are read once, without decoding, to number the frames and find their times.

    Args:
        path: an MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, Ogg or WMV file; a GIF, WebP or PNG; a folder.
        max_pixels: limit on the pixels of a frame, instead of ``PIL.Image.MAX_IMAGE_PIXELS``.
        broken: ``"refuse"`` raises an error for a broken frame and for a film that ends early; ``"skip"`` leaves out
            broken frames, with a warning that gives number and time, and reads what there is.

    Returns:
        A :class:`Film`.

    Raises:
        ImageError: a file that is missing, is no film, has no frames, is too large, names other files, or ends early.
        UsageError: an invalid argument.

    Example::

        with open_film("clip.mp4") as film:
            print(film.info.width, film.info.height, film.info.frame_rate)
    """
    if max_pixels is not None:
        check_integer("max_pixels", max_pixels)
    if broken not in BROKEN:
        raise UsageError(f"broken: expected {' or '.join(BROKEN)}, got {broken!r}{nearest(str(broken), BROKEN)}")
    path, skip = Path(path), broken == "skip"
    if path.is_dir():
        return FolderFilm(path, max_pixels, skip)
    with open_file(path) as stream:
        head = stream.read(16)
    return (AnimationFilm if is_animation(head) else ContainerFilm)(path, max_pixels, skip)


def is_film(path: object) -> bool:
    """Whether ``path`` names a folder, a container, or an animation of several frames, and not a still picture."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    file = Path(path)
    if file.is_dir() or file.suffix.lower() in CONTAINERS:
        return True
    try:
        with Image.open(file) as picture:
            return getattr(picture, "n_frames", 1) > 1 and file.suffix.lower() in WRITERS
    except (OSError, ValueError, SyntaxError):
        return False
