"""Files that are no films, or damaged, or meant to do harm: one line each, and nothing but the file is read."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import bars, clip, counted, counts, packets, refused, sine, write

from fastnst.errors import ImageError, UsageError
from fastnst.film import containers, open_film, opening, timeline

SKIP = r"; expected a whole film, or read what is there with broken='skip' (--broken skip)"


def fast_start(path: Path, count: int = 10, **arguments: Any) -> Path:
    """An MP4 whose index comes first."""
    source = clip(path.with_name(f"source_{path.name}"), count, **arguments)
    with av.open(str(source)) as old, av.open(str(path), "w", options={"movflags": "+faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


def damage(path: Path, number: int, first: int = 8) -> int:
    """Change the bytes of a packet, in the order of the file; returns its timestamp in units of the rate."""
    packet = packets(path)[number]
    data = bytearray(path.read_bytes())
    for at in range(packet.pos + first, packet.pos + packet.size):
        data[at] ^= 0x5A
    path.write_bytes(data)
    return round(packet.pts * packet.time_base * 25)


def test_files_that_are_no_films(tmp_path: Path) -> None:
    assert "no such file; expected a film" in refused(tmp_path / "missing.mp4")
    assert "holds no pictures" in refused(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "is empty; expected a film" in refused(tmp_path / "empty.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is not a regular file" in refused(tmp_path / "pipe.mp4")
    for name, content in (("text.mp4", b"hello, this is no film\n"), ("noise.mkv", bytes(range(256)) * 40)):
        (tmp_path / name).write_bytes(content)
        assert "is no film that can be read" in refused(tmp_path / name)


@pytest.mark.parametrize("address", ["https://example.com/a.mp4", "rtsp://camera/1", "concat:a.mp4|b.mp4", "pipe:0"])
def test_addresses_are_names_of_no_file(address: str) -> None:
    with pytest.raises(ImageError, match=r"is a URL; download it first|no such file"):
        open_film(address)


def test_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        voice: Any = container.add_stream("aac", rate=48000, layout="mono")
        container.mux(sine(voice, 0.2))
        container.mux(voice.encode(None))
    assert "holds sound alone; expected a film with pictures" in refused(tmp_path / "a.mp4")


def test_no_frames(tmp_path: Path) -> None:
    """A Matroska with a video track and nothing in it."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert "it ends before its first frame" in refused(tmp_path / "a.mkv")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_film_that_ends_early(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    options = {"crf": "8", "bf": "0"} if name != "a.avi" else {}
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = tmp_path / name
    if name == "a.mp4":
        fast_start(path, options=options)
    else:
        clip(path, options=options, codec=codec)
    seventh = packets(path)[6]
    path.write_bytes(path.read_bytes()[: seventh.pos + seventh.size // 2])
    message = refused(path)
    last = "the last frame in it is 5 (at 0.200 s)" if name != "a.avi" else "after 7 frames"
    assert "ends early" in message
    assert last in message or "the last frame in it is 6" in message  # half a packet counts if the container has it
    assert message.endswith("or read what is there with broken='skip' (--broken skip)")
    with open_film(path, broken="skip") as film:
        numbers = [frame.number for frame in film]
    assert numbers[:6] == list(range(6))
    assert len(numbers) <= 7
    assert "ends early" in caplog.text


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-200])
    assert "ends early" in refused(path)


@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_broken_frame_is_named_or_skipped(tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture) -> None:
    path = clip(tmp_path / "a.mkv", codec="ffv1", form="bgr0", options={"level": "3", "slicecrc": "1", "g": "1"})
    broken = damage(path, number)
    assert broken == number
    message = refused(path)
    assert f"frame {number} (at {number / 25:.3f} s) is broken" in message
    assert message.endswith("or leave out broken frames with broken='skip' (--broken skip)")
    with open_film(path, broken="skip") as film:
        assert [frame.number for frame in film] == [k for k in range(10) if k != number]
        assert [round(value) for value in counts(film)] == [counted(k) for k in range(10) if k != number]
        assert [frame.number for frame in film.frames(number)] == list(range(number + 1, 10))
    assert caplog.text.count(f"frame {number} (at {number / 25:.3f} s) is broken") == 1
    assert "skipped" in caplog.text


def test_a_broken_frame_among_predicted_ones(tmp_path: Path) -> None:
    """H.264 with B-frames: the timestamp of the packet names the frame."""
    path = clip(tmp_path / "a.mp4", 12, options={"crf": "8", "bf": "2", "g": "100"})
    broken = damage(path, 5)
    message = refused(path)
    assert f"frame {broken} (at {broken / 25:.3f} s) is broken" in message


def test_a_film_that_changes_its_size(tmp_path: Path) -> None:
    small = write(tmp_path / "small.ts", [bars(k) for k in range(5)])
    large = write(tmp_path / "large.ts", [bars(k, 96, 64) for k in range(5)])
    path = tmp_path / "a.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    assert "changes from 64 x 48 to 96 x 64 pixels at frame 5; expected one size" in refused(path)
    assert "changes from 64 x 48" in refused(path, broken="skip")


def test_more_pixels_than_allowed(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 2)
    assert "64 x 48 is 3072 pixels, above the limit of 3000; raise max_pixels" in refused(path, max_pixels=3000)
    with open_film(path, max_pixels=3072) as film:
        assert film.info.count == 2


