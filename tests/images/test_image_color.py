"""Embedded color profiles, compared with the definition of the profile, or with LittleCMS for 8 bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import image_files as made
import numpy as np
import pytest
import tifffile
import torch
from image_files import Array, colors, png_profile, write_png
from PIL import Image, ImageCms

from fastnst import images
from fastnst.images import color


def loaded(path: Path) -> Array:
    return images.load(path).pixels[0].permute(1, 2, 0).double().numpy()


@pytest.fixture
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped(profile: bytes, one: bytes, other: bytes) -> bytes:
    count = int.from_bytes(profile[128:132], "big")
    table = profile[132 : 132 + 12 * count]
    table = table.replace(one, b"????").replace(other, one).replace(b"????", other)
    return profile[:132] + table + profile[132 + 12 * count :]


GAMMA = made.curve_formula(0, 1.8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_swapped_primaries_swap_the_channels(tmp_path: Path, srgb: bytes, dtype: type) -> None:
    samples = colors(7, 9, 3, dtype)
    path = write_png(tmp_path / "a.png", samples, png_profile(swapped(srgb, b"rXYZ", b"gXYZ")))
    tolerance = 1.01 / 255 if dtype is np.uint8 else 2e-4
    assert np.abs(loaded(path) - samples[..., [1, 0, 2]] / np.iinfo(dtype).max).max() < tolerance


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gamma_profile_is_inverted(tmp_path: Path, dtype: type) -> None:
    samples = colors(7, 9, 3, dtype)
    path = write_png(tmp_path / "a.png", samples, png_profile(made.rgb_profile(GAMMA)))
    expected = made.srgb_encoded((samples / np.iinfo(dtype).max) ** 1.8)
    assert np.abs(loaded(path) - expected).max() < (1.01 / 255 if dtype is np.uint8 else 5e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_profile_is_inverted(tmp_path: Path, dtype: type) -> None:
    samples = colors(7, 9, 1, dtype)
    path = write_png(tmp_path / "a.png", samples, png_profile(made.gray_profile(GAMMA)))
    expected = made.srgb_encoded((samples / np.iinfo(dtype).max) ** 1.8)
    assert np.abs(loaded(path) - expected[..., None]).max() < (2.01 / 255 if dtype is np.uint8 else 5e-4)


@pytest.mark.parametrize(
    "curve",
    [
        made.curve_table([]),
        made.curve_table([round(2.2 * 256)]),
        made.curve_table([round(65535 * (i / 99) ** 2.4) for i in range(100)]),
        made.curve_formula(0, 1.8),
        made.curve_formula(1, 2.0, 1.25, -0.25),
        made.curve_formula(2, 2.0, 1.0, -0.125, 0.1),
        made.curve_formula(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
        made.curve_formula(4, 2.2, 0.9, 0.1, 0.3, 0.1, 0.0, 0.0),
    ],
    ids=["linear", "gamma", "table", "kind 0", "kind 1", "kind 2", "kind 3", "kind 4"],
)
@pytest.mark.parametrize("order", ["rgb", "brg"])
def test_16_bit_conversion_agrees_with_littlecms(tmp_path: Path, curve: bytes, order: str) -> None:
    profile = made.rgb_profile(curve, order)
    samples = colors(32, 32)
    reference = ImageCms.profileToProfile(
        Image.fromarray(samples),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.NOOPTIMIZE,
    )
    path = write_png(tmp_path / "a.png", samples.astype(np.uint16) * 257, png_profile(profile))
    assert np.abs(loaded(path) * 255 - np.asarray(reference)).max() < 1.5


def test_16_bit_conversion_keeps_more_than_8_bits(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(30000, 30256, dtype=np.uint16)[None, :, None], (2, 256, 3))
    path = write_png(tmp_path / "a.png", ramp, png_profile(made.rgb_profile(GAMMA)))
    assert len(np.unique(loaded(path)[0, :, 1])) == 256


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_profile_of_tables_is_applied(tmp_path: Path, dtype: type) -> None:
    samples = np.maximum(colors(7, 9, 3, dtype), np.iinfo(dtype).max // 3)  # tables are inaccurate for dark colors
    path = write_png(tmp_path / "a.png", samples, png_profile(made.table_profile(b"RGB ", 1, inverted=False)))
    expected = made.gray_of_lightness(samples[..., 1] / np.iinfo(dtype).max)
    assert np.abs(loaded(path) - expected[..., None]).max() < 3 / 255


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk_profile_is_applied(tmp_path: Path, suffix: str) -> None:
    inks = np.zeros((16, 64, 4), np.uint8)
    inks[..., 0] = 255  # cyan, which this profile ignores
    inks[..., 3] = np.repeat(np.linspace(0, 180, 8).astype(np.uint8), 8)
    path = tmp_path / f"a.{suffix}"
    profile = made.table_profile(b"CMYK", 3, inverted=True)
    Image.fromarray(inks, "CMYK").save(path, icc_profile=profile, quality=100)
    expected = made.gray_of_lightness(1 - inks[..., 3] / 255)
    assert np.abs(loaded(path) - expected[..., None]).max() < (3 if suffix == "tif" else 8) / 255


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_profile_is_found_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    rgb = np.full((16, 16, 3), [200, 100, 50], np.uint8)
    Image.fromarray(rgb).save(path, icc_profile=made.rgb_profile(GAMMA, "grb"), quality=100)
    expected = made.srgb_encoded((np.array([100, 200, 50]) / 255) ** 1.8)
    assert np.abs(loaded(path) - expected).max() < 6 / 255


def test_alpha_and_palette_are_converted_too(tmp_path: Path) -> None:
    profile = made.rgb_profile(GAMMA, "grb")
    expected = made.srgb_encoded((np.array([100, 200, 50]) / 255) ** 1.8)
    translucent = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    indexed = Image.new("P", (4, 4))
    indexed.putpalette([200, 100, 50])
    for image in (translucent, indexed):
        image.save(tmp_path / "a.png", icc_profile=profile)
        assert np.abs(loaded(tmp_path / "a.png") - expected).max() < 1.01 / 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_profile_equivalent_to_srgb_leaves_the_pixels_exact(tmp_path: Path, srgb: bytes, dtype: type) -> None:
    samples = colors(9, 9, 3, dtype)
    path = write_png(tmp_path / "a.png", samples, png_profile(srgb))
    assert np.abs(loaded(path) - samples / np.iinfo(dtype).max).max() < 1e-7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "broken",
    [
        b"not a profile",
        made.rgb_profile(GAMMA)[:100],
        made.rgb_profile(GAMMA)[:200],
        made.rgb_profile(GAMMA)[:132] + b"\xff" * 200,
        made.rgb_profile(b"curv\0\0\0\0\xff\xff\xff\xff"),
        made.rgb_profile(b"nope\0\0\0\0\0\0\0\1"),
        made.profile(b"RGB ", b"XYZ ", {}),
        made.gray_profile(GAMMA),
        made.table_profile(b"CMYK", 3, inverted=True),
    ],
)
def test_broken_or_foreign_profile_is_ignored(tmp_path: Path, broken: bytes, dtype: type) -> None:
    samples = colors(5, 6, 3, dtype)
    path = write_png(tmp_path / "a.png", samples, png_profile(broken))
    assert np.abs(loaded(path) - samples / np.iinfo(dtype).max).max() < 1e-7


@pytest.mark.parametrize(
    ("name", "bits"), [("a.png", 8), ("a.png", 16), ("a.tif", 8), ("a.tif", 16), ("a.jpg", 8), ("a.webp", 8)]
)
def test_saved_files_carry_an_srgb_profile(tmp_path: Path, name: str, bits: int) -> None:
    path = images.save(tmp_path / name, torch.rand(1, 3, 8, 8), bits=bits)
    with Image.open(path) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 1}, {"tile": (16, 16)}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_many_small_parts_is_converted_a_few_times(
    tmp_path: Path, dtype: type, layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2000 strips or 64 tiles: one transform, and one conversion per quarter of a megabyte."""
    samples = colors(*((2000, 50) if "rowsperstrip" in layout else (128, 128)), 3, dtype)
    whole, parts = tmp_path / "whole.tif", tmp_path / "parts.tif"
    icc = made.rgb_profile(made.curve_formula(0, 1.7))
    tifffile.imwrite(whole, samples, photometric="rgb", iccprofile=icc, metadata=None)
    tifffile.imwrite(parts, samples, photometric="rgb", iccprofile=icc, metadata=None, **layout)
    made_of: list[object] = []
    converted: list[object] = []
    real, convert, deep = ImageCms.ImageCmsTransform, color.to_srgb, color.to_srgb_16
    monkeypatch.setattr(ImageCms, "ImageCmsTransform", lambda *a: (made_of.append(a), real(*a))[1])
    monkeypatch.setattr(color, "to_srgb", lambda *a: (converted.append(a), convert(*a))[1])
    monkeypatch.setattr(color, "to_srgb_16", lambda *a: (converted.append(a), deep(*a))[1])
    color._transform.cache_clear()
    found = loaded(parts)
    assert len(made_of) == 1
    assert len(converted) <= 10
    assert np.array_equal(found, loaded(whole))
