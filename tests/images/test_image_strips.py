"""Reading and writing by strips and tiles: memory, layouts, and truncated files."""

from __future__ import annotations

import errno
import os
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import pytest
import tifffile
import torch
from image_files import UPRIGHT, Array, colors, curve_formula, rgb_profile
from PIL import Image

from fastnst import images
from fastnst.errors import ImageError
from fastnst.images import encoding

KINDS = [
    (bands, dtype) for bands in (1, 2, 3, 4) for dtype in (np.uint8, np.uint16) if (bands, dtype) != (2, np.uint16)
]


def pixels(path: Path, **arguments: int) -> Array:
    return images.load(path, **arguments).pixels[0].permute(1, 2, 0).double().numpy()


def refused(path: Path, **arguments: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on tags
        return image_files.refused(path, **arguments)


def peak(action: Callable[[], object]) -> int:
    """The peak of bytes that ``action`` allocates; includes NumPy's arrays, but not PyTorch's."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "bits"), [("a.tif", 16), ("a.tif", 8), ("a.png", 16)])
def test_saving_takes_the_memory_of_a_strip(tmp_path: Path, name: str, bits: int) -> None:
    picture = torch.rand(1, 3, 1536, 1024)
    images.save(tmp_path / name, picture[..., :2, :2], bits=bits)  # imports are not measured
    strip = 64 * 1024 * 3 * 4
    used = peak(lambda: images.save(tmp_path / name, picture, bits=bits))
    assert used < 6 * strip < picture.numel() * 4 / 3


@pytest.mark.parametrize(
    "layout", [{"rowsperstrip": 32}, {"tile": (64, 64)}, {"tile": (64, 64), "compression": "zlib"}]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_loading_takes_the_memory_of_the_result(tmp_path: Path, dtype: Any, layout: dict[str, Any]) -> None:
    samples = colors(1024, 1024, 3, dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", **layout)
    images.load(tmp_path / "a.tif", size=16)
    result = samples.size * 4
    used = peak(lambda: images.load(tmp_path / "a.tif"))
    assert result <= used < 1.25 * result


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 32)}])
@pytest.mark.parametrize("coding", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}])
@pytest.mark.parametrize(("bands", "dtype"), KINDS)
def test_every_layout_is_read(
    tmp_path: Path, bands: int, dtype: Any, coding: dict[str, Any], layout: dict[str, Any], bigtiff: bool
) -> None:
    samples = np.maximum(colors(45, 70, bands, dtype), 1)
    kind: dict[str, Any] = {"photometric": "rgb" if bands > 2 else "minisblack", "planarconfig": "contig"}
    if bands in (2, 4):
        kind["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(tmp_path / "a.tif", samples, bigtiff=bigtiff, metadata=None, **kind, **coding, **layout)
    values = samples.reshape(45, 70, bands) / np.iinfo(dtype).max
    picture = images.load(tmp_path / "a.tif")
    expected = np.broadcast_to(values[..., : 3 if bands > 2 else 1], (45, 70, 3))
    assert np.abs(picture.pixels[0].permute(1, 2, 0).numpy() - expected).max() < 1e-7
    if bands in (2, 4):
        assert picture.alpha is not None
        assert np.abs(picture.alpha[0, 0].numpy() - values[..., -1]).max() < 1e-7
    else:
        assert picture.alpha is None


def test_16_bit_gray_with_alpha_is_rejected(tmp_path: Path) -> None:
    kind: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", colors(9, 7, 2, np.uint16), **kind)
    assert "is TIFF, but damaged or of an unsupported kind" in refused(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", [{"rowsperstrip": 4}, {"tile": (16, 16)}])
def test_orientation_of_strips_and_tiles_is_applied(tmp_path: Path, layout: dict[str, Any], orientation: int) -> None:
    samples = colors(21, 35, 3, np.uint16)
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extratags=tag, **layout)
    assert np.abs(pixels(tmp_path / "a.tif") - UPRIGHT[orientation](samples) / 65535).max() < 1e-7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_inverted(tmp_path: Path, dtype: Any) -> None:
    samples = colors(20, 20, 1, dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite", rowsperstrip=3)
    white = np.iinfo(dtype).max
    assert np.abs(pixels(tmp_path / "a.tif") - ((white - samples) / white)[..., None]).max() < 1e-7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colors_are_converted_strip_by_strip_as_at_once(tmp_path: Path, dtype: Any) -> None:
    samples = colors(40, 50, 3, dtype)
    profile = rgb_profile(curve_formula(0, 1.8), order="gbr")
    for name, rows in (("strips", 3), ("whole", 40)):
        tifffile.imwrite(tmp_path / f"{name}.tif", samples, photometric="rgb", iccprofile=profile, rowsperstrip=rows)
    converted = pixels(tmp_path / "strips.tif")
    assert np.array_equal(converted, pixels(tmp_path / "whole.tif"))
    assert np.abs(converted - samples / np.iinfo(dtype).max).max() > 0.1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_above_4_gb_a_big_tiff_is_written(
    tmp_path: Path, channels: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.maximum(colors(150, 33, channels, np.uint16 if bits == 16 else np.uint8), 1)
    values = torch.from_numpy(samples.astype(np.float32) / (2**bits - 1)).permute(2, 0, 1)[None]
    alpha = values[:, 3:] if channels == 4 else None
    assert images.save(tmp_path / "a.tif", values[:, :3], alpha=alpha, bits=bits).read_bytes()[:4] == b"II*\0"
    monkeypatch.setattr(encoding, "_MAX_TIFF_BYTES", samples.nbytes - 1)
    path = images.save(tmp_path / "b.tif", values[:, :3], alpha=alpha, bits=bits, settings={"size": 3})
    assert path.read_bytes()[:4] == b"II+\0"
    assert np.array_equal(tifffile.imread(path), samples)
    assert images.read_settings(path) == {"size": 3}
    picture = images.load(path)
    assert torch.equal(picture.pixels, values[:, :3])
    assert (picture.alpha is None) == (alpha is None)


def test_an_image_above_the_limit_round_trips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    samples = colors(200, 100, 3, np.uint16)
    values = torch.from_numpy(samples.astype(np.float32) / 65535).permute(2, 0, 1)[None]
    path = images.save(tmp_path / "a.tif", values, settings={"size": 200})
    assert "above the limit of 1000; raise max_pixels (--max-pixels)" in refused(path)
    assert images.read_settings(path) == {"size": 200}
    assert torch.equal(images.load(path, max_pixels=20_000).pixels, values)


@pytest.mark.parametrize("big", [False, True])
def test_lzw_is_left_to_pillow_above_the_limit_too(tmp_path: Path, big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = colors(30, 40)
    Image.fromarray(samples).save(tmp_path / "a.tif", compression="tiff_lzw", big_tiff=big)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert np.abs(pixels(tmp_path / "a.tif", max_pixels=1200) - samples / 255).max() < 1e-7


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("coding", [{}, {"compression": "zlib"}])
def test_a_tiff_that_ends_early(tmp_path: Path, coding: dict[str, Any], bigtiff: bool) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colors(64, 64), photometric="rgb", rowsperstrip=8, bigtiff=bigtiff, **coding)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        starts = file.pages[0].dataoffsets
    for kept, held in ((starts[3] + 5, 3), (len(whole) - 1, 7), (starts[0], 0)):
        path.write_bytes(whole[:kept])
        assert f"is truncated: contains {held} of its 8 strips or tiles" in refused(path)
    for kept in (4, 12, 20, 60, 150):
        path.write_bytes(whole[:kept])
        refused(path)


def test_a_strip_without_its_length_is_left_to_pillow(tmp_path: Path) -> None:
    samples = colors(16, 16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples, photometric="rgb", bigtiff=True, metadata=None)
    patched(path, 279, lambda entry: struct.pack("<H", 65000) + entry[2:])
    assert np.abs(pixels(path) - samples / 255).max() < 1e-7


def patched(path: Path, tag: int, change: Callable[[bytes], bytes]) -> None:
    """Change the 20 bytes of one entry in the directory of a BigTIFF: tag, type, count, value."""
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<Q", data, 8)
    (count,) = struct.unpack_from("<Q", data, start)
    entries = range(start + 8, start + 8 + 20 * count, 20)
    (at,) = (entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == tag)
    data[at : at + 20] = change(bytes(data[at : at + 20]))
    path.write_bytes(data)


ABSURD = {
    "width": (256, lambda e: e[:2] + struct.pack("<HQQ", 4, 1, 2**31), "above the limit"),
    "rows": (257, lambda e: e[:2] + struct.pack("<HQQ", 4, 1, 6400), "names 8 strips or tiles"),
    "more strips than there are": (278, lambda e: e[:2] + struct.pack("<HQQ", 4, 1, 1), "names 8 strips or tiles"),
    "no rows in a strip": (278, lambda e: e[:2] + struct.pack("<HQQ", 4, 1, 0), "expected at least 1 x 1"),
    "count of offsets": (273, lambda e: e[:4] + struct.pack("<Q", 2**60) + e[12:], ""),
    "place of offsets": (273, lambda e: e[:12] + struct.pack("<Q", 2**50), ""),
    "count of bits": (258, lambda e: e[:4] + struct.pack("<Q", 2**40) + e[12:], ""),
}


@pytest.mark.parametrize("case", ABSURD)
def test_a_directory_with_wrong_sizes_causes_no_allocation(tmp_path: Path, case: str) -> None:
    tag, change, words = ABSURD[case]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colors(64, 64), photometric="rgb", rowsperstrip=8, bigtiff=True, metadata=None)
    patched(path, tag, change)
    assert peak(lambda: refused(path)) < 3_000_000
    assert words in refused(path)


def test_a_wrong_number_of_entries_causes_no_allocation(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    samples = colors(64, 64)
    tifffile.imwrite(path, samples, photometric="rgb", bigtiff=True, metadata=None)
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, struct.unpack_from("<Q", data, 8)[0], 2**62)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow's, on tags: it stops at the end of the file, after the tags that it needs
        assert peak(lambda: images.load(path)) < 3_000_000
        assert np.abs(pixels(path) - samples / 255).max() < 1e-7


def test_tiles_far_larger_than_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colors(16, 16), photometric="rgb", tile=(16, 16), bigtiff=True, metadata=None)
    patched(path, 322, lambda entry: entry[:2] + struct.pack("<HQQ", 4, 1, 2**30))
    assert "tiles of 1073741824 x 16 in a picture of 16 x 16" in refused(path)


@pytest.mark.parametrize("held", [100, 10**8])
def test_a_strip_is_decompressed_to_at_most_its_size(tmp_path: Path, held: int) -> None:
    strip = zlib.compress(bytes(held))
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        iter([strip]),
        shape=(64, 64, 3),
        dtype=np.uint8,
        photometric="rgb",
        compression="zlib",
        rowsperstrip=64,
        metadata=None,
    )
    if held < 64 * 64 * 3:
        assert "its strip or tile 1 holds 100 of 12288 bytes" in refused(path)
    else:
        assert peak(lambda: images.load(path)) < 1_000_000


def test_a_disk_that_fills_between_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = images.save(tmp_path / "a.tif", torch.zeros(1, 3, 8, 8))
    before = path.read_bytes()
    pack, packed = encoding._compress, []

    def filling(levels: Any) -> bytes:
        if len(packed) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        packed.append(pack(levels))
        return packed[-1]

    monkeypatch.setattr(encoding, "_compress", filling)
    with pytest.raises(ImageError, match=r"a\.tif: cannot be written \(no space left on the disk"):
        images.save(path, torch.rand(1, 3, 512, 64))
    assert len(packed) == 3
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_between_strips_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = images.save(tmp_path / "a.tif", torch.zeros(1, 3, 8, 8))
    before = path.read_bytes()
    pack, packed = encoding._compress, []

    def interrupted(levels: Any) -> bytes:
        if packed:
            raise KeyboardInterrupt
        packed.append(pack(levels))
        return packed[-1]

    monkeypatch.setattr(encoding, "_compress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images.save(path, torch.rand(1, 3, 512, 64))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
