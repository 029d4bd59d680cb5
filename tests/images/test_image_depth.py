"""16 bits per channel, of which Pillow keeps 8 for color."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from image_files import Array, colors, read_png_16, write_png
from PIL import Image

from fastnst import images


def assert_exact(picture: images.Picture, samples: Array) -> None:
    """The floats determine every 16-bit sample exactly."""
    levels = (picture.pixels[0].permute(1, 2, 0).double() * 65535).numpy()
    expected = samples[..., :3] if samples.ndim == 3 else np.repeat(samples[..., None], 3, axis=2)
    assert np.abs(levels - expected).max() < 0.01


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_its_precision(tmp_path: Path, channels: int) -> None:
    samples = np.maximum(colors(9, 7, channels, np.uint16), 1)
    assert_exact(images.load(write_png(tmp_path / "a.png", samples)), samples)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_filters_and_interlacing_of_16_bit_png_are_decoded(tmp_path: Path, channels: int, interlaced: bool) -> None:
    samples = np.maximum(colors(37, 41, channels, np.uint16), 1)
    path = write_png(tmp_path / "a.png", samples, filtered=True, interlaced=interlaced)
    assert_exact(images.load(path), samples[..., 0] if channels == 2 else samples)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"rowsperstrip": 2},
        {"tile": (16, 16)},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "tile": (16, 16)},
    ],
)
@pytest.mark.parametrize("extra", [None, "unassalpha", "unspecified"])
def test_16_bit_tiff_keeps_its_precision(
    tmp_path: Path, extra: str | None, layout: dict[str, Any], byteorder: Any
) -> None:
    samples = np.maximum(colors(21, 35, 4 if extra else 3, np.uint16), 1)
    path = tmp_path / "a.tif"
    extras = {"extrasamples": [extra]} if extra else {}
    tifffile.imwrite(path, samples, photometric="rgb", byteorder=byteorder, **extras, **layout)
    picture = images.load(path)
    assert_exact(picture, samples)
    if extra == "unassalpha":
        assert picture.alpha is not None
        assert np.abs(picture.alpha[0, 0].numpy() - samples[..., 3] / 65535).max() < 1e-6
    else:
        assert picture.alpha is None


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_premultiplied_color_is_divided_by_alpha(tmp_path: Path, compression: str | None) -> None:
    straight = colors(8, 9, 3, np.uint16).astype(np.float64)
    alpha = np.linspace(0.25, 1, 72).reshape(8, 9, 1)
    samples = np.concatenate([straight * alpha, 65535 * alpha], axis=2).round().astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["assocalpha"], compression=compression)
    loaded = images.load(path).pixels[0].permute(1, 2, 0).double().numpy() * 65535
    assert np.abs(loaded - straight).max() < 0.5 / 0.25 + 1.5


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planar_16_bit_tiff_keeps_its_precision(tmp_path: Path, compression: str | None) -> None:
    samples = colors(20, 30, 3, np.uint16)
    planes = np.ascontiguousarray(samples.transpose(2, 0, 1))
    tifffile.imwrite(
        tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", compression=compression, rowsperstrip=7
    )
    assert_exact(images.load(tmp_path / "a.tif"), samples)


def test_deep_files_of_other_formats_are_read_with_8_bits(tmp_path: Path) -> None:
    samples = colors(6, 7, 3, np.uint16)
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 7 6 65535\n" + samples.astype(">u2").tobytes())
    loaded = images.load(path).pixels[0].permute(1, 2, 0).numpy()
    assert np.abs(loaded - samples / 65535).max() < 1 / 255


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bit_files_round_trip_exactly(tmp_path: Path, name: str, with_alpha: bool) -> None:
    levels = torch.from_numpy(np.maximum(colors(130, 33, 4, np.uint16), 1).astype(np.float32) / 65535).permute(2, 0, 1)
    pixels, alpha = levels[None, :3], levels[None, 3:] if with_alpha else None
    path = images.save(tmp_path / name, pixels, alpha=alpha, bits=16)
    picture = images.load(path)
    assert torch.equal(picture.pixels, pixels)
    assert picture.alpha is None if alpha is None else torch.equal(picture.alpha, alpha)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [3, 4])
def test_other_readers_find_the_same_16_bit_samples(tmp_path: Path, channels: int) -> None:
    samples = colors(150, 33, channels, np.uint16)
    values = torch.from_numpy(samples.astype(np.float32) / 65535).permute(2, 0, 1)[None]
    alpha = values[:, 3:] if channels == 4 else None
    tiff = images.save(tmp_path / "a.tif", values[:, :3], alpha=alpha)
    png = images.save(tmp_path / "a.png", values[:, :3], alpha=alpha, bits=16)
    assert np.array_equal(tifffile.imread(tiff), samples)
    assert np.array_equal(read_png_16(png), samples)
    for path in (tiff, png):
        with Image.open(path) as image:
            assert image.size == (33, 150)
            assert image.mode == {3: "RGB", 4: "RGBA"}[channels]
            assert np.array_equal(np.asarray(image), samples >> 8)


def test_tiff_has_16_bits_by_default(tmp_path: Path) -> None:
    pixels = torch.rand(1, 3, 8, 9)
    assert tifffile.imread(images.save(tmp_path / "a.tif", pixels)).dtype == np.uint16
    assert tifffile.imread(images.save(tmp_path / "b.tiff", pixels, bits=8)).dtype == np.uint8
