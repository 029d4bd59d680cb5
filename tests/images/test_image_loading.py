from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from image_files import UPRIGHT, Array, colors, smooth, write_png
from PIL import Image

from fastnst import images
from fastnst.errors import ImageError, UsageError


def pixels(picture: images.Picture) -> Array:
    """[H, W, 3] as float64."""
    assert picture.pixels.dtype == torch.float32
    assert picture.pixels.is_contiguous()
    return picture.pixels[0].permute(1, 2, 0).double().numpy()


def alpha(picture: images.Picture) -> Array:
    assert picture.alpha is not None
    assert picture.alpha.shape == (1, 1, *picture.pixels.shape[2:])
    return picture.alpha[0, 0].double().numpy()


def gray(samples: Array) -> Array:
    return np.repeat(np.asarray(samples, np.float64)[..., None], 3, axis=2)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm", "webp"])
def test_rgb_of_a_lossless_file_is_exact(tmp_path: Path, suffix: str) -> None:
    rgb = colors(6, 9)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgb).save(path, lossless=True)
    picture = images.load(path)
    assert np.abs(pixels(picture) - rgb / 255).max() < 1e-7
    assert picture.alpha is None
    assert picture.path == path


@pytest.mark.parametrize("suffix", ["jpg", "jp2", "avif", "webp"])
def test_rgb_of_a_lossy_file_is_close(tmp_path: Path, suffix: str) -> None:
    rgb = smooth(40, 56)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray((rgb * 255).astype(np.uint8)).save(path, quality=95)
    assert np.abs(pixels(images.load(path)) - rgb).max() < 0.05


@pytest.mark.parametrize("name", ["a.jpg", "photo.with.dots.png", "ünïcode 猫.png"])
def test_format_is_detected_by_content_not_by_name(tmp_path: Path, name: str) -> None:
    rgb = colors(4, 5)
    path = tmp_path / name
    Image.fromarray(rgb).save(path, "PNG")
    assert np.abs(pixels(images.load(str(path))) - rgb / 255).max() < 1e-7


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "tif", "lzw tif", "webp", "16-bit gray png", "16-bit png", "16-bit tif"])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    deep = kind.startswith("16")
    stored = colors(5, 8, 1 if "gray" in kind else 3, np.uint16 if deep else np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{kind.split()[-1]}"
    if kind == "16-bit png":
        write_png(path, stored, {b"eXIf": exif.tobytes().removeprefix(b"Exif\0\0")})
    elif kind == "16-bit tif":
        tifffile.imwrite(path, stored, photometric="rgb", metadata=None, extratags=[(274, "H", 1, orientation, True)])
    else:
        compression = "tiff_lzw" if kind == "lzw tif" else None
        Image.fromarray(stored).save(path, exif=exif, lossless=True, compression=compression)
    expected = UPRIGHT[orientation](gray(stored) if stored.ndim == 2 else stored) / np.iinfo(stored.dtype).max
    loaded = pixels(images.load(path))
    assert loaded.shape == expected.shape
    assert np.abs(loaded - expected).max() < 1e-7


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    rgb = colors(4, 5)
    path = write_png(tmp_path / "a.png", rgb, {b"eXIf": b"MM\0*\0\0\xff\xff\xff\xff garbage"})
    assert np.abs(pixels(images.load(path)) - rgb / 255).max() < 1e-7


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"),
        ("1", "tif"),
        ("L", "png"),
        ("L", "tif"),
        ("I;16", "png"),
        ("I;16", "tif"),
        ("I", "tif"),
        ("F", "tif"),
    ],
)
def test_gray_fills_all_three_channels(tmp_path: Path, mode: str, suffix: str) -> None:
    samples, white = {
        "1": (colors(5, 7, 1) > 127, 1),
        "L": (colors(5, 7, 1), 255),
        "I;16": (colors(5, 7, 1, np.uint16), 65535),
        "I": (colors(5, 7, 1, np.uint16).astype(np.int32), 65535),
        "F": (np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7), 1),
    }[mode]
    image = Image.fromarray(samples)
    assert image.mode == mode
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    assert np.abs(pixels(images.load(path)) - gray(samples) / white).max() < 1e-7
    assert np.abs(pixels(images.load(image)) - gray(samples) / white).max() < 1e-7