def test_invalid_arguments(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 2)
    with pytest.raises(UsageError, match="broken: expected refuse or skip, got 'skipp', did you mean skip"):
        open_film(path, broken="skipp")
    with pytest.raises(UsageError, match="max_pixels: expected"):
        open_film(path, max_pixels=0)


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{clip}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{clip}'\n",
    "concat": "file '{clip}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{clip}</BaseURL></MPD>\n',
    "ismc": '<SmoothStreamingMedia MajorVersion="2"></SmoothStreamingMedia>\n',
    "pls": "[playlist]\nFile1={clip}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [None, ".mp4"])
def test_files_that_name_others_are_refused(tmp_path: Path, kind: str, suffix: str | None) -> None:
    path = tmp_path / f"list{suffix or f'.{kind}'}"
    path.write_text(PLAYLISTS[kind].format(clip=clip(tmp_path / "clip.mp4")))
    assert "which names other files; expected one film" in refused(path)


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "mpd", "sdp"])
def test_each_barrier_holds_alone(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at the first bytes the list of formats refuses; with all formats, the list of protocols."""
    path = tmp_path / f"list.{kind}"
    path.write_text(PLAYLISTS[kind].format(clip=clip(tmp_path / "clip.mp4")))
    monkeypatch.setattr(opening, "refuse_playlist", lambda head, path: None)
    assert "is no film that can be read" in refused(path)
    monkeypatch.setattr(opening, "FORMATS", (*opening.FORMATS, "hls", "concat", "dash", "sdp"))
    assert "list" in refused(path)


def test_without_barriers_a_list_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above are of what they say: with the protocols allowed as well, the clip is opened."""
    clip(tmp_path / "clip.mp4", 3)
    path = tmp_path / "list.ffconcat"
    path.write_text("ffconcat version 1.0\nfile clip.mp4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "refuse_playlist", lambda head, path: None)
    monkeypatch.setattr(opening, "FORMATS", (*opening.FORMATS, "concat"))
    assert "list" in refused(path)
    monkeypatch.setattr(opening, "PROTOCOLS", "file")
    with open_film(path) as film:
        assert len(list(film)) == 3


def patched(path: Path, box: bytes, offset: int, value: int) -> Path:
    """An MP4 with a 32-bit number of a box replaced."""
    data = bytearray(path.read_bytes())
    at = data.index(box) + 4 + offset
    data[at : at + 4] = struct.pack(">I", value)
    path.write_bytes(data)
    return path


def test_a_billion_frames(tmp_path: Path) -> None:
    """Of one byte each, so that no table of sizes is needed."""
    path = patched(patched(clip(tmp_path / "a.mp4"), b"stsz", 4, 1), b"stsz", 8, 10**9)
    assert "claims 1000000000 frames or more in a file of" in refused(path)


@pytest.mark.parametrize("box", [b"stts", b"ctts", b"stsc", b"stco", b"stss", b"elst"])
@pytest.mark.parametrize("value", [10**9, 2**32 - 1])
def test_tables_of_a_billion_entries(tmp_path: Path, box: bytes, value: int) -> None:
    """FFmpeg reads what is there; memory is bounded, see tests/fuzz."""
    path = clip(tmp_path / "a.mp4", options={"crf": "8", "bf": "2", "g": "4"})
    assert box in path.read_bytes()
    patched(path, box, 4, value)
    with suppress(ImageError), open_film(path, broken="skip") as film:
        assert len(list(film)) <= 10


def test_sides_of_65535(tmp_path: Path) -> None:
    """PixelWidth and PixelHeight of a Matroska (RFC 9559, 5.1.4.1.28)."""
    large = write(tmp_path / "b.mkv", [bars(0, 512, 512)], codec="ffv1", form="bgr0", options={})
    data = large.read_bytes()
    sides = b"\xb0\x82\x02\x00\xba\x82\x02\x00"
    assert data.count(sides) == 1
    large.write_bytes(data.replace(sides, b"\xb0\x82\xff\xff\xba\x82\xff\xff"))
    assert "its frames have no known size, or more than the limit of" in refused(large)


def test_a_rate_that_is_none(tmp_path: Path) -> None:
    """Timestamps far apart."""
    path = write(tmp_path / "a.mkv", [bars(0), bars(1)], times=[0, 2**31], unit=Fraction(1, 1000))
    with open_film(path) as film:
        assert [float(frame.time) for frame in film] == [0, 2**31 / 1000]


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = clip(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    assert "takes PyAV: pip install fastnst[film]" in refused(path)


def test_a_frame_that_the_decoder_drops_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = containers.decode

    def lossy(*arguments: Any) -> Any:
        for k, frame in enumerate(original(*arguments)):
            if k != 3:
                yield frame

    path = clip(tmp_path / "a.mp4", 6, options={"crf": "8", "bf": "0"})
    monkeypatch.setattr(containers, "decode", lossy)
    assert "frame 3 (at 0.120 s) is broken (the decoder returned nothing for it)" in refused(path)


def test_an_index_that_leads_too_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "a.mp4", 12, options={"g": "4", "crf": "20", "bf": "0"})
    monkeypatch.setattr(timeline.Timeline, "key_before", lambda self, number: self.stamps[8])
    with open_film(path) as film:
        assert [frame.number for frame in film.frames(5)] == list(range(5, 12))
