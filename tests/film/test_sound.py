"""Sound is kept and stays with the pictures: oracles are packets read by PyAV, and pitch and onset of a sine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import clip, sine

from fastnst.film import FilmWriter, open_film


def copy(source: Path, target: Path, count: int | None = None, **arguments: Any) -> Path:
    with open_film(source) as film, FilmWriter(target, film.info, audio_from=source, **arguments) as writer:
        for frame in film:
            if count is None or frame.number < count:
                writer.add(frame.picture.pixels, time=frame.time, duration=frame.duration)
    return target


def sound(path: Path) -> tuple[str, list[Any], np.ndarray, float]:
    """Codec, packets as bytes, samples, and when the sine starts relative to the pictures."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    with av.open(str(path)) as container:
        stream, video = container.streams.audio[0], container.streams.video[0]
        frames = list(container.decode(stream))
        samples = np.concatenate([frame.to_ndarray().reshape(-1, frame.samples)[0] for frame in frames])
        start = frames[0].pts * frames[0].time_base - video.start_time * video.time_base
        onset = float(start) + int(np.argmax(np.abs(samples) > 0.1)) / 48000
        return stream.codec_context.codec.canonical_name, packets, samples, onset


def pitch(samples: np.ndarray, rate: int = 48000) -> float:
    part = samples[len(samples) // 4 : len(samples) // 4 + 16384]
    return float(np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax()) * rate / len(part)


@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv"])
def test_sound_is_copied_packet_by_packet(tmp_path: Path, name: str) -> None:
    source = clip(tmp_path / "a.mp4", 25, sound=1.0)
    before, after = sound(source), sound(copy(source, tmp_path / name))
    assert after[0] == "aac"
    assert after[1] == before[1]
    assert abs(after[3] - before[3]) < 0.002
    assert pitch(after[2]) == pytest.approx(440, abs=3)


def test_sound_is_encoded_again_where_the_container_takes_no_aac(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 25, sound=1.0)
    codec, _, samples, start = sound(copy(source, tmp_path / "b.webm"))
    assert codec == "opus"
    assert pitch(samples) == pytest.approx(440, abs=3)
    assert abs(start) < 0.005
    assert len(samples) / 48000 == pytest.approx(1.0, abs=0.05)


def test_sound_that_starts_later_and_a_film_that_starts_late_stay_in_sync(tmp_path: Path) -> None:
    """The pictures start at 0.4 s of the file, the sound at 0.6 s."""
    source = tmp_path / "a.mkv"
    clip(source, 25, options={"crf": "8", "bf": "0"})
    late = tmp_path / "late.mkv"
    with av.open(str(source)) as old, av.open(str(late), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        voice: Any = new.add_stream("aac", rate=48000, layout="mono")
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts + 400, packet.dts + 400, video
                new.mux(packet)
        for packet in sine(voice, 0.5):
            packet.pts, packet.dts = packet.pts + 28800, packet.dts + 28800
            new.mux(packet)
    before, after = sound(late), sound(copy(late, tmp_path / "b.mp4"))
    assert before[3] == pytest.approx(0.2, abs=0.002)
    assert abs(after[3] - before[3]) < 0.002
    assert after[1] == before[1]


def test_sound_ends_with_a_film_that_is_shorter(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 25, sound=1.0)
    samples = sound(copy(source, tmp_path / "b.mp4", count=10))[2]
    assert len(samples) / 48000 == pytest.approx(0.4, abs=0.05)


def test_sound_longer_than_the_film_is_kept(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 10, sound=1.0)
    assert sound(copy(source, tmp_path / "b.mp4"))[1] == sound(source)[1]


def test_a_film_without_sound_gives_one_without(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 5)
    with open_film(copy(source, tmp_path / "b.mp4")) as film:
        assert not film.info.has_audio
