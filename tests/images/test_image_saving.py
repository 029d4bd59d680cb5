from __future__ import annotations

import errno
import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from image_files import colors, smooth, write_png
from PIL import Image, PngImagePlugin

from fastnst import images
from fastnst.errors import ImageError, UsageError
from fastnst.images import saving, targets
from fastnst.images.color import srgb_profile

LOSSLESS = [("a.png", 8), ("a.png", 16), ("a.tif", 8), ("a.tiff", 16), ("a.webp", 8), ("a.jp2", 8)]
CARRYING = [*LOSSLESS, ("a.jpg", 8), ("a.JPEG", 8), ("a.avif", 8)]
EVERY = [*CARRYING, ("a.bmp", 8)]
SETTINGS: dict[str, object] = {
    "preset": "gatys",
    "size": 512,
    "content_weight": 0.1,
    "layers": {"relu1_1": 1.0, "relu4_2": 1e-30},
    "style": 'Hokusai 北斎, "Große Welle".jpg\n',
    "seed": None,
    "tv": True,
}


def tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jp2", "a.bmp"])
def test_8_bits_are_rounded_to_nearest_and_clamped(tmp_path: Path, name: str) -> None:
    levels = np.array([-3, 0, 0.49, 0.51, 1.49, 100.5 - 1e-3, 100.5 + 1e-3, 254.49, 254.51, 255, 300])
    pixels = tensor(np.broadcast_to(levels[None, :, None] / 255, (2, 11, 3)))
    path = images.save(tmp_path / name, pixels, bits=8, quality=100)
    with Image.open(path) as image:
        assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 0, 1, 1, 100, 101, 254, 255, 255, 255]


@pytest.mark.parametrize(("name", "bits"), EVERY)
def test_saved_image_loads(tmp_path: Path, name: str, bits: int) -> None:
    pixels = tensor(smooth(40, 56))
    assert (images.load(images.save(tmp_path / name, pixels, bits=bits)).pixels - pixels).abs().max() < 0.03
    assert (images.load(images.save(tmp_path / name, pixels[0].half(), bits=bits)).pixels - pixels).abs().max() < 0.03


@pytest.mark.parametrize(("name", "bits"), [entry for entry in LOSSLESS if entry[1] == 8])
def test_alpha_is_saved(tmp_path: Path, name: str, bits: int) -> None:
    samples = np.maximum(colors(9, 7, 4), 1)
    picture = images.load(samples)
    path = images.save(tmp_path / name, picture.pixels, alpha=picture.alpha, bits=bits, quality=100)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), samples)


