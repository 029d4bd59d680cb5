"""One picture by every route: files by path, as bytes and open, Pillow images, arrays and tensors; and out again.

The oracles are Pillow and NumPy: what ``Image.open`` and ``np.asarray`` give for the same file.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from image_files import UPRIGHT, Array, colors
from PIL import Image

from fastnst import images
from fastnst.errors import ImageError, UsageError
from fastnst.images import opening

MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "I;16",
    "F",
]


class OneWay(io.RawIOBase):
    """A file that cannot be rewound, such as a socket, and gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._data.read(min(len(buffer), 97))
        buffer[: len(part)] = part
        return len(part)


def same(a: images.Picture, b: images.Picture) -> None:
    """The same bits, colors and alpha."""
    assert a.pixels.dtype == b.pixels.dtype == torch.float32
    assert torch.equal(a.pixels, b.pixels)
    assert (a.alpha is None) == (b.alpha is None)
    assert a.alpha is None or b.alpha is None or torch.equal(a.alpha, b.alpha)


def pillow_image(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(colors(9, 7, 1, np.uint16))
    if mode == "I":
        return Image.fromarray(colors(9, 7, 1, np.uint16).astype(np.int32))
    if mode == "F":
        return Image.fromarray(colors(9, 7, 1).astype(np.float32) / 255)
    if mode in ("RGBA", "LA", "PA"):
        return Image.fromarray(colors(9, 7, 4)).convert(mode)
    if mode in ("RGBa", "La"):
        return Image.fromarray(colors(9, 7, 4)).convert(mode[:-1] + "A").convert(mode)
    if mode == "P":
        return Image.fromarray(colors(9, 7)).quantize(11)
    if mode == "LAB":
        return Image.frombytes("LAB", (7, 9), colors(9, 7).tobytes())
    return Image.fromarray(colors(9, 7)).convert(mode)


def encoded(form: str, image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def deep_tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, colors(9, 7, 3, np.uint16), photometric="rgb")
    return file.getvalue()


FILES: dict[str, bytes] = {
    "png": encoded("PNG", Image.fromarray(colors(9, 7))),
    "png with alpha": encoded("PNG", Image.fromarray(colors(9, 7, 4))),
    "png with a palette and a transparent entry": encoded("PNG", pillow_image("P"), transparency=3),
    "png of 16-bit gray": encoded("PNG", pillow_image("I;16")),
    "png of one bit": encoded("PNG", pillow_image("1")),
    "jpeg": encoded("JPEG", Image.fromarray(colors(9, 7))),
    "jpeg of inks": encoded("JPEG", pillow_image("CMYK")),
    "jpeg on its side": encoded("JPEG", Image.fromarray(colors(9, 7)), exif=sideways()),
    "tiff of 16 bits": deep_tiff(),
    "tiff": encoded("TIFF", Image.fromarray(colors(9, 7)), compression="tiff_lzw"),
    "webp": encoded("WEBP", Image.fromarray(colors(9, 7, 4)), lossless=True),
    "gif": encoded("GIF", pillow_image("P")),
    "bmp": encoded("BMP", Image.fromarray(colors(9, 7))),
    "ppm": encoded("PPM", Image.fromarray(colors(9, 7))),
}


def zipped(data: bytes) -> Any:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("a", data)
    return zipfile.ZipFile(archive).open("a")


def piped(data: bytes) -> Any:
    """The reading end of a pipe that another thread writes to."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return os.fdopen(reading, "rb")


def at_its_end(data: bytes) -> io.BytesIO:
    file = io.BytesIO()
    file.write(data)
    return file


def temporary(data: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    return file


ROUTES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda data: data,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "part of a memoryview": lambda data: memoryview(b"x" + b"".join(bytes((b, 0)) for b in data))[1::2],
    "BytesIO": io.BytesIO,
    "BytesIO at its end": at_its_end,
    "a temporary file": temporary,
    "gzip": lambda data: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data))),
    "zip": zipped,
    "a file that cannot be rewound": OneWay,
    "a pipe": piped,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_same_bits_by_every_route(tmp_path: Path, name: str) -> None:
    data = FILES[name]
    path = tmp_path / "a"
    path.write_bytes(data)
    wanted = images.load(path)
    for route, make in ROUTES.items():
        file = make(data)
        got = images.load(file)
        same(got, wanted)
        assert got.path is None, route
        if hasattr(file, "close"):
            assert not file.closed, route
            file.close()
    with path.open("rb") as opened, path.open("rb", buffering=0) as raw:
        same(images.load(opened), wanted)
        same(images.load(raw), wanted)


@pytest.mark.parametrize("name", [name for name in FILES if name != "tiff of 16 bits"])
def test_a_pillow_image_has_the_bits_of_its_file(name: str) -> None:
    """Pillow has no 16-bit color; its other images are those of the file."""
    same(images.load(Image.open(io.BytesIO(FILES[name]))), images.load(FILES[name]))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow(mode: str) -> None:
    """By Pillow's conversion to RGBA, where it has one; 16 bits and floats by their values."""
    image = pillow_image(mode)
    before = image.tobytes()
    got = images.load(image)
    assert image.tobytes() == before
    values = np.asarray(image, np.float64)
    if mode in ("I", "I;16", "F"):
        wanted = np.repeat((values / (65535 if mode[0] == "I" else 1))[None], 3, 0)
        assert np.abs(got.pixels[0].double().numpy() - wanted).max() < 1e-7
        return
    if mode == "LAB":  # by LittleCMS, in the tests of color
        assert got.pixels.shape == (1, 3, 9, 7)
        return
    rgba = np.asarray(image.convert("RGBA" if mode not in ("La", "RGBa") else mode[:-1] + "A").convert("RGBA"))
    visible = rgba[..., 3] > 0
    wanted = rgba[..., :3].transpose(2, 0, 1) / 255
    assert np.abs(got.pixels[0].double().numpy() - wanted)[:, visible].max() < 1e-6
    found = np.ones((9, 7)) if got.alpha is None else got.alpha[0, 0].double().numpy()
    assert np.abs(found - rgba[..., 3] / 255).max() < 1e-6
    assert (got.alpha is not None) == (mode in ("LA", "La", "PA", "RGBA", "RGBa"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_by_every_route(form: str, orientation: int) -> None:
    samples = np.kron(colors(3, 4), np.ones((16, 16, 1), np.uint8))  # JPEG keeps blocks
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(form, Image.fromarray(samples), exif=exif, quality=100)
    wanted = UPRIGHT[orientation](samples)
    for source in (data, io.BytesIO(data), Image.open(io.BytesIO(data))):
        found = images.load(source).pixels[0].permute(1, 2, 0).numpy()
        assert found.shape == wanted.shape
        assert np.abs(found - wanted / 255).mean() < 0.06


ARRAYS = st.tuples(st.integers(2, 5), st.integers(2, 6), st.sampled_from([0, 1, 3, 4])).flatmap(
    lambda shape: nps.arrays(
        st.sampled_from([np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(">u2")]),
        shape[:2] if shape[2] == 0 else shape,
        elements={"min_value": 1},
    )
)


@given(ARRAYS)
def test_an_array_has_the_bits_of_its_tensor_and_of_its_float(array: Array) -> None:
    wanted = images.load(array)
    bands = array if array.ndim == 3 else array[..., None]
    native = np.ascontiguousarray(bands, bands.dtype.newbyteorder("="))
    planes = torch.from_numpy(native.transpose(2, 0, 1).copy())
    scale = np.float32(np.iinfo(array.dtype).max)
    floats = native.astype(np.float32) / scale
    routes: list[Any] = [
        planes,
        planes[None],
        torch.from_numpy(native).permute(2, 0, 1),  # not contiguous
        floats,
        floats.astype(np.float64),
        floats[::-1][::-1],
        np.asfortranarray(native),
        torch.from_numpy(floats).permute(2, 0, 1).requires_grad_(),
        torch.from_numpy(floats).double().permute(2, 0, 1)[None],
    ]
    with torch.inference_mode():
        routes.append(torch.from_numpy(floats.copy()).permute(2, 0, 1) * 1)
    if array.dtype == np.uint8 and native.shape[2] in (1, 3, 4):
        image = Image.fromarray(native[..., 0] if native.shape[2] == 1 else native)
        routes += [image, encoded("PNG", image), encoded("TIFF", image)]
    for route in routes:
        same(images.load(route), wanted)


def test_a_tensor_with_its_sign_in_a_flag() -> None:
    negated = torch.complex(torch.zeros(3, 4, 4), -torch.rand(3, 4, 4)).conj().imag
    assert negated.is_neg()
    same(images.load(negated), images.load(negated.clone().resolve_neg()))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.full((4, 5, 3), 200.0), r"values from 200 to 200; expected floats in 0\.\.1; divide levels of 0\.\.255"),
        (np.full((4, 5, 3), -3.0), r"values from -3 to -3; expected floats in 0\.\.1$"),
        (np.full((4, 5), np.nan), "not finite"),
        (torch.full((3, 4, 5), 255.0), r"divide levels of 0\.\.255 by 255"),
        (np.zeros((0, 5, 3)), "is 5 x 0 pixels"),
        (torch.zeros(3, 4, 0), "is 0 x 4 pixels"),
        (np.zeros((4, 5, 3), np.int64), r"got int64 of shape \(4, 5, 3\); convert levels of 0\.\.255 to np\.uint8"),
        (torch.zeros(3, 4, 5, dtype=torch.int32), r"convert levels of 0\.\.255 to torch\.uint8"),
        (np.zeros((3, 40, 50)), r"channels come last: array\.transpose\(1, 2, 0\)"),
        (np.zeros((2, 40, 50, 3)), r"is a batch: give one picture of it, x\[0\]"),
        (np.zeros((1, 40, 50, 3)), r"give x\[0\]"),
        (torch.zeros(2, 3, 40, 50), r"is a batch: give one picture of it, x\[0\]"),
        (torch.zeros(1, 40, 50, 3), r"channels come first: x\[0\]\.permute\(2, 0, 1\)"),
        ([1, 2], "expected a path, bytes, a file object, .* got list"),
        (io.StringIO("text"), "is a file of text; expected one of bytes"),
    ],
)
def test_what_is_no_picture_is_named(source: Any, words: str) -> None:
    with pytest.raises((ImageError, UsageError), match=words) as caught:
        images.load(source)
    assert "\n" not in str(caught.value)


