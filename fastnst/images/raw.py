"""Finding the large image in a TIFF whose first directory is a thumbnail, as in camera raw and some scans.

Camera raw (NEF, DNG, CR2, ARW, PEF) is TIFF. In addition to the sensor data, which needs a raw converter, it contains
previews in the chain of directories or as SubIFDs, often the smallest first. Tags: TIFF 6.0, TIFF Technical Note 1
(SubIFDs), DNG 1.7.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

from fastnst.errors import ImageError

log = logging.getLogger("fastnst")

# fmt: off
SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)
# fmt: on
ADVICE = "develop it to TIFF or JPEG first, with darktable or rawpy for instance"

_KIND, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 254, 256, 257, 259, 262, 274
_OFFSETS, _LENGTHS, _SUBIFDS, _JPEG, _JPEG_LENGTH, _DNG = 273, 279, 330, 513, 514, 50706
_REDUCED, _MASK = 1, 4
_SENSOR = (32803, 34892)  # color filter arrays, and linear data that is not rendered
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_LIMIT = 32
"""The most directories, and values of a tag, that are read; raw files have up to ten."""


class Page(NamedTuple):
    """An image of a TIFF; ``stream`` is a file that contains it alone, None if Pillow cannot read it."""

    width: int
    height: int
    stream: BinaryIO | None = None
    orientation: int = 1
    sensor: bool = False

    @property
    def area(self) -> int:
        return self.width * self.height


class _Directory(NamedTuple):
    offset: int
    tags: Mapping[int, tuple[int, ...]]
    next: int
    within: bool  # a SubIFD


def large_picture(stream: BinaryIO, path: Path) -> Page | None:
    """Return the image of which the first directory of a TIFF is a thumbnail.

    None if the first directory is the image itself, and for other files. Raises ImageError if no image has a quarter
    of the sensor data's pixels.
    """
    stream.seek(0)
    header = stream.read(16)
    if header[:4] not in TiffImagePlugin.PREFIXES:
        return None
    try:
        first, *others = _directories(stream, header)
        if not _may_be_thumbnail(first, others):
            return None
        stream.seek(0)
        data = stream.read()
        own, *pages = [_page(directory, data, header) for directory in (first, *others)]
    except (OSError, ValueError):  # a damaged directory: decoding reports it
        return None
    if not _number(first.tags, _KIND) & _REDUCED and _DNG not in first.tags:
        # The first is not marked as reduced, so a later page may be a different image.
        pages = [page for page, entry in zip(pages, others, strict=True) if entry.within or _enlarges(page, own)]
    readable = [page for page in (own, *pages) if page.stream is not None]
    best = max(readable, key=lambda page: page.area, default=own)
    sensor = max((page for page in (own, *pages) if page.sensor), key=lambda page: page.area, default=best)
    if 4 * best.area < sensor.area or best.sensor:
        raise ImageError(
            f"{path}: is camera raw, {sensor.width} x {sensor.height} of sensor data with no preview of half the size "
            f"or more; {ADVICE}"
        )
    if best.area < sensor.area:
        sizes = best.width, best.height, sensor.width, sensor.height
        message = (
            "%s: is camera raw; its preview of %d x %d is used instead of the sensor data of %d x %d; otherwise %s"
        )
        log.warning(message, path, *sizes, ADVICE)
    if best.stream is None or (best is own and _jpeg(first.tags, data) is None):
        return None
    return best._replace(orientation=best.orientation or _number(first.tags, _ORIENTATION))


def _directories(stream: BinaryIO, header: bytes) -> list[_Directory]:
    """Return the directories of the file and their SubIFDs, as far as they can be read."""
    order, big = "<" if header[:2] == b"II" else ">", _big(header)
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), header, 8 if big else 4)
    found: list[_Directory] = []
    waiting = [(at, False)]
    while waiting and len(found) < _LIMIT:
        at, within = waiting.pop(0)
        if not at or at in [directory.offset for directory in found]:
            continue
        try:
            directory = _read(stream, at, order, big, within)
        except (OSError, struct.error, OverflowError, ValueError):  # a damaged directory ends its chain
            continue
        if not found or not _number(directory.tags, _KIND) & _MASK:
            found.append(directory)
        waiting += [(below, True) for below in directory.tags.get(_SUBIFDS, ())]
        if not within:
            waiting.append((directory.next, False))
    return found


def _read(stream: BinaryIO, at: int, order: str, big: bool, within: bool) -> _Directory:
    """Read the integer tags with few values of the directory at offset ``at``."""

    def unpack(kind: str, data: bytes, start: int = 0) -> tuple[Any, ...]:
        return struct.unpack_from(order + kind, data, start)

    entry, room = ("HHQ8s", 8) if big else ("HHI4s", 4)
    stream.seek(at)
    (count,) = unpack("Q", stream.read(8)) if big else unpack("H", stream.read(2))
    size = struct.calcsize("=" + entry)
    table = stream.read(min(count, 1 << 12) * size + room)
    tags = {}
    for i in range(min(count, len(table) // size)):
        tag, kind, number, value = unpack(entry, table, i * size)
        if kind in _TYPES and 0 < number <= _LIMIT:
            values = f"{number}{_TYPES[kind]}"
            length = struct.calcsize("=" + values)
            if length > room:
                stream.seek(unpack("Q" if big else "I", value)[0])
                value = stream.read(length)
            tags[tag] = unpack(values, value)
    (following,) = unpack("Q" if big else "I", table, count * size) if len(table) == count * size + room else (0,)
    return _Directory(at, tags, following, within)


def _may_be_thumbnail(first: _Directory, others: list[_Directory]) -> bool:
    """Whether the first directory may be a thumbnail, decided without reading images."""
    marked = _number(first.tags, _KIND) & _REDUCED or _DNG in first.tags
    size = [_number(first.tags, tag) for tag in (_WIDTH, _HEIGHT)]
    return bool(others) and bool(
        marked
        or any(directory.within and _JPEG in directory.tags for directory in others)
        or any(_number(directory.tags, _WIDTH) > size[0] for directory in others)
    )


def _page(directory: _Directory, data: bytes, header: bytes) -> Page:
    tags = directory.tags
    width, height = (_number(tags, tag) for tag in (_WIDTH, _HEIGHT))
    if _number(tags, _PHOTOMETRIC) in _SENSOR:
        return Page(width, height, sensor=True)
    image: ImageFile.ImageFile
    try:
        jpeg = _jpeg(tags, data)
        if jpeg is not None:
            stream = io.BytesIO(jpeg)
            image = JpegImagePlugin.JpegImageFile(stream, "")
        else:
            stream = _with_first_directory(directory.offset, data, header)
            image = TiffImagePlugin.TiffImageFile(stream, "")
    except Exception:  # not supported (14-bit lossless JPEG, a proprietary compression) or damaged
        return Page(width, height)
    return Page(image.width, image.height, stream, _number(tags, _ORIENTATION))


def _jpeg(tags: Mapping[int, tuple[int, ...]], data: bytes) -> bytes | None:
    """Return a directory's JPEG file: from tags of TIFF 6.0 that Pillow ignores, or from its only strip."""
    at, length = _number(tags, _JPEG), _number(tags, _JPEG_LENGTH)
    if _number(tags, _COMPRESSION) == 6 and len(tags.get(_OFFSETS, ())) == 1:
        at, length = _number(tags, _OFFSETS), _number(tags, _LENGTHS)
    jpeg = data[at : at + length]
    return jpeg if jpeg.startswith(b"\xff\xd8\xff") else None


def _with_first_directory(offset: int, data: bytes, header: bytes) -> io.BytesIO:
    """Return the file with the directory at ``offset`` as its first."""
    order: Literal["little", "big"] = "little" if header[:2] == b"II" else "big"
    at, size = (8, 8) if _big(header) else (4, 4)
    return io.BytesIO(data[:at] + offset.to_bytes(size, order) + data[at + size :])


def _enlarges(page: Page, own: Page) -> bool:
    """Whether the page has the proportions of ``own`` and at least twice its size."""
    return page.width >= 2 * own.width > 0 and abs(page.width * own.height - page.height * own.width) <= max(
        page.width, page.height
    )


def _big(header: bytes) -> bool:
    return header[2] == 43  # Pillow reads BigTIFF in this byte order only


def _number(tags: Mapping[int, tuple[int, ...]], tag: int) -> int:
    """Return the first value of a tag, 0 if it is absent."""
    return tags[tag][0] if tag in tags else 0
