"""Films that are written, read by PyAV alone."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from clips import LEVEL, bars, packets

from fastnst.errors import ImageError, UsageError
from fastnst.film import FilmInfo, FilmWriter, check_target

INFO = FilmInfo(64, 48, Fraction(25))


def pixels(number: int) -> torch.Tensor:
    return torch.from_numpy(bars(number)).permute(2, 0, 1)[None].float() / 255


def write(path: Path, info: FilmInfo = INFO, count: int = 5, **arguments: object) -> Path:
    with FilmWriter(path, info, **arguments) as writer:  # type: ignore[arg-type]
        for k in range(count):
            writer.add(pixels(k), time=k / info.frame_rate, duration=1 / info.frame_rate)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm"])
def test_colors_and_tags(tmp_path: Path, name: str) -> None:
    """FFmpeg's own conversion by the tags gives the colors back."""
    path = write(tmp_path / name, quality=90)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 5
    for k, frame in enumerate(frames):
        error = abs(frame[36, 4::8].astype(int) - bars(k)[36, 4::8])
        assert error.max() <= LEVEL * 255 + 1


def test_frame_rate_and_durations(tmp_path: Path) -> None:
    rate = Fraction(24000, 1001)
    path = write(tmp_path / "a.mp4", FilmInfo(64, 48, rate))
    found = sorted(packets(path), key=lambda packet: packet.pts)
    assert [packet.pts * packet.time_base for packet in found] == [k / rate for k in range(5)]
    assert [packet.duration * packet.time_base for packet in found] == [1 / rate] * 5
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == rate


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the threads of Linux")
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_no_thread_becomes_real_time(tmp_path: Path, codec: str) -> None:
    """Where it may, as root, SVT-AV1 makes the thread that opens it real-time, and thereby every later process."""

    def policies() -> set[int]:
        return {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}

    before = policies()
    with FilmWriter(tmp_path / "a.mkv", INFO, codec=codec) as writer:
        for k in range(5):
            writer.add(pixels(k), time=Fraction(k, 25), duration=Fraction(1, 25))
            assert policies() <= before
    assert policies() <= before


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"mine")

    def fail() -> None:
        with FilmWriter(path, INFO) as writer:
            writer.add(pixels(0), time=Fraction(0))
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_without_frames_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageError, match=r"a\.mp4: has no frames; expected at least one"),
        FilmWriter(tmp_path / "a.mp4", INFO),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_targets_are_checked_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a name ending in \.mp4, .*, got '\.mpg'"):
        check_target(tmp_path / "a.mpg")
    with pytest.raises(ImageError, match="there is no folder"):
        check_target(tmp_path / "missing" / "a.mp4")
    with pytest.raises(UsageError, match=r"codec: expected h264, hevc, av1 for \.mp4, got 'h265'"):
        check_target(tmp_path / "a.mp4", codec="h265")
    with pytest.raises(UsageError, match=r"h264 holds no transparency; expected \.mov"):
        check_target(tmp_path / "a.mp4", alpha=True)
    with pytest.raises(UsageError, match="quality: expected a whole number from 1 to 100, got 0"):
        check_target(tmp_path / "a.mp4", quality=0)
