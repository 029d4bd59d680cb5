"""Image files and Pillow images as float arrays: depth, orientation, color and alpha.

16-bit color PNG and TIFF keep their depth (:mod:`fastnst.images.depth16`); other deep color files (JPEG 2000, AVIF,
PPM) are read with 8 bits. TIFF and BigTIFF of any size, uncompressed or deflated, are read by strips or tiles
(:mod:`fastnst.images.segments`): in one pass and without a second copy of the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from fastnst.images import color, raw, segments
from fastnst.images.depth16 import Decoded, check_16_bits, decode_16, find_raw_modes, read_samples
from fastnst.images.formats import identify, load_pixels, make_upright
from fastnst.images.guards import check_jpeg_scans, check_range, check_size
from fastnst.images.opening import FileSource, open_source

_ORIENTATION = 274


def decode_file(source: FileSource, max_pixels: int | None) -> tuple[Decoded, Path | None]:
    """Decode the first frame of a file; also return its path, if it was named by one.

    Raises ImageError, which names the file, for whatever is wrong with it.
    """
    with open_source(source, max_pixels) as (stream, name, path):
        page = raw.large_picture(stream, name)
        if page is None:
            return _decode_stream(stream, name, max_pixels), path
        return _decode_stream(page.stream or stream, name, max_pixels, page.orientation), path


def _decode_stream(stream: BinaryIO, path: Path, max_pixels: int | None, orientation: int = 0) -> Decoded:
    """``orientation`` is the EXIF orientation of an image that has none of its own."""
    image = identify(stream, path, max_pixels)
    check_size(str(path), image.width, image.height, max_pixels)
    if orientation:
        image.getexif().setdefault(_ORIENTATION, orientation)
        if hasattr(image, "tag_v2"):
            image.tag_v2.setdefault(_ORIENTATION, orientation)
    if image.format in ("JPEG", "MPO"):
        check_jpeg_scans(stream, path)
    stored = segments.find_layout(image)
    if stored is not None:
        return _decode_segments(stored, stream, path)
    modes = find_raw_modes(image, path)
    if modes is None:
        load_pixels(image)
        return decode_image(image, str(path))
    samples = read_samples(image, modes, lambda: identify(stream, path))
    profile, key = image.info.get("icc_profile"), image.info.get("transparency")
    return decode_16(samples, profile, key, premultiplied=modes.premultiplied)


def decode_image(image: Image.Image, name: str) -> Decoded:
    """Decode a loaded Pillow image, which may be rotated in place. ``name`` is its name in errors."""
    make_upright(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        samples = check_16_bits(np.asarray(image), name)[..., None]
        return decode_16(samples, profile, image.info.get("transparency"), premultiplied=False)
    if image.mode == "F":
        gray = np.asarray(image, np.float32)
        check_range(gray, name)
        return Decoded(np.repeat(gray.clip(0, 1)[..., None], 3, axis=2), None)
    bare, opacity = _split(image)
    rgb = np.asarray(color.to_srgb(bare, profile))
    return Decoded(rgb, None if opacity is None else np.asarray(opacity, np.float32) / np.float32(255))


def _decode_segments(stored: segments.TiffLayout, stream: BinaryIO, path: Path) -> Decoded:
    """Convert each segment into planes as it is read; color and alpha are views of the planes."""
    segments.check_layout(stored, stream, path)
    planes, target = stored.upright(3 if stored.extra in (None, 0) else 4)
    for top, left, samples in segments.read_segments(stored, stream, path):
        if stored.extra == 0:
            samples = samples[..., :-1]
        height, width, bands = samples.shape
        if samples.dtype == np.uint16:
            part = decode_16(samples, stored.profile, None, premultiplied=stored.extra == 1)
        else:
            mode = ("L", "La" if stored.extra == 1 else "LA", "RGB", "RGBa" if stored.extra == 1 else "RGBA")[bands - 1]
            image = Image.frombytes(mode, (width, height), samples.tobytes())
            image.info["icc_profile"] = stored.profile
            part = decode_image(image, str(path))
        window = target[:, top : top + height, left : left + width]
        np.divide(
            part.rgb.transpose(2, 0, 1), 255 if part.rgb.dtype == np.uint8 else 1, out=window[:3], dtype=np.float32
        )
        if part.alpha is not None:
            window[3] = part.alpha
    return Decoded(planes[:3].transpose(1, 2, 0), planes[3] if len(planes) == 4 else None)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the color of an 8-bit image, and its alpha as an image of mode L or None."""
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
