"""What the headers of containers claim, held against the size of the file before FFmpeg builds tables from them.

The index of an MP4 or MOV has one entry per sample, and FFmpeg allocates it from a count in the header, which may be
anything. The boxes are those of ISO/IEC 14496-12: a size, a name, and content.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastnst.errors import ImageError

_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_TOP = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"uuid", b"sidx")
_LATER = (*_TOP, b"meta", b"mfra", b"emsg", b"prft", b"pdin", b"udta")
_MOST_BOXES = 100_000


class Box(NamedTuple):
    """A box: its name, where its content starts, and where it should end."""

    name: bytes
    start: int
    end: int


def check_boxes(stream: BinaryIO, head: bytes, path: Path) -> None:
    """Raise ImageError for an MP4 or MOV whose tables would have more entries than the file has bytes."""
    if head[4:8] not in _TOP:
        return
    size = stream.seek(0, 2)
    samples = 0
    for box in _walk(stream, 0, size):
        if box.name == b"stsz":
            samples += _samples(stream, box)
        if samples > size:
            raise ImageError(f"{path}: claims {samples} frames or more in a file of {size} bytes; expected a film")


def _samples(stream: BinaryIO, box: Box) -> int:
    """The number of samples that a table of sizes claims."""
    stream.seek(box.start + 4)
    fields = stream.read(8)
    return struct.unpack(">II", fields)[1] if len(fields) == 8 else 0


def _walk(stream: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes from ``start`` to ``end``, and those inside them."""
    waiting, count = [(start, end)], 0
    while waiting and count < _MOST_BOXES:
        at, limit = waiting.pop()
        while at + 8 <= limit and count < _MOST_BOXES:
            count += 1
            box = _box(stream, at, limit)
            if box is None:
                break
            yield box
            if box.name in _PARENTS:
                waiting.append((box.start, min(box.end, limit)))
            at = box.end


def _box(stream: BinaryIO, at: int, limit: int) -> Box | None:
    """The box at ``at``; None where there is none. A size of 0 reaches to the end, one of 1 is followed by 64 bits."""
    stream.seek(at)
    header = stream.read(16)
    if len(header) < 8:
        return None
    (length,), content = struct.unpack(">I", header[:4]), 8
    if length == 1 and len(header) == 16:
        (length,), content = struct.unpack(">Q", header[8:]), 16
    elif length == 0:
        length = limit - at
    return None if length < content else Box(header[4:8], at + content, at + length)


def is_cut(stream: BinaryIO) -> bool:
    """Whether a file is shorter than its headers say: MP4, MOV, Matroska, WebM and AVI."""
    stream.seek(0)
    head = stream.read(4096)
    size = stream.seek(0, 2)
    if head[4:8] in _TOP:
        at = 0
        while (box := _box(stream, at, size)) is not None and box.name in _LATER:
            at = box.end
        return at > size
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little") > size
    return head[:4] == b"\x1a\x45\xdf\xa3" and _matroska_end(head) > size


def _matroska_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends (RFC 8794, RFC 9559); 0 if it does not say."""
    length, at = _ebml_number(head, 4)
    at += length or 0
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, start = _ebml_number(head, at + 4)
    return 0 if length is None else start + length


def _ebml_number(data: bytes, at: int) -> tuple[int | None, int]:
    """A number of EBML and where it ends; None for one that is unknown."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width
