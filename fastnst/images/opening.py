"""Image files by path, as bytes in memory, and as open file objects."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, TypeGuard

from PIL import Image

from fastnst.errors import ImageError, UsageError
from fastnst.images.formats import decoder_errors, open_file
from fastnst.images.guards import one_line

FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""An image file: a path, its bytes, or a file object that is open for reading bytes."""

_CHUNK = 1 << 20
_BYTES_PER_PIXEL, _MORE_BYTES = 8, 1 << 26
"""An uncompressed image of 16-bit RGBA, and room for profiles and previews: the limit on bytes of a file object."""


class Opened(NamedTuple):
    """An open image file; ``name`` stands for it in errors, ``path`` is None for one in memory."""

    stream: BinaryIO
    name: Path
    path: Path | None


def is_file(source: object) -> TypeGuard[FileSource]:
    """Whether a source is one of the kinds of :data:`FileSource`."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read")


@contextmanager
def open_source(source: FileSource, max_pixels: int | None = None) -> Iterator[Opened]:
    """Open an image file for decoding; whatever a decoder raises becomes an ImageError that names the file.

    A file object is read into memory, from its start if it can be rewound. One that holds more bytes than an
    uncompressed image of ``max_pixels`` (None: Pillow's limit) is refused, so that an endless one does not fill memory.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fsdecode(source))
        with open_file(path) as stream, decoder_errors(path):
            yield Opened(stream, path, path)
        return
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = Path("the bytes"), io.BytesIO(bytes(source))
    else:
        name = _name(source)
        data = _read(source, name, Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels)
    if not data.getbuffer().nbytes:
        where = "" if isinstance(source, (bytes, bytearray, memoryview)) else ", or is at its end and cannot be rewound"
        raise ImageError(f"{name}: is empty{where}; expected an image file")
    with decoder_errors(name):
        yield Opened(data, name, None)


def _name(file: object) -> Path:
    """What errors call a file object: the name that it was opened by, if it has one."""
    name = getattr(file, "name", None)
    return Path(name) if isinstance(name, str) and name else Path("the file object")


def _read(file: IO[bytes], name: Path, max_pixels: int | None) -> io.BytesIO:
    data = io.BytesIO()
    limit = None if max_pixels is None else _BYTES_PER_PIXEL * max_pixels + _MORE_BYTES
    try:
        _rewind(file)
        while chunk := file.read(_CHUNK):
            _check_bytes(chunk, name)
            data.write(chunk)
            if limit is not None and data.tell() > limit:
                raise ImageError(
                    f"{name}: holds more than {limit} bytes, the limit for a file object; raise max_pixels if it can "
                    "be trusted, or give the path of the file"
                )
    except UsageError:
        raise
    except (OSError, ValueError) as error:  # closed, not open for reading, a connection that was lost
        raise ImageError(f"{name}: cannot be read ({one_line(error)}); expected a file open for reading") from error
    data.seek(0)
    return data


def _rewind(file: Any) -> None:
    """Go to the start, as Pillow does; a pipe or a socket is read from where it is."""
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        file.seek(0)


def _check_bytes(chunk: object, name: Path) -> None:
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise UsageError(f'{name}: is a file of text; expected one of bytes, opened with mode "rb"')
