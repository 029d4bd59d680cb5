"""Image files and Pillow images to float arrays: formats, depth, orientation, colour and alpha.

Pillow keeps colour in 8 bits a channel: its unpackers for 16-bit RGB take the upper byte of each sample. 16-bit colour
PNG and TIFF are therefore decoded twice, the second time naming the other byte order, which yields the lower bytes.
Other deep colour files (JPEG 2000, AVIF, PPM) come in with 8 bits. Plain and deflated TIFF of any size, BigTIFF too,
is read by strips or tiles instead (:mod:`fastnst.images.segments`): in one pass, and without a second whole picture.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from fastnst.errors import ImageError
from fastnst.images import colour, raw, segments

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000", "PSD")
"""The formats tried, by Pillow's names. Some of Pillow's others start programs (EPS) or match anything (TGA)."""

_TIFF_WIDTH, _TIFF_LENGTH, _TIFF_BITS = 256, 257, 258
_TIFF_PLANAR = 284
_ORIENTATION = 274
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""In a JPEG: in the data of a scan 0xff stands before 0 or the number of a restart (ITU-T T.81, B.1.1)."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)[/\\]+")
_SCAN, _END, _BARE = 0xDA, 0xD9, (0x01, 0xD8)
_MOST_SCANS = 100
"""The limit of libtiff for the JPEG in a TIFF; encoders write about ten."""
_LONGEST = 1000
"""One side over the other: at 1000 pixels the picture is one pixel wide, and there is nothing to style."""


class Decoded(NamedTuple):
    """Colour [H, W, 3], as uint8 or as float32 in 0..1, and alpha [H, W], float32 in 0..1, or None."""

    rgb: NDArray[np.uint8] | NDArray[np.float32]
    alpha: NDArray[np.float32] | None


def decode_file(path: Path, max_pixels: int | None) -> Decoded:
    """Decode the first frame of a file. Raises ImageError, naming the file, for all that can be wrong with it."""
    with opened(path) as stream, damage(path):
        page = raw.large_picture(stream, path)
        if page is None:
            return _decode_stream(stream, path, max_pixels)
        return _decode_stream(page.stream or stream, path, max_pixels, page.orientation)


def _decode_stream(stream: BinaryIO, path: Path, max_pixels: int | None, orientation: int = 0) -> Decoded:
    """``orientation`` is that of a picture which does not say its own."""
    image = identify(stream, path, max_pixels)
    check_size(str(path), image.width, image.height, max_pixels)
    if orientation:
        image.getexif().setdefault(_ORIENTATION, orientation)
        if hasattr(image, "tag_v2"):
            image.tag_v2.setdefault(_ORIENTATION, orientation)
    if image.format in ("JPEG", "MPO"):
        _check_scans(stream, path)
    stored = segments.layout(image)
    if stored is not None:
        return _decode_segments(stored, stream, path)
    deep = _layout_16(image, path)
    if deep is None:
        _load(image)
        return decode_image(image, str(path))
    upper = _bytes_as(image, deep.upper)
    profile, key = image.info.get("icc_profile"), image.info.get("transparency")
    if deep.lower is None:
        samples = upper.view(">u2").astype(np.uint16)
    else:
        samples = upper.astype(np.uint16) * np.uint16(256)
        samples += _bytes_as(identify(stream, path), deep.lower)
    return _decode_16(samples, profile, key, premultiplied=deep.premultiplied)


def decode_image(image: Image.Image, name: str) -> Decoded:
    """Decode what Pillow holds in a loaded image, which may be rotated in place."""
    _make_upright(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        samples = _sixteen(np.asarray(image), name)[..., None]
        return _decode_16(samples, profile, image.info.get("transparency"), premultiplied=False)
    if image.mode == "F":
        grey = np.asarray(image, np.float32)
        check_range(grey, name)
        return Decoded(np.repeat(grey.clip(0, 1)[..., None], 3, axis=2), None)
    bare, opacity = _split(image)
    rgb = np.asarray(colour.to_srgb(bare, profile))
    return Decoded(rgb, None if opacity is None else np.asarray(opacity, np.float32) / np.float32(255))


def _decode_segments(stored: segments.Layout, stream: BinaryIO, path: Path) -> Decoded:
    """Colour and alpha as views of planes, into which every segment is converted as it is read."""
    segments.check(stored, stream, path)
    planes, target = stored.upright(3 if stored.extra in (None, 0) else 4)
    for top, left, samples in segments.read(stored, stream, path):
        if stored.extra == 0:
            samples = samples[..., :-1]
        height, width, bands = samples.shape
        if samples.dtype == np.uint16:
            part = _decode_16(samples, stored.profile, None, premultiplied=stored.extra == 1)
        else:
            mode = ("L", "La" if stored.extra == 1 else "LA", "RGB", "RGBa" if stored.extra == 1 else "RGBA")[bands - 1]
            image = Image.frombytes(mode, (width, height), samples.tobytes())
            image.info["icc_profile"] = stored.profile
            part = decode_image(image, str(path))
        place = target[:, top : top + height, left : left + width]
        np.divide(
            part.rgb.transpose(2, 0, 1), 255 if part.rgb.dtype == np.uint8 else 1, out=place[:3], dtype=np.float32
        )
        if part.alpha is not None:
            place[3] = part.alpha
    return Decoded(planes[:3].transpose(1, 2, 0), planes[3] if len(planes) == 4 else None)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; ImageError if it is missing, empty, not a file or not to be read."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(f"{path}: is a folder; expected an image file")
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{path}: is not a regular file; expected an image file")
        if found.st_size == 0:
            raise ImageError(f"{path}: is empty; expected an image file")
        stream = _File(path.open("rb", buffering=0))
    except FileNotFoundError as error:
        if (url := _URL.match(str(path))) is not None:  # of which Path has made one slash out of two
            address = f"{url[1]}//{str(path)[url.end() :]}"
            raise ImageError(f"{address}: is a URL; download it first and name the file") from error
        raise ImageError(f"{path}: no such file; expected an image file") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it; expected a readable image file") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be opened ({line(error)}); expected an image file") from error
    with stream:
        yield stream


class _File(io.BufferedReader):
    """A file of which no more is read at a time than there is: memory is taken for as much as is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(os.fstat(self.fileno()).st_size - self.tell(), 0))
        return super().read(size)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into an ImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {line(error)}") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        raise ImageError(f"{path}: is damaged or cut short ({line(error)}); expected a whole image file") from error