def closed() -> io.BytesIO:
    file = io.BytesIO(FILES["png"])
    file.close()
    return file


class Lost(OneWay):
    def readinto(self, buffer: Any) -> int:
        raise ConnectionResetError("the connection was lost")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "^the bytes: is empty; expected an image file$"),
        (io.BytesIO(), "^the file object: is empty, or is at its end"),
        (b"no picture", "^the bytes: is not an image of a known format"),
        (FILES["png"][:60], "^the bytes: is (damaged|PNG, but damaged)"),
        (io.BytesIO(FILES["jpeg"][:-90]), "^the file object: is damaged or truncated"),
        (closed(), "^the file object: cannot be read .*closed"),
        (Lost(b""), "^the file object: cannot be read .*connection was lost"),
        (OneWay(b""), "at its end and cannot be rewound"),
    ],
)
def test_damaged_files_in_memory(source: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        images.load(source)


def test_an_open_file_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    with path.open("rb") as file, pytest.raises(ImageError, match=f"{path}: is not an image"):
        images.load(file)
    with path.open("ab") as file, pytest.raises(ImageError, match=f"{path}: cannot be read"):
        images.load(file)
    with path.open() as file, pytest.raises(UsageError, match='opened with mode "rb"'):
        images.load(file)  # type: ignore[arg-type]


def test_an_endless_file_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_MORE_BYTES", 1 << 20)
    given = 0

    class Endless:
        def read(self, size: int) -> bytes:
            nonlocal given
            given += size
            return bytes(size)

    with pytest.raises(ImageError, match="holds more than 1048976 bytes, the limit for a file object"):
        images.load(Endless(), max_pixels=50)  # type: ignore[arg-type]
    assert given <= 2 * 1048976
    with pytest.raises(ImageError, match="above the limit of 50"):
        images.load(FILES["png"], max_pixels=50)


SAVED = [("PNG", 8), ("PNG", 16), ("TIFF", 8), ("TIFF", 16), ("JPEG", None), ("WEBP", None), ("AVIF", None)]
SAVED += [("JPEG2000", None), ("BMP", None)]
SUFFIXES = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}


