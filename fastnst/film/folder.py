"""A folder of pictures as a film: numbered files in, numbered PNG out."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from fastnst import images
from fastnst.errors import ImageError
from fastnst.film.film import Film, FilmInfo, Frame
from fastnst.images.formats import decoder_errors, identify, open_file
from fastnst.images.guards import check_size

log = logging.getLogger("fastnst")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".jp2", ".ppm")
RATE = Fraction(25)
"""Frames per second of a folder, which does not say."""
NAME = "frame_{:06d}.png"
_OURS = re.compile(r"frame_\d{6,}\.png")
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)")
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)
_MOST_NAMED = 5


class FolderFilm(Film):
    """The pictures of a folder in natural order: ``frame_2`` before ``frame_10``.

    Args:
        path: the folder.
        max_pixels: limit on the pixels of a picture, instead of ``PIL.Image.MAX_IMAGE_PIXELS``.
        skip: whether missing numbers and broken pictures are left out with a warning.
        rate: frames per second.
    """

    def __init__(self, path: Path, max_pixels: int | None, skip: bool, rate: Fraction = RATE) -> None:
        self._path, self._max_pixels, self._skip = path, max_pixels, skip
        self._files = find(path)
        if not self._files:
            raise ImageError(f"{path}: holds no pictures; expected numbered files ending in {', '.join(SUFFIXES)}")
        self._check_gaps()
        (width, height), alpha = self._look_at_all()
        count = len(self._files)
        self.info = FilmInfo(
            width=width,
            height=height,
            frame_rate=rate,
            count=count,
            has_alpha=alpha,
            duration=float(count / rate),
            path=path,
            time_base=Fraction(1, rate.numerator),
        )

    def _check_gaps(self) -> None:
        missing = gaps([file.name for file in self._files])
        if not missing:
            return
        named = ", ".join(missing[:_MOST_NAMED]) + (", ..." if len(missing) > _MOST_NAMED else "")
        text = f"{self._path}: lacks the frames {named}"
        if not self._skip:
            raise ImageError(f"{text}; expected numbers without gaps, or go on with broken='skip' (--broken skip)")
        log.warning("%s; the frames around them follow each other", text)

    def _look_at_all(self) -> tuple[tuple[int, int], bool]:
        """Width and height, and whether some picture may be transparent. Headers alone are read."""
        first, alpha = None, False
        for file in self._files:
            try:
                with open_file(file) as stream, decoder_errors(file):
                    image = identify(stream, file, self._max_pixels)
                    check_size(str(file), image.width, image.height, self._max_pixels)
                    turned = image.getexif().get(_ORIENTATION) in _TURNED
                    alpha = alpha or image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            except ImageError as error:
                if not self._skip:
                    raise
                log.warning("%s; skipped", error)
                continue
            size = (image.height, image.width) if turned else (image.width, image.height)
            first = first or size
            if size != first:
                raise ImageError(
                    f"{file}: is {size[0]} x {size[1]} pixels, but the frames before it {first[0]} x {first[1]}; "
                    "expected frames of one size"
                )
        if first is None:
            raise ImageError(f"{self._path}: none of its pictures can be read; expected a folder of frames")
        return first, alpha

    def _read(self, first: int) -> Iterator[Frame]:
        rate = self.info.frame_rate
        for number, file in enumerate(self._files[first:], first):
            try:
                picture = images.load(file, max_pixels=self._max_pixels)
            except ImageError as error:
                if not self._skip:
                    raise
                log.warning("%s; frame %d is skipped", error, number)
                continue
            if picture.size != (self.info.height, self.info.width):
                raise ImageError(f"{file}: its size differs from that of the first frame; expected frames of one size")
            yield Frame(number, number / rate, 1 / rate, picture)


def find(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order. Raises ImageError."""
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.name[:1] != "."]
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror}); expected a folder of frames") from error
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that orders numbers in names by their value."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), part) if i % 2 else (-1, part) for i, part in enumerate(parts)]


def gaps(names: list[str]) -> list[str]:
    """The numbers that are missing in names such as ``frame_0001.png``; none if the names are of several kinds.

    A constant step, such as every second frame, has no gaps.
    """
    found = [_last_number(name) for name in names]
    if len(names) < 3 or None in found or len({one[0] for one in found if one}) > 1:
        return []
    numbers = [one[1] for one in found if one]
    step = min(b - a for a, b in itertools.pairwise(numbers))
    if step <= 0:
        return []
    missing = []
    for a, b in itertools.pairwise(numbers):
        if b - a > step:
            missing.append(str(a + step) if b - a == 2 * step else f"{a + step} to {b - step}")
    return missing


def _last_number(name: str) -> tuple[tuple[str, str], int] | None:
    stem = Path(name).stem
    found = re.fullmatch(r"(.*?)(\d{1,18})(\D*)", stem)
    return None if found is None else ((found[1], found[3]), int(found[2]))


def check_folder(path: Path) -> None:
    """Raise ImageError unless frames may be written: there is no such folder, or it holds nothing but our frames."""
    if path.is_file():
        raise ImageError(f"{path}: is a file; expected a folder of frames, or a name with a suffix such as .mp4")
    if not path.is_dir():
        return
    others = [file.name for file in path.iterdir() if _OURS.fullmatch(file.name) is None]
    if others:
        raise ImageError(f"{path}: is a folder that holds other files ({others[0]}); name a new folder for the frames")


class FolderWriter:
    """Writes frames as PNG into a folder beside ``path``, which :meth:`put` moves there.

    Args:
        path: the folder.
        bits: 8 or 16 bits per channel.
        settings: stored in each picture; None for nothing.
    """

    def __init__(self, path: Path, bits: int, settings: Mapping[str, object] | None) -> None:
        self._path, self._bits, self._settings, self._count = path, bits, settings, 0
        self._temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.part")
        self._temporary.mkdir()

    def add(self, pixels: Tensor, alpha: Tensor | None, time: Fraction, duration: Fraction | None) -> None:
        """Write a frame. Its time is not recorded."""
        file = self._temporary / NAME.format(self._count)
        images.save(file, pixels, alpha=alpha, settings=self._settings, bits=self._bits)
        self._count += 1

    def finish(self) -> None:
        """Move the frames into place; a folder with frames of an earlier film is removed."""
        old = self._temporary.with_suffix(".old")
        if self._path.is_dir():
            self._path.rename(old)
        try:
            self._temporary.rename(self._path)
        except OSError:
            if old.is_dir():
                old.rename(self._path)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """Remove what was not moved."""
        shutil.rmtree(self._temporary, ignore_errors=True)
