"""Opening containers: only formats that hold their own data, and nothing but the one file.

FFmpeg also reads playlists, concatenations, session descriptions and addresses, which name other files or hosts. Three
barriers keep it to the file: it gets a stream of bytes without a name, the formats are listed, and a request to open
anything else fails.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fastnst.errors import ImageError
from fastnst.film.boxes import check_boxes
from fastnst.images import formats
from fastnst.images.guards import one_line

if TYPE_CHECKING:
    from av.container import InputContainer

FORMATS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf",
    "yuv4mpegpipe",
)  # fmt: skip
"""The formats that are read, by FFmpeg's names."""
PROTOCOLS = "none"
"""The ways in which FFmpeg may open further files: no protocol has this name."""
KNOWN = "MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, Ogg, WMV, GIF, WebP or APNG"
_PLAYLISTS = (
    (rb"#EXTM3U", "an HLS playlist"),
    (rb"ffconcat|file\s+['\"/\\\w]", "a list of files"),
    (rb"v=0[\r\n]", "a session description (SDP)"),
    (rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(MPD|SmoothStreamingMedia)\b", "a streaming manifest"),
    (rb"\[playlist\]|\[reference\]|<asx", "a playlist"),
)
_LARGEST_FRAME = 1 << 29  # pixels; the bound of what is decoded before the size is known


def import_av(path: Path) -> Any:
    """The module ``av``. Raises ImageError where PyAV is not installed."""
    try:
        import av
        import av.error
    except ImportError:
        raise ImageError(f"{path}: reading and writing films takes PyAV: pip install fastnst[film]") from None
    return av


def open_file(path: Path) -> AbstractContextManager[BinaryIO]:
    """Open a regular file for reading. Raises ImageError."""
    return formats.open_file(path, "a film")


class _Bytes:
    """A file without its name, by which FFmpeg would guess the format."""

    name = ""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, count: int) -> bytes:
        return self._stream.read(count)

    def seek(self, offset: int, whence: int) -> int:
        if whence == os.SEEK_SET and offset < 0:  # what a damaged index asks for
            raise OSError("before the start of the file")
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def open_container(path: Path, max_pixels: int | None) -> Iterator[InputContainer]:
    """Open a film of one of :data:`FORMATS`. Raises ImageError for whatever is wrong with it."""
    av = import_av(path)
    with open_file(path) as stream:
        head = stream.read(4096)
        refuse_playlist(head, path)
        check_boxes(stream, head, path)
        stream.seek(0)
        most = str(min(max_pixels or _LARGEST_FRAME, 2**31 - 1))
        with av_errors(path, "is no film that can be read"):
            container = av.open(
                _Bytes(stream),
                options={"max_pixels": most},
                container_options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": PROTOCOLS},
                io_open=_refuse,
                metadata_errors="replace",
            )
        try:
            yield container
        finally:
            container.close()


def _refuse(address: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError("the file names another file")


def refuse_playlist(head: bytes, path: Path) -> None:
    """Raise ImageError for a file that begins like a list of other files."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for pattern, what in _PLAYLISTS:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            raise ImageError(f"{path}: is {what}, which names other files; expected one film ({KNOWN})")


@contextmanager
def av_errors(path: Path, what: str) -> Iterator[None]:
    """Raise what FFmpeg and PyAV raise as an ImageError of one line."""
    av = import_av(path)
    try:
        yield
    except av.error.MemoryError as error:
        raise ImageError(f"{path}: asks for more memory than there is; expected a whole film") from error
    except (av.error.FFmpegError, ValueError, OSError, EOFError, RuntimeError, ArithmeticError) as error:
        raise ImageError(f"{path}: {what} ({reason(error)}); expected a whole film: {KNOWN}") from error


def reason(error: Exception) -> str:
    """What FFmpeg says of an error, without the names of its functions."""
    if isinstance(error, EOFError):
        return "it ends before its first frame"
    text = getattr(error, "strerror", None) or one_line(error)
    return io.StringIO(str(text)).readline().strip() or type(error).__name__
