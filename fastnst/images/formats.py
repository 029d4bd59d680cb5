"""Opening image files, identifying their format, and loading them with Pillow."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, ImageOps

from fastnst.errors import ImageError
from fastnst.images import raw
from fastnst.images.guards import check_limit, one_line

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000", "PSD")
"""The formats that are read, by Pillow's names. Others of Pillow's start programs (EPS) or match anything (TGA)."""

_TIFF_WIDTH, _TIFF_LENGTH = 256, 257
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)[/\\]+")


@contextmanager
def open_file(path: Path, expected: str = "an image file") -> Iterator[BinaryIO]:
    """Open a file for reading. Raises ImageError if it is missing, empty, not a regular file or not readable.

    ``expected`` says with an article what the file should be.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(f"{path}: is a folder; expected {expected}")
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{path}: is not a regular file; expected {expected}")
        if found.st_size == 0:
            raise ImageError(f"{path}: is empty; expected {expected}")
        stream = _BoundedFile(path.open("rb", buffering=0))
    except FileNotFoundError as error:
        if (url := _URL.match(str(path))) is not None:  # Path has merged its two slashes
            address = f"{url[1]}//{str(path)[url.end() :]}"
            raise ImageError(f"{address}: is a URL; download it first and name the file") from error
        raise ImageError(f"{path}: no such file; expected {expected}") from error
    except PermissionError as error:
        readable = expected.partition(" ")[2]
        raise ImageError(f"{path}: no permission to read it; expected a readable {readable}") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be opened ({one_line(error)}); expected {expected}") from error
    with stream:
        yield stream


class _BoundedFile(io.BufferedReader):
    """A file whose reads are clamped to its size, because ``read`` allocates the size that it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(os.fstat(self.fileno()).st_size - self.tell(), 0))
        return super().read(size)


@contextmanager
def decoder_errors(path: Path) -> Iterator[None]:
    """Convert whatever a decoder raises on a damaged file into an ImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {one_line(error)}") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        raise ImageError(f"{path}: is damaged or truncated ({one_line(error)}); expected a whole image file") from error


def identify(stream: BinaryIO, path: Path, max_pixels: int | None = None) -> ImageFile.ImageFile:
    """Identify the format and read the header, like ``Image.open`` but without its limit on pixels.

    Pillow's limit is a global variable and a warning, neither of which can be changed for one call while other threads
    run; the caller checks the size. Raises ImageError for unknown formats.
    """
    stream.seek(0)
    prefix = stream.read(64).ljust(64, b"\0")
    reason = f"is not an image of a known format; expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix[:16])  # some of Pillow's tests for a format require all 16 bytes
        if isinstance(accepted, str):
            reason = f"is {name}, which this Pillow does not support; expected another format"
        elif accepted:
            stream.seek(0)
            if name == "WEBP":
                check_limit(str(path), *_webp_size(prefix), max_pixels)
            try:
                return factory(_HeaderFirst(stream.read()) if name == "WEBP" else stream, "")
            except (SyntaxError, IndexError, TypeError, ValueError, KeyError, OSError, struct.error) as error:
                reason = (
                    f"is {name}, but damaged or of an unsupported kind ({one_line(error)}); expected a plain {name}"
                )
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS and b"avif" not in prefix:
        return _heif(stream, path)
    if path.suffix.lower() in raw.SUFFIXES:
        reason = f"is camera raw of an unsupported kind; {raw.ADVICE}"
    raise ImageError(f"{path}: {reason}")


class _HeaderFirst(io.BytesIO):
    """A file whose sized reads return at most 16 bytes, so that Pillow does not read a WebP's size for its limit."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 16))


def _webp_size(prefix: bytes) -> tuple[int, int]:
    """Width and height of a WebP (RFC 9649, section 2), whose decoder allocates the image at once."""
    kind = prefix[12:16]
    if kind == b"VP8X":
        return int.from_bytes(prefix[24:27], "little") + 1, int.from_bytes(prefix[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(prefix[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(prefix[26:28], "little") & 0x3FFF, int.from_bytes(prefix[28:30], "little") & 0x3FFF


def _heif(stream: BinaryIO, path: Path) -> ImageFile.ImageFile:
    """Open HEIF with the plugin that is registered with Pillow, else with pillow-heif, without registering it."""
    if "HEIF" in Image.OPEN:
        factory: Callable[..., ImageFile.ImageFile] = Image.OPEN["HEIF"][0]
    else:
        try:
            from pillow_heif import HeifImageFile as factory
        except ImportError:
            raise ImageError(f"{path}: is HEIF (HEIC), which needs a package: pip install pillow-heif") from None
    stream.seek(0)
    image: ImageFile.ImageFile = factory(stream, "")
    return image


def load_pixels(image: ImageFile.ImageFile) -> None:
    """Decode the pixels, without Pillow's limit for TIFF."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        # Pillow's TIFF reader would check the global limit again when it allocates this memory.
        image.im = Image.new(image.mode, (tags[_TIFF_WIDTH], tags[_TIFF_LENGTH])).im
    image.load()


def make_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation in place."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a broken EXIF block has no orientation
        return
