"""Rotation, pixel aspect, color tags, depth and alpha, against NumPy and the pictures that were encoded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import HEIGHT, LEVEL, WIDTH, bars, clip, write

from fastnst.film import FilmInfo, FilmWriter, open_film


def corners() -> np.ndarray:
    """A picture without symmetry."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2] = (200, 0, 0)
    picture[: HEIGHT // 2, WIDTH // 2 :] = (0, 200, 0)
    picture[HEIGHT // 2 :, : WIDTH // 2] = (0, 0, 200)
    return picture


def first(path: Path) -> np.ndarray:
    with open_film(path) as film:
        frame = next(iter(film))
        assert frame.picture.size == (film.info.height, film.info.width)
        return frame.picture.pixels[0].permute(1, 2, 0).numpy()


def error(found: np.ndarray, meant: np.ndarray) -> float:
    """The largest difference at the middle of each quarter."""
    height, width = meant.shape[:2]
    assert found.shape == meant.shape
    at = np.ix_([height // 4, height * 3 // 4], [width // 4, width * 3 // 4])
    return float(np.abs(found[at] - meant[at] / 255).max())


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation(tmp_path: Path, turns: int) -> None:
    """A display matrix rotates counterclockwise by an angle, as numpy.rot90 does."""
    path = write(tmp_path / "a.mp4", [corners()] * 2, rotation=90 * turns)
    assert error(first(path), np.rot90(corners(), turns)) < LEVEL


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(2), (HEIGHT, 2 * WIDTH)), (Fraction(1, 2), (2 * HEIGHT, WIDTH)), (Fraction(16, 11), (HEIGHT, 93))],
)
def test_pixel_aspect(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    """The shorter side of a pixel is enlarged: 64 * 16 / 11 is 93.09."""
    found = first(write(tmp_path / "a.mkv", [corners()] * 2, aspect=aspect))
    assert found.shape == (*size, 3)
    at = np.ix_([size[0] // 4, size[0] * 3 // 4], [size[1] // 4, size[1] * 3 // 4])
    assert np.abs(found[at][0, 0] * 255 - (200, 0, 0)).max() < 5
    assert np.abs(found[at][1, 0] * 255 - (0, 0, 200)).max() < 5


@pytest.mark.parametrize("wide", [1, 2])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_matrix_and_range_of_the_tags(tmp_path: Path, matrix: int, wide: int) -> None:
    """BT.709, BT.601 and BT.2020, limited and full: pure colors differ by up to 30 levels if the wrong one is used."""
    path = write(tmp_path / "a.mp4", [bars(0)] * 2, matrix=matrix, wide=wide, form="yuv444p")
    found = first(path)[36, 4::8]
    assert np.abs(found - bars(0)[36, 4::8] / 255).max() < LEVEL


@pytest.mark.parametrize(("width", "height", "matrix"), [(64, 48, 6), (1280, 48, 1), (720, 576, 6), (64, 580, 1)])
def test_without_tags_the_size_decides(tmp_path: Path, width: int, height: int, matrix: int) -> None:
    path = write(tmp_path / "a.mp4", [bars(0, width, height)] * 2, matrix=matrix, form="yuv444p", tags=False)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.colorspace == 2  # unspecified
    found = first(path)[height * 3 // 4, width // 16 :: width // 8]
    assert np.abs(found - bars(0, width, height)[height * 3 // 4, width // 16 :: width // 8] / 255).max() < LEVEL


def test_ten_bits_keep_their_depth(tmp_path: Path) -> None:
    """A ramp in 10 bits has more levels than 8 bits hold."""
    ramp = np.linspace(0.4, 0.5, WIDTH * 4, dtype=np.float32)
    pixels = torch.from_numpy(np.broadcast_to(ramp, (1, 3, HEIGHT, WIDTH * 4)).copy())
    path = tmp_path / "a.mov"
    with FilmWriter(path, FilmInfo(WIDTH * 4, HEIGHT, Fraction(25)), codec="prores") as writer:
        writer.add(pixels, time=Fraction(0))
    found = first(path)[HEIGHT // 2, :, 1]
    assert len(np.unique(found)) > 26 * 2  # 0.1 of 255 levels is 26
    assert np.abs(found - ramp).max() < 1.5 / 219


@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "vp9"), ("a.mov", "prores"), ("a.mov", "qtrle"), ("a.mkv", "ffv1"), ("a.mkv", "vp9")]
)
def test_alpha_in_containers(tmp_path: Path, name: str, codec: str) -> None:
    alpha = torch.linspace(0.1, 1, WIDTH).expand(1, 1, HEIGHT, WIDTH)
    pixels = torch.from_numpy(bars(0)).permute(2, 0, 1)[None].float() / 255
    path = tmp_path / name
    with FilmWriter(path, FilmInfo(WIDTH, HEIGHT, Fraction(25), has_alpha=True), codec=codec, quality=95) as writer:
        for k in range(3):
            writer.add(pixels, alpha, time=Fraction(k, 25))
    with open_film(path) as film:
        assert film.info.has_alpha
        for frame in film:
            assert frame.picture.alpha is not None
            assert (frame.picture.alpha - alpha).abs().max() < 0.03
            seen = frame.picture.pixels[0, :, 36, 4::8].T.numpy()
            assert np.abs(seen - bars(0)[36, 4::8] / 255).max() < 0.04


@pytest.mark.parametrize(("name", "size"), [("a.mp4", (66, 50)), ("a.webm", (65, 49)), ("a.mkv", (66, 50))])
def test_odd_sides(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    """H.264 repeats the last column and row: no pixel is lost or blurred. VP9 keeps the size."""
    picture = np.zeros((49, 65, 3), np.uint8)
    picture[...] = (150, 100, 50)
    picture[:, ::8] = 200
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    path = tmp_path / name
    with FilmWriter(path, FilmInfo(65, 49, Fraction(25)), quality=98) as writer:
        writer.add(pixels, time=Fraction(0))
    found = first(path)
    assert found.shape[:2] == (size[1], size[0])
    gray = found[:, :65].mean(2)[:49]
    assert np.abs(gray - picture.mean(2) / 255).mean() < 0.03
    assert np.abs(found[-1] - found[48]).max() < 0.03


def test_ffv1_is_lossless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (49, 65, 3), np.uint8)
    path = tmp_path / "a.mkv"
    with FilmWriter(path, FilmInfo(65, 49, Fraction(25)), codec="ffv1") as writer:
        writer.add(torch.from_numpy(noise).permute(2, 0, 1)[None].float() / 255, time=Fraction(0))
    assert np.array_equal((first(path) * 255).round(), noise)


def test_quality_sets_the_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.random((1, 3, HEIGHT, WIDTH), np.float32))
    sizes = []
    for quality in (20, None, 95):
        path = tmp_path / f"{quality}.mp4"
        with FilmWriter(path, FilmInfo(WIDTH, HEIGHT, Fraction(25)), quality=quality) as writer:
            writer.add(pixels, time=Fraction(0))
        sizes.append(path.stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_codecs_of_mp4(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mp4"
    with FilmWriter(path, FilmInfo(WIDTH, HEIGHT, Fraction(25)), codec=codec, quality=90) as writer:
        for k in range(3):
            pixels = torch.from_numpy(bars(k)).permute(2, 0, 1)[None].float() / 255
            writer.add(pixels, time=Fraction(k, 25))
    with av.open(str(path)) as container:
        context: Any = container.streams.video[0].codec_context
        assert context.codec.canonical_name == codec
        assert (context.colorspace, context.color_range) == (1, 1)
        if codec == "hevc":
            assert context.codec_tag == "hvc1"
    assert np.abs(first(path)[36, 4::8] - bars(0)[36, 4::8] / 255).max() < 0.04


def test_settings_in_every_container(tmp_path: Path) -> None:
    from fastnst.film import read_film_settings

    settings = {"steps": 300, "layers": {"relu1_1": 1.0}, "note": "ä\n'\""}
    for name in ("a.mp4", "a.mov", "a.mkv", "a.webm"):
        path = tmp_path / name
        with FilmWriter(path, FilmInfo(WIDTH, HEIGHT, Fraction(25)), settings=settings) as writer:
            writer.add(torch.zeros(1, 3, HEIGHT, WIDTH), time=Fraction(0))
        assert read_film_settings(path) == settings
    assert read_film_settings(clip(tmp_path / "b.mp4", metadata={"comment": "a holiday"})) is None
