"""Image files and color profiles built byte by byte, so that the tests do not depend on the code they test."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageCms

from fastnst import images
from fastnst.errors import ImageError

Array = NDArray[Any]
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""From rows and columns as stored to the upright image (TIFF 6.0 and EXIF 2.32, tag 274)."""


def refused(path: Path, **arguments: int) -> str:
    """The message of the error for the image, which has one line."""
    with pytest.raises(ImageError) as caught:
        images.load(path, **arguments)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def colors(height: int, width: int, channels: int = 3, dtype: Any = np.uint8, seed: int = 0) -> Array:
    """Random samples over the whole range of ``dtype``; [height, width] for one channel."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth(height: int, width: int) -> Array:
    """A smooth float32 image [height, width, 3], which lossy formats preserve well."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([x / width, y / height, 0.5 + 0 * x], axis=-1).astype(np.float32)


def write_png(
    path: Path,
    samples: Array,
    extra: Mapping[bytes, bytes] | None = None,
    *,
    filtered: bool = False,
    interlaced: bool = False,
) -> Path:
    """A PNG of 8 or 16 bits: gray [H, W], gray + alpha, RGB or RGBA [H, W, 2 to 4]; ``filtered`` by all filters."""
    height, width = samples.shape[:2]
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[1 if samples.ndim == 2 else samples.shape[2]]
    bits = samples.dtype.itemsize * 8
    chunks = {b"IHDR": struct.pack(">2I5B", width, height, bits, color_type, 0, 0, interlaced), **(extra or {})}
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    chunks |= {b"IDAT": zlib.compress(b"".join(_png_rows(part, filtered) for part in parts)), b"IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def _png_rows(samples: Array, filtered: bool) -> bytes:
    """The rows of one pass, each preceded by the number of its filter (PNG specification, third edition, section 9)."""
    if samples.size == 0:
        return b""
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(len(samples), -1).view(np.uint8).astype(np.int16)
    step = rows.shape[1] // samples.shape[1]
    up = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    left, up_left = (np.pad(a, ((0, 0), (step, 0)))[:, :-step] for a in (rows, up))
    nearest = np.argmin(np.abs([up - up_left, left - up_left, left + up - 2 * up_left]), axis=0)
    paeth = np.choose(nearest, [left, up, up_left])
    predicted = [np.zeros_like(rows), left, up, (left + up) // 2, paeth]
    kinds = [y % 5 if filtered else 0 for y in range(len(rows))]
    return b"".join(
        bytes([kind]) + (rows - predicted[kind])[y].astype(np.uint8).tobytes() for y, kind in enumerate(kinds)
    )


def png_profile(profile: bytes) -> dict[bytes, bytes]:
    return {b"iCCP": b"test\0\0" + zlib.compress(profile)}


def read_png_16(path: Path) -> Array:
    """Samples of a 16-bit color PNG whose rows all use filter 0 or 2 (none, up)."""
    data = path.read_bytes()
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        chunks[name] = chunks.get(name, b"") + data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(data[at + 4 : at + 8 + length])
        at += 12 + length
    width, height, bits, color_type = struct.unpack_from(">2I2B", chunks[b"IHDR"])
    assert bits == 16
    channels = {2: 3, 6: 4}[color_type]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels * 2)
    assert set(rows[:, 0]) <= {0, 2}
    plain = np.zeros((height, width * channels * 2), np.uint8)
    for y, row in enumerate(rows):
        plain[y] = row[1:] + (plain[y - 1] if row[0] == 2 and y else 0)
    return plain.view(">u2").reshape(height, width, channels)


def profile(space: bytes, pcs: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """An ICC profile: header, table of tags, tags (ICC.1:2022, section 7)."""
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += struct.pack(">4s2I", name, start + len(body), len(data))
        body += data
    illuminant = b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    size = start + len(body)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = struct.pack(">I4s4s4s4s4s", size, b"", b"\x04\x20\0\0", kind, space, pcs)
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + illuminant
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def curve_table(values: list[int]) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *values)


def curve_formula(kind: int, *parameters: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">2H", kind, 0) + b"".join(map(fixed, parameters))


def rgb_profile(curve: bytes, order: str = "rgb") -> bytes:
    """sRGB's primaries, assigned to the channels in ``order``, with another tone curve."""
    core: Any = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).profile
    primaries = {"r": core.red_colorant[0], "g": core.green_colorant[0], "b": core.blue_colorant[0]}
    tags = {}
    for name, primary in zip("rgb", order, strict=True):
        tags[f"{name}XYZ".encode()] = b"XYZ \0\0\0\0" + b"".join(map(fixed, primaries[primary]))
        tags[f"{name}TRC".encode()] = curve
    return profile(b"RGB ", b"XYZ ", tags)


def gray_profile(curve: bytes) -> bytes:
    return profile(b"GRAY", b"XYZ ", {b"kTRC": curve})


def table_profile(space: bytes, channel: int, inverted: bool) -> bytes:
    """A profile of tables whose lightness is one channel (or 1 minus it), independent of the others."""
    channels = len(space.strip())
    nodes = np.indices((2,) * channels)[channel].reshape(-1) * 255
    lightness = (255 - nodes if inverted else nodes).astype(np.uint8)
    lab = np.stack([lightness, np.full_like(lightness, 128), np.full_like(lightness, 128)], axis=1)
    ramp = bytes(range(256))
    identity = b"".join(fixed(float(i % 4 == 0)) for i in range(9))
    table = b"mft1\0\0\0\0" + bytes([channels, 3, 2, 0]) + identity + ramp * channels + lab.tobytes() + ramp * 3
    return profile(space, b"Lab ", {b"A2B0": table})


def srgb_encoded(linear: Array) -> Array:
    """The sRGB transfer function, IEC 61966-2-1."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def gray_of_lightness(lightness: Array) -> Array:
    """The sRGB gray of CIE L* in 0..1."""
    f = (lightness * 100 + 16) / 116
    return srgb_encoded(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))
