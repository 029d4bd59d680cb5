"""Writing animated GIF, WebP and PNG frame by frame. Pillow compresses each frame; the frames are joined here.

Pillow's own writers hold all frames until the end. The formats are those of the GIF89a specification, of RFC 9649
(WebP) and of the PNG specification, third edition, section 11.3.5 (APNG).
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, GifImagePlugin, Image, PngImagePlugin
from torch import Tensor

from fastnst.film.film import FilmInfo
from fastnst.film.palettes import TRANSPARENT, Palettes
from fastnst.film.pixels import quantize
from fastnst.images.metadata import KEY, PREFIX

log = logging.getLogger("fastnst")

LONGEST = {".gif": 65535, ".webp": 16383}
"""The longest side of a frame in each format."""


class _Box(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int


class AnimationWriter(ABC):
    """Writes an animation under a temporary name, which the caller renames.

    A frame is written when the next one tells how long it is shown, so two are in memory. The rectangle in which it
    differs from the frame before is stored.

    Args:
        temporary: the file to write.
        info: size, frame rate, alpha and loop of the film.
        quality: 1 to 100, for WebP; 100 is lossless.
        text: the settings, None for nothing.
        fast: prefer speed to size, for WebP and PNG.
    """

    ticks: int
    """Ticks per second."""
    shortest: int
    """The least ticks that players show a frame for."""

    def __init__(self, temporary: Path, info: FilmInfo, quality: int, text: str | None, fast: bool) -> None:
        self.info, self.quality, self.count, self.dropped = info, quality, 0, 0
        self.fast = fast
        self.loop = 0 if info.loop is None else info.loop
        self._before: NDArray[Any] | None = None
        self._waiting: tuple[NDArray[Any], int] | None = None
        self._end = 0
        self.file: BinaryIO = temporary.open("wb")
        self.begin(text)

    def add(self, pixels: Tensor, alpha: Tensor | None, time: Fraction, duration: Fraction | None) -> None:
        """Write the frame before, and keep this one until its duration is known."""
        tick = round(time * self.ticks)
        end = round((time + (duration or 1 / self.info.frame_rate)) * self.ticks)
        self._end = max(end, tick + self.shortest)
        if self._waiting is not None and tick - self._waiting[1] < self.shortest:
            self.dropped += 1
            return
        levels = quantize(pixels, alpha, 8)
        if self._waiting is not None:
            self._write(*self._waiting, tick)
        self._waiting = levels, tick

    def _write(self, levels: NDArray[Any], start: int, end: int) -> None:
        self.frame(levels, self._before, end - start)
        self._before, self.count = levels, self.count + 1

    def finish(self) -> None:
        """Write the last frame and the end of the file."""
        if self._waiting is not None:
            self._write(*self._waiting, self._end)
        if self.dropped:
            rate = self.ticks // self.shortest
            log.warning("%d frames are left out: this format shows at most %d a second", self.dropped, rate)
        self.end()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @abstractmethod
    def begin(self, text: str | None) -> None:
        """Write what precedes the frames."""

    @abstractmethod
    def frame(self, levels: NDArray[Any], before: NDArray[Any] | None, ticks: int) -> None:
        """Write a frame ``[H, W, 3 or 4]``, given the frame before."""

    @abstractmethod
    def end(self) -> None:
        """Write what follows the frames."""


def changed(levels: NDArray[Any], before: NDArray[Any] | None, even: bool = False) -> _Box:
    """The rectangle in which two frames differ, at least one pixel; the whole frame without one before."""
    height, width = levels.shape[:2]
    if before is None or before.shape != levels.shape:
        return _Box(0, 0, width, height)
    differs = levels != before
    differs = differs.any(axis=2) if differs.ndim == 3 else differs
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not len(rows):
        return _Box(0, 0, 1, 1)
    left, top = int(columns[0]), int(rows[0])
    if even:
        left, top = left & ~1, top & ~1
    return _Box(left, top, int(columns[-1]) + 1, int(rows[-1]) + 1)


class GifWriter(AnimationWriter):
    """GIF: palettes of :class:`Palettes`, times in hundredths of a second."""

    ticks, shortest = 100, 2

    def begin(self, text: str | None) -> None:
        self._palettes = Palettes(self.info.has_alpha)
        self._indices: NDArray[np.uint8] | None = None
        self.file.write(b"GIF89a" + struct.pack("<HHBBB", self.info.width, self.info.height, 0x70, 0, 0))
        if self.loop != 1:  # the number of repetitions after the first time, 0 for endlessly
            self.file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", max(self.loop - 1, 0)) + b"\0")
        if text is not None:
            data = (PREFIX + text).encode("ascii")
            blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
            self.file.write(b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")

    def frame(self, levels: NDArray[Any], before: NDArray[Any] | None, ticks: int) -> None:
        indices, palette, new = self._palettes.apply(levels[..., :3])
        alpha = levels.shape[2] == 4
        if alpha:
            indices = np.where(levels[..., 3] >= 128, indices, TRANSPARENT).astype(np.uint8)
        # A transparent pixel would let the frame before show through, so that frame is erased.
        box = changed(indices, None if new or alpha else self._indices)
        self._indices = indices
        image = Image.fromarray(np.ascontiguousarray(indices[box.top : box.bottom, box.left : box.right]), "P")
        image.putpalette(palette.tobytes())
        options: dict[str, Any] = {"duration": 10 * ticks, "include_color_table": True, "disposal": 1}
        if self.info.has_alpha:
            options |= {"transparency": TRANSPARENT, "disposal": 2}
        self.file.write(b"".join(GifImagePlugin.getdata(image, (box.left, box.top), **options)))

    def end(self) -> None:
        self.file.write(b";")


class PngWriter(AnimationWriter):
    """APNG: lossless, times in thousandths of a second."""

    ticks, shortest = 1000, 11
    _signature = b"\x89PNG\r\n\x1a\n"

    def begin(self, text: str | None) -> None:
        self._number = 0
        self.file.write(self._signature)
        kind = 6 if self.info.has_alpha else 2
        self._chunk(b"IHDR", struct.pack(">2I5B", self.info.width, self.info.height, 8, kind, 0, 0, 0))
        self._counts_at = self.file.tell()
        self._chunk(b"acTL", struct.pack(">2I", 0, self.loop))
        if text is not None:
            info = PngImagePlugin.PngInfo()
            info.add_itxt(KEY, text)
            for name, data, *_ in info.chunks:
                self._chunk(name, data)

    def frame(self, levels: NDArray[Any], before: NDArray[Any] | None, ticks: int) -> None:
        levels = _with_alpha(levels, self.info.has_alpha)
        box = changed(levels, None if before is None else _with_alpha(before, self.info.has_alpha))
        size = (box.right - box.left, box.bottom - box.top)
        place = (self._next(), *size, box.left, box.top)
        shown = (ticks, 1000) if ticks < 65536 else (min(ticks // 100, 65535), 10)
        self._chunk(b"fcTL", struct.pack(">5I2H2B", *place, *shown, 0, 0))
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(levels[box.top : box.bottom, box.left : box.right])).save(
            buffer, "PNG", compress_level=1 if self.fast else 6
        )
        for name, data in _png_chunks(buffer.getvalue()):
            if name == b"IDAT" and self.count == 0:
                self._chunk(b"IDAT", data)
            elif name == b"IDAT":
                self._chunk(b"fdAT", struct.pack(">I", self._next()) + data)

    def _next(self) -> int:
        self._number += 1
        return self._number - 1

    def _chunk(self, name: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    def end(self) -> None:
        self._chunk(b"IEND", b"")
        self.file.seek(self._counts_at)
        self._chunk(b"acTL", struct.pack(">2I", self.count, self.loop))


def _with_alpha(levels: NDArray[Any], alpha: bool) -> NDArray[Any]:
    if alpha and levels.shape[2] == 3:
        return np.pad(levels, ((0, 0), (0, 0), (0, 1)), constant_values=255)
    return levels


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


class WebpWriter(AnimationWriter):
    """WebP: lossy, or lossless with quality 100; times in thousandths of a second."""

    ticks, shortest = 1000, 11

    def begin(self, text: str | None) -> None:
        self._exif = b""
        if text is not None:
            exif = Image.Exif()
            exif[ExifTags.Base.ImageDescription] = PREFIX + text
            self._exif = exif.tobytes().removeprefix(b"Exif\0\0")
        self.file.write(b"RIFF\0\0\0\0WEBP")
        flags = 0x02 | (0x10 if self.info.has_alpha else 0) | (0x08 if self._exif else 0)
        size = _number(self.info.width - 1, 3) + _number(self.info.height - 1, 3)
        self._chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)
        self._chunk(b"ANIM", b"\0\0\0\0" + _number(min(self.loop, 65535), 2))

    def frame(self, levels: NDArray[Any], before: NDArray[Any] | None, ticks: int) -> None:
        levels = _with_alpha(levels, self.info.has_alpha)
        box = changed(levels, None if before is None else _with_alpha(before, self.info.has_alpha), even=True)
        buffer = io.BytesIO()
        part = np.ascontiguousarray(levels[box.top : box.bottom, box.left : box.right])
        options = {"quality": self.quality, "lossless": self.quality == 100, "method": 1 if self.fast else 4}
        Image.fromarray(part).save(buffer, "WEBP", exact=True, **options)
        kept = (b"ALPH", b"VP8 ", b"VP8L")
        data = b"".join(_padded(name, body) for name, body in _riff_chunks(buffer.getvalue()) if name in kept)
        size = _number(box.right - box.left - 1, 3) + _number(box.bottom - box.top - 1, 3)
        place = _number(box.left // 2, 3) + _number(box.top // 2, 3)
        # Pixels replace those of the frame before, also where they are transparent.
        self._chunk(b"ANMF", place + size + _number(min(ticks, 0xFFFFFF), 3) + b"\x02" + data)

    def _chunk(self, name: bytes, data: bytes) -> None:
        self.file.write(_padded(name, data))

    def end(self) -> None:
        if self._exif:
            self._chunk(b"EXIF", self._exif)
        size = self.file.tell()
        self.file.seek(4)
        self.file.write(_number(size - 8, 4))


def _number(value: int, count: int) -> bytes:
    return value.to_bytes(count, "little")


def _padded(name: bytes, data: bytes) -> bytes:
    return name + _number(len(data), 4) + data + b"\0" * (len(data) % 2)


def _riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return chunks


WRITERS: dict[str, type[AnimationWriter]] = {
    ".gif": GifWriter,
    ".webp": WebpWriter,
    ".png": PngWriter,
    ".apng": PngWriter,
}
