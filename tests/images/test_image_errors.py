"""Invalid files raise an error of one line that names the file."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_files import colors, refused, write_png
from PIL import Image, ImageFile

from fastnst import images
from fastnst.errors import ImageError
from fastnst.images import formats

FILES = ["png", "jpg", "webp", "tif", "gif", "bmp", "ppm", "jp2", "avif"]


def write_bomb(path: Path, width: int, height: int) -> Path:
    """A PNG whose header claims a large size."""
    write_png(path, colors(2, 2))
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">2I", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.jpg")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in refused(tmp_path)


def test_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be opened" in refused(tmp_path / "file" / "a.png")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(tmp_path / "pipe.png")


def test_invalid_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be opened"):
        images.load("a\0.png")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_png(tmp_path / "a.png", colors(4, 4))

    def forbidden(self: Path, mode: str, buffering: int = -1) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", forbidden)
    assert "no permission to read" in refused(path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "is empty" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"hello, this is no image\n", b"\0" * 1000, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P"])
def test_not_an_image_names_the_formats(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    message = refused(tmp_path / "a.jpg")
    assert "not an image of a known format; expected PNG, JPEG, WEBP, TIFF" in message


@pytest.mark.parametrize("suffix", FILES)
def test_file_cut_short(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(colors(64, 64)).save(path)
    data = path.read_bytes()
    for kept in (12, 40, len(data) // 3, len(data) * 3 // 4):
        path.write_bytes(data[:kept])
        refused(path)


@pytest.mark.parametrize("suffix", [*FILES, "16.png", "16.tif"])
def test_damaged_bytes_give_a_picture_or_an_image_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix.startswith("16"):
        images.save(path, images.load(colors(24, 24)).pixels, bits=16, settings={"a": 1})
    else:
        Image.fromarray(colors(24, 24)).save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(1)
    for _ in range(60):
        damaged = whole.copy()
        where = random.integers(0, min(len(whole), 400), 4)
        damaged[where] = random.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on metadata
            for act in (lambda: images.load(path, max_pixels=1_000_000), lambda: images.read_settings(path)):
                try:
                    act()
                except ImageError as error:
                    assert str(path) in str(error)  # noqa: PT017


def test_an_unsupported_tiff_is_reported_as_such(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), np.float64), photometric="rgb")
    assert "is TIFF, but damaged or of an unsupported kind" in refused(tmp_path / "a.tif")


def test_floats_and_integers_of_unknown_scale_are_rejected(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 255, np.float32)).save(tmp_path / "a.tif")
    assert "from 255 to 255; expected floats in 0..1" in refused(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "b.tif")
    assert "70000; expected at most 16 bits" in refused(tmp_path / "b.tif")


def test_fully_transparent(tmp_path: Path) -> None:
    assert "fully transparent" in refused(write_png(tmp_path / "a.png", np.zeros((4, 4, 4), np.uint8)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_one_pixel_wide(tmp_path: Path, shape: tuple[int, int]) -> None:
    message = refused(write_png(tmp_path / "a.png", colors(*shape)))
    assert f"is {shape[1]} x {shape[0]} pixels; expected at least 2 x 2" in message
    with pytest.raises(ImageError, match="expected at least 2 x 2"):
        images.load(colors(*shape))


def test_no_pixels(tmp_path: Path) -> None:
    refused(write_bomb(tmp_path / "a.png", 0, 5))
    with pytest.raises(ImageError, match="0 x 4 pixels"):
        images.load(np.zeros((4, 0, 3), np.uint8))


@pytest.mark.parametrize("side", [9_500, 13_500, 60_000])
def test_decompression_bomb_is_not_decoded(tmp_path: Path, side: int) -> None:
    with warnings.catch_warnings(record=True) as said:
        message = refused(write_bomb(tmp_path / "a.png", side, side))
    assert f"{side} x {side} is {side * side} pixels, above the limit of {Image.MAX_IMAGE_PIXELS}" in message
    assert said == []


def test_max_pixels_lowers_the_limit(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", colors(10, 10))
    assert "10 x 10 is 100 pixels, above the limit of 99" in refused(path, max_pixels=99)
    assert images.load(path, max_pixels=100).pixels.shape == (1, 3, 10, 10)


def write_psd(path: Path) -> None:
    """A PSD without layers, 10 x 10 (Adobe Photoshop File Formats Specification)."""
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 10, 10, 8, 3)
    path.write_bytes(header + bytes(12) + bytes(2) + colors(3, 100, 1).tobytes())


ALL = [
    *("png", "animated.png", "16.png", "jpg", "mpo", "webp", "lossless.webp", "alpha.webp", "animated.webp", "tif"),
    *(
        "turned.tif",
        "lzw.tif",
        "tiles.tif",
        "jpeg.tif",
        "gif",
        "animated.gif",
        "bmp",
        "ppm",
        "avif",
        "jp2",
        "psd",
        "heic",
    ),
]


def write_10_by_10(path: Path) -> None:
    """One file of each format, and of each kind for which Pillow has separate checks."""
    rgb = colors(10, 10)
    image = Image.fromarray(colors(10, 10, 4) if path.stem == "alpha" else rgb)
    exif = Image.Exif()
    exif[274] = 6 if path.stem == "turned" else 1
    more = (
        {"save_all": True, "append_images": [image.rotate(90)]}
        if path.stem == "animated" or path.suffix == ".mpo"
        else {}
    )
    if path.suffix == ".psd":
        write_psd(path)
    elif path.suffix == ".heic":
        pytest.importorskip("pillow_heif").from_pillow(image).save(path)
    elif path.name == "16.png":
        write_png(path, colors(10, 10, 3, np.uint16))
    elif path.name == "tiles.tif":
        tifffile.imwrite(path, rgb, photometric="rgb", tile=(16, 16))
    else:
        compression = {"lzw": "tiff_lzw", "jpeg": "jpeg"}.get(path.stem)
        options = {"compression": compression} if compression else {"exif": exif} if path.stem == "turned" else more
        image.save(path, lossless=path.stem == "lossless", **options)


def test_every_format_is_tried_at_the_limit() -> None:
    suffixes = {".jp2": "JPEG2000", ".jpg": "JPEG", ".tif": "TIFF"}
    tried = {suffixes.get(Path(f"a.{name}").suffix, name.rpartition(".")[2].upper()) for name in ALL}
    assert set(formats.FORMATS) <= tried


@pytest.mark.parametrize("pillows", [40, 80])
@pytest.mark.parametrize("name", ALL)
def test_max_pixels_raises_the_limit(tmp_path: Path, name: str, pillows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / (name if "." in name else f"plain.{name}")
    write_10_by_10(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    assert f"above the limit of {pillows}" in refused(path)
    assert images.load(path, max_pixels=100).pixels.shape == (1, 3, 10, 10)
    assert images.read_settings(path) is None
    assert pillows == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["VP8X", "VP8L", "VP8 "])
def test_a_webp_is_refused_by_its_header_alone(tmp_path: Path, kind: str) -> None:
    side = (9_999).to_bytes(3, "little")
    body = {
        "VP8X": bytes(4) + side + side,
        "VP8L": b"\x2f" + (9_999 | 9_999 << 14).to_bytes(4, "little"),
        "VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<2H", 10_000, 10_000),
    }[kind] + bytes(40)
    data = b"WEBP" + kind.encode() + struct.pack("<I", len(body)) + body
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    message = refused(tmp_path / "a.webp")
    assert f"10000 x 10000 is 100000000 pixels, above the limit of {Image.MAX_IMAGE_PIXELS}" in message


@pytest.mark.parametrize("shape", [(2, 2002), (2002, 2), (3, 100_000)])
def test_extreme_proportions_are_rejected_before_decoding(tmp_path: Path, shape: tuple[int, int]) -> None:
    message = refused(write_bomb(tmp_path / "a.png", *shape))
    assert f"is {shape[0]} x {shape[1]} pixels; expected one side to be at most 1000 times the other" in message
    with pytest.raises(ImageError, match="at most 1000 times the other"):
        images.load(np.zeros(shape, np.uint8))
    assert images.load(np.zeros((2, 2000), np.uint8)).pixels.shape == (1, 3, 2, 2000)


def with_scans(count: int, *, progressive: bool = True) -> bytes:
    """A JPEG that repeats its last scan and the table of Huffman codes before it."""
    buffer = io.BytesIO()
    Image.fromarray(colors(32, 32)).save(buffer, "JPEG", progressive=progressive, exif=b"Exif\0\0\xff\xda\xff\xd9" * 9)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    have = data.count(b"\xff\xda") - 9
    return data[:-2] + last * (count - have) + data[-2:]


def test_a_jpeg_of_many_scans_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for progressive in (True, False):
        path.write_bytes(with_scans(101, progressive=progressive))
        assert "is a JPEG of more than 100 scans; expected about ten" in refused(path)
    path.write_bytes(with_scans(100))
    assert images.load(path).pixels.shape == (1, 3, 32, 32)


def test_scans_after_the_end_of_a_jpeg_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(with_scans(50) + with_scans(60))
    assert images.load(tmp_path / "a.jpg").pixels.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", ["https://example.org/a%20b.jpg?x=1", "ftp://example.org/a.png", "file:///a.png"])
def test_the_error_for_a_url_contains_it_unchanged(name: str) -> None:
    for source in (name, Path(name)):
        with pytest.raises(ImageError) as caught:
            images.load(source)
        shown = name.replace(":///", "://")
        assert str(caught.value) == f"{shown}: is a URL; download it first and name the file"


def test_the_error_for_heif_names_the_required_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    assert "is HEIF (HEIC), which needs a package: pip install pillow-heif" in refused(tmp_path / "a.heic")


def test_globals_of_pillow_are_not_changed(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    images.load(write_png(tmp_path / "a.png", colors(4, 4)), max_pixels=10**9)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_damaged_pillow_image(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(colors(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with Image.open(path) as image, pytest.raises(ImageError, match="the Pillow image: cannot be decoded"):
        images.load(image)


def test_closed_pillow_image(tmp_path: Path) -> None:
    with Image.open(write_png(tmp_path / "a.png", colors(4, 4))) as image:
        pass
    with pytest.raises(ImageError, match="the Pillow image: cannot be decoded"):
        images.load(image)