def test_cmyk_without_profile_is_converted_plainly(tmp_path: Path) -> None:
    inks = np.array([[[255, 0, 0, 0], [0, 255, 0, 0]], [[0, 0, 255, 0], [0, 0, 0, 255]]], np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
    expected = np.array([[[0, 1, 1], [1, 0, 1]], [[1, 1, 0], [0, 0, 0]]])
    assert np.abs(pixels(images.load(tmp_path / "a.tif")) - expected).max() < 1e-7


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., 0] = 200
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(pixels(images.load(tmp_path / "a.jpg")) - [55 / 255, 1, 1]).max() < 0.02


def test_lab_is_converted() -> None:
    lab = np.full((4, 4, 3), [128, 0, 0], np.uint8)  # a and b are signed
    loaded = pixels(images.load(Image.frombytes("LAB", (4, 4), lab.tobytes())))
    assert np.ptp(loaded) < 0.02  # a = b = 0 is gray
    assert abs(loaded.mean() - 0.466) < 0.01  # L* = 50.2


@pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
def test_palette_is_applied(tmp_path: Path, suffix: str) -> None:
    palette, indices = colors(8, 3, 1, seed=1), colors(6, 9, 1) % 8
    image = Image.fromarray(indices).convert("L")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / f"a.{suffix}")
    assert np.abs(pixels(images.load(tmp_path / f"a.{suffix}")) - palette[indices] / 255).max() < 1e-7


def test_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), color) for color in ("#ff0000", "#00ff00")]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert np.abs(pixels(images.load(tmp_path / name)) - [1, 0, 0]).max() < 1e-7


@pytest.mark.parametrize("kind", ["RGBA png", "RGBA tif", "RGBA webp", "LA png", "16-bit RGBA png", "16-bit LA png"])
def test_alpha_is_separate_and_color_is_not_multiplied_by_it(tmp_path: Path, kind: str) -> None:
    dtype = np.uint16 if "16" in kind else np.uint8
    samples = np.maximum(colors(5, 6, 2 if "LA" in kind else 4, dtype), 1)
    path = tmp_path / f"a.{kind.split()[-1]}"
    if path.suffix == ".png":
        write_png(path, samples)
    else:
        Image.fromarray(samples).save(path, lossless=True, exact=True)
    picture = images.load(path)
    values = samples / np.iinfo(dtype).max
    assert np.abs(alpha(picture) - values[..., -1]).max() < 1e-7
    assert np.abs(pixels(picture) - (gray(values[..., 0]) if "LA" in kind else values[..., :3])).max() < 1e-7


def test_opaque_alpha_is_none(tmp_path: Path) -> None:
    samples = colors(4, 4, 4)
    samples[..., 3] = 255
    assert images.load(write_png(tmp_path / "a.png", samples)).alpha is None


def test_hidden_colors_become_the_mean_visible_color(tmp_path: Path) -> None:
    samples = np.zeros((4, 4, 4), np.uint8)
    samples[..., :3] = [0, 255, 0]  # the color of the transparent part
    samples[:2, :2] = [200, 0, 100, 255]
    samples[:2, 2:] = [100, 0, 0, 127]
    picture = images.load(write_png(tmp_path / "a.png", samples))
    weights = np.array([1, 127 / 255])
    mean = weights @ np.array([[200, 0, 100], [100, 0, 0]]) / 255 / weights.sum()
    assert np.abs(pixels(picture)[2:] - mean).max() < 1e-6
    assert np.abs(pixels(picture)[:2] - samples[:2, :, :3] / 255).max() < 1e-6