def test_alpha_is_saved_in_an_avif(tmp_path: Path) -> None:
    opacity = torch.linspace(0.25, 1, 32).expand(1, 1, 16, 32)
    path = images.save(tmp_path / "a.avif", torch.full((1, 3, 16, 32), 0.5), alpha=opacity)
    picture = images.load(path)
    assert picture.alpha is not None
    assert (picture.alpha - opacity).abs().max() < 0.02
    assert (picture.pixels - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp"])
def test_formats_without_alpha_get_a_white_background(tmp_path: Path, name: str) -> None:
    path = images.save(tmp_path / name, torch.zeros(1, 3, 16, 16), alpha=torch.full((1, 1, 16, 16), 0.25))
    assert (images.load(path).pixels - 0.75).abs().max() < 0.01


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.webp", "a.avif"])
def test_an_srgb_profile_is_embedded(tmp_path: Path, name: str) -> None:
    with Image.open(images.save(tmp_path / name, torch.rand(1, 3, 16, 16))) as image:
        assert image.info["icc_profile"] == srgb_profile()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif"])
def test_higher_quality_is_more_accurate_and_larger(tmp_path: Path, name: str) -> None:
    pixels = torch.rand(1, 3, 64, 64)
    low, high = (images.save(tmp_path / f"{q}{name}", pixels, quality=q) for q in (30, 98))
    assert low.stat().st_size < high.stat().st_size
    errors = [(images.load(path).pixels - pixels).abs().mean() for path in (low, high)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("name", "bits"), CARRYING)
def test_settings_round_trip(tmp_path: Path, name: str, bits: int) -> None:
    pixels = torch.rand(1, 3, 20, 20)
    assert images.read_settings(images.save(tmp_path / name, pixels, settings=SETTINGS, bits=bits)) == SETTINGS
    assert images.read_settings(images.save(tmp_path / name, pixels, settings={}, bits=bits)) == {}
    assert images.read_settings(images.save(tmp_path / name, pixels, bits=bits)) is None


@pytest.mark.parametrize(("name", "bits"), CARRYING)
def test_long_settings_round_trip(tmp_path: Path, name: str, bits: int) -> None:
    settings = {"prompt": "x" * 59_000}
    path = images.save(tmp_path / name, torch.rand(1, 3, 8, 8), settings=settings, bits=bits)
    assert images.read_settings(path) == settings
    assert images.load(path).pixels.shape == (1, 3, 8, 8)


def test_paths_in_settings_become_strings(tmp_path: Path) -> None:
    path = images.save(tmp_path / "a.png", torch.rand(1, 3, 8, 8), settings={"content": Path("photo.jpg")})
    assert images.read_settings(path) == {"content": "photo.jpg"}


@pytest.mark.parametrize(
    "settings",
    [{"a": float("nan")}, {"a": object()}, {"a": torch.zeros(1)}, {"a": "x" * 70_000}],
    ids=["nan", "object", "tensor", "too long"],
)
def test_settings_that_json_cannot_hold_are_usage_errors(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="settings: expected"):
        images.save(tmp_path / "a.png", torch.rand(1, 3, 8, 8), settings=settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '"a"', "[" * 50_000, '{"a": 1' + "0" * 10_000 + "}", '{"a": "' + "x" * 70_000 + '"}'],
    ids=["empty", "cut", "list", "number", "string", "deep", "huge number", "too long"],
)
def test_foreign_settings_are_none(tmp_path: Path, text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("fastnst", text)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    exif = Image.Exif()
    exif[270] = "fastnst " + text
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp", exif=exif)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jp2", comment=("fastnst " + text)[:65_000])
    for name in ("a.png", "a.webp", "a.jp2"):
        assert images.read_settings(tmp_path / name) is None