@pytest.mark.parametrize(("form", "bits"), SAVED)
@pytest.mark.parametrize("with_alpha", [False, True])
def test_a_file_object_gets_the_bytes_of_a_file(tmp_path: Path, form: str, bits: int | None, with_alpha: bool) -> None:
    pixels, alpha = torch.rand(1, 3, 20, 24), torch.rand(1, 1, 20, 24) if with_alpha else None
    suffix = SUFFIXES.get(form, form.lower())
    path = images.save(tmp_path / f"a.{suffix}", pixels, alpha=alpha, settings={"steps": 7}, bits=bits)
    for name in (form, form.lower(), suffix):
        file = io.BytesIO()
        assert images.save(file, pixels, alpha=alpha, settings={"steps": 7}, bits=bits, format=name) is None
        assert file.getvalue() == path.read_bytes()
    assert images.read_settings(file) == images.read_settings(path) == (None if form == "BMP" else {"steps": 7})
    assert images.read_settings(file.getvalue()) == images.read_settings(path)
    with Image.open(file) as image:
        assert image.format == form


def test_a_format_overrides_the_suffix_and_an_open_file_has_one(tmp_path: Path) -> None:
    pixels = torch.rand(1, 3, 4, 4)
    assert images.load(images.save(tmp_path / "a.dat", pixels, format="png")).size == (4, 4)
    with (tmp_path / "b.tif").open("wb", buffering=0) as raw, (tmp_path / "c.jpg").open("wb") as file:
        file.write(b"before")
        images.save(raw, pixels)
        images.save(file, pixels)
    assert tifffile.imread(tmp_path / "b.tif").dtype == np.uint16
    assert (tmp_path / "c.jpg").read_bytes().startswith(b"before\xff\xd8\xff")


