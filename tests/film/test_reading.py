"""Containers are read as players show them: oracles are the pictures that were encoded and packets read by PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import HEIGHT, LEVEL, WIDTH, bars, clip, counted, counts, packets, write

from fastnst.errors import UsageError
from fastnst.film import open_film


def middle(number: int) -> np.ndarray:
    """The colors at the middle of each bar, [8, 3] in 0..1."""
    return bars(number)[HEIGHT * 3 // 4, WIDTH // 16 :: WIDTH // 8] / 255


def seen(pixels: torch.Tensor) -> np.ndarray:
    return pixels[0, :, HEIGHT * 3 // 4, WIDTH // 16 :: WIDTH // 8].T.numpy()


def test_frames_are_those_that_were_encoded(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 12, rate=Fraction(30000, 1001))
    with open_film(path) as film:
        info = film.info
        assert (info.width, info.height, info.count, info.variable) == (WIDTH, HEIGHT, 12, False)
        assert (info.frame_rate, info.has_alpha, info.has_audio, info.path) == (
            Fraction(30000, 1001),
            False,
            False,
            path,
        )
        assert info.duration == pytest.approx(12 * 1001 / 30000)
        frames = list(film)
    assert [frame.number for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == [Fraction(1001 * k, 30000) for k in range(12)]
    for frame in frames:
        assert frame.picture.pixels.shape == (1, 3, HEIGHT, WIDTH)
        assert frame.picture.pixels.dtype == torch.float32
        assert np.abs(seen(frame.picture.pixels) - middle(frame.number)).max() < LEVEL
        assert float(frame.picture.pixels[0, :, 2:9, 8:-8].mean()) * 255 == pytest.approx(counted(frame.number), abs=2)


@pytest.mark.parametrize("first", [1, 3, 4, 7, 8, 11])
def test_reading_from_a_frame_gives_the_same_pictures(tmp_path: Path, first: int) -> None:
    """With B-frames and a key frame every four frames, so that reading starts at each kind of frame."""
    path = clip(tmp_path / "a.mp4", 12, options={"g": "4", "crf": "20", "bf": "2"})
    assert sum(packet.is_keyframe for packet in packets(path)) == 3
    with open_film(path) as film:
        whole = list(film)[first:]
        part = list(film.frames(first))
        assert [frame.number for frame in part] == [frame.number for frame in whole] == list(range(first, 12))
        assert [frame.time for frame in part] == [frame.time for frame in whole]
        for a, b in zip(part, whole, strict=True):
            assert torch.equal(a.picture.pixels, b.picture.pixels)


def test_reading_starts_at_the_key_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastnst.film import containers

    path = clip(tmp_path / "a.mp4", 12, options={"g": "4", "crf": "20", "bf": "0"})
    decoded = []
    original = containers.decode

    def watched(*arguments: object) -> object:
        for frame in original(*arguments):  # type: ignore[arg-type]
            decoded.append(frame.pts)
            yield frame

    with open_film(path) as film:
        monkeypatch.setattr(containers, "decode", watched)
        assert len(list(film.frames(9))) == 3
    assert len(decoded) == 4  # the key frame 8 and those after it


def test_a_film_is_read_many_times_and_by_several_readers_at_once(tmp_path: Path) -> None:
    with open_film(clip(tmp_path / "a.mp4", 4)) as film:
        assert counts(film) == counts(film)
        one, other = iter(film), iter(film)
        assert torch.equal(next(one).picture.pixels, next(other).picture.pixels)
        assert (next(one).number, next(one).number, next(other).number) == (1, 2, 1)


def test_no_frames_beyond_the_last(tmp_path: Path) -> None:
    with open_film(clip(tmp_path / "a.mp4", 3)) as film:
        assert list(film.frames(3)) == []
        with pytest.raises(UsageError, match="frames: expected the number of a frame, from 0, got -1"):
            film.frames(-1)


def test_uneven_times_are_exact(tmp_path: Path) -> None:
    times = [0, 400, 1000, 1700, 1800, 2700]
    path = write(tmp_path / "a.mp4", [bars(k) for k in range(6)], times=times, unit=Fraction(1, 1000))
    unit = packets(path)[0].time_base
    raw = sorted(packet.pts for packet in packets(path))
    assert [stamp * unit for stamp in raw] == [Fraction(time, 1000) for time in times]
    with open_film(path) as film:
        assert film.info.variable
        assert [frame.time for frame in film] == [Fraction(time, 1000) for time in times]
        assert [frame.duration for frame in film][:5] == [Fraction(n, 1000) for n in (400, 600, 700, 100, 900)]


def test_times_of_matroska_are_even_although_the_file_rounds_them(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", 8, rate=Fraction(30000, 1001))
    assert [packet.pts for packet in packets(path)][:4] != [0, 33, 66, 99]  # milliseconds
    with open_film(path) as film:
        assert not film.info.variable
        assert [frame.time for frame in film] == [Fraction(1001 * k, 30000) for k in range(8)]