def test_other_captions_are_not_settings(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[270] = json.dumps({"size": 3})
    for name in ("a.jpg", "a.tif"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, exif=exif)
        assert images.read_settings(tmp_path / name) is None


def test_read_settings_of_a_file_that_is_not_an_image_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("{}")
    for name in ("a.txt", "missing.png", "."):
        with pytest.raises(ImageError, match="expected"):
            images.read_settings(tmp_path / name)


@pytest.mark.parametrize(("name", "bits"), EVERY)
def test_same_picture_gives_the_same_bytes(tmp_path: Path, name: str, bits: int) -> None:
    pixels = torch.rand(1, 3, 20, 20)
    first = images.save(tmp_path / name, pixels, settings=SETTINGS, bits=bits).read_bytes()
    assert images.save(tmp_path / name, pixels, settings=SETTINGS, bits=bits).read_bytes() == first


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("a.tga", {}, r"\.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff, \.avif, \.jp2, \.bmp, got '\.tga'"),
        ("a.gif", {}, r"a\.gif: GIF is limited to 256 colors; expected a name ending in \.png"),
        ("a.avif", {"bits": 16}, "expected 8 for .avif, got 16"),
        ("a", {}, r"got ''"),
        ("a.pngg", {}, r"did you mean \.png\?"),
        ("a.jpg", {"bits": 16}, "expected 8 for .jpg, got 16"),
        ("a.png", {"bits": 10}, "expected 8 or 16 for .png, got 10"),
        ("a.jpg", {"quality": 0}, "quality: expected a whole number from 1 to 100, got 0"),
        ("a.jpg", {"quality": 101}, "got 101"),
        ("a.png", {"alpha": torch.zeros(1, 1, 4, 4)}, r"\(8, 8\), got \(4, 4\)"),
        ("a.png", {"alpha": torch.zeros(1, 3, 8, 8)}, "alpha"),
    ],
)
def test_invalid_arguments_are_usage_errors(tmp_path: Path, name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        images.save(tmp_path / name, torch.rand(1, 3, 8, 8), **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(8, 8),
        torch.zeros(1, 1, 8, 8),
        torch.zeros(2, 3, 8, 8),
        torch.zeros(1, 3, 0, 8),
        torch.zeros(3, 8, 8).byte(),
    ],
)
def test_other_shapes_and_types_are_usage_errors(tmp_path: Path, pixels: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"expected pixels as floats \[1, 3, H, W\]"):
        images.save(tmp_path / "a.png", pixels)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_rejected(tmp_path: Path, value: float) -> None:
    pixels = torch.rand(1, 3, 8, 8)
    pixels[0, 1, 2, 3] = value
    with pytest.raises(ImageError, match="not finite"):
        images.save(tmp_path / "a.png", pixels)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_hold_the_file_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.rand(1, 3, 8, 8)
    with pytest.raises(ImageError, match=r"missing/a\.png: there is no folder"):
        images.save(tmp_path / "missing" / "a.png", pixels)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=r"folder\.png: is a folder"):
        images.save(tmp_path / "folder.png", pixels)
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="file"):
        images.save(tmp_path / "file" / "a.png", pixels)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImageError, match="no permission to write"):
        images.save(tmp_path / "a.png", pixels)


def test_name_too_long_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be written"):
        images.save(tmp_path / ("x" * 300 + ".png"), torch.rand(1, 3, 8, 8))


def test_webp_has_a_longest_side(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="at most 16383 pixels a side, got 16384 x 2"):
        images.save(tmp_path / "a.webp", torch.zeros(1, 3, 2, 16384))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def on_a_full_disk(path: Path) -> Iterator[Path]:
        yield Path("/dev/full")

    monkeypatch.setattr(saving, "replacing", on_a_full_disk)
    with pytest.raises(ImageError, match=r"a\.png: cannot be written \(no space left on the disk") as caught:
        images.save(tmp_path / "a.png", torch.rand(1, 3, 8, 8))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on file sizes")
@pytest.mark.parametrize(("name", "bits"), EVERY)
def test_no_partial_file_is_left(tmp_path: Path, name: str, bits: int) -> None:
    import resource

    path = images.save(tmp_path / name, torch.zeros(1, 3, 8, 8), bits=bits)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ImageError, match="cannot be written"):
            images.save(path, torch.rand(1, 3, 64, 64), bits=bits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_interruption_leaves_the_old_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_png(tmp_path / name, colors(4, 4))
    before = path.read_bytes()

    encoded = saving._encode

    def interrupted(stream: BinaryIO, *arguments: Any) -> None:
        whole = io.BytesIO()
        encoded(whole, *arguments)
        stream.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images.save(path, torch.rand(1, 3, 64, 64))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_check_target_reports_what_save_would_reject(tmp_path: Path) -> None:
    assert images.check_target(tmp_path / "a.tif") == (tmp_path / "a.tif", 16)
    assert images.check_target(str(tmp_path / "a.png")) == (tmp_path / "a.png", 8)
    with pytest.raises(UsageError, match="expected a name ending in"):
        images.check_target(tmp_path / "a.tga")
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_pillow_was_built_without_is_rejected_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets.features, "check", lambda name: name != "avif")
    with pytest.raises(ImageError, match="this Pillow does not support AVIF"):
        images.check_target(tmp_path / "a.avif")
    images.check_target(tmp_path / "a.webp")