def identify(stream: BinaryIO, path: Path, max_pixels: int | None = None) -> ImageFile.ImageFile:
    """Read the header. Like ``Image.open``, but the limit on pixels is ours to check: Pillow's is a global variable
    and a warning, neither of which can be changed for one call while other threads run."""
    stream.seek(0)
    prefix = stream.read(64).ljust(64, b"\0")
    reason = f"is not an image of a known format; expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix[:16])  # some of Pillow's tests for a format expect all 16 bytes
        if isinstance(accepted, str):
            reason = f"is {name}, which this Pillow was built without; expected another format"
        elif accepted:
            stream.seek(0)
            if name == "WEBP":
                _check_limit(str(path), *_webp_size(prefix), max_pixels)
            try:
                return factory(_Hesitant(stream.read()) if name == "WEBP" else stream, "")
            except (SyntaxError, IndexError, TypeError, ValueError, KeyError, OSError, struct.error) as error:
                reason = (
                    f"is {name}, but damaged or of a kind that is not read ({line(error)}); expected a plain {name}"
                )
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS and b"avif" not in prefix:
        return _heif(stream, path)
    if path.suffix.lower() in raw.SUFFIXES:
        reason = f"is camera raw of a kind that is not read; {raw.ADVICE}"
    raise ImageError(f"{path}: {reason}")


class _Hesitant(io.BytesIO):
    """A file of which a first look, by Pillow at the size of a WebP to hold against its own limit, sees too little."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 16))


def _webp_size(prefix: bytes) -> tuple[int, int]:
    """Width and height of a WebP, whose decoder takes memory for them before anything else (RFC 9649, section 2)."""
    kind = prefix[12:16]
    if kind == b"VP8X":
        return int.from_bytes(prefix[24:27], "little") + 1, int.from_bytes(prefix[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(prefix[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(prefix[26:28], "little") & 0x3FFF, int.from_bytes(prefix[28:30], "little") & 0x3FFF


def _heif(stream: BinaryIO, path: Path) -> ImageFile.ImageFile:
    """HEIF by the plugin that is registered with Pillow, else by pillow-heif, which stays unregistered."""
    if "HEIF" in Image.OPEN:
        factory: Callable[..., Any] = Image.OPEN["HEIF"][0]
    else:
        try:
            from pillow_heif import HeifImageFile as factory
        except ImportError:
            raise ImageError(
                f"{path}: is HEIF (HEIC), which takes a package to read: pip install pillow-heif"
            ) from None
    stream.seek(0)
    image: ImageFile.ImageFile = factory(stream, "")
    return image


def _check_scans(stream: BinaryIO, path: Path) -> None:
    """Refuse a JPEG of so many scans that a small file takes minutes: each goes over the whole picture."""
    stream.seek(0)
    data = stream.read()
    at = scans = 0
    while (found := _MARKER.search(data, at)) is not None and (marker := found[0][-1]) != _END:
        scans += marker == _SCAN
        if scans > _MOST_SCANS:
            raise ImageError(f"{path}: is a JPEG of more than {_MOST_SCANS} scans; expected about ten, save it anew")
        length = 0 if marker in _BARE else int.from_bytes(data[found.end() : found.end() + 2], "big")
        at = found.end() + length
    stream.seek(0)


def check_size(name: str, width: int, height: int, max_pixels: int | None) -> None:
    """Refuse pictures under 2 x 2, ribbons and, before they are decoded, those above the limit (default: Pillow's)."""
    _check_limit(name, width, height, max_pixels)
    if min(width, height) < 2:
        raise ImageError(f"{name}: is {width} x {height} pixels; expected at least 2 x 2")
    if max(width, height) > _LONGEST * min(width, height):
        raise ImageError(
            f"{name}: is {width} x {height} pixels; expected one side to be at most {_LONGEST} times the other, crop it"
        )


def _check_limit(name: str, width: int, height: int, max_pixels: int | None) -> None:
    limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{name}: {width} x {height} is {width * height} pixels, above the limit of {limit}; "
            "raise max_pixels (--max-pixels) if the file can be trusted"
        )


