"""Files that are not what they should be: one clear line each, naming the file."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_files import colours, refused, write_png
from PIL import Image, ImageFile

from fastnst import images
from fastnst.errors import ImageError

FILES = ["png", "jpg", "webp", "tif", "gif", "bmp", "ppm", "jp2", "avif"]


def write_bomb(path: Path, width: int, height: int) -> Path:
    """A PNG that says it is large and holds next to nothing."""
    write_png(path, colours(2, 2))
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


def test_name_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be opened"):
        images.load("a\0.png")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_png(tmp_path / "a.png", colours(4, 4))

    def forbidden(self: Path, mode: str) -> None:
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
    Image.fromarray(colours(64, 64)).save(path)
    data = path.read_bytes()
    for kept in (12, 40, len(data) // 3, len(data) * 3 // 4):
        path.write_bytes(data[:kept])
        refused(path)


@pytest.mark.parametrize("suffix", [*FILES, "16.png", "16.tif"])
def test_damaged_bytes_give_a_picture_or_an_image_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix.startswith("16"):
        images.save(path, images.load(colours(24, 24)).pixels, bits=16, settings={"a": 1})
    else:
        Image.fromarray(colours(24, 24)).save(path)
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


def test_unread_kind_of_tiff_is_said_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), np.float64), photometric="rgb")
    assert "is TIFF, but damaged or of a kind that is not read" in refused(tmp_path / "a.tif")


def test_floats_and_integers_of_unknown_scale_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 255, np.float32)).save(tmp_path / "a.tif")
    assert "from 255 to 255; expected floats in 0..1" in refused(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "b.tif")
    assert "70000; expected at most 16 bits" in refused(tmp_path / "b.tif")


def test_fully_transparent(tmp_path: Path) -> None:
    assert "fully transparent" in refused(write_png(tmp_path / "a.png", np.zeros((4, 4, 4), np.uint8)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_one_pixel_wide(tmp_path: Path, shape: tuple[int, int]) -> None:
    message = refused(write_png(tmp_path / "a.png", colours(*shape)))
    assert f"is {shape[1]} x {shape[0]} pixels; expected at least 2 x 2" in message
    with pytest.raises(ImageError, match="expected at least 2 x 2"):
        images.load(colours(*shape))


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
    path = write_png(tmp_path / "a.png", colours(10, 10))
    assert "10 x 10 is 100 pixels, above the limit of 99" in refused(path, max_pixels=99)
    assert images.load(path, max_pixels=100).pixels.shape == (1, 3, 10, 10)


@pytest.mark.parametrize("pillows", [40, 80])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif"])
def test_max_pixels_raises_the_limit(tmp_path: Path, name: str, pillows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(colours(10, 10)).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    assert f"above the limit of {pillows}" in refused(tmp_path / name)
    assert images.load(tmp_path / name, max_pixels=100).pixels.shape == (1, 3, 10, 10)
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_pillows_globals_are_left_alone(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    images.load(write_png(tmp_path / "a.png", colours(4, 4)), max_pixels=10**9)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_damaged_pillow_image(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(colours(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with Image.open(path) as image, pytest.raises(ImageError, match="the Pillow image: cannot be decoded"):
        images.load(image)