def test_resizing_does_not_mix_in_hidden_colors() -> None:
    samples = np.zeros((64, 64, 4), np.uint8)
    samples[..., :3] = [0, 255, 0]
    samples[16:48, 16:48] = [200, 30, 100, 255]
    picture = images.load(samples, size=20)
    assert np.abs(pixels(picture) - np.array([200, 30, 100]) / 255).max() < 1e-4
    assert alpha(picture).min() == 0
    assert alpha(picture).max() == 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_transparent_key_becomes_alpha(tmp_path: Path, mode: str) -> None:
    samples = colors(6, 6, 3 if mode == "RGB" else 1)
    samples = samples % 4 if mode == "P" else samples
    image = Image.fromarray(samples).convert("1", dither=Image.Dither.NONE) if mode == "1" else Image.fromarray(samples)
    if mode == "P":
        image.putpalette(colors(4, 3, 1).tobytes())
    stored = np.asarray(image)
    key = tuple(map(int, stored[2, 3])) if mode == "RGB" else int(stored[2, 3]) * (255 if mode == "1" else 1)
    image.save(tmp_path / "a.png", transparency=key)
    expected = (stored != stored[2, 3]).reshape(6, 6, -1).any(axis=2)
    assert np.array_equal(alpha(images.load(tmp_path / "a.png")), expected)


def test_transparent_key_of_16_bits_becomes_alpha(tmp_path: Path) -> None:
    rgb, level = colors(4, 5, 3, np.uint16), colors(4, 5, 1, np.uint16)
    rgb[0, 0] = rgb[1, 1] ^ 1  # same upper bytes, other lower ones
    key = {b"tRNS": rgb[1, 1].astype(">u2").tobytes()}
    expected = (rgb != rgb[1, 1]).any(axis=2)
    assert np.array_equal(alpha(images.load(write_png(tmp_path / "a.png", rgb, key))), expected)
    key = {b"tRNS": level[2:3, 2].astype(">u2").tobytes()}
    assert np.array_equal(alpha(images.load(write_png(tmp_path / "b.png", level, key))), level != level[2, 2])


@pytest.mark.parametrize("bands", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
def test_arrays_load(bands: int | None, dtype: str) -> None:
    kind = np.dtype(dtype)
    whole = colors(4, 6, 12, np.uint16)[..., : bands or 1].astype(np.float64) / 65535
    scale = 1 if kind.kind == "f" else np.iinfo(kind).max
    array = (whole * scale).astype(kind)
    values = array.astype(np.float64) / scale
    picture = images.load(array[..., 0] if bands is None else array)
    assert np.abs(pixels(picture) - (values[..., :3] if bands in (3, 4) else gray(values[..., 0]))).max() < 1e-6
    assert picture.alpha is None if bands not in (2, 4) else np.abs(alpha(picture) - values[..., -1]).max() < 1e-6
    assert picture.path is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_load_without_sharing_memory(dtype: torch.dtype) -> None:
    tensor = torch.rand(3, 4, 5, dtype=dtype, requires_grad=True)
    for source in (tensor, tensor[None]):
        picture = images.load(source)
        assert torch.equal(picture.pixels, source.detach().float().reshape(1, 3, 4, 5))
        assert not picture.pixels.requires_grad
    assert picture.pixels.data_ptr() != tensor.data_ptr()


def test_pillow_image_is_not_modified() -> None:
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.fromarray(colors(4, 6)).save(buffer, "PNG", exif=exif)
    image = Image.open(buffer)
    assert images.load(image).pixels.shape == (1, 3, 6, 4)
    assert image.size == (6, 4)


def test_picture_loads_as_itself_and_resizes() -> None:
    picture = images.load(colors(20, 30, 4))
    assert images.load(picture) is picture
    smaller = images.load(picture, size=15)
    assert smaller.pixels.shape == (1, 3, 10, 15)
    assert alpha(smaller).shape == (10, 15)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (50, 50), (3, 97)])
