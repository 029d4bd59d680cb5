"""Camera raw, and TIFF whose first page is a thumbnail, written tag by tag as cameras do."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import UPRIGHT, Array, colors, refused, smooth
from PIL import Image

from fastnst import images
from fastnst.errors import ImageError

REDUCED, CFA, RGB, YCBCR = 1, 32803, 2, 6
LARGE = colors(40, 60)
SMALL = colors(10, 15, seed=1)


def picture(samples: Array, **more: Any) -> dict[Any, Any]:
    """A directory of plain RGB."""
    return {
        256: samples.shape[1],
        257: samples.shape[0],
        258: (8, 8, 8),
        259: 1,
        262: RGB,
        277: 3,
        278: len(samples),
    } | {
        "data": samples.tobytes(),
        **{int(tag[1:]): value for tag, value in more.items() if tag.startswith("t")},
        "subs": more.get("subs", ()),
    }


def preview(samples: Array, *, tags: bool, sized: bool) -> dict[Any, Any]:
    """A directory with a JPEG file, in separate tags (as in NEF and ARW) or as a strip (as in DNG and CR2)."""
    data = io.BytesIO()
    Image.fromarray(samples).save(data, "JPEG", quality=98, subsampling=0)
    size = {256: samples.shape[1], 257: samples.shape[0]} if sized else {}
    return {254: REDUCED, 259: 6, "data": data.getvalue(), "jpeg_tags": tags, **size}


def sensor(height: int, width: int) -> dict[Any, Any]:
    data = colors(height, width, 1, np.uint16).tobytes()
    return {254: 0, 256: width, 257: height, 258: 16, 259: 1, 262: CFA, 277: 1, "data": data}


def write_tiff(path: Path, *chain: dict[Any, Any], order: str = "<") -> Path:
    file = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0))
    link = 4
    for directory in chain:
        at, after = put(file, directory, order)
        struct.pack_into(order + "I", file, link, at)
        link = after
    path.write_bytes(file)
    return path


def put(file: bytearray, directory: dict[Any, Any], order: str) -> tuple[int, int]:
    """Append a directory and its data; return its offset, and where the offset of the next is to be written."""
    tags = {tag: value for tag, value in directory.items() if isinstance(tag, int)}
    if directory.get("subs"):
        tags[330] = tuple(put(file, below, order)[0] for below in directory["subs"])
    names = (513, 514) if directory.get("jpeg_tags") else (273, 279)
    tags |= {names[0]: len(file), names[1]: len(directory["data"])}
    file += directory["data"] + b"\0" * (len(directory["data"]) % 2)
    entries = []
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, tuple) else (value,)
        data = struct.pack(f"{order}{len(values)}I", *values)
        if len(data) > 4:
            data, where = struct.pack(order + "I", len(file)), data
            file += where
        entries.append(struct.pack(order + "HHI", tag, 4, len(values)) + data)
    at = len(file)
    file += struct.pack(order + "H", len(entries)) + b"".join(entries) + struct.pack(order + "I", 0)
    return at, len(file) - 4


def loaded(path: Path) -> Array:
    return images.load(path).pixels[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("marked", [REDUCED, 0])
def test_the_image_is_read_and_not_the_thumbnail_before_it(tmp_path: Path, order: str, marked: int) -> None:
    below = write_tiff(tmp_path / "a.tif", picture(SMALL, t254=marked, subs=[picture(LARGE)]), order=order)
    behind = write_tiff(tmp_path / "b.tif", picture(SMALL, t254=marked), picture(LARGE), order=order)
    for path in (below, behind):
        assert np.abs(loaded(path) - LARGE / 255).max() < 1e-7


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_orientation_of_the_first_directory_applies_to_all(tmp_path: Path, orientation: int) -> None:
    path = write_tiff(tmp_path / "a.tif", picture(SMALL, t254=REDUCED, t274=orientation, subs=[picture(LARGE)]))
    assert np.abs(loaded(path) - UPRIGHT[orientation](LARGE) / 255).max() < 1e-7
    seen = (smooth(40, 60) * 255).astype(np.uint8)
    first = picture(SMALL, t254=REDUCED, t274=orientation, subs=[preview(seen, tags=True, sized=False)])
    assert np.abs(loaded(write_tiff(tmp_path / "a.nef", first)) - UPRIGHT[orientation](seen) / 255).max() < 0.03


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("tags", [True, False])
def test_a_large_preview_is_read_instead_of_sensor_data(
    tmp_path: Path, tags: bool, sized: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen = (smooth(40, 60) * 255).astype(np.uint8)
    nef = picture(SMALL, t254=REDUCED, subs=[sensor(42, 64), preview(seen, tags=tags, sized=sized)])
    with caplog.at_level(logging.WARNING, "fastnst"):
        assert np.abs(loaded(write_tiff(tmp_path / "a.nef", nef)) - seen / 255).max() < 0.03
    expected = "a.nef: is camera raw; its preview of 60 x 40 is used instead of the sensor data of 64 x 42; otherwise"
    assert f"{expected} develop it" in caplog.text


def test_the_preview_may_be_the_first_directory(tmp_path: Path) -> None:
    seen = (smooth(40, 60) * 255).astype(np.uint8)
    arw = {**preview(seen, tags=True, sized=True), "subs": [sensor(42, 64)]}
    assert np.abs(loaded(write_tiff(tmp_path / "a.arw", arw)) - seen / 255).max() < 0.03


@pytest.mark.parametrize("dng", [True, False])
def test_a_file_with_only_a_thumbnail_is_rejected_with_advice(tmp_path: Path, dng: bool) -> None:
    marks = {"t50706": (1, 4, 0, 0)} if dng else {"t254": REDUCED}
    path = write_tiff(tmp_path / "a.dng", picture(SMALL, **marks, subs=[sensor(40, 60)]))
    message = refused(path)
    assert (
        "is camera raw, 60 x 40 of sensor data with no preview of half the size or more; develop it to TIFF" in message
    )
    assert "is camera raw" in refused(write_tiff(tmp_path / "b.dng", sensor(40, 60), picture(SMALL)))


@pytest.mark.parametrize("name", ["a.cr3", "a.RAF", "a.dng"])
def test_unsupported_raw_is_reported_as_such(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(100))
    assert "is camera raw of an unsupported kind; develop it to TIFF or JPEG first" in refused(tmp_path / name)


@pytest.mark.parametrize(
    "others",
    [
        [picture(SMALL)],
        [picture(colors(40, 40))],
        [picture(colors(12, 18))],
        [picture(LARGE, t254=4)],
    ],
    ids=["of the same size", "of other proportions", "a little larger", "a mask"],
)
def test_the_first_of_several_pages_is_read(tmp_path: Path, others: list[dict[Any, Any]]) -> None:
    path = write_tiff(tmp_path / "a.tif", picture(SMALL), *others)
    assert np.abs(loaded(path) - SMALL / 255).max() < 1e-7


def test_smaller_copies_of_an_image_are_ignored(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "a.tif", picture(LARGE, subs=[picture(SMALL, t254=REDUCED)]), picture(SMALL, t254=REDUCED)
    )
    assert np.abs(loaded(path) - LARGE / 255).max() < 1e-7


def test_circular_directories_terminate(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", picture(SMALL), *[picture(SMALL, subs=[picture(SMALL)] * 3)] * 40)
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    for content in (path.read_bytes(), bytes(data)):
        path.write_bytes(content)
        assert np.abs(loaded(path) - SMALL / 255).max() < 1e-7


def test_damaged_raw_gives_a_picture_or_an_image_error(tmp_path: Path) -> None:
    seen = (smooth(40, 60) * 255).astype(np.uint8)
    nef = picture(SMALL, t254=REDUCED, subs=[sensor(42, 64), preview(seen, tags=True, sized=False), picture(LARGE)])
    path = write_tiff(tmp_path / "a.nef", nef, picture(SMALL, t254=REDUCED))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(1)
    parts = [slice(0, 8), slice(len(whole) - 400, len(whole))]
    for i in range(200):
        damaged = whole.copy()
        part = damaged[parts[i % 20 != 0]]
        part[random.integers(0, len(part), 4)] = random.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            images.load(path, max_pixels=1_000_000)
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017