def check_range(values: NDArray[np.float32], name: str) -> None:
    """Refuse values that are not finite or, but for rounding, outside 0..1."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        raise ImageError(f"{name}: holds values that are not finite (NaN or infinite); expected 0..1")
    if low < -1e-3 or high > 1 + 1e-3:
        raise ImageError(f"{name}: holds values from {low:g} to {high:g}; expected floats in 0..1")


def line(error: Exception) -> str:
    """What an exception says, short and on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _load(image: ImageFile.ImageFile) -> None:
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        # Pillow's TIFF reader would check the global limit once more before reserving this memory itself.
        image.im = Image.new(image.mode, (tags[_TIFF_WIDTH], tags[_TIFF_LENGTH])).im
    image.load()


def _make_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a broken EXIF block says nothing about orientation
        return


def _sixteen(values: NDArray[np.generic], name: str) -> NDArray[np.uint16]:
    if values.dtype != np.uint16 and (values.min() < 0 or values.max() > 65535):
        raise ImageError(f"{name}: holds integers from {values.min()} to {values.max()}; expected at most 16 bits")
    return values.astype(np.uint16)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colour of an 8-bit image, and its alpha as an image of mode L or None."""
    keyed = "transparency" in image.info
    if image.mode in ("LA", "La") or (keyed and image.mode in ("L", "1")):
        full, bare = image.convert("LA"), "L"
    elif image.mode in ("RGBA", "RGBa", "PA") or (keyed and image.mode in ("RGB", "P")):
        full, bare = image.convert("RGBA"), "RGB"
    elif image.mode == "1":
        return image.convert("L"), None
    else:
        return image, None
    return full.convert(bare), full.getchannel("A")


class _Layout(NamedTuple):
    """How to get 16-bit colour out of Pillow: its raw modes for the upper and the lower bytes of each sample (None:
    one pass gives both), and whether the colour is multiplied by the alpha."""

    upper: str
    lower: str | None
    premultiplied: bool


def _layout_16(image: ImageFile.ImageFile, path: Path) -> _Layout | None:
    """The layout of a 16-bit colour file; None for every other file."""
    rawmodes = {tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0]) for tile in image.tile}
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_PLANAR) == 2:
        if len(image.tile) > 1 and 16 in tags.get(_TIFF_BITS, ()):
            # Pillow would take the samples of such strips for 8-bit ones and return noise.
            raise ImageError(
                f"{path}: is a TIFF of 16-bit channels stored apart (planar); expected interleaved channels"
            )
        return None
    if len(rawmodes) != 1:
        return None
    bands, _, order = rawmodes.pop().partition(";16")
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    if bands == "LA" and order == "B":
        return _Layout("RGBA", None, False)  # four bytes a pixel, unpacked as they are
    if bands not in ("RGB", "RGBA", "RGBX", "RGBa") or order not in ("B", "L"):
        return None
    other = "L" if order == "B" else "B"
    unpacked = "RGBA" if bands == "RGBa" else bands
    return _Layout(f"{unpacked};16{order}", f"{unpacked};16{other}", bands == "RGBa")


def _bytes_as(image: ImageFile.ImageFile, rawmode: str) -> NDArray[np.uint8]:
    """Decode with another raw mode than the file's own; upright, [H, W, bands]."""
    image.tile = [
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *(tile.args or ())[1:]))
        for tile in image.tile
    ]
    _load(image)
    _make_upright(image)
    return np.asarray(image)


def _decode_16(samples: NDArray[np.uint16], profile: bytes | None, key: object, *, premultiplied: bool) -> Decoded:
    """Colour and alpha of ``samples`` [H, W, 1 to 4]; ``key`` is PNG's transparent colour, if any."""
    bands = samples.shape[2]
    colours = samples[..., : bands - 1 if bands in (2, 4) else bands]
    alpha = None
    if bands in (2, 4):
        alpha = samples[..., -1].astype(np.float32) / np.float32(65535)
    elif isinstance(key, (tuple, int)):
        alpha = (samples != np.array(key)).any(axis=2).astype(np.float32)
    if premultiplied and alpha is not None:
        straight = colours / np.maximum(alpha, np.float32(1 / 65535))[..., None]
        colours = (straight + 0.5).clip(0, 65535).astype(np.uint16)
    return Decoded(colour.to_srgb_16(colours, profile), alpha)