@pytest.mark.parametrize("size", [16, 50, 120])
def test_size_is_the_longest_side(height: int, width: int, size: int) -> None:
    picture = images.load(colors(height, width), size=size)
    assert max(picture.pixels.shape[2:]) == size
    assert tuple(picture.pixels.shape[2:]) == images.fit(height, width, size)


def test_square_crop_is_the_center_after_resizing() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 80, dtype=np.float32), (40, 80))
    middle = pixels(images.load(ramp, crop=40))
    assert np.abs(middle - gray(ramp[:, 20:60])).max() < 1e-6
    half = pixels(images.load(ramp, crop=20))
    assert half.shape == (20, 20, 3)
    assert np.abs(half[0, :, 0] - (ramp[0, 20:60:2] + ramp[0, 21:60:2]) / 2).max() < 1e-5


@pytest.mark.parametrize("crop", [7, 64, 224, (30, 50), (50, 30), (64, 1)])
@pytest.mark.parametrize("shape", [(64, 64), (33, 90), (90, 33), (2, 100)])
def test_crop_has_exactly_the_requested_shape(shape: tuple[int, int], crop: int | tuple[int, int]) -> None:
    picture = images.load(colors(*shape, 4), crop=crop)
    sides = crop if isinstance(crop, tuple) else (crop, crop)
    assert tuple(picture.pixels.shape[2:]) == sides
    assert alpha(picture).shape == sides
    assert picture.pixels.is_contiguous()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "size"),
        ({"size": 2.5}, "size"),
        ({"size": True}, "size"),
        ({"crop": -1}, "crop"),
        ({"crop": (3, 4, 5)}, "crop"),
        ({"size": 4, "crop": 4}, "got both"),
        ({"max_pixels": 0}, "max_pixels"),
    ],
)
def test_invalid_arguments_are_usage_errors(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        images.load(colors(4, 4), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "source",
    [
        torch.zeros(5),
        torch.zeros(()),
        torch.zeros(5, 4, 5),
        torch.zeros(2, 3, 4, 5),
        torch.zeros(1, 1, 3, 4, 5),
        torch.zeros(3, 4, 5, dtype=torch.int32),
        torch.zeros(3, 4, 5, dtype=torch.complex64),
        torch.zeros(3, 4, 5, device="meta"),
        torch.zeros(3, 4, 5).to_sparse(),
        torch.zeros(1, 3, 4, 5).to_mkldnn(),
        np.zeros((4, 5, 5), np.uint8),
        np.zeros((1, 3, 4, 5), np.uint8),
        np.zeros((4, 5), np.int64),
        np.zeros((4, 5), np.complex64),
        None,
    ],
)
def test_wrong_shapes_and_types_are_usage_errors(source: object) -> None:
    with pytest.raises(UsageError, match="load: expected"):
        images.load(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (torch.zeros(40, 50, 3), r"channels come first: tensor\.permute\(2, 0, 1\)"),
        (np.zeros((3, 40, 50), np.uint8), r"channels come last: array\.transpose\(1, 2, 0\)"),
    ],
)
def test_the_error_for_channels_on_the_wrong_side_says_so(source: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        images.load(source)


# The sample that stands for 1, by type.
TENSORS = {
    torch.uint8: 255,
    torch.uint16: 65535,
    torch.bool: 1,
    torch.float16: None,
    torch.bfloat16: None,
    torch.float32: None,
    torch.float64: None,
}


@pytest.mark.parametrize("dtype", TENSORS, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("leading", ["", "batch", "flat"])
def test_tensors_of_all_types_and_channels(dtype: torch.dtype, channels: int, leading: str) -> None:
    largest = TENSORS[dtype]
    samples = np.random.default_rng(0).random((channels, 6, 7))
    samples[-1, 0, 0] = 1
    values = torch.from_numpy(samples if largest is None else np.round(samples * largest)).to(dtype)
    expected = values.double().numpy() / (largest or 1)
    if leading == "flat" and channels == 1:
        values = values[0]
    picture = images.load(values[None] if leading == "batch" else values)
    color, opacity = (expected[:-1], expected[-1]) if channels in (2, 4) else (expected, None)
    seen = np.ones((6, 7), bool) if opacity is None else opacity > 0
    difference = pixels(picture).transpose(2, 0, 1) - np.broadcast_to(color, (3, 6, 7))
    assert np.abs(difference[:, seen]).max() < 1e-7
    if opacity is None:
        assert picture.alpha is None
    else:
        assert np.abs(alpha(picture) - opacity).max() < 1e-7


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.requires_grad_(),
        lambda x: x.permute(0, 2, 1),
        lambda x: x.flip(2)[:, ::2, 1:],
        lambda x: x[:, :1].expand(3, 8, 9),
        lambda x: x.clone(memory_format=torch.contiguous_format).neg().neg(),
    ],
)
def test_tensors_of_any_layout_are_read_and_not_modified(change: Any) -> None:
    source = change(torch.rand(3, 8, 9))
    before = source.detach().clone()
    picture = images.load(source)
    assert torch.equal(picture.pixels[0], before)
    assert not picture.pixels.requires_grad
    picture.pixels.zero_()
    assert torch.equal(source.detach(), before)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1, ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        lambda x: x.astype(x.dtype.newbyteorder("<"))[::2, 1:],
        lambda x: np.broadcast_to(x[:1], x.shape),
    ],
    ids=["reversed", "Fortran", "big-endian", "strided", "read-only"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_arrays_of_any_layout_are_read_and_not_modified(dtype: type, change: Any) -> None:
    largest = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    source = change((np.random.default_rng(0).random((8, 9, 3)) * largest).astype(dtype))
    before = source.copy()
    picture = images.load(source)
    assert np.abs(pixels(picture) - before.astype(np.float64) / largest).max() < 1e-7
    picture.pixels.zero_()
    assert np.array_equal(source, before)


def test_a_default_device_or_dtype_changes_nothing() -> None:
    sources = [colors(6, 7, 4), torch.rand(4, 6, 7), Image.fromarray(colors(6, 7))]
    wanted = [images.load(source, size=5) for source in sources]
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            found = [images.load(source, size=5) for source in sources]
            sheet = images.sheet([picture.pixels for picture in found])
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(wanted, found, strict=True))
    assert torch.equal(sheet, images.sheet([picture.pixels for picture in wanted]))


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("orientation", [1, 6])
def test_heif_is_read_with_the_plugin_registered_or_not(
    tmp_path: Path, orientation: int, registered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(Image, "OPEN", {name: entry for name, entry in Image.OPEN.items() if name != "HEIF"})
    if registered:
        Image.OPEN["HEIF"] = (plugin.HeifImageFile, lambda prefix: prefix[4:8] == b"ftyp")
    rgb = smooth(40, 56)
    exif = Image.Exif()
    exif[274] = orientation
    samples = np.dstack([(rgb * 255).astype(np.uint8), np.full((40, 56), 128, np.uint8)])
    path = tmp_path / "a.heic"
    plugin.from_pillow(Image.fromarray(samples)).save(path, quality=95, exif=exif.tobytes())
    picture = images.load(path)
    assert np.abs(pixels(picture) - UPRIGHT[orientation](rgb)).max() < 0.05
    assert np.abs(alpha(picture) - 128 / 255).max() < 0.02
    assert ("HEIF" in Image.OPEN) == registered


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.01, 1.01, 255.0])
def test_values_outside_0_to_1_are_rejected(value: float) -> None:
    array = np.full((4, 4, 3), 0.5, np.float32)
    array[1, 2, 0] = value
    for source in (array, torch.from_numpy(array).permute(2, 0, 1), Image.fromarray(array[..., 0])):
        with pytest.raises(ImageError, match=r"expected.* 0\.\.1"):
            images.load(source)


def test_rounding_beyond_0_to_1_is_clamped() -> None:
    assert images.load(torch.full((3, 4, 4), 1.0001)).pixels.max() == 1