class Slow(io.RawIOBase):
    """An unbuffered file that takes seven bytes at a time, as a pipe may."""

    def __init__(self, room: int = sys.maxsize) -> None:
        self.data, self.room = b"", room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data[: min(7, self.room - len(self.data))])
        self.data += part
        return len(part)


def test_a_file_that_takes_parts_gets_everything() -> None:
    slow, whole, pixels = Slow(), io.BytesIO(), torch.rand(1, 3, 9, 9)
    images.save(slow, pixels, format="PNG")
    images.save(whole, pixels, format="PNG")
    assert slow.data == whole.getvalue()
    with pytest.raises(ImageError, match=r"the file object: cannot be written \(it takes no more bytes\)"):
        images.save(Slow(30), pixels, format="PNG")


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        (io.BytesIO(), {}, "^format: the name of the file object says none; expected PNG, .* or BMP"),
        (io.BytesIO(), {"format": "gif"}, "^format: expected PNG, JPEG, .* got 'gif'"),
        (io.BytesIO(), {"format": 3}, "^format: expected PNG, .* got 3"),
        (io.BytesIO(), {"format": "JPEG", "bits": 16}, "^bits: expected 8 for JPEG, got 16"),
        (io.StringIO(), {"format": "PNG"}, "is a file of text"),
        (None, {"format": "PNG"}, "expected a path or a file object open for writing, got NoneType"),
        (closed(), {"format": "PNG"}, "cannot be written .*closed"),
    ],
)
def test_a_file_object_that_cannot_be_written(file: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, ImageError), match=words):
        images.save(file, torch.rand(1, 3, 4, 4), **options)


def test_nothing_is_written_of_pixels_that_cannot_be_encoded() -> None:
    file = io.BytesIO()
    with pytest.raises(ImageError, match="not finite"):
        images.save(file, torch.full((1, 3, 200, 4), torch.nan), format="TIFF")
    assert file.getvalue() == b""
